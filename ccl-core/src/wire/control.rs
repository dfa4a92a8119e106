//! The messages between a peer and the master (docs/protocol.md, Messages).
//!
//! Their bytes are in `wire::frame`. Every list has a limit in `crate::limits`, checked by
//! `validate` after decoding: a message that passes fits the memory reserved for it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{
    GroupId, LinkKey, MemberNumber, OpName, PeerId, Rank, RunId, SessionId, Step, StreamId, Term,
    UnitId, Vid,
};
use crate::limits::{
    ADDRESSES_MAX, OPEN_OPS_MAX, PEERS_MAX, STREAMS_MAX, TAGS_MAX, WORLD_SIZE_MAX,
};
use crate::timers::Timers;
use crate::wire::bounded;

pub use super::birth::{Birth, CostTable, Start};
pub use super::crossed::{Crossed, WaitPoint};
pub use super::fingerprint::{Algorithm, CallName, Called, Elements, Fingerprint, Kind};
pub use super::late::{Elsewhere, Late, LatePeers};
pub use super::place::Place;
pub use super::reason::{AbortReason, CancelReason, EvictReason, group_taken};
pub use super::records::{
    Chain, ChainCheck, ChainPlace, Entry, KeptRecords, RecordRule, SealedRecord, StepEntry,
    StepRecord, StreamPlace, StreamReport,
};
pub use super::report::{Claim, GivenBack, OpenReport, Report, TagFloor, TagReport};
pub use super::state::{
    Digest, KeyDifference, KeySketch, OddEntry, StateId, StateOffer, SyncFault, SyncStrategy,
};
pub use super::wait::{BackoffCause, MissingLink, NamedPeer, SomePeers, UnitCount, Wait};

/// Version of the control protocol; both sides must speak the same. A `Hello` of any version begins
/// with its number, so that a peer with another version learns why it is refused.
pub const PROTOCOL_VERSION: u32 = 6;

/// One member of a view, as the others need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The peer's session id.
    pub peer: PeerId,
    /// Its order of admission; members are listed by it, and rank is the position.
    pub number: MemberNumber,
    /// The unit it lives and dies with.
    pub unit: UnitId,
    /// Where its port can be reached, in the order to try.
    #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<SocketAddr>,
    /// The key that a connection to its port must present.
    pub key: LinkKey,
    /// What its program calls it; for messages only.
    pub name: String,
}

impl Member {
    /// Its name and its address.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.name, &self.addresses)
    }
}

/// A peer's name and address, as users read them.
#[must_use]
pub fn label(name: &str, addresses: &[SocketAddr]) -> String {
    match addresses.first() {
        Some(address) => format!("{name}, {address}"),
        None => name.to_owned(),
    }
}

/// What one peer posted or finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpNote {
    /// The operation.
    pub op: OpName,
    /// The fingerprint of the call.
    pub fingerprint: Fingerprint,
}

/// A sealed commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The operation.
    pub op: OpName,
    /// Whose data is in the result, in rank order of the birth view.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub contributors: Vec<PeerId>,
    /// Shared state that the commit seals, if any.
    pub sealed: Sealed,
}

/// What a commit leaves behind that later operations start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sealed {
    /// Nothing: the result is the members' own.
    #[default]
    Nothing,
    /// The content of a sync of shared state: the next election starts from it (R18).
    State(StateId),
}

impl Sealed {
    /// The shared state that it is.
    #[must_use]
    pub const fn state(self) -> Option<StateId> {
        match self {
            Self::Nothing => None,
            Self::State(content) => Some(content),
        }
    }
}

impl From<Option<StateId>> for Sealed {
    fn from(state: Option<StateId>) -> Self {
        state.map_or(Self::Nothing, Self::State)
    }
}

/// How a link to another peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkFault {
    /// All its connections were ended by the other side.
    Ended,
    /// Its port refuses connections: no process listens there.
    Refused,
    /// It does not answer, or repair took longer than `link_timeout`.
    TimedOut,
    /// It sent bytes that are not of the protocol.
    Protocol,
}

