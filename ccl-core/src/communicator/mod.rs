//! The public face of a peer: connect, collectives, handles.

mod census;
mod handle;
mod memory;
mod pending;
mod shared_state;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use crate::config::CommunicatorConfig;
use crate::driver::call::Operation;
use crate::driver::peer::Session;
use crate::error::{Error, Result};
use crate::ids::{OpName, PeerId, Rank, Tag};
use crate::peer::View;
use crate::reduce::{Dtype, Element, ReduceOp};
use crate::wire::control::{Algorithm, Kind};

pub use census::Census;
pub use handle::{Handle, RawHandle, Scope, ScopedHandle};
pub use pending::{Connecting, SafePoint};
pub use shared_state::{Hashes, SharedState};
pub use sync::{SyncHandle, SyncInfo, SyncOptions, SyncWatch};

/// How one call is to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stream of operations; those of one tag run one after the other, all members in the same
    /// order.
    pub tag: Tag,
    /// `Auto` lets the library choose, the same on all members.
    pub algorithm: Algorithm,
    /// When to cancel it for everybody. `None`: the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Most attempts with the survivors after a peer is lost, the first included; 0 and 1: no
    /// retry.
    pub attempts: u32,
    /// What the caller calls a collective that it makes of this one, such as `reduce to rank 2`:
    /// the same at all members, at most 128 bytes. Empty: nothing.
    pub caller: String,
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
    /// Data connections of the widest link there is now.
    pub lanes: u16,
}

/// One buffer of a [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct RawPart {
    /// What this peer contributes. May equal `receive`: in place.
    pub send: *const u8,
    /// Where the result goes.
    pub receive: *mut u8,
    /// Elements: of the whole buffer for all-reduce and broadcast, of one rank's share for
    /// all-gather and reduce-scatter.
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
    /// Members that the buffers are made for; if there are others by now, nothing is started.
    /// `None`: whoever is there, for collectives whose lengths and root do not depend on it.
    pub world_size: Option<u32>,
    /// The buffers; one unless many.
    pub parts: Vec<RawPart>,
    /// Tag, deadline, algorithm, retry.
    pub options: Options,
}

/// A member of a run.
///
/// Cheap to clone; every method may be called from any thread, and blocks only where it says so.
/// When the last clone is dropped, the peer leaves the run; that waits at most a second for the
/// master's farewell, and ends whatever is still open.
#[derive(Clone, Debug)]
pub struct Communicator {
    membership: Arc<Membership>,
}

/// Ends the session with the last clone of its communicator.
#[derive(Debug)]
struct Membership(Arc<Session>);

impl Drop for Membership {
    fn drop(&mut self) {
        if self.0.check_process().is_err() {
            // The threads that the session would wait for are the parent's.
            return std::mem::forget(Arc::clone(&self.0));
        }
        self.0.close();
    }
}

impl RawPart {
    /// A buffer whose result replaces its input.
    pub fn in_place<T: Element>(buffer: &mut [T]) -> Self {
        let receive = buffer.as_mut_ptr().cast::<u8>();
        Self {
            send: receive.cast_const(),
            receive,
            count: buffer.len(),
            dtype: T::DTYPE,
        }
    }

    /// A buffer whose result goes to another of the same length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the lengths differ.
    pub fn out_of_place<T: Element>(send: &[T], receive: &mut [T]) -> Result<Self> {
        expect_length("receive", receive.len(), send.len())?;
        Ok(Self {
            send: send.as_ptr().cast(),
            receive: receive.as_mut_ptr().cast(),
            count: send.len(),
            dtype: T::DTYPE,
        })
    }
}

fn expect_length(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} has {found} elements, {expected} are needed"
    )))
}

impl Communicator {
    /// Joins a run: registers with the master, links with the members, and returns once admitted.
    /// Blocks up to `connect_timeout`; the master may start later than the peers.
    ///
    /// # Errors
    /// [`Error::MasterUnreachable`], [`Error::NotAdmitted`] if the members reached no safe point in
    /// time, [`Error::Refused`] with the master's reason, [`Error::InvalidArgument`],
    /// [`Error::Os`].
    pub fn connect(config: CommunicatorConfig) -> Result<Self> {
        let connecting = Self::connect_start(config)?;
        loop {
            if let Some(communicator) = connecting.wait_for(Duration::MAX)? {
                return Ok(communicator);
            }
        }
    }

