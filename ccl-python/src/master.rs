//! `ccl.Master`: a master in this process.

use std::sync::Arc;
use std::time::Duration;

use ccl_core::driver::master::EventSink;
use ccl_core::event::{Event, News};
use ccl_core::lock::Mutex;
use ccl_core::{Error, MasterServer};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::raise;
use crate::native::Native;
use crate::settings::{self, maybe_duration};
use crate::wait::wait_for;

/// A master in this process: ccl.Master(**settings). Stops when it is closed or collected.
///
/// Settings, with their defaults; docs/configuration.md says more. Times are seconds or timedeltas,
/// and are sent to each newcomer:
///
///   listen              "127.0.0.1:48148": "0.0.0.0:48148" for other machines; port 0: a free one
///   run                 "default": name of the run
///   journal             None: file of the history, from which a restarted master resumes
///   trust_journal       False: accept a journal that was moved without its marker
///   fsync               True: decisions reach the disk before they are sent
///   new_run             False: found a run at once, without waiting for members of an earlier one
///   force_rebuild       False: rebuild without journal or majority
///   members_gone        False: do not wait for earlier members, because none is alive
///   link_round_trip     None: time from one member to another and back; guessed
///   link_bytes_per_second  None: rate at which a member sends, and receives; guessed
///   reserve_bytes       16 MiB: receive memory of a member for data sent before it is asked for
///   heartbeat_interval  0.25 s: interval between heartbeats
///   peer_timeout        5 s: silence after which a peer counts as dead
///   reattach_grace      2 s: time to restore a lost control connection
///   blame_window        0.5 s: time to collect reports of broken links before an eviction
///   link_timeout        3 s: time to repair a data connection
///   rebuild_window      5 s: how long a restarted master waits for its last members
///   detach_timeout      60 s: how long a peer runs without a master
///   verdict_timeout     10 s: how long a cancelled call waits for its verdict
///   post_timeout        300 s: how late a member may join an operation; None: no limit
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct Master(Native<MasterServer>);

#[pymethods]
impl Master {
    #[new]
    #[pyo3(signature = (**settings))]
    fn new(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config = settings::master(settings)?;
        let server = py
            .detach(|| MasterServer::start(config, Some(sink())))
            .map_err(|error| raise(py, &error))?;
        Ok(Self(Native::new(server)))
    }

    /// The `host:port` it listens on.
    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    /// Whether it has ended, by `close` or by itself.
    #[getter]
    fn ended(&self) -> bool {
        self.0.ended().is_some()
    }

    /// Waits until it has ended. Raises `Timeout` if `timeout` passes first.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let timeout = timeout.map(maybe_duration).transpose()?.flatten();
        if self.0.is_inherited() {
            return Err(raise(py, &Error::Forked));
        }
        let step = |slice: Duration| self.0.wait_for(slice);
        let end = wait_for(py, timeout, step)?.unwrap_or(Err(Error::Timeout));
        end.map_err(|error| raise(py, &error))
    }

    /// Tells it to stop serving; `wait` returns once it has. Does not block.
    fn stop(&self) {
        self.0.stop();
    }

    /// Stops serving, and waits until it has. Peers go on, and find a restarted master.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.0.is_inherited() {
            return Ok(());
        }
        self.0.stop();
        self.wait(py, None)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("Master({:?})", self.address())
    }
}

/// Logs a master's events; routine ones at a lower level.
fn sink() -> EventSink {
    let news = Mutex::new(News::default());
    Arc::new(move |event: &Event| match news.lock().is(event) {
        true => tracing::info!("master: {event}"),
        false => tracing::debug!("master: {event}"),
    })
}
