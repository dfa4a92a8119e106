//! Finds the tensors in the value of a torch future without running Python.
//!
//! When C++ code of torch, such as DDP's reducer, has waited for a future that Python completed, it
//! calls `torch._jit_internal._extract_tensors` on its value. If that runs Python on the main
//! thread, it handles the signals that came during the wait: the `KeyboardInterrupt` of a Ctrl-C is
//! raised inside, and C++ turns it into a `RuntimeError`. Without running Python, the caller gets
//! it.

use pyo3::prelude::*;
use pyo3::types::PyList;

/// Replaces torch's function: does the same, without running Python for a list of tensors.
#[pyclass(frozen, module = "ccl._native")]
#[derive(Debug)]
pub struct TensorExtractor {
    original: Py<PyAny>,
    tensor_type: Py<PyAny>,
}

#[pymethods]
impl TensorExtractor {
    /// Calls `original` for anything but a list of `tensor_type` alone.
    #[new]
    fn new(original: Py<PyAny>, tensor_type: Py<PyAny>) -> Self {
        Self {
            original,
            tensor_type,
        }
    }

    fn __call__<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        let tensors = value.cast_exact::<PyList>().ok().filter(|list| {
            let is_plain = |item: Bound<'_, PyAny>| item.get_type().is(&self.tensor_type);
            list.iter().all(is_plain)
        });
        match tensors {
            Some(tensors) => Ok(PyList::new(py, tensors.iter())?.into_any()),
            None => self.original.bind(py).call1((value,)),
        }
    }
}
