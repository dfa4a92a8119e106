//! What a caller learns from the driver: how a call ended, its progress, and counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{OpName, PeerId, Step, StreamId};
use crate::peer::View;
use crate::wire::control::{Digest, StepEntry};

/// The result of a successful operation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The operation's name in the run's history.
    pub op: OpName,
    /// Whose data is in the result, in rank order.
    pub contributors: Vec<PeerId>,
    /// By how much each of them counts, in the same order; empty without weights.
    pub weights: Vec<u32>,
    /// The view this peer was in when it learned the outcome.
    pub view: Arc<View>,
    /// Number of attempts.
    pub attempts: u32,
}

impl Outcome {
    /// Who has weight 0 has contributed nothing.
    pub(crate) fn weigh(&mut self, weights: &BTreeMap<PeerId, u32>) {
        let weight = |peer: &PeerId| weights.get(peer).copied().unwrap_or(0);
        self.contributors.retain(|peer| weight(peer) > 0);
        self.weights = self.contributors.iter().map(weight).collect();
    }
}

/// A sealed record of a stream, as its caller is told.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The stream.
    pub stream: StreamId,
    /// Its step.
    pub step: Step,
    /// What members gave, by the order of their admission, the oldest first. Whoever is not listed
    /// abstained, or gave nothing in time.
    pub entries: Vec<StepEntry>,
    /// The hash of the stream with this record: equal on all members.
    pub hash: Digest,
    /// The view this peer was in when it learned of it.
    pub view: Arc<View>,
}

/// Progress of an operation at this peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Payload bytes sent and received so far.
    pub done_bytes: u64,
    /// Payload bytes sent and received at the end.
    pub total_bytes: u64,
}

/// Counters of a communicator since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations that committed.
    pub commits: u64,
    /// Operations that were aborted.
    pub aborts: u64,
    /// Lanes that broke and were repaired.
    pub repairs: u64,
    /// Bytes sent to other peers.
    pub sent_bytes: u64,
    /// Bytes received from other peers.
    pub received_bytes: u64,
    /// Data connections of the current link with the most.
    pub lanes: u16,
}

/// The link to another peer: what its connections have in force, and what was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The other peer.
    pub peer: PeerId,
    /// Data connections that take part.
    pub lanes: u16,
    /// The congestion control in force.
    pub congestion_control: String,
    /// The send buffer of a connection, in bytes as the system counts them.
    pub send_buffer_bytes: u64,
    /// The most that was delivered lately, in bytes per second; 0 if nothing was measured, as
    /// between peers of one host.
    pub delivered_bytes_per_second: u64,
    /// What all data connections together are limited to, in bytes per second, if they are.
    pub limit_bytes_per_second: Option<u64>,
    /// The shortest round trip; zero if it was not measured.
    pub rtt: Duration,
}
