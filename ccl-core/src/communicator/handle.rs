//! Handles of operations in progress: wait, wait with a deadline, poll, cancel, progress.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::driver::peer::call::Call;
use crate::driver::peer::completion::Finished;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, Progress};

/// An operation in progress on raw memory. Dropping the handle cancels the operation and waits for
/// the verdict, so that the memory is free afterwards.
#[derive(Debug)]
pub struct RawHandle {
    call: Arc<Call>,
}

impl RawHandle {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    /// Blocks until the operation has ended. Later calls return the same.
    ///
    /// # Errors
    /// Why it did not commit; the input is intact.
    pub fn wait(&self) -> Result<Outcome> {
        self.call.check_process()?;
        outcome(self.call.completion().wait())
    }

    /// Blocks at most `timeout`. The operation goes on either way.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then, else as [`RawHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.call.check_process()?;
        if self.call.completion().wait_for(timeout) {
            self.wait()
        } else {
            Err(Error::Timeout)
        }
    }

    /// Whether it has ended, successfully or not. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.call.completion().is_finished()
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    pub fn cancel(&self) {
        self.call.cancel();
    }

    /// Its progress at this peer; after the end, its last progress. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.call.progress()
    }

    /// The call behind this handle.
    pub(super) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.call)
    }

    /// Whether this peer is a source in a sync; `None` before the election, and for other
    /// operations.
    pub(super) fn is_source(&self) -> Option<bool> {
        self.call.is_source()
    }

    /// Cancels it unless it has ended, and waits for the end.
    pub(super) fn settle(&self) {
        if self.call.check_process().is_err() {
            // Nobody moves the parent's bytes here, and nobody would end the call.
            return;
        }
        if !self.is_finished() {
            self.cancel();
            let _verdict = self.call.completion().wait();
        }
    }

    /// Polls for the end. Keeps only the newest waker; an I/O thread of the library wakes it, so it
    /// must not block.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Result<Outcome>> {
        self.call.completion().poll(context.waker()).map(outcome)
    }
}

impl Drop for RawHandle {
    fn drop(&mut self) {
        self.settle();
    }
}

fn outcome(end: Result<Finished>) -> Result<Outcome> {
    match end? {
        Finished::Operation(outcome) => Ok(outcome),
        Finished::SafePoint(_) | Finished::Recorded(_) | Finished::Left => {
            unreachable!("the driver ends a call as its kind")
        }
    }
}

/// An operation in progress on buffers that the handle owns. Also a future. Dropping it cancels the
/// operation and waits until it has ended.
#[derive(Debug)]
#[must_use = "dropping it cancels the operation"]
pub struct Handle<B> {
    /// Declared before `buffers`, so that it is dropped first: its drop waits until nothing touches
    /// them. An error if the operation did not start.
    raw: Result<RawHandle>,
    buffers: Option<B>,
}

impl<B> Handle<B> {
    pub(super) fn new(raw: Result<RawHandle>, buffers: B) -> Self {
        let buffers = Some(buffers);
        Self { raw, buffers }
    }

    /// Blocks until it has ended. The buffers then hold the result, or after an error the input.
    ///
    /// # Panics
    /// If it was already waited for as a future.
    pub fn wait(mut self) -> (B, Result<Outcome>) {
        let end = self.started().and_then(RawHandle::wait);
        let buffers = self.buffers.take();
        (buffers.expect("taken only when the handle ends"), end)
    }

    /// Blocks at most `timeout`. The operation goes on either way.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then; else as [`RawHandle::wait`], or why it did
    /// not start.
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.started()?.wait_for(timeout)
    }

    /// Whether it has ended, successfully or not. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.as_ref().is_ok_and(RawHandle::is_finished) || self.raw.is_err()
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    pub fn cancel(&self) {
        if let Ok(raw) = &self.raw {
            raw.cancel();
        }
    }

    /// Its progress at this peer. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let raw = self.raw.as_ref();
        raw.map_or_else(|_not_started| Progress::default(), RawHandle::progress)
    }

    fn started(&self) -> Result<&RawHandle> {
        self.raw.as_ref().map_err(Clone::clone)
    }
}

impl<B: Unpin> Future for Handle<B> {
    type Output = (B, Result<Outcome>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = match self.started() {
            Ok(raw) => raw.poll(context),
            Err(error) => Poll::Ready(Err(error)),
        };
        poll.map(|end| {
            let buffers = self.buffers.take();
            (buffers.expect("not polled after it was ready"), end)
        })
    }
}
