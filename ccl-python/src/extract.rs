//! Tensors in what a future of torch's holds, found without running Python.
//!
//! When C++ of torch's, such as DDP's reducer, has waited for a future that Python has completed,
//! it asks `torch._jit_internal._extract_tensors` what is in it. Whatever runs Python there, on
//! the main thread, answers the signals that came during the wait: the `KeyboardInterrupt` of a
//! Ctrl-C is then raised inside, and C++ makes a `RuntimeError` of it. What runs none leaves it to
//! the caller.

use pyo3::prelude::*;
use pyo3::types::PyList;

/// Stands for torch's function: does the same, and runs no Python for a list of tensors.
#[pyclass(frozen, module = "ccl._native")]
#[derive(Debug)]
pub struct TensorExtractor {
    original: Py<PyAny>,
    tensor_type: Py<PyAny>,
}

#[pymethods]
impl TensorExtractor {
    /// For whatever is no list of `tensor_type` alone, `original` is called.
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
