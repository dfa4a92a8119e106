//! The messages between a peer and the master (docs/protocol.md, Messages).
//!
//! What they look like as bytes is in `wire::frame`. Every list has a limit in `crate::limits`,
//! checked by `validate` after decoding: a message that passes fits the memory set aside for it.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::Timers;
use crate::ids::{
    GroupId, LinkKey, MemberNumber, OpName, OpNumber, PeerId, Rank, RunId, SessionId, Tag, Term,
    UnitId, Vid,
};
use crate::limits::{
    ABORT_REASONS_MAX, ADDRESSES_MAX, OPEN_OPS_MAX, PEERS_MAX, TAGS_MAX, WORLD_SIZE_MAX,
};
use crate::reduce::{Dtype, ReduceOp};
use crate::wire::bounded;

/// Version of the control protocol; both sides must speak the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// What kind of collective an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    AllReduce,
    ReduceScatter,
    AllGather,
    Broadcast,
    Barrier,
}

/// How a collective moves its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// The library chooses, by a pure function of what was called, the members of the birth view
    /// and its cost table: the same for a member that posts late, in a newer view.
    #[default]
    Auto,
    /// Each chunk goes to its owner, who adds in rank order and sends the result to all.
    Direct,
    /// Chunks travel around the ring order of the view, pipelined by segment.
    Ring,
}

/// What all members must agree on before an operation can commit (R12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// All-reduce, broadcast, …
    pub kind: Kind,
    /// Direct or ring.
    pub algorithm: Algorithm,
    /// How elements combine; `Sum` where nothing is reduced.
    pub op: ReduceOp,
    /// Element type of the first part.
    pub dtype: Dtype,
    /// Elements over all parts.
    pub count: u64,
    /// Number of buffers; 1 unless `all_reduce_many`.
    pub parts: u32,
    /// FNV-1a over the (dtype, count) of each part.
    pub parts_digest: u64,
    /// The source of a broadcast; 0 elsewhere.
    pub root: Rank,
    /// Wire format of the data; 0 is the dtype itself.
    pub quantization: u8,
    /// Whether the library repeats the call with the survivors after a loss.
    pub retry: bool,
    /// Most attempts that such a repetition makes in all.
    pub attempts: u32,
    /// Fewest members with which it runs.
    pub min_world: u32,
}

impl Fingerprint {
    /// The first difference between two fingerprints: the field, and both values in words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        macro_rules! compare {
            ($($field:ident),*) => {$(
                if self.$field != other.$field {
                    let mine = format!("{:?}", self.$field);
                    return Some((stringify!($field), mine, format!("{:?}", other.$field)));
                }
            )*};
        }
        compare!(kind, dtype, op, count, parts, parts_digest, root, algorithm);
        compare!(quantization, retry, attempts, min_world);
        None
    }

    /// Whether a member may hold the result of such an operation although another never called it
    /// (R4: the contributors are then those known to have posted).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 || matches!(self.kind, Kind::Barrier | Kind::Broadcast)
    }
}

/// One member of a view, as the others need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its session's name.
    pub peer: PeerId,
    /// Its order of admission; members are listed by it, and rank is the position.
    pub number: MemberNumber,
    /// The unit it lives and dies with.
    pub unit: UnitId,
    /// Where its port can be reached, in the order to try.
    #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<SocketAddr>,
    /// What a connection to its port must show.
    pub key: LinkKey,
}

/// Why an operation is cancelled (R8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelReason {
    /// The caller cancelled, or dropped the handle.
    User,
    /// The caller's deadline passed.
    Deadline,
    /// Two members called different things.
    Mismatch {
        /// The other member.
        peer: PeerId,
        /// The field that differs.
        field: String,
        /// The value of the member that reports it.
        mine: String,
        /// The other's value.
        theirs: String,
    },
    /// The member cannot go on with it.
    Local(String),
    /// The member leaves the run.
    Leave,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("cancelled by its caller"),
            Self::Deadline => f.write_str("its caller's deadline passed"),
            Self::Mismatch {
                peer,
                field,
                mine,
                theirs,
            } => {
                write!(f, "{field} is {mine} here but {theirs} at peer {peer}")
            }
            Self::Local(what) => f.write_str(what),
            Self::Leave => f.write_str("it leaves the run"),
        }
    }
}

