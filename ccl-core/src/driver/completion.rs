//! Where a call's end is put by the driver and waited for by the caller.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::communicator::Outcome;
use crate::error::Result;
use crate::peer::View;

/// A successful end.
#[derive(Clone, Debug)]
pub enum Finished {
    /// A collective committed.
    Operation(Outcome),
    /// A safe point was released.
    SafePoint(Arc<View>),
    /// The peer has left.
    Left,
}

/// The end of one call, written once.
#[derive(Debug, Default)]
pub struct Completion {
    slot: Mutex<Slot>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    end: Option<Result<Finished>>,
    waker: Option<Waker>,
}

impl Completion {
    /// A call that has not ended.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Ends the call and wakes whoever waits.
    pub fn finish(&self, end: Result<Finished>) {
        let waker = {
            let mut slot = self.slot.lock();
            assert!(slot.end.is_none(), "a call ends once");
            slot.end = Some(end);
            slot.waker.take()
        };
        self.finished.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
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
            self.finished.wait(&mut slot);
        }
    }

    /// Blocks at most `timeout`; whether the call has ended.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let mut slot = self.slot.lock();
        self.finished
            .wait_while_for(&mut slot, |slot| slot.end.is_none(), timeout);
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
        completion.finish(Err(Error::Forked));
        assert!(matches!(waiter.join().unwrap(), Err(Error::Forked)));
        assert!(matches!(completion.wait(), Err(Error::Forked)));
        assert!(completion.wait_for(Duration::ZERO));
    }
}
