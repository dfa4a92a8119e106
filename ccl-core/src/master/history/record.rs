//! Records of the sealed history: what a restarted master must know (docs/protocol.md, R11).
//!
//! Views, decisions, safe points, sessions and terms are on disk before any peer learns of them.
//! Commits inside a view may be written lazily, because every member of the view holds them; but a
//! commit that seals shared state is on disk first, because its content outlives the members in
//! checkpoints, and so is the record of a step, because nobody could make it again. How and when
//! records are written is the driver's business.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{
    Epoch, GroupId, LinkKey, MemberNumber, PeerId, Rank, RunId, SessionId, StreamId, Term, UnitId,
    Vid,
};
use crate::timers::Timers;
use crate::wire::control::{
    Birth, Chain, CommitRecord, CostTable, EvictReason, GivenBack, KeptRecords, Member, Place,
    StateId, StepRecord, TagFloor, label,
};

/// One entry of the sealed history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum Record {
    /// The first record: a run was founded, or taken over from reports of its members.
    RunFounded {
        /// Its name, as peers give it.
        run: String,
        /// The run's random id.
        run_id: RunId,
        /// Whether it was taken over: it may have groups that this journal does not name, and they
        /// may have members.
        taken_over: bool,
    },
    /// A master started serving the run.
    TermBegan {
        /// Its term; greater than any before.
        term: Term,
    },
    /// A newcomer was given a session, or a member's was taken over on its own claim.
    SessionRegistered(Registration),
    /// A session ended.
    SessionEnded {
        /// The session that ended.
        peer: PeerId,
        /// Why it ended.
        reason: EvictReason,
    },
    /// A view, and with it every outcome decided at the change to it (R4).
    ViewSealed(SealedView),
    /// Operations that all members of their view finished.
    Committed {
        /// The group.
        group: GroupId,
        /// The operations, their contributors, and what they seal.
        commits: Vec<CommitRecord>,
    },
    /// What a shortened journal must keep of the records that it leaves out, and a run that was
    /// taken over of those that were lost.
    Counters {
        /// Greater than every peer id given so far.
        next_peer: PeerId,
        /// Number of the next admitted peer of each group.
        next_numbers: Vec<(GroupId, MemberNumber)>,
        /// The greatest epoch of a group that was given back.
        epochs: Epoch,
        /// Ids of closed groups that have ended, oldest first: no group gets them again.
        used: Vec<GroupId>,
    },
    /// A group without members was dropped: nothing of it counts any more.
    GroupGivenBack {
        /// The group.
        group: GroupId,
        /// The greatest epoch of a group that was given back, this one included.
        epochs: Epoch,
    },
    /// A safe point changed nothing (R9).
    SafePoint {
        /// The group.
        group: GroupId,
        /// Number of the safe point.
        k: u64,
        /// The view it holds in.
        vid: Vid,
    },
    /// The records before this one are an older copy of the run's journal, or a part of it: what
    /// they say of groups needs a majority. There may be groups, sessions and terms that they do
    /// not name.
    Outdated,
    /// A session that a shortened journal remembers although it has ended.
    Remembered(EndedSession),
    /// The record of a step of a stream.
    Recorded {
        /// The group.
        group: GroupId,
        /// The record.
        record: StepRecord,
    },
    /// The streams of a group, instead of what the journal has of them: in a shortened journal, or
    /// after they were resumed from reports.
    Streams {
        /// The group.
        group: GroupId,
        /// All of them.
        streams: Vec<KeptStream>,
    },
}

/// A stream, and the newest records of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStream {
    /// The stream.
    pub stream: StreamId,
    /// The records.
    pub kept: KeptRecords,
}

impl KeptStream {
    /// All that is kept of these.
    pub fn of<'a>(streams: impl Iterator<Item = (&'a StreamId, &'a Chain)>) -> Vec<Self> {
        let kept = streams.map(|(stream, chain)| Self {
            stream: *stream,
            kept: chain.kept(),
        });
        kept.collect()
    }
}

/// What is remembered of a session that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// Its secret.
    pub session: SessionId,
    /// Why it ended, for the answer to a late attach.
    pub reason: EvictReason,
    /// The key of its process.
    pub key: LinkKey,
    /// Counter of its newest connection, so that a late hello is not taken for a new one.
    pub attach: u64,
}

/// What the master keeps of a `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The session's name.
    pub peer: PeerId,
    /// The session's secret.
    pub session: SessionId,
    /// The group it joins.
    pub group: GroupId,
    /// Its unit, whose peers fail together.
    pub unit: UnitId,
    /// Peers of that unit that are admitted together; `None`: it need not wait for any.
    pub unit_size: Option<u32>,
    /// Its place among the members of a closed group; `None`: its group is open.
    pub place: Option<Place>,
    /// The first peer of its generation of the unit.
    pub generation: PeerId,
    /// Where other peers reach it.
    pub addresses: Vec<SocketAddr>,
    /// The key that a connection to its port must present.
    pub key: LinkKey,
    /// Fewest members it wants to work with.
    pub min_world: u32,
    /// Counter of the connection that carried the `Hello`; a later master accepts only newer ones
    /// (R10).
    pub attach: u64,
    /// Its name, chosen by its program.
    pub name: String,
    /// The timeouts that it was sent and uses.
    pub timers: Timers,
}

impl Registration {
    /// Its name and its address.
    pub fn label(&self) -> String {
        label(&self.name, &self.addresses)
    }
}

/// A view of one group with all that an `Install` of it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedView {
    /// The group.
    pub group: GroupId,
    /// Whether the group is closed: no one joins it after its first view.
    pub is_closed: bool,
    /// Whether members that were lost may go on without a master for a while.
    pub is_leased: bool,
    /// Name of the view.
    pub vid: Vid,
    /// Its members in rank order; empty if the last one is gone.
    pub members: Vec<SealedMember>,
    /// The ring of the view.
    pub ring_order: Vec<Rank>,
    /// How `Auto` chooses.
    pub costs: CostTable,
    /// The outcome state of every tag.
    pub floors: Vec<TagFloor>,
    /// Tags that were given back and of which some member may not know.
    pub given_back: Vec<GivenBack>,
    /// Operations that are carried into it.
    pub carried: Vec<Birth>,
    /// Safe points released so far.
    pub safe_released: u64,
    /// Members that left since the view before, and why.
    pub departed: Vec<(PeerId, EvictReason)>,
    /// The shared state that was sealed last.
    pub state: Option<StateId>,
    /// The longest timeouts that any member was sent.
    pub timers: Timers,
}

/// A member of a [`SealedView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedMember {
    /// The member, as the others know it.
    pub member: Member,
    /// Its session's secret.
    pub session: SessionId,
    /// Counter of its newest connection when the view was sealed; messages over older ones do not
    /// count (R10).
    pub attach: u64,
}
