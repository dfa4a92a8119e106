//! Checkpoints of processes that are killed during a save.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ccl_core::checkpoint::Checkpoints;
use ccl_tests::process::Process;
use ccl_tests::saves::Saved;
use ccl_tests::sim::rng::Rng;

const KILLS: usize = 200;
fn saver(directory: &Path, revision: u64) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_saver"));
    Process::start(command.arg(directory).arg(revision.to_string()))
}

/// A directory that is removed when the value is dropped.
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

/// Checks that the loaded state is complete and as saved. Returns its revision.
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

/// Goal: whenever a process is killed during a save, the next one resumes from the last revision
/// that was reported as saved, or from the one after it.
///
/// 1. A process saves revisions in a loop, and the time between reports is measured.
/// 2. After zero or one report, and a random part of that time, it is killed.
/// 3. The state loaded then is complete, and no older than the last report.
/// 4. The next process resumes from there: 200 times. Many of the kills must have hit a save.
#[test]
fn a_process_killed_while_it_saves_loses_nothing_that_it_reported() {
    let scratch = Scratch::new();
    let checkpoints = Checkpoints::new(&scratch.0);
    let mut random = Rng::new(7);
    let mut save_time = Duration::from_millis(5);
    let mut newest = 0;
    let mut interrupted = 0;
    for kill in 0..KILLS {
        let mut saver = saver(&scratch.0, newest + 1);
        assert_eq!(saver.line(), "ready");
        let mut reports = Vec::new();
        for _ in 0..random.below(2) {
            let start = Instant::now();
            reports.push(saver.line());
            save_time = (save_time + start.elapsed()) / 2;
        }
        let wait = random.duration(Duration::ZERO, save_time * 5 / 4);
        reports.extend(saver.lines_within(wait));
        saver.kill();
        reports.extend(saver.end().1);
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
