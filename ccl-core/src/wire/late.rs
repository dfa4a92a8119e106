//! Which members an operation waited for when it timed out, and the text for callers and operators.
//!
//! For information only. The master fills it in when it decides the abort (R8).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::limits::WAIT_NAMES_MAX;
use crate::names::Names;
use crate::wire::bounded;
use crate::wire::fingerprint::CallName;

/// Which members an operation waited for when it timed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Late {
    /// These had not called it.
    Uncalled {
        /// The members that had not.
        peers: LatePeers,
        /// Other calls that some of them were in.
        #[serde(deserialize_with = "bounded::list::<_, _, WAIT_NAMES_MAX>")]
        elsewhere: Vec<Elsewhere>,
    },
    /// All had called it, and these had not finished it.
    Unfinished(LatePeers),
}

/// A number of peers, of which only the first are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatePeers {
    /// How many there are in total.
    pub count: u32,
    /// The first, in rank order.
    #[serde(deserialize_with = "bounded::list::<_, _, WAIT_NAMES_MAX>")]
    pub first: Vec<PeerId>,
}

/// A call that a member was in instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The member.
    pub peer: PeerId,
    /// What it had called.
    pub call: CallName,
}

impl LatePeers {
    /// Counts these peers and names the first.
    #[must_use]
    pub fn of(peers: &[PeerId]) -> Self {
        Self {
            count: u32::try_from(peers.len()).unwrap_or(u32::MAX),
            first: peers.iter().copied().take(WAIT_NAMES_MAX).collect(),
        }
    }

    /// The first by name, and how many more.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self.count as usize - self.first.len().min(self.count as usize) {
            0 => names.list(&self.first).to_string(),
            more => {
                let first = self
                    .first
                    .iter()
                    .map(|peer| names.of(*peer).to_string())
                    .collect::<Vec<_>>()
                    .join(", ");
                format!("{first} and {more} more")
            }
        }
    }
}

impl Late {
    /// Which members were late with what, as text.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        match self {
            Self::Uncalled { peers, elsewhere } => {
                let mut words = format!("{} had not called it", peers.words(names));
                for (index, one) in elsewhere.iter().enumerate() {
                    words += if index == 0 { ": " } else { ", " };
                    words += &one.to_string();
                }
                words
            }
            Self::Unfinished(peers) => {
                let peers = peers.words(names);
                format!("all had called it, but {peers} had not finished it")
            }
        }
    }

    /// The first late members, in rank order.
    #[must_use]
    pub fn first(&self) -> &[PeerId] {
        match self {
            Self::Uncalled { peers, .. } | Self::Unfinished(peers) => &peers.first,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Uncalled { elsewhere, .. } if !elsewhere.is_empty() => {
                "all members must make the same calls in the same order; if they do, set a longer \
                 deadline or operation_timeout"
            }
            _ => "set a longer deadline or operation_timeout",
        }
    }

    /// An upper bound of its encoded length in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        match self {
            Self::Uncalled { peers, elsewhere } => peers.first.len() * 10 + elsewhere.len() * 64,
            Self::Unfinished(peers) => peers.first.len() * 10,
        }
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {} was in {}", self.peer, self.call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_late_peers_the_first_are_named_and_the_others_counted() {
        let peers: Vec<_> = (0..10).map(PeerId).collect();
        let words = Late::Unfinished(LatePeers::of(&peers)).words(&Names::default());
        let named = "peer 0, peer 1, peer 2, peer 3, peer 4, peer 5, peer 6, peer 7 and 2 more";
        let expected = format!("all had called it, but {named} had not finished it");
        assert_eq!(words, expected);
    }
}
