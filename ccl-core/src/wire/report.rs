//! What a peer reports with every `Attach`, `Flush` and `Installed`, and who it claims to be (R5).

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, OpNumber, PeerId, Rank, Step, StreamId, Tag, Vid};
use crate::limits::{ABORT_REASONS_MAX, STREAMS_MAX, TAGS_MAX, WORLD_SIZE_MAX};
use crate::wire::bounded;
use crate::wire::control::{
    AbortReason, Birth, CancelReason, CostTable, Fingerprint, Member, Place, Sealed, StateId,
    StreamReport,
};

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
    pub carried: Vec<Birth>,
    /// Safe points it has called, the open one included.
    pub safe_called: u64,
    /// Safe points that were released to it.
    pub safe_released: u64,
    /// Safe points that it told the other members of this view to be at or past (R19).
    pub safe_said: u64,
    /// What that view's `Install` named as given back, until the view is released: by it a master
    /// without a journal knows which reports are of tags as they were before.
    #[serde(deserialize_with = "bounded::list::<_, _, TAGS_MAX>")]
    pub given_back: Vec<GivenBack>,
    /// One entry a stream of records that it knows.
    #[serde(deserialize_with = "bounded::list::<_, _, STREAMS_MAX>")]
    pub streams: Vec<StreamReport>,
}

impl Report {
    /// The step of the next record of a stream that its sender lacks.
    #[must_use]
    pub fn next_of(&self, stream: StreamId) -> Step {
        let known = self.streams.iter().find(|known| known.stream == stream);
        known.map(|known| known.place.next).unwrap_or_default()
    }
}

/// Who an attaching peer is, and with whom: from a majority of such claims a master without a
/// journal rebuilds the run (R11). A master that knows the session ignores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The session's id.
    pub peer: PeerId,
    /// The group it is in.
    pub group: GroupId,
    /// Peers of its unit that are admitted together, as its `Hello` said.
    pub unit_size: Option<u32>,
    /// Its place in a closed group, as its `Hello` said.
    pub place: Option<Place>,
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
    /// What that one sealed, if this peer knows it.
    pub sealed: Sealed,
    /// Why the operation below the floor was aborted, as long as the view is not released: another
    /// may be told by a master that has lost the reason, and must not take it for another kind.
    pub aborted: Option<AbortReason>,
    /// The operation this peer has open.
    pub open: Option<OpenReport>,
    /// The number of its next call; `None` while one has a number and has not been told its end.
    pub next: Option<OpNumber>,
}

/// An open operation in a [`TagReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReport {
    /// The operation's number.
    pub n: OpNumber,
    /// The view it was born in.
    pub birth: Vid,
    /// The fingerprint of the call.
    pub fingerprint: Fingerprint,
    /// Whether the whole result is in this peer's memory.
    pub held: bool,
    /// What this peer asked for.
    pub cancel: Option<CancelReason>,
    /// The elected content, if this is a sync of shared state and this peer knows the election.
    pub elected: Option<StateId>,
}

/// A tag that was at rest at all members and was given back: its numbers begin at 0 again (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// The tag.
    pub tag: Tag,
    /// The view in which it restarts. A member from an older view forgets what it knows about it.
    pub vid: Vid,
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
    /// Reasons of the newest aborts, best effort.
    #[serde(deserialize_with = "bounded::list::<_, _, ABORT_REASONS_MAX>")]
    pub reasons: Vec<(OpNumber, AbortReason)>,
}
