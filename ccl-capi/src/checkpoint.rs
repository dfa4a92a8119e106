//! Checkpoints: shared states saved as files in a directory.

use std::ffi::c_char;
use std::sync::atomic::Ordering;

use ccl_core::{Checkpoints, Error};

use crate::call::call;
use crate::handles;
use crate::memory::{self, Growing};
use crate::result::{Outcome, cclResult_t};
use crate::shared_state::{CCL_ROOT_BYTES, SharedState, cclSharedState_t};

/// The newest checkpoint of a directory. Set `struct_bytes`, and `path` and its capacity if you
/// want the path; the other fields are written, on success only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclCheckpoint_t {
    /// `sizeof(cclCheckpoint_t)`.
    pub struct_bytes: usize,
    /// 1 if there is a checkpoint. 0 if there is none; the other fields are then 0.
    pub is_there: u32,
    /// 0.
    pub reserved: u32,
    /// Buffer for the path, which ends with a zero byte, or NULL.
    pub path: *mut c_char,
    /// Capacity of that buffer in bytes.
    pub path_capacity: usize,
    /// Length of the path in bytes, zero byte included; 0 if there is no checkpoint.
    pub path_bytes: usize,
    /// The checkpoint's revision.
    pub revision: u64,
    /// The digest over all entries of the checkpoint.
    pub root: [u8; CCL_ROOT_BYTES],
}

impl Default for cclCheckpoint_t {
    fn default() -> Self {
        Self {
            struct_bytes: 0,
            is_there: 0,
            reserved: 0,
            path: std::ptr::null_mut(),
            path_capacity: 0,
            path_bytes: 0,
            revision: 0,
            root: [0; CCL_ROOT_BYTES],
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and a pointer only.
unsafe impl Growing for cclCheckpoint_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// How checkpoints are saved and loaded. 0 is the default of every field.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclCheckpointOptions_t {
    /// `sizeof(cclCheckpointOptions_t)`.
    pub struct_bytes: usize,
    /// Checkpoints kept after a save, including the new one. 0: 2.
    pub keep_count: u32,
    /// Hashing threads. 0: one per core, at most 8.
    pub hash_threads: u32,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclCheckpointOptions_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Saves the state with its revision to a directory, atomically even if the machine crashes. The
/// directory is created if its parent exists. Each member saves to its own directory, or one member
/// saves for all. `options` may be NULL. Blocks for two hashes and one write; the memory must not
/// be written meanwhile. cclGetNewestCheckpoint returns the file's path.
///
/// Errors: cclErrorSystem if the disk fails: earlier checkpoints are kept. cclErrorInvalidArgument
/// if `directory` is NULL or not UTF-8, or an entry's name cannot be stored; cclErrorInvalidUsage
/// if the content is a mixture, or while a sync of this state is in progress;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclSaveSharedState")]
pub unsafe extern "C" fn save_shared_state(
    state: cclSharedState_t,
    directory: *const c_char,
    options: *const cclCheckpointOptions_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let checkpoints = unsafe { checkpoints_with(directory, options) }?;
        let state = handles::get::<SharedState, _>(state)?;
        let _file = state.with(|state| state.save(&checkpoints))?;
        Ok(())
    })
}

/// Loads the newest intact checkpoint of a directory, with its revision. Writes 1 if there was one;
/// 0 if there is no checkpoint at all, and the state is unchanged. The loaded content is verified
/// against its digest; a damaged file is skipped and the one before it loaded (cclGetSkippedCount).
/// Every peer of a restarted run loads first and then syncs: the highest revision of any member
/// wins. `options` may be NULL. Blocks for two reads; the memory must not be used meanwhile.
///
/// Errors: cclErrorInvalidArgument if there are checkpoints but none is intact, or the newest has
/// other entries; cclErrorSystem if the directory cannot be read. After an error cclIsUsable says
/// whether the content is still consistent. cclErrorInvalidUsage while a sync of this state is in
/// progress; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclLoadSharedState")]
pub unsafe extern "C" fn load_shared_state(
    state: cclSharedState_t,
    directory: *const c_char,
    options: *const cclCheckpointOptions_t,
    is_loaded: *mut u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, checkpoints) = unsafe {
            (
                memory::out(is_loaded, "is_loaded")?,
                checkpoints_with(directory, options)?,
            )
        };
        let state = handles::get::<SharedState, _>(state)?;
        let loaded = state.with(|state| state.load(&checkpoints))?;
        let skipped = loaded.as_ref().map_or(0, |loaded| loaded.skipped.len());
        state.skipped.store(skipped, Ordering::Relaxed);
        place.set(loaded.is_some().into());
        Ok(())
    })
}

