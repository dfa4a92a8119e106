//! One peer of a bench of shared state: a source, or the joiner that lacks the state.
//!
//! It keeps the state in memory that was touched before anything is measured, and compares all of
//! it, bit for bit, after each sync.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ccl_core::{Communicator, CommunicatorConfig, Options, SharedState, SyncOptions, SyncWatch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::super::inputs::{Seed, fill};
use crate::child::{Answer, orders, receive_line, send_line};
use crate::failure::{Context, Failure, Result};
use crate::measure::{peak_rss_bytes, reset_peak_rss};

/// What a peer is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The master's `host:port`.
    pub master: String,
    /// Elements of the state.
    pub count: usize,
    /// Members of the first view: all sources.
    pub sources: u32,
    /// Whether it joins the sources, and lacks the state.
    pub is_joiner: bool,
    /// Most bytes a second that it gives.
    pub bytes_per_second: Option<u64>,
}

/// What a peer is told then.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Admit the joiner.
    Admit,
    /// Synchronise the state.
    Sync(Round),
    /// Leave the run and end.
    Leave,
}

/// What a sync begins with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Round {
    /// How many there were before.
    pub index: usize,
    /// The joiner's state differs in one bit.
    pub flip_bit: bool,
    /// Bytes after which this source kills itself.
    pub dies_after: Option<u64>,
}

/// What a peer says when it is in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its name in the run.
    pub peer: u64,
}

/// What a peer saw of one sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// From call to return, in nanoseconds.
    pub time_ns: u64,
    /// What its own hashing took of it.
    pub hash_ns: u64,
    /// From the election to the return; 0 if it ended before anybody looked.
    pub transfer_ns: u64,
    /// Bytes that came from other members.
    pub received_bytes: u64,
    /// Bytes sent to other members.
    pub sent_bytes: u64,
    /// Names of those who gave, and how many of their bytes were used.
    pub sources: Vec<(u64, u64)>,
    /// The digest over the state.
    pub root: String,
    /// Elements that are not as they must be.
    pub wrong: u64,
    /// Most resident memory beyond the state, in bytes.
    pub extra_rss_bytes: u64,
}

/// Serves the parent's orders until it is told to leave the run.
pub fn run() -> Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let setup: Setup =
        receive_line(&mut std::io::stdin().lock())?.ok_or_else(|| Failure::new("no setup"))?;
    let orders = orders();
    let mut memory = vec![0_u64; setup.count];
    fill(&mut memory, CONTENT, 0, 0);
    let communicator = match Communicator::connect(setup.config()) {
        Ok(communicator) => communicator,
        Err(error) => {
            send_line(&mut output, &Answer::<()>::Err(error.to_string()))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let peer = communicator.peer().0;
    send_line(&mut output, &Answer::Ok(Joined { peer }))?;
    let mut state = SharedState::new(REVISION);
    state.add(ENTRY, &[setup.count as u64], &mut memory)?;
    for order in orders {
        match order? {
            Order::Admit => {
                let answer = admit(&communicator, setup.sources as usize + 1);
                send_line(&mut output, &answer.map_err(|failure| failure.to_string()))?;
            }
            Order::Sync(round) => {
                let answer = synchronise(&communicator, &setup, &round, &mut state);
                send_line(&mut output, &answer.map_err(|failure| failure.to_string()))?;
            }
            Order::Leave => break,
        }
    }
    communicator.leave()?;
    Ok(ExitCode::SUCCESS)
}

impl Setup {
    fn config(&self) -> CommunicatorConfig {
        CommunicatorConfig {
            master: self.master.clone(),
            initial_world_size: Some(self.sources),
            state_bytes_per_second: self.bytes_per_second,
            ..CommunicatorConfig::default()
        }
    }
}

/// Safe points until the joiner is in. All sources call equally often, by the view that is the same
/// for all.
fn admit(communicator: &Communicator, world_size: usize) -> Result<()> {
    while communicator.view().members.len() < world_size {
        std::thread::sleep(JOIN_INTERVAL);
        communicator.update_topology()?;
    }
    Ok(())
}

fn synchronise(
    communicator: &Communicator,
    setup: &Setup,
    round: &Round,
    state: &mut SharedState<'_>,
) -> Result<Synced> {
    if setup.is_joiner {
        spoil(state, round)?;
    }
    let state_bytes = (setup.count * size_of::<u64>()) as u64;
    reset_peak_rss()?;
    communicator.barrier(&Options::default())?;
    let (mut elected, mut death) = (Instant::now(), Ok(()));
    let info = communicator.sync_while(state, &SyncOptions::default(), |watch| {
        if let Some(bytes) = round.dies_after {
            death = die_after(watch, bytes);
        }
        // Not a busy loop: it would take a processor from those that move bytes.
        while watch.is_source().is_none() && !watch.wait_for(ELECTION_POLL) {}
        elected = Instant::now();
    });
    death?;
    let info = info?;
    let transfer = elected.elapsed();
    let extra_rss_bytes = peak_rss_bytes()?.saturating_sub(state_bytes);
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).context("time");
    Ok(Synced {
        time_ns: nanoseconds(info.duration)?,
        hash_ns: nanoseconds(info.hashing)?,
        transfer_ns: nanoseconds(transfer)?,
        received_bytes: info.received_bytes,
        sent_bytes: info.sent_bytes,
        sources: info
            .sources
            .iter()
            .map(|(peer, bytes)| (peer.0, *bytes))
            .collect(),
        root: info.root.to_string(),
        wrong: count_wrong(state.slice(ENTRY)?),
        extra_rss_bytes,
    })
}

