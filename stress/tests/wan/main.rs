//! Emulated networks of this machine's kernel.
//!
//! They need root and `/dev/net/tun`; without, each test says that it was skipped. One network runs
//! at a time, so that their times can be checked.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod accuracy;
mod bottlenecks;
mod command;
mod cuts;
mod integrity;
mod peers;
mod traffic;

use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ccl_stress::wan::{Config, Error, Network};

/// The right to run a network; `None`, with the reason printed, where the system forbids it.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    // A test that failed has left nothing behind.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = REFUSED.get_or_init(refusal) {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(turn)
}

/// Why the system does not let this process emulate a network.
fn refusal() -> Option<String> {
    match Network::start(&Config::default()) {
        Err(Error::System { what, source }) => {
            let forbids = [ErrorKind::PermissionDenied, ErrorKind::NotFound];
            assert!(forbids.contains(&source.kind()), "{what}: {source}");
            Some(format!("{what}: {source}"))
        }
        started => started
            .map(drop)
            .map_or_else(|error| panic!("{error}"), |()| None),
    }
}

fn start(hosts: usize, commands: &[&str]) -> Network {
    let config = Config {
        hosts,
        commands: commands.iter().map(|line| (*line).to_owned()).collect(),
        ..Config::default()
    };
    Network::start(&config).unwrap()
}

/// Looks again and again until it is so.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < HANG, "still waiting: {what}");
        std::thread::yield_now();
    }
}

/// Nothing here takes so long, however busy the machine is.
const HANG: Duration = Duration::from_secs(60);
