//! What calls return: plain, immutable records.

use std::sync::Arc;

use pyo3::prelude::*;

/// The result of a successful operation.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct Outcome(pub ccl_core::Outcome);

#[pymethods]
impl Outcome {
    /// The operation's name: its number and its tag.
    #[getter]
    fn op(&self) -> String {
        self.0.op.to_string()
    }

    /// Peers whose data is in the result, in rank order.
    #[getter]
    fn contributors(&self) -> Vec<u64> {
        self.0.contributors.iter().map(|peer| peer.0).collect()
    }

    /// By how much each contributor counts, in the same order; empty without weights.
    #[getter]
    fn weights(&self) -> Vec<u32> {
        self.0.weights.clone()
    }

    /// Number of contributors.
    #[getter]
    fn world_size(&self) -> usize {
        self.0.contributors.len()
    }

    /// The view this peer was in when it learned the outcome.
    #[getter]
    fn view(&self) -> View {
        View(Arc::clone(&self.0.view))
    }

    /// Number of attempts.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    fn __repr__(&self) -> String {
        format!(
            "Outcome(op={:?}, world_size={}, attempts={})",
            self.op(),
            self.world_size(),
            self.attempts()
        )
    }
}

/// The members of a peer group between two changes.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct View(pub Arc<ccl_core::View>);

#[pymethods]
impl View {
    /// The number of the view; each change of the members adds 1.
    #[getter]
    fn epoch(&self) -> u32 {
        self.0.vid.epoch.0
    }

    /// Term of the master that installed it; each start of a master adds 1.
    #[getter]
    fn term(&self) -> u32 {
        self.0.vid.term.0
    }

    /// Peers in rank order.
    #[getter]
    fn members(&self) -> Vec<u64> {
        let members = self.0.members.iter();
        members.map(|member| member.peer.0).collect()
    }

    /// Names of the members, in rank order.
    #[getter]
    fn names(&self) -> Vec<String> {
        let members = self.0.members.iter();
        members.map(|member| member.name.clone()).collect()
    }

    /// Their `ip:port` addresses, in rank order; each has one or more.
    #[getter]
    fn addresses(&self) -> Vec<Vec<String>> {
        let members = self.0.members.iter();
        let texts = members.map(|member| member.addresses.iter().map(ToString::to_string));
        texts.map(Iterator::collect).collect()
    }

    /// The ring: ranks, each followed by its next.
    #[getter]
    fn ring_order(&self) -> Vec<u32> {
        self.0.ring_order.iter().map(|rank| rank.0).collect()
    }

    fn __repr__(&self) -> String {
        format!("View(epoch={}, members={:?})", self.epoch(), self.members())
    }
}

/// Identifies a content of a shared state by revision and digest.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct StateId(pub ccl_core::StateId);

#[pymethods]
impl StateId {
    /// The revision: how often the state had been advanced.
    #[getter]
    fn revision(&self) -> u64 {
        self.0.revision.0
    }

    /// The digest over all entries, in hexadecimal.
    #[getter]
    fn root(&self) -> String {
        self.0.root.to_string()
    }

    fn __repr__(&self) -> String {
        format!(
            "StateId(revision={}, root={:?})",
            self.revision(),
            self.0.root
        )
    }
}

/// Counters of a communicator since it was created.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct Counters(pub ccl_core::Counters);

#[pymethods]
impl Counters {
    /// Operations that committed.
    #[getter]
    fn commits(&self) -> u64 {
        self.0.commits
    }

    /// Operations that were aborted.
    #[getter]
    fn aborts(&self) -> u64 {
        self.0.aborts
    }

    /// Connections that broke and were repaired.
    #[getter]
    fn repairs(&self) -> u64 {
        self.0.repairs
    }

    /// Data connections of the current link with the most.
    #[getter]
    fn lanes(&self) -> u16 {
        self.0.lanes
    }

    /// Bytes sent to other peers.
    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes
    }

    /// Bytes received from other peers.
    #[getter]
    fn received_bytes(&self) -> u64 {
        self.0.received_bytes
    }

    fn __repr__(&self) -> String {
        format!(
            "Counters(commits={}, aborts={}, repairs={}, lanes={}, sent_bytes={}, received_bytes={})",
            self.commits(),
            self.aborts(),
            self.repairs(),
            self.lanes(),
            self.sent_bytes(),
            self.received_bytes()
        )
    }
}

/// Progress of an operation at this peer.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct Progress(pub ccl_core::Progress);

#[pymethods]
impl Progress {
    /// Payload bytes sent and received so far.
    #[getter]
    fn done_bytes(&self) -> u64 {
        self.0.done_bytes
    }

    /// Payload bytes sent and received at the end.
    #[getter]
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes
    }

    fn __repr__(&self) -> String {
        let (done_bytes, total_bytes) = (self.done_bytes(), self.total_bytes());
        format!("Progress(done_bytes={done_bytes}, total_bytes={total_bytes})")
    }
}
