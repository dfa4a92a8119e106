//! What an operation inherits from its birth view.
//!
//! All of it is sent along when a view change keeps an operation open (R4): a member may post it
//! late without ever having seen that view.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use crate::ids::{Members, OpName, Rank};
use crate::limits;
use crate::wire::bounded;

/// An operation, its members and what they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The operation.
    pub op: OpName,
    /// Its members in rank order of the birth view.
    #[serde(deserialize_with = "bounded::members")]
    pub members: Members,
    /// The ring of the birth view, as ranks.
    #[serde(
        serialize_with = "bounded::write_shared",
        deserialize_with = "bounded::shared"
    )]
    pub ring_order: Arc<[Rank]>,
    /// The birth view's costs, for the choice of algorithm.
    pub costs: CostTable,
}

/// An operation as one of its members starts it; never crosses the wire.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where it takes place.
    pub birth: Birth,
    /// This peer's rank in it.
    pub rank: Rank,
    /// The fingerprint of the call.
    pub fingerprint: Fingerprint,
}

/// Numbers for the choice of algorithm and for data ahead of credits, equal for all members of a
/// view (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostTable {
    /// Largest world in which `Auto` sends chunks straight to their owners.
    pub direct_world_max: u32,
    /// Largest world whose members tell each other what they hold, and so know the verdict without
    /// the master (R19): each operation costs a message between any two of them.
    pub held_world_max: u32,
    /// What a hop costs, in bytes that a member sends in the meantime.
    pub hop_bytes: u64,
    /// What a byte costs that goes straight to where it is added, in percent of one that goes
    /// around the ring, which is added where it arrives.
    pub direct_percent: u32,
    /// Bytes that a member receives in one round trip: its rate times the latency.
    pub round_trip_bytes: u64,
    /// Receive memory of each member for data ahead of credits, over all its links.
    pub reserve_bytes: u64,
}

impl CostTable {
    /// Of members on one host: the processor is the bottleneck, and waiting for it is what takes a
    /// round trip.
    pub const ONE_HOST: Self = Self {
        direct_world_max: 64,
        held_world_max: 32,
        hop_bytes: 16 << 10,
        direct_percent: 112,
        round_trip_bytes: 512 << 10,
        reserve_bytes: limits::RESERVE_BYTES_DEFAULT as u64,
    };

    /// Whether members of a world of this size know verdicts by themselves, without the master
    /// (R19).
    #[must_use]
    pub fn members_agree(&self, world_size: u32) -> bool {
        (2..=self.held_world_max).contains(&world_size)
    }

    /// Segments that a chunk is cut into which is too small for segments of full length. They
    /// overlap on their way; but on one host each costs as much as many bytes.
    #[must_use]
    pub const fn segments_per_chunk(&self) -> usize {
        match self.hop_bytes <= Self::ONE_HOST.hop_bytes {
            true => 2,
            false => 4,
        }
    }

    /// Most bytes that a member sends ahead to one other, over all its unfinished operations: all
    /// others may do the same, and share what the receiver takes in one round trip.
    #[must_use]
    pub fn ahead_bytes_max(&self, world_size: usize) -> usize {
        let others = world_size.saturating_sub(1).max(1) as u64;
        let reserve_bytes = self.reserve_bytes.min(limits::RESERVE_BYTES_MAX as u64);
        (reserve_bytes.min(self.round_trip_bytes) / others) as usize
    }
}

impl Default for CostTable {
    fn default() -> Self {
        Self {
            direct_world_max: 64,
            held_world_max: 32,
            hop_bytes: 3 << 20,
            direct_percent: 100,
            round_trip_bytes: 6 << 20,
            reserve_bytes: limits::RESERVE_BYTES_DEFAULT as u64,
        }
    }
}
