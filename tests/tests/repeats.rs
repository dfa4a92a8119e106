//! Calls that are repeated with the survivors, and what callers want of them meanwhile.
//!
//! Three members; one leaves while another is in a call, the third comes to it later.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::sync::{Arc, Barrier};

use ccl_core::{Communicator, Error, Options, ReduceOp, SharedState, SyncOptions, SyncStrategy};

use common::{run, with_tag};

/// Runs `first` as rank 0, which says when it has called, and `later` as rank 1, once `first` has
/// returned. Rank 2 leaves as soon as the first has called.
fn with_a_leaver(
    first: impl Fn(&Communicator, &Barrier) + Send + Sync + 'static,
    later: impl Fn(&Communicator) + Send + Sync + 'static,
) {
    let (called, returned) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    run(3, move |communicator| {
        match communicator.rank().0 {
            0 => {
                first(communicator, &called);
                returned.wait();
            }
            1 => {
                returned.wait();
                later(communicator);
            }
            _ => {
                called.wait();
                return communicator.close();
            }
        }
        communicator.barrier(&with_tag(1)).unwrap();
    });
}

fn wait_for_second_attempt(communicator: &Communicator) {
    while communicator.counters().aborts == 0 {
        std::thread::yield_now();
    }
}

fn three_attempts() -> Options {
    Options {
        attempts: 3,
        ..Options::default()
    }
}

/// Goal: a cancel is for the call, whichever attempt is under way.
///
/// 1. A call loses a member and is repeated; the other survivor has not called yet.
/// 2. It is cancelled: final, with the input as it was.
/// 3. The other survivor's call ends so, too. The next operation of the tag succeeds.
#[test]
fn a_cancel_reaches_the_attempt_that_is_under_way() {
    let first = |communicator: &Communicator, called: &Barrier| {
        let (buffers, options) = (vec![vec![5_u32; 1000]], three_attempts());
        let handle = communicator.all_reduce_start(buffers, ReduceOp::Sum, &options);
        let handle = handle.unwrap();
        called.wait();
        wait_for_second_attempt(communicator);
        assert!(!handle.is_finished(), "the other survivor has not called");
        handle.cancel();
        let (buffers, end) = handle.wait();
        assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        assert_eq!(buffers[0], vec![5; 1000]);
    };
    with_a_leaver(first, |communicator| {
        let mut buffer = vec![5_u32; 1000];
        let end = communicator.all_reduce(&mut buffer, ReduceOp::Sum, &three_attempts());
        assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        assert_eq!(buffer, vec![5; 1000]);
    });
}

/// As above, for a sync, whose next attempt is posted once the one before was stopped.
#[test]
fn a_cancel_reaches_a_sync_that_is_repeated() {
    let first = |communicator: &Communicator, called: &Barrier| {
        let mut weights = [0.0_f32; 8];
        let mut state = SharedState::new(0);
        state.add("weights", &[8], &mut weights).unwrap();
        let end = communicator.sync_while(&mut state, &SyncOptions::default(), |handle| {
            called.wait();
            wait_for_second_attempt(communicator);
            handle.cancel();
        });
        assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        assert!(state.is_usable());
    };
    with_a_leaver(first, |communicator| {
        let mut weights = [1.0_f32; 8];
        let mut state = SharedState::new(0);
        state.add("weights", &[8], &mut weights).unwrap();
        let end = communicator.sync_shared_state(&mut state, SyncStrategy::default());
        assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        assert!(state.is_usable());
    });
}
