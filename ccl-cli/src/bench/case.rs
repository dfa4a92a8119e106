//! One line of the table: which call, on how much data, and what its peers measured.

use std::time::Duration;

use ccl_core::{Algorithm, Dtype, Encoding, Kind, LinkState, ReduceOp};
use serde::{Deserialize, Serialize};

/// A collective to be measured, the same on all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Which collective.
    pub kind: Kind,
    /// Algorithm that moves the bytes.
    pub algorithm: Algorithm,
    /// Type of the elements.
    pub dtype: Dtype,
    /// How elements are combined.
    pub op: ReduceOp,
    /// What contributions are rounded to, and how they travel.
    pub encoding: Option<Encoding>,
    /// Elements of the whole buffer; for all-gather and reduce-scatter a multiple of the world
    /// size.
    pub count: usize,
    /// Whether the result replaces the input. Only all-reduce has both forms.
    pub in_place: bool,
    /// Calls before the clock starts, at least 1.
    pub warmup: u32,
    /// Calls that are timed, at least 1.
    pub iterations: u32,
    /// Whether results are compared with the reference.
    pub check: bool,
    /// What comes between the calls.
    pub step: Step,
}

/// What a training loop does beside its timed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Silence before the first and each timed call, not timed.
    pub pause: Duration,
    /// Each call is followed by a safe point, timed with it.
    pub is_safe_point: bool,
}

impl Step {
    /// Nothing else.
    pub const PLAIN: Self = Self {
        pause: Duration::ZERO,
        is_safe_point: false,
    };
}

impl Case {
    /// Bytes of the buffer, as nccl-tests counts them: the larger of a peer's two.
    pub fn bytes(&self) -> u64 {
        (self.count * self.dtype.bytes()) as u64
    }

    /// Bus bandwidth as a multiple of algorithm bandwidth, by nccl-tests' definition: what a link
    /// must carry, whatever the algorithm.
    pub fn bus_factor(&self, world_size: u32) -> f64 {
        let world_size = f64::from(world_size);
        match self.kind {
            Kind::AllReduce => 2.0 * (world_size - 1.0) / world_size,
            Kind::AllGather | Kind::ReduceScatter => (world_size - 1.0) / world_size,
            Kind::Broadcast | Kind::Barrier | Kind::SharedState => 1.0,
        }
    }

    /// Bytes that the peer of rank `from` sends to the peer of rank `to` in one call. `None` for
    /// collectives that have no floor.
    pub fn bytes_between(&self, from: u32, to: u32, world_size: u32) -> Option<u64> {
        let bytes = self.bytes();
        let share = bytes / u64::from(world_size);
        match self.kind {
            // Around the ring everything goes to the next: all chunks but one, twice.
            Kind::AllReduce if self.algorithm == Algorithm::Ring => {
                let next = (from + 1) % world_size;
                Some(if to == next { 2 * (bytes - share) } else { 0 })
            }
            Kind::AllReduce if self.algorithm == Algorithm::OneShot => Some(bytes),
            // A contribution to the other's chunk, and the result of the own one.
            Kind::AllReduce => Some(2 * share),
            Kind::AllGather | Kind::ReduceScatter => Some(share),
            Kind::Broadcast | Kind::Barrier | Kind::SharedState => None,
        }
    }
}

/// What one peer saw of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Members of the view.
    pub world_size: u32,
    /// The algorithm that was used.
    pub algorithm: Algorithm,
    /// The first call, over links that moved nothing before.
    pub first_ns: u64,
    /// Each timed call, in nanoseconds.
    pub iteration_ns: Vec<u64>,
    /// All timed calls together, in nanoseconds.
    pub batch_ns: u64,
    /// User and system time of this process meanwhile, in nanoseconds.
    pub cpu_ns: u64,
    /// The same of the master, from the peer that was told its process number.
    pub master_cpu_ns: Option<u64>,
    /// Most resident memory beyond the caller's buffers, in bytes.
    pub extra_rss_bytes: u64,
    /// Elements that differ from the reference; `None` if nobody looked.
    pub wrong: Option<u64>,
    /// Error of an encoded result relative to the exact one, as the root of mean squares.
    pub error: Option<f64>,
    /// Operations that were aborted since the case began.
    pub aborts: u64,
    /// Data connections that broke and were repaired since the case began.
    pub repairs: u64,
    /// Data connections of the widest link.
    pub lanes: u16,
    /// What each link had in force at the end.
    pub links: Vec<LinkSeen>,
}

/// What one link had in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSeen {
    /// The other peer.
    pub peer: u64,
    /// Data connections that took part.
    pub lanes: u16,
    /// The congestion control.
    pub congestion_control: String,
    /// The send buffer of a connection.
    pub send_buffer_bytes: u64,
    /// The most that was delivered lately.
    pub delivered_bytes_per_second: u64,
    /// What all data connections together were limited to.
    pub limit_bytes_per_second: Option<u64>,
    /// The shortest round trip.
    pub rtt_us: u64,
}

impl From<LinkState> for LinkSeen {
    fn from(state: LinkState) -> Self {
        Self {
            peer: state.peer.0,
            lanes: state.lanes,
            congestion_control: state.congestion_control,
            send_buffer_bytes: state.send_buffer_bytes,
            delivered_bytes_per_second: state.delivered_bytes_per_second,
            limit_bytes_per_second: state.limit_bytes_per_second,
            rtt_us: u64::try_from(state.rtt.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// Name of a collective as commands and reports write it.
pub const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::AllReduce => "all-reduce",
        Kind::ReduceScatter => "reduce-scatter",
        Kind::AllGather => "all-gather",
        Kind::Broadcast => "broadcast",
        Kind::Barrier => "barrier",
        Kind::SharedState => "shared-state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(kind: Kind, algorithm: Algorithm) -> Case {
        Case {
            kind,
            algorithm,
            dtype: Dtype::F32,
            op: ReduceOp::Sum,
            encoding: None,
            count: 1024,
            in_place: false,
            warmup: 1,
            step: Step::PLAIN,
            iterations: 1,
            check: true,
        }
    }

    #[test]
    fn both_algorithms_move_as_much_as_the_bus_factor_says() {
        for world_size in [1_u32, 2, 4, 8] {
            for algorithm in [Algorithm::TwoShot, Algorithm::Ring] {
                let case = case(Kind::AllReduce, algorithm);
                let sent: u64 = (0..world_size)
                    .filter(|&to| to != 0)
                    .map(|to| case.bytes_between(0, to, world_size).unwrap())
                    .sum();
                assert_eq!(
                    sent as f64,
                    case.bytes() as f64 * case.bus_factor(world_size)
                );
            }
        }
    }

    #[test]
    fn what_nobody_sends_has_no_floor() {
        assert_eq!(
            case(Kind::Barrier, Algorithm::Auto).bytes_between(0, 1, 2),
            None
        );
    }
}
