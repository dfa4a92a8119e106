//! Functions that Ctrl-C does not interrupt, for code between two parts of C++.
//!
//! DDP's reducer calls groups and works from its hooks, on the main thread, in the middle of the
//! backward pass. An exception there leaves it half done, for good; torch's own backends never
//! raise one, since they run no Python. So signals that come meanwhile are put off until there is
//! Python around it again. Nothing here runs Python but what is called.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The function as one that Ctrl-C does not interrupt. It answers SIGINT after its return, where
/// the main thread runs Python next. On other threads, which answer no signals, it is as it was.
#[pyfunction]
pub fn uninterrupted(function: Py<PyAny>) -> Uninterrupted {
    Uninterrupted { function }
}

/// See [`uninterrupted`].
#[pyclass(frozen, module = "ccl._native")]
#[derive(Debug)]
pub struct Uninterrupted {
    function: Py<PyAny>,
}

#[pymethods]
impl Uninterrupted {
    #[pyo3(signature = (*arguments, **named))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let function = self.function.bind(py);
        let Some(calm) = Calm::begin(py)? else {
            return function.call(arguments, named);
        };
        let result = function.call(arguments, named);
        calm.end()?;
        result
    }

    /// A method is bound as other functions are.
    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        owner: &Bound<'py, PyAny>,
        _kind: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if owner.is_none() {
            return Ok(slf.clone().into_any());
        }
        let method = slf.py().import("types")?.getattr("MethodType")?;
        method.call1((slf, owner))
    }
}

/// Notes that the signal came.
#[pyclass(frozen)]
#[derive(Debug, Default)]
struct Noted(AtomicBool);

#[pymethods]
impl Noted {
    #[pyo3(signature = (*_arguments))]
    fn __call__(&self, _arguments: &Bound<'_, PyTuple>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The time in which the signal is noted only.
struct Calm<'py> {
    signals: Bound<'py, PyModule>,
    number: i32,
    handler: Bound<'py, PyAny>,
    noted: Bound<'py, Noted>,
}

impl<'py> Calm<'py> {
    /// `None` where nothing is to be put off: on other threads, and if nobody in Python answers.
    fn begin(py: Python<'py>) -> PyResult<Option<Self>> {
        if nix::unistd::gettid() != nix::unistd::Pid::this() {
            return Ok(None);
        }
        let signals = py.import("_signal")?;
        let number = nix::sys::signal::Signal::SIGINT as i32;
        let handler = signals.call_method1("getsignal", (number,))?;
        if !handler.is_callable() {
            return Ok(None);
        }
        let calm = Self {
            noted: Bound::new(py, Noted::default())?,
            signals,
            number,
            handler,
        };
        // The first attempt answers what came before, which may raise: that is put off, too.
        if calm.set(calm.noted.as_any()).is_err() {
            calm.set(calm.noted.as_any())?;
            calm.noted.get().0.store(true, Ordering::Relaxed);
        }
        Ok(Some(calm))
    }

    /// What was put off happens where Python runs next.
    fn end(self) -> PyResult<()> {
        self.set(&self.handler)?;
        if self.noted.get().0.load(Ordering::Relaxed) {
            let threads = self.noted.py().import("_thread")?;
            threads.call_method1("interrupt_main", (self.number,))?;
        }
        Ok(())
    }

    fn set(&self, handler: &Bound<'py, PyAny>) -> PyResult<()> {
        self.signals
            .call_method1("signal", (self.number, handler))?;
        Ok(())
    }
}
