//! The inputs and outputs of a peer's machine. Types only; the sibling modules handle them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::{Error, Eviction};
use crate::event::Event;
use crate::ids::{CallId, OpName, PeerId, Rank, StreamId, Tag, Vid};
use crate::time::Instant;
use crate::wire::control::{
    AbortReason, CancelReason, CostTable, Digest, Fingerprint, LinkFault, MasterToPeer, Member,
    PeerToMaster, Place, RecordRule, Start, StateId, StepRecord,
};
use crate::wire::peer_to_peer::PeerToPeer;

/// A view as callers see it: it travels with each result (R16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Id of the view.
    pub vid: Vid,
    /// Its members in rank order.
    pub members: Vec<Member>,
    /// The ring: ranks, each followed by its next.
    pub ring_order: Vec<Rank>,
    /// What moving bytes costs in it, from which the algorithm is chosen.
    pub costs: CostTable,
}

impl View {
    /// Number of members.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.members.len() as u32
    }

    /// The rank of a peer, if it is a member.
    #[must_use]
    pub fn rank_of(&self, peer: PeerId) -> Option<Rank> {
        let index = self.members.iter().position(|member| member.peer == peer)?;
        Some(Rank(index as u32))
    }
}

/// What happens to a peer.
#[derive(Clone, Debug)]
pub enum Input {
    /// The driver has a connection to the master, asked for by [`Output::Connect`].
    ControlUp,
    /// That connection ended, or could not be made.
    ControlDown,
    /// The master sent a message.
    Control(MasterToPeer),
    /// The link to this peer is whole: all its lanes are up.
    LinkUp(PeerId),
    /// The link to this peer broke (see `PeerToMaster::LinkDown`).
    LinkDown {
        /// The other end.
        peer: PeerId,
        /// How the link failed.
        fault: LinkFault,
        /// Whether repair was given up.
        gave_up: bool,
    },
    /// Why there is no link to this peer yet.
    NoLink {
        /// The other end.
        peer: PeerId,
        /// The addresses that were tried, and the error of each.
        why: String,
    },
    /// The whole result of an operation is in this peer's memory, for good.
    Held(OpName),
    /// Another member says what it knows.
    Said {
        /// That member.
        peer: PeerId,
        /// What it says.
        message: PeerToPeer,
    },
    /// The data plane received a different call of another member.
    Mismatch {
        /// The operation.
        op: OpName,
        /// The other member.
        peer: PeerId,
        /// The other member's call.
        theirs: Fingerprint,
    },
    /// The caller calls a collective. Ends in exactly one `Finish` or `Rejected` for `call`.
    Post {
        /// The caller's name for it.
        call: CallId,
        /// The call's tag.
        tag: Tag,
        /// What is called; an `Auto` algorithm is resolved where the operation starts.
        fingerprint: Fingerprint,
        /// When to cancel it.
        deadline: Option<Instant>,
    },
    /// The caller cancels; the verdict may still be success.
    Cancel {
        /// The caller's name for it.
        call: CallId,
        /// Why it should be aborted.
        reason: CancelReason,
    },
    /// The caller reached its next safe point (`update_topology`). Ends in one `Finish` or
    /// `Rejected`.
    SafePoint {
        /// The caller's name for it.
        call: CallId,
        /// When to withdraw.
        deadline: Option<Instant>,
    },
    /// The caller gives something for the next step of a stream of records (R17), and waits for
    /// the record. Ends in one `Finish` or `Rejected`.
    Enter {
        /// The caller's name for it.
        call: CallId,
        /// The stream.
        stream: StreamId,
        /// What it gives; nothing: it abstains.
        payload: Vec<u8>,
        /// When the step may be sealed without others.
        rule: RecordRule,
    },
    /// The caller leaves the run. Ends in one `Finish`.
    Leave {
        /// The caller's name for it.
        call: CallId,
    },
    /// The time that `poll_timeout` named has come.
    Timeout,
}

