//! Operations under way: wait, wait with a deadline, poll, cancel, progress.
#![allow(unsafe_code)]

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::communicator::{Communicator, Outcome, Progress, RawPart, Request};
use crate::driver::call::Call;
use crate::driver::completion::Finished;
use crate::error::{Error, Result};
use crate::ids::Rank;
use crate::reduce::{Element, ReduceOp};
use crate::wire::control::Kind;

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
pub struct Handle<B> {
    /// Before `buffers`: dropping the handle waits until nothing touches them.
    raw: RawHandle,
    buffers: Option<B>,
}

impl<B> Handle<B> {
    /// Blocks until it has ended; the buffers hold the result, or after an error the input.
    ///
    /// # Panics
    /// If it was already waited for as a future.
    pub fn wait(mut self) -> (B, Result<Outcome>) {
        let end = self.raw.wait();
        (
            self.buffers
                .take()
                .expect("taken only when the handle ends"),
            end,
        )
    }

    /// Blocks at most `timeout`. The operation goes on whatever comes of it.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then, else as [`RawHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.raw.wait_for(timeout)
    }

    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// How far it is at this peer. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.raw.progress()
    }
}

impl<B: Unpin> Future for Handle<B> {
    type Output = (B, Result<Outcome>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = self.raw.poll(context);
        poll.map(|end| {
            (
                self.buffers.take().expect("not polled after it was ready"),
                end,
            )
        })
    }
}

impl Communicator {
    /// Starts an all-reduce of buffers that the handle owns, in place, as one transaction.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::InvalidUsage`] at once; the rest from the handle.
    pub fn all_reduce_start<T: Element>(
        &self,
        mut buffers: Vec<Vec<T>>,
        op: ReduceOp,
        options: &crate::Options,
    ) -> Result<Handle<Vec<Vec<T>>>> {
        let parts = buffers
            .iter_mut()
            .map(|buffer| RawPart::in_place(buffer))
            .collect();
        let request = Request {
            kind: Kind::AllReduce,
            op,
            root: Rank(0),
            world_size: None,
            parts,
            options: options.clone(),
        };
        // SAFETY: the handle owns the vectors' memory, does not touch it, and outlives the
        // operation: if the handle is leaked, so are the vectors.
        let raw = unsafe { self.start_raw(request) }?;
        Ok(Handle {
            raw,
            buffers: Some(buffers),
        })
    }

    /// Runs operations on borrowed buffers at the same time. Every operation started in `f` has
    /// ended when this returns; what was not waited for is cancelled.
    ///
    /// ```no_run
    /// # fn f(communicator: &ccl_core::Communicator) -> ccl_core::Result<()> {
    /// # use ccl_core::{Options, ReduceOp, Tag};
    /// let (mut gradients, mut loss) = (vec![0.0_f32; 1 << 20], [0.0_f64]);
    /// communicator.scope(|scope| {
    ///     let other = Options { tag: Tag(1), ..Options::default() };
    ///     let a = scope.all_reduce(&mut gradients, ReduceOp::Avg, &Options::default())?;
    ///     let b = scope.all_reduce(&mut loss, ReduceOp::Avg, &other)?;
    ///     a.wait()?;
    ///     b.wait()
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<'env, F, R>(&'env self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        let scope = Scope {
            communicator: self,
            calls: crate::lock::Mutex::default(),
            scope: PhantomData,
            env: PhantomData,
        };
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&scope)));
        // No borrow ends before its operation, not even that of a leaked handle.
        scope.calls.lock().iter().for_each(|call| call.settle());
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Where operations on borrowed buffers live; see [`Communicator::scope`].
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    communicator: &'env Communicator,
    calls: crate::lock::Mutex<Vec<Arc<RawHandle>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Starts an in-place all-reduce.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::InvalidUsage`] at once; the rest from the handle.
    pub fn all_reduce<T: Element>(
        &'scope self,
        buffer: &'scope mut [T],
        op: ReduceOp,
        options: &crate::Options,
    ) -> Result<ScopedHandle<'scope>> {
        self.start(vec![RawPart::in_place(buffer)], op, options)
    }

    /// Starts an all-reduce out of place; both buffers are equally long.
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn all_reduce_into<T: Element>(
        &'scope self,
        send: &'scope [T],
        receive: &'scope mut [T],
        op: ReduceOp,
        options: &crate::Options,
    ) -> Result<ScopedHandle<'scope>> {
        self.start(vec![RawPart::out_of_place(send, receive)?], op, options)
    }

    fn start(
        &self,
        parts: Vec<RawPart>,
        op: ReduceOp,
        options: &crate::Options,
    ) -> Result<ScopedHandle<'scope>> {
        let options = options.clone();
        let request = Request {
            kind: Kind::AllReduce,
            op,
            root: Rank(0),
            world_size: None,
            parts,
            options,
        };
        // SAFETY: the buffers are borrowed for `'scope`, and `Communicator::scope` does not return
        // before every call in `calls` has ended, panics included.
        let raw = Arc::new(unsafe { self.communicator.start_raw(request) }?);
        self.calls.lock().push(Arc::clone(&raw));
        Ok(ScopedHandle {
            raw,
            scope: PhantomData,
        })
    }
}

/// An operation under way on buffers borrowed for `'scope`.
#[derive(Clone, Debug)]
pub struct ScopedHandle<'scope> {
    raw: Arc<RawHandle>,
    scope: PhantomData<&'scope ()>,
}

impl ScopedHandle<'_> {
    /// Blocks until it has ended.
    ///
    /// # Errors
    /// Why it was not committed; the input is intact.
    pub fn wait(self) -> Result<Outcome> {
        self.raw.wait()
    }

    /// Blocks at most `timeout`. The operation goes on whatever comes of it.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it has not ended by then, else as [`ScopedHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.raw.wait_for(timeout)
    }

    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// How far it is at this peer. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.raw.progress()
    }
}