/// The one message that changes or confirms a peer's view: a new view, or the reply to an `Attach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// Name of the view.
    pub vid: Vid,
    /// Its members in rank order.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub members: Vec<Member>,
    /// The ring: indices into `members`, each followed by its next.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub ring_order: Vec<Rank>,
    /// The outcome state of every tag.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub floors: Vec<TagFloor>,
    /// Tags that were given back since a view that all members have had, before `floors` count.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub given_back: Vec<GivenBack>,
    /// Operations from earlier views that go on.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub carried: Vec<Birth>,
    /// Safe points released so far.
    pub safe_released: u64,
    /// Costs by which `Auto` chooses the algorithm.
    pub costs: CostTable,
    /// Whether this view is already released; always false in a fresh view.
    pub released: bool,
    /// Whether a change away from this view is under way: post nothing until the next one.
    pub suspended: bool,
    /// Who left since the view before, and why.
    #[serde(deserialize_with = "bounded::list::<_, _, PEERS_MAX>")]
    pub departed: Vec<(PeerId, EvictReason)>,
    /// How far each stream of records has come. A newcomer begins there.
    #[serde(deserialize_with = "bounded::list::<_, _, STREAMS_MAX>")]
    pub streams: Vec<StreamPlace>,
}

/// The groups that the receiver does not belong to, maybe of some time ago. For information only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherGroups {
    /// Members of those groups together.
    pub members: u32,
    /// How many of them have members.
    pub groups: u32,
    /// Members of the largest.
    pub largest: u32,
}

