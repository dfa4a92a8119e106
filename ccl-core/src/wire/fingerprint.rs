//! What was called, as all members must agree on it before an operation can commit (R12).
//!
//! Who compares, and what happens on a difference, is decided by `master`, `peer` and `collective`.

use serde::{Deserialize, Serialize};

use crate::ids::Rank;
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
    /// What the caller brings to a sync of shared state. Differs from member to member, and is no
    /// part of what is compared.
    pub offer: Option<StateOffer>,
}

impl Fingerprint {
    /// The first difference between two fingerprints: the field, and both values in words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        macro_rules! compare {
            ($($field:ident),*) => {$(
                if self.$field != other.$field {
                    let mine = format!("{:?}", self.$field);
                    return Some((stringify!($field), mine, format!("{:?}", other.$field)));
                }
            )*};
        }
        compare!(kind, dtype, op, count, parts, parts_digest, root, algorithm);
        compare!(quantization, retry, attempts, min_world);
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
