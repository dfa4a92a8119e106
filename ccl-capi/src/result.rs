//! Result codes, and the words and details of a thread's last failure.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use ccl_core::{Error, ErrorKind, Eviction};

use crate::call::call;
use crate::handles::Invalid;
use crate::memory::{self, Growing};

/// How a call ended: `cclSuccess`, or why not. Numbers never change their meaning; later versions
/// may add more.
pub type cclResult_t = u32;

/// It did what it says.
pub const cclSuccess: cclResult_t = 0;
/// An argument is NULL that may not be, or out of range. Nothing was started.
pub const cclErrorInvalidArgument: cclResult_t = 1;
/// The call does not fit the state, such as a second operation on a busy tag. Nothing was started.
pub const cclErrorInvalidUsage: cclResult_t = 2;
/// The handle is NULL, of another kind, or already destroyed.
pub const cclErrorInvalidHandle: cclResult_t = 3;
/// The handle was made before a fork and is used in the child. Make another there.
pub const cclErrorForked: cclResult_t = 4;
/// The operating system refused something.
pub const cclErrorSystem: cclResult_t = 5;
/// A mistake in this library, caught. Please report it.
pub const cclErrorInternal: cclResult_t = 6;
/// The time given is over before the end came; what was waited for goes on.
pub const cclErrorTimeout: cclResult_t = 7;
/// No master could be reached within `connect_timeout_ms`.
pub const cclErrorMasterUnreachable: cclResult_t = 8;
/// The master knows this peer, but the members did not admit it within `connect_timeout_ms`.
pub const cclErrorNotAdmitted: cclResult_t = 9;
/// The master did not let this peer in. The session is over.
pub const cclErrorRefused: cclResult_t = 10;
/// A member was lost during the operation, which was aborted for all. Call it again: it runs with
/// the survivors.
pub const cclErrorPeerLost: cclResult_t = 11;
/// Somebody cancelled the operation, or its deadline passed, or the members' calls did not match,
/// or a member had no memory for it. It was aborted for all.
pub const cclErrorCancelled: cclResult_t = 12;
/// Fewer members than `min_world_size`. Call cclUpdateTopology until somebody joins.
pub const cclErrorTooFewPeers: cclResult_t = 13;
/// The members changed, and the buffers are made for another number of them. Nothing was started.
/// Read the world size and call again with buffers for it.
pub const cclErrorWorldChanged: cclResult_t = 14;
/// The master removed this peer. The session is over.
pub const cclErrorEvicted: cclResult_t = 15;
/// Whether the operation succeeded cannot be known. The session is over.
pub const cclErrorUnknown: cclResult_t = 16;
/// The session has ended already, or this peer left.
pub const cclErrorEnded: cclResult_t = 17;
/// The members' shared states do not fit together: entries, strategies or revisions. Nothing moved.
pub const cclErrorSharedState: cclResult_t = 18;

/// Details of a failure: who, which operation, in which view. What does not apply is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclErrorInfo_t {
    /// Set it to `sizeof(cclErrorInfo_t)` before the call.
    pub struct_bytes: usize,
    /// The result code.
    pub result: cclResult_t,
    /// Term of the view that the survivors are in (cclErrorPeerLost), that the members are in
    /// (cclErrorSharedState), or that this peer was in last (cclErrorEvicted).
    pub term: u32,
    /// Epoch of that view.
    pub epoch: u32,
    /// Members at the moment (cclErrorTooFewPeers, cclErrorWorldChanged).
    pub world_size: u32,
    /// Who was lost (cclErrorPeerLost), who cancelled (cclErrorCancelled), whose state is the odd
    /// one (cclErrorSharedState; 0 if none is), or this peer (cclErrorEvicted).
    pub peer: u64,
    /// Tag of the operation that was aborted (cclErrorPeerLost, cclErrorCancelled,
    /// cclErrorSharedState).
    pub tag: u64,
    /// Number of that operation in its tag's sequence.
    pub number: u64,
    /// The system's number of the error, as in errno.h (cclErrorSystem).
    pub system_error: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclErrorInfo_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Words for the last failure of a call on this thread: what went wrong and what to do about it.
///
/// Never NULL; empty if no call failed yet. The text is the library's, and valid until the next
/// call that fails on this thread, or the thread's end. A success leaves it as it is. Does not
/// block; may be called from anywhere.
#[unsafe(export_name = "cclGetLastError")]
pub extern "C" fn last_error() -> *const c_char {
    // A thread that is about to end has given its words up.
    LAST.try_with(|last| last.borrow().words.as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// Details of the last failure of a call on this thread; all 0 if no call failed yet. Does not
/// block. A failure of this call is not kept.
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

/// A short name of a result code. Never NULL, never freed; also for numbers that are no code. Does
/// not block; may be called from anywhere.
#[unsafe(export_name = "cclResultString")]
pub extern "C" fn result_string(result: cclResult_t) -> *const c_char {
    name(result).as_ptr()
}

/// Whether the same call may succeed if it is made again in this session: writes 1 or 0. Does not
/// block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclResultIsRetryable")]
pub unsafe extern "C" fn result_is_retryable(
    result: cclResult_t,
    is_retryable: *mut u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_retryable, "is_retryable") }?;
        place.set(kind(result).is_some_and(ErrorKind::is_retryable).into());
        Ok(())
    })
}

