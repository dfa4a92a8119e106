//! The parent of the planned demonstration: starts the processes, lets newcomers come and go, kills
//! the master when planned, wakes the stopped peer, and judges how it went.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Arguments;
use super::crew::Crew;
use super::data::Digits;
use super::display::Display;
use super::master::Master;
use super::notes::{FaultSignal, Note, Order, Setup};
use super::plan::Plan;
use super::schedule::Schedule;
use super::train::gradient_bytes;
use super::trainer::SAFE_POINT_STEPS;
use crate::failure::{Failure, Result};
use crate::measure::monotonic_ns;

/// Runs it from the first process to the last line.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let images = Digits::load()?.train.len();
    let schedule = Schedule::new(arguments.seed, arguments.epochs, images);
    let steps = schedule.steps();
    let faults = if arguments.no_faults {
        Plan::without_faults(arguments.peers)
    } else {
        Plan::new(arguments.seed, arguments.peers, steps)
    };
    let plan = faults.with_master_kills(arguments.restart_master, steps);
    let display = Display::new(arguments.json, steps, schedule.steps_per_epoch());
    let mut demonstration = Demonstration::start(arguments, plan, display)?;
    demonstration.train(2 * steps)?;
    demonstration.judge(arguments.peer_timeout_ms)
}

struct Demonstration {
    plan: Plan,
    crew: Crew,
    /// What newcomers are told.
    newcomer: Setup,
    /// The newcomers that were started, in the order of the plan.
    visitors: Vec<Guest>,
    /// The stopped process, once it was woken.
    returner: Option<Guest>,
    /// When the master was killed, while it is dead.
    killed_ns: Option<u64>,
    is_finish_told: bool,
}

/// A newcomer that will leave again.
#[derive(Clone, Copy, Debug)]
struct Guest {
    place: usize,
    leaves: usize,
    is_told: bool,
}

impl Guest {
    const fn new(place: usize, leaves: usize) -> Self {
        Self {
            place,
            leaves,
            is_told: false,
        }
    }
}

impl Demonstration {
    fn start(arguments: &Arguments, plan: Plan, display: Display) -> Result<Self> {
        let mut crew = Crew::new(Master::start(arguments)?, display);
        let faults = plan.faults.iter().flatten().count();
        let peers_min = (arguments.peers - faults).max(1);
        let newcomer = Setup {
            peers: peers_min,
            peers_min,
            is_newcomer: true,
            seed: arguments.seed,
            epochs: arguments.epochs,
            master: crew.master.address.to_string(),
            fault: None,
        };
        for fault in &plan.faults {
            crew.spawn(&Setup {
                peers: arguments.peers,
                is_newcomer: false,
                fault: *fault,
                ..newcomer.clone()
            })?;
        }
        let words = format!(
            "a master at {}, {} peers, each a process; {:.2} MiB of gradients a step",
            crew.master.address,
            plan.faults.len(),
            gradient_bytes() as f64 / f64::from(1 << 20),
        );
        crew.display.tell("started", &words)?;
        Ok(Self {
            plan,
            crew,
            newcomer,
            visitors: Vec::new(),
            returner: None,
            killed_ns: None,
            is_finish_told: false,
        })
    }

    /// Until all processes have ended. What was planned and has not happened by `steps_max` does
    /// not happen any more.
    fn train(&mut self, steps_max: usize) -> Result<()> {
        let mut last = Instant::now();
        while (0..self.crew.story.lives.len()).any(|place| self.is_awaited(place)) {
            match self.crew.hear(HEAR_LIMIT)? {
                Some((_, Note::Step { step, .. })) => {
                    last = Instant::now();
                    self.follow_plan(step, step >= steps_max)?;
                }
                Some(_) => last = Instant::now(),
                None if last.elapsed() > SILENCE_LIMIT => {
                    return Err(Failure::new(format!(
                        "no peer has reported anything for {} s",
                        SILENCE_LIMIT.as_secs()
                    )));
                }
                None => {}
            }
            self.restart_master_if_due()?;
        }
        Ok(())
    }

    /// Whether a process has yet to end by itself.
    fn is_awaited(&self, place: usize) -> bool {
        let is_asleep = self.is_stopped(place) && self.returner.is_none();
        self.crew.is_talking(place) && !(is_asleep && self.is_finish_told)
    }

    fn is_stopped(&self, place: usize) -> bool {
        let fault = self.plan.faults.get(place).copied().flatten();
        fault.is_some_and(|fault| fault.signal == FaultSignal::Stop)
    }

