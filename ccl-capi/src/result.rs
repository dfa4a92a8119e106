//! Result codes: how a call ended. The text and details of a failure are in `last_error`.

use std::ffi::{CStr, c_char};

use ccl_core::{Error, ErrorKind};

use crate::handles::Invalid;

/// How a call ended: `cclSuccess` or an error code. Numbers never change their meaning; later
/// versions may add more.
pub type cclResult_t = u32;

/// Success.
pub const cclSuccess: cclResult_t = 0;
/// An argument is NULL but must not be, or is out of range. Nothing was started.
pub const cclErrorInvalidArgument: cclResult_t = 1;
/// The call does not fit the state, such as a second operation on a busy tag. Nothing was started.
pub const cclErrorInvalidUsage: cclResult_t = 2;
/// The handle is NULL, of another kind, or already destroyed.
pub const cclErrorInvalidHandle: cclResult_t = 3;
/// The handle was created before a fork and is used in the child. Create another one there.
pub const cclErrorForked: cclResult_t = 4;
/// The operating system refused something.
pub const cclErrorSystem: cclResult_t = 5;
/// A bug in this library was caught. Please report it.
pub const cclErrorInternal: cclResult_t = 6;
/// The timeout passed first; the operation goes on.
pub const cclErrorTimeout: cclResult_t = 7;
/// No master could be reached within `connect_timeout_ms`.
pub const cclErrorMasterUnreachable: cclResult_t = 8;
/// The master knows this peer, but the members did not admit it within `connect_timeout_ms`.
pub const cclErrorNotAdmitted: cclResult_t = 9;
/// The master refused this peer. The session is over.
pub const cclErrorRefused: cclResult_t = 10;
/// A member was lost during the operation, which was aborted for all. Call it again: it runs with
/// the survivors.
pub const cclErrorPeerLost: cclResult_t = 11;
/// A member cancelled the operation or had no memory for it, or its deadline passed, or the
/// members' calls did not match. It was aborted for all.
pub const cclErrorCancelled: cclResult_t = 12;
/// Fewer members than `min_world_size`. Call cclUpdateTopology until more peers join.
pub const cclErrorTooFewPeers: cclResult_t = 13;
/// The world size changed, and the buffers are made for another one. Nothing was started. Read the
/// world size and call again with buffers for it.
pub const cclErrorWorldChanged: cclResult_t = 14;
/// The master evicted this peer, but not for cclErrorRevisionAhead. The session is over.
pub const cclErrorEvicted: cclResult_t = 15;
/// Whether the operation succeeded cannot be known. The session is over.
pub const cclErrorUnknown: cclResult_t = 16;
/// The session has ended already, or this peer left.
pub const cclErrorEnded: cclResult_t = 17;
/// The members' shared states do not fit together: entries, strategies or revisions. No data was
/// moved.
pub const cclErrorSharedState: cclResult_t = 18;

/// The master evicted this peer because its shared state is more than one step ahead of the run: it
/// comes from another run, or from a later point of this one. The session is over. A peer that
/// rejoins with the same state is evicted again: start without it, or load the run's own
/// checkpoint.
pub const cclErrorRevisionAhead: cclResult_t = 19;

/// A short name of a result code. Never NULL, even for an unknown code; do not free it. Does not
/// block; may be called from anywhere.
#[unsafe(export_name = "cclResultString")]
pub extern "C" fn result_string(result: cclResult_t) -> *const c_char {
    name(result).as_ptr()
}

/// What a call inside this crate ends with.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the core.
    Core(Error),
    /// An invalid handle.
    Handle(Invalid),
    /// A bug in the library.
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

    /// What went wrong, and what to do.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Core(error) => error.to_string(),
            Self::Handle(what) => format!("invalid handle: {what}"),
            Self::Panic(what) => format!("internal error, please report it: {what}"),
        }
    }
}

fn code(error: &Error) -> cclResult_t {
    let kind = error.kind();
    let found = CODES.iter().find(|(_, of)| *of == kind);
    // An error that this edge does not know yet.
    found.map_or(cclErrorInternal, |(code, _)| *code)
}

/// The core's error that a code stands for, if it is the core's.
pub(crate) fn kind(result: cclResult_t) -> Option<ErrorKind> {
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
        cclErrorRevisionAhead => c"evicted for its shared state",
        _ => c"unknown result code",
    }
}

/// The core's errors by their codes.
const CODES: [(cclResult_t, ErrorKind); 17] = [
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
    (cclErrorRevisionAhead, ErrorKind::RevisionAhead),
];

#[cfg(test)]
mod tests;
