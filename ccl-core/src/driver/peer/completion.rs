//! The completion of a call: the driver sets it, the caller waits for it.

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::lock::{Condvar, Mutex};

use crate::driver::peer::session::session_error;
use crate::error::Result;
use crate::outcome::{Outcome, Recorded};
use crate::peer::{SessionEnd, View};

/// How a call succeeded.
#[derive(Clone, Debug)]
pub enum Finished {
    /// A collective committed.
    Operation(Outcome),
    /// A safe point was released.
    SafePoint(Arc<View>),
    /// A step was sealed.
    Recorded(Box<Recorded>),
    /// The peer has left.
    Left,
}

/// What is left to do until a call can end; does it, and ends the call.
pub type LastStep = Box<dyn FnOnce() + Send>;

/// The end of one call, written once.
#[derive(Debug, Default)]
pub struct Completion {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    end: Option<Result<Finished>>,
    waker: Option<Waker>,
    /// Threads that wait for as long as it takes.
    waiting: u32,
    /// For one of them to do.
    last_step: Option<LastStep>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("end", &self.end)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Completion {
    /// A call that has not ended.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Ends the call and wakes the waiting threads.
    fn finish(&self, end: Result<Finished>) {
        let waker = {
            let mut slot = self.slot.lock();
            assert!(slot.end.is_none(), "a call ends once");
            slot.end = Some(end);
            slot.waker.take()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has the last step done by a thread that waits for the end anyway, for as long as it takes;
    /// gives it back if there is none.
    pub fn hand_over(&self, last_step: LastStep) -> Option<LastStep> {
        let mut slot = self.slot.lock();
        if slot.waiting == 0 {
            return Some(last_step);
        }
        let earlier = slot.last_step.replace(last_step);
        assert!(earlier.is_none(), "a call has one last step");
        drop(slot);
        self.changed.notify_all();
        None
    }

    /// Whether the call has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.slot.lock().end.is_some()
    }

    /// Blocks until the call has ended.
    pub fn wait(&self) -> Result<Finished> {
        let mut slot = self.slot.lock();
        loop {
            if let Some(end) = &slot.end {
                return end.clone();
            }
            if let Some(last_step) = slot.last_step.take() {
                drop(slot);
                last_step();
                slot = self.slot.lock();
                continue;
            }
            slot.waiting += 1;
            slot = self.changed.wait(slot);
            slot.waiting -= 1;
        }
    }

    /// Blocks at most `timeout`; whether the call has ended.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let is_open = |slot: &mut Slot| slot.end.is_none();
        let slot = self
            .changed
            .wait_while_for(self.slot.lock(), is_open, timeout);
        slot.end.is_some()
    }

    /// The end, or a promise to wake `waker` when there is one. The newest waker counts.
    pub fn poll(&self, waker: &Waker) -> Poll<Result<Finished>> {
        let mut slot = self.slot.lock();
        match &slot.end {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                slot.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// The duty to end a call. If it is dropped without that, because of a panic, the call ends as
/// unknown, so that no thread waits forever.
#[derive(Debug)]
pub(super) struct Duty(Arc<Completion>);

impl Duty {
    /// Creates the only duty for one call.
    pub(super) fn new(completion: Arc<Completion>) -> Self {
        Self(completion)
    }

    /// Ends the call and wakes the waiting threads.
    pub(super) fn finish(self, end: Result<Finished>) {
        self.0.finish(end);
    }

    /// Where the end will be.
    pub(super) fn completion(&self) -> &Arc<Completion> {
        &self.0
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.finish(Err(session_error(&SessionEnd::Internal)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_waiter_sees_the_one_end() {
        let completion = Completion::new();
        let waiter = {
            let completion = Arc::clone(&completion);
            std::thread::spawn(move || completion.wait())
        };
        assert!(!completion.wait_for(Duration::from_millis(1)));
        Duty::new(Arc::clone(&completion)).finish(Err(Error::Forked));
        assert!(matches!(waiter.join().unwrap(), Err(Error::Forked)));
        assert!(matches!(completion.wait(), Err(Error::Forked)));
        assert!(completion.wait_for(Duration::ZERO));
    }

    #[test]
    fn a_duty_that_is_dropped_ends_its_call() {
        let completion = Completion::new();
        drop(Duty::new(Arc::clone(&completion)));
        let end = completion.wait();
        assert!(matches!(end, Err(Error::Unknown(_))), "{end:?}");
    }

    /// The last step of `completion`, which tells the thread that did it.
    fn last_step(completion: &Arc<Completion>) -> (LastStep, std::sync::mpsc::Receiver<String>) {
        let (sender, thread) = std::sync::mpsc::channel();
        let duty = Duty::new(Arc::clone(completion));
        let last_step = move || {
            let thread = std::thread::current();
            sender
                .send(thread.name().unwrap_or_default().into())
                .unwrap();
            duty.finish(Ok(Finished::Left));
        };
        (Box::new(last_step), thread)
    }

    #[test]
    fn the_last_step_is_done_by_a_thread_that_waits_for_as_long_as_it_takes() {
        let completion = Completion::new();
        let (mut step, thread) = last_step(&completion);
        let waiter = {
            let completion = Arc::clone(&completion);
            let thread = std::thread::Builder::new().name("waiter".into());
            thread.spawn(move || completion.wait()).unwrap()
        };
        // Until a thread waits, nothing does it.
        while let Some(back) = completion.hand_over(step) {
            step = back;
            std::thread::yield_now();
        }
        assert_eq!(thread.recv().unwrap(), "waiter");
        assert!(matches!(waiter.join().unwrap(), Ok(Finished::Left)));
    }

    #[test]
    fn whoever_waits_for_a_while_is_given_nothing_to_do() {
        let completion = Completion::new();
        let (step, _thread) = last_step(&completion);
        let waiter = {
            let completion = Arc::clone(&completion);
            std::thread::spawn(move || completion.wait_for(Duration::from_secs(30)))
        };
        let step = completion.hand_over(step).expect("nobody may do it");
        step();
        assert!(waiter.join().unwrap());
    }
}
