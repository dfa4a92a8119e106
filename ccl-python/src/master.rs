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
/// and are told to each newcomer:
///
///   listen              "127.0.0.1:48148": "0.0.0.0:48148" for other machines; port 0: a free one
///   run                 "default": name of the run
///   journal             None: file of the history, from which a restarted master goes on
///   trust_journal       False: take a journal that was moved without its marker for the newest
///   fsync               True: decisions reach the disk before they are told
///   new_run             False: found a run at once, without waiting for members of an earlier one
///   force_rebuild       False: rebuild without journal or majority
///   members_gone        False: wait for no member of before: an operator's word that none is alive
///   heartbeat_interval  0.25 s: between signs of life, both ways
///   peer_timeout        5 s: silence after which a peer counts as dead
///   reattach_grace      2 s: for a lost control connection to come back
///   blame_window        0.5 s: reports of broken links are collected before somebody is evicted
///   link_timeout        3 s: repair of a broken connection
///   rebuild_window      5 s: a restarted master waits for the members of its last view
///   detach_timeout      60 s: a peer without a master, before its session ends as unknown
///   verdict_timeout     10 s: a cancelled call waits for its verdict
///   post_timeout        600 s: a member has to call what the others called; None: for ever
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

    /// Waits until it has ended. `Timeout` if `timeout` passes before.
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

    /// Stops serving, and waits until it has. Peers go on, and find a master that is started again.
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
