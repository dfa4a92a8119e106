//! What happened, put together from the notes of all processes, and whether it is as it must be.

use serde::Serialize;

use super::notes::{FaultSignal, Note};
use super::plan::Plan;
use crate::bench::{median, round};

/// Least share of the test images that the trained network must recognise.
pub const ACCURACY_MIN: f64 = 0.95;

/// What is known of one process.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its name in the run.
    pub peer: Option<u64>,
    /// When each step was committed, in order.
    pub commits_ns: Vec<u64>,
    /// Bytes it has sent and received.
    pub moved_bytes: u64,
    /// Whether it was told that it was evicted.
    pub is_evicted: bool,
    /// Its last words, if it trained to the end.
    pub end: Option<End>,
}

/// What a process that trained to the end knows.
#[derive(Clone, Debug)]
pub struct End {
    digest: String,
    accuracy: f64,
    world_size: usize,
    commits: u64,
    aborts: u64,
}

/// A signal that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    /// Which.
    pub signal: FaultSignal,
    /// Bytes of the operation that had been moved.
    pub done_bytes: u64,
    /// Bytes of the operation.
    pub total_bytes: u64,
    /// When.
    pub at_ns: u64,
}

/// All processes, from the first line to the last.
#[derive(Clone, Debug)]
pub struct Story {
    /// By place in the demonstration.
    pub lives: Vec<Life>,
    /// Faults that happened.
    pub injected: Vec<Injected>,
    /// Deaths of the master.
    pub master_restarts: usize,
}

/// The last line of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    event: &'static str,
    accuracy: f64,
    world_size: usize,
    digests: Vec<String>,
    kills: usize,
    stops: usize,
    joins: usize,
    kill_bytes_done: Option<u64>,
    kill_bytes_total: Option<u64>,
    pause_after_kill_ms: Option<f64>,
    pause_after_stop_ms: Option<f64>,
    peer_timeout_ms: u64,
    commits: u64,
    aborts: u64,
    evicted_woke: bool,
    master_restarts: usize,
    median_step_ms: f64,
    seconds: f64,
    /// What is not as it must be.
    problems: Vec<String>,
}

impl Story {
    /// Before the first line.
    pub fn new(peers: usize) -> Self {
        Self {
            lives: vec![Life::default(); peers],
            injected: Vec::new(),
            master_restarts: 0,
        }
    }

    /// Takes in what the process at `place` said.
    pub fn record(&mut self, place: usize, note: &Note) {
        let life = &mut self.lives[place];
        match note {
            Note::Joined { peer, .. } => life.peer = Some(*peer),
            Note::Step {
                moved_bytes, at_ns, ..
            } => {
                life.commits_ns.push(*at_ns);
                life.moved_bytes = *moved_bytes;
            }
            Note::Fault {
                signal,
                done_bytes,
                total_bytes,
                at_ns,
                ..
            } => {
                let (signal, done_bytes) = (*signal, *done_bytes);
                let (total_bytes, at_ns) = (*total_bytes, *at_ns);
                self.injected.push(Injected {
                    signal,
                    done_bytes,
                    total_bytes,
                    at_ns,
                });
            }
            Note::Evicted { .. } => life.is_evicted = true,
            Note::Finished {
                digest,
                accuracy,
                world_size,
                commits,
                aborts,
            } => {
                life.end = Some(End {
                    digest: digest.clone(),
                    accuracy: *accuracy,
                    world_size: *world_size,
                    commits: *commits,
                    aborts: *aborts,
                });
            }
            Note::Lost { .. } | Note::Left | Note::Failed { .. } => {}
        }
    }

    /// Place of the process that has this name in the run.
    pub fn place_of(&self, peer: u64) -> Option<usize> {
        self.lives.iter().position(|life| life.peer == Some(peer))
    }

    /// Time from a signal to the next commit on the last survivor, less the median step.
    pub fn pause_ms(&self, signal: FaultSignal) -> Option<f64> {
        let at_ns = self.injected(signal)?.at_ns;
        let survivors = self.lives.iter().filter(|life| life.end.is_some());
        let next = survivors
            .map(|life| {
                life.commits_ns
                    .iter()
                    .copied()
                    .find(|&commit| commit > at_ns)
            })
            .collect::<Option<Vec<u64>>>()?;
        let last = next.into_iter().max()?;
        Some(round((last - at_ns) as f64 / 1e6 - self.median_step_ms()).max(0.0))
    }

