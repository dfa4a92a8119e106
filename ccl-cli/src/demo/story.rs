//! What happened, put together from the notes of all processes.
//!
//! It also checks what must always hold: all members have the same weights after each step,
//! newcomers from their first step on, and a sync sends nothing to peers that do not need it.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{FaultSignal, Note};
use super::plan::Plan;
use crate::bench::{median, round};

/// What is known of one process.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its name in the run; each time it comes back, another.
    pub peer: Option<u64>,
    /// How often it was admitted as a newcomer.
    pub joins: usize,
    /// Whether it has trained since it was admitted.
    pub is_settled: bool,
    /// The steps that it saw committed, in order.
    pub commits: Vec<Commit>,
    /// Bytes it has sent and received.
    pub moved_bytes: u64,
    /// How often it was told that it was evicted.
    pub evictions: usize,
    /// Whether it left before the end.
    pub has_left: bool,
    /// Its last words, if it trained to the end.
    pub end: Option<End>,
}

/// A step that was committed.
#[derive(Clone, Debug)]
pub struct Commit {
    /// When this process had it.
    pub at_ns: u64,
    /// Names in the run of those whose gradients are in it.
    pub contributors: Vec<u64>,
}

/// What a process that trained to the end knows.
#[derive(Clone, Debug)]
pub struct End {
    /// Digest of its weights.
    pub digest: String,
    /// Share of the test images that it recognises.
    pub accuracy: f64,
    /// Members at the end.
    pub world_size: usize,
    /// Operations that it saw committed.
    pub commits: u64,
    /// Operations that it saw aborted.
    pub aborts: u64,
}

/// A signal that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    /// The kind of fault.
    pub signal: FaultSignal,
    /// The process's name in the run.
    pub peer: Option<u64>,
    /// Bytes of the operation that had been moved.
    pub done_bytes: u64,
    /// Bytes of the operation.
    pub total_bytes: u64,
    /// Time of the fault.
    pub at_ns: u64,
}

/// All processes, from the first line to the last.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// By place in the demonstration.
    pub lives: Vec<Life>,
    /// Faults that happened.
    pub injected: Vec<Injected>,
    /// Deaths of the master.
    pub master_restarts: usize,
    /// Steps that committed while the master was dead.
    pub steps_without_master: usize,
    /// Digests of the weights after each step.
    digests: BTreeMap<usize, String>,
    /// Digests of the state after each sync, by revision.
    roots: BTreeMap<u64, String>,
    /// Steps that were aborted, with who was lost.
    lost: BTreeSet<(usize, u64)>,
    /// Bytes that syncs moved.
    pub sync_bytes: u64,
    /// Those of them that went to somebody who had the elected content.
    pub needless_sync_bytes: u64,
    /// What is not as it must be; the first [`PROBLEMS_MAX`] of it.
    pub problems: Vec<String>,
}

impl Story {
    /// There is one more process.
    pub fn add_life(&mut self) {
        self.lives.push(Life::default());
    }

    /// Takes in what the process at `place` said.
    pub fn record(&mut self, place: usize, note: &Note) {
        let life = &mut self.lives[place];
        match note {
            Note::Joined {
                peer, is_newcomer, ..
            } => {
                life.peer = Some(*peer);
                life.joins += usize::from(*is_newcomer);
                life.is_settled = false;
            }
            Note::Synced { .. } => self.record_sync(place, note),
            Note::Step { .. } => self.record_step(place, note),
            Note::Fault {
                signal,
                done_bytes,
                total_bytes,
                at_ns,
                ..
            } => self.injected.push(Injected {
                signal: *signal,
                peer: life.peer,
                done_bytes: *done_bytes,
                total_bytes: *total_bytes,
                at_ns: *at_ns,
            }),
            Note::Lost { step, peer, .. } => {
                self.lost.insert((*step, *peer));
            }
            Note::Evicted { .. } => {
                life.evictions += 1;
                life.is_settled = false;
            }
            Note::Left => life.has_left = true,
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
            Note::Failed { error } => {
                let words = format!("peer {place} could not go on: {error}");
                self.object(words);
            }
        }
    }

