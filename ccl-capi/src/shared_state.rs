//! Shared state: a handle for named buffers and their revision.
//!
//! A sync in progress owns the state; see `sync`. Queries of entries are in `entries`, and files
//! are in `checkpoint`.
#![allow(
    clippy::too_many_arguments,
    reason = "an entry's name, memory, type and shape, one by one, as C programmers write them"
)]

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ccl_core::lock::Mutex;
use ccl_core::{Error, Key, SyncHandle};

use crate::call::call;
use crate::handles::{self, Kind};
use crate::memory;
use crate::result::{Outcome, cclResult_t};
use crate::types::{cclDataType_t, dtype};

/// Opaque; see cclSharedState_t.
pub struct cclSharedState {
    _private: [u8; 0],
}

/// Named buffers that all members of a group hold with the same bits, and their revision: weights,
/// optimizer state, the step. Any thread may use it; a call waits while another thread hashes,
/// saves or loads the same state. Destroy it with cclDestroySharedState.
pub type cclSharedState_t = *mut cclSharedState;

/// Length of a root in bytes.
pub const CCL_ROOT_BYTES: usize = 32;

/// Most dimensions of an entry.
pub const CCL_DIMENSIONS_MAX: usize = 64;

/// Creates a state without entries. `revision` is how often it was advanced. Does not block.
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
            sync: None,
        });
        let places = Mutex::default();
        place.set(handles::insert(Arc::new(SharedState {
            slot,
            places,
            skipped: AtomicUsize::new(0),
        })));
        Ok(())
    })
}

/// Adds a buffer: `memory` holds as many elements of `dtype` as the product of the
/// `dimensions_count` extents in `shape`; without dimensions it is one element. All members add the
/// same names (at most 512 bytes, UTF-8), types and shapes in the same order. Entries must not
/// overlap. `is_unequal` 1: the contents may differ between members, and are neither compared nor
/// moved. At most 100,000 entries.
///
/// `name` and `shape` are copied. The memory stays the caller's, and must stay valid until the
/// state is destroyed. It may be read and written while no sync, save or load of this state is in
/// progress. Does not block.
///
/// Errors: cclErrorInvalidArgument for a duplicate name, memory that is NULL or not aligned, or a
/// shape beyond the address space; cclErrorInvalidUsage while a sync of this state is in progress;
/// cclErrorInvalidHandle, cclErrorForked.
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
        let shape = unsafe { memory::list(shape, dimensions_count, CCL_DIMENSIONS_MAX, "shape") }?;
        // SAFETY: the same.
        let key = unsafe { key(name, dtype, shape, is_unequal) }?;
        check_element_alignment(&key, memory)?;
        let state = handles::get::<SharedState, _>(state)?;
        // SAFETY: the header asks for memory of this length that stays valid until the handle is
        // destroyed, and is not accessed while syncs and checkpoints use it.
        state.with(|core| {
            // SAFETY: as above.
            unsafe { core.add_raw(key, memory.cast()) }?;
            state.places.lock().push(Place(memory));
            Ok(())
        })
    })
}

/// Writes the revision: how often the state was advanced. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
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

/// Sets the revision: add one after each step. At each sync it may be at most one higher than at
/// the last. Does not block.
///
/// Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
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

/// Writes 1 if the content is consistent. 0 after a sync or load that failed half-way and left a
/// mixture of two contents: the next sync only receives. 1 again after a successful sync or load,
/// or cclBeginAnew. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
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

/// Marks the content as a mixture, for example because a sync of another state with the same memory
/// failed half-way, or because the program has written only part of it. Until a sync or load
/// succeeds, or cclBeginAnew, cclIsUsable is 0 and syncs only receive. Does not block.
///
/// Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
/// cclErrorForked.
#[unsafe(export_name = "cclMarkMixed")]
pub unsafe extern "C" fn mark_mixed(state: cclSharedState_t) -> cclResult_t {
    call(|| {
        let state = handles::get::<SharedState, _>(state)?;
        state.with(|state| {
            state.mark_mixed();
            Ok(())
        })
    })
}

/// Declares that the program itself has filled the memory with a consistent content of this
/// revision, or will have before the next use of the state. Use it to continue a run whose members
/// have all lost their contents (cclStateFaultNoSource). Does not block.
///
/// Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
/// cclErrorForked.
#[unsafe(export_name = "cclBeginAnew")]
pub unsafe extern "C" fn begin_anew(state: cclSharedState_t, revision: u64) -> cclResult_t {
    call(|| {
        let state = handles::get::<SharedState, _>(state)?;
        state.with(|state| {
            state.begin_anew(revision);
            Ok(())
        })
    })
}

