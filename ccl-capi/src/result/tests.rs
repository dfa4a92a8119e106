//! Every error of the core has its code, and the codes are sorted as the core sorts its errors.

use std::sync::Arc;

use ccl_core::ids::{OpName, Revision};
use ccl_core::wire::control::{CancelReason, Digest, EvictReason, StateId, SyncFault};
use ccl_core::{Eviction, Kind, Names, PeerId, Vid};

use super::*;
use crate::last_error::{
    cclErrorInfo_t, cclStateFaultNoSource, cclStateFaultNone, cclStateFaultRevisionLost, keep,
    last_error_info,
};
use crate::remedy::{result_is_fatal, result_is_retryable};

fn every_error() -> Vec<Error> {
    let op = OpName::default();
    vec![
        Error::PeerLost {
            peer: PeerId(7),
            kind: Kind::AllReduce,
            op,
            vid: Vid::default(),
            reason: EvictReason::Died,
            names: Names::default(),
        },
        Error::Cancelled {
            kind: Kind::AllReduce,
            op,
            by: PeerId(8),
            reason: Box::new(CancelReason::User),
            names: Names::default(),
        },
        Error::SharedState {
            fault: Box::new(SyncFault::Keys {
                peer: PeerId(9),
                theirs: (1, 2),
                most: (3, 4),
                odd: Digest::default(),
                usual: Digest::default(),
                difference: None,
            }),
            entry: None,
            op,
            vid: Vid::default(),
            names: Names::default(),
        },
        Error::TooFewPeers {
            world_size: 1,
            min_world_size: 2,
        },
        Error::WorldChanged { world_size: 3 },
        evicted(EvictReason::Left),
        evicted(EvictReason::RevisionAhead {
            theirs: Revision(16),
            sealed: Revision(14),
        }),
        Error::Refused("no".into()),
        Error::Unknown("who knows".into()),
        Error::Ended("over".into()),
        Error::MasterUnreachable {
            address: "there".into(),
            cause: "none".into(),
        },
        Error::NotAdmitted {
            waited_ms: 1,
            waits: None,
            cause: None,
        },
        Error::Timeout,
        Error::invalid("this"),
        Error::usage("that"),
        Error::Forked,
        Error::Os {
            context: "doing".into(),
            source: Arc::new(std::io::Error::other("it")),
        },
    ]
}

fn evicted(reason: EvictReason) -> Error {
    Error::Evicted(Eviction {
        peer: PeerId(6),
        vid: Vid::default(),
        reason,
        names: Names::default(),
    })
}

fn ask(question: unsafe extern "C" fn(cclResult_t, *mut u32) -> cclResult_t, code: u32) -> bool {
    let mut answer = 2;
    // SAFETY: a place for an answer.
    assert_eq!(unsafe { question(code, &raw mut answer) }, cclSuccess);
    assert!(answer < 2);
    answer == 1
}

#[test]
fn codes_are_distinct_and_named() {
    let mut codes: Vec<u32> = every_error().iter().map(code).collect();
    codes.extend([cclSuccess, cclErrorInvalidHandle, cclErrorInternal]);
    codes.sort_unstable();
    assert_eq!(codes, (0..20).collect::<Vec<_>>());
    let names: std::collections::BTreeSet<_> = codes.iter().map(|&code| name(code)).collect();
    assert_eq!(names.len(), codes.len());
    assert_eq!(name(4711), c"unknown result code");
}

#[test]
fn codes_are_sorted_as_the_core_sorts_its_errors() {
    for error in every_error() {
        let code = code(&error);
        assert_eq!(
            ask(result_is_retryable, code),
            error.is_retryable(),
            "{error}"
        );
        assert_eq!(ask(result_is_fatal, code), error.is_fatal(), "{error}");
    }
}

/// What is kept of a failure.
fn kept(error: &Error) -> cclErrorInfo_t {
    keep(error.clone().into());
    let mut info = cclErrorInfo_t {
        struct_bytes: size_of::<cclErrorInfo_t>(),
        ..cclErrorInfo_t::default()
    };
    // SAFETY: a place for an answer.
    assert_eq!(unsafe { last_error_info(&raw mut info) }, cclSuccess);
    info
}

#[test]
fn a_failure_names_who_and_what() {
    for error in every_error() {
        let info = kept(&error);
        let who = match error {
            Error::PeerLost { .. } => 7,
            Error::Cancelled { .. } => 8,
            Error::SharedState { .. } => 9,
            Error::Evicted(_) => 6,
            _ => 0,
        };
        assert_eq!((info.result, info.peer), (code(&error), who), "{error}");
    }
    let info = kept(&Error::WorldChanged { world_size: 3 });
    assert_eq!((info.result, info.world_size), (cclErrorWorldChanged, 3));
    let denied = std::io::Error::from_raw_os_error(13);
    assert_eq!(kept(&Error::os("opening", denied)).system_error, 13);
}

#[test]
fn a_failure_says_why_states_do_not_fit() {
    let faults = [
        (SyncFault::NoSource, cclStateFaultNoSource),
        (
            SyncFault::RevisionLost {
                sealed: StateId::default(),
                best: StateId::default(),
                unwilling: Vec::new(),
            },
            cclStateFaultRevisionLost,
        ),
    ];
    for (fault, told) in faults {
        let error = Error::SharedState {
            fault: Box::new(fault),
            entry: None,
            op: OpName::default(),
            vid: Vid::default(),
            names: Names::default(),
        };
        assert_eq!(kept(&error).state_fault, told, "{error}");
    }
    assert_eq!(kept(&Error::Timeout).state_fault, cclStateFaultNone);
}
