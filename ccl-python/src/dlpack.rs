//! Tensors of other libraries by DLPack: the capsule is read and held, never consumed.
//!
//! An unconsumed capsule frees its tensor when it is collected, so holding it is enough to keep the
//! memory alive. Structures: DLPack 1.0, `dlpack.h`, and the unversioned form before it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};

use ccl_core::Dtype;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyDict};

use crate::errors::invalid;
use crate::memory::{Keep, Kind, Memory, SUPPORTED, Use};

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    dtype: DataType,
    shape: *const i64,
    /// In elements; null means C order.
    strides: *const i64,
    byte_offset: u64,
}

/// `DLManagedTensor` begins with the tensor.
#[repr(C)]
struct Managed {
    tensor: Tensor,
}

#[repr(C)]
struct ManagedVersioned {
    major: u32,
    minor: u32,
    manager: *mut c_void,
    deleter: *mut c_void,
    flags: u64,
    tensor: Tensor,
}

/// The memory of an object with `__dlpack__`; `None` if it has none.
///
/// # Errors
/// `InvalidArgument` or `TypeError` with what to do about it.
pub fn memory(object: &Bound<'_, PyAny>, access: Use) -> PyResult<Option<Memory>> {
    let py = object.py();
    if !object.hasattr(intern!(py, "__dlpack__"))? {
        return Ok(None);
    }
    check_device(object)?;
    let capsule = export(object, access)?.cast_into::<PyCapsule>()?;
    if let Ok(pointer) = capsule.pointer_checked(Some(VERSIONED)) {
        // SAFETY: a capsule of this name holds a `DLManagedTensorVersioned`, whose version is first
        // in every version, and which lives as long as the capsule.
        let major = unsafe { pointer.cast::<u32>().read() };
        if major != 1 {
            return Err(invalid(
                py,
                format!("unsupported DLPack version {major}; expected 1"),
            ));
        }
        // SAFETY: as above, and the version says that the layout is this one.
        let managed = unsafe { pointer.cast::<ManagedVersioned>().as_ref() };
        if access.writes() && managed.flags & READ_ONLY != 0 {
            let what = "the array is read-only, but the result is written to it: pass a writable \
                        copy, or `out`";
            return Err(invalid(py, what));
        }
        if access.writes() && managed.flags & IS_COPIED != 0 {
            return Err(only_a_copy(py, None));
        }
        return describe(&managed.tensor, &capsule).map(Some);
    }
    let pointer = capsule.pointer_checked(Some(UNVERSIONED))?;
    // SAFETY: a capsule of this name holds a `DLManagedTensor`, which lives as long as the capsule.
    let managed = unsafe { pointer.cast::<Managed>().as_ref() };
    describe(&managed.tensor, &capsule).map(Some)
}

fn check_device(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let device = object.call_method0(intern!(py, "__dlpack_device__"))?;
    let (kind, _id): (i32, i32) = device.extract()?;
    if kind == CPU || kind == CUDA_HOST {
        return Ok(());
    }
    let what = format!(
        "the array is on a device of DLPack's kind {kind}, but the library moves CPU memory: copy \
         it to the CPU, and the result back"
    );
    Err(invalid(py, what))
}

/// Asks for the versioned form, and for no copy if it will be written; libraries from before these
/// do not know the arguments.
fn export<'py>(object: &Bound<'py, PyAny>, access: Use) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let method = object.getattr(intern!(py, "__dlpack__"))?;
    let keywords = PyDict::new(py);
    keywords.set_item("max_version", (1, 0))?;
    if access.writes() {
        keywords.set_item("copy", false)?;
    }
    match method.call((), Some(&keywords)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => method.call0(),
        Err(error) if access.writes() && error.is_instance_of::<PyBufferError>(py) => {
            Err(only_a_copy(py, Some(error)))
        }
        result => result,
    }
}

fn only_a_copy(py: Python<'_>, cause: Option<PyErr>) -> PyErr {
    let why = cause.as_ref().map(|cause| format!(" ({cause})"));
    let what = format!(
        "the array exports only a copy of itself{}, so the result would be lost: pass writable \
         memory as `out`, and copy the result back",
        why.unwrap_or_default()
    );
    let error = invalid(py, what);
    error.set_cause(py, cause);
    error
}

fn describe(tensor: &Tensor, capsule: &Bound<'_, PyCapsule>) -> PyResult<Memory> {
    let py = capsule.py();
    let count = contiguous_count(tensor).ok_or_else(|| {
        let what = "the array is not contiguous in C order: pass a contiguous copy, and copy the \
                    result back";
        invalid(py, what)
    })?;
    let dtype = dtype(&tensor.dtype).ok_or_else(|| {
        let DataType { code, bits, lanes } = tensor.dtype;
        let what = format!("elements of DLPack type {code} with {bits} bits times {lanes}");
        invalid(py, format!("{what} cannot be combined: {SUPPORTED}"))
    })?;
    let offset = usize::try_from(tensor.byte_offset).unwrap_or(usize::MAX);
    Ok(Memory {
        address: (tensor.data as usize).saturating_add(offset),
        count,
        dtype,
        keep: Keep::Object {
            _owner: capsule.clone().into_any().unbind(),
        },
    })
}

fn dtype(dtype: &DataType) -> Option<Dtype> {
    if dtype.lanes != 1 || !dtype.bits.is_multiple_of(8) {
        return None;
    }
    let kind = match dtype.code {
        0 => Kind::Signed,
        1 => Kind::Unsigned,
        2 => Kind::Float,
        4 => Kind::Bfloat,
        _ => return None,
    };
    kind.dtype(usize::from(dtype.bits / 8))
}

/// Elements of a tensor that lies in C order without gaps; `None` if it does not.
fn contiguous_count(tensor: &Tensor) -> Option<usize> {
    let dimensions = usize::try_from(tensor.dimensions).ok()?;
    let mut count = 1_i64;
    let mut is_contiguous = true;
    for index in (0..dimensions).rev() {
        // SAFETY: `shape` has `dimensions` entries, as has `strides` unless it is null.
        let (length, stride) = unsafe {
            let stride = (!tensor.strides.is_null()).then(|| tensor.strides.add(index).read());
            (tensor.shape.add(index).read(), stride)
        };
        is_contiguous &= length == 1 || stride.is_none_or(|stride| stride == count);
        count = count.checked_mul(length)?;
    }
    (is_contiguous || count == 0).then(|| usize::try_from(count).ok())?
}

const VERSIONED: &CStr = c"dltensor_versioned";
const UNVERSIONED: &CStr = c"dltensor";
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;
const CPU: i32 = 1;
/// Pinned by CUDA, and ordinary memory to the CPU.
const CUDA_HOST: i32 = 3;
