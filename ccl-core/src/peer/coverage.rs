//! Which cells of the transition table a peer has visited, counted for the simulator.

use std::collections::BTreeSet;

use super::phase::{STATES, State, Trigger};

/// The visited cells, one bit each, so that an operation costs no look-up.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    seen: [u32; STATES.len()],
    visited: BTreeSet<(&'static str, &'static str)>,
}

impl Coverage {
    /// Notes an event.
    pub fn note(&mut self, state: State, trigger: Trigger) {
        let bit = 1 << trigger as u32;
        let row = &mut self.seen[state as usize];
        if *row & bit == 0 {
            *row |= bit;
            self.visited.insert((state.name(), trigger.name()));
        }
    }

    /// The cells, by name.
    pub fn visited(&self) -> &BTreeSet<(&'static str, &'static str)> {
        &self.visited
    }
}