/// Writes the digest over all entries as they are now, CCL_ROOT_BYTES bytes: states with the same
/// root have the same names, types, shapes and contents. Hashes everything, and blocks until then;
/// uses up to 8 cores.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
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

/// Destroys the handle. If a sync of this state is in progress, cancels it and blocks until it has
/// ended, at most the master's `verdict_timeout_ms`; the sync's operation handle stays valid and
/// has its result. Afterwards the library no longer uses the memory of the entries.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclDestroySharedState")]
pub unsafe extern "C" fn destroy_shared_state(state: cclSharedState_t) -> cclResult_t {
    call(|| {
        let state = handles::remove::<SharedState, _>(state)?;
        let sync = {
            let mut slot = state.slot.lock();
            slot.state = None;
            slot.sync.take()
        };
        if let Some(sync) = sync {
            sync.settle();
        }
        Ok(())
    })
}

/// The object behind a `cclSharedState_t`.
#[derive(Debug)]
pub(crate) struct SharedState {
    slot: Mutex<Slot>,
    /// The caller's address of each entry.
    places: Mutex<Vec<Place>>,
    /// Checkpoints that the last load skipped.
    pub(crate) skipped: AtomicUsize,
}

impl Kind for SharedState {
    const NAME: &'static str = "shared state";
}

/// An address as the caller passed it.
#[derive(Clone, Copy, Debug)]
struct Place(*mut c_void);

// SAFETY: only returned to the caller.
unsafe impl Send for Place {}

/// The core's state: here, or lent to a sync.
#[derive(Debug)]
struct Slot {
    state: Option<Lent>,
    sync: Option<Arc<Syncing>>,
}

/// The core's state, which syncs take and return.
type Lent = Box<ccl_core::SharedState<'static>>;

/// A sync in progress, which owns the state.
pub(crate) type Syncing = SyncHandle<Lent>;

impl SharedState {
    /// Calls `body` with the state, unless a sync owns it.
    pub(crate) fn with<T>(
        &self,
        body: impl FnOnce(&mut ccl_core::SharedState<'static>) -> ccl_core::Result<T>,
    ) -> Outcome<T> {
        let mut slot = self.slot.lock();
        slot.take_back();
        let state = slot.state.as_mut().ok_or_else(under_way)?;
        Ok(body(state)?)
    }

    /// The caller's address of an entry.
    pub(crate) fn place(&self, index: usize) -> *mut c_void {
        self.places.lock()[index].0
    }

    /// Lends the state to a sync that `start` creates. If `start` fails, takes the state back.
    pub(crate) fn lend(
        &self,
        start: impl FnOnce(Lent) -> Result<Syncing, (Error, Lent)>,
    ) -> Outcome<Arc<Syncing>> {
        let mut slot = self.slot.lock();
        slot.take_back();
        let state = slot.state.take().ok_or_else(under_way)?;
        match start(state) {
            Ok(sync) => {
                let sync = Arc::new(sync);
                slot.sync = Some(Arc::clone(&sync));
                Ok(sync)
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
        let Some(sync) = &self.sync else { return };
        if let Some(state) = sync.take_state() {
            self.state = Some(state);
            self.sync = None;
        }
    }
}

fn under_way() -> Error {
    Error::usage("a sync of this state is in progress, or the state was destroyed")
}

/// # Safety
/// `name` is NULL or a text that ends with a zero byte.
unsafe fn key(
    name: *const c_char,
    dtype: cclDataType_t,
    shape: Vec<u64>,
    is_unequal: u32,
) -> Outcome<Key> {
    // SAFETY: passed on from the caller.
    let name =
        unsafe { memory::text(name, "name") }?.ok_or_else(|| Error::invalid("name is NULL"))?;
    Ok(Key {
        name,
        dtype: self::dtype(dtype)?,
        shape,
        allow_inequality: memory::switch(is_unequal, "is_unequal")?,
    })
}

/// Checks alignment: C forbids misaligned elements.
fn check_element_alignment(key: &Key, memory: *const c_void) -> Outcome<()> {
    let bytes = key.dtype.bytes();
    if memory.addr().is_multiple_of(bytes) {
        return Ok(());
    }
    let what = format!("memory of {:?} is not aligned to {bytes} bytes", key.name);
    Err(Error::invalid(what).into())
}
