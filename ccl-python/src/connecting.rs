//! `ccl.Connecting`: an attempt to join a run.

use std::sync::Arc;

use ccl_core::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::communicator::Communicator;
use crate::errors::raise;
use crate::flight::Abandoned;
use crate::native::Native;
use crate::settings::{self, maybe_duration};
use crate::wait::{wait_for, wait_telling};

/// A connection attempt. Dropping it gives up, unless `wait` has returned the communicator.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct Connecting(Native<ccl_core::Connecting>);

impl Connecting {
    /// Starts to join a run.
    ///
    /// # Errors The settings or addresses are invalid.
    pub fn start(
        py: Python<'_>,
        master: &str,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let config = settings::communicator(master, settings)?;
        let connecting = py
            .detach(|| ccl_core::Communicator::connect_async(config))
            .map_err(|error| raise(py, &error))?;
        Ok(Self(Native::new(connecting)))
    }

    /// Waits until this peer is admitted, and logs what it waits for.
    ///
    /// # Errors
    /// Why it was not admitted, or what a signal handler raised.
    pub fn wait_admitted<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Communicator>> {
        let waiting = || self.0.waiting();
        let admitted = wait_telling(py, waiting, |slice| self.0.wait_for(slice).transpose())?;
        give(py, admitted)
    }
}

#[pymethods]
impl Connecting {
    /// Waits until this peer is admitted. Raises `Timeout` after `timeout` seconds; the attempt
    /// goes on.
    #[pyo3(signature = (timeout = None))]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, Communicator>> {
        if self.0.is_inherited() {
            return Err(raise(py, &Error::Forked));
        }
        let Some(timeout) = timeout.map(maybe_duration).transpose()?.flatten() else {
            return self.wait_admitted(py);
        };
        let step = |slice| self.0.wait_for(slice).transpose();
        let admitted = wait_for(py, Some(timeout), step)?.unwrap_or(Err(Error::Timeout));
        give(py, admitted)
    }

    /// What this peer waits for at the moment, such as more peers for the first view.
    #[getter]
    fn waits_for(&self) -> Option<String> {
        self.0.waits_for()
    }

    /// Gives up, or closes the communicator if there is one. Waiting threads get `Ended`.
    fn close(&self, py: Python<'_>) {
        if !self.0.is_inherited() {
            py.detach(|| self.0.cancel());
        }
    }
}

/// The communicator as a Python object, closed when the interpreter ends.
fn give(
    py: Python<'_>,
    admitted: Result<ccl_core::Communicator, Error>,
) -> PyResult<Bound<'_, Communicator>> {
    let communicator = admitted.map_err(|error| raise(py, &error))?;
    let communicator = Communicator(
        Native::new(communicator),
        Arc::default(),
        Abandoned::default(),
    );
    let object = Bound::new(py, communicator)?;
    close_at_exit(py, object.as_any())?;
    Ok(object)
}

/// Closes it when the interpreter ends.
///
/// # Errors
/// None are expected.
pub fn close_at_exit(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<()> {
    py.import("ccl._exit")?
        .call_method1("close_at_exit", (object,))?;
    Ok(())
}
