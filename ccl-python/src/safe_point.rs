//! `ccl.SafePoint`: a safe point that this peer has entered, and how Python waits for the others.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use ccl_core::Error;
use ccl_core::lock::Mutex;
use pyo3::prelude::*;

use crate::communicator::Communicator;
use crate::errors::raise;
use crate::native::Native;
use crate::notifier::{self, Call};
use crate::results::View;
use crate::settings::maybe_duration;
use crate::wait::wait_for;

/// A safe point that this peer has entered. Dropping it withdraws, unless it has been released.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct SafePoint {
    coming: Arc<Coming>,
    /// Keeps the session open while its safe points can be waited for.
    _communicator: Py<Communicator>,
}

#[derive(Debug)]
struct Coming {
    point: Native<ccl_core::SafePoint>,
    callbacks: Mutex<Vec<Py<PyAny>>>,
}

impl SafePoint {
    /// Of a communicator.
    pub fn new(point: ccl_core::SafePoint, communicator: Py<Communicator>) -> Self {
        let coming = Coming {
            point: Native::new(point),
            callbacks: Mutex::default(),
        };
        Self {
            coming: Arc::new(coming),
            _communicator: communicator,
        }
    }
}

impl Drop for SafePoint {
    fn drop(&mut self) {
        // Whoever is to be told of the end holds it, too.
        if !self.coming.point.is_inherited() && !self.coming.point.is_finished() {
            self.coming.point.cancel();
        }
    }
}

#[pymethods]
impl SafePoint {
    /// Waits until it is released. Raises `Timeout` after `timeout` seconds; the safe point goes
    /// on.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<View> {
        let timeout = timeout.map(maybe_duration).transpose()?.flatten();
        let point = &self.coming.point;
        if point.is_inherited() {
            return Err(raise(py, &Error::Forked));
        }
        let end = wait_for(py, timeout, |slice| point.wait_for(slice).transpose())?
            .unwrap_or(Err(Error::Timeout));
        end.map(View).map_err(|error| raise(py, &error))
    }

    /// Whether it has ended, successfully or not. Does not block.
    fn done(&self) -> bool {
        self.coming.point.is_finished()
    }

    /// Asks to withdraw from it; `wait` then raises `Timeout`. Does not block.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.coming.point.cancel());
    }

    /// Calls `callback()` once it has ended, on a library thread; it may block.
    fn add_done_callback(&self, callback: Py<PyAny>) {
        self.coming.callbacks.lock().push(callback);
        let waker = Waker::from(Arc::clone(&self.coming));
        let context = Context::from_waker(&waker);
        if self.coming.point.poll(&context).is_ready() {
            waker.wake();
        }
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = slf.py().import("ccl._await")?;
        module
            .call_method1("outcome", (slf,))?
            .call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        let is_done = if self.done() { "True" } else { "False" };
        format!("SafePoint(done={is_done})")
    }
}

impl Call for Coming {
    fn settle(&self, _py: Python<'_>) {
        notifier::tell(std::mem::take(&mut *self.callbacks.lock()));
    }
}

/// Woken by a thread of the library, which must not wait for Python.
impl Wake for Coming {
    fn wake(self: Arc<Self>) {
        notifier::settle(self);
    }
}
