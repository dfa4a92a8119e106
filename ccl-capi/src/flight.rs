//! A sync under way, with the state that it borrows: nobody else reaches that before the end.
//!
//! What C says and is told of it is in `sync`; who lends the state is `shared_state`.

use std::ptr::NonNull;
use std::task::{Context, Poll};
use std::time::Duration;

use ccl_core::lock::RwLock;
use ccl_core::{Error, Progress, SyncHandle, SyncInfo, SyncOptions};

/// A sync that was started, until the state is back: any number of threads may wait for it.
#[derive(Debug)]
pub(crate) struct Flight {
    stage: RwLock<Stage>,
}

/// A sync that has the state, or why there is none, and the state.
pub(crate) type Started = Result<Flight, (Error, Box<ccl_core::SharedState<'static>>)>;

#[derive(Debug)]
enum Stage {
    /// The handle is used through a shared lock, for as long as it takes.
    UnderWay(Syncing),
    /// The state is for whoever lent it, once.
    Over {
        end: Result<SyncInfo, Error>,
        /// How far it was, and whether it gave.
        last: (Progress, Option<bool>),
        state: Option<Box<ccl_core::SharedState<'static>>>,
    },
}

impl Flight {
    /// Starts a sync of a state, or gives the state back with an error.
    pub(crate) fn start(
        communicator: &ccl_core::Communicator,
        state: Box<ccl_core::SharedState<'static>>,
        options: &SyncOptions,
    ) -> Started {
        let syncing = Syncing::start(communicator, state, options)?;
        let stage = RwLock::new(Stage::UnderWay(syncing));
        Ok(Self { stage })
    }

    /// Blocks until it has ended.
    pub(crate) fn wait(&self) -> Result<SyncInfo, Error> {
        loop {
            match self.wait_for(Duration::MAX) {
                Err(Error::Timeout) if !self.is_finished() => {}
                end => return end,
            }
        }
    }

    /// Blocks at most `timeout`.
    pub(crate) fn wait_for(&self, timeout: Duration) -> Result<SyncInfo, Error> {
        let is_finished = match &*self.stage.read() {
            Stage::UnderWay(syncing) => syncing.handle().wait_for(timeout),
            Stage::Over { end, .. } => return end.clone(),
        };
        if !is_finished {
            return Err(Error::Timeout);
        }
        self.finish();
        match &*self.stage.read() {
            Stage::UnderWay(_) => Err(Error::Timeout),
            Stage::Over { end, .. } => end.clone(),
        }
    }

    /// Whether it has ended, one way or another.
    pub(crate) fn is_finished(&self) -> bool {
        match &*self.stage.read() {
            Stage::UnderWay(syncing) => syncing.handle().is_finished(),
            Stage::Over { .. } => true,
        }
    }

    /// Whether it has ended, or a promise to wake.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        match &*self.stage.read() {
            Stage::UnderWay(syncing) => syncing.handle().poll(context),
            Stage::Over { .. } => Poll::Ready(()),
        }
    }

    /// Asks to abort it for all members.
    pub(crate) fn cancel(&self) {
        if let Stage::UnderWay(syncing) = &*self.stage.read() {
            syncing.handle().cancel();
        }
    }

    /// Cancels it unless it has ended, and waits until nothing touches the memory.
    pub(crate) fn end(&self) {
        self.cancel();
        let _how_is_for_those_who_waited = self.wait();
    }

    /// How far it is, or was when it ended.
    pub(crate) fn progress(&self) -> Progress {
        match &*self.stage.read() {
            Stage::UnderWay(syncing) => syncing.handle().progress(),
            Stage::Over { last, .. } => last.0,
        }
    }

    /// As the core's handle says.
    pub(crate) fn is_source(&self) -> Option<bool> {
        match &*self.stage.read() {
            Stage::UnderWay(syncing) => syncing.handle().is_source(),
            Stage::Over { last, .. } => last.1,
        }
    }

    /// The state, if the sync has ended and it was not given back before. Does not block: whoever
    /// waits for the end holds the lock shared, and would hold up a writer and everybody after it.
    pub(crate) fn give_back(&self) -> Option<Box<ccl_core::SharedState<'static>>> {
        if !self.is_finished() {
            return None;
        }
        self.finish();
        match &mut *self.stage.write() {
            Stage::UnderWay(_) => None,
            Stage::Over { state, .. } => state.take(),
        }
    }

    /// Takes the end of a sync that has ended.
    fn finish(&self) {
        let mut stage = self.stage.write();
        let lost = Stage::Over {
            end: Err(Error::Ended("the sync was lost to a panic".into())),
            last: (Progress::default(), None),
            state: None,
        };
        *stage = match std::mem::replace(&mut *stage, lost) {
            Stage::UnderWay(syncing) => {
                let watch = syncing.handle().watch();
                let (end, state) = syncing.finish();
                Stage::Over {
                    end,
                    last: (watch.progress(), watch.is_source()),
                    state: Some(state),
                }
            }
            over @ Stage::Over { .. } => over,
        };
    }
}

/// A sync of a state that it owns: the handle borrows the state.
#[derive(Debug)]
struct Syncing {
    /// Taken by `finish` or `drop`, before the state.
    handle: Option<SyncHandle<'static, 'static>>,
    /// From a box. Nobody uses it while there is a handle.
    state: NonNull<ccl_core::SharedState<'static>>,
}

// SAFETY: the state may be sent to and shared with other threads, and so may a box of it.
unsafe impl Send for Syncing {}
// SAFETY: as above.
unsafe impl Sync for Syncing {}

impl Syncing {
    fn start(
        communicator: &ccl_core::Communicator,
        state: Box<ccl_core::SharedState<'static>>,
        options: &SyncOptions,
    ) -> Result<Self, (Error, Box<ccl_core::SharedState<'static>>)> {
        let state = NonNull::from(Box::leak(state));
        // SAFETY: it comes from a box that is freed after the handle is gone, in `finish` or
        // `drop`, and is not reached in any other way before.
        let borrowed = unsafe { &mut *state.as_ptr() };
        // SAFETY: `finish` and `drop` end the handle before the state is used; if neither runs, the
        // state is leaked with it.
        match unsafe { communicator.sync_shared_state_async(borrowed, options) } {
            Ok(handle) => Ok(Self {
                handle: Some(handle),
                state,
            }),
            // SAFETY: from a box, and the borrow has ended with the call.
            Err(error) => Err((error, unsafe { Box::from_raw(state.as_ptr()) })),
        }
    }

    fn handle(&self) -> &SyncHandle<'static, 'static> {
        self.handle.as_ref().expect("taken with the whole only")
    }

    /// Waits, and gives the state back.
    fn finish(mut self) -> (Result<SyncInfo, Error>, Box<ccl_core::SharedState<'static>>) {
        let handle = self.handle.take().expect("taken with the whole only");
        let end = handle.wait();
        let state = self.state;
        std::mem::forget(self);
        // SAFETY: from a box; the handle is gone, and `drop` does not run.
        (end, unsafe { Box::from_raw(state.as_ptr()) })
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        // Cancels, and waits until nothing touches the state.
        drop(self.handle.take());
        // SAFETY: from a box; the handle is gone.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}
