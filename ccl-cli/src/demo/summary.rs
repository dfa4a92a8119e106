//! How a planned demonstration went, and whether it passed its checks.

use serde::Serialize;

use super::notes::FaultSignal;
use super::plan::Plan;
use super::story::{End, Story};
use crate::bench::round;

/// Least share of the test images that the trained network must recognise.
pub const ACCURACY_MIN: f64 = 0.95;

/// The last line of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    event: &'static str,
    accuracy: f64,
    world_size: usize,
    digests: Vec<String>,
    kills: usize,
    stops: usize,
    /// Newcomers that were admitted.
    joins: usize,
    leaves: usize,
    syncs: usize,
    sync_bytes: u64,
    needless_sync_bytes: u64,
    kill_bytes_done: Option<u64>,
    kill_bytes_total: Option<u64>,
    pause_after_kill_ms: Option<f64>,
    pause_after_stop_ms: Option<f64>,
    peer_timeout_ms: u64,
    commits: u64,
    aborts: u64,
    evicted_woke: bool,
    master_restarts: usize,
    steps_without_master: usize,
    median_step_ms: f64,
    seconds: f64,
    /// What is not as it must be.
    problems: Vec<String>,
}

impl Story {
    /// The end of the story.
    pub fn summary(&self, plan: &Plan, peer_timeout_ms: u64, seconds: f64) -> Summary {
        let ends = self.ends();
        let kill = self.injected(FaultSignal::Kill);
        Summary {
            event: "summary",
            accuracy: ends
                .iter()
                .map(|end| end.accuracy)
                .reduce(f64::min)
                .map_or(0.0, round),
            world_size: ends.iter().map(|end| end.world_size).min().unwrap_or(0),
            digests: ends.iter().map(|end| end.digest.clone()).collect(),
            kills: self.count(FaultSignal::Kill),
            stops: self.count(FaultSignal::Stop),
            joins: self.joins(),
            leaves: self.lives.iter().filter(|life| life.has_left).count(),
            syncs: self.syncs(),
            sync_bytes: self.sync_bytes,
            needless_sync_bytes: self.needless_sync_bytes,
            kill_bytes_done: kill.map(|kill| kill.done_bytes),
            kill_bytes_total: kill.map(|kill| kill.total_bytes),
            pause_after_kill_ms: self.pause_ms(FaultSignal::Kill, plan),
            pause_after_stop_ms: self.pause_ms(FaultSignal::Stop, plan),
            peer_timeout_ms,
            commits: ends.iter().map(|end| end.commits).max().unwrap_or(0),
            aborts: ends.iter().map(|end| end.aborts).max().unwrap_or(0),
            evicted_woke: self.lives.iter().any(|life| life.evictions > 0),
            master_restarts: self.master_restarts,
            steps_without_master: self.steps_without_master,
            median_step_ms: self.median_step_ms(),
            seconds: round(seconds),
            problems: self.problems(plan, &ends),
        }
    }

    fn problems(&self, plan: &Plan, ends: &[&End]) -> Vec<String> {
        let planned = |signal| {
            plan.faults
                .iter()
                .flatten()
                .filter(|f| f.signal == signal)
                .count()
        };
        let survivors = plan.faults.iter().filter(|fault| fault.is_none()).count();
        let kill = self.injected(FaultSignal::Kill);
        let kill_is_inside =
            kill.is_none_or(|kill| 0 < kill.done_bytes && kill.done_bytes < kill.total_bytes);
        let checks = [
            (
                ends.len() == survivors,
                format!("{} of {survivors} survivors finished", ends.len()),
            ),
            (
                ends.windows(2).all(|pair| pair[0].digest == pair[1].digest),
                "digests differ".into(),
            ),
            (
                ends.iter().all(|end| end.accuracy >= ACCURACY_MIN),
                format!("the accuracy is below {ACCURACY_MIN}"),
            ),
            (
                ends.iter().all(|end| end.world_size == survivors),
                format!("the world at the end is not of {survivors}"),
            ),
            (
                self.count(FaultSignal::Kill) == planned(FaultSignal::Kill)
                    && self.count(FaultSignal::Stop) == planned(FaultSignal::Stop),
                "not every planned fault happened".into(),
            ),
            (
                kill_is_inside,
                "the kill was not in the middle of an operation".into(),
            ),
            (
                planned(FaultSignal::Stop) == 0 || self.lives.iter().any(|life| life.evictions > 0),
                "the stopped peer did not learn that it was evicted".into(),
            ),
            (
                self.joins() >= plan.visits.len() + planned(FaultSignal::Stop),
                "not every planned newcomer was admitted".into(),
            ),
            (
                self.master_restarts == plan.master_kills.len(),
                "the master was not restarted as often as planned".into(),
            ),
        ];
        let failed = checks
            .into_iter()
            .filter(|(is_fine, _)| !is_fine)
            .map(|(_, words)| words);
        self.problems.iter().cloned().chain(failed).collect()
    }
}

