//! `Communicator.sync` and `sync_async`, and what they return.

use std::sync::Arc;

use ccl_core::{SyncOptions, SyncStrategy};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::communicator::Communicator;
use crate::errors::invalid;
use crate::memory::Use;
use crate::results::{Progress, View};
use crate::settings::maybe_duration;
use crate::shared_state::SharedState;
use crate::sync::{Flight, Job};

#[pymethods]
impl Communicator {
    /// Makes a state equal at all members of the group.
    #[pyo3(signature = (state, *, strategy = "enforce_popular", restore = false, deadline = None))]
    fn sync(
        slf: &Bound<'_, Self>,
        state: &Bound<'_, SharedState>,
        strategy: &str,
        restore: bool,
        deadline: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<SyncInfo> {
        let options = options(slf.py(), strategy, restore, deadline)?;
        let flight = start(slf, state.get(), options)?;
        flight.wait_or_cancel(slf.py()).map(SyncInfo)
    }

    /// Starts to make a state equal at all members of the group.
    #[pyo3(signature = (state, *, strategy = "enforce_popular", restore = false, deadline = None))]
    fn sync_async(
        slf: &Bound<'_, Self>,
        state: &Bound<'_, SharedState>,
        strategy: &str,
        restore: bool,
        deadline: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<SyncHandle> {
        let options = options(slf.py(), strategy, restore, deadline)?;
        Ok(SyncHandle {
            flight: start(slf, state.get(), options)?,
            _communicator: slf.clone().unbind(),
        })
    }
}

fn start(
    communicator: &Bound<'_, Communicator>,
    state: &SharedState,
    options: SyncOptions,
) -> PyResult<Arc<Flight>> {
    let py = communicator.py();
    let Communicator(native, syncs, _) = communicator.get();
    let turns = [
        state.take(py)?,
        syncs.take(py, "another sync of this communicator")?,
    ];
    let job = Job {
        communicator: ccl_core::Communicator::clone(native),
        prepared: state.prepare(py, Use::Write)?,
        options,
        turns,
    };
    Flight::start(py, job)
}

fn options(
    py: Python<'_>,
    strategy: &str,
    restore: bool,
    deadline: Option<&Bound<'_, PyAny>>,
) -> PyResult<SyncOptions> {
    let mut known = SyncStrategy::ALL.into_iter();
    let strategy = known
        .find(|known| known.name() == strategy)
        .ok_or_else(|| {
            let all = SyncStrategy::ALL.map(SyncStrategy::name).join(", ");
            invalid(py, format!("strategy {strategy:?} is not one of {all}"))
        })?;
    Ok(SyncOptions {
        strategy,
        restore,
        deadline: deadline.map(maybe_duration).transpose()?.flatten(),
        ..SyncOptions::default()
    })
}

/// A sync under way. It may be dropped: the sync goes on, and keeps its memory alive.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct SyncHandle {
    flight: Arc<Flight>,
    /// The session lasts as long as somebody may wait for its syncs.
    _communicator: Py<Communicator>,
}

#[pymethods]
impl SyncHandle {
    /// Waits until it has ended. After `timeout` seconds raises `Timeout`; the sync goes on.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<SyncInfo> {
        let timeout = timeout.map(maybe_duration).transpose()?.flatten();
        self.flight.wait(py, timeout).map(SyncInfo)
    }

    /// Whether it has ended, one way or another. Does not block.
    fn done(&self) -> bool {
        self.flight.is_finished()
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.flight.cancel());
    }

    /// How far it is at this peer, or was when it ended. Does not block.
    fn progress(&self) -> Progress {
        Progress(self.flight.progress())
    }

    /// Whether this peer gives what was elected, so that others may read its memory until the end;
    /// after it, whether it did. `None` before the election.
    #[getter]
    fn is_source(&self) -> Option<bool> {
        self.flight.is_source()
    }

    /// Calls `callback()` once it has ended, on a thread of the library; at once if it has.
    fn add_done_callback(&self, py: Python<'_>, callback: Py<PyAny>) {
        self.flight.add_callback(py, callback);
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = slf.py().import("ccl._await")?;
        module
            .call_method1("outcome", (slf,))?
            .call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        format!(
            "SyncHandle(done={}, {:?})",
            self.done(),
            self.flight.progress()
        )
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

    /// The digest over all entries, equal at all members, in hexadecimal.
    #[getter]
    fn root(&self) -> String {
        self.0.root.to_string()
    }

    /// Bytes given to other members.
    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes
    }

    /// Bytes received: blocks that differed, and digests.
    #[getter]
    fn received_bytes(&self) -> u64 {
        self.0.received_bytes
    }

    /// Who gave them, and how many of those that were used.
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sources = PyDict::new(py);
        for (peer, bytes) in &self.0.sources {
            sources.set_item(peer.0, bytes)?;
        }
        Ok(sources)
    }

    /// Members that took part.
    #[getter]
    fn members(&self) -> Vec<u64> {
        self.0.members.iter().map(|peer| peer.0).collect()
    }

    /// The view this peer was in when it was told.
    #[getter]
    fn view(&self) -> View {
        View(Arc::clone(&self.0.view))
    }

    /// Seconds from call to return.
    #[getter]
    fn duration(&self) -> f64 {
        self.0.duration.as_secs_f64()
    }

    /// How many of them went into hashing the own state.
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
