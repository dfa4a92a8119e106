//! Tensors on devices: host memory stands in for them while an operation runs (`ccl._cuda`).

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::memory::{Keep, Use};

/// The `Staging` of a tensor, and its host memory as a tensor.
pub fn stage<'py>(
    tensor: &Bound<'py, PyAny>,
    access: Use,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = tensor.py();
    let is_read = matches!(access, Use::Read | Use::Write);
    let is_written = matches!(access, Use::Write | Use::Fill);
    let module = py.import(intern!(py, "ccl._cuda"))?;
    let staging = module.call_method1(intern!(py, "Staging"), (tensor, is_read, is_written))?;
    let host = staging.getattr(intern!(py, "host"))?;
    Ok((staging, host))
}

/// The transfers of an operation; usually none.
#[derive(Debug, Default)]
pub struct Staged {
    /// A `Transfer`.
    transfer: Option<Py<PyAny>>,
    is_settled: AtomicBool,
}

impl Staged {
    /// For these tensors, after the data to read has arrived in host memory.
    ///
    /// # Errors
    /// `InvalidArgument`, what the device raises, or what a signal handler raised.
    pub fn of(py: Python<'_>, keeps: &[Keep]) -> PyResult<Self> {
        let stagings = keeps.iter().filter_map(|keep| match keep {
            Keep::Staged { staging } => Some(staging),
            Keep::Object { .. } | Keep::Buffer { .. } | Keep::Own { .. } => None,
        });
        let mut stagings = stagings.peekable();
        if stagings.peek().is_none() {
            return Ok(Self::default());
        }
        let stagings = PyList::new(py, stagings.collect::<Vec<_>>())?;
        let module = py.import(intern!(py, "ccl._cuda"))?;
        let transfer = module.call_method1(intern!(py, "Transfer"), (stagings,))?;
        Ok(Self {
            transfer: Some(transfer.unbind()),
            is_settled: AtomicBool::new(false),
        })
    }

    /// Whether its end has not been handled yet.
    pub fn is_open(&self) -> bool {
        self.transfer.is_some() && !self.is_settled.load(Ordering::Acquire)
    }

    /// The operation has ended: copies its results, if any, to the devices.
    ///
    /// # Errors
    /// What the device raises.
    pub fn settle(&self, py: Python<'_>, is_success: bool) -> PyResult<()> {
        self.call(py, if is_success { "deliver" } else { "discard" })?;
        self.is_settled.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes the current streams of this thread wait for the results.
    ///
    /// # Errors
    /// What the device raises.
    pub fn join(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, "join")
    }

    /// Waits until the results have arrived.
    ///
    /// # Errors
    /// What the device raises, or a signal handler.
    pub fn wait(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, "wait")
    }

    fn call(&self, py: Python<'_>, method: &str) -> PyResult<()> {
        let Some(transfer) = &self.transfer else {
            return Ok(());
        };
        transfer.call_method0(py, method).map(drop)
    }
}
