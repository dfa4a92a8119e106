//! Why an operation was cancelled or aborted, and why a peer is no longer a member, with the words
//! that callers and operators read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{OpName, OpNumber, PeerId, Tag, UnitId, Vid};
use crate::limits::WORLD_SIZE_MAX;
use crate::wire::bounded;
use crate::wire::fingerprint::CallName;
use crate::wire::state::SyncFault;

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

impl CancelReason {
    /// The whole sentence: what became of this call, which `by` asked to abort, and what to do.
    #[must_use]
    pub fn sentence(&self, call: CallName, by: PeerId) -> String {
        match self {
            Self::User => format!("{call} was cancelled by peer {by}"),
            Self::Deadline => format!(
                "{call} was cancelled for all: the deadline of peer {by} passed before all had \
                 called and finished it; allow more time with its deadline or operation_timeout"
            ),
            Self::Mismatch {
                peer,
                field,
                mine,
                theirs,
            } => {
                let values = match mine.is_empty() && theirs.is_empty() {
                    true => format!("{field} differ at peer {by} and at peer {peer}"),
                    false => format!("{field} is {mine} at peer {by} and {theirs} at peer {peer}"),
                };
                format!("{call} differs between the members: {values}; all must make the same call")
            }
            Self::Local(what) => format!("{call} was cancelled by peer {by}: {what}"),
            Self::Leave => format!("{call} was cancelled: peer {by} leaves the run"),
        }
    }
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
                write!(f, "its {field} is {mine}, that of peer {peer} {theirs}")
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
}

impl fmt::Display for EvictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it left"),
            Self::Silent { silent_ms } => write!(f, "silent for {silent_ms} ms"),
            Self::Died => f.write_str("its process ended"),
            Self::Detached => f.write_str("its control connection ended and did not come back"),
            Self::Unreachable { by } => {
                let noun = if by.len() == 1 { "peer" } else { "peers" };
                write!(f, "{noun} {} could not reach it", Listed(by))
            }
            Self::NotPosted { tag, n } => {
                let op = OpName {
                    tag: *tag,
                    n: *n,
                    birth: Vid::default(),
                };
                write!(
                    f,
                    "it did not make {op}, which the others had made, within post_timeout"
                )
            }
            Self::NotHeard => f.write_str("not heard while the master rebuilt the run"),
            Self::NotAMember => f.write_str("not a member of the run"),
            Self::Protocol(what) => write!(f, "broke the protocol: {what}"),
            Self::Unit(peer) => write!(f, "peer {peer} of its unit was lost"),
            Self::UnitTorn => f.write_str("its unit could not be in all its groups"),
            Self::UnitLeft(peer) => {
                write!(f, "peer {peer} of its unit left, and units leave as one")
            }
            Self::UnitFull { unit, size } => write!(
                f,
                "all {size} peers of unit {unit} are there already: if they are of an earlier start, \
                 end them first; else give each host a unit of its own, or a larger unit_size"
            ),
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
    /// A sync of shared state that cannot be. Final: nobody repeats it.
    State(SyncFault),
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { peer, reason } => write!(f, "peer {peer} is gone: {reason}"),
            Self::Cancelled { by, reason } => write!(f, "peer {by} asked for it: {reason}"),
            Self::State(fault) => fault.fmt(f),
        }
    }
}

/// Peers in a sentence: `1`, `1 and 2`, `1, 2 and 3`.
#[derive(Debug)]
pub struct Listed<'a>(pub &'a [PeerId]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, peer) in self.0.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{separator}{peer}")?;
        }
        Ok(())
    }
}
