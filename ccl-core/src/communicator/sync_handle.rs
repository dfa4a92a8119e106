//! A sync that owns its state until it ends, for callers that cannot wait in a scope.
#![allow(unsafe_code)]

use std::borrow::BorrowMut;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::communicator::sync::Syncing;
use crate::communicator::{Communicator, RawHandle, SharedState, SyncInfo, SyncOptions};
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::outcome::{Outcome, Progress};

/// A sync under way of a state that it owns. Any number of threads may wait for it. Dropping it
/// cancels, and waits until nothing touches the state.
#[derive(Debug)]
#[must_use = "dropping it cancels the sync"]
pub struct SyncHandle<S> {
    /// Before `owned`: dropping it waits until nothing touches the state.
    raw: RawHandle,
    owned: Mutex<Owned<S>>,
}

#[derive(Debug)]
struct Owned<S> {
    /// `None` when it was given back.
    state: Option<S>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    UnderWay(Syncing),
    Over(Result<SyncInfo>),
}

impl Communicator {
    /// Starts a sync of a state that the handle owns until its end: hashes the state, which takes
    /// the calling thread's time, and returns. `S` is a [`SharedState`], or what holds one and its
    /// memory.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`], and [`crate::Error::InvalidUsage`] if another sync is
    /// under way, with the state; the rest from the handle.
    ///
    /// The state's memory cannot be used before the end, even if the handle is leaked:
    ///
    /// ```compile_fail,E0597
    /// # fn f(communicator: &ccl_core::Communicator) -> ccl_core::Result<()> {
    /// let mut weights = vec![0.0_f32; 1 << 20];
    /// let mut state = ccl_core::SharedState::new(0);
    /// state.add("weights", &[1 << 20], &mut weights)?;
    /// std::mem::forget(communicator.sync_shared_state_async(state, &Default::default()));
    /// drop(weights); // The library would still write them.
    /// # Ok(())
    /// # }
    /// ```
    pub fn sync_shared_state_async<S: BorrowMut<SharedState<'static>> + 'static>(
        &self,
        mut state: S,
        options: &SyncOptions,
    ) -> Result<SyncHandle<S>, (Error, S)> {
        // SAFETY: nobody else reaches the state before the end: the handle owns it, and is leaked
        // with it. Its memory is the state's for ever, or as long as `add_raw`'s caller says.
        match unsafe { self.start_sync(state.borrow_mut(), options) } {
            Err(error) => Err((error, state)),
            Ok((raw, syncing)) => Ok(SyncHandle {
                raw,
                owned: Mutex::new(Owned {
                    state: Some(state),
                    stage: Stage::UnderWay(syncing),
                }),
            }),
        }
    }
}

impl<S: BorrowMut<SharedState<'static>>> SyncHandle<S> {
    /// Blocks until it has ended. Later calls return the same.
    ///
    /// # Errors
    /// As [`Communicator::sync_shared_state`].
    pub fn wait(&self) -> Result<SyncInfo> {
        self.end(self.raw.wait())
    }

    /// Blocks at most `timeout`. A timeout does not end the sync.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then, else as [`SyncHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<SyncInfo> {
        self.end(self.raw.wait_for(timeout))
    }

    /// Cancels it unless it has ended, and blocks until nothing touches the state.
    pub fn settle(&self) {
        self.raw.settle();
        // How it ended is for those who wait for it.
        let _ = self.wait();
    }

    /// The state, once, if it has ended. Does not block.
    pub fn take_state(&self) -> Option<S> {
        if !self.is_finished() {
            return None;
        }
        // How it ended is for those who wait for it.
        let _ = self.wait();
        let mut owned = self.owned.lock();
        match owned.stage {
            Stage::UnderWay(_) => None,
            Stage::Over(_) => owned.state.take(),
        }
    }

    /// What an end, or the lack of one, means. The first to see the end settles the state.
    fn end(&self, end: Result<Outcome>) -> Result<SyncInfo> {
        if let Err(error @ (Error::Timeout | Error::Forked)) = end {
            return Err(error);
        }
        let mut owned = self.owned.lock();
        let Owned { state, stage } = &mut *owned;
        let end = match stage {
            Stage::Over(end) => return end.clone(),
            Stage::UnderWay(syncing) => {
                let state = state
                    .as_mut()
                    .expect("the state is taken only after the end");
                syncing.end(state.borrow_mut(), end)
            }
        };
        let before = std::mem::replace(stage, Stage::Over(end.clone()));
        drop(owned);
        // The last of a session leaves it, which takes a while.
        drop(before);
        end
    }
}

impl<S> SyncHandle<S> {
    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Whether it has ended, or a promise to wake the context's waker when it has; the newest waker
    /// counts. Wakers are woken by the library's threads and must not block.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.raw.poll(context).map(drop)
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// As [`crate::SyncWatch::progress`].
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.raw.progress()
    }

    /// As [`crate::SyncWatch::is_source`].
    #[must_use]
    pub fn is_source(&self) -> Option<bool> {
        self.raw.is_source()
    }
}
