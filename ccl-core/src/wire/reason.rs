//! Why an operation was cancelled or aborted, and why a peer is no longer a member, with the words
//! that callers and operators read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{OpName, OpNumber, PeerId, Revision, Tag, UnitId, Vid};
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
        /// Whom it waited for, once the master has said so.
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
        /// The other's value.
        theirs: String,
    },
    /// The member cannot go on with it.
    Local(String),
    /// The member leaves the run.
    Leave,
    /// Members waited for each other in different calls (R15).
    Crossed(Crossed),
}

impl CancelReason {
    /// The whole sentence: what became of this call, which `by` asked to abort, and what to do.
    #[must_use]
    pub fn sentence(&self, call: CallName, by: PeerId, names: &Names) -> String {
        let by = names.of(by);
        match self {
            Self::User => format!("{call} was cancelled by {by}"),
            Self::Deadline { late: None } => format!(
                "{call} timed out, and was cancelled for all: the timeout of {by} ended before all \
                 had called and finished it; allow more time with its deadline or \
                 operation_timeout"
            ),
            Self::Deadline { late: Some(late) } => format!(
                "{call} timed out, and was cancelled for all: when the timeout of {by} ended, {}; {}",
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
                    true => format!("{field} differ at {by} and at {peer}"),
                    false => format!("{field} is {mine} at {by} and {theirs} at {peer}"),
                };
                format!("{call} differs between the members: {values}; all must make the same call")
            }
            Self::Local(what) => format!("{call} was cancelled by {by}: {what}"),
            Self::Leave => format!("{call} was cancelled: {by} leaves the run"),
            Self::Crossed(crossed) => format!(
                "{call} was cancelled for all, because members waited for each other for \
                 post_timeout: {}; all must make the same calls in the same order",
                crossed.words(names)
            ),
        }
    }

    /// Why, in words.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::User => "cancelled by its caller".into(),
            Self::Deadline { late } => {
                let passed = "it timed out: its caller's deadline passed";
                let late = late.as_ref().map(|late| late.words(names));
                late.map_or(passed.into(), |late| format!("{passed}, and {late}"))
            }
            Self::Mismatch {
                peer,
                field,
                mine,
                theirs,
            } => {
                let peer = names.of(*peer);
                match mine.is_empty() && theirs.is_empty() {
                    true => format!("its {field} are not those of {peer}"),
                    false => format!("its {field} is {mine}, that of {peer} {theirs}"),
                }
            }
            Self::Local(what) => what.clone(),
            Self::Leave => "it leaves the run".into(),
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
    /// Its unit could not be in all its groups: it was not admitted to them together, or a master
    /// that restarted found less than all of it.
    UnitTorn,
    /// A member of its unit left, and it did not within `peer_timeout`.
    UnitLeft(PeerId),
    /// It is one more than its unit has peers, who are all there.
    UnitFull {
        /// The unit.
        unit: UnitId,
        /// How many peers it has.
        size: u32,
    },
    /// It did not come to a safe point at which the others waited for it (R15).
    NotAtSafePoint {
        /// The number of the safe point.
        k: u64,
    },
    /// It was admitted, and the members changed again before it heard of it (R9).
    Unaware,
    /// Its shared state is further ahead than the run may go in one step, and enough others can go
    /// on without it (R18).
    RevisionAhead {
        /// What it has.
        theirs: Revision,
        /// What the run sealed last.
        sealed: Revision,
    },
    /// It waited in another call than most members did (R15).
    Crossed {
        /// What it had called.
        own: WaitPoint,
        /// What the others had called.
        others: WaitPoint,
    },
}

impl EvictReason {
    /// Why, in words.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Left => "it left".into(),
            Self::Silent { silent_ms } => format!("silent for {silent_ms} ms"),
            Self::Died => "its process ended".into(),
            Self::Detached => "its control connection ended and did not come back".into(),
            Self::Unreachable { by } => format!("{} could not reach it", names.list(by)),
            Self::NotPosted { tag, n } => {
                let op = OpName {
                    tag: *tag,
                    n: *n,
                    birth: Vid::default(),
                };
                format!("it did not make {op}, which the others had made, within post_timeout")
            }
            Self::NotHeard => "not heard while the master rebuilt the run".into(),
            Self::NotAMember => "not a member of the run".into(),
            Self::Protocol(what) => format!("broke the protocol: {what}"),
            Self::Unit(peer) => format!("{} of its unit was lost", names.of(*peer)),
            Self::Unaware => {
                "the members changed again before it heard that it was admitted".into()
            }
            Self::UnitTorn => "its unit could not be in all its groups".into(),
            Self::UnitLeft(peer) => {
                format!(
                    "{} of its unit left, and units leave as one",
                    names.of(*peer)
                )
            }
            Self::NotAtSafePoint { k } => format!(
                "it did not come to safe point {k} (update_topology), where the others waited for \
                 it, within post_timeout"
            ),
            Self::RevisionAhead { theirs, sealed } => format!(
                "its shared state has revision {theirs}, but the run sealed {sealed} last: it comes \
                 from another run, or from a later point of this one; begin without it, or load the \
                 run's own checkpoint"
            ),
            Self::Crossed { own, others } => {
                format!("it was in {own} while the others had called {others}")
            }
            Self::UnitFull { unit, size } => format!(
                "all {size} peers of unit {unit} are there already: if they are of an earlier start, \
                 end them first; else give each host a unit of its own, or a larger unit_size"
            ),
        }
    }
}

impl fmt::Display for EvictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(&Names::default()))
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
    /// A sync of shared state that cannot be. Final: nobody repeats it.
    State(SyncFault),
}

impl AbortReason {
    /// An upper bound of what it takes in a message: its names and numbers, and its texts.
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

    /// Why, in words.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Lost { peer, reason } => {
                format!("{} is gone: {}", names.of(*peer), reason.words(names))
            }
            Self::Cancelled { by, reason } => {
                format!("{} asked for it: {}", names.of(*by), reason.words(names))
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
