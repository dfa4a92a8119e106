//! Operations that were started and not waited for.

use std::ffi::c_void;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ccl_core::ids::{OpName, OpNumber};
use ccl_core::{Error, Progress, RawHandle, SafePoint, SyncInfo, Tag, View};

use crate::call::call;
use crate::handles::{self, Kind};
use crate::memory::{self, Growing, Out};
use crate::notice::{Notice, Wanted};
use crate::result::{Outcome, cclResult_t};
use crate::shared_state::Syncing;
use crate::types::{OutcomeOut, bounded, cclOutcome_t};

/// Opaque; see cclOperation_t.
pub struct cclOperation {
    _private: [u8; 0],
}

/// An operation, in progress or ended. Any thread may use it. Destroy it with cclDestroyOperation.
/// Its buffers must stay valid and must not be accessed until it has ended.
pub type cclOperation_t = *mut cclOperation;

/// Called when an operation has ended; it may, for example, write to a pipe that the application
/// polls. It must return quickly, must not unwind, and must not call the library: such a call
/// returns cclErrorInvalidUsage.
pub type cclEndCallback_t = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Progress of an operation at this peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclProgress_t {
    /// Set it to `sizeof(cclProgress_t)` before the call.
    pub struct_bytes: usize,
    /// Payload bytes sent and received so far.
    pub done_bytes: u64,
    /// Payload bytes sent and received at the end; 0 until the operation has begun.
    pub total_bytes: u64,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclProgress_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Blocks until the operation has ended, and returns its result. Any thread may call it again and
/// gets the same result. `outcome` may be NULL.
///
/// Errors: as the blocking form of the call that started it; cclErrorInvalidHandle.
#[unsafe(export_name = "cclWait")]
pub unsafe extern "C" fn wait(
    operation: cclOperation_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { OutcomeOut::new(outcome) }?;
        let operation = handles::get::<Operation, _>(operation)?;
        place.set(&operation.work.wait()?)
    })
}

/// Blocks until the operation has ended, at most `timeout_ms` milliseconds. The operation goes on
/// either way. `outcome` may be NULL.
///
/// Errors: cclErrorTimeout if it has not ended by then; else as cclWait.
#[unsafe(export_name = "cclWaitFor")]
pub unsafe extern "C" fn wait_for(
    operation: cclOperation_t,
    timeout_ms: u64,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { OutcomeOut::new(outcome) }?;
        let operation = handles::get::<Operation, _>(operation)?;
        place.set(&operation.work.wait_for(bounded(timeout_ms))?)
    })
}

/// Writes 1 if the operation has ended, successfully or not, else 0. cclWait then returns its
/// result without blocking. Does not block.
///
/// Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclTest")]
pub unsafe extern "C" fn test(operation: cclOperation_t, is_finished: *mut u32) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_finished, "is_finished") }?;
        let operation = handles::get::<Operation, _>(operation)?;
        place.set(operation.work.is_finished().into());
        Ok(())
    })
}

/// Asks to abort the operation for all members, who then get cclErrorCancelled. It may still
/// succeed; cclWait returns the result. Does not block.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclCancel")]
pub unsafe extern "C" fn cancel(operation: cclOperation_t) -> cclResult_t {
    call(|| {
        handles::get::<Operation, _>(operation)?.work.cancel();
        Ok(())
    })
}

/// Writes the operation's progress at this peer; after the end, its last progress. Does not block.
///
/// Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetProgress")]
pub unsafe extern "C" fn get_progress(
    operation: cclOperation_t,
    progress: *mut cclProgress_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::growing_out(progress, "progress") }?;
        let progress = handles::get::<Operation, _>(operation)?.work.progress();
        place.set(cclProgress_t {
            struct_bytes: 0,
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        });
        Ok(())
    })
}

/// Sets a function to be called once when the operation has ended: from a thread of the library, or
/// from within this call if it has ended already. cclWait then does not block. Replaces an earlier
/// function that was not called yet; NULL removes it. When this or cclDestroyOperation returns, no
/// earlier one is running or will run. `user_data` is passed through; it stays the caller's. Blocks
/// while an earlier one runs.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclSetEndCallback")]
pub unsafe extern "C" fn set_end_callback(
    operation: cclOperation_t,
    callback: cclEndCallback_t,
    user_data: *mut c_void,
) -> cclResult_t {
    call(|| {
        let operation = handles::get::<Operation, _>(operation)?;
        let wanted = callback.map(|callback| Wanted {
            callback,
            user_data,
        });
        operation
            .notice
            .want(wanted, |context| operation.work.poll(context));
        Ok(())
    })
}

