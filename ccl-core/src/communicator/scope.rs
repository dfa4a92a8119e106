//! Concurrent operations on borrowed buffers, which all end with their scope.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::communicator::request::{Options, RawPart, Request};
use crate::communicator::{Communicator, RawHandle};
use crate::error::Result;
use crate::ids::Rank;
use crate::lock::Mutex;
use crate::outcome::{Outcome, Progress};
use crate::reduce::{Element, ReduceOp};

impl Communicator {
    /// Runs several operations on borrowed buffers at once. Every operation started in `f` has
    /// ended when this returns; those that were not waited for are cancelled.
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
            calls: Mutex::default(),
            scope: PhantomData,
            env: PhantomData,
        };
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&scope)));
        // No borrow ends before its operation does, even if its handle was leaked.
        scope.calls.lock().iter().for_each(|call| call.settle());
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A scope for operations on borrowed buffers; see [`Communicator::scope`].
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    communicator: &'env Communicator,
    calls: Mutex<Vec<Arc<RawHandle>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Starts [`Communicator::all_reduce`].
    ///
    /// # Errors
    /// At once: [`crate::Error::InvalidArgument`], [`crate::Error::InvalidUsage`],
    /// [`crate::Error::WorldChanged`], or the error that ended the session. All others from the
    /// handle.
    pub fn all_reduce<T: Element>(
        &'scope self,
        buffer: &'scope mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        let parts = vec![RawPart::in_place(buffer)];
        self.start(Request::all_reduce(parts, reduce_op, options))
    }

    /// Starts [`Communicator::all_reduce_into`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn all_reduce_into<T: Element>(
        &'scope self,
        send: &'scope [T],
        receive: &'scope mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        let parts = vec![RawPart::out_of_place(send, receive)?];
        self.start(Request::all_reduce(parts, reduce_op, options))
    }

    /// Starts [`Communicator::all_reduce_many`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn all_reduce_many<T: Element>(
        &'scope self,
        buffers: &mut [&'scope mut [T]],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        let parts = buffers.iter_mut().map(|buffer| RawPart::in_place(buffer));
        self.start(Request::all_reduce(parts.collect(), reduce_op, options))
    }

    /// Starts [`Communicator::all_gather`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn all_gather<T: Element>(
        &'scope self,
        send: &'scope [T],
        receive: &'scope mut [T],
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        let collective = self.communicator.gather();
        self.start(Request::shares(collective, send, receive, options)?)
    }

    /// Starts [`Communicator::reduce_scatter`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn reduce_scatter<T: Element>(
        &'scope self,
        send: &'scope [T],
        receive: &'scope mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        let collective = self.communicator.scatter(reduce_op);
        self.start(Request::shares(collective, send, receive, options)?)
    }

    /// Starts [`Communicator::broadcast`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn broadcast<T: Element>(
        &'scope self,
        buffer: &'scope mut [T],
        root: Rank,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        self.start(Request::broadcast(buffer, root, options))
    }

    /// Starts [`Communicator::barrier`].
    ///
    /// # Errors
    /// As [`Scope::all_reduce`].
    pub fn barrier(&'scope self, options: &Options) -> Result<ScopedHandle<'scope>> {
        self.start(Request::barrier(options))
    }

    fn start(&self, request: Request) -> Result<ScopedHandle<'scope>> {
        // SAFETY: the buffers are borrowed for `'scope`, and `Communicator::scope` does not return
        // before every call in `calls` has ended, panics included.
        let raw = Arc::new(unsafe { self.communicator.raw_async(request) }?);
        self.calls.lock().push(Arc::clone(&raw));
        Ok(ScopedHandle {
            raw,
            scope: PhantomData,
        })
    }
}

/// An operation in progress on buffers borrowed for `'scope`.
#[derive(Clone, Debug)]
pub struct ScopedHandle<'scope> {
    raw: Arc<RawHandle>,
    scope: PhantomData<&'scope ()>,
}

impl ScopedHandle<'_> {
    /// Blocks until it has ended.
    ///
    /// # Errors
    /// Why it did not commit; the input is intact.
    pub fn wait(self) -> Result<Outcome> {
        self.raw.wait()
    }

    /// Blocks at most `timeout`. The operation goes on either way.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] if it has not ended by then, else as [`ScopedHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Outcome> {
        self.raw.wait_for(timeout)
    }

    /// Whether it has ended, successfully or not. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// Its progress at this peer. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.raw.progress()
    }
}
