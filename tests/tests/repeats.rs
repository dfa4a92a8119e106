//! Which calls the library retries by itself, over real sockets: those that lost a member, and none
//! that a caller ended.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ccl_core::{Communicator, CommunicatorConfig, Error, Options, Outcome, ReduceOp, Result};
use common::{HANG, master};

/// Runs `body` on the members of a run that starts with `world` members and continues with one.
fn run(world: u32, body: impl Fn(&Communicator, &Barrier) + Send + Sync + 'static) {
    let master = master();
    let body = Arc::new(body);
    let step = Arc::new(Barrier::new(world as usize));
    let config = CommunicatorConfig {
        master: master.address().to_string(),
        initial_world_size: Some(world),
        connect_timeout: HANG,
        operation_timeout: Some(HANG),
        ..CommunicatorConfig::default()
    };
    let threads: Vec<_> = (0..world)
        .map(|_| {
            let (config, body, step) = (config.clone(), Arc::clone(&body), Arc::clone(&step));
            std::thread::spawn(move || {
                let communicator = Communicator::connect(config).unwrap();
                body(&communicator, &step);
                step.wait();
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    master.shutdown();
}

fn attempts(attempts: u32) -> Options {
    Options {
        attempts,
        ..Options::default()
    }
}

fn sum(communicator: &Communicator, buffer: &mut [u32], options: &Options) -> Result<Outcome> {
    communicator.all_reduce(buffer, ReduceOp::Sum, options)
}

/// Checks that there was one abort and no retry, although attempts were left.
fn ended_once(communicator: &Communicator, end: Result<Outcome>, buffer: &[u32]) {
    assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
    assert_eq!(communicator.counters().aborts, 1, "it was repeated");
    assert_eq!(buffer, [7, 7], "its input is as it was");
}

/// Goal: a member that leaves costs an attempt, not the call.
///
/// 1. Two of three call; the third leaves, before or after both have posted.
/// 2. Both succeed without it, in the second attempt.
#[test]
fn a_call_that_lost_a_member_is_repeated_with_the_others() {
    run(3, |communicator, step| {
        if communicator.rank().0 == 2 {
            step.wait();
            return communicator.close();
        }
        let handle = communicator.all_reduce_async(vec![7_u32, 7], ReduceOp::Sum, &attempts(2));
        step.wait();
        let (buffer, end) = handle.wait();
        assert_eq!(end.unwrap().attempts, 2);
        assert_eq!(
            (&buffer[..], communicator.counters().aborts),
            (&[14, 14][..], 1)
        );
    });
}

/// As above with one attempt: the loss is reported, and the call is not retried.
#[test]
fn a_loss_is_told_when_no_attempt_is_left() {
    run(3, |communicator, step| {
        if communicator.rank().0 == 2 {
            step.wait();
            return communicator.close();
        }
        let handle = communicator.all_reduce_async(vec![7_u32, 7], ReduceOp::Sum, &attempts(1));
        step.wait();
        let (buffer, end) = handle.wait();
        assert!(matches!(end, Err(Error::PeerLost { .. })), "{end:?}");
        assert_eq!(
            (&buffer[..], communicator.counters().aborts),
            (&[7, 7][..], 1)
        );
    });
}

/// Goal: a cancel is final for all members, including one that calls later.
///
/// 1. One of two members calls, with many attempts, and cancels.
/// 2. The other calls after that has ended, and gets the same error.
/// 3. The next call of both succeeds.
#[test]
fn a_cancel_is_repeated_by_nobody() {
    run(2, |communicator, step| {
        if communicator.rank().0 == 0 {
            let handle = communicator.all_reduce_async(vec![7_u32, 7], ReduceOp::Sum, &attempts(2));
            handle.cancel();
            let (buffer, end) = handle.wait();
            ended_once(communicator, end, &buffer);
            step.wait();
        } else {
            step.wait();
            let mut buffer = [7, 7];
            let end = sum(communicator, &mut buffer, &attempts(2));
            ended_once(communicator, end, &buffer);
        }
        sum(communicator, &mut [1], &attempts(1)).unwrap();
    });
}

/// As above for a deadline that passes while the other member has not called.
#[test]
fn a_deadline_is_repeated_by_nobody() {
    run(2, |communicator, step| {
        let mut buffer = [7, 7];
        let soon = Options {
            deadline: Some(Duration::from_millis(50)),
            ..attempts(2)
        };
        if communicator.rank().0 == 0 {
            let end = sum(communicator, &mut buffer, &soon);
            ended_once(communicator, end, &buffer);
            step.wait();
        } else {
            step.wait();
            let end = sum(communicator, &mut buffer, &attempts(2));
            ended_once(communicator, end, &buffer);
        }
        sum(communicator, &mut [1], &attempts(1)).unwrap();
    });
}

/// As above for calls that differ: calling again cannot make them fit.
#[test]
fn calls_that_differ_are_repeated_by_nobody() {
    run(2, |communicator, _| {
        let mut buffer = [7, 7];
        let op = [ReduceOp::Sum, ReduceOp::Max][communicator.rank().0 as usize];
        let end = communicator.all_reduce(&mut buffer, op, &attempts(2));
        ended_once(communicator, end, &buffer);
        sum(communicator, &mut [1], &attempts(1)).unwrap();
    });
}