/// From a peer to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum PeerToMaster {
    /// Asks for a new session.
    Hello {
        /// [`PROTOCOL_VERSION`] of the sender.
        protocol: u32,
        /// Version of the library, for messages only.
        library: String,
        /// Name of the run.
        run: String,
        /// The group to join.
        group: GroupId,
        /// Unit it lives and dies with; `None`: alone.
        unit: Option<UnitId>,
        /// Peers of that unit, over all groups, that are admitted together; `None`: it is alone.
        unit_size: Option<u32>,
        /// Its place among the fixed members of a closed group; `None`: the group is open (R21).
        place: Option<Place>,
        /// Where other peers reach it; an unspecified address means the one the master sees.
        #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
        addresses: Vec<SocketAddr>,
        /// The key that a connection to its port must present.
        key: LinkKey,
        /// Fewest members it wants to work with.
        min_world: u32,
        /// Which attempt to connect this is; older connections are closed.
        attach: u64,
        /// What its program calls it; for messages only.
        name: String,
    },
    /// A session that goes on over a new connection.
    Attach {
        /// The run it belongs to.
        run_id: RunId,
        /// The session's secret.
        session: SessionId,
        /// Counter of connections of this session.
        attach: u64,
        /// Who it is, for a master that lost its journal.
        claim: Claim,
        /// The peer's full report.
        report: Report,
    },
    /// A newcomer is linked with these peers.
    Ready {
        /// The newest view it knows.
        vid: Vid,
        /// Peers that it has a whole link to.
        #[serde(deserialize_with = "bounded::list::<_, _, PEERS_MAX>")]
        linked: Vec<PeerId>,
    },
    /// Operations posted since the last such note.
    Posted(#[serde(deserialize_with = "bounded::list::<_, _, OPEN_OPS_MAX>")] Vec<OpNote>),
    /// Operations whose whole result this peer holds: its vote to end.
    Done(#[serde(deserialize_with = "bounded::list::<_, _, OPEN_OPS_MAX>")] Vec<OpNote>),
    /// A request to abort (R8).
    Cancel {
        /// The operation.
        op: OpName,
        /// Why it should be aborted.
        reason: CancelReason,
    },
    /// The answer to `Suspend`: the sender posts nothing until the next `Install`.
    Flush {
        /// The view that ends.
        vid: Vid,
        /// The peer's full report.
        report: Report,
    },
    /// The answer to `Install`.
    Installed {
        /// The view.
        vid: Vid,
        /// The peer's full report.
        report: Report,
    },
    /// The caller reached its k-th safe point. All before it are released.
    AtSafePoint {
        /// Number of the safe point, from 0: it is released once `safe_released > k`.
        k: u64,
        /// How many after it the caller would like to be released ahead.
        ahead: u32,
    },
    /// The caller's deadline at a safe point passed.
    Withdraw {
        /// Number of the safe point.
        k: u64,
    },
    /// A link of this peer is down.
    LinkDown {
        /// The reporter's view.
        vid: Vid,
        /// The other end.
        peer: PeerId,
        /// How it failed.
        fault: LinkFault,
        /// Whether repair was given up, and somebody is to blame (R10); else it was seen to end.
        gave_up: bool,
    },
    /// A link that was reported down works again.
    LinkUp {
        /// The other end.
        peer: PeerId,
    },
    /// The peer wants to go.
    Leave,
    /// Heartbeat of a peer.
    Ping,
    /// Why there is no link to or of a newcomer. For texts only: nothing is decided by it.
    NoLink {
        /// The other end.
        peer: PeerId,
        /// Each address that was tried, and what came of it; empty: there is one now.
        why: String,
    },
    /// A member is back over a new connection. It goes on by itself until it is summoned.
    Here {
        /// The run it belongs to.
        run_id: RunId,
        /// The session's secret.
        session: SessionId,
        /// Counter of connections of this session.
        attach: u64,
        /// The newest view it installed.
        vid: Vid,
        /// Who it is.
        claim: Claim,
    },
    /// What the peer gives for a step of a stream of records.
    Entered(Entry),
    /// The peer has all records of a stream before this step.
    RecordsHeld {
        /// The stream.
        stream: StreamId,
        /// The step of the next record.
        next: Step,
    },
}

/// From the master to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum MasterToPeer {
    /// The session is registered; the peer is a newcomer.
    Welcome {
        /// The run.
        run_id: RunId,
        /// The session's secret.
        session: SessionId,
        /// The session's id.
        peer: PeerId,
        /// The master's term.
        term: Term,
        /// Waiting times of the run.
        timers: Timers,
        /// Who else is in the run.
        others: OtherGroups,
        /// What the peer waits for, if it is not its own program.
        waits: Option<Wait>,
    },
    /// Peers to be linked with, instead of those before: all, or newcomers if sent to a member.
    Expect {
        /// The group's view, `Vid::default()` before the first.
        vid: Vid,
        /// Members, in rank order; empty before the first view.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        members: Vec<Member>,
        /// Newcomers, by peer id.
        #[serde(deserialize_with = "bounded::list::<_, _, PEERS_MAX>")]
        newcomers: Vec<Member>,
    },
    /// A view, or the reply to an `Attach`.
    Install(Install),
    /// Operations that succeeded.
    Commit(#[serde(deserialize_with = "bounded::list::<_, _, OPEN_OPS_MAX>")] Vec<CommitRecord>),
    /// The election of a sync of shared state: others get this content from those that have it.
    Elected {
        /// The sync.
        op: OpName,
        /// The elected content.
        content: StateId,
        /// Members that have it, in rank order.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        sources: Vec<PeerId>,
    },
    /// The view ends: report and post nothing.
    Suspend {
        /// The view.
        vid: Vid,
    },
    /// Outcomes decided at the change to this view may be told.
    Release {
        /// The view.
        vid: Vid,
    },
    /// Safe points up to k change nothing.
    SafeReleased {
        /// Number of the last one.
        k: u64,
        /// The view it holds in.
        vid: Vid,
    },
    /// The session is over.
    Evicted {
        /// Why the session ended.
        reason: EvictReason,
    },
    /// The peer is not let in: its session never began, or ends before it is a member.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// The master's reply to a heartbeat.
    Pong {
        /// The master's term.
        term: Term,
        /// Who else is in the run.
        others: OtherGroups,
        /// What the peer waits for, if it is not its own program.
        waits: Option<Wait>,
    },
    /// The answer to `Here`: attach and post nothing.
    Summon,
    /// A record was sealed.
    Recorded(SealedRecord),
    /// A majority has all records of a stream before this step: callers may be told.
    RecordsReleased {
        /// The stream.
        stream: StreamId,
        /// The first step of which callers may not be told.
        released: Step,
    },
}