/// Takes the state from the joiner, or one bit of it.
fn spoil(state: &mut SharedState<'_>, round: &Round) -> Result<()> {
    let elements = state.slice_mut::<u64>(ENTRY)?;
    if round.flip_bit {
        // Another place each time, with whole turns through the state in between.
        let place = round.index.wrapping_mul(0x9e37_79b9) % elements.len();
        elements[place] ^= 1 << (round.index % 64);
        return Ok(());
    }
    fill(elements, POISON, round.index, 0);
    state.set_revision(0);
    Ok(())
}

/// SIGKILL to this process when it has given so many bytes. Returns if the sync ends before.
fn die_after(watch: &SyncWatch, bytes: u64) -> Result<()> {
    while !watch.is_finished() {
        if watch.is_source() == Some(true) && watch.progress().done_bytes >= bytes {
            return kill(Pid::this(), Signal::SIGKILL).context("sending SIGKILL to this process");
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Elements that differ from the content, found without a second copy of it.
fn count_wrong(elements: &[u64]) -> u64 {
    let mut expected = [0_u64; CHECK_COUNT];
    let mut wrong = 0;
    for (index, found) in elements.chunks(CHECK_COUNT).enumerate() {
        let expected = &mut expected[..found.len()];
        fill(expected, CONTENT, 0, index * CHECK_COUNT);
        if found != expected {
            wrong += found.iter().zip(expected).filter(|(a, b)| *a != *b).count() as u64;
        }
    }
    wrong
}

/// Name of the state's only entry.
const ENTRY: &str = "state";
/// Revision of the sources' state; that of a joiner is 0.
const REVISION: u64 = 1;
/// What the state must be.
const CONTENT: Seed = Seed::new(1);
/// What a joiner has instead.
const POISON: Seed = Seed::new(2);
/// Elements compared at once.
const CHECK_COUNT: usize = 4096;
/// How often the sources look for the joiner.
const JOIN_INTERVAL: Duration = Duration::from_millis(5);
/// How often a peer looks whether the election is over.
const ELECTION_POLL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_element_is_counted_wherever_it_is() {
        let mut elements = vec![0_u64; 3 * CHECK_COUNT + 5];
        fill(&mut elements, CONTENT, 0, 0);
        assert_eq!(count_wrong(&elements), 0);
        for place in [0, CHECK_COUNT, 3 * CHECK_COUNT + 4] {
            elements[place] ^= 1 << 63;
        }
        assert_eq!(count_wrong(&elements), 3);
    }

    #[test]
    fn a_joiner_has_nothing_of_the_state_or_lacks_one_bit() {
        let mut elements = vec![0_u64; 1000];
        fill(&mut elements, CONTENT, 0, 0);
        let mut state = SharedState::new(REVISION);
        state.add(ENTRY, &[1000], &mut elements).unwrap();
        let mut round = Round {
            index: 70,
            flip_bit: true,
            dies_after: None,
        };
        spoil(&mut state, &round).unwrap();
        assert_eq!(count_wrong(state.slice(ENTRY).unwrap()), 1);
        assert_eq!(state.revision(), REVISION);
        round.flip_bit = false;
        spoil(&mut state, &round).unwrap();
        assert_eq!(count_wrong(state.slice(ENTRY).unwrap()), 1000);
        assert_eq!(state.revision(), 0);
    }
}
