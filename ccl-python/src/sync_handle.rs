//! `Communicator.sync` and `sync_async`, and what they return.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::communicator::Communicator;
use crate::memory::Use;
use crate::results::{Progress, View};
use crate::settings::{self, maybe_duration};
use crate::shared_state::SharedState;
use crate::sync::{Flight, Job};
use crate::wait;

#[pymethods]
impl Communicator {
    /// Makes a state equal on all members of the group.
    #[pyo3(signature = (state, **options))]
    fn sync(
        slf: &Bound<'_, Self>,
        state: &Bound<'_, SharedState>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<SyncInfo> {
        let flight = start(slf, state.get(), options)?;
        flight.wait_or_cancel(slf.py()).map(SyncInfo)
    }

    /// Starts to make a state equal on all members of the group.
    #[pyo3(signature = (state, **options))]
    fn sync_async(
        slf: &Bound<'_, Self>,
        state: &Bound<'_, SharedState>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<SyncHandle> {
        Ok(SyncHandle {
            flight: start(slf, state.get(), options)?,
            _communicator: slf.clone().unbind(),
        })
    }
}

fn start(
    communicator: &Bound<'_, Communicator>,
    state: &SharedState,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Arc<Flight>> {
    let py = communicator.py();
    let (mut options, touched) = settings::sync(options)?;
    let Communicator(native, syncs, _) = communicator.get();
    let turns = [
        state.take(py)?,
        syncs.take(py, "another sync of this communicator")?,
    ];
    let mut prepared = state.prepare(py, Use::Write)?;
    options.touched = touched
        .map(|touched| prepared.resume(&touched))
        .transpose()?;
    let job = Job {
        communicator: ccl_core::Communicator::clone(native),
        prepared,
        options,
        turns,
    };
    Flight::start(py, job)
}

/// A sync in progress. If dropped, it goes on and keeps its memory alive; the next use of the state
/// waits for its end.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct SyncHandle {
    flight: Arc<Flight>,
    /// Keeps the session open while its syncs can be waited for.
    _communicator: Py<Communicator>,
}

impl Drop for SyncHandle {
    fn drop(&mut self) {
        self.flight.leave_to_itself();
    }
}

#[pymethods]
impl SyncHandle {
    /// Waits until it has ended. Raises `Timeout` after `timeout` seconds; the sync goes on, also
    /// after Ctrl-C.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<SyncInfo> {
        let timeout = timeout.map(maybe_duration).transpose()?.flatten();
        let result = self
            .flight
            .wait(py, timeout)
            .inspect_err(|error| wait::note_goes_on(py, error));
        result.map(SyncInfo)
    }

    /// Whether it has ended, successfully or not. Does not block.
    fn done(&self) -> bool {
        self.flight.is_finished()
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.flight.cancel());
    }

    /// Its progress at this peer; after the end, its last progress. Does not block.
    fn progress(&self) -> Progress {
        Progress(self.flight.progress())
    }

    /// Whether this peer is a source of the elected content, so that others may read its memory
    /// until the end; after the end, whether it was. `None` before the election.
    #[getter]
    fn is_source(&self) -> Option<bool> {
        self.flight.is_source()
    }

    /// Calls `callback()` once it has ended, on a library thread; it may block.
    fn add_done_callback(&self, callback: Py<PyAny>) {
        self.flight.add_callback(callback);
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = slf.py().import("ccl._await")?;
        module
            .call_method1("outcome", (slf,))?
            .call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        let progress = self.flight.progress();
        let (done, total) = (progress.done_bytes, progress.total_bytes);
        let is_done = if self.done() { "True" } else { "False" };
        format!("SyncHandle(done={is_done}, done_bytes={done}, total_bytes={total})")
    }
}

/// What a sync did at this peer.
#[pyclass(frozen, module = "ccl")]
#[derive(Debug)]
pub struct SyncInfo(ccl_core::SyncInfo);

#[pymethods]
impl SyncInfo {
    /// The revision that all members have now.
    #[getter]
    fn revision(&self) -> u64 {
        self.0.revision
    }

    /// The root digest over all entries, equal on all members, in hexadecimal.
    #[getter]
    fn root(&self) -> String {
        self.0.root.to_string()
    }

    /// Bytes sent to other members.
    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes
    }

    /// Bytes received: differing blocks, and digests.
    #[getter]
    fn received_bytes(&self) -> u64 {
        self.0.received_bytes
    }

    /// Which peers sent blocks, and how many of their bytes were used.
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sources = PyDict::new(py);
        for (peer, bytes) in &self.0.sources {
            sources.set_item(peer.0, bytes)?;
        }
        Ok(sources)
    }

    /// The sync's name in the run's history.
    #[getter]
    fn op(&self) -> String {
        self.0.op.to_string()
    }

    /// Number of attempts.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Members that took part.
    #[getter]
    fn members(&self) -> Vec<u64> {
        self.0.members.iter().map(|peer| peer.0).collect()
    }

    /// The view this peer was in when it learned the outcome.
    #[getter]
    fn view(&self) -> View {
        View(Arc::clone(&self.0.view))
    }

    /// Seconds from call to return.
    #[getter]
    fn duration(&self) -> f64 {
        self.0.duration.as_secs_f64()
    }

    /// Seconds of `duration` that were spent hashing this peer's state.
    #[getter]
    fn hashing(&self) -> f64 {
        self.0.hashing.as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!(
            "SyncInfo(revision={}, root={:?}, sent_bytes={}, received_bytes={}, members={:?})",
            self.revision(),
            self.0.root,
            self.sent_bytes(),
            self.received_bytes(),
            self.members()
        )
    }
}
