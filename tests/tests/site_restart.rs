//! A whole site loses power: members and master die at once, and return as newcomers.
//!
//! Goal: newcomers are admitted once no earlier session can be alive, counted from the time when
//! one could last hear from a master, not from the newest master's start; or at once with an
//! operator's permission.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::time::{Duration, Instant};

use ccl_tests::process::Process;
use ccl_tests::processes::Site;

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");
const KEEPER: &str = env!("CARGO_BIN_EXE_keeper");
/// How long a session goes on without a master: `peer_timeout`, then `detach_timeout`.
const DETACH_MS: u64 = 14_000;

fn site(name: &str) -> Site {
    Site::new(KEEPER, name, Duration::from_millis(DETACH_MS))
}

/// Two peers of a group of two.
fn start_two(site: &Site) -> [Process; 2] {
    [0, 1].map(|_| site.peer(ACTOR, 2))
}

fn are_connected(peers: &[Process]) {
    for peer in peers {
        let answer = peer.line();
        assert!(answer.starts_with("connected"), "{answer}");
    }
}

/// Kills all of them; returns when.
fn black_out(master: &mut Process, peers: &mut [Process]) -> Instant {
    peers.iter_mut().for_each(Process::kill);
    master.kill();
    Instant::now()
}

/// 1. Two members and their master are killed.
/// 2. A master starts at once, and two newcomers, which wait.
/// 3. Later that master is killed too, and another starts.
/// 4. The newcomers are admitted when the earlier sessions are over, sooner than that time after
///    the last start.
#[test]
fn the_wait_for_members_does_not_begin_anew_with_each_master() {
    let mut site = site("anew");
    let mut master = site.master(&[]);
    let mut peers = start_two(&site);
    are_connected(&peers);
    let dark = black_out(&mut master, &mut peers);
    let mut master = site.master(&[]);
    let newcomers = start_two(&site);
    let waited = Duration::from_millis(DETACH_MS / 2);
    assert_eq!(
        newcomers[0].line_within(waited),
        None,
        "members may be alive"
    );
    master.kill();
    let second = Instant::now();
    let _master = site.master(&[]);
    are_connected(&newcomers);
    let (since_dark, since_start) = (dark.elapsed(), second.elapsed());
    let detach = Duration::from_millis(DETACH_MS);
    assert!(
        since_dark >= detach,
        "{since_dark:?}: a session may be alive"
    );
    assert!(since_start < detach, "{since_start:?}: it began anew");
}

#[test]
fn an_operator_who_knows_that_all_are_dead_cuts_the_wait_short() {
    let mut site = site("gone");
    let mut master = site.master(&[]);
    let mut peers = start_two(&site);
    are_connected(&peers);
    let dark = black_out(&mut master, &mut peers);
    let _master = site.master(&["gone"]);
    are_connected(&start_two(&site));
    assert!(
        dark.elapsed() < Duration::from_millis(DETACH_MS),
        "{:?}",
        dark.elapsed()
    );
}