    /// This session's name in the run's events and errors.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.session().peer()
    }

    /// Rank in the view of the newest result.
    #[must_use]
    pub fn rank(&self) -> Rank {
        let (view, peer) = (self.view(), self.peer());
        let index = view
            .members
            .iter()
            .position(|member| member.peer == peer)
            .unwrap_or_default();
        Rank(u32::try_from(index).expect("a view has at most WORLD_SIZE_MAX members"))
    }

    /// Members of the view of the newest result.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.view().members.len()).expect("a view has at most WORLD_SIZE_MAX members")
    }

    /// The view of the newest result. It changes only when a call returns (docs/protocol.md, R16).
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.session().view()
    }

    /// Newcomers that the next `update_topology` may admit, as far as this peer has heard.
    #[must_use]
    pub fn pending_peers(&self) -> u32 {
        self.session().pending_peers()
    }

    /// What this peer waits for at the moment, in words for a user: at a safe point, who has not
    /// come to it. `None` if it waits for nobody.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.session().waits_for()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.session().counters()
    }

    /// The address that other peers reach this one at.
    #[must_use]
    pub fn listen_address(&self) -> std::net::SocketAddr {
        self.session().listen_address()
    }

    /// A safe point: admits the newcomers that are ready. All members must come to it, in the same
    /// order among their safe points; blocks until they have if anybody waits, else one round trip.
    /// A newcomer's first call is what the members call after the safe point that admits it.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `operation_timeout`: the safe point is not used up. The fatal ones.
    pub fn update_topology(&self) -> Result<Arc<View>> {
        self.update_topology_start()?.wait()
    }

    /// Reduces equally long buffers of all members, in place.
    ///
    /// # Errors
    /// [`Error::PeerLost`]: call again. [`Error::TooFewPeers`]: admit more first.
    /// [`Error::Cancelled`]: somebody cancelled, or called something else. The buffer then holds
    /// the input. The fatal ones ([`Error::is_fatal`]).
    pub fn all_reduce<T: Element>(
        &self,
        buffer: &mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        self.run(
            Kind::AllReduce,
            op,
            vec![RawPart::in_place(buffer)],
            options,
        )
    }

    /// Reduces equally long buffers of all members into `receive`, whose content is undefined after
    /// an error. `send` is never written.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`]; [`Error::InvalidArgument`] if the lengths differ.
    pub fn all_reduce_into<T: Element>(
        &self,
        send: &[T],
        receive: &mut [T],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        self.run(
            Kind::AllReduce,
            op,
            vec![RawPart::out_of_place(send, receive)?],
            options,
        )
    }

    /// Reduces a list of buffers, in place, as one transaction: all are reduced over the same
    /// contributors, or none is touched.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn all_reduce_many<T: Element>(
        &self,
        buffers: &mut [&mut [T]],
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let parts = buffers
            .iter_mut()
            .map(|buffer| RawPart::in_place(buffer))
            .collect();
        self.run(Kind::AllReduce, op, parts, options)
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
        let world_size = self.world_size();
        expect_length("receive", receive.len(), send.len() * world_size as usize)?;
        let part = RawPart {
            send: send.as_ptr().cast(),
            receive: receive.as_mut_ptr().cast(),
            count: send.len(),
            dtype: T::DTYPE,
        };
        self.run_request(Request {
            kind: Kind::AllGather,
            op: ReduceOp::Sum,
            root: Rank(0),
            world_size: Some(world_size),
            parts: vec![part],
            options: options.clone(),
        })
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
        op: ReduceOp,
        options: &Options,
    ) -> Result<Outcome> {
        let world_size = self.world_size();
        expect_length("send", send.len(), receive.len() * world_size as usize)?;
        let part = RawPart {
            send: send.as_ptr().cast(),
            receive: receive.as_mut_ptr().cast(),
            count: receive.len(),
            dtype: T::DTYPE,
        };
        self.run_request(Request {
            kind: Kind::ReduceScatter,
            op,
            root: Rank(0),
            world_size: Some(world_size),
            parts: vec![part],
            options: options.clone(),
        })
    }

    /// Gives all members the buffer of rank `root`.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn broadcast<T: Element>(
        &self,
        buffer: &mut [T],
        root: Rank,
        options: &Options,
    ) -> Result<Outcome> {
        let parts = vec![RawPart::in_place(buffer)];
        let options = options.clone();
        self.run_request(Request {
            kind: Kind::Broadcast,
            op: ReduceOp::Sum,
            root,
            world_size: None,
            parts,
            options,
        })
    }

    /// Blocks until all members have called it.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn barrier(&self, options: &Options) -> Result<Outcome> {
        self.run(Kind::Barrier, ReduceOp::Sum, Vec::new(), options)
    }

    /// Starts a collective on raw memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::InvalidUsage`], [`Error::WorldChanged`] and the end of
    /// a session that is over, at once; the rest from the handle, which may be any but the first.
    ///
    /// # Safety
    /// Where lengths depend on the world size, it must be given. The memory of every part must stay
    /// valid, and be used by nobody else, until the handle says that the operation has ended, or
    /// has been dropped.
    #[allow(unsafe_code)]
    pub unsafe fn start_raw(&self, request: Request) -> Result<RawHandle> {
        self.session().check_open()?;
        if request.kind == Kind::SharedState {
            return Err(Error::invalid(
                "shared state is synchronised by sync_shared_state",
            ));
        }
        if request.options.tag == Tag::SHARED_STATE {
            return Err(Error::invalid(format!(
                "tag {} is that of shared state; use another",
                Tag::SHARED_STATE
            )));
        }
        let world_size = self.world_size();
        // Another thread's call may have brought a new view since the caller looked.
        if request
            .world_size
            .is_some_and(|made_for| made_for != world_size)
        {
            return Err(Error::WorldChanged { world_size });
        }
        if request.kind == Kind::Broadcast && request.root.0 >= world_size {
            return Err(Error::invalid(format!(
                "root is rank {}, the world has {world_size} members",
                request.root
            )));
        }
        // SAFETY: passed on from the caller.
        let parts = unsafe { memory::lend(&request, world_size as usize) }?;
        let operation = Operation {
            fingerprint: memory::fingerprint(&request, self.session().min_world_size()),
            parts,
            tag: request.options.tag,
            deadline: request.options.deadline,
            holding: None,
            world_size: depends_on_ranks(request.kind).then_some(world_size as usize),
        };
        self.session().post(operation).map(RawHandle::new)
    }

    /// Leaves the run: cancels what this peer has open, says farewell, and waits for the answer.
    /// Every clone gets [`Error::Ended`] from then on.
    ///
    /// # Errors
    /// The fatal ones, if the session ended otherwise before.
    pub fn leave(self) -> Result<()> {
        self.session().leave()
    }

    fn session(&self) -> &Session {
        &self.membership.0
    }

    fn run(
        &self,
        kind: Kind,
        op: ReduceOp,
        parts: Vec<RawPart>,
        options: &Options,
    ) -> Result<Outcome> {
        let options = options.clone();
        self.run_request(Request {
            kind,
            op,
            root: Rank(0),
            world_size: None,
            parts,
            options,
        })
    }

    #[allow(unsafe_code)]
    fn run_request(&self, request: Request) -> Result<Outcome> {
        // SAFETY: the buffers are borrowed by the caller's frame, which waits for the end here.
        unsafe { self.start_raw(request) }?.wait()
    }
}

/// Whether lengths or the root mean something else in a view of another size.
fn depends_on_ranks(kind: Kind) -> bool {
    match kind {
        Kind::AllGather | Kind::ReduceScatter | Kind::Broadcast => true,
        Kind::AllReduce | Kind::Barrier | Kind::SharedState => false,
    }
}