    fn record_step(&mut self, place: usize, note: &Note) {
        let Note::Step {
            step,
            digest,
            contributors,
            moved_bytes,
            at_ns,
            ..
        } = note
        else {
            return;
        };
        let life = &mut self.lives[place];
        life.is_settled = true;
        life.commits.push(Commit {
            at_ns: *at_ns,
            contributors: contributors.clone(),
        });
        life.moved_bytes = *moved_bytes;
        let first = self.digests.entry(*step).or_insert_with(|| digest.clone());
        if first != digest {
            let words = format!("peer {place} has other weights after step {step}");
            self.object(words);
        }
    }

    fn record_sync(&mut self, place: usize, note: &Note) {
        let Note::Synced {
            revision,
            root,
            had_it,
            received_bytes,
            ..
        } = note
        else {
            return;
        };
        self.sync_bytes += received_bytes;
        if *had_it && *received_bytes > 0 {
            self.needless_sync_bytes += received_bytes;
            let words = format!("peer {place} got {received_bytes} bytes that it did not need");
            self.object(words);
        }
        let first = self.roots.entry(*revision).or_insert_with(|| root.clone());
        if first != root {
            let words = format!("peer {place} has another state after sync {revision}");
            self.object(words);
        }
    }

    /// Something is not as it must be. What goes wrong once may do so in every step; the beginning
    /// tells enough.
    pub fn object(&mut self, words: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(words);
        }
    }

    /// Place of the process that has this name in the run.
    pub fn place_of(&self, peer: u64) -> Option<usize> {
        self.lives.iter().position(|life| life.peer == Some(peer))
    }

    /// Time from a signal until the last of those whom the plan spares has committed a step without
    /// the process that got it, less the median step. A commit with it proves nothing: it may have
    /// sent all of its gradients before the signal.
    pub fn pause_ms(&self, signal: FaultSignal, plan: &Plan) -> Option<f64> {
        let Injected { at_ns, peer, .. } = *self.injected(signal)?;
        let is_without = |commit: &&Commit| {
            commit.at_ns > at_ns && peer.is_none_or(|peer| !commit.contributors.contains(&peer))
        };
        let spared = self.lives.iter().zip(&plan.faults);
        let next = spared
            .filter(|(_, fault)| fault.is_none())
            .map(|(life, _)| life.commits.iter().find(is_without).map(|it| it.at_ns))
            .collect::<Option<Vec<u64>>>()?;
        let last = next.into_iter().max()?;
        Some(round((last - at_ns) as f64 / 1e6 - self.median_step_ms()).max(0.0))
    }

    /// Median time from one commit to the next on any process.
    pub fn median_step_ms(&self) -> f64 {
        let steps = self
            .lives
            .iter()
            .flat_map(|life| life.commits.windows(2))
            .map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns));
        let median = median(steps.map(|step_ns| step_ns as f64 / 1e6));
        round(median.unwrap_or(0.0))
    }

    /// Longest time in which nobody committed a step.
    pub fn longest_pause_ms(&self) -> f64 {
        let lives = self.lives.iter();
        let mut commits: Vec<u64> = lives
            .flat_map(|life| life.commits.iter().map(|commit| commit.at_ns))
            .collect();
        commits.sort_unstable();
        let pauses = commits.windows(2).map(|pair| pair[1] - pair[0]);
        round(pauses.max().unwrap_or(0) as f64 / 1e6)
    }

    /// The first fault of this kind.
    pub fn injected(&self, signal: FaultSignal) -> Option<&Injected> {
        let mut injected = self.injected.iter();
        injected.find(|injected| injected.signal == signal)
    }

    /// Faults of this kind.
    pub fn count(&self, signal: FaultSignal) -> usize {
        let injected = self.injected.iter();
        injected.filter(|it| it.signal == signal).count()
    }

    /// Those who trained to the end.
    pub fn ends(&self) -> Vec<&End> {
        let lives = self.lives.iter();
        lives.filter_map(|life| life.end.as_ref()).collect()
    }

    /// Newcomers that were admitted.
    pub fn joins(&self) -> usize {
        self.lives.iter().map(|life| life.joins).sum()
    }

    /// Syncs that committed.
    pub fn syncs(&self) -> usize {
        self.roots.len()
    }

    /// Steps that committed.
    pub fn steps(&self) -> usize {
        self.digests.len()
    }

    /// The newest step that committed.
    pub fn newest_step(&self) -> Option<usize> {
        self.digests.keys().next_back().copied()
    }

    /// Steps that a process has committed since then.
    pub fn steps_since(&self, at_ns: u64) -> usize {
        let lives = self.lives.iter().map(|life| life.commits.iter());
        let later = lives.map(|commits| commits.filter(|commit| commit.at_ns > at_ns).count());
        later.max().unwrap_or(0)
    }

    /// Steps that were aborted.
    pub fn aborts(&self) -> usize {
        self.lost.len()
    }
}

