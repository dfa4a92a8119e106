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

/// An operation under way on memory that the caller vouches for. Dropping it cancels and waits for
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
    /// Why it was not committed; the input is intact.
    pub fn wait(&self) -> Result<Outcome> {
        self.call.check_process()?;
        outcome(self.call.completion().wait())
    }

    /// Blocks at most `timeout`. The operation goes on whatever comes of it.
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

    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.call.completion().is_finished()
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        self.call.cancel();
    }

    /// How far it is at this peer, or was when it ended. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.call.progress()
    }

    /// The call that it waits for.
    pub(super) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.call)
    }

    /// Whether this peer gives its content in a sync; `None` before the election, and for others.
    pub(super) fn is_source(&self) -> Option<bool> {
        self.call.is_source()
    }

    /// Cancels unless it has ended, and waits until it has.
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

    /// The end, or a promise to wake the context's waker when there is one; the newest waker
    /// counts. Wakers are woken by the library's I/O threads and must not block.
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
        Finished::SafePoint(_) | Finished::Left => {
            unreachable!("the driver ends a call as its kind")
        }
    }
}

/// An operation under way on buffers that it owns. Also a future. Dropping it cancels and waits.
#[derive(Debug)]
#[must_use = "dropping it cancels the operation"]
pub struct Handle<B> {
    /// Before `buffers`: dropping the handle waits until nothing touches them. An error if it did
    /// not start.
    raw: Result<RawHandle>,
    buffers: Option<B>,
}

impl<B> Handle<B> {
    pub(super) fn new(raw: Result<RawHandle>, buffers: B) -> Self {
        let buffers = Some(buffers);
        Self { raw, buffers }
    }

    /// Blocks until it has ended; the buffers hold the result, or after an error the input.
    ///
    /// # Panics
    /// If it was already waited for as a future.
    pub fn wait(mut self) -> (B, Result<Outcome>) {
        let end = self.started().and_then(RawHandle::wait);
        let buffers = self.buffers.take();
        (buffers.expect("taken only when the handle ends"), end)
    }

    /// Blocks at most `timeout`. The operation goes on whatever comes of it.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then, else as [`RawHandle::wait`], or why it did
    /// not start.
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.started()?.wait_for(timeout)
    }

    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.as_ref().is_ok_and(RawHandle::is_finished) || self.raw.is_err()
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        if let Ok(raw) = &self.raw {
            raw.cancel();
        }
    }

    /// How far it is at this peer. Does not block.
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