impl Summary {
    /// What is not as it must be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} survivors, equal weights: {}; accuracy {:.1} %; {} operations committed, {} aborted; \
             {} newcomers, who got {:.1} MiB of state; {:.1} s",
            self.digests.len(),
            if self.digests.windows(2).all(|pair| pair[0] == pair[1]) {
                "yes"
            } else {
                "NO"
            },
            100.0 * self.accuracy,
            self.commits,
            self.aborts,
            self.joins,
            self.sync_bytes as f64 / f64::from(1 << 20),
            self.seconds,
        );
        if let Some(pause) = self.pause_after_kill_ms {
            text += &format!("\nthe kill paused training for {pause:.0} ms");
        }
        if let Some(pause) = self.pause_after_stop_ms {
            text += &format!(
                "\nthe silent peer paused it for {pause:.0} ms (a peer counts as dead after {} ms)",
                self.peer_timeout_ms
            );
        }
        if self.master_restarts > 0 {
            text += &format!(
                "\nthe master was killed and restarted {} times; {} steps completed meanwhile",
                self.master_restarts, self.steps_without_master
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::notes::{Fault, Note};
    use super::*;

    fn plan() -> Plan {
        let fault = |signal| {
            Some(Fault {
                signal,
                step: 1,
                share: 0.5,
            })
        };
        Plan {
            faults: vec![
                None,
                None,
                fault(FaultSignal::Kill),
                fault(FaultSignal::Stop),
            ],
            visits: Vec::new(),
            return_leaves: 0,
            master_kills: Vec::new(),
        }
    }

    fn step(step: usize, at_ms: u64, contributors: &[u64]) -> Note {
        let at_ns = at_ms * 1_000_000;
        Note::Step {
            step,
            digest: "d".into(),
            contributors: contributors.to_vec(),
            loss: 1.0,
            images: 1,
            moved_bytes: 0,
            at_ns,
        }
    }

    fn fault(signal: FaultSignal, at_ms: u64) -> Note {
        Note::Fault {
            signal,
            step: 2,
            done_bytes: 10,
            total_bytes: 100,
            at_ns: at_ms * 1_000_000,
        }
    }

    fn finished(digest: &str) -> Note {
        Note::Finished {
            digest: digest.into(),
            accuracy: 0.97,
            world_size: 2,
            commits: 5,
            aborts: 2,
        }
    }

    /// Steps of 10 ms, a kill at 25 ms, a stop at 145 ms; the second survivor is later. All had the
    /// killed peer's gradients of the step at 30 ms, and the stopped one's of that at 150 ms.
    fn story(digests: [&str; 2]) -> Story {
        let mut story = Story::default();
        (0..4).for_each(|_| story.add_life());
        let commits = [
            [10, 20, 30, 120, 130, 140, 150, 1150],
            [11, 21, 31, 125, 131, 141, 151, 1152],
        ];
        for peer in [7, 8, 9, 10] {
            let joined = Note::Joined {
                peer,
                is_newcomer: false,
                rank: 0,
                world_size: 4,
            };
            story.record(peer as usize - 7, &joined);
        }
        for (place, commits) in commits.into_iter().enumerate() {
            for (index, at_ms) in commits.into_iter().enumerate() {
                let contributors: &[u64] = match index {
                    0..=2 => &[7, 8, 9, 10],
                    3..=6 => &[7, 8, 10],
                    _ => &[7, 8],
                };
                story.record(place, &step(index, at_ms, contributors));
            }
        }
        story.record(2, &fault(FaultSignal::Kill, 25));
        story.record(3, &fault(FaultSignal::Stop, 145));
        story.record(
            3,
            &Note::Evicted {
                reason: "silent".into(),
            },
        );
        let back = Note::Joined {
            peer: 20,
            is_newcomer: true,
            rank: 2,
            world_size: 3,
        };
        story.record(3, &back);
        for (place, digest) in digests.into_iter().enumerate() {
            story.record(place, &finished(digest));
        }
        story
    }

    #[test]
    fn a_pause_ends_with_the_last_survivors_next_commit() {
        let story = story(["a", "a"]);
        assert_eq!(story.median_step_ms(), 10.0);
        assert_eq!(
            story.pause_ms(FaultSignal::Kill, &plan()),
            Some(125.0 - 25.0 - 10.0)
        );
        assert_eq!(
            story.pause_ms(FaultSignal::Stop, &plan()),
            Some(1152.0 - 145.0 - 10.0)
        );
    }

    #[test]
    fn a_good_end_has_no_problems_and_all_promised_fields() {
        let summary = story(["a", "a"]).summary(&plan(), 1000, 3.0);
        assert_eq!(summary.problems(), [] as [String; 0]);
        let json = serde_json::to_value(&summary).unwrap();
        for field in
            "accuracy world_size digests kills stops joins kill_bytes_done kill_bytes_total \
                      pause_after_kill_ms pause_after_stop_ms peer_timeout_ms commits aborts \
                      evicted_woke seconds leaves syncs sync_bytes needless_sync_bytes"
                .split_whitespace()
        {
            assert!(!json[field].is_null(), "{field}");
        }
    }

    #[test]
    fn different_weights_are_a_problem() {
        let summary = story(["a", "b"]).summary(&plan(), 1000, 3.0);
        assert_eq!(summary.problems(), ["digests differ"]);
    }

    #[test]
    fn a_missing_survivor_and_a_missing_fault_are_problems() {
        let mut story = story(["a", "a"]);
        story.lives[1].end = None;
        story.injected.pop();
        assert_eq!(story.summary(&plan(), 1000, 3.0).problems().len(), 2);
    }
}