/// Why a peer is no longer a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictReason {
    /// It asked to leave.
    Left,
    /// Nothing was heard of it for `peer_timeout`.
    Silent {
        /// How long, in milliseconds.
        silent_ms: u64,
    },
    /// Its control connection ended and members saw its data connections end too.
    Died,
    /// Its control connection ended and did not come back within `reattach_grace`.
    Detached,
    /// Members could not reach it (R10).
    Unreachable {
        /// Who reported it.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        by: Vec<PeerId>,
    },
    /// It did not call an operation that the others waited for (R15).
    NotPosted {
        /// The tag.
        tag: Tag,
        /// The operation's number.
        n: OpNumber,
    },
    /// It was not heard while a restarted master rebuilt the run.
    NotHeard,
    /// It is no member of this run, or its view is no longer one.
    NotAMember,
    /// It broke the protocol.
    Protocol(String),
    /// Another member of its unit was lost.
    Unit(PeerId),
}

impl fmt::Display for EvictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it left"),
            Self::Silent { silent_ms } => write!(f, "silent for {silent_ms} ms"),
            Self::Died => f.write_str("its process ended"),
            Self::Detached => f.write_str("its control connection ended and did not come back"),
            Self::Unreachable { by } => {
                f.write_str("unreachable for peers")?;
                by.iter().try_for_each(|peer| write!(f, " {peer}"))
            }
            Self::NotPosted { tag, n } => {
                write!(f, "it did not call operation {n} of tag {tag} in time")
            }
            Self::NotHeard => f.write_str("not heard while the master rebuilt the run"),
            Self::NotAMember => f.write_str("not a member of the run"),
            Self::Protocol(what) => write!(f, "broke the protocol: {what}"),
            Self::Unit(peer) => write!(f, "peer {peer} of its unit was lost"),
        }
    }
}

/// Why an operation was aborted, as told to its callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortReason {
    /// A contributor is gone. The call may be repeated.
    Lost {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: EvictReason,
    },
    /// A member asked for it. Final: nobody repeats it.
    Cancelled {
        /// Who.
        by: PeerId,
        /// Why.
        reason: CancelReason,
    },
}

/// A peer's whole knowledge of the outcome state, re-stated in `Attach`, `Flush` and `Installed`
/// (R5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The newest view it installed.
    pub vid: Vid,
    /// Whether it has seen that view's `Release`.
    pub released: bool,
    /// One entry a tag that it knows.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub tags: Vec<TagReport>,
    /// The carried operations of that view's `Install`.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub carried: Vec<Carried>,
    /// Safe points it has called, the open one included.
    pub safe_called: u64,
    /// Safe points that were released to it.
    pub safe_released: u64,
}

/// Who an attaching peer is, and with whom: from a majority of such claims a master without a
/// journal rebuilds the run (R11). A master that knows the session ignores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The session's name.
    pub peer: PeerId,
    /// Its group.
    pub group: GroupId,
    /// Members of the report's view in rank order; empty for a newcomer.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub members: Vec<Member>,
    /// The ring of that view.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub ring_order: Vec<Rank>,
    /// The costs of that view.
    pub costs: CostTable,
}

/// One tag in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagReport {
    /// The tag.
    pub tag: Tag,
    /// All operations below are decided.
    pub floor: OpNumber,
    /// The newest that committed.
    pub last_committed: Option<OpNumber>,
    /// The operation this peer has open.
    pub open: Option<OpenReport>,
}

/// An open operation in a [`TagReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReport {
    /// Its number.
    pub n: OpNumber,
    /// The view it was born in.
    pub birth: Vid,
    /// What was called.
    pub fingerprint: Fingerprint,
    /// Whether the whole result is in this peer's memory.
    pub held: bool,
    /// What this peer asked for.
    pub cancel: Option<CancelReason>,
}

/// An operation that a view change left as it was (R4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its name; the birth view stays.
    pub op: OpName,
    /// Its members in rank order of the birth view.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub members: Vec<PeerId>,
    /// The ring of the birth view: a member may post it late without ever having seen that view.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub ring_order: Vec<Rank>,
    /// The birth view's costs, for the choice of algorithm.
    pub costs: CostTable,
}

