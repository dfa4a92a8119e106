//! One seed from beginning to end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ccl_core::ids::GroupId;

use super::cluster::{Event, World};
use super::faults::Fault;
use super::liveness::Promise;
use super::report::Stats;
use super::rng::mix;
use super::swarm::Swarm;
use super::trace::Trace;

/// A seed that passed.
#[derive(Debug)]
pub struct Outcome {
    /// Digest of its history.
    pub digest: u64,
    /// What is counted.
    pub stats: Stats,
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// The last events before.
    pub lines: Vec<String>,
}

/// Operations and faults that every seed has at least.
const OPERATIONS_MIN: u64 = 20;
const FAULTS_MIN: u64 = 3;
/// Virtual time after which a calm world must have settled, beside the times of the run.
const SETTLE_MARGIN: Duration = Duration::from_secs(60);
/// How often a calm world checks that each group has enough members.
const REFILL_INTERVAL: Duration = Duration::from_secs(5);
/// How often a world at rest may still be busy: a process that lost its session by a wrong program
/// comes back, and waits for its welcome, or for others to found its group.
const RESTS_MAX: u32 = 20;
/// Views that a calm group may need to settle.
const CALM_VIEWS_MAX: u64 = 200;

/// Runs one seed. A failure is run again to have its last events.
///
/// # Errors
/// What was wrong, with the last events.
pub fn run_seed(seed: u64) -> Result<Outcome, Box<Failure>> {
    run_seed_traced(seed, false).map_err(|_| match run_seed_traced(seed, true) {
        Err(failure) => failure,
        Ok(_) => Box::new(Failure {
            seed,
            what: "the same seed failed once and passed once".into(),
            lines: Vec::new(),
        }),
    })
}

/// Runs one seed, keeping its last events or not.
///
/// # Errors
/// What was wrong.
pub fn run_seed_traced(seed: u64, lines: bool) -> Result<Outcome, Box<Failure>> {
    run_world(seed, Trace::new(lines, false))
}

fn run_world(seed: u64, trace: Trace) -> Result<Outcome, Box<Failure>> {
    run_prepared(World::new(Swarm::new(seed), trace))
}

/// Runs a prepared world from its beginning to its rest.
///
/// # Errors
/// What was wrong, with the last events if the world keeps them.
pub fn run_prepared(mut world: World) -> Result<Outcome, Box<Failure>> {
    let seed = world.swarm.seed;
    let panicked = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let what = match panicked {
        Ok(()) => world.failure.take(),
        Err(payload) => Some(panic_text(payload.as_ref())),
    };
    if let Some(what) = what {
        return Err(Box::new(Failure {
            seed,
            what,
            lines: world.trace.into_lines(),
        }));
    }
    world.absorb();
    Ok(Outcome {
        digest: world.trace.digest(),
        stats: world.stats,
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()));
    format!("a machine panicked: {}", text.unwrap_or_default())
}

fn live(world: &mut World) {
    populate(world);
    while !world.plan.calm && world.failure.is_none() {
        let done = world.plan.left == 0;
        if done || !world.step() {
            break;
        }
    }
    let settle = world.fault_rng.millis(0, 3000);
    world.run_until(world.now + settle);
    if world.failure.is_some() {
        return;
    }
    world.calm_down();
    settle_down(world);
    if world.failure.is_none() {
        finish(world);
    }
}

fn populate(world: &mut World) {
    let storm = world.fault_rng.chance(300);
    let late = if storm { 0 } else { 800 };
    for _ in 0..world.swarm.sites {
        world.open_site(late);
    }
    for (index, size) in world.swarm.worlds.clone().into_iter().enumerate() {
        for _ in 0..if world.has_sites() { 0 } else { size } {
            let group = GroupId(index as u64);
            let after = world.fault_rng.millis(0, late);
            world.schedule(after, Event::Fault(Fault::Join(group)));
        }
    }
    world.plan.left = world.swarm.faults;
    world.begin_with_hermit();
    if world.fault_rng.chance(world.swarm.aim_permille) {
        world.aim_at_start(false);
    }
    let first = world.fault_rng.millis(0, 4000);
    world.schedule(first, Event::Fault(Fault::Next));
    if world.swarm.healthy_group.is_some() {
        world.schedule(first, Event::Check(Promise::Healthy));
    }
}

/// The longest that a calm world may need to settle.
fn patience(world: &World) -> Duration {
    let timers = &world.swarm.timers;
    timers.rebuild_window
        + timers.detach_timeout
        + timers.verdict_timeout
        + timers.post_timeout.unwrap_or_default() * 2
        + timers.peer_timeout * 4
        + SETTLE_MARGIN
}

/// Faults are off: all processes become members, and operations commit again.
fn settle_down(world: &mut World) {
    let timers = world.swarm.timers;
    // Until then the master may still detect losses.
    let earliest = world.now + timers.peer_timeout + timers.reattach_grace;
    let mut deadline = world.now + patience(world);
    let mut refill = world.now + REFILL_INTERVAL;
    let mut forced = false;
    let before = world.stats.committed;
    while world.failure.is_none() {
        if !world.step() {
            return world.fail("nothing happens any more".into());
        }
        if is_settled(world, before) && world.now >= earliest {
            return;
        }
        if world.checkers.views_in_calm > CALM_VIEWS_MAX {
            let waits = world.who_waits();
            return world.fail(format!("views follow each other without end{waits}"));
        }
        if world.now > refill {
            refill = world.now + REFILL_INTERVAL;
            world.refill_groups();
        }
        if world.now > deadline {
            if forced || world.keeps_all() {
                let waits = world.who_waits();
                return world.fail(format!("does not settle (I9):{waits}"));
            }
            forced = true;
            operator_word(world);
            deadline = world.now + patience(world);
        }
    }
}

