//! The churn demonstration: about once a second a peer is killed, stopped or started, while the
//! others train.
//!
//! The seed and the current members decide what happens. Two members that have the state are always
//! spared, since nothing can be learned once all are gone.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::Arguments;
use super::crew::Crew;
use super::data::Digits;
use super::display::Display;
use super::master::Master;
use super::notes::{Order, Setup};
use super::schedule::Schedule;
use super::summary::ACCURACY_MIN;
use super::train::Random;
use crate::bench::round;
use crate::failure::{Failure, Result};

/// Fewest and most processes that are alive, those that are on their way in included.
pub const WORLD: RangeInclusive<usize> = 2..=6;

/// Runs it from the first process to the last line.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let seed = arguments.seed;
    let outcome = Churn::start(arguments).and_then(|mut churn| {
        churn.rage(Duration::from_secs(arguments.seconds))?;
        churn.settle()?;
        churn.finish()?;
        churn.judge(arguments)
    });
    if !matches!(outcome, Ok(code) if code == ExitCode::SUCCESS) {
        let seconds = arguments.seconds;
        eprintln!("ccl: again: ccl demo --churn --seconds {seconds} --seed {seed}");
    }
    outcome
}

struct Churn {
    crew: Crew,
    random: Random,
    newcomer: Setup,
    /// Places of processes that live.
    alive: Vec<usize>,
    /// When to wake those that are stopped.
    stopped: BTreeMap<usize, Instant>,
    /// Steps that each had committed when it was woken last, so that a new one tells that it is in.
    commits_at_wake: BTreeMap<usize, usize>,
    peer_timeout: Duration,
    last_heard: Instant,
    kills: usize,
    stops: usize,
}

/// The last line of `--json`.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    event: &'static str,
    seed: u64,
    seconds: f64,
    kills: usize,
    stops: usize,
    joins: usize,
    evictions: usize,
    accuracy: f64,
    world_size: usize,
    digests: Vec<String>,
    /// Steps that were committed, and that were aborted for a loss.
    commits: usize,
    aborts: usize,
    syncs: usize,
    sync_bytes: u64,
    needless_sync_bytes: u64,
    median_step_ms: f64,
    longest_pause_ms: f64,
    peer_timeout_ms: u64,
    problems: Vec<String>,
}

impl Churn {
    fn start(arguments: &Arguments) -> Result<Self> {
        let images = Digits::load()?.train.len();
        let schedule = Schedule::new(arguments.seed, arguments.epochs, images);
        let display = Display::new(arguments.json, 0, schedule.steps_per_epoch());
        let mut crew = Crew::new(Master::start(arguments)?, display);
        let newcomer = Setup {
            peers: 1,
            peers_min: 1,
            is_newcomer: true,
            seed: arguments.seed,
            epochs: arguments.epochs,
            master: crew.master.address.to_string(),
            fault: None,
        };
        let founder = Setup {
            peers: arguments.peers,
            is_newcomer: false,
            ..newcomer.clone()
        };
        let alive = (0..arguments.peers)
            .map(|_| crew.spawn(&founder))
            .collect::<Result<_>>()?;
        let words = format!(
            "{} s of churn with seed {}",
            arguments.seconds, arguments.seed
        );
        crew.display.tell("started", &words)?;
        let mut churn = Self {
            crew,
            random: Random::new(arguments.seed ^ 0xc4a5),
            newcomer,
            alive,
            stopped: BTreeMap::new(),
            commits_at_wake: BTreeMap::new(),
            peer_timeout: Duration::from_millis(arguments.peer_timeout_ms),
            last_heard: Instant::now(),
            kills: 0,
            stops: 0,
        };
        churn.hear_until(|churn| churn.settled().len() == churn.alive.len())?;
        Ok(churn)
    }