/// Destroys the handle. Cancels an operation that has not ended, and blocks until it has, at most
/// the master's `verdict_timeout_ms`; afterwards its memory is the caller's.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclDestroyOperation")]
pub unsafe extern "C" fn destroy_operation(operation: cclOperation_t) -> cclResult_t {
    call(|| {
        let operation = handles::remove::<Operation, _>(operation)?;
        // Another thread may wait in it and keep it; the memory is free when this returns anyhow.
        operation.work.end();
        operation.notice.take_back();
        Ok(())
    })
}

/// What a `cclOperation_t` stands for.
#[derive(Debug)]
pub(crate) struct Operation {
    /// What was started.
    pub(crate) work: Work,
    notice: Arc<Notice>,
}

impl Kind for Operation {
    const NAME: &'static str = "operation";
}

impl From<Work> for Operation {
    fn from(work: Work) -> Self {
        let notice = Arc::default();
        Self { work, notice }
    }
}

/// What can be started.
#[derive(Debug)]
pub(crate) enum Work {
    /// A collective, or a barrier.
    Collective(RawHandle),
    /// A sync of shared state.
    Sync(Arc<Syncing>),
    /// A safe point.
    Topology(SafePoint),
}

impl Work {
    fn wait(&self) -> Outcome<ccl_core::Outcome> {
        Ok(match self {
            Self::Collective(handle) => handle.wait()?,
            Self::Sync(sync) => outcome_of(sync.wait()?),
            Self::Topology(point) => outcome_of_view(point.wait()?),
        })
    }

    fn wait_for(&self, timeout: Duration) -> Outcome<ccl_core::Outcome> {
        Ok(match self {
            Self::Collective(handle) => handle.wait_for(timeout)?,
            Self::Sync(sync) => outcome_of(sync.wait_for(timeout)?),
            Self::Topology(point) => {
                outcome_of_view(point.wait_for(timeout)?.ok_or(Error::Timeout)?)
            }
        })
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Collective(handle) => handle.is_finished(),
            Self::Sync(sync) => sync.is_finished(),
            Self::Topology(point) => point.is_finished(),
        }
    }

    fn cancel(&self) {
        match self {
            Self::Collective(handle) => handle.cancel(),
            Self::Sync(sync) => sync.cancel(),
            Self::Topology(point) => point.cancel(),
        }
    }

    fn progress(&self) -> Progress {
        match self {
            Self::Collective(handle) => handle.progress(),
            Self::Sync(sync) => sync.progress(),
            Self::Topology(_) => Progress::default(),
        }
    }

    /// Whether the operation has ended; if not, the context is woken at the end.
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        match self {
            Self::Collective(handle) => handle.poll(context).map(drop),
            Self::Sync(sync) => sync.poll(context),
            Self::Topology(point) => point.poll(context).map(drop),
        }
    }

    /// Cancels it unless it has ended, and waits until it no longer uses the caller's memory.
    fn end(&self) {
        match self {
            Self::Collective(handle) if handle.is_finished() => {}
            Self::Collective(handle) => {
                handle.cancel();
                // Waiting threads get the result.
                let _ = handle.wait();
            }
            Self::Sync(sync) => sync.settle(),
            // It uses no memory.
            Self::Topology(point) => point.cancel(),
        }
    }
}

/// A sync's result in the form that all operations have.
fn outcome_of(info: SyncInfo) -> ccl_core::Outcome {
    ccl_core::Outcome {
        op: info.op,
        contributors: info.members,
        weights: Vec::new(),
        view: info.view,
        attempts: info.attempts,
    }
}

/// A safe point's result in the form that all operations have. A safe point has no operation name.
fn outcome_of_view(view: Arc<View>) -> ccl_core::Outcome {
    ccl_core::Outcome {
        op: OpName {
            tag: Tag(0),
            n: OpNumber(0),
            birth: view.vid,
        },
        contributors: view.members.iter().map(|member| member.peer).collect(),
        weights: Vec::new(),
        view,
        attempts: 1,
    }
}

/// Issues a handle for started work.
pub(crate) fn insert(work: Work) -> cclOperation_t {
    handles::insert(Arc::new(Operation::from(work)))
}

/// Starts a collective and writes its handle.
pub(crate) fn give(
    place: Out<cclOperation_t>,
    start: impl FnOnce() -> Outcome<RawHandle>,
) -> Outcome<()> {
    let handle = start()?;
    place.set(insert(Work::Collective(handle)));
    Ok(())
}
