//! Shared state: a handle of named buffers and their revision, and checkpoints of it.
//!
//! While a sync is under way the state belongs to it; see `sync`.
#![allow(
    clippy::too_many_arguments,
    reason = "an entry's name, memory, type and shape, one by one, as C programmers write them"
)]

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use ccl_core::{Checkpoints, Error, Key};
use parking_lot::Mutex;

use crate::call::call;
use crate::flight::{Flight, Started};
use crate::handles;
use crate::memory::{self, Growing};
use crate::result::{Outcome, cclResult_t};
use crate::types::{cclDataType_t, dtype};

/// What a cclSharedState_t points to; never seen.
pub struct cclSharedState {
    _private: [u8; 0],
}

/// Named buffers that all members of a group are to hold with the same bits, and their revision:
/// weights, optimizer state, the step. Any thread may use it; a call waits for another thread's
/// call on the same state that hashes, saves or loads. Destroy it with cclDestroySharedState.
pub type cclSharedState_t = *mut cclSharedState;

/// Bytes of a root.
pub const CCL_ROOT_BYTES: usize = 32;

/// Most dimensions that an entry may have.
pub const CCL_DIMENSIONS_MAX: usize = 64;

/// The newest checkpoint of a directory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclCheckpoint_t {
    /// Set it to `sizeof(cclCheckpoint_t)` before the call.
    pub struct_bytes: usize,
    /// 1: there is one. 0: there is none, and the rest is 0.
    pub is_there: u32,
    /// 0.
    pub reserved: u32,
    /// Its revision.
    pub revision: u64,
    /// The digest over all its entries.
    pub root: [u8; CCL_ROOT_BYTES],
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclCheckpoint_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Makes a state without entries. `revision` is how often it was advanced. Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclCreateSharedState")]
pub unsafe extern "C" fn create_shared_state(
    revision: u64,
    state: *mut cclSharedState_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(state, "state") }?;
        let core = Box::new(ccl_core::SharedState::new(revision));
        let slot = Mutex::new(Slot {
            state: Some(core),
            flight: None,
        });
        place.set(handles::insert(Arc::new(SharedState { slot })));
        Ok(())
    })
}

/// Adds a buffer: `memory` holds as many elements of `dtype` as the product of the
/// `dimensions_count` extents in `shape`; no dimensions are one element. All members add the same
/// names (at most 512 bytes, UTF-8), types and shapes in the same order. Entries may not overlap.
/// `is_unequal` 1: the contents may differ, and are neither compared nor moved. Up to 100,000
/// entries.
///
/// `name` and `shape` are copied. The memory stays the caller's, and must stay where it is until
/// the state is destroyed. It may be read and written whenever no sync, save or load of this state
/// is under way. Does not block.
///
/// Errors: cclErrorInvalidArgument for a name that is there already, memory that is NULL or not
/// aligned, or a shape beyond the address space; cclErrorInvalidUsage while a sync of this state is
/// under way; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclAddEntry")]
pub unsafe extern "C" fn add_entry(
    state: cclSharedState_t,
    name: *const c_char,
    memory: *mut c_void,
    dtype: cclDataType_t,
    shape: *const u64,
    dimensions_count: usize,
    is_unequal: u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let key = unsafe { key((name, dtype), (shape, dimensions_count), is_unequal) }?;
        check_element_alignment(&key, memory)?;
        let state = handles::get::<SharedState, _>(state)?;
        // SAFETY: the header asks for memory of this length that stays until the handle is
        // destroyed, and is left alone while syncs and checkpoints use it.
        state.with(|state| unsafe { state.add_raw(key, memory.cast()) })
    })
}

/// Writes how often the state was advanced. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetRevision")]
pub unsafe extern "C" fn get_revision(state: cclSharedState_t, revision: *mut u64) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(revision, "revision") }?;
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.with(|state| Ok(state.revision()))?);
        Ok(())
    })
}

/// Says how often the state was advanced: one more after each step. A sync may be one revision
/// ahead of the one before. Does not block.
///
/// Errors: cclErrorInvalidUsage while a sync of this state is under way; cclErrorInvalidHandle,
/// cclErrorForked.
#[unsafe(export_name = "cclSetRevision")]
pub unsafe extern "C" fn set_revision(state: cclSharedState_t, revision: u64) -> cclResult_t {
    call(|| {
        let state = handles::get::<SharedState, _>(state)?;
        state.with(|state| {
            state.set_revision(revision);
            Ok(())
        })
    })
}

