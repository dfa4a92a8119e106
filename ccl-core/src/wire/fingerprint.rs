//! The fingerprint of a call: what all members must agree on before an operation can commit (R12).
//!
//! `master`, `peer` and `collective` compare fingerprints and decide what a difference means.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{OpName, Rank, Tag};
use crate::reduce::{Dtype, Encoding, ReduceOp};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallName {
    kind: Kind,
    op: OpName,
}

impl CallName {
    /// The operation.
    #[must_use]
    pub const fn op(self) -> OpName {
        self.op
    }
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
    TwoShot,
    /// Chunks travel around the ring order of the view, pipelined by segment.
    Ring,
    /// Every member sends all it contributes to every other, and adds in rank order.
    OneShot,
}

impl Algorithm {
    /// An older name of [`Algorithm::TwoShot`].
    #[allow(non_upper_case_globals)]
    pub const Direct: Self = Self::TwoShot;

    /// Its name as callers and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::TwoShot => "two_shot",
            Self::Ring => "ring",
            Self::OneShot => "one_shot",
        }
    }
}

/// What all members must agree on before an operation can commit (R12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// All-reduce, broadcast, …, with what it alone needs.
    pub called: Called,
    /// How the bytes move.
    pub algorithm: Algorithm,
    /// Most attempts that the library makes in all, with the survivors after a loss.
    pub attempts: u32,
    /// Fewest members with which it runs.
    pub min_world: u32,
    /// What contributions are rounded to, and how they travel.
    pub encoding: Option<Encoding>,
    /// Whether contributions have weights. The weights differ from member to member.
    pub is_weighted: bool,
    /// What its caller calls a collective that it makes of this one, such as `reduce to rank 2` of
    /// an all-reduce; empty if it is what it is.
    pub caller: String,
}

/// Which collective was called, with what it alone needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Called {
    /// Equally long buffers of all members are reduced.
    AllReduce {
        /// How elements combine.
        reduce_op: ReduceOp,
        /// The buffers.
        elements: Elements,
    },
    /// Each member gets its share of the reduced buffers.
    ReduceScatter {
        /// How elements combine.
        reduce_op: ReduceOp,
        /// The elements of one share.
        elements: Elements,
    },
    /// All members get everybody's share.
    AllGather {
        /// The elements of one share.
        elements: Elements,
    },
    /// All members get one member's buffers.
    Broadcast {
        /// Rank of the sender.
        root: Rank,
        /// The buffers.
        elements: Elements,
    },
    /// A barrier; it moves no data.
    Barrier,
    /// A sync of shared state, with what the caller brings. Offers differ from member to member and
    /// are not compared.
    Sync(Box<StateOffer>),
}

/// The buffers of a call, as all members must have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Elements {
    /// Element type of the first buffer.
    pub dtype: Dtype,
    /// Elements over all buffers.
    pub count: u64,
    /// Number of buffers; 1 unless `all_reduce_many`.
    pub parts: u32,
    /// FNV-1a over the (dtype, count) of each buffer.
    pub parts_digest: u64,
}

/// What differs between two fingerprints, and both values, in words.
pub type Difference = (&'static str, String, String);

impl Fingerprint {
    /// A call that is made once, in a world of any size, with the algorithm left to the library.
    #[must_use]
    pub fn new(called: Called) -> Self {
        Self {
            called,
            algorithm: Algorithm::Auto,
            attempts: 1,
            min_world: 1,
            encoding: None,
            is_weighted: false,
            caller: String::new(),
        }
    }

    /// All-reduce, broadcast, …
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.called.kind()
    }

    /// The first difference between two fingerprints. The values are empty where the words are all
    /// there is to say.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        if self.caller != other.caller {
            return Some(("call", self.call(), other.call()));
        }
        let called = self.called.difference(&other.called);
        called.or_else(|| self.difference_in_how(other))
    }

    /// Whether a member may hold the result of such an operation although another never called it
    /// (R4: the contributors are then those known to have posted).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.called {
            Called::AllReduce { elements, .. }
            | Called::ReduceScatter { elements, .. }
            | Called::AllGather { elements } => elements.count == 0,
            Called::Broadcast { .. } | Called::Barrier => true,
            // Nobody holds it before the election, which hears all.
            Called::Sync(_) => false,
        }
    }

    /// What was called, in words.
    fn call(&self) -> String {
        if self.caller.is_empty() {
            self.kind().name().to_owned()
        } else {
            self.caller.clone()
        }
    }

    fn difference_in_how(&self, other: &Self) -> Option<Difference> {
        let of = |it: &Self| (it.algorithm.name(), it.attempts, it.min_world);
        let (mine, theirs) = (of(self), of(other));
        differ("algorithm", mine.0, theirs.0)
            .or_else(|| differ("attempts", mine.1, theirs.1))
            .or_else(|| differ("min_world_size", mine.2, theirs.2))
            .or_else(|| differ("encoding", name(self.encoding), name(other.encoding)))
            .or_else(|| differ("weighted", self.is_weighted, other.is_weighted))
    }
}

