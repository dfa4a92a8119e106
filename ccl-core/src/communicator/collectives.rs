//! The collectives of a communicator: blocking on borrowed buffers, asynchronous on owned ones.
//!
//! For asynchronous collectives on borrowed buffers, see `scope`.
#![allow(unsafe_code)]

use crate::collective::Brought;
use crate::communicator::handle::Handle;
use crate::communicator::request::{Collective, Options, RawPart, Request};
use crate::communicator::{Communicator, RawHandle, memory};
use crate::driver::peer::call::Operation;
use crate::error::{Error, Result};
use crate::ids::{Rank, Tag};
use crate::outcome::Outcome;
use crate::reduce::{Element, ReduceOp};

/// Blocking.
impl Communicator {
    /// Reduces a buffer of the same length from every member, in place.
    ///
    /// # Errors
    /// [`Error::PeerLost`]: call again. [`Error::TooFewPeers`]: admit more peers first.
    /// [`Error::Cancelled`]: a member cancelled it or made another call. Any fatal error
    /// ([`Error::is_fatal`]). After an error the buffer holds the input.
    pub fn all_reduce<T: Element>(
        &self,
        buffer: &mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let parts = vec![RawPart::in_place(buffer)];
        self.run(Request::all_reduce(parts, reduce_op, options))
    }

    /// Reduces a buffer of the same length from every member into `receive`, whose content is
    /// undefined after an error. `send` is never written.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`]; [`Error::InvalidArgument`] if the lengths differ.
    pub fn all_reduce_into<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let parts = vec![RawPart::out_of_place(send, receive)?];
        self.run(Request::all_reduce(parts, reduce_op, options))
    }

    /// Reduces a list of buffers, in place, as one transaction: all are reduced over the same
    /// contributors, or none is touched.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn all_reduce_many<T: Element>(
        &self,
        buffers: &mut [&mut [T]],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let parts = buffers.iter_mut().map(|buffer| RawPart::in_place(buffer));
        self.run(Request::all_reduce(parts.collect(), reduce_op, options))
    }

    /// Collects every member's `send` in rank order; `receive` is `world_size` times as long.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce_into`].
    pub fn all_gather<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        options: &Options,
    ) -> Result<Outcome> {
        self.run(Request::shares(self.gather(), send, receive, options)?)
    }

    /// Reduces buffers of `world_size` equal shares and gives each member the share of its rank;
    /// `send` is `world_size` times as long as `receive`.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce_into`].
    pub fn reduce_scatter<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let collective = self.scatter(reduce_op);
        self.run(Request::shares(collective, send, receive, options)?)
    }

    /// Sends the buffer of rank `root` to all members.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn broadcast<T: Element>(
        &self,
        buffer: &mut [T],
        root: Rank,
        options: &Options,
    ) -> Result<Outcome> {
        self.run(Request::broadcast(buffer, root, options))
    }

    /// Blocks until all members have called it.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn barrier(&self, options: &Options) -> Result<Outcome> {
        self.run(Request::barrier(options))
    }

    fn run(&self, request: Request) -> Result<Outcome> {
        // SAFETY: the buffers are borrowed by the caller's frame, which waits for the end here.
        unsafe { self.raw_async(request) }?.wait()
    }
}