/// The outcome state of one tag, as the master knows it (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFloor {
    /// The tag.
    pub tag: Tag,
    /// All operations below are decided.
    pub floor: OpNumber,
    /// The newest that committed.
    pub last_committed: Option<OpNumber>,
    /// Members of that one which are not among its contributors: lost before they called an
    /// operation that needs nothing of them (R4). Empty for every other.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub absent: Vec<PeerId>,
    /// Reasons of the newest aborts, best effort.
    #[serde(deserialize_with = "bounded::list::<_, _, ABORT_REASONS_MAX>")]
    pub reasons: Vec<(OpNumber, AbortReason)>,
}

/// What one peer posted or finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpNote {
    /// The operation.
    pub op: OpName,
    /// What was called.
    pub fingerprint: Fingerprint,
}

/// A sealed success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The operation.
    pub op: OpName,
    /// Whose data is in the result, in rank order of the birth view.
    #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
    pub contributors: Vec<PeerId>,
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

/// Sends numbers for the choice of algorithm, equal for all members of a view (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostTable {
    /// Largest world in which `Auto` chooses `direct`.
    pub direct_world_max: u32,
}

impl Default for CostTable {
    fn default() -> Self {
        Self {
            direct_world_max: 64,
        }
    }
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
    /// Operations that go on.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub carried: Vec<Carried>,
    /// Safe points released so far.
    pub safe_released: u64,
    /// How `Auto` chooses.
    pub costs: CostTable,
    /// Whether this view is already released; always false in a fresh view.
    pub released: bool,
    /// Whether a change away from this view is under way: post nothing until the next one.
    pub suspended: bool,
    /// Who left since the view before, and why.
    #[serde(deserialize_with = "bounded::list::<_, _, PEERS_MAX>")]
    pub departed: Vec<(PeerId, EvictReason)>,
}

/// From a peer to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum PeerToMaster {
    /// A new session.
    Hello {
        /// [`PROTOCOL_VERSION`] of the sender.
        protocol: u32,
        /// Version of the library, for messages only.
        library: String,
        /// Name of the run.
        run: String,
        /// Group to join.
        group: GroupId,
        /// Unit it lives and dies with; `None`: alone.
        unit: Option<UnitId>,
        /// Where other peers reach it; an unspecified address means the one the master sees.
        #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
        addresses: Vec<SocketAddr>,
        /// What a connection to its port must show.
        key: LinkKey,
        /// Fewest members it wants to work with.
        min_world: u32,
        /// Which attempt to connect this is; older connections are closed.
        attach: u64,
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
        /// All it knows.
        report: Report,
    },
    /// A newcomer is linked with these peers.
    Ready {
        /// The view it heard of.
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
        /// Why.
        reason: CancelReason,
    },
    /// The answer to `Suspend`: the sender posts nothing until the next `Install`.
    Flush {
        /// The view that ends.
        vid: Vid,
        /// All it knows.
        report: Report,
    },
    /// The answer to `Install`.
    Installed {
        /// The view.
        vid: Vid,
        /// All it knows.
        report: Report,
    },
    /// The caller reached its k-th safe point.
    AtSafePoint {
        /// Number of the safe point, from 0: it is released once `safe_released > k`.
        k: u64,
    },
    /// The caller's deadline at a safe point passed.
    Withdraw {
        /// Number of the safe point.
        k: u64,
    },
    /// A link broke.
    LinkDown {
        /// The reporter's view.
        vid: Vid,
        /// The other end.
        peer: PeerId,
        /// How.
        fault: LinkFault,
        /// False: only seen to end, repair goes on, and this is evidence for a lost control
        /// connection alone. True: repair was given up; somebody is to blame (R10).
        gave_up: bool,
    },
    /// A link that was reported down works again.
    LinkUp {
        /// The other end.
        peer: PeerId,
    },
    /// The peer wants to go.
    Leave,
    /// Sign of life.
    Ping,
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
        /// The session's name.
        peer: PeerId,
        /// The master's term.
        term: Term,
        /// Waiting times of the run.
        timers: Timers,
    },
    /// Peers to be linked with: to a newcomer, all that it must reach; to a member, newcomers to
    /// let in. The list replaces the one before.
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
    /// Safe point k changes nothing.
    SafeReleased {
        /// Number of the safe point.
        k: u64,
        /// The view it holds in.
        vid: Vid,
    },
    /// The session is over.
    Evicted {
        /// Why.
        reason: EvictReason,
    },
    /// The session never began.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// Sign of life.
    Pong {
        /// The master's term.
        term: Term,
    },
}
