//! Scripted runs: the same world as a seed's, with scripted faults and calls.
//!
//! Delays are short and even unless a script says otherwise. All checkers run in every script; a
//! failing one prints the last events.

use std::time::Duration;

use ccl_core::Timers;
use ccl_core::collective::layout::Part;
use ccl_core::ids::{CallId, GroupId, Tag};
use ccl_core::peer::{End, SessionEnd};
use ccl_core::wire::control::{AbortReason, EvictReason, Fingerprint};
use ccl_core::{Dtype, Kind, ReduceOp};

use super::cluster::{HostId, World};
use super::hooks::{Act, Hook, Point};
use super::network::Break;
use super::program::{self, Logical, Twist};
use super::swarm::{Disk, Swarm};
use super::trace::Trace;
use super::workload::{App, Ending};

/// A scripted run.
#[derive(Debug)]
pub struct Scenario {
    /// The world.
    pub world: World,
    next_logical: u64,
}

/// Longest wait of a script.
const PATIENCE: Duration = Duration::from_secs(90);

impl Scenario {
    /// A world of one group, whose members are in one view.
    #[must_use]
    pub fn with_members(members: usize) -> Self {
        Self::with(members, Disk::Full)
    }

    /// The same, with this disk of the master.
    #[must_use]
    pub fn with(members: usize, disk: Disk) -> Self {
        let mut scenario = Self::empty(swarm(disk, members as u32));
        scenario.found(members);
        scenario
    }

    /// A world in which no process has started yet.
    #[must_use]
    pub fn empty(swarm: Swarm) -> Self {
        Self {
            world: World::new(swarm, Trace::new(true, false)),
            next_logical: 1,
        }
    }

    /// Starts members and waits for their view. Later views need one member only.
    pub fn found(&mut self, members: usize) {
        let hosts: Vec<HostId> = (0..members).map(|_| self.join()).collect();
        self.until("the first view", |world| {
            hosts.iter().all(|host| size(world, *host) == members)
        });
        self.world.swarm.min_worlds[0] = 1;
    }

    /// A newcomer starts.
    pub fn join(&mut self) -> HostId {
        self.join_group(0)
    }

    /// Another process of a host's machine starts, which listens on another port.
    pub fn join_beside(&mut self, host: HostId) -> HostId {
        let host = &self.world.hosts[host.0];
        let (group, mut address) = (host.group, host.address);
        address.set_port(address.port() + 1);
        self.world.spawn(group, Some(address), App::scripted())
    }

    /// A newcomer of a group starts.
    pub fn join_group(&mut self, group: u64) -> HostId {
        self.world.spawn(GroupId(group), None, App::scripted())
    }

    /// A new all-reduce of this many floats.
    pub fn call(&mut self, tag: u64, count: u64) -> Logical {
        self.call_of(Kind::AllReduce, tag, count)
    }

    /// A new collective.
    pub fn call_of(&mut self, kind: Kind, tag: u64, count: u64) -> Logical {
        let parts = vec![Part {
            dtype: Dtype::F32,
            count,
        }];
        let fingerprint = Fingerprint::new(program::called(kind, ReduceOp::Sum, &parts));
        self.next_logical += 1;
        Logical {
            id: self.next_logical,
            tag: Tag(tag),
            fingerprint,
            parts,
            in_place: true,
            asynchronous: false,
            twist: None,
            late: 0,
        }
    }

    /// A host makes a call.
    pub fn post(&mut self, host: HostId, call: &Logical) -> CallId {
        self.world.app_post(host, call.clone(), 1)
    }

    /// Several hosts make the same call.
    pub fn post_all(&mut self, hosts: &[HostId], call: &Logical) -> Vec<CallId> {
        hosts.iter().map(|host| self.post(*host, call)).collect()
    }

    /// A host makes a call with a deadline, or one that differs from the others'.
    pub fn post_twisted(&mut self, host: HostId, call: &Logical, twist: Twist) -> CallId {
        self.world
            .app_post_twisted(host, call.clone(), (1, Some(twist)))
    }

    /// A host calls its next safe point.
    pub fn safe_point(&mut self, host: HostId) -> CallId {
        self.world.app_safe_point(host)
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.world.run_until(self.world.now + time);
        self.check();
    }

    /// Lets time pass, in milliseconds.
    pub fn pass_ms(&mut self, millis: u64) {
        self.pass(Duration::from_millis(millis));
    }

