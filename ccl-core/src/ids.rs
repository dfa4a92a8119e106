//! Identifiers of the protocol, each its own type.
//!
//! No bare integer crosses a module: mixing up a tag and an operation number must not compile.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// One session of one peer in a run. Assigned by the master at `Hello` and never reused; a
    /// process that rejoins after an eviction is a new peer.
    PeerId(u64)
}
id! {
    /// Order of admission into a group. Never reused; rank is the position by member number.
    MemberNumber(u64)
}
id! {
    /// A set of peers that reduce and synchronise together.
    GroupId(u64)
}
id! {
    /// Peers that join, leave and fail as one.
    UnitId(u64)
}
id! {
    /// The caller's name for a stream of operations. At most one is open a tag and peer.
    Tag(u64)
}
id! {
    /// Position of an operation in its tag's sequence, from 0.
    OpNumber(u64)
}
id! {
    /// The caller's name for a sequence of records.
    StreamId(u64)
}
id! {
    /// Position of a record in its stream, from 0.
    Step(u64)
}
id! {
    /// Generation of the master process: +1 at each start.
    Term(u32)
}
id! {
    /// Generation of a group's membership: +1 at each `Install`.
    Epoch(u32)
}
id! {
    /// Index of a peer in the members of one view, from 0.
    Rank(u32)
}
id! {
    /// Version of the shared state.
    Revision(u64)
}
id! {
    /// Index of a connection of a link, from 0.
    LaneIndex(u16)
}
id! {
    /// The caller's name for one call in progress at this peer; never crosses the wire.
    CallId(u64)
}
id! {
    /// Which run this is; drawn at random by the master that founds it.
    RunId(u128)
}
id! {
    /// The secret by which a peer proves that a session is its own.
    SessionId(u128)
}
id! {
    /// The secret that a connection to a peer's port must show; the master gives it to members
    /// only.
    LinkKey(u128)
}

impl Tag {
    /// The stream of syncs of shared state; callers cannot use it.
    pub const SHARED_STATE: Self = Self(u64::MAX);
}

impl OpNumber {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("2^64 operations take longer than the hardware lasts"),
        )
    }
}

impl Step {
    /// The step that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("2^64 steps take longer than the hardware lasts"),
        )
    }
}

impl Rank {
    /// As an index into the members of a view.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Members of a view or of an operation in rank order; cheap to clone. Decoders of outside data
/// bound their number by `WORLD_SIZE_MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(Arc<[PeerId]>);

impl Members {
    /// The number of members.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.0.len() as u32
    }

    /// The rank of a peer, if it is a member.
    #[must_use]
    pub fn rank_of(&self, peer: PeerId) -> Option<Rank> {
        let index = self.0.iter().position(|&member| member == peer)?;
        Some(Rank(index as u32))
    }
}

impl Deref for Members {
    type Target = [PeerId];

    fn deref(&self) -> &[PeerId] {
        &self.0
    }
}

impl FromIterator<PeerId> for Members {
    fn from_iter<I: IntoIterator<Item = PeerId>>(peers: I) -> Self {
        Self(peers.into_iter().collect())
    }
}

impl From<Vec<PeerId>> for Members {
    fn from(peers: Vec<PeerId>) -> Self {
        Self(peers.into())
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a PeerId;
    type IntoIter = std::slice::Iter<'a, PeerId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

/// Name of a view: compared by term, then by epoch (docs/protocol.md, R1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Vid {
    /// The master that installed it.
    pub term: Term,
    /// Its place in the group's sequence of views.
    pub epoch: Epoch,
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.epoch)
    }
}

/// Full name of an operation inside its group (R1). The birth view fixes its members.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct OpName {
    /// The caller's tag.
    pub tag: Tag,
    /// Position in the tag's sequence.
    pub n: OpNumber,
    /// The view in which the first member posted it.
    pub birth: Vid,
}

/// For users. The alternate form, for protocol errors, adds the birth view.
impl fmt::Display for OpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Tag::SHARED_STATE => write!(f, "sync {} of the shared state", self.n)?,
            tag => write!(f, "call {} of tag {tag}", self.n)?,
        }
        if f.alternate() {
            write!(f, ", born in view {}", self.birth)?;
        }
        Ok(())
    }
}
