//! What an operator wants to know: typed, sent once per change. `tracing` and the CLI subscribe.

use crate::ids::{GroupId, OpName, PeerId, Term, Vid};
use crate::wire::control::{AbortReason, EvictReason, StateId};

/// A change of state worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A master started or took a run up again.
    MasterStarted {
        /// Its term.
        term: Term,
        /// Whether it found an earlier run to rebuild.
        rebuilt: bool,
    },
    /// A newcomer said hello.
    Registered {
        /// Who.
        peer: PeerId,
        /// Its group.
        group: GroupId,
    },
    /// A session ended.
    Evicted {
        /// Who.
        peer: PeerId,
        /// Its group.
        group: GroupId,
        /// Why.
        reason: EvictReason,
    },
    /// A view was sealed.
    ViewInstalled {
        /// Its group.
        group: GroupId,
        /// Its name.
        vid: Vid,
        /// Its members in rank order.
        members: Vec<PeerId>,
    },
    /// A restarted master has waited for members of a group long enough and may not go on without
    /// more of them: start it with their journal, or give an operator's word (R11).
    RebuildStalled {
        /// The group.
        group: GroupId,
        /// Members of its newest view that were heard.
        heard: usize,
        /// Members of that view.
        members: usize,
    },
    /// An operation committed.
    Committed {
        /// Its group.
        group: GroupId,
        /// Which.
        op: OpName,
    },
    /// An operation was aborted for all.
    Aborted {
        /// Its group.
        group: GroupId,
        /// Which.
        op: OpName,
        /// Why.
        reason: AbortReason,
    },
    /// A sync of shared state committed: its members have this content from now on.
    StateSealed {
        /// Its group.
        group: GroupId,
        /// What was sealed.
        content: StateId,
    },
    /// A peer lost its master, or found it again.
    Attached(bool),
    /// The other side of the control connection said something that makes no sense; the connection
    /// was dropped.
    ProtocolFault {
        /// What.
        what: String,
    },
    /// A lane broke and was repaired without an abort.
    LaneRepaired {
        /// The other end.
        peer: PeerId,
        /// Which lane.
        lane: u16,
    },
}