    /// Runs until a condition is true.
    pub fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        let deadline = self.world.now + PATIENCE;
        while !done(&self.world) {
            if self.world.now > deadline || !self.world.step() {
                self.check();
                let waits = self.world.who_waits();
                self.fail(&format!("waited in vain for {what}:{waits}"));
            }
        }
        self.check();
    }

    /// Schedules an act for when a message passes a point.
    pub fn when(&mut self, (point, kind): (Point, u64), host: Option<HostId>, act: Act) {
        self.world.hooks.push(Hook {
            point,
            kind,
            host,
            skip: 0,
            act,
            done: false,
        });
    }

    /// How a call ended, if it has.
    #[must_use]
    pub fn ending(&self, host: HostId, call: CallId) -> Option<&Ending> {
        let endings = &self.world.hosts[host.0].app.endings;
        endings
            .iter()
            .find_map(|(ended, ending)| (*ended == call).then_some(ending))
    }

    /// Waits for the end of a call.
    pub fn end_of(&mut self, host: HostId, call: CallId) -> Ending {
        self.until(&format!("the end of call {call} at {host:?}"), |world| {
            let endings = &world.hosts[host.0].app.endings;
            endings.iter().any(|(ended, _)| *ended == call)
        });
        self.ending(host, call).cloned().expect("it was waited for")
    }

    /// Waits for the ends of one call at several hosts.
    pub fn ends(&mut self, hosts: &[HostId], calls: &[CallId]) -> Vec<Ending> {
        let pairs: Vec<_> = hosts.iter().copied().zip(calls.iter().copied()).collect();
        pairs
            .into_iter()
            .map(|(host, call)| self.end_of(host, call))
            .collect()
    }

    /// Several hosts call something new, and it commits: the group works.
    pub fn works(&mut self, hosts: &[HostId], tag: u64) {
        let call = self.call(tag, 20);
        let calls = self.post_all(hosts, &call);
        for ending in self.ends(hosts, &calls) {
            if !is_committed(&ending) {
                self.fail(&format!("the group does not work: {ending:?}"));
            }
        }
    }

    /// Members call safe points until a newcomer is one of them.
    pub fn admit(&mut self, members: &[HostId], newcomer: HostId) {
        for _ in 0..4 {
            let calls: Vec<CallId> = members.iter().map(|host| self.safe_point(*host)).collect();
            self.ends(members, &calls);
            if size(&self.world, newcomer) > members.len() {
                return;
            }
            self.pass_ms(300);
        }
        self.fail("the newcomer is not let in");
    }

    /// Waits until these hosts are the members of one view.
    pub fn view_of(&mut self, hosts: &[HostId]) {
        self.until(&format!("a view of {hosts:?}"), |world| {
            let vid = world.hosts[hosts[0].0].vid();
            hosts
                .iter()
                .all(|host| size(world, *host) == hosts.len() && world.hosts[host.0].vid() == vid)
        });
    }

    /// Waits until a session is over.
    pub fn session_end(&mut self, host: HostId) -> SessionEnd {
        self.until(&format!("the end of {host:?}"), |world| {
            world.hosts[host.0].ended.is_some()
        });
        self.world.hosts[host.0]
            .ended
            .clone()
            .expect("it was waited for")
    }

    /// The master's process dies and starts again.
    pub fn restart_master(&mut self, down_ms: u64) {
        self.world.master_crash(false, Some(1000));
        self.pass_ms(down_ms);
        self.world.master_start();
    }

    /// A host's control connection breaks: all under way is lost, both sides notice soon.
    pub fn break_control(&mut self, host: HostId) {
        self.world.act(Act::Break {
            host,
            how: LOSE_ALL,
        });
    }

    /// Fails if a checker has found something.
    pub fn check(&mut self) {
        if let Some(what) = self.world.failure.take() {
            self.fail(&what);
        }
    }

    /// Prints the last events and gives up.
    ///
    /// # Panics Always.
    pub fn fail(&mut self, what: &str) -> ! {
        let trace = std::mem::replace(&mut self.world.trace, Trace::new(false, false));
        for line in trace.into_lines() {
            println!("{line}");
        }
        panic!("{what}");
    }
}

/// A break that loses everything under way, noticed by both sides within milliseconds.
pub const LOSE_ALL: Break = Break {
    up_kept: 0,
    down_kept: 0,
    host_notices: Some(Duration::from_millis(3)),
    master_notices: Some(Duration::from_millis(3)),
};

/// The settings of scripts: short even delays, short timeouts, one group.
#[must_use]
pub fn swarm(disk: Disk, min_world: u32) -> Swarm {
    let millis = Duration::from_millis;
    let mut swarm = Swarm::of_lone_processes(1);
    swarm.worlds = vec![0, 0];
    swarm.min_worlds = vec![min_world, 1];
    swarm.tags = 4;
    swarm.healthy_group = None;
    swarm.timers = Timers {
        heartbeat_interval: millis(200),
        peer_timeout: millis(2000),
        reattach_grace: millis(1000),
        blame_window: millis(300),
        link_timeout: millis(1000),
        rebuild_window: millis(2000),
        detach_timeout: millis(12_000),
        verdict_timeout: millis(6000),
        post_timeout: Some(millis(8000)),
    };
    swarm.disk = disk;
    swarm.new_run = true;
    swarm.delay = (millis(1), millis(2));
    swarm.tail_permille = 0;
    swarm.fsync = Duration::ZERO;
    swarm.lanes = 2;
    swarm.planned_permille = 0;
    swarm
}

/// Number of members of a host's view; 0 before the first.
#[must_use]
pub fn size(world: &World, host: HostId) -> usize {
    world.hosts[host.0]
        .view
        .as_ref()
        .map_or(0, |view| view.members.len())
}

/// Whether a call succeeded.
#[must_use]
pub fn is_committed(ending: &Ending) -> bool {
    matches!(ending, Ending::End(End::Committed { .. }))
}

/// Whether a call was aborted because a member was lost.
#[must_use]
pub fn is_lost(ending: &Ending) -> bool {
    abort_of(ending).is_some_and(|reason| matches!(reason, AbortReason::Lost { .. }))
}

/// Whether a call was aborted because a member asked for it.
#[must_use]
pub fn is_cancelled(ending: &Ending) -> bool {
    abort_of(ending).is_some_and(|reason| matches!(reason, AbortReason::Cancelled { .. }))
}

/// Whether the outcome of a call cannot be known.
#[must_use]
pub fn is_unknown(ending: &Ending) -> bool {
    matches!(ending, Ending::End(End::Unknown { .. }))
}

/// Why a call was aborted, if it was.
#[must_use]
pub fn abort_of(ending: &Ending) -> Option<&AbortReason> {
    match ending {
        Ending::End(End::Aborted { reason, .. }) => Some(reason),
        _ => None,
    }
}

/// Whether a session ended by an eviction.
#[must_use]
pub fn is_evicted(end: &SessionEnd, why: impl Fn(&EvictReason) -> bool) -> bool {
    matches!(end, SessionEnd::Evicted(eviction) if why(&eviction.reason))
}
