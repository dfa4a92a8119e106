//! What a program does to train with others that come, go and fail: its shard of each batch,
//! everybody's average, and the same state as all.
//!
//! The loop in [`Trainer::step`] handles a lost peer: compute for the remaining members, and call
//! again. [`Trainer::synchronise`] handles newcomers: afterwards they have the weights, momentum
//! and step of the others.

use ccl_core::wire::control::EvictReason;
use ccl_core::{
    Communicator, CommunicatorConfig, Error, Handle, Options, ReduceOp, SharedState, SyncStrategy,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::data::{Digits, Image};
use super::notes::{Fault, FaultSignal, Note, Setup};
use super::peer::{RUN, Wishes, tell};
use super::schedule::{BATCH, Schedule};
use super::train::{Gradients, Network};
use crate::failure::{Context, Failure, Result};
use crate::measure::monotonic_ns;

/// Why the training stopped early.
pub enum Stop {
    /// The library says so.
    Library(Error),
    /// Something around it failed.
    Other(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

/// A member that trains.
pub struct Trainer {
    communicator: Communicator,
    digits: Digits,
    schedule: Schedule,
    network: Network,
    /// The step that comes next. Part of the state: a newcomer gets it from the others.
    step: u64,
    /// Revision of the state, advanced between syncs, as every member takes a step there.
    revision: u64,
    strategy: SyncStrategy,
    fault: Option<Fault>,
}

impl Trainer {
    /// Joins the run.
    pub fn new(setup: &Setup) -> Result<Self, Stop> {
        let digits = Digits::load()?;
        let count = |peers: usize| u32::try_from(peers).context("--peers");
        let peers_min = count(setup.peers_min)?;
        let communicator = Communicator::connect(CommunicatorConfig {
            master: setup.master.clone(),
            run: RUN.into(),
            min_world_size: peers_min,
            initial_world_size: Some(count(setup.peers)?.max(peers_min)),
            ..CommunicatorConfig::default()
        })?;
        tell(&Note::Joined {
            peer: communicator.peer().0,
            is_newcomer: setup.is_newcomer,
            rank: communicator.rank().0,
            world_size: communicator.world_size() as usize,
        })?;
        // What a newcomer begins with must not matter, so it is not what the others began with.
        let (seed, strategy) = if setup.is_newcomer {
            (!setup.seed, SyncStrategy::ReceiveOnly)
        } else {
            (setup.seed, SyncStrategy::EnforcePopular)
        };
        Ok(Self {
            communicator,
            schedule: Schedule::new(setup.seed, setup.epochs, digits.train.len()),
            digits,
            network: Network::new(seed),
            step: 0,
            revision: 0,
            strategy,
            fault: setup.fault,
        })
    }

    /// Makes weights, momentum and step those of all members.
    pub fn synchronise(&mut self) -> Result<(), Stop> {
        let mut step = [self.step];
        let mut state = SharedState::new(self.revision);
        state.add("step", &[1], &mut step)?;
        for (name, values) in self.network.entries() {
            state.add(&name, &[values.len() as u64], values)?;
        }
        let before = state.root()?;
        let info = self
            .communicator
            .sync_shared_state(&mut state, self.strategy)?;
        drop(state);
        [self.step] = step;
        self.revision = info.revision + 1;
        self.strategy = SyncStrategy::EnforcePopular;
        Ok(tell(&Note::Synced {
            step: self.index(),
            revision: info.revision,
            root: info.root.to_string(),
            had_it: before == info.root,
            received_bytes: info.received_bytes,
            sources: info.sources.len(),
        })?)
    }

    /// Whether this is where newcomers are admitted: by the step alone, which all members share.
    /// What one of them sees of the world may have changed before another looks.
    pub fn is_at_safe_point(&self) -> bool {
        self.step.is_multiple_of(SAFE_POINT_STEPS)
    }

    /// Lets newcomers in.
    pub fn admit(&self) -> Result<(), Stop> {
        self.communicator.update_topology()?;
        Ok(())
    }

    /// One step with whoever is there; whether it is the last one.
    pub fn step(&mut self, wishes: &Wishes) -> Result<bool, Stop> {
        loop {
            let world_size = self.communicator.world_size() as usize;
            let batch = self.batch(self.communicator.rank().index(), world_size);
            let weight = world_size as f32 / BATCH as f32;
            let (mut gradients, loss) = self.network.gradients(&batch, weight);
            let images = batch.len();
            // A vote beside the gradients: all members see the same average, and so agree.
            gradients.push(vec![if wishes.is_finish() { 1.0 } else { 0.0 }]);
            let options = Options::default();
            let handle =
                self.communicator
                    .all_reduce_many_async(gradients, ReduceOp::Avg, &options);
            self.fail_if_planned(&handle)?;
            match handle.wait() {
                (mut average, Ok(outcome)) => {
                    let at_ns = monotonic_ns()?;
                    let vote = average.pop().unwrap_or_default();
                    self.network.update(&average);
                    let contributors = outcome.contributors.iter().map(|peer| peer.0);
                    tell(&Note::Step {
                        step: self.index(),
                        digest: self.network.digest(),
                        contributors: contributors.collect(),
                        loss,
                        images,
                        moved_bytes: self.moved_bytes(),
                        at_ns,
                    })?;
                    self.step += 1;
                    return Ok(vote[0] > 0.0 && self.index() >= self.schedule.steps());
                }
                (_, Err(Error::PeerLost { peer, reason, .. })) => {
                    tell(&Note::Lost {
                        step: self.index(),
                        peer: peer.0,
                        has_left: reason == EvictReason::Left,
                        reason: reason.to_string(),
                    })?;
                }
                (_, Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Leaves the run before the end.
    pub fn leave(self) -> Result<(), Stop> {
        Ok(self.communicator.leave()?)
    }

    /// Leaves the run with what was learned.
    pub fn finish(self) -> Result<Note, Stop> {
        let counters = self.communicator.counters();
        let note = Note::Finished {
            digest: self.network.digest(),
            accuracy: self.network.accuracy(&self.digits.test),
            world_size: self.communicator.world_size() as usize,
            commits: counters.commits,
            aborts: counters.aborts,
        };
        self.communicator.leave()?;
        Ok(note)
    }

    fn index(&self) -> usize {
        usize::try_from(self.step).unwrap_or(usize::MAX)
    }

    fn batch(&self, rank: usize, world_size: usize) -> Vec<&Image> {
        let shard = self.schedule.shard(self.index(), rank, world_size);
        shard
            .iter()
            .map(|&index| &self.digits.train[index])
            .collect()
    }

    fn moved_bytes(&self) -> u64 {
        let counters = self.communicator.counters();
        counters.sent_bytes + counters.received_bytes
    }

    /// Watches the operation until the planned share of its bytes has been moved, then sends itself
    /// the planned signal. An operation that was faster is left alone; the next one is watched.
    fn fail_if_planned(&mut self, handle: &Handle<Gradients>) -> Result<()> {
        let step = self.index();
        let Some(fault) = self.fault.filter(|fault| step >= fault.step) else {
            return Ok(());
        };
        while !handle.is_finished() {
            let progress = handle.progress();
            let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
            let is_due = done_bytes as f64 >= fault.share * total_bytes as f64;
            if done_bytes > 0 && is_due && done_bytes < total_bytes {
                let at_ns = monotonic_ns()?;
                tell(&Note::Fault {
                    signal: fault.signal,
                    step,
                    done_bytes,
                    total_bytes,
                    at_ns,
                })?;
                self.fault = None;
                return raise(fault.signal);
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn raise(signal: FaultSignal) -> Result<()> {
    let signal = match signal {
        FaultSignal::Kill => Signal::SIGKILL,
        FaultSignal::Stop => Signal::SIGSTOP,
    };
    kill(Pid::this(), signal).context("sending a signal to this process")
}

/// Steps from one safe point to the next, each followed by a sync.
pub const SAFE_POINT_STEPS: u64 = 5;
