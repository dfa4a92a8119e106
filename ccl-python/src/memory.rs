//! Memory of Python objects for the collectives: without a copy, or an error that says what to do.
//!
//! Tensors are read by their own attributes (`tensor`), which takes a microsecond each; DLPack
//! takes sixty. Then come objects with the buffer protocol, such as NumPy arrays, then DLPack.

use ccl_core::Dtype;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::dlpack;
use crate::errors::invalid;
use crate::tensor;

/// What keeps memory valid until an operation has ended.
#[derive(Debug)]
pub enum Keep {
    /// An object that owns it: a tensor's storage, or a DLPack capsule.
    Object { _owner: Py<PyAny> },
    /// An export of the buffer protocol, which pins it.
    Buffer {
        _export: PyUntypedBuffer,
        /// With `refcheck=False` NumPy resizes an array in spite of exports, but not as long as
        /// there is a weak reference.
        _watch: Option<Py<PyWeakrefReference>>,
    },
    /// Host memory that stands for a device's: a `ccl._cuda.Staging`.
    Staged { staging: Py<PyAny> },
    /// The library's own.
    Own { elements: Box<[f64]> },
}

/// A contiguous range of elements.
#[derive(Debug)]
pub struct Memory {
    /// Address of the first element; 0 only if there is none.
    pub address: usize,
    /// Elements.
    pub count: usize,
    /// Their type.
    pub dtype: Dtype,
    /// Holds it in place.
    pub keep: Keep,
}

/// What an operation does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Only inspects it.
    Look,
    /// Only reads it.
    Read,
    /// Writes it, and may read it.
    Write,
    /// Overwrites it completely, if it succeeds.
    Fill,
}

impl Use {
    /// Whether it changes.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Fill)
    }
}

impl Memory {
    /// The memory of an array, tensor or buffer.
    ///
    /// # Errors
    /// `InvalidArgument` or `TypeError` with what to do about it.
    pub fn of(object: &Bound<'_, PyAny>, access: Use) -> PyResult<Self> {
        if let Some(memory) = tensor::memory(object, access)? {
            return Ok(memory);
        }
        match PyUntypedBuffer::get(object) {
            Ok(buffer) => from_buffer(object, buffer, access),
            Err(cause) => match dlpack::memory(object, access)? {
                Some(memory) => Ok(memory),
                None => Err(no_memory(object, cause)),
            },
        }
    }
}

fn no_memory(object: &Bound<'_, PyAny>, cause: PyErr) -> PyErr {
    let py = object.py();
    let what = format!(
        "{} does not expose its memory: pass a NumPy array, a CPU tensor, or anything with the \
         buffer protocol or DLPack",
        object.get_type()
    );
    let error = PyTypeError::new_err(what);
    error.set_cause(py, Some(cause));
    error
}

fn from_buffer(
    object: &Bound<'_, PyAny>,
    buffer: PyUntypedBuffer,
    access: Use,
) -> PyResult<Memory> {
    let py = object.py();
    if !buffer.is_c_contiguous() {
        return Err(invalid(
            py,
            "the array is not contiguous in C order: pass numpy.ascontiguousarray(array), and copy \
             the result back",
        ));
    }
    if access.writes() && buffer.readonly() {
        return Err(invalid(
            py,
            "the array is read-only, but the result is written to it: pass a writable copy, or \
             `out`",
        ));
    }
    let format = buffer.format().to_string_lossy();
    let dtype = dtype_of_format(&format, buffer.item_size()).ok_or_else(|| {
        invalid(
            py,
            format!("elements of format {format:?} cannot be combined: {SUPPORTED}"),
        )
    })?;
    let watch = PyWeakrefReference::new(object).ok(); // Not all types have weak references.
    Ok(Memory {
        address: buffer.buf_ptr() as usize,
        count: buffer.item_count(),
        dtype,
        keep: Keep::Buffer {
            _export: buffer,
            _watch: watch.map(Bound::unbind),
        },
    })
}

/// The element types, for error texts.
pub const SUPPORTED: &str = "convert to one of u8 to u64, i8 to i64, f16, bf16, f32, f64 in this \
                             machine's byte order; view bool as uint8";

/// The element type of a format of Python's `struct` module.
fn dtype_of_format(format: &str, item_bytes: usize) -> Option<Dtype> {
    let native = if cfg!(target_endian = "little") {
        '<'
    } else {
        '>'
    };
    let code = format.trim_start_matches(['@', '=', native]);
    let kind = match code {
        "b" | "h" | "i" | "l" | "q" | "n" => Kind::Signed,
        "B" | "H" | "I" | "L" | "Q" | "N" => Kind::Unsigned,
        "e" | "f" | "d" => Kind::Float,
        _ => return None,
    };
    kind.dtype(item_bytes)
}

/// Family of an element type in formats and in DLPack.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Two's complement.
    Signed,
    /// Natural numbers.
    Unsigned,
    /// IEEE 754.
    Float,
    /// The upper half of an f32.
    Bfloat,
}

impl Kind {
    /// Its member of this length.
    pub fn dtype(self, item_bytes: usize) -> Option<Dtype> {
        Some(match (self, item_bytes) {
            (Self::Signed, 1) => Dtype::I8,
            (Self::Signed, 2) => Dtype::I16,
            (Self::Signed, 4) => Dtype::I32,
            (Self::Signed, 8) => Dtype::I64,
            (Self::Unsigned, 1) => Dtype::U8,
            (Self::Unsigned, 2) => Dtype::U16,
            (Self::Unsigned, 4) => Dtype::U32,
            (Self::Unsigned, 8) => Dtype::U64,
            (Self::Float, 2) => Dtype::F16,
            (Self::Float, 4) => Dtype::F32,
            (Self::Float, 8) => Dtype::F64,
            (Self::Bfloat, 2) => Dtype::Bf16,
            _ => return None,
        })
    }
}
