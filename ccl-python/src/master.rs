//! `ccl.Master`: a master in this process.

use std::sync::Arc;
use std::time::Duration;

use ccl_core::event::Event;
use ccl_core::{Error, MasterServer};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::raise;
use crate::native::Native;
use crate::settings::{self, maybe_duration};
use crate::wait::wait_for;

/// A running master; it stops when it is closed or collected.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct Master(Native<MasterServer>);

#[pymethods]
impl Master {
    #[new]
    #[pyo3(signature = (**settings))]
    fn new(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config = settings::master(settings)?;
        let server = py.detach(|| MasterServer::start(config, Some(Arc::new(log))));
        let server = server.map_err(|error| raise(py, &error))?;
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

/// What happens in its run; what happens all the time is not for every log.
fn log(event: &Event) {
    match event {
        Event::Committed { .. } | Event::StateSealed { .. } => tracing::debug!(?event, "master"),
        event => tracing::info!(?event, "master"),
    }
}
