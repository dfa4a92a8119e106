//! Why an operation was cancelled or aborted, and why a peer was removed, with their texts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, OpName, OpNumber, PeerId, Rank, Revision, StreamId, Tag, UnitId, Vid};
use crate::limits::WORLD_SIZE_MAX;
use crate::names::Names;
use crate::wire::bounded;
use crate::wire::crossed::{Crossed, WaitPoint};
use crate::wire::fingerprint::CallName;
use crate::wire::late::Late;
use crate::wire::state::SyncFault;

/// Why an operation is cancelled (R8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelReason {
    /// The caller cancelled, or dropped the handle.
    User,
    /// The caller's deadline passed.
    Deadline {
        /// Which members it waited for; set by the master.
        late: Option<Late>,
    },
    /// Two members called different things.
    Mismatch {
        /// The other member.
        peer: PeerId,
        /// The field that differs.
        field: String,
        /// The value of the member that reports it.
        mine: String,
        /// The other member's value.
        theirs: String,
    },
    /// The member cannot continue the operation.
    Local(String),
    /// The member leaves the run.
    Leave,
    /// Members waited for each other in different calls (R15).
    Crossed(Crossed),
}

impl CancelReason {
    /// The whole sentence for a call that `by` asked to abort: what happened, and what to do.
    #[must_use]
    pub fn sentence(&self, call: CallName, by: PeerId, names: &Names) -> String {
        let by = names.of(by);
        match self {
            Self::User => format!("{call} was cancelled by {by}"),
            Self::Deadline { late: None } => format!(
                "{call} timed out and was cancelled for all members: the timeout of {by} passed \
                 before all had called and finished it; set a longer deadline or operation_timeout"
            ),
            Self::Deadline { late: Some(late) } => format!(
                "{call} timed out and was cancelled for all members: when the timeout of {by} \
                 passed, {}; {}",
                late.words(names),
                late.remedy()
            ),
            Self::Mismatch {
                peer,
                field,
                mine,
                theirs,
            } => {
                let peer = names.of(*peer);
                let values = match mine.is_empty() && theirs.is_empty() {
                    true => format!("{field} differ between {by} and {peer}"),
                    false => format!("{field} is {mine} on {by} but {theirs} on {peer}"),
                };
                format!(
                    "{call} differs between members: {values}; all members must make the same call"
                )
            }
            Self::Local(what) => format!("{call} was cancelled by {by}: {what}"),
            Self::Leave => format!("{call} was cancelled: {by} is leaving the run"),
            Self::Crossed(crossed) => format!(
                "{call} was cancelled for all, because members waited for each other for \
                 post_timeout: {}; all must make the same calls in the same order",
                crossed.words(names)
            ),
        }
    }

    /// The reason as text.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::User => "its program asked for it".into(),
            Self::Deadline { late } => {
                let passed = "its caller's deadline passed";
                let late = late.as_ref().map(|late| late.words(names));
                late.map_or(passed.into(), |late| format!("{passed}; {late}"))
            }
            Self::Mismatch {
                peer,
                field,
                mine,
                theirs,
            } => {
                let peer = names.of(*peer);
                match mine.is_empty() && theirs.is_empty() {
                    true => format!("its {field} differ from those of {peer}"),
                    false => format!("its {field} is {mine}, but that of {peer} is {theirs}"),
                }
            }
            Self::Local(what) => what.clone(),
            Self::Leave => "it is leaving the run".into(),
            Self::Crossed(crossed) => crossed.words(names),
        }
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(&Names::default()))
    }
}

/// Why a peer is no longer a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictReason {
    /// It asked to leave.
    Left,
    /// Nothing was received from it for `peer_timeout`.
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
        /// The members that reported it.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        by: Vec<PeerId>,
    },
    /// It did not call an operation that the others waited for (R15).
    NotPosted {
        /// Tag of the operation.
        tag: Tag,
        /// The operation's number.
        n: OpNumber,
    },
    /// It did not come back while a restarted master rebuilt the run.
    NotHeard,
    /// It is not a member of this run, or its view has ended.
    NotAMember,
    /// It broke the protocol.
    Protocol(String),
    /// Another member of its unit was lost.
    Unit(PeerId),
    /// Its unit could not be in all its groups: it was not admitted to them together, or a
    /// restarted master found only part of it.
    UnitTorn,
    /// A member of its unit left, and this one did not follow within `peer_timeout`.
    UnitLeft(PeerId),
    /// Its unit already has all its peers.
    UnitFull {
        /// The unit.
        unit: UnitId,
        /// How many peers it has.
        size: u32,
    },
    /// It did not reach a safe point at which the others waited for it (R15).
    NotAtSafePoint {
        /// The number of the safe point.
        k: u64,
    },
    /// It was admitted, but the members changed again before it learned of that (R9).
    Unaware,
    /// Its shared state is further ahead than the run may go in one step, and enough others can go
    /// on without it (R18).
    RevisionAhead {
        /// The peer's revision.
        theirs: Revision,
        /// What the run sealed last.
        sealed: Revision,
    },
    /// Its group has formed without it and admits no one else: the group is closed, or the peer
    /// asked for a closed one (R21).
    GroupTaken {
        /// The group.
        group: GroupId,
    },
    /// A newer process took its place among the members of a closed group (R21).
    PlaceTaken {
        /// The place.
        rank: Rank,
    },
    /// It waited in another call than most members (R15).
    Crossed {
        /// What it had called.
        own: Box<WaitPoint>,
        /// What the others had called.
        others: Box<WaitPoint>,
    },
    /// It had consumed so few records that the others would have had to keep too many (R17).
    RecordsBehind {
        /// The stream.
        stream: StreamId,
        /// How many records it was behind.
        steps: u64,
    },
}

