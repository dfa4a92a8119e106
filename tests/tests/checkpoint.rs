//! Checkpoints of processes that are killed while they save.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ccl_core::checkpoint::Checkpoints;
use ccl_tests::saves::Saved;
use ccl_tests::sim::rng::Rng;

const KILLS: usize = 200;
/// Far beyond what a save takes; only a hang reaches it.
const REPORT_MAX: Duration = Duration::from_secs(60);

/// A process that saves, and what it reports; killed when dropped.
struct Saver {
    process: Child,
    reports: Receiver<String>,
}

impl Saver {
    fn start(directory: &Path, revision: u64) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_saver"))
            .arg(directory)
            .arg(revision.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.for_each(|line| sender.send(line).unwrap_or(()));
        });
        Self { process, reports }
    }

    fn report(&self) -> String {
        self.reports.recv_timeout(REPORT_MAX).unwrap()
    }

    /// The reports that come within this time.
    fn reports_within(&self, limit: Duration) -> Vec<String> {
        let end = Instant::now() + limit;
        let mut found = Vec::new();
        loop {
            match self
                .reports
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(report) => found.push(report),
                Err(RecvTimeoutError::Timeout) => return found,
                Err(RecvTimeoutError::Disconnected) => panic!("the saver failed"),
            }
        }
    }

    /// Kills it with SIGKILL; returns what it had reported and nobody had read.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.reports.iter().collect()
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _already_waited_for = self.process.wait();
    }
}

/// A directory that is removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("ccl-checkpoint-kills-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn holds_half_written(&self) -> bool {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.any(|path| path.extension().is_some_and(|extension| extension == "tmp"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_over = std::fs::remove_dir_all(&self.0);
    }
}

/// What is loaded: whole, and as it was saved. Returns its revision.
fn load(checkpoints: &Checkpoints) -> Option<u64> {
    let mut state = Saved::of(0);
    let keys = state.keys.clone();
    let loaded = checkpoints.load(&keys, &mut state.slices_mut()).unwrap()?;
    assert_eq!(loaded.skipped, Vec::<String>::new(), "all are whole");
    state.content = loaded.content;
    let revision = loaded.content.revision.0;
    assert_eq!(state, Saved::of(revision));
    assert_eq!(checkpoints.newest().unwrap(), Some(loaded.content));
    Some(revision)
}

/// Goal: whenever a process is killed while it saves, the next one goes on from the last revision
/// that was reported as saved, or the one after it.
///
/// 1. A process saves revisions in a loop. The time from one report to the next is measured.
/// 2. After no report or one, and some random part of that time, it is killed.
/// 3. What is loaded then is whole, and no older than the last report.
/// 4. The next process goes on from there: 200 times. Many of the kills must have hit a save.
#[test]
fn a_process_killed_while_it_saves_loses_nothing_that_it_reported() {
    let scratch = Scratch::new();
    let checkpoints = Checkpoints::new(&scratch.0);
    let mut random = Rng::new(7);
    let mut save_time = Duration::from_millis(5);
    let mut newest = 0;
    let mut interrupted = 0;
    for kill in 0..KILLS {
        let saver = Saver::start(&scratch.0, newest + 1);
        assert_eq!(saver.report(), "ready");
        let mut reports = Vec::new();
        for _ in 0..random.below(2) {
            let start = Instant::now();
            reports.push(saver.report());
            save_time = (save_time + start.elapsed()) / 2;
        }
        let wait = random.duration(Duration::ZERO, save_time * 5 / 4);
        reports.extend(saver.reports_within(wait));
        reports.extend(saver.kill());
        let reported = reports
            .last()
            .map_or(newest, |report| report.parse().unwrap());
        let loaded = load(&checkpoints).unwrap_or(0);
        assert!(
            (reported..=reported + 1).contains(&loaded),
            "kill {kill}: reported {reported}, loaded {loaded}"
        );
        newest = loaded;
        interrupted += usize::from(scratch.holds_half_written());
    }
    assert!(
        interrupted >= KILLS / 10,
        "only {interrupted} kills hit a save"
    );
    assert!(newest >= KILLS as u64 / 4, "only {newest} saves");
}
