//! The text and details of a thread's last failure.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use ccl_core::{Error, Eviction, SyncFault};

use crate::memory::{self, Growing};
use crate::result::{Failure, cclResult_t, cclSuccess};

/// Why the members' shared states do not fit together.
pub type cclStateFault_t = u32;

/// The failure is not cclErrorSharedState.
pub const cclStateFaultNone: cclStateFault_t = 0;
/// Members have different entries.
pub const cclStateFaultKeys: cclStateFault_t = 1;
/// Members call with strategies that cannot be combined.
pub const cclStateFaultStrategies: cclStateFault_t = 2;
/// The content of a member that calls with cclSendOnly was not elected.
pub const cclStateFaultSenderLost: cclStateFault_t = 3;
/// Too many members are too far ahead of the run to evict them. Restart those with the run's own
/// checkpoint, or call with `restore` on all members.
pub const cclStateFaultRevisionAhead: cclStateFault_t = 4;
/// No member has the content sealed last, or one that follows it. Call with `restore` on all
/// members.
pub const cclStateFaultRevisionLost: cclStateFault_t = 5;
/// No member has a consistent content. Load a checkpoint, or fill the memory and call
/// cclBeginAnew; then call with `restore` on all members.
pub const cclStateFaultNoSource: cclStateFault_t = 6;

/// Details of a failure: peer, operation and view. Fields that do not apply are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclErrorInfo_t {
    /// Set it to `sizeof(cclErrorInfo_t)` before the call.
    pub struct_bytes: usize,
    /// The result code.
    pub result: cclResult_t,
    /// Term of the survivors' view (cclErrorPeerLost), of the members' view (cclErrorSharedState),
    /// or of this peer's last view (cclErrorEvicted, cclErrorRevisionAhead).
    pub term: u32,
    /// Epoch of that view.
    pub epoch: u32,
    /// Current world size (cclErrorTooFewPeers, cclErrorWorldChanged).
    pub world_size: u32,
    /// The peer that was lost (cclErrorPeerLost), that cancelled (cclErrorCancelled), or whose
    /// state does not fit (cclErrorSharedState; 0 if no single one), or this peer (cclErrorEvicted,
    /// cclErrorRevisionAhead).
    pub peer: u64,
    /// Tag of the operation that was aborted (cclErrorPeerLost, cclErrorCancelled,
    /// cclErrorSharedState).
    pub tag: u64,
    /// Number of that operation in its tag's sequence.
    pub number: u64,
    /// The system's error number, as in errno.h (cclErrorSystem).
    pub system_error: i32,
    /// Why states do not fit together (cclErrorSharedState). Later versions may add more.
    pub state_fault: cclStateFault_t,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclErrorInfo_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Text of the last failure on this thread: what went wrong and what to do about it.
///
/// Never NULL; empty if no call failed yet. The library owns the text; it is valid until the next
/// failure on this thread or the thread's end. A success does not change it. Does not block; may be
/// called from anywhere.
#[unsafe(export_name = "cclGetLastError")]
pub extern "C" fn last_error() -> *const c_char {
    // A thread that is about to end has already dropped its text.
    LAST.try_with(|last| last.borrow().words.as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// Details of the last failure on this thread; all 0 if no call failed yet. Does not block. A
/// failure of this call itself is not recorded.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclGetLastErrorInfo")]
pub unsafe extern "C" fn last_error_info(info: *mut cclErrorInfo_t) -> cclResult_t {
    let last = LAST.try_with(|last| last.borrow().info).unwrap_or_default();
    // SAFETY: NULL, or what the header asks for.
    let place = unsafe { memory::growing_out(info, "info") };
    match place {
        Ok(place) => {
            place.set(last);
            cclSuccess
        }
        Err(failure) => failure.code(),
    }
}

/// Stores a failure for this thread, and returns its result code.
pub(crate) fn keep(failure: Failure) -> cclResult_t {
    let info = info_of(&failure);
    let mut words = failure.words().into_bytes();
    words.retain(|&byte| byte != 0);
    let words = CString::new(words).expect("zero bytes were taken out");
    // A thread that is about to end cannot store it any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Last { words, info });
    info.result
}

/// A thread's last failure.
#[derive(Default)]
struct Last {
    words: CString,
    info: cclErrorInfo_t,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

fn info_of(failure: &Failure) -> cclErrorInfo_t {
    let mut info = cclErrorInfo_t {
        result: failure.code(),
        ..cclErrorInfo_t::default()
    };
    let Failure::Core(error) = failure else {
        return info;
    };
    match error {
        Error::PeerLost { peer, op, vid, .. } => {
            (info.peer, info.tag, info.number) = (peer.0, op.tag.0, op.n.0);
            (info.term, info.epoch) = (vid.term.0, vid.epoch.0);
        }
        Error::Cancelled { by, op, .. } => {
            (info.peer, info.tag, info.number) = (by.0, op.tag.0, op.n.0);
        }
        Error::SharedState { fault, op, vid, .. } => {
            info.peer = fault.odd_peer().map_or(0, |peer| peer.0);
            info.state_fault = state_fault(fault);
            (info.tag, info.number) = (op.tag.0, op.n.0);
            (info.term, info.epoch) = (vid.term.0, vid.epoch.0);
        }
        Error::Evicted(Eviction { peer, vid, .. }) => {
            info.peer = peer.0;
            (info.term, info.epoch) = (vid.term.0, vid.epoch.0);
        }
        Error::Os { source, .. } => info.system_error = source.raw_os_error().unwrap_or(0),
        Error::TooFewPeers { world_size, .. } | Error::WorldChanged { world_size } => {
            info.world_size = *world_size;
        }
        _ => {}
    }
    info
}

fn state_fault(fault: &SyncFault) -> cclStateFault_t {
    match fault {
        SyncFault::Keys { .. } => cclStateFaultKeys,
        SyncFault::Strategies { .. } => cclStateFaultStrategies,
        SyncFault::SenderLost { .. } => cclStateFaultSenderLost,
        SyncFault::RevisionAhead { .. } => cclStateFaultRevisionAhead,
        SyncFault::RevisionLost { .. } => cclStateFaultRevisionLost,
        SyncFault::NoSource => cclStateFaultNoSource,
    }
}