/// Writes 1 if the content is whole. 0 after a sync or a load that failed half-way, until one
/// succeeds: what is there is a mixture of two contents, and the next sync only receives. Does not
/// block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclIsUsable")]
pub unsafe extern "C" fn is_usable(state: cclSharedState_t, is_usable: *mut u32) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_usable, "is_usable") }?;
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.with(|state| Ok(state.is_usable().into()))?);
        Ok(())
    })
}

/// Writes the digest over all entries as they are now, CCL_ROOT_BYTES bytes: states with the same
/// root have the same names, types, shapes and contents. Hashes everything, which takes this
/// thread's and up to 8 cores' time.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetRoot")]
pub unsafe extern "C" fn get_root(state: cclSharedState_t, root: *mut u8) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(root.cast::<[u8; CCL_ROOT_BYTES]>(), "root") }?;
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.with(|state| state.root())?.0);
        Ok(())
    })
}

/// Saves the state with its revision to a directory, which is made if its parent is there: whole or
/// not at all, whatever dies meanwhile. `keep_count` checkpoints stay, the new one among them; 0:
/// 2. Each member saves to a directory of its own, or one for all of them. Blocks for two hashes
/// and one write; nobody may write the memory meanwhile.
///
/// Errors: cclErrorSystem if the disk fails: the checkpoints that were there are still there.
/// cclErrorInvalidArgument if `directory` is NULL or no UTF-8, or an entry's name is not fit for a
/// file; cclErrorInvalidUsage if the content is a mixture, or while a sync of this state is under
/// way; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclSaveSharedState")]
pub unsafe extern "C" fn save_shared_state(
    state: cclSharedState_t,
    directory: *const c_char,
    keep_count: u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let mut checkpoints = unsafe { checkpoints(directory) }?;
        if keep_count > 0 {
            let count = usize::try_from(keep_count).unwrap_or(usize::MAX);
            checkpoints = checkpoints.keep(count);
        }
        let state = handles::get::<SharedState, _>(state)?;
        let _file = state.with(|state| state.save(&checkpoints))?;
        Ok(())
    })
}

/// Loads the newest whole checkpoint of a directory into the entries, and its revision; writes 1 if
/// there was one, 0 if there is none at all, which leaves the state as it is. What is loaded hashes
/// to the root that it was saved with; a damaged file is passed over for the one before it. A run
/// that starts anew begins so, and then syncs: the highest revision that anybody has wins. Blocks
/// for two reads; nobody may use the memory meanwhile.
///
/// Errors: cclErrorInvalidArgument if there are checkpoints and none is whole, or the newest has
/// other entries; cclErrorSystem if the directory cannot be read. After an error cclIsUsable says
/// whether the content is still whole. cclErrorInvalidUsage while a sync of this state is under
/// way; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclLoadSharedState")]
pub unsafe extern "C" fn load_shared_state(
    state: cclSharedState_t,
    directory: *const c_char,
    is_loaded: *mut u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, checkpoints) = unsafe {
            (
                memory::out(is_loaded, "is_loaded")?,
                checkpoints(directory)?,
            )
        };
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.with(|state| state.load(&checkpoints))?.into());
        Ok(())
    })
}

/// Writes what the newest checkpoint of a directory is, without reading its content. Blocks for the
/// disk only.
///
/// Errors: cclErrorInvalidArgument, also if there are files and none is a checkpoint that is whole
/// by its length; cclErrorSystem if the directory cannot be read.
#[unsafe(export_name = "cclGetNewestCheckpoint")]
pub unsafe extern "C" fn get_newest_checkpoint(
    directory: *const c_char,
    checkpoint: *mut cclCheckpoint_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, checkpoints) = unsafe {
            (
                memory::growing_out(checkpoint, "checkpoint")?,
                checkpoints(directory)?,
            )
        };
        let newest = checkpoints.newest()?;
        place.set(
            newest.map_or_else(cclCheckpoint_t::default, |content| cclCheckpoint_t {
                is_there: 1,
                revision: content.revision.0,
                root: content.root.0,
                ..cclCheckpoint_t::default()
            }),
        );
        Ok(())
    })
}