/// Asynchronous, on buffers that the handle owns until the operation ends and then returns. None of
/// them blocks. All errors come from the handle, so that no buffer is lost.
impl Communicator {
    /// Starts [`Communicator::all_reduce`].
    pub fn all_reduce_async<T: Element>(
        &self,
        mut buffer: Vec<T>,
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Handle<Vec<T>> {
        let parts = vec![RawPart::in_place(&mut buffer)];
        self.start(Ok(Request::all_reduce(parts, reduce_op, options)), buffer)
    }

    /// Starts [`Communicator::all_reduce_into`]. The handle owns `send` and `receive`.
    pub fn all_reduce_into_async<T: Element>(
        &self,
        send: Vec<T>,
        mut receive: Vec<T>,
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Handle<(Vec<T>, Vec<T>)> {
        let part = RawPart::out_of_place(&send, &mut receive);
        let request = part.map(|part| Request::all_reduce(vec![part], reduce_op, options));
        self.start(request, (send, receive))
    }

    /// Starts [`Communicator::all_reduce_many`].
    pub fn all_reduce_many_async<T: Element>(
        &self,
        mut buffers: Vec<Vec<T>>,
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Handle<Vec<Vec<T>>> {
        let parts = buffers.iter_mut().map(|buffer| RawPart::in_place(buffer));
        let request = Request::all_reduce(parts.collect(), reduce_op, options);
        self.start(Ok(request), buffers)
    }

    /// Starts [`Communicator::all_gather`]. The handle owns `send` and `receive`.
    pub fn all_gather_async<T: Element>(
        &self,
        send: Vec<T>,
        mut receive: Vec<T>,
        options: &Options,
    ) -> Handle<(Vec<T>, Vec<T>)> {
        let request = Request::shares(self.gather(), &send, &mut receive, options);
        self.start(request, (send, receive))
    }

    /// Starts [`Communicator::reduce_scatter`]. The handle owns `send` and `receive`.
    pub fn reduce_scatter_async<T: Element>(
        &self,
        send: Vec<T>,
        mut receive: Vec<T>,
        reduce_op: ReduceOp,
        options: &Options,
    ) -> Handle<(Vec<T>, Vec<T>)> {
        let collective = self.scatter(reduce_op);
        let request = Request::shares(collective, &send, &mut receive, options);
        self.start(request, (send, receive))
    }

    /// Starts [`Communicator::broadcast`].
    pub fn broadcast_async<T: Element>(
        &self,
        mut buffer: Vec<T>,
        root: Rank,
        options: &Options,
    ) -> Handle<Vec<T>> {
        let request = Request::broadcast(&mut buffer, root, options);
        self.start(Ok(request), buffer)
    }

    /// Starts [`Communicator::barrier`].
    pub fn barrier_async(&self, options: &Options) -> Handle<()> {
        self.start(Ok(Request::barrier(options)), ())
    }

    fn start<B>(&self, request: Result<Request>, buffers: B) -> Handle<B> {
        // SAFETY: the handle owns the vectors' memory, does not touch it, and outlives the
        // operation: if the handle is leaked, so are the vectors.
        let raw = request.and_then(|request| unsafe { self.raw_async(request) });
        Handle::new(raw, buffers)
    }

    /// Starts a collective on raw memory. Does not block.
    ///
    /// # Errors
    /// At once: [`Error::InvalidArgument`], [`Error::InvalidUsage`], [`Error::WorldChanged`], or
    /// the error that ended the session. From the handle: any but the first.
    ///
    /// # Safety
    /// The memory of every part must stay valid, and must not be accessed, until the handle reports
    /// that the operation has ended or has been dropped.
    pub unsafe fn raw_async(&self, request: Request) -> Result<RawHandle> {
        self.session().check_open()?;
        if request.options.tag == Tag::SHARED_STATE {
            return Err(Error::invalid(format!(
                "tag {} is reserved for shared state; use another",
                Tag::SHARED_STATE
            )));
        }
        let world_size = self.world_size();
        let made_for = request.collective.world_size();
        // Another thread's call may have brought a new view since the caller looked.
        if made_for.is_some_and(|made_for| made_for != world_size) {
            return Err(Error::WorldChanged { world_size });
        }
        if let Collective::Broadcast { root } = request.collective
            && root.0 >= world_size
        {
            return Err(Error::invalid(format!(
                "root is rank {root}, but the world size is {world_size}"
            )));
        }
        // SAFETY: passed on from the caller.
        let buffers = unsafe { memory::lend(&request, world_size as usize) }?;
        let depends_on_ranks = request.collective.depends_on_ranks();
        let options = &request.options;
        let operation = Operation {
            fingerprint: memory::fingerprint(&request, self.session().min_world_size()),
            brought: Brought {
                buffers,
                weight: options.weight.unwrap_or(1),
                seed: options.seed,
            },
            tag: request.options.tag,
            deadline: request.options.deadline,
            holding: None,
            world_size: depends_on_ranks.then_some(world_size as usize),
        };
        self.session().post(operation).map(RawHandle::new)
    }

    pub(super) fn gather(&self) -> Collective {
        let world_size = self.world_size();
        Collective::AllGather { world_size }
    }

    pub(super) fn scatter(&self, reduce_op: ReduceOp) -> Collective {
        let world_size = self.world_size();
        Collective::ReduceScatter {
            reduce_op,
            world_size,
        }
    }
}
