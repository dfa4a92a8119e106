//! The thread that makes long copies, so that only the calls that need them wait for them.

use std::sync::Weak;
use std::sync::mpsc::{Receiver, SendError};

use crate::collective::{LargeCopy, Staged};
use crate::driver::peer::completion::LastStep;
use crate::driver::peer::deferred::Ending;
use crate::driver::peer::drive::EndCallsOnPanic;
use crate::driver::peer::session::Session;
use crate::limits;

/// Something that takes its time.
pub(super) enum Job {
    /// Own data that is part of a result.
    Own(LargeCopy),
    /// A result on its way to the caller's memory, and what follows.
    Home(LastStep),
    /// Idle memory goes back to the system.
    Trim,
}

impl Session {
    /// Brings a result home and tells the call's end. A thread that waits for the end does it, or
    /// the copier, unless it is short: other work may wait for the calling thread.
    pub(super) fn bring_home(&self, staged: Staged, ending: Ending) {
        if staged.bytes() <= INLINE_BYTES_MAX {
            staged.bring_home();
            return self.tell(ending);
        }
        let Some(session) = self.weak.upgrade() else {
            return;
        };
        let completion = ending.completion();
        let last_step = move || {
            staged.bring_home();
            session.tell(ending);
        };
        if let Some(last_step) = completion.hand_over(Box::new(last_step)) {
            self.hand_to_copier(Job::Home(last_step));
        }
    }

    /// Has the copier do it.
    pub(super) fn hand_to_copier(&self, job: Job) {
        if let Err(SendError(job)) = self.jobs.send(job) {
            // The thread ended by a panic, and the session with it: the copy is still owed.
            self.do_job(job);
        }
    }

    fn do_job(&self, job: Job) {
        match job {
            Job::Own(copy) => self.engine.copy(copy),
            Job::Home(last_step) => last_step(),
            Job::Trim => self.engine.trim(),
        }
    }
}

/// The thread; ends with the session.
pub(super) fn run(session: &Weak<Session>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let Some(session) = session.upgrade() else {
            return;
        };
        let _guard = EndCallsOnPanic::new(&session);
        session.do_job(job);
    }
}

/// Results up to this length are copied on the way: it takes as long as an addition of a segment,
/// which the same threads make all the time.
const INLINE_BYTES_MAX: usize = limits::SEGMENT_BYTES_MAX;
