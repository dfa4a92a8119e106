//! What a caller learns from the driver: how a call ended, its progress, and counters.

use std::sync::Arc;

use crate::ids::{OpName, PeerId};
use crate::peer::View;

/// The result of a successful operation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The operation's name in the run's history.
    pub op: OpName,
    /// Whose data is in the result, in rank order.
    pub contributors: Vec<PeerId>,
    /// The view this peer was in when it learned the outcome.
    pub view: Arc<View>,
    /// Number of attempts.
    pub attempts: u32,
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
