//! The public face of a peer: connect, collectives, handles.

use std::sync::Arc;
use std::time::Duration;

use crate::config::CommunicatorConfig;
use crate::error::{Error, Result};
use crate::ids::{OpName, PeerId, Rank, Tag};
use crate::peer::View;
use crate::reduce::{Dtype, Element, ReduceOp};
use crate::wire::control::{Algorithm, Kind};

/// How one call is to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stream of operations; those of one tag run one after the other, all members in the same order.
    pub tag: Tag,
    /// `Auto` lets the library choose, the same on all members.
    pub algorithm: Algorithm,
    /// When to cancel it for everybody. `None`: the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Most attempts with the survivors after a peer is lost, the first included; 0 and 1: no retry.
    pub attempts: u32,
}

/// A success.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The operation's name in the history.
    pub op: OpName,
    /// Whose data is in the result, in rank order.
    pub contributors: Vec<PeerId>,
    /// The view this peer was in when it was told.
    pub view: Arc<View>,
    /// Attempts it took.
    pub attempts: u32,
}

/// How far an operation is at this peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Payload bytes sent and received so far.
    pub done_bytes: u64,
    /// Payload bytes this peer will have sent and received at the end.
    pub total_bytes: u64,
}

/// Counters of a communicator since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations that committed.
    pub commits: u64,
    /// Operations that were aborted.
    pub aborts: u64,
    /// Lanes that broke and were repaired.
    pub repairs: u64,
    /// Bytes sent to other peers.
    pub sent_bytes: u64,
    /// Bytes received from other peers.
    pub received_bytes: u64,
}

/// One buffer of a [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct RawPart {
    /// What this peer contributes. May equal `receive`: in place.
    pub send: *const u8,
    /// Where the result goes.
    pub receive: *mut u8,
    /// Elements: of the whole buffer for all-reduce and broadcast, of one rank's share for all-gather
    /// and reduce-scatter.
    pub count: usize,
    /// Element type.
    pub dtype: Dtype,
}

/// A collective on raw memory, for the C and Python edges.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which collective.
    pub kind: Kind,
    /// How elements combine, where they do.
    pub op: ReduceOp,
    /// The source of a broadcast.
    pub root: Rank,
    /// The buffers; one unless many.
    pub parts: Vec<RawPart>,
    /// Tag, deadline, algorithm, retry.
    pub options: Options,
}

/// A member of a run. Cheap to clone; all methods may be called from any thread.
#[derive(Clone, Debug)]
pub struct Communicator {}

/// An operation under way on memory that the caller vouches for. Dropping it cancels and waits.
#[derive(Debug)]
pub struct RawHandle {}

/// An operation under way on buffers that it owns. Dropping it cancels and waits.
#[derive(Debug)]
pub struct Handle<B> {
    _buffers: B,
}

/// Where operations on borrowed buffers live; see [`Communicator::scope`].
#[derive(Debug)]
pub struct Scope<'scope> {
    _scope: std::marker::PhantomData<&'scope mut &'scope ()>,
}

/// An operation under way on buffers borrowed for `'scope`.
#[derive(Debug)]
pub struct ScopedHandle<'scope> {
    _scope: std::marker::PhantomData<&'scope ()>,
}

#[allow(unused_variables, missing_docs, clippy::unused_self)]
impl Communicator {
    /// Joins a run: registers with the master, links with the members, and returns once admitted.
    /// Blocks up to `connect_timeout`; the master may start later than the peers.
    pub fn connect(config: CommunicatorConfig) -> Result<Self> {
        unimplemented!()
    }
    pub fn peer(&self) -> PeerId {
        unimplemented!()
    }
    pub fn rank(&self) -> Rank {
        unimplemented!()
    }
    pub fn world_size(&self) -> u32 {
        unimplemented!()
    }
    pub fn view(&self) -> Arc<View> {
        unimplemented!()
    }
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }
    /// Safe point: admits waiting newcomers. Blocks until all members are there if anybody waits.
    pub fn update_topology(&self) -> Result<Arc<View>> {
        unimplemented!()
    }
    /// In place.
    pub fn all_reduce<T: Element>(
        &self,
        buffer: &mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    /// Out of place; lengths must be equal.
    pub fn all_reduce_into<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    /// A list of buffers as one transaction, in place.
    pub fn all_reduce_many<T: Element>(
        &self,
        buffers: &mut [&mut [T]],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    /// `receive` is `world_size` times as long as `send`.
    pub fn all_gather<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    /// `send` is `world_size` times as long as `receive`.
    pub fn reduce_scatter<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    pub fn broadcast<T: Element>(
        &self,
        buffer: &mut [T],
        root: Rank,
        options: &Options,
    ) -> Result<Outcome> {
        unimplemented!()
    }
    pub fn barrier(&self, options: &Options) -> Result<Outcome> {
        unimplemented!()
    }
    /// Starts an in-place all-reduce of owned buffers as one transaction.
    pub fn all_reduce_start<T: Element>(
        &self,
        buffers: Vec<Vec<T>>,
        op: ReduceOp,
        options: &Options,
    ) -> Result<Handle<Vec<Vec<T>>>> {
        unimplemented!()
    }
    /// Runs operations on borrowed buffers at once; all have ended when it returns.
    pub fn scope<'env, R>(&self, f: impl for<'scope> FnOnce(&'scope Scope<'scope>) -> R) -> R {
        unimplemented!()
    }
    /// Starts a collective on raw memory.
    ///
    /// # Safety
    /// The memory of every part must stay valid, and be used by nobody else, until the handle says
    /// that the operation has ended, or has been dropped.
    #[allow(unsafe_code)]
    pub unsafe fn start_raw(&self, request: Request) -> Result<RawHandle> {
        unimplemented!()
    }
    /// Leaves the run; other clones get `Ended` from then on.
    pub fn leave(self) -> Result<()> {
        unimplemented!()
    }
}

#[allow(missing_docs, unused_variables, clippy::missing_errors_doc)]
impl<B> Handle<B> {
    /// Waits for the end; the buffers hold the result, or after an error the input.
    pub fn wait(self) -> (B, Result<Outcome>) {
        unimplemented!()
    }
    /// Waits at most so long: `Error::Timeout` if the operation goes on.
    pub fn wait_for(&mut self, timeout: Duration) -> Result<()> {
        Err(Error::Timeout)
    }
    pub fn is_finished(&self) -> bool {
        unimplemented!()
    }
    pub fn cancel(&self) {
        unimplemented!()
    }
    pub fn progress(&self) -> Progress {
        unimplemented!()
    }
}

#[allow(missing_docs, unused_variables, clippy::missing_errors_doc)]
impl<'scope> Scope<'scope> {
    pub fn all_reduce<T: Element>(
        &'scope self,
        buffer: &'scope mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<ScopedHandle<'scope>> {
        unimplemented!()
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl ScopedHandle<'_> {
    pub fn wait(self) -> Result<Outcome> {
        unimplemented!()
    }
    pub fn is_finished(&self) -> bool {
        unimplemented!()
    }
    pub fn cancel(&self) {
        unimplemented!()
    }
    pub fn progress(&self) -> Progress {
        unimplemented!()
    }
}