/// The three ends of a call (R7), and the ends of calls that are not operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The operation succeeded on all members.
    Committed {
        /// The operation.
        op: OpName,
        /// The contributors, in rank order of the birth view.
        contributors: Vec<PeerId>,
        /// This peer's view when it learned the outcome.
        view: Arc<View>,
    },
    /// The operation failed on all members. `StopOp` came before, if it was started here.
    Aborted {
        /// The operation. If it was decided before this peer called it, its birth view is not known
        /// here and is `Vid::default()`.
        op: OpName,
        /// Why it was aborted.
        reason: AbortReason,
        /// This peer's view when it learned the outcome.
        view: Arc<View>,
    },
    /// The session is over, so the outcome cannot be known here. `StopOp` came before.
    Unknown {
        /// Why the session ended.
        cause: SessionEnd,
    },
    /// A safe point was released with this view.
    SafePoint {
        /// The view at the safe point.
        view: Arc<View>,
    },
    /// The step of a stream was sealed, with or without what this peer gave.
    Recorded {
        /// Its record.
        record: StepRecord,
        /// The hash of the stream with it.
        hash: Digest,
        /// This peer's view when it learned of it.
        view: Arc<View>,
    },
    /// The deadline of a safe point passed; it was not consumed.
    Withdrawn,
    /// The peer has left.
    Left,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The master evicted it.
    Evicted(Eviction),
    /// The master refused it.
    Refused(String),
    /// No master for `detach_timeout`.
    Detached,
    /// A verdict did not come within `verdict_timeout` of a cancel.
    NoVerdict,
    /// The master contradicted itself, or what this peer knows for certain.
    Protocol(String),
    /// The driver found a bug in this library and gave up the session.
    Internal,
    /// The peer left the run.
    Left,
}

impl SessionEnd {
    /// The error of calls that were refused or never started because of it.
    #[must_use]
    pub fn error(&self) -> Error {
        match self {
            Self::Evicted(eviction) => Error::Evicted(eviction.clone()),
            Self::Refused(reason) => Error::Refused(reason.clone()),
            other => Error::Ended(other.to_string()),
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicted(eviction) => write!(f, "evicted: {eviction}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Detached => f.write_str("no master for longer than detach_timeout"),
            Self::NoVerdict => f.write_str("no verdict on a cancelled call within verdict_timeout"),
            Self::Protocol(what) => write!(f, "the master contradicted itself: {what}"),
            Self::Internal => f.write_str("internal error in ccl, please report it"),
            Self::Left => f.write_str("it left"),
        }
    }
}

/// A peer to keep a link with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The addresses of its port.
    pub addresses: Vec<SocketAddr>,
    /// The key that a connection to its port must present.
    pub key: crate::ids::LinkKey,
    /// Whether this side dials (the later session dials the earlier).
    pub dial: bool,
}

/// What the driver is to do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect to the master; answer with `ControlUp` or `ControlDown`. Replaces any connection.
    Connect,
    /// Close the connection to the master once everything sent has left. Nothing that it still
    /// delivers is passed on, not even its end.
    Disconnect,
    /// Send a message to the master.
    Send(PeerToMaster),
    /// The complete list of links to keep: make those that are missing, end those not listed.
    Links(BTreeMap<PeerId, Neighbour>),
    /// Move the bytes of this operation.
    StartOp {
        /// The call.
        call: CallId,
        /// The operation.
        start: Start,
    },
    /// Tell these members what this peer knows.
    Say {
        /// What to say.
        message: PeerToPeer,
        /// The other members of the operation, or of the view.
        to: Vec<PeerId>,
    },
    /// The election of a started sync of shared state: get this content from these members or, if
    /// it is here, serve it to others. Answer with `Held` when it is here.
    Elected {
        /// The sync.
        op: OpName,
        /// The elected content.
        content: StateId,
        /// Members that have it, in rank order.
        sources: Vec<PeerId>,
    },
    /// Move no more bytes of this operation: nothing reads or writes the caller's memory when this
    /// has been carried out. Also sent for committed operations, whose data is no longer needed.
    StopOp(OpName),
    /// A call is over.
    Finish {
        /// The call that ended.
        call: CallId,
        /// How it ended.
        end: End,
    },
    /// A call was not started: an invalid call, too few peers, or a session that is over.
    Rejected {
        /// The call that ended.
        call: CallId,
        /// Why it was refused.
        error: Error,
    },
    /// A view is in force. Of operations born before it, only frames of the carried ones count: the
    /// others are decided or forgotten.
    Forget {
        /// The view.
        before: Vid,
        /// The carried operations.
        carried: Vec<OpName>,
    },
    /// A new view is in force.
    View(Arc<View>),
    /// The session is over. Every call made before has been finished; those made later are refused.
    Ended(SessionEnd),
    /// Something an operator wants to know.
    Event(Event),
}

/// What a peer is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the run.
    pub run: String,
    /// Group to join.
    pub group: crate::ids::GroupId,
    /// Its unit, whose peers fail together.
    pub unit: Option<crate::ids::UnitId>,
    /// Peers of that unit that are admitted together.
    pub unit_size: Option<u32>,
    /// Its place among the members of a closed group.
    pub place: Option<Place>,
    /// Where other peers reach it.
    pub addresses: Vec<SocketAddr>,
    /// The key that a connection to its port must present.
    pub key: crate::ids::LinkKey,
    /// Newcomers that the group's first view waits for; operations name their own minimum.
    pub min_world: u32,
    /// Its name in messages, chosen by its program.
    pub name: String,
    /// Seed of the jitter of its reconnections.
    pub entropy: u64,
}