/// Takes the handle back. A sync of this state that has not ended is cancelled and waited for, at
/// most the master's `verdict_timeout_ms`; its operation's handle stays, and says how it ended.
/// Afterwards the memory of all entries is the caller's.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclDestroySharedState")]
pub unsafe extern "C" fn destroy_shared_state(state: cclSharedState_t) -> cclResult_t {
    call(|| {
        let state = handles::remove::<SharedState, _>(state)?;
        let flight = {
            let mut slot = state.slot.lock();
            slot.state = None;
            slot.flight.take()
        };
        if let Some(flight) = flight {
            flight.end();
        }
        Ok(())
    })
}

/// What a `cclSharedState_t` stands for.
#[derive(Debug)]
pub(crate) struct SharedState {
    slot: Mutex<Slot>,
}

/// Where the core's state is: here, or lent to a sync.
#[derive(Debug)]
struct Slot {
    state: Option<Box<ccl_core::SharedState<'static>>>,
    flight: Option<Arc<Flight>>,
}

impl SharedState {
    /// Uses the state, unless a sync has it.
    fn with<T>(
        &self,
        body: impl FnOnce(&mut ccl_core::SharedState<'static>) -> ccl_core::Result<T>,
    ) -> Outcome<T> {
        let mut slot = self.slot.lock();
        slot.take_back();
        let state = slot.state.as_mut().ok_or_else(under_way)?;
        Ok(body(state)?)
    }

    /// Lends the state to a sync that `start` makes of it, or that gives it back with an error.
    pub(crate) fn lend(
        &self,
        start: impl FnOnce(Box<ccl_core::SharedState<'static>>) -> Started,
    ) -> Outcome<Arc<Flight>> {
        let mut slot = self.slot.lock();
        slot.take_back();
        let state = slot.state.take().ok_or_else(under_way)?;
        match start(state) {
            Ok(flight) => {
                let flight = Arc::new(flight);
                slot.flight = Some(Arc::clone(&flight));
                Ok(flight)
            }
            Err((error, state)) => {
                slot.state = Some(state);
                Err(error.into())
            }
        }
    }
}

impl Slot {
    /// Takes the state back from a sync that has ended.
    fn take_back(&mut self) {
        let Some(flight) = &self.flight else { return };
        if let Some(state) = flight.give_back() {
            self.state = Some(state);
            self.flight = None;
        }
    }
}

fn under_way() -> Error {
    Error::usage("a sync of this state is under way, or the state was destroyed")
}

/// # Safety
/// `name` is NULL or a text that ends with a zero byte; `shape` is NULL or has `dimensions_count`
/// extents.
unsafe fn key(
    (name, dtype): (*const c_char, cclDataType_t),
    (shape, dimensions_count): (*const u64, usize),
    is_unequal: u32,
) -> Outcome<Key> {
    // SAFETY: passed on from the caller.
    let name = unsafe { memory::text(name, "name") }?;
    let name = name.ok_or_else(|| Error::invalid("name is NULL"))?;
    // SAFETY: passed on from the caller.
    let shape = unsafe { memory::list(shape, dimensions_count, CCL_DIMENSIONS_MAX, "shape") }?;
    Ok(Key {
        name,
        dtype: self::dtype(dtype)?,
        shape,
        allow_inequality: memory::switch(is_unequal, "is_unequal")?,
    })
}

/// Elements that are not aligned would not be what C says that they are.
fn check_element_alignment(key: &Key, memory: *const c_void) -> Outcome<()> {
    let bytes = key.dtype.bytes();
    if memory.addr().is_multiple_of(bytes) {
        return Ok(());
    }
    let what = format!("memory of {:?} is not aligned to {bytes} bytes", key.name);
    Err(Error::invalid(what).into())
}

/// # Safety
/// `directory` is NULL or a text that ends with a zero byte.
unsafe fn checkpoints(directory: *const c_char) -> Outcome<Checkpoints> {
    // SAFETY: passed on from the caller.
    let directory = unsafe { memory::text(directory, "directory") }?;
    let directory = directory.filter(|directory| !directory.is_empty());
    let directory = directory.ok_or_else(|| Error::invalid("directory is NULL or empty"))?;
    Ok(Checkpoints::new(directory))
}
