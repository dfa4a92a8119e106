//! Reports about single operations that the master has not been sent yet.
//!
//! `Done` is sent with the outputs of the current input, all in one message. `Posted` is delayed a
//! little: if the result is held before, `Done` alone suffices, so a small operation costs the
//! master one message per peer (P7). A full report includes both and clears this queue.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{OpName, Tag};
use crate::time::Instant;
use crate::wire::control::OpNote;

/// How long a post waits for its operation to be held. Far below every timeout of the protocol, and
/// long enough that short operations hardly wake the timer thread. A sync of shared state does not
/// wait: its election does.
pub(super) const POSTED_DELAY: Duration = Duration::from_millis(5);

/// Pending notes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    posted: BTreeMap<Tag, OpNote>,
    due: Option<Instant>,
    done: Vec<OpNote>,
}

impl Notes {
    /// An operation was posted.
    pub fn add_posted(&mut self, note: OpNote, now: Instant) {
        self.due.get_or_insert(now + POSTED_DELAY);
        self.posted.insert(note.op.tag, note);
    }

    /// The whole result of an operation is here.
    pub fn add_done(&mut self, note: OpNote) {
        self.withdraw_posted(note.op);
        self.done.push(note);
    }

    /// A post need not be sent any more.
    pub fn withdraw_posted(&mut self, op: OpName) {
        if self.posted.get(&op.tag).is_some_and(|note| note.op == op) {
            self.posted.remove(&op.tag);
        }
        if self.posted.is_empty() {
            self.due = None;
        }
    }

    /// When the next posts must be sent.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The posts to send now.
    pub fn take_posted(&mut self) -> Vec<OpNote> {
        self.due = None;
        std::mem::take(&mut self.posted).into_values().collect()
    }

    /// The results to report now.
    pub fn take_done(&mut self) -> Vec<OpNote> {
        std::mem::take(&mut self.done)
    }

    /// Drops all notes: a report contains them, or there is no master.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