/// Whether a failure ended the session: writes 1 or 0. Then every further call on the communicator
/// fails; destroy it, create another and connect anew. Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclResultIsFatal")]
pub unsafe extern "C" fn result_is_fatal(result: cclResult_t, is_fatal: *mut u32) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_fatal, "is_fatal") }?;
        place.set(kind(result).is_some_and(ErrorKind::is_fatal).into());
        Ok(())
    })
}

/// What a call inside this crate ends with.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The core said so.
    Core(Error),
    /// A handle that means nothing.
    Handle(Invalid),
    /// A broken promise inside.
    Panic(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Forked => Self::Core(Error::Forked),
            invalid => Self::Handle(invalid),
        }
    }
}

impl Failure {
    /// Its number.
    pub(crate) fn code(&self) -> cclResult_t {
        match self {
            Self::Core(error) => code(error),
            Self::Handle(_) => cclErrorInvalidHandle,
            Self::Panic(_) => cclErrorInternal,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Core(error) => error.to_string(),
            Self::Handle(what) => format!("invalid handle: {what}"),
            Self::Panic(what) => format!("internal error, please report it: {what}"),
        }
    }

    fn info(&self) -> cclErrorInfo_t {
        let mut info = cclErrorInfo_t {
            result: self.code(),
            ..cclErrorInfo_t::default()
        };
        let Self::Core(error) = self else { return info };
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
}

/// Keeps a failure for this thread, and returns its number.
pub(crate) fn keep(failure: Failure) -> cclResult_t {
    let info = failure.info();
    let mut words = failure.words().into_bytes();
    words.retain(|&byte| byte != 0);
    let words = CString::new(words).expect("zero bytes were taken out");
    // A thread that is about to end has nowhere to keep them.
    let _kept = LAST.try_with(|last| *last.borrow_mut() = Last { words, info });
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

fn code(error: &Error) -> cclResult_t {
    let kind = error.kind();
    let found = CODES.iter().find(|(_, of)| *of == kind);
    // An error that this edge does not know yet.
    found.map_or(cclErrorInternal, |(code, _)| *code)
}

/// The core's error that a code stands for, if it is the core's.
fn kind(result: cclResult_t) -> Option<ErrorKind> {
    let found = CODES.iter().find(|(code, _)| *code == result);
    found.map(|(_, kind)| *kind)
}

fn name(result: cclResult_t) -> &'static CStr {
    match result {
        cclSuccess => c"success",
        cclErrorInvalidArgument => c"invalid argument",
        cclErrorInvalidUsage => c"invalid usage",
        cclErrorInvalidHandle => c"invalid handle",
        cclErrorForked => c"used after a fork",
        cclErrorSystem => c"system error",
        cclErrorInternal => c"internal error",
        cclErrorTimeout => c"timeout",
        cclErrorMasterUnreachable => c"master unreachable",
        cclErrorNotAdmitted => c"not admitted",
        cclErrorRefused => c"refused by the master",
        cclErrorPeerLost => c"peer lost",
        cclErrorCancelled => c"cancelled",
        cclErrorTooFewPeers => c"too few peers",
        cclErrorWorldChanged => c"world size changed",
        cclErrorEvicted => c"evicted",
        cclErrorUnknown => c"outcome unknown",
        cclErrorEnded => c"session ended",
        cclErrorSharedState => c"shared states do not fit",
        _ => c"no result code",
    }
}

/// The core's errors by their codes.
const CODES: [(cclResult_t, ErrorKind); 16] = [
    (cclErrorInvalidArgument, ErrorKind::InvalidArgument),
    (cclErrorInvalidUsage, ErrorKind::InvalidUsage),
    (cclErrorForked, ErrorKind::Forked),
    (cclErrorSystem, ErrorKind::Os),
    (cclErrorTimeout, ErrorKind::Timeout),
    (cclErrorMasterUnreachable, ErrorKind::MasterUnreachable),
    (cclErrorNotAdmitted, ErrorKind::NotAdmitted),
    (cclErrorRefused, ErrorKind::Refused),
    (cclErrorPeerLost, ErrorKind::PeerLost),
    (cclErrorCancelled, ErrorKind::Cancelled),
    (cclErrorTooFewPeers, ErrorKind::TooFewPeers),
    (cclErrorWorldChanged, ErrorKind::WorldChanged),
    (cclErrorEvicted, ErrorKind::Evicted),
    (cclErrorUnknown, ErrorKind::Unknown),
    (cclErrorEnded, ErrorKind::Ended),
    (cclErrorSharedState, ErrorKind::SharedState),
];

#[cfg(test)]
mod tests;
