//! Notes about single operations that the master has not been sent yet.
//!
//! Where the master decides, `Done` is sent with the outputs of the current input. All other notes
//! are delayed a little: a newer one of the same tag says all that an older one says, since whoever
//! posts an operation has the verdicts of all before it. So operations that are faster than the
//! delay cost the master one message for many (P7). A full report includes all notes and clears
//! this queue.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{OpName, Tag};
use crate::time::Instant;
use crate::wire::control::OpNote;

/// How long a post waits for its operation to be held. Far below every timeout of the protocol, and
/// long enough that short operations hardly wake the timer thread. A sync of shared state does not
/// wait: its election does.
pub(super) const POSTED_DELAY: Duration = Duration::from_millis(5);
/// How long a result waits to be reported where the members know the verdict by themselves.
pub(super) const DONE_DELAY: Duration = Duration::from_millis(20);

/// Pending notes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    delayed: BTreeMap<Tag, Delayed>,
    due: Option<Instant>,
    done: Vec<OpNote>,
}

#[derive(Debug)]
struct Delayed {
    note: OpNote,
    is_done: bool,
}

impl Notes {
    /// An operation was posted.
    pub fn add_posted(&mut self, note: OpNote, now: Instant) {
        self.delay(note, false, now + POSTED_DELAY);
    }

    /// The whole result of an operation is here, and the master must know.
    pub fn add_done(&mut self, note: OpNote) {
        self.withdraw(note.op);
        self.done.push(note);
    }

    /// The whole result of an operation is here.
    pub fn add_done_later(&mut self, note: OpNote, now: Instant) {
        self.withdraw(note.op);
        self.delay(note, true, now + DONE_DELAY);
    }

    /// The master knows the verdict.
    pub fn withdraw(&mut self, op: OpName) {
        self.withdraw_if(op, |_| true);
    }

    /// This peer knows the verdict.
    pub fn withdraw_posted(&mut self, op: OpName) {
        self.withdraw_if(op, |delayed| !delayed.is_done);
    }

    /// When the delayed notes must be sent.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The delayed notes: posts, and results.
    pub fn take_delayed(&mut self) -> (Vec<OpNote>, Vec<OpNote>) {
        self.due = None;
        let delayed = std::mem::take(&mut self.delayed).into_values();
        let (done, posted): (Vec<_>, Vec<_>) = delayed.partition(|delayed| delayed.is_done);
        let notes = |delayed: Vec<Delayed>| delayed.into_iter().map(|it| it.note).collect();
        (notes(posted), notes(done))
    }

    /// The results to report now.
    pub fn take_done(&mut self) -> Vec<OpNote> {
        std::mem::take(&mut self.done)
    }

    /// Drops all notes: a report contains them, or there is no master.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn delay(&mut self, note: OpNote, is_done: bool, until: Instant) {
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
        self.delayed.insert(note.op.tag, Delayed { note, is_done });
    }

    fn withdraw_if(&mut self, op: OpName, is_void: impl Fn(&Delayed) -> bool) {
        let delayed = self.delayed.get(&op.tag);
        if delayed.is_some_and(|delayed| delayed.note.op == op && is_void(delayed)) {
            self.delayed.remove(&op.tag);
        }
        if self.delayed.is_empty() {
            self.due = None;
        }
    }
}