impl EvictReason {
    /// The reason as text.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Left => "it left".into(),
            Self::Silent { silent_ms } => format!("it was silent for {silent_ms} ms"),
            Self::Died => "its process ended".into(),
            Self::Detached => "its control connection ended and was not restored".into(),
            Self::Unreachable { by } => format!("{} could not reach it", names.list(by)),
            Self::NotPosted { tag, n } => {
                let op = OpName {
                    tag: *tag,
                    n: *n,
                    birth: Vid::default(),
                };
                format!("it did not make {op} within post_timeout after the others")
            }
            Self::NotHeard => "it did not come back while the master rebuilt the run".into(),
            Self::NotAMember => "it is not a member of the run".into(),
            Self::Protocol(what) => format!("it broke the protocol: {what}"),
            Self::Unit(peer) => format!("{}, of the same unit, was lost", names.of(*peer)),
            Self::Unaware => "the members changed again before it learned of its admission".into(),
            Self::UnitTorn => "its unit was not complete in all of its groups".into(),
            Self::UnitLeft(peer) => {
                format!(
                    "{}, of the same unit, left, and a unit leaves as a whole",
                    names.of(*peer)
                )
            }
            Self::NotAtSafePoint { k } => format!(
                "it did not reach safe point {k} (update_topology) within post_timeout, while the \
                 others waited for it"
            ),
            Self::RevisionAhead { theirs, sealed } => format!(
                "its shared state has revision {theirs}, but the run's last is {sealed}: it comes \
                 from another run, or from a later point of this one; start without it, or load \
                 the run's own checkpoint"
            ),
            Self::Crossed { own, others } => {
                format!("it was in {own} while the others had called {others}")
            }
            Self::RecordsBehind { stream, steps } => format!(
                "it was {steps} records behind in stream {stream}, and others cannot keep more for \
                 it: every member must call all_gather_records for every step"
            ),
            Self::GroupTaken { group } => group_taken(*group),
            Self::PlaceTaken { rank } => format!(
                "another process said hello as rank {rank} of its closed group: give each process \
                 a rank of its own"
            ),
            Self::UnitFull { unit, size } => format!(
                "unit {unit} already has all its {size} peers: if they are left over from an \
                 earlier start, stop them first; otherwise give each host its own unit, or set a \
                 larger unit_size"
            ),
        }
    }
}

/// Why a peer cannot join a closed group that has formed, or ask for a closed group under the id
/// of one that has formed.
#[must_use]
pub fn group_taken(group: GroupId) -> String {
    format!(
        "id {group} is already used: its group has formed, and a closed group has the members \
         that it formed with and no others; choose an id that no group has had"
    )
}

impl fmt::Display for EvictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(&Names::default()))
    }
}

/// Why an operation was aborted, as its callers learn it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortReason {
    /// A contributor is gone. The call may be repeated.
    Lost {
        /// The lost peer.
        peer: PeerId,
        /// Why it was lost.
        reason: EvictReason,
    },
    /// A member asked for the abort. Final: the call is not retried.
    Cancelled {
        /// The member that asked.
        by: PeerId,
        /// Why it should be aborted.
        reason: CancelReason,
    },
    /// A sync of shared state failed. Final: the call is not retried.
    State(SyncFault),
}

impl AbortReason {
    /// An upper bound of its encoded length in bytes, texts included.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        let texts = match self {
            Self::Lost { reason, .. } => match reason {
                EvictReason::Protocol(what) => what.len(),
                EvictReason::Unreachable { by } => by.len() * 10,
                EvictReason::Crossed { .. } => 128,
                _ => 0,
            },
            Self::Cancelled { reason, .. } => match reason {
                CancelReason::Mismatch {
                    field,
                    mine,
                    theirs,
                    ..
                } => field.len() + mine.len() + theirs.len(),
                CancelReason::Local(what) => what.len(),
                CancelReason::Deadline { late } => late.as_ref().map_or(0, Late::bytes_max),
                CancelReason::Crossed(crossed) => crossed.bytes_max(),
                CancelReason::User | CancelReason::Leave => 0,
            },
            Self::State(SyncFault::RevisionLost { unwilling, .. }) => 128 + unwilling.len() * 10,
            Self::State(SyncFault::Keys { .. }) => 384,
            Self::State(_) => 128,
        };
        64 + texts
    }

    /// The reason as text.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Lost { peer, reason } => {
                format!("{} was lost: {}", names.of(*peer), reason.words(names))
            }
            Self::Cancelled { by, reason } => {
                format!("{} cancelled it: {}", names.of(*by), reason.words(names))
            }
            Self::State(fault) => fault.words(names),
        }
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(&Names::default()))
    }
}
