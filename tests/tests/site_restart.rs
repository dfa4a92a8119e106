//! A whole site loses power: members and master die at once, and return as newcomers.
//!
//! Goal: newcomers are admitted once no earlier session can be alive, counted from the time when
//! one could last hear from a master, not from the newest master's start; or at once with an
//! operator's permission.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ccl_tests::process::Process;

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");
const KEEPER: &str = env!("CARGO_BIN_EXE_keeper");
/// How long a session goes on without a master: `peer_timeout`, then `detach_timeout`.
const DETACH_MS: u64 = 14_000;

/// A journal, and the master that writes it.
struct Site {
    folder: PathBuf,
    address: String,
}

impl Site {
    fn new(name: &str) -> Self {
        let name = format!("ccl-site-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            address: "127.0.0.1:0".into(),
        }
    }

    /// Starts a master on the port of the first one.
    fn master(&mut self, words: &[&str]) -> Process {
        let journal = self.folder.join("run.journal");
        let detach = DETACH_MS.to_string();
        let mut arguments = vec![self.address.as_str(), journal.to_str().unwrap(), &detach];
        arguments.extend(words);
        let master = Process::start(Command::new(KEEPER).args(arguments));
        let line = master.line();
        self.address = line.strip_prefix("listening ").unwrap().into();
        master
    }

    /// Two peers of a group of two.
    fn peers(&self) -> [Process; 2] {
        [0, 1].map(|_| Process::start(Command::new(ACTOR).args([&self.address, "2", "1"])))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
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
    let mut site = Site::new("anew");
    let mut master = site.master(&[]);
    let mut peers = site.peers();
    are_connected(&peers);
    let dark = black_out(&mut master, &mut peers);
    let mut master = site.master(&[]);
    let newcomers = site.peers();
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
    let mut site = Site::new("gone");
    let mut master = site.master(&[]);
    let mut peers = site.peers();
    are_connected(&peers);
    let dark = black_out(&mut master, &mut peers);
    let _master = site.master(&["gone"]);
    are_connected(&site.peers());
    assert!(
        dark.elapsed() < Duration::from_millis(DETACH_MS),
        "{:?}",
        dark.elapsed()
    );
}
