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

/// A sync in progress, which owns its state. Any number of threads may wait for it. Dropping it
/// cancels the sync and waits until nothing touches the state.
#[derive(Debug)]
#[must_use = "dropping it cancels the sync"]
pub struct SyncHandle<S> {
    /// Declared before `owned`, so that it is dropped first: its drop waits until nothing touches
    /// the state.
    raw: RawHandle,
    owned: Mutex<Owned<S>>,
}

#[derive(Debug)]
struct Owned<S> {
    /// `None` once the caller has taken it back.
    state: Option<S>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    UnderWay(Syncing),
    Over(Result<SyncInfo>),
}

impl Communicator {
    /// Starts a sync of a state that the handle owns until the end. Hashes the state on the calling
    /// thread, then returns. `S` is a [`SharedState`], or a type that holds one together with its
    /// memory.
    ///
    /// # Errors
    /// At once, together with the state: [`crate::Error::InvalidArgument`], and
    /// [`crate::Error::InvalidUsage`] if another sync is in progress. All others from the handle.
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

    /// Cancels the sync unless it has ended, and blocks until nothing touches the state.
    pub fn settle(&self) {
        self.raw.settle();
        // Waiting threads get the result.
        let _ = self.wait();
    }

    /// Takes the state back if the sync has ended; only the first call returns it. Does not block.
    pub fn take_state(&self) -> Option<S> {
        if !self.is_finished() {
            return None;
        }
        // Waiting threads get the result.
        let _ = self.wait();
        let mut owned = self.owned.lock();
        match owned.stage {
            Stage::UnderWay(_) => None,
            Stage::Over(_) => owned.state.take(),
        }
    }

    /// Converts the end, or a timeout. The first thread that sees the end updates the state.
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
        // Dropping the last clone of a session leaves the run, which takes a while.
        drop(before);
        end
    }
}

impl<S> SyncHandle<S> {
    /// Whether it has ended, successfully or not. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Polls for the end. Keeps only the newest waker; a thread of the library wakes it, so it must
    /// not block.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.raw.poll(context).map(drop)
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
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
