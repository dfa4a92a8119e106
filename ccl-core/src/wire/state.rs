//! The shared-state part of the control protocol: offers, the elected content, and faults.
//!
//! `master` decides who wins; `state` moves the blocks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{PeerId, Revision};
use crate::limits::WORLD_SIZE_MAX;
use crate::names::Names;
use crate::wire::bounded;

pub use super::sketch::{Foreign, KeyDifference, KeySketch, OddEntry, name_hash};

/// A BLAKE3 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One content of the shared state: its revision, and the root over all its blocks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StateId {
    /// The revision: how often the state was advanced.
    pub revision: Revision,
    /// The digest of its content.
    pub root: Digest,
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} ({:?})", self.revision, self.root)
    }
}

/// What a member wants of a sync.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum SyncStrategy {
    /// Its content takes part in the election, and is replaced if another wins.
    #[default]
    EnforcePopular,
    /// Its content must win.
    SendOnly,
    /// Its content does not take part in the election.
    ReceiveOnly,
}

impl SyncStrategy {
    /// All strategies.
    pub const ALL: [Self; 3] = [Self::EnforcePopular, Self::SendOnly, Self::ReceiveOnly];

    /// The name in messages and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EnforcePopular => "enforce_popular",
            Self::SendOnly => "send_only",
            Self::ReceiveOnly => "receive_only",
        }
    }
}

/// What a member offers to a sync. It is part of the fingerprint, but not compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateOffer {
    /// The member's content.
    pub content: StateId,
    /// Digest of names, types and shapes; must be the same on all members.
    pub keys: Digest,
    /// Sums over the entries, from which one that differs can be named.
    pub sketch: KeySketch,
    /// Number of entries, for error texts.
    pub entries: u32,
    /// Total length of the entries in bytes.
    pub bytes: u64,
    /// The member's strategy.
    pub strategy: SyncStrategy,
    /// Whether its content is consistent. A member with a mixture, left by a sync that failed
    /// half-way, can only receive.
    pub is_usable: bool,
    /// A vote for the highest available revision, if the sealed content is lost or too old.
    pub restore: bool,
}

/// Why a sync fails for all members: a mistake of its callers, or content that no member has.
///
/// No peer is evicted for these. A few members that are too far ahead are evicted instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncFault {
    /// A member's entries differ from those of most.
    Keys {
        /// The member that does not fit.
        peer: PeerId,
        /// That member's number of entries, and of bytes.
        theirs: (u32, u64),
        /// Number of entries, and of bytes, of most members.
        most: (u32, u64),
        /// That member's digest of keys, which others may share.
        odd: Digest,
        /// The digest of keys of most members.
        usual: Digest,
        /// How the entries differ, if known.
        difference: Option<Box<KeyDifference>>,
    },
    /// Strategies that cannot be combined.
    Strategies {
        /// The member that does not fit.
        peer: PeerId,
        /// That member's strategy.
        theirs: SyncStrategy,
        /// The strategy of most members.
        most: SyncStrategy,
    },
    /// The content of a `SendOnly` member was not elected.
    SenderLost {
        /// The member that does not fit.
        peer: PeerId,
        /// That member's content.
        theirs: StateId,
        /// The elected content.
        elected: StateId,
    },
    /// Too many members are more than one revision ahead.
    RevisionAhead {
        /// The member that is furthest ahead.
        peer: PeerId,
        /// That member's revision.
        theirs: Revision,
        /// What was sealed last.
        sealed: Revision,
    },
    /// No member has the content sealed last, or one that follows it.
    RevisionLost {
        /// The content sealed last.
        sealed: StateId,
        /// The best available content.
        best: StateId,
        /// Members that did not vote to go back to it.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        unwilling: Vec<PeerId>,
    },
    /// No member offers a consistent content.
    NoSource,
}

impl SyncFault {
    /// A keyword by which programs can tell the faults apart.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Keys { .. } => "keys",
            Self::Strategies { .. } => "strategies",
            Self::SenderLost { .. } => "sender_lost",
            Self::RevisionAhead { .. } => "revision_ahead",
            Self::RevisionLost { .. } => "revision_lost",
            Self::NoSource => "no_source",
        }
    }

    /// The peer whose state does not fit, if it is a single one.
    #[must_use]
    pub fn odd_peer(&self) -> Option<PeerId> {
        match self {
            Self::Keys { peer, .. }
            | Self::Strategies { peer, .. }
            | Self::SenderLost { peer, .. }
            | Self::RevisionAhead { peer, .. } => Some(*peer),
            Self::RevisionLost { .. } | Self::NoSource => None,
        }
    }

    /// What is wrong, and what to do.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Keys {
                peer, theirs, most, ..
            } => format!(
                "the entries of {} differ from those of the other members: {}, not {}; names, \
                 types and shapes must be the same on all members",
                names.of(*peer),
                entries(theirs.0, theirs.1),
                entries(most.0, most.1)
            ),
            Self::Strategies { peer, theirs, most } => format!(
                "{} uses strategy {}, which cannot be combined with {}, which the others use",
                names.of(*peer),
                theirs.name(),
                most.name()
            ),
            Self::SenderLost {
                peer,
                theirs,
                elected,
            } => format!(
                "{} is send_only with {theirs}, but {elected} was elected",
                names.of(*peer)
            ),
            Self::RevisionAhead {
                peer,
                theirs,
                sealed,
            } => format!(
                "{} has revision {theirs}, but the run's last is {sealed}, and too many members \
                 are ahead to evict them. Restart those members without their state or with the \
                 run's own checkpoint; or call with restore on all members: the run then continues \
                 from the content that most of them have",
                names.of(*peer)
            ),
            Self::RevisionLost {
                sealed,
                best,
                unwilling,
            } => format!(
                "no member has {sealed}, which was sealed last; the best available is {best}. To \
                 go back to it, call with restore on all members; these have not: {}",
                names.list(unwilling)
            ),
            Self::NoSource => "no member has a consistent content to offer: each is receive_only, \
                               or holds a mixture after a sync that failed half-way. A member with \
                               a consistent content must call with another strategy; if there is \
                               none, load a checkpoint, or fill the memory and call begin_anew, and \
                               call with restore on all members"
                .into(),
        }
    }
}

fn entries(count: u32, bytes: u64) -> String {
    let noun = if count == 1 { "entry" } else { "entries" };
    format!("{count} {noun} with {bytes} bytes in total")
}

impl fmt::Display for SyncFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(&Names::default()))
    }
}
