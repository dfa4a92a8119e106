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
    /// Its content does not count.
    ReceiveOnly,
}

impl SyncStrategy {
    /// All strategies.
    pub const ALL: [Self; 3] = [Self::EnforcePopular, Self::SendOnly, Self::ReceiveOnly];

    /// As it is written in messages and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EnforcePopular => "enforce_popular",
            Self::SendOnly => "send_only",
            Self::ReceiveOnly => "receive_only",
        }
    }
}

/// What a member brings to a sync. It is part of its fingerprint, and not compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateOffer {
    /// The member's content.
    pub content: StateId,
    /// Digest of names, types and shapes: must be the same for all.
    pub keys: Digest,
    /// Sums over the entries, to name one that differs.
    pub sketch: KeySketch,
    /// Number of entries, to name what differs.
    pub entries: u32,
    /// Their length in bytes.
    pub bytes: u64,
    /// The member's strategy.
    pub strategy: SyncStrategy,
    /// Whether its content is whole: a sync that failed half-way leaves a mixture, which can only
    /// receive.
    pub is_usable: bool,
    /// A vote for the highest revision there is, if the sealed one is lost, or too old for it to
    /// follow.
    pub restore: bool,
}

/// Why a sync cannot be: a mistake of its callers, or content that nobody has. Nobody is evicted
/// for it: of a few members that are too far ahead it is not said, they are evicted instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncFault {
    /// A member's entries differ from those of most.
    Keys {
        /// The member that does not fit.
        peer: PeerId,
        /// Its number of entries and bytes.
        theirs: (u32, u64),
        /// Entries and bytes of most members.
        most: (u32, u64),
        /// Its keys digest, which others may share.
        odd: Digest,
        /// The keys of most.
        usual: Digest,
        /// What its entries differ from those in, if it is known.
        difference: Option<Box<KeyDifference>>,
    },
    /// Strategies that do not go together.
    Strategies {
        /// The member that does not fit.
        peer: PeerId,
        /// That member's strategy.
        theirs: SyncStrategy,
        /// The strategy of most.
        most: SyncStrategy,
    },
    /// A sender's content is not the one that was elected.
    SenderLost {
        /// The member that does not fit.
        peer: PeerId,
        /// That member's content.
        theirs: StateId,
        /// The elected content.
        elected: StateId,
    },
    /// A revision further ahead than one step.
    RevisionAhead {
        /// The member that is furthest ahead.
        peer: PeerId,
        /// That member's revision.
        theirs: Revision,
        /// What was sealed last.
        sealed: Revision,
    },
    /// Nobody has the content that was sealed, nor one that follows it.
    RevisionLost {
        /// The content sealed last.
        sealed: StateId,
        /// The best there is.
        best: StateId,
        /// Members that did not vote to go back to it.
        #[serde(deserialize_with = "bounded::list::<_, _, WORLD_SIZE_MAX>")]
        unwilling: Vec<PeerId>,
    },
    /// Nobody offers a content that could be given to others.
    NoSource,
}

impl SyncFault {
    /// Which it is, in a word, for programs to tell them apart.
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

    /// Whose state does not fit, where one peer is the odd one.
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
                "{} has other entries than the other members: {}, not {}; names, types and shapes \
                 must be the same on all members",
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
                 go back to it, call with restore on all members; not yet done by: {}",
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
