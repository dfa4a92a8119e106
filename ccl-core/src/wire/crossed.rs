//! Members that wait for each other in different calls, and the text for callers and operators.
//!
//! The master decides whether any of them is evicted (R15).

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

/// Members that waited in an operation, and members that waited in another call; neither are the
/// majority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossed {
    /// The members that had called the operation.
    pub here: LatePeers,
    /// The members that had called something else.
    pub there: LatePeers,
    /// The other call.
    pub other: WaitPoint,
}

impl Crossed {
    /// Which members waited where, as text.
    #[must_use]
    pub fn words(&self, names: &Names) -> String {
        let (here, there) = (self.here.words(names), self.there.words(names));
        format!("{here} waited in it, and {there} in {}", self.other)
    }

    /// An upper bound of its encoded length in bytes.
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