/// Most problems that are told.
const PROBLEMS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Story {
        let mut story = Story::default();
        (0..2).for_each(|_| story.add_life());
        story
    }

    fn step(step: usize, digest: &str) -> Note {
        Note::Step {
            step,
            digest: digest.into(),
            contributors: vec![0, 1],
            loss: 1.0,
            images: 1,
            moved_bytes: 0,
            at_ns: step as u64 * 1_000_000,
        }
    }

    fn synced(revision: u64, root: &str, had_it: bool) -> Note {
        Note::Synced {
            step: 5,
            revision,
            root: root.into(),
            had_it,
            received_bytes: 10,
            sources: 1,
        }
    }

    #[test]
    fn other_weights_after_any_step_are_a_problem() {
        let mut story = story();
        for note in [step(1, "a"), step(2, "b")] {
            story.record(0, &note);
        }
        story.record(1, &step(2, "b"));
        assert_eq!(story.problems, [] as [String; 0]);
        story.record(1, &step(1, "b"));
        assert_eq!(story.problems.len(), 1);
        assert_eq!((story.steps(), story.longest_pause_ms()), (2, 1.0));
        assert_eq!(story.newest_step(), Some(2));
        let since = [0, 1_000_000, 2_000_000].map(|at_ns| story.steps_since(at_ns));
        assert_eq!(since, [2, 1, 0]);
    }

    #[test]
    fn bytes_for_somebody_who_had_the_state_are_needless() {
        let mut story = story();
        story.record(0, &synced(1, "a", false));
        assert_eq!((story.sync_bytes, story.needless_sync_bytes), (10, 0));
        story.record(1, &synced(1, "a", true));
        assert_eq!((story.sync_bytes, story.needless_sync_bytes), (20, 10));
        assert_eq!((story.syncs(), story.problems.len()), (1, 1));
    }

    #[test]
    fn another_state_after_a_sync_is_a_problem() {
        let mut story = story();
        story.record(0, &synced(1, "a", false));
        story.record(0, &synced(2, "b", false));
        story.record(1, &synced(2, "c", false));
        assert_eq!(story.problems.len(), 1);
    }

    #[test]
    fn who_comes_back_is_not_settled_before_it_has_trained() {
        let mut story = story();
        let joined = |is_newcomer| Note::Joined {
            peer: 3,
            is_newcomer,
            rank: 0,
            world_size: 2,
        };
        story.record(0, &joined(false));
        story.record(0, &step(1, "a"));
        assert!(story.lives[0].is_settled && story.joins() == 0);
        let reason = "silent".into();
        story.record(0, &Note::Evicted { reason });
        story.record(0, &joined(true));
        assert!(!story.lives[0].is_settled && story.joins() == 1);
    }

    #[test]
    fn one_loss_is_one_abort_however_many_tell_of_it() {
        let mut story = story();
        for place in 0..2 {
            let reason = "gone".into();
            story.record(
                place,
                &Note::Lost {
                    step: 4,
                    peer: 9,
                    has_left: false,
                    reason,
                },
            );
        }
        assert_eq!(story.aborts(), 1);
    }
}
