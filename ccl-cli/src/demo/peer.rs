//! One training process: its shard of each batch, everybody's average, the same weights as all.
//!
//! The loop in [`Trainer::step`] is what a program has to do about a peer that is lost: compute
//! for the members that are left, and call again.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ccl_core::{Communicator, CommunicatorConfig, Error, Handle, Options, ReduceOp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::data::{Digits, Image};
use super::notes::{Fault, FaultSignal, Note, Setup};
use super::schedule::{BATCH, Schedule};
use super::train::{Gradients, Network};
use crate::child::{exit_with_parent, receive_line, send_line};
use crate::failure::{Context, Failure, Result};
use crate::measure::monotonic_ns;

/// Trains as the parent says. Ends with status 0 if it finished, left, or was evicted and told so.
pub fn run() -> Result<ExitCode> {
    let is_asked_to_end = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_asked_to_end))
        .context("signal handler")?;
    let setup: Setup =
        receive_line(&mut std::io::stdin().lock())?.ok_or_else(|| Failure::new("no setup"))?;
    exit_with_parent();
    let note = match train(&setup, &is_asked_to_end) {
        Ok(note) => note,
        Err(Stop::Library(Error::Evicted(reason))) => Note::Evicted {
            reason: reason.to_string(),
        },
        Err(Stop::Library(error)) => Note::Failed {
            error: error.to_string(),
        },
        Err(Stop::Other(failure)) => Note::Failed {
            error: failure.to_string(),
        },
    };
    tell(&note)?;
    let is_failed = matches!(note, Note::Failed { .. });
    Ok(if is_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Why the training stopped early.
enum Stop {
    Library(Error),
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

fn train(setup: &Setup, is_asked_to_end: &AtomicBool) -> Result<Note, Stop> {
    let mut trainer = Trainer::new(setup)?;
    for step in 0..trainer.schedule.steps() {
        if is_asked_to_end.load(Ordering::Relaxed) {
            trainer.communicator.leave()?;
            return Ok(Note::Left);
        }
        trainer.step(step)?;
    }
    let counters = trainer.communicator.counters();
    let note = Note::Finished {
        digest: trainer.network.digest(),
        accuracy: trainer.network.accuracy(&trainer.digits.test),
        world_size: trainer.communicator.world_size() as usize,
        commits: counters.commits,
        aborts: counters.aborts,
    };
    trainer.communicator.leave()?;
    Ok(note)
}

struct Trainer {
    communicator: Communicator,
    digits: Digits,
    schedule: Schedule,
    network: Network,
    fault: Option<Fault>,
}

impl Trainer {
    fn new(setup: &Setup) -> Result<Self, Stop> {
        let digits = Digits::load()?;
        let communicator = Communicator::connect(CommunicatorConfig {
            master: setup.master.clone(),
            run: RUN.into(),
            min_world_size: u32::try_from(setup.peers_min).context("--peers")?,
            ..CommunicatorConfig::default()
        })?;
        wait_for_all(&communicator, setup.peers)?;
        tell(&Note::Joined {
            peer: communicator.peer().0,
            rank: communicator.rank().0,
            world_size: communicator.world_size() as usize,
        })?;
        Ok(Self {
            communicator,
            schedule: Schedule::new(setup.seed, setup.epochs, digits.train.len()),
            digits,
            network: Network::new(setup.seed),
            fault: setup.fault,
        })
    }

    /// One step with whoever is there.
    fn step(&mut self, step: usize) -> Result<(), Stop> {
        loop {
            let world_size = self.communicator.world_size() as usize;
            let batch = self.batch(step, self.communicator.rank().index(), world_size);
            let weight = world_size as f32 / BATCH as f32;
            let (gradients, loss) = self.network.gradients(&batch, weight);
            let images = batch.len();
            let handle = self.communicator.all_reduce_start(
                gradients,
                ReduceOp::Avg,
                &Options::default(),
            )?;
            self.fail_if_planned(&handle, step)?;
            match handle.wait() {
                (average, Ok(outcome)) => {
                    let at_ns = monotonic_ns()?;
                    self.network.update(&average);
                    let world_size = outcome.contributors.len();
                    return Ok(self.tell_step(step, at_ns, (world_size, loss, images))?);
                }
                (_, Err(Error::PeerLost { peer, reason, .. })) => {
                    tell(&Note::Lost {
                        step,
                        peer: peer.0,
                        reason: reason.to_string(),
                    })?;
                }
                (_, Err(error)) => return Err(error.into()),
            }
        }
    }

    fn batch(&self, step: usize, rank: usize, world_size: usize) -> Vec<&Image> {
        let shard = self.schedule.shard(step, rank, world_size);
        shard
            .iter()
            .map(|&index| &self.digits.train[index])
            .collect()
    }

    fn tell_step(&self, step: usize, at_ns: u64, done: (usize, f32, usize)) -> Result<()> {
        let (world_size, loss, images) = done;
        let counters = self.communicator.counters();
        let moved_bytes = counters.sent_bytes + counters.received_bytes;
        tell(&Note::Step {
            step,
            world_size,
            loss,
            images,
            moved_bytes,
            at_ns,
        })
    }

    /// Watches the operation until the planned share of its bytes has been moved, then sends itself
    /// the planned signal. An operation that was faster is left alone; the next one is watched.
    fn fail_if_planned(&mut self, handle: &Handle<Gradients>, step: usize) -> Result<()> {
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

/// Calls safe points until everybody is in. Members call equally often: each decides by the view
/// that the call returned, which is the same for all.
fn wait_for_all(communicator: &Communicator, peers: usize) -> Result<(), Error> {
    let mut view = communicator.view();
    while view.members.len() < peers {
        std::thread::sleep(JOIN_INTERVAL);
        view = communicator.update_topology()?;
    }
    Ok(())
}

fn raise(signal: FaultSignal) -> Result<()> {
    let signal = match signal {
        FaultSignal::Kill => Signal::SIGKILL,
        FaultSignal::Stop => Signal::SIGSTOP,
    };
    kill(Pid::this(), signal).context("sending a signal to this process")
}

fn tell(note: &Note) -> Result<()> {
    send_line(&mut std::io::stdout().lock(), note)
}

/// Name of the demonstration's run.
pub const RUN: &str = "demo";
/// How often a member looks for newcomers before the first step.
const JOIN_INTERVAL: Duration = Duration::from_millis(5);