    /// Median time from one commit to the next on any process.
    pub fn median_step_ms(&self) -> f64 {
        let steps = self
            .lives
            .iter()
            .flat_map(|life| life.commits_ns.windows(2));
        let median = median(steps.map(|pair| pair[1].saturating_sub(pair[0]) as f64 / 1e6));
        round(median.unwrap_or(0.0))
    }

    fn injected(&self, signal: FaultSignal) -> Option<&Injected> {
        self.injected
            .iter()
            .find(|injected| injected.signal == signal)
    }

    fn count(&self, signal: FaultSignal) -> usize {
        self.injected
            .iter()
            .filter(|injected| injected.signal == signal)
            .count()
    }

    /// The end of the story.
    pub fn summary(&self, plan: &Plan, peer_timeout_ms: u64, seconds: f64) -> Summary {
        let ends: Vec<&End> = self
            .lives
            .iter()
            .filter_map(|life| life.end.as_ref())
            .collect();
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
            joins: self.lives.iter().filter(|life| life.peer.is_some()).count(),
            kill_bytes_done: kill.map(|kill| kill.done_bytes),
            kill_bytes_total: kill.map(|kill| kill.total_bytes),
            pause_after_kill_ms: self.pause_ms(FaultSignal::Kill),
            pause_after_stop_ms: self.pause_ms(FaultSignal::Stop),
            peer_timeout_ms,
            commits: ends.iter().map(|end| end.commits).max().unwrap_or(0),
            aborts: ends.iter().map(|end| end.aborts).max().unwrap_or(0),
            evicted_woke: self.lives.iter().any(|life| life.is_evicted),
            master_restarts: self.master_restarts,
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
                planned(FaultSignal::Stop) == 0 || self.lives.iter().any(|life| life.is_evicted),
                "the stopped peer did not learn that it was evicted".into(),
            ),
            (
                self.master_restarts == plan.master_kills.len(),
                "the master was not restarted as often as planned".into(),
            ),
        ];
        checks
            .into_iter()
            .filter(|(is_fine, _)| !is_fine)
            .map(|(_, words)| words)
            .collect()
    }
}

impl Summary {
    /// Adds what only the parent could see.
    pub fn add_problems(&mut self, problems: Vec<String>) {
        self.problems.extend(problems);
    }

    /// What is not as it must be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} survivors, equal weights: {}; accuracy {:.1} %; {} steps committed, {} aborted; {:.1} s",
            self.digests.len(),
            if self.digests.windows(2).all(|pair| pair[0] == pair[1]) {
                "yes"
            } else {
                "NO"
            },
            100.0 * self.accuracy,
            self.commits,
            self.aborts,
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
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::notes::Fault;
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
            master_kills: Vec::new(),
        }
    }

    fn step(step: usize, at_ms: u64) -> Note {
        let at_ns = at_ms * 1_000_000;
        Note::Step {
            step,
            world_size: 4,
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

    /// Steps of 10 ms, a kill at 25 ms, a stop at 145 ms; the second survivor is later.
    fn story(digests: [&str; 2]) -> Story {
        let mut story = Story::new(4);
        let commits = [[10, 20, 120, 130, 140, 1150], [11, 21, 125, 131, 141, 1152]];
        for (place, commits) in commits.into_iter().enumerate() {
            story.record(
                place,
                &Note::Joined {
                    peer: place as u64 + 7,
                    rank: 0,
                    world_size: 4,
                },
            );
            for (index, at_ms) in commits.into_iter().enumerate() {
                story.record(place, &step(index, at_ms));
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
        for (place, digest) in digests.into_iter().enumerate() {
            story.record(place, &finished(digest));
        }
        story
    }

    #[test]
    fn a_pause_ends_with_the_last_survivors_next_commit() {
        let story = story(["a", "a"]);
        assert_eq!(story.median_step_ms(), 10.0);
        assert_eq!(story.pause_ms(FaultSignal::Kill), Some(125.0 - 25.0 - 10.0));
        assert_eq!(
            story.pause_ms(FaultSignal::Stop),
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
                      evicted_woke seconds"
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
