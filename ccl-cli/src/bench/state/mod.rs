//! `ccl bench shared-state`: a joiner gets the state of several sources, each a process, beside
//! what plain sockets need for the same bytes from one source.
//!
//! This side starts the processes, gives the orders, and checks that a source dies if one should.

pub mod peer;
mod report;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;

use super::floor::{CONNECTIONS, Cost, Floor, receive_all};
use super::sizes::parse_size;
use super::{median, start_master};
use crate::child::{Answer, Child, send_line};
use crate::failure::{Failure, Result};
use peer::{Joined, Order, Round, Setup, Synced};
use report::{HEADER, Line, Repeat};

/// Options of `ccl bench shared-state`.
#[derive(Args, Clone, Debug)]
pub struct StateOptions {
    /// Bytes of the state, a multiple of 8.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    bytes: u64,
    /// Peers that have the state.
    #[arg(long, value_name = "K", default_value_t = 3)]
    sources: u32,
    /// Repeats, of which medians are printed; by default 5, and 1 with --kill-source.
    #[arg(long, value_name = "N")]
    repeat: Option<usize>,
    /// Limit one source to this share of the rate that each has without a limit.
    #[arg(long, value_name = "FACTOR")]
    slow_source: Option<f64>,
    /// The joiner's state differs in one bit.
    #[arg(long)]
    flip_bit: bool,
    /// A source kills itself with SIGKILL when it has sent half of its share.
    #[arg(long, conflicts_with = "flip_bit")]
    kill_source: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and prints one line; exit status 1 if an element is wrong or digests differ.
pub fn run(options: &StateOptions) -> Result<ExitCode> {
    options.validate()?;
    let limit = options
        .slow_source
        .map(|factor| slow_rate(options, factor))
        .transpose()?;
    let mut floor = Floor::start(2, None)?;
    let mut fleet = Fleet::start(options, limit)?;
    let mut repeats = Vec::new();
    for index in 0..options.repeats() {
        let peers = fleet.synchronise(options, index)?;
        let floor = measure_floor(&mut floor, options.bytes)?;
        repeats.push(Repeat { peers, floor });
    }
    let line = Line::new(options, limit, &fleet.names, &repeats);
    fleet.finish()?;
    if options.json {
        send_line(&mut std::io::stdout(), &line)?;
    } else {
        println!("{HEADER}\n{}", line.to_text());
    }
    Ok(if line.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl StateOptions {
    fn validate(&self) -> Result<()> {
        let says = |words: &str| Err(Failure::new(words));
        if self.bytes == 0 || !self.bytes.is_multiple_of(8) {
            return says("--bytes must be a multiple of 8, at least 8");
        }
        if !(1..=SOURCES_MAX).contains(&self.sources) {
            return Err(Failure::new(format!(
                "--sources must be 1 to {SOURCES_MAX}"
            )));
        }
        if self.repeat == Some(0) {
            return says("--repeat must be at least 1");
        }
        if self.kill_source && (self.sources < 2 || self.repeats() > 1) {
            return says("--kill-source needs --sources of at least 2, and one --repeat");
        }
        if self
            .slow_source
            .is_some_and(|factor| !(factor > 0.0 && factor <= 1.0) || self.sources < 2)
        {
            return says(
                "--slow-source must be above 0 and at most 1, with --sources of at least 2",
            );
        }
        Ok(())
    }

    fn repeats(&self) -> usize {
        let default = if self.kill_source { 1 } else { 5 };
        self.repeat.unwrap_or(default)
    }
}

/// The rate in bytes a second that is so small a part of what each source gives at without a limit.
fn slow_rate(options: &StateOptions, factor: f64) -> Result<u64> {
    let whole = StateOptions {
        flip_bit: false,
        kill_source: false,
        ..options.clone()
    };
    let mut fleet = Fleet::start(&whole, None)?;
    let mut rates = Vec::new();
    for index in 0..RATE_REPEATS {
        let joiner = fleet.synchronise(&whole, index)?.joiner;
        let each = options.bytes as f64 / f64::from(options.sources);
        rates.push(each / joiner.transfer_ns.max(1) as f64 * 1e9);
    }
    fleet.finish()?;
    let rate = median(rates.into_iter()).unwrap_or(0.0);
    Ok((rate * factor).max(1.0) as u64)
}

fn measure_floor(floor: &mut Floor, bytes: u64) -> Result<[Cost; CONNECTIONS.len()]> {
    let mut costs = [Cost {
        time_ns: 0.0,
        cpu_ns: 0.0,
    }; CONNECTIONS.len()];
    for (cost, connections) in costs.iter_mut().zip(CONNECTIONS) {
        *cost = floor.measure_transfer(bytes, connections)?;
    }
    Ok(costs)
}

/// What all peers observed of one sync.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    /// Sources that lived on.
    sources: Vec<Synced>,
    joiner: Synced,
}

/// The sources, the joiner and their master.
struct Fleet {
    sources: Vec<Child>,
    joiner: Child,
    /// Names of the sources in the run, by place.
    names: Vec<u64>,
    /// Ended last: without it the peers could not leave.
    master: Child,
}

impl Fleet {
    /// The first source gives at most `limit` bytes a second.
    fn start(options: &StateOptions, limit: Option<u64>) -> Result<Self> {
        let (master, address) = start_master("default")?;
        let spawn = |name: String, is_joiner: bool, bytes_per_second: Option<u64>| {
            let mut child = Child::spawn(name, &["state-peer".into()])?;
            child.send(&Setup {
                master: address.to_string(),
                count: usize::try_from(options.bytes / 8).unwrap_or(usize::MAX),
                sources: options.sources,
                is_joiner,
                bytes_per_second,
            })?;
            Ok::<Child, Failure>(child)
        };
        let mut sources = (0..options.sources)
            .map(|place| {
                spawn(
                    format!("source {place}"),
                    false,
                    limit.filter(|_| place == 0),
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let joined: Vec<Joined> = receive_all(&mut sources)?;
        let mut joiner = spawn("the joiner".into(), true, None)?;
        for source in &mut sources {
            source.send(&Order::Admit)?;
        }
        receive_all::<()>(&mut sources)?;
        joiner.receive_answer::<Joined>()?;
        Ok(Self {
            sources,
            joiner,
            names: joined.iter().map(|joined| joined.peer).collect(),
            master,
        })
    }

    fn synchronise(&mut self, options: &StateOptions, index: usize) -> Result<Peers> {
        if options.kill_source {
            return self.synchronise_until_killed(options);
        }
        self.order_sync(options, index)?;
        self.receive_synced()
    }

    /// Repeats the sync until the first source dies in one: the others may be so much faster that
    /// it does not come to give its part.
    fn synchronise_until_killed(&mut self, options: &StateOptions) -> Result<Peers> {
        for index in 0..KILL_ATTEMPTS {
            self.order_sync(options, index)?;
            match self.sources[0].receive_unless_ended::<Answer<Synced>>()? {
                None => {
                    expect_killed(&mut self.sources.remove(0))?;
                    return self.receive_synced();
                }
                Some(answer) => answer.map_err(Failure::new)?,
            };
            receive_all::<Synced>(&mut self.sources[1..])?;
            self.joiner.receive_answer::<Synced>()?;
        }
        Err(Failure::new(format!(
            "{KILL_ATTEMPTS} transfers were over before the source had given half of its share; \
             take more --bytes"
        )))
    }

    fn order_sync(&mut self, options: &StateOptions, index: usize) -> Result<()> {
        let half = options.bytes / u64::from(options.sources) / 2;
        for (place, child) in self.sources.iter_mut().enumerate() {
            let dies_after = (options.kill_source && place == 0).then_some(half);
            child.send(&Order::Sync(round(options, index, dies_after)))?;
        }
        self.joiner.send(&Order::Sync(round(options, index, None)))
    }

    fn receive_synced(&mut self) -> Result<Peers> {
        Ok(Peers {
            sources: receive_all(&mut self.sources)?,
            joiner: self.joiner.receive_answer()?,
        })
    }

    fn finish(self) -> Result<()> {
        for mut child in self.sources.into_iter().chain([self.joiner]) {
            child.send(&Order::Leave)?;
            let status = child.wait_for(super::LEAVE_LIMIT)?;
            if !status.is_some_and(|status| status.success()) {
                let how = status.map_or("it hangs".into(), |status| status.to_string());
                return Err(Failure::new(format!(
                    "a peer of the bench did not leave as it should: {how}"
                )));
            }
        }
        drop(self.master);
        Ok(())
    }
}

fn round(options: &StateOptions, index: usize, dies_after: Option<u64>) -> Round {
    Round {
        index,
        flip_bit: options.flip_bit,
        dies_after,
    }
}

/// A source has closed its output.
fn expect_killed(source: &mut Child) -> Result<()> {
    let status = source.wait_for(KILL_LIMIT)?;
    if status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32) {
        return Ok(());
    }
    Err(Failure::new("the source ended, but not by SIGKILL"))
}

/// Most sources: each is a process with a state of its own.
const SOURCES_MAX: u32 = 16;
/// Syncs that the rate of a slow source is derived from.
const RATE_REPEATS: usize = 3;
/// Syncs in which a source may die.
const KILL_ATTEMPTS: usize = 10;
/// How long a killed source may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(60);
