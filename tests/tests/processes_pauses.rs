//! Whole processes that are stopped and resumed (docs/protocol.md R20).
//!
//! Goal: no peer is evicted for a pause of the master or of all peers, however long.
//!
//! 1. There are a master and three peers, each a process. One operation is called by some members;
//!    another is called by all and is moving its bytes.
//! 2. Some of the processes are stopped for twice `peer_timeout`.
//! 3. No peer is evicted: soon after the processes are resumed, both operations end with the
//!    contributions of all three. So do all later calls, for as long as an eviction could still
//!    follow.

use std::time::{Duration, Instant};

use ccl_tests::process::Process;
use ccl_tests::processes::{master, peer};

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");
const MASTER: &str = env!("CARGO_BIN_EXE_master");
const PEER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time from the resumption to the end of the delayed operations.
const AWAKE_MAX: Duration = Duration::from_secs(1);
const PEERS: usize = 3;

/// The processes that are stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Master,
    Peers,
    Everything,
}

fn say_all(peers: &mut [Process], command: &str) {
    for peer in peers.iter_mut() {
        peer.say(command);
    }
    for peer in peers {
        assert_eq!(peer.line(), "started");
    }
}

fn all_took_part(peers: &mut [Process]) {
    for peer in peers.iter_mut() {
        peer.say("wait");
    }
    for peer in peers {
        assert_eq!(peer.line(), format!("ok true {PEERS}"));
    }
}

fn nobody_is_charged(stopped: Stopped, pause: Duration) {
    let (master, address) = master(MASTER, PEER_TIMEOUT);
    let mut peers: Vec<Process> = (0..PEERS)
        .map(|_| peer(ACTOR, address, PEERS as u32, 2))
        .collect();
    for peer in &peers {
        let answer = peer.line();
        assert!(answer.starts_with("connected"), "{answer}");
    }
    for half_called in [false, true] {
        let (first, others) = peers.split_at_mut(if half_called { 1 } else { PEERS });
        say_all(first, "reduce 0 200003 in 5");
        let mut still: Vec<&Process> = Vec::new();
        if stopped != Stopped::Peers {
            still.push(&master);
        }
        if stopped != Stopped::Master {
            still.extend(first.iter().chain(&*others));
        }
        Process::pause(&still, pause);
        let woke = Instant::now();
        say_all(others, "reduce 0 200003 in 5");
        all_took_part(&mut peers);
        let took = woke.elapsed();
        println!("committed {took:?} after the pause");
        assert!(took < AWAKE_MAX, "{took:?}");
        while woke.elapsed() < PEER_TIMEOUT * 2 {
            say_all(&mut peers, "reduce 1 1000 out 6");
            all_took_part(&mut peers);
        }
    }
}

#[test]
fn a_stopped_master_evicts_nobody_when_it_goes_on() {
    nobody_is_charged(Stopped::Master, PEER_TIMEOUT * 2);
}

#[test]
fn peers_that_all_stop_together_are_all_there_when_they_go_on() {
    nobody_is_charged(Stopped::Peers, PEER_TIMEOUT * 2);
}

#[test]
fn everything_that_stops_together_goes_on_together() {
    nobody_is_charged(Stopped::Everything, PEER_TIMEOUT * 2);
}

/// Longer than TCP waits for a reader that does not read, and than every other wait in these tests.
#[test]
fn everything_may_stop_for_long() {
    nobody_is_charged(Stopped::Everything, PEER_TIMEOUT * 8);
}
