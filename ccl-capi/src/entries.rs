//! The entries of a shared state, enumerated.

use std::ffi::{c_char, c_void};

use ccl_core::{Error, Key};

use crate::call::call;
use crate::handles;
use crate::memory::{self, Growing, GrowingOut};
use crate::result::{Outcome, cclResult_t};
use crate::shared_state::{SharedState, cclSharedState_t};
use crate::types::cclDataType_t;

/// Buffer size in bytes that fits every name with its zero byte.
pub const CCL_NAME_BYTES_MAX: usize = 513;

/// One entry of a state. Set `struct_bytes`, and `name` and `shape` with their capacities if you
/// want them; the rest is written, on success only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclEntry_t {
    /// `sizeof(cclEntry_t)`.
    pub struct_bytes: usize,
    /// Buffer for its name with a zero byte at the end, or NULL; CCL_NAME_BYTES_MAX bytes are
    /// always enough.
    pub name: *mut c_char,
    /// Capacity of that buffer in bytes.
    pub name_capacity: usize,
    /// Bytes of the name with its zero byte.
    pub name_bytes: usize,
    /// Array for its extents, or NULL. At most `shape_capacity` are written.
    pub shape: *mut u64,
    /// Capacity of that array; CCL_DIMENSIONS_MAX are always enough.
    pub shape_capacity: usize,
    /// Number of extents.
    pub dimensions_count: usize,
    /// Where its memory begins, as it was added.
    pub memory: *mut c_void,
    /// Elements: the product of the extents.
    pub count: u64,
    /// Their type.
    pub dtype: cclDataType_t,
    /// 1: its content may differ between members.
    pub is_unequal: u32,
}

impl Default for cclEntry_t {
    fn default() -> Self {
        Self {
            struct_bytes: 0,
            name: std::ptr::null_mut(),
            name_capacity: 0,
            name_bytes: 0,
            shape: std::ptr::null_mut(),
            shape_capacity: 0,
            dimensions_count: 0,
            memory: std::ptr::null_mut(),
            count: 0,
            dtype: 0,
            is_unequal: 0,
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and pointers only.
unsafe impl Growing for cclEntry_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Writes the number of entries of the state. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetEntryCount")]
pub unsafe extern "C" fn get_entry_count(
    state: cclSharedState_t,
    count: *mut usize,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(count, "count") }?;
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.with(|state| Ok(state.keys().len()))?);
        Ok(())
    })
}

/// Writes an entry as it was added; `index` counts from 0 in that order. Does not block.
///
/// Errors: cclErrorInvalidArgument if there is no such entry, or its name does not fit;
/// cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
/// cclErrorForked.
#[unsafe(export_name = "cclGetEntry")]
pub unsafe extern "C" fn get_entry(
    state: cclSharedState_t,
    index: usize,
    entry: *mut cclEntry_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { EntryOut::new(entry) }?;
        let state = handles::get::<SharedState, _>(state)?;
        let key = state.with(|state| {
            let what = || Error::invalid(format!("there is no entry {index}"));
            state.keys().get(index).cloned().ok_or_else(what)
        })?;
        place.set(&key, state.place(index))
    })
}

/// Where to write an entry.
#[derive(Debug)]
struct EntryOut {
    asked: cclEntry_t,
    place: GrowingOut<cclEntry_t>,
}

impl EntryOut {
    /// # Safety
    /// `pointer` is NULL or points to an entry whose lists have the lengths it states; no other
    /// thread uses it until the call returns.
    unsafe fn new(pointer: *mut cclEntry_t) -> Outcome<Self> {
        // SAFETY: passed on from the caller.
        let (place, asked) = unsafe {
            (
                memory::growing_out(pointer, "entry")?,
                memory::growing(pointer.cast_const(), "entry")?,
            )
        };
        memory::check_list(asked.name, asked.name_capacity, "entry->name")?;
        memory::check_list(asked.shape, asked.shape_capacity, "entry->shape")?;
        Ok(Self { asked, place })
    }

    fn set(self, key: &Key, memory: *mut c_void) -> Outcome<()> {
        let asked = self.asked;
        let (name, shape) = (asked.name, asked.shape);
        // SAFETY: the caller of `new` vouched for the lists.
        unsafe {
            if asked.name_capacity > 0 {
                memory::set_text(name, asked.name_capacity, "entry->name", &key.name)?;
            }
            memory::set_list(shape, asked.shape_capacity, "entry->shape", &key.shape)?;
        }
        self.place.set(cclEntry_t {
            name_bytes: key.name.len() + 1,
            dimensions_count: key.shape.len(),
            memory,
            count: key.count().expect("checked when it was added"),
            dtype: key.dtype as cclDataType_t,
            is_unequal: key.allow_inequality.into(),
            ..asked
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_with_its_end() {
        assert_eq!(CCL_NAME_BYTES_MAX, ccl_core::limits::TEXT_BYTES_MAX + 1);
    }
}