    fn follow_plan(&mut self, step: usize, is_late: bool) -> Result<()> {
        self.kill_master_if_planned(step)?;
        if let Some(visit) = self.plan.visits.get(self.visitors.len())
            && step >= visit.joins
        {
            let place = self.crew.spawn(&self.newcomer)?;
            self.visitors.push(Guest::new(place, visit.leaves));
        }
        self.wake_stopped()?;
        let Self { crew, .. } = self;
        for guest in self.visitors.iter_mut().chain(&mut self.returner) {
            let is_settled = crew.story.lives[guest.place].is_settled;
            if step >= guest.leaves && is_settled && !guest.is_told && crew.is_talking(guest.place)
            {
                crew.order(guest.place, Order::Leave)?;
                guest.is_told = true;
            }
        }
        if !self.is_finish_told && (is_late || self.is_all_done()) {
            for place in 0..self.plan.faults.len() {
                if self.plan.faults[place].is_none() && self.crew.is_talking(place) {
                    self.crew.order(place, Order::Finish)?;
                }
            }
            self.is_finish_told = true;
        }
        Ok(())
    }

    /// Kills the master as soon as a planned step, or one as far from the next sync, commits.
    fn kill_master_if_planned(&mut self, step: usize) -> Result<()> {
        let planned = self.plan.master_kills.get(self.crew.story.master_restarts);
        let is_due = planned.is_some_and(|planned| step >= *planned) && self.killed_ns.is_none();
        let is_news = self.crew.story.newest_step() == Some(step);
        if !is_due || !is_news || !step.is_multiple_of(SAFE_POINT_STEPS as usize) {
            return Ok(());
        }
        self.crew.master.kill()?;
        self.killed_ns = Some(monotonic_ns()?);
        let words = format!("the master is killed after step {step}");
        self.crew.display.tell("master_killed", &words)
    }

    /// Starts the killed master again once the others need it for a sync, or do not go on.
    fn restart_master_if_due(&mut self) -> Result<()> {
        let Some(killed_ns) = self.killed_ns else {
            return Ok(());
        };
        let story = &mut self.crew.story;
        let next = story.newest_step().map_or(0, |step| step + 1);
        let away = Duration::from_nanos(monotonic_ns()? - killed_ns);
        if !next.is_multiple_of(SAFE_POINT_STEPS as usize) && away < AWAY_LIMIT {
            return Ok(());
        }
        let steps = story.steps_since(killed_ns);
        story.master_restarts += 1;
        story.steps_without_master += steps;
        self.killed_ns = None;
        self.crew.master.restart()?;
        let words = format!(
            "the master is started again after {} ms; {steps} steps completed meanwhile",
            away.as_millis()
        );
        self.crew.display.tell("master_restarted", &words)
    }

    /// Lets the stopped process go on once the others train without it; it must find out by itself
    /// that it is out, and comes back as a newcomer.
    fn wake_stopped(&mut self) -> Result<()> {
        let place = (0..self.plan.faults.len()).find(|&place| self.is_stopped(place));
        let went_on = self.crew.story.pause_ms(FaultSignal::Stop, &self.plan);
        let (Some(place), Some(_), None) = (place, went_on, self.returner) else {
            return Ok(());
        };
        self.returner = Some(Guest::new(place, self.plan.return_leaves));
        self.crew.signal(place, Signal::SIGCONT)?;
        let words = format!("peer {place} is resumed");
        self.crew.display.tell("continued", &words)
    }

    /// Whether everything planned has happened and all guests are gone.
    fn is_all_done(&self) -> bool {
        let stops = (0..self.plan.faults.len()).any(|place| self.is_stopped(place));
        let faults = self.plan.faults.iter().flatten().count();
        let mut guests = self.visitors.iter().chain(&self.returner);
        self.visitors.len() == self.plan.visits.len()
            && self.returner.is_some() == stops
            && self.crew.story.injected.len() == faults
            && self.crew.story.master_restarts == self.plan.master_kills.len()
            && guests.all(|guest| self.crew.story.lives[guest.place].has_left)
    }

    fn judge(mut self, peer_timeout_ms: u64) -> Result<ExitCode> {
        let seconds = self.crew.display.seconds();
        let summary = self
            .crew
            .story
            .summary(&self.plan, peer_timeout_ms, seconds);
        self.crew.display.finish(&summary, &summary.to_text())?;
        for problem in summary.problems() {
            eprintln!("ccl: {problem}");
        }
        Ok(if summary.problems().is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// How long to listen before looking at the clock.
const HEAR_LIMIT: Duration = Duration::from_secs(1);
/// How long the master stays dead if the others cannot go on without it, as in the middle of a view
/// change.
const AWAY_LIMIT: Duration = Duration::from_secs(2);
/// A demonstration in which nobody says anything for so long is stuck.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