    /// Lets somebody suffer about once a second.
    fn rage(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let next =
                Instant::now() + INTERVAL_MIN + INTERVAL_SPREAD.mul_f64(self.random.next_share());
            if next >= end {
                return self.hear_until(|_| Instant::now() >= end);
            }
            self.hear_until(|_| Instant::now() >= next)?;
            self.strike()?;
        }
    }

    fn strike(&mut self) -> Result<()> {
        let settled = self.settled();
        let is_spared = |place| settled.len() - usize::from(settled.contains(&place)) >= SPARED;
        let victims: Vec<usize> = self
            .alive
            .iter()
            .copied()
            .filter(|&place| is_spared(place))
            .collect();
        let lots = self.random.below(20);
        if victims.is_empty() || self.alive.len() <= *WORLD.start() {
            return self.admit();
        }
        let is_full = self.alive.len() >= *WORLD.end();
        if !is_full && lots < 9 {
            return self.admit();
        }
        let victim = victims[self.random.below(victims.len())];
        if lots >= 18 && !self.stopped.contains_key(&victim) {
            return self.stop(victim);
        }
        self.kill(victim)
    }

    fn admit(&mut self) -> Result<()> {
        let place = self.crew.spawn(&self.newcomer)?;
        self.alive.push(place);
        let words = format!("peer {place} is started");
        self.crew.display.tell("start", &words)
    }

    fn kill(&mut self, place: usize) -> Result<()> {
        self.crew.kill(place)?;
        self.kills += 1;
        self.alive.retain(|&other| other != place);
        self.stopped.remove(&place);
        let words = format!("peer {place} is killed");
        self.crew.display.tell("kill", &words)
    }

    /// For a time after which it may be a member still, or not any more.
    fn stop(&mut self, place: usize) -> Result<()> {
        self.crew.signal(place, Signal::SIGSTOP)?;
        self.stops += 1;
        let share = STOP_SHARE_MIN + (2.0 - STOP_SHARE_MIN) * self.random.next_share();
        let until = Instant::now() + self.peer_timeout.mul_f64(share);
        self.stopped.insert(place, until);
        let words = format!("peer {place} is stopped");
        self.crew.display.tell("stop", &words)
    }

    /// Processes that run, are members, and have the state.
    fn settled(&self) -> Vec<usize> {
        let is_settled = |place: &usize| {
            let life = &self.crew.story.lives[*place];
            let at_wake = self.commits_at_wake.get(place).copied().unwrap_or(0);
            life.is_settled && life.commits.len() > at_wake && !self.stopped.contains_key(place)
        };
        self.alive.iter().copied().filter(is_settled).collect()
    }

    fn wake(&mut self, now: Instant) -> Result<()> {
        let due = self.stopped.extract_if(.., |_, until| *until <= now);
        for place in due.map(|(place, _)| place).collect::<Vec<_>>() {
            let commits = self.crew.story.lives[place].commits.len();
            self.commits_at_wake.insert(place, commits);
            self.crew.signal(place, Signal::SIGCONT)?;
            let words = format!("peer {place} is resumed");
            self.crew.display.tell("continue", &words)?;
        }
        Ok(())
    }

    /// Takes in what all say, and wakes who is to be woken, until something is true.
    fn hear_until(&mut self, is_true: impl Fn(&Self) -> bool) -> Result<()> {
        while !is_true(self) {
            self.wake(Instant::now())?;
            if self.crew.hear(HEAR_LIMIT)?.is_some() {
                self.last_heard = Instant::now();
            }
            if self.last_heard.elapsed() > SILENCE_LIMIT {
                let words = format!(
                    "no peer has reported anything for {} s",
                    SILENCE_LIMIT.as_secs()
                );
                return Err(Failure::new(words));
            }
        }
        Ok(())
    }

    /// Wakes everybody, and waits until all train.
    fn settle(&mut self) -> Result<()> {
        let now = Instant::now();
        for until in self.stopped.values_mut() {
            *until = now;
        }
        self.crew.display.tell("settling", "no more kills")?;
        self.wake(now)?;
        for place in self.alive.clone() {
            let commits = self.crew.story.lives[place].commits.len();
            self.commits_at_wake.insert(place, commits);
        }
        self.hear_until(|churn| {
            let alive = churn.alive.iter();
            let mut alive = alive.filter(|&&place| churn.crew.is_talking(place));
            let settled = churn.settled();
            alive.all(|place| settled.contains(place))
        })
    }

    /// Lets the training end, once it has gone through the images.
    fn finish(&mut self) -> Result<()> {
        for place in self.settled() {
            self.crew.order(place, Order::Finish)?;
        }
        self.hear_until(|churn| {
            let mut alive = churn.alive.iter();
            alive.all(|&place| !churn.crew.is_talking(place))
        })
    }

    fn judge(mut self, arguments: &Arguments) -> Result<ExitCode> {
        let summary = self.summary(arguments);
        self.crew.display.finish(&summary, &summary.to_text())?;
        for problem in &summary.problems {
            eprintln!("ccl: {problem}");
        }
        Ok(if summary.problems.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn summary(&self, arguments: &Arguments) -> Summary {
        let story = &self.crew.story;
        let ends = story.ends();
        let accuracies = ends.iter().map(|end| end.accuracy);
        let mut summary = Summary {
            event: "summary",
            seed: arguments.seed,
            seconds: round(self.crew.display.seconds()),
            kills: self.kills,
            stops: self.stops,
            joins: story.joins(),
            evictions: story.lives.iter().map(|life| life.evictions).sum(),
            accuracy: round(accuracies.reduce(f64::min).unwrap_or(0.0)),
            world_size: ends.iter().map(|end| end.world_size).min().unwrap_or(0),
            digests: ends.iter().map(|end| end.digest.clone()).collect(),
            commits: story.steps(),
            aborts: story.aborts(),
            syncs: story.syncs(),
            sync_bytes: story.sync_bytes,
            needless_sync_bytes: story.needless_sync_bytes,
            median_step_ms: story.median_step_ms(),
            longest_pause_ms: story.longest_pause_ms(),
            peer_timeout_ms: arguments.peer_timeout_ms,
            problems: story.problems.clone(),
        };
        let least = usize::try_from(arguments.seconds / SECONDS_EACH).unwrap_or(usize::MAX);
        summary.judge(self.alive.len(), least);
        summary
    }
}

impl Summary {
    /// Adds what is not as it must be, with so many processes alive at the end, and so many kills
    /// and joins at least.
    fn judge(&mut self, alive: usize, least: usize) {
        let checks = [
            (
                self.digests.len() == alive && self.world_size == alive,
                format!("{} of {alive} finished together", self.digests.len()),
            ),
            (
                self.digests.windows(2).all(|pair| pair[0] == pair[1]),
                "digests differ".into(),
            ),
            (
                self.accuracy >= ACCURACY_MIN,
                format!("the accuracy is below {ACCURACY_MIN}"),
            ),
            (self.kills >= least, format!("only {} kills", self.kills)),
            (self.joins >= least, format!("only {} joins", self.joins)),
        ];
        let failed = checks.into_iter().filter(|(is_fine, _)| !is_fine);
        self.problems.extend(failed.map(|(_, words)| words));
    }

    fn to_text(&self) -> String {
        format!(
            "{} kills, {} stops, {} joins in {:.0} s: {} steps committed, {} aborted, the longest \
             pause {:.0} ms; {} members at the end, equal weights: {}, accuracy {:.1} %; {} syncs \
             moved {:.1} MiB, {} bytes of it unnecessary",
            self.kills,
            self.stops,
            self.joins,
            self.seconds,
            self.commits,
            self.aborts,
            self.longest_pause_ms,
            self.world_size,
            if self.digests.windows(2).all(|pair| pair[0] == pair[1]) {
                "yes"
            } else {
                "NO"
            },
            100.0 * self.accuracy,
            self.syncs,
            self.sync_bytes as f64 / f64::from(1 << 20),
            self.needless_sync_bytes,
        )
    }
}

/// Members with the state that are never touched: if one of them is evicted by mistake, there is
/// another.
const SPARED: usize = 2;
/// Least time from one strike to the next.
const INTERVAL_MIN: Duration = Duration::from_millis(600);
/// How much longer it may be.
const INTERVAL_SPREAD: Duration = Duration::from_millis(600);
/// Shortest stop as a share of the silence after which a peer counts as dead; the longest is twice
/// that silence.
const STOP_SHARE_MIN: f64 = 0.1;
/// One kill and one join at least in so many seconds.
const SECONDS_EACH: u64 = 3;
/// How long to listen before looking at the clock.
const HEAR_LIMIT: Duration = Duration::from_millis(20);
/// A churn in which nobody says anything for so long is stuck.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
