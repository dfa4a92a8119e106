//! What a layout is made from, and what follows for chunks and owners.

use super::layout::Part;
use crate::ids::Rank;
use crate::reduce::Encoding;
use crate::wire::control::{Algorithm, Kind};

/// What a layout is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Which collective.
    pub kind: Kind,
    /// How it moves; `Auto` is resolved before.
    pub algorithm: Algorithm,
    /// Its buffers.
    pub parts: &'a [Part],
    /// World size.
    pub world_size: usize,
    /// The ring, as ranks; used by ring only.
    pub ring_order: &'a [Rank],
    /// Source of a broadcast.
    pub root: Option<Rank>,
    /// What contributions are rounded to, if elements are combined.
    pub encoding: Option<Encoding>,
    /// Segments that a small chunk is cut into.
    pub segments_per_chunk: usize,
}

impl Shape<'_> {
    /// Whether each rank's chunk is its share, and not a cut of the flat space.
    pub(super) fn is_by_share(&self) -> bool {
        matches!(self.kind, Kind::ReduceScatter | Kind::AllGather)
    }

    /// Whether it really goes around the ring: other kinds fall back to direct.
    pub(super) fn is_ring(&self) -> bool {
        self.algorithm == Algorithm::Ring && self.kind == Kind::AllReduce
    }

    /// Whether every rank owns everything.
    pub(super) fn is_one_shot(&self) -> bool {
        self.algorithm == Algorithm::OneShot && self.kind == Kind::AllReduce
    }

    /// Who owns each chunk.
    pub(super) fn owners(&self) -> Vec<Rank> {
        if self.is_one_shot() {
            return vec![Rank(0)];
        }
        if self.is_ring() {
            assert_eq!(
                self.ring_order.len(),
                self.world_size,
                "the ring order names every member"
            );
            return self.ring_order.to_vec();
        }
        let n = u32::try_from(self.world_size).expect("worlds are small");
        (0..n).map(Rank).collect()
    }
}
