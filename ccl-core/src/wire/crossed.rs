//! Calls in which members wait for each other, with the words that callers and operators read.
//!
//! Who is evicted for it, or that nobody is, the master decides (R15).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::Names;
use crate::wire::fingerprint::CallName;
use crate::wire::late::LatePeers;

/// A call in which members wait for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitPoint {
    /// A collective.
    Call(CallName),
    /// `update_topology`, with a newcomer to admit.
    SafePoint {
        /// Its number.
        k: u64,
    },
}

/// Who waited in an operation, and who in another call instead; neither were most members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossed {
    /// Who had called the operation.
    pub here: LatePeers,
    /// Who had called something else.
    pub there: LatePeers,
    /// What that was.
    pub other: WaitPoint,
}

impl Crossed {
    /// Who waited where.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        let (here, there) = (self.here.words(names), self.there.words(names));
        format!("{here} waited in it, and {there} in {}", self.other)
    }

    /// An upper bound of what it takes in a message.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        (self.here.first.len() + self.there.first.len()) * 10 + 64
    }
}

impl fmt::Display for WaitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => call.fmt(f),
            Self::SafePoint { k } => write!(f, "update_topology (safe point {k})"),
        }
    }
}
