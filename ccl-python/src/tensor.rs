//! Torch tensors, read by their attributes; torch itself is never imported.
//!
//! Holds the storage. Holding the tensor would not do: `param.data = …` or `module.to(…)` may give
//! it other memory, which would free memory in use.

use ccl_core::Dtype;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::errors::invalid;
use crate::memory::{Keep, Memory, SUPPORTED, Use};
use crate::staged;

/// The tensor's memory; `None` if the object is no tensor.
///
/// # Errors
/// `InvalidArgument` or `TypeError` with what to do about it.
pub fn memory(object: &Bound<'_, PyAny>, access: Use) -> PyResult<Option<Memory>> {
    if !is_tensor(object)? {
        return Ok(None);
    }
    let py = object.py();
    check_layout(object)?;
    let name = object.getattr(intern!(py, "dtype"))?.str()?;
    let dtype = dtype(name.to_str()?).ok_or_else(|| {
        invalid(
            py,
            format!("a tensor of {name} cannot be combined: {SUPPORTED}"),
        )
    })?;
    let storage = object.call_method0(intern!(py, "untyped_storage"))?;
    let address = object.call_method0(intern!(py, "data_ptr"))?.extract()?;
    let count = object.call_method0(intern!(py, "numel"))?.extract()?;
    let memory = Memory {
        address,
        count,
        dtype,
        keep: Keep::Object {
            _owner: storage.clone().unbind(),
        },
    };
    check_storage(&storage, &memory)?;
    if object.getattr(intern!(py, "is_cuda"))?.is_truthy()? {
        return staged(object, access, dtype).map(Some);
    }
    if access.writes() {
        note_write(object)?;
    }
    Ok(Some(memory))
}

/// Host memory in place of a device's; writing the result there notifies autograd.
fn staged(tensor: &Bound<'_, PyAny>, access: Use, dtype: Dtype) -> PyResult<Memory> {
    let py = tensor.py();
    let (staging, host) = staged::stage(tensor, access)?;
    Ok(Memory {
        address: host.call_method0(intern!(py, "data_ptr"))?.extract()?,
        count: host.call_method0(intern!(py, "numel"))?.extract()?,
        dtype,
        keep: Keep::Staged {
            staging: staging.unbind(),
        },
    })
}

fn is_tensor(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static TENSOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    if let Some(class) = TENSOR.get(py) {
        return object.is_instance(class.bind(py));
    }
    // If there is a tensor, torch was imported.
    let modules = py.import("sys")?.getattr("modules")?;
    let Some(torch) = modules.cast::<PyDict>()?.get_item("torch")? else {
        return Ok(false);
    };
    let Ok(class) = torch.getattr("Tensor") else {
        return Ok(false); // It is being imported at this moment.
    };
    let class = class.cast_into::<PyType>()?;
    let is_tensor = object.is_instance(&class)?;
    // An error means that another thread was first.
    let _ = TENSOR.set(py, class.unbind());
    Ok(is_tensor)
}

fn check_layout(tensor: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = tensor.py();
    if tensor.hasattr(intern!(py, "to_local"))? {
        let what = "a DTensor has a part on every rank: pass tensor.to_local()";
        return Err(PyTypeError::new_err(what));
    }
    let is_cpu = tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()?;
    if !is_cpu && !tensor.getattr(intern!(py, "is_cuda"))?.is_truthy()? {
        let device = tensor.getattr(intern!(py, "device"))?;
        let what = format!(
            "the tensor is on {device}, but the library moves memory of CPUs and CUDA devices: \
             pass tensor.cpu(), and copy the result back"
        );
        return Err(invalid(py, what));
    }
    let layout = tensor.getattr(intern!(py, "layout"))?.str()?;
    if layout != "torch.strided" {
        let what = format!("the tensor has layout {layout}: pass tensor.to_dense()");
        return Err(invalid(py, what));
    }
    let is_contiguous = tensor.call_method0(intern!(py, "is_contiguous"))?;
    if !is_contiguous.is_truthy()? {
        let what =
            "the tensor is not contiguous: pass tensor.contiguous(), and copy the result back";
        return Err(invalid(py, what));
    }
    if tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
        return Err(invalid(
            py,
            "the tensor is negated lazily: pass tensor.resolve_neg()",
        ));
    }
    Ok(())
}

/// Storages may be made shorter under their tensors, and FSDP frees them so.
fn check_storage(storage: &Bound<'_, PyAny>, memory: &Memory) -> PyResult<()> {
    if memory.count == 0 {
        return Ok(());
    }
    let py = storage.py();
    let begin: usize = storage.call_method0(intern!(py, "data_ptr"))?.extract()?;
    let stored: usize = storage.call_method0(intern!(py, "nbytes"))?.extract()?;
    let needed = memory.count.saturating_mul(memory.dtype.bytes());
    let offset = memory.address.checked_sub(begin);
    let is_inside = |offset: usize| offset.saturating_add(needed) <= stored;
    if begin != 0 && offset.is_some_and(is_inside) {
        return Ok(());
    }
    let what = format!(
        "the tensor needs {needed} bytes, but its storage has only {stored}: it was freed or \
         shortened, as FSDP does between uses; pass it while its storage is complete, or pass \
         tensor.to_local()"
    );
    Err(invalid(py, what))
}

/// Marks the tensor as changed for autograd, so that a backward pass that needs the old values
/// fails instead of using the new ones.
fn note_write(tensor: &Bound<'_, PyAny>) -> PyResult<()> {
    static INCREMENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = tensor.py();
    if tensor
        .call_method0(intern!(py, "is_inference"))?
        .is_truthy()?
    {
        return Ok(()); // Such tensors take no part in autograd and count no versions.
    }
    INCREMENT
        .import(py, "torch.autograd.graph", "increment_version")?
        .call1((tensor,))
        .map(drop)
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "torch.uint8" => Dtype::U8,
        "torch.uint16" => Dtype::U16,
        "torch.uint32" => Dtype::U32,
        "torch.uint64" => Dtype::U64,
        "torch.int8" => Dtype::I8,
        "torch.int16" => Dtype::I16,
        "torch.int32" => Dtype::I32,
        "torch.int64" => Dtype::I64,
        "torch.float16" => Dtype::F16,
        "torch.bfloat16" => Dtype::Bf16,
        "torch.float32" => Dtype::F32,
        "torch.float64" => Dtype::F64,
        _ => return None,
    })
}