/// Writes how many newer checkpoints the last successful load of this state skipped because they
/// cannot be used, for example because they are damaged. The log says what is wrong with each
/// (cclSetLogCallback). Does not block.
///
/// Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetSkippedCount")]
pub unsafe extern "C" fn get_skipped_count(
    state: cclSharedState_t,
    count: *mut usize,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(count, "count") }?;
        let state = handles::get::<SharedState, _>(state)?;
        place.set(state.skipped.load(Ordering::Relaxed));
        Ok(())
    })
}

/// Describes the newest checkpoint of a directory, without reading its content. Blocks only for the
/// disk.
///
/// Errors: cclErrorInvalidArgument, also if the path does not fit, or if there are checkpoints but
/// none has its full length; cclErrorSystem if the directory cannot be read.
#[unsafe(export_name = "cclGetNewestCheckpoint")]
pub unsafe extern "C" fn get_newest_checkpoint(
    directory: *const c_char,
    checkpoint: *mut cclCheckpoint_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, asked, checkpoints) = unsafe {
            (
                memory::growing_out(checkpoint, "checkpoint")?,
                memory::growing(checkpoint.cast_const(), "checkpoint")?,
                checkpoints(directory)?,
            )
        };
        memory::check_list(asked.path, asked.path_capacity, "checkpoint->path")?;
        let mut found = cclCheckpoint_t {
            path: asked.path,
            path_capacity: asked.path_capacity,
            ..cclCheckpoint_t::default()
        };
        if let Some(content) = checkpoints.newest()? {
            let path = checkpoints
                .path_of(content.revision.0)
                .to_str()
                .expect("the directory is UTF-8")
                .to_owned();
            if asked.path_capacity > 0 {
                let (place, bytes) = (asked.path, asked.path_capacity);
                // SAFETY: the header asks for as many bytes as it says.
                unsafe { memory::set_text(place, bytes, "checkpoint->path", &path) }?;
            }
            found.is_there = 1;
            found.path_bytes = path.len() + 1;
            found.revision = content.revision.0;
            found.root = content.root.0;
        }
        place.set(found);
        Ok(())
    })
}

/// # Safety
/// `directory` is NULL or a text that ends with a zero byte.
unsafe fn checkpoints(directory: *const c_char) -> Outcome<Checkpoints> {
    // SAFETY: passed on from the caller.
    let directory = unsafe { memory::text(directory, "directory") }?
        .filter(|directory| !directory.is_empty())
        .ok_or_else(|| Error::invalid("directory is NULL or empty"))?;
    Ok(Checkpoints::new(directory))
}

/// # Safety
/// `directory` is NULL or a text that ends with a zero byte; `options` is NULL or points to
/// options.
unsafe fn checkpoints_with(
    directory: *const c_char,
    options: *const cclCheckpointOptions_t,
) -> Outcome<Checkpoints> {
    // SAFETY: passed on from the caller.
    let (mut checkpoints, options) = unsafe {
        (
            checkpoints(directory)?,
            memory::growing(options, "options")?,
        )
    };
    if options.keep_count > 0 {
        let count = usize::try_from(options.keep_count).unwrap_or(usize::MAX);
        checkpoints = checkpoints.keep(count);
    }
    if let Some(threads) = hash_threads(options.hash_threads)? {
        checkpoints = checkpoints.threads(threads);
    }
    Ok(checkpoints)
}

/// The number of hashing threads, if the caller sets it.
pub(crate) fn hash_threads(number: u32) -> Outcome<Option<usize>> {
    if number > HASH_THREADS_MAX {
        let what = format!("options->hash_threads is {number}, at most {HASH_THREADS_MAX}");
        return Err(Error::invalid(what).into());
    }
    Ok(usize::try_from(number).ok().filter(|&number| number > 0))
}

/// Most hashing threads: more than any machine can use.
const HASH_THREADS_MAX: u32 = 256;
