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
mod traffic;

use std::fs::OpenOptions;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ccl_stress::wan::{Config, Network, is_root};

/// The right to run a network; `None`, with the reason printed, where that is impossible.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = tun {
        eprintln!("skipped: /dev/net/tun: {error}");
        return None;
    }
    if !is_root() {
        eprintln!("skipped: network namespaces need root");
        return None;
    }
    // A test that failed has left nothing behind.
    Some(
        TURN.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    )
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