/// Whether enough was done and all processes are members. Injects missing faults.
fn is_settled(world: &mut World, committed_before: u64) -> bool {
    let (operations, faults) = world.stats.totals();
    if faults < FAULTS_MIN {
        world.stats.fault(super::swarm::FaultKind::JoinStorm);
        world.fault(Fault::Join(GroupId(0)));
    }
    operations >= OPERATIONS_MIN
        && faults >= FAULTS_MIN
        && world.stats.committed >= committed_before + 10
        && world.everybody_is_in(false)
}

/// Acts as the operator for a master without a journal and without a majority.
fn operator_word(world: &mut World) {
    let now = world.now;
    world
        .trace
        .line(now, format_args!("the operator forces a rebuild"));
    world.master_crash(false, None);
    world.master.force = true;
    let groups: Vec<GroupId> = world.groups().collect();
    world.checkers.broken.extend(groups);
    world.schedule(Duration::from_millis(100), Event::MasterStart);
}

/// The applications stop after two more rounds; then no call may be open.
fn finish(world: &mut World) {
    let groups: Vec<GroupId> = world.groups().collect();
    let newest = |group: &GroupId| {
        let live = world.live_hosts(*group);
        let rounds = live.filter_map(|host| world.hosts[host.0].app.round);
        rounds.max().unwrap_or(0)
    };
    let mut last: Vec<u64> = groups.iter().map(newest).collect();
    if world.has_sites() {
        // They advance together, and so they stop.
        let newest = last.iter().copied().max().unwrap_or(0);
        last.fill(newest);
    }
    for (group, last) in groups.into_iter().zip(last) {
        world.plan.stop_before(group, last + 2);
    }
    let deadline = world.now + patience(world);
    while !all_finished(world) {
        if !world.step() {
            return;
        }
        if world.now > deadline {
            world.fail(format!("calls stay open (I9):{}", world.who_waits()));
            return;
        }
    }
    come_to_rest(world);
}

fn all_finished(world: &World) -> bool {
    world.groups().all(|group| {
        world
            .live_hosts(group)
            .map(|host| &world.hosts[host.0])
            .all(|host| host.view.is_none() || host.app.finished && host.app.calls.is_empty())
    })
}

/// No calls are made: all agree on everything.
pub fn come_to_rest(world: &mut World) {
    let timers = world.swarm.timers;
    if world.sites_are_whole().is_err() {
        // One process of a host may just have left: the others have a while to leave too (R9).
        world.run_until(world.now + timers.peer_timeout);
    }
    for _ in 0..RESTS_MAX {
        await_master(world);
        if world.lacks_members() {
            // All were evicted at once: others wait for the ends of their leases (R19).
            world.run_until(world.now + timers.peer_timeout + timers.detach_timeout);
        }
        let views = world.checkers.views_in_calm;
        world.run_until(world.now + timers.heartbeat_interval * 2);
        let is_founded = !world.lacks_members();
        let is_calm = world.checkers.views_in_calm == views && is_founded;
        if is_calm && world.everybody_is_welcomed().is_ok() {
            break;
        }
    }
    if world.failure.is_none()
        && let Err(what) = world.everybody_is_welcomed()
    {
        world.fail(what);
    }
    if world.failure.is_none() && !world.everybody_is_in(true) {
        world.fail(format!("views differ at rest:{}", world.who_waits()));
    }
    if world.failure.is_none()
        && let Err(what) = world.census_is_true()
    {
        world.fail(what);
    }
    if world.failure.is_none()
        && let Err(what) = world.sites_are_whole()
    {
        world.fail(what);
    }
    if world.failure.is_none()
        && let Err(what) = world.planes_are_idle()
    {
        world.fail(what);
    }
}

/// A fault that was aimed at a message may have hit the master at the very end: its restart is due.
fn await_master(world: &mut World) {
    while !world.master.is_awake() && world.failure.is_none() {
        if !world.step() {
            return;
        }
    }
}

impl World {
    /// When no call is open, no member holds memory for what others sent.
    fn planes_are_idle(&self) -> Result<(), String> {
        let hosts = self.groups().flat_map(|group| self.live_hosts(group));
        let mut members = hosts.filter(|host| self.hosts[host.0].view.is_some());
        match members.find(|host| !self.hosts[host.0].plane.is_idle()) {
            Some(host) => Err(format!("{host:?} keeps memory of operations that are over")),
            None => Ok(()),
        }
    }

    fn absorb(&mut self) {
        self.stats.events = self.trace.events();
        if let Some(master) = &self.master.machine {
            self.stats.absorb_master(master);
        }
        for index in 0..self.hosts.len() {
            self.stats.absorb_peer(&self.hosts[index].peer);
        }
    }
}

/// Digest of several histories.
#[must_use]
pub fn fold_digests(digests: impl IntoIterator<Item = u64>) -> u64 {
    digests
        .into_iter()
        .fold(0, |sum: u64, digest| mix(sum.rotate_left(7) ^ digest))
}
