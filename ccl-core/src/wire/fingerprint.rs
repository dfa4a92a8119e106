//! What was called, as all members must agree on it before an operation can commit (R12).
//!
//! Who compares, and what happens on a difference, is decided by `master`, `peer` and `collective`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{OpName, Rank, Tag};
use crate::reduce::{Dtype, ReduceOp};
use crate::wire::state::StateOffer;

/// What kind of collective an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    AllReduce,
    ReduceScatter,
    AllGather,
    Broadcast,
    Barrier,
    /// A sync of shared state.
    SharedState,
}

impl Kind {
    /// Its name as callers and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::SharedState => "sync",
        }
    }

    /// What users know a call by: its name, its tag and its number there, such as `all_reduce (tag
    /// 0, call 3)`.
    #[must_use]
    pub const fn call(self, op: OpName) -> CallName {
        CallName { kind: self, op }
    }
}

/// See [`Kind::call`].
#[derive(Clone, Copy, Debug)]
pub struct CallName {
    kind: Kind,
    op: OpName,
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, op) = (self.kind.name(), self.op);
        match op.tag {
            Tag::SHARED_STATE => write!(f, "{name} (call {})", op.n),
            tag => write!(f, "{name} (tag {tag}, call {})", op.n),
        }
    }
}

/// How a collective moves its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// The library chooses, by a pure function of what was called, the members of the birth view
    /// and its cost table: the same for a member that posts late, in a newer view.
    #[default]
    Auto,
    /// Each chunk goes to its owner, who adds in rank order and sends the result to all.
    Direct,
    /// Chunks travel around the ring order of the view, pipelined by segment.
    Ring,
}

impl Algorithm {
    /// Its name as callers and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Ring => "ring",
        }
    }
}

/// What all members must agree on before an operation can commit (R12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// All-reduce, broadcast, …
    pub kind: Kind,
    /// Direct or ring.
    pub algorithm: Algorithm,
    /// How elements combine; `Sum` where nothing is reduced.
    pub op: ReduceOp,
    /// Element type of the first part.
    pub dtype: Dtype,
    /// Elements over all parts.
    pub count: u64,
    /// Number of buffers; 1 unless `all_reduce_many`.
    pub parts: u32,
    /// FNV-1a over the (dtype, count) of each part.
    pub parts_digest: u64,
    /// The source of a broadcast; 0 elsewhere.
    pub root: Rank,
    /// Wire format of the data; 0 is the dtype itself.
    pub quantization: u8,
    /// Whether the library repeats the call with the survivors after a loss.
    pub retry: bool,
    /// Most attempts that such a repetition makes in all.
    pub attempts: u32,
    /// Fewest members with which it runs.
    pub min_world: u32,
    /// What its caller calls a collective that it makes of this one, such as `reduce to rank 2` of
    /// an all-reduce; empty if it is what it is.
    pub caller: String,
    /// What the caller brings to a sync of shared state. Differs from member to member, and is no
    /// part of what is compared.
    pub offer: Option<Box<StateOffer>>,
}

impl Fingerprint {
    /// What was called, in words.
    fn call(&self) -> String {
        if self.caller.is_empty() {
            self.kind.name().to_owned()
        } else {
            self.caller.clone()
        }
    }

    /// The first difference between two fingerprints: what differs, and both values, in words. The
    /// values are empty where the words are all there is to say.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        macro_rules! compare {
            ($($field:ident as $name:literal: $words:expr),* $(,)?) => {$(
                if self.$field != other.$field {
                    let words = $words;
                    return Some(($name, words(self), words(other)));
                }
            )*};
        }
        compare!(
            caller as "call": Self::call,
            kind as "call": |it: &Self| it.kind.name().to_owned(),
            dtype as "dtype": |it: &Self| it.dtype.name().to_owned(),
            op as "operator": |it: &Self| it.op.name().to_owned(),
            parts as "number of buffers": |it: &Self| it.parts.to_string(),
            count as "count": |it: &Self| it.count.to_string(),
            parts_digest as "types and lengths of the buffers": |_: &Self| String::new(),
            root as "root": |it: &Self| it.root.to_string(),
            algorithm as "algorithm": |it: &Self| it.algorithm.name().to_owned(),
            quantization as "quantization": |it: &Self| it.quantization.to_string(),
            attempts as "attempts": |it: &Self| it.attempts.to_string(),
            retry as "retry": |it: &Self| it.retry.to_string(),
            min_world as "min_world_size": |it: &Self| it.min_world.to_string(),
        );
        None
    }

    /// Whether a member may hold the result of such an operation although another never called it
    /// (R4: the contributors are then those known to have posted).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.kind {
            Kind::Barrier | Kind::Broadcast => true,
            // Nobody holds it before the election, which hears all.
            Kind::SharedState => false,
            _ => self.count == 0,
        }
    }
}