impl Called {
    /// All-reduce, broadcast, …
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::AllReduce { .. } => Kind::AllReduce,
            Self::ReduceScatter { .. } => Kind::ReduceScatter,
            Self::AllGather { .. } => Kind::AllGather,
            Self::Broadcast { .. } => Kind::Broadcast,
            Self::Barrier => Kind::Barrier,
            Self::Sync(_) => Kind::SharedState,
        }
    }

    /// How elements combine, where they do.
    #[must_use]
    pub const fn reduce_op(&self) -> Option<ReduceOp> {
        match self {
            Self::AllReduce { reduce_op, .. } | Self::ReduceScatter { reduce_op, .. } => {
                Some(*reduce_op)
            }
            _ => None,
        }
    }

    /// The buffers, if it has any.
    #[must_use]
    pub const fn elements(&self) -> Option<&Elements> {
        match self {
            Self::AllReduce { elements, .. }
            | Self::ReduceScatter { elements, .. }
            | Self::AllGather { elements }
            | Self::Broadcast { elements, .. } => Some(elements),
            Self::Barrier | Self::Sync(_) => None,
        }
    }

    /// The source of a broadcast.
    #[must_use]
    pub const fn root(&self) -> Option<Rank> {
        match self {
            Self::Broadcast { root, .. } => Some(*root),
            _ => None,
        }
    }

    /// What the caller brings to a sync of shared state.
    #[must_use]
    pub fn offer(&self) -> Option<&StateOffer> {
        match self {
            Self::Sync(offer) => Some(offer),
            _ => None,
        }
    }

    fn difference(&self, other: &Self) -> Option<Difference> {
        differ("call", self.kind().name(), other.kind().name()).or_else(|| {
            let mine = (self.elements()?, self.reduce_op(), self.root());
            let theirs = (other.elements()?, other.reduce_op(), other.root());
            differ("dtype", mine.0.dtype.name(), theirs.0.dtype.name())
                .or_else(|| differ("operator", mine.1?.name(), theirs.1?.name()))
                .or_else(|| mine.0.difference(theirs.0))
                .or_else(|| differ("root", mine.2?, theirs.2?))
        })
    }
}

impl Elements {
    /// Of buffers of these types and lengths.
    #[must_use]
    pub fn of(parts: impl IntoIterator<Item = (Dtype, u64)>) -> Self {
        let mut parts = parts.into_iter().peekable();
        let none = Self {
            dtype: parts.peek().map_or(Dtype::U8, |(dtype, _)| *dtype),
            count: 0,
            parts: 0,
            parts_digest: FNV_OFFSET,
        };
        parts.fold(none, |before, (dtype, count)| {
            let bytes = [dtype as u8].into_iter().chain(count.to_le_bytes());
            let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            Self {
                dtype: before.dtype,
                count: before.count.saturating_add(count),
                parts: before.parts + 1,
                parts_digest: bytes.fold(before.parts_digest, mix),
            }
        })
    }

    fn difference(&self, other: &Self) -> Option<Difference> {
        let words = "types and lengths of the buffers";
        differ("number of buffers", self.parts, other.parts)
            .or_else(|| differ("count", self.count, other.count))
            .or_else(|| {
                let is_same = self.parts_digest == other.parts_digest;
                (!is_same).then(|| (words, String::new(), String::new()))
            })
    }
}

fn name(encoding: Option<Encoding>) -> &'static str {
    encoding.map_or("none", Encoding::name)
}

fn differ<T: PartialEq + fmt::Display>(
    what: &'static str,
    mine: T,
    theirs: T,
) -> Option<Difference> {
    (mine != theirs).then(|| (what, mine.to_string(), theirs.to_string()))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    fn all_reduce(reduce_op: ReduceOp, dtype: Dtype, count: u64) -> Fingerprint {
        Fingerprint::new(Called::AllReduce {
            reduce_op,
            elements: Elements::of([(dtype, count)]),
        })
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let mine = all_reduce(ReduceOp::Sum, Dtype::F32, 10);
        let barrier = Fingerprint {
            attempts: 3,
            ..Fingerprint::new(Called::Barrier)
        };
        let cases = [
            (barrier, ("call", "all_reduce", "barrier")),
            (
                all_reduce(ReduceOp::Max, Dtype::F64, 11),
                ("dtype", "f32", "f64"),
            ),
            (
                all_reduce(ReduceOp::Max, Dtype::F32, 11),
                ("operator", "sum", "max"),
            ),
            (
                all_reduce(ReduceOp::Sum, Dtype::F32, 11),
                ("count", "10", "11"),
            ),
        ];
        for (theirs, (what, one, other)) in cases {
            let difference = (what, one.to_owned(), other.to_owned());
            assert_eq!(mine.difference(&theirs), Some(difference));
        }
        assert_eq!(mine.difference(&mine.clone()), None);
    }

    #[test]
    fn offers_are_not_compared() {
        let offering = |entries| {
            let offer = StateOffer {
                entries,
                ..StateOffer::default()
            };
            Fingerprint::new(Called::Sync(Box::new(offer)))
        };
        assert_eq!(offering(1).difference(&offering(2)), None);
    }

    #[test]
    fn other_buffers_have_another_digest() {
        use Dtype::{F32, I32};
        let cases: [&[(Dtype, u64)]; 4] = [&[], &[(F32, 2)], &[(I32, 2)], &[(F32, 1), (F32, 1)]];
        let digests = cases.map(|parts| Elements::of(parts.iter().copied()).parts_digest);
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }

    #[test]
    fn elements_are_those_of_all_buffers() {
        let elements = Elements::of([(Dtype::F32, 3), (Dtype::I32, 4)]);
        assert_eq!(
            (elements.dtype, elements.count, elements.parts),
            (Dtype::F32, 7, 2)
        );
    }
}
