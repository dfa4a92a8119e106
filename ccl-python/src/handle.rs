//! `ccl.Handle`: an operation in progress.

use std::sync::Arc;

use ccl_core::Tag;
use pyo3::prelude::*;

use crate::communicator::Communicator;
use crate::flight::Flight;
use crate::results::{Outcome, Progress};
use crate::settings::maybe_duration;
use crate::wait;

/// An operation in progress. If dropped, it goes on and keeps its memory alive; the next call with
/// its tag waits for its end.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct Handle {
    flight: Arc<Flight>,
    tag: Tag,
    /// Keeps the session open while its operations can be waited for.
    communicator: Py<Communicator>,
}

impl Handle {
    /// Creates a handle for an operation of this communicator.
    pub fn new(flight: Arc<Flight>, tag: Tag, communicator: Py<Communicator>) -> Self {
        Self {
            flight,
            tag,
            communicator,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.flight.is_open() {
            self.flight.leave_to_itself();
            let Communicator(_, _, abandoned) = self.communicator.get();
            abandoned.add(self.tag, &self.flight);
        }
    }
}

#[pymethods]
impl Handle {
    /// Waits until it has ended. Raises `Timeout` after `timeout` seconds; the operation goes on,
    /// also after Ctrl-C.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Outcome> {
        let timeout = timeout.map(maybe_duration).transpose()?.flatten();
        let result = self
            .flight
            .wait(py, timeout)
            .inspect_err(|error| wait::note_goes_on(py, error));
        result.map(Outcome)
    }

    /// Whether it has ended, successfully or not. Does not block.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        self.flight.is_done(py)
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.flight.cancel());
    }

    /// Its progress at this peer. Does not block.
    fn progress(&self) -> Progress {
        Progress(self.flight.progress())
    }

    /// Calls `callback()` once it has ended, on a library thread; it may block.
    fn add_done_callback(&self, callback: Py<PyAny>) {
        self.flight.add_callback(callback);
    }

    /// As `add_done_callback`, for callbacks of this package, which never block and do not wait for
    /// those of the application.
    fn call_when_done(&self, callback: Py<PyAny>) {
        self.flight.add_own_callback(callback);
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = slf.py().import("ccl._await")?;
        module
            .call_method1("outcome", (slf,))?
            .call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        let (is_finished, progress) = (self.flight.is_finished(), self.flight.progress());
        let (done, total) = (progress.done_bytes, progress.total_bytes);
        let is_finished = if is_finished { "True" } else { "False" };
        format!("Handle(done={is_finished}, done_bytes={done}, total_bytes={total})")
    }
}
