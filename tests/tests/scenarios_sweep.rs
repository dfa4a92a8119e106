//! A fault at every message of the protocol, in a busy run.

use std::time::Duration;

use ccl_tests::sim::cluster::{HostId, World};
use ccl_tests::sim::hooks::{Act, Hook, Point};
use ccl_tests::sim::messages::{
    AT_SAFE_POINT, ATTACH, CANCEL, COMMIT, DONE, ELECTED, EXPECT, FLUSH, HELLO, INSTALL, INSTALLED,
    POSTED, READY, RELEASE, SAFE_RELEASED, SUSPEND, WELCOME,
};
use ccl_tests::sim::network::Break;
use ccl_tests::sim::run::run_prepared;
use ccl_tests::sim::swarm::{Disk, FaultKind, Swarm};
use ccl_tests::sim::trace::Trace;

const UP: [u64; 9] = [
    HELLO,
    ATTACH,
    READY,
    POSTED,
    DONE,
    CANCEL,
    FLUSH,
    INSTALLED,
    AT_SAFE_POINT,
];
const DOWN: [u64; 8] = [
    WELCOME,
    EXPECT,
    INSTALL,
    COMMIT,
    SUSPEND,
    RELEASE,
    SAFE_RELEASED,
    ELECTED,
];

/// A small group with a few faults of its own, so that every kind of message is sent.
fn busy(seed: u64, disk: Disk) -> Swarm {
    let mut swarm = Swarm::of_lone_processes(seed);
    swarm.worlds = vec![3];
    swarm.min_worlds = vec![1];
    swarm.healthy_group = None;
    swarm.disk = disk;
    swarm.tags = 2;
    swarm.think = Duration::from_millis(60);
    swarm.faults = 4;
    swarm.fault_gap = Duration::from_millis(700);
    swarm.planned_permille = 20;
    swarm.sync_permille = 500;
    swarm.weights = vec![
        (FaultKind::Cancel, 3),
        (FaultKind::JoinStorm, 2),
        (FaultKind::ControlBreak, 2),
        (FaultKind::Leave, 1),
    ];
    swarm
}

/// The same with two hosts of two processes each, one in each of two groups.
fn busy_hosts(seed: u64, disk: Disk) -> Swarm {
    let mut swarm = busy(seed, disk);
    swarm.site = vec![0, 1];
    swarm.sites = 2;
    swarm.worlds = vec![2, 2];
    swarm.min_worlds = vec![1, 1];
    swarm.unit = 1;
    swarm
}

fn points() -> impl Iterator<Item = (Point, u64)> {
    let up = UP
        .into_iter()
        .flat_map(|kind| [(Point::HostSends, kind), (Point::AtMaster, kind)]);
    let down = DOWN
        .into_iter()
        .flat_map(|kind| [(Point::MasterSends, kind), (Point::AtHost, kind)]);
    up.chain(down)
}

fn sweep(act: impl Fn(u64) -> Act) {
    sweep_of(busy, act);
}

fn sweep_of(swarm: fn(u64, Disk) -> Swarm, act: impl Fn(u64) -> Act) {
    for (index, (point, kind)) in points().enumerate() {
        let seed = index as u64;
        let disk = [Disk::Full, Disk::LazyLost, Disk::None][index % 3];
        let mut world = World::new(swarm(seed, disk), Trace::new(true, false));
        for skip in [2, 9] {
            world.hooks.push(Hook {
                point,
                kind,
                host: None,
                skip,
                act: act(seed),
                done: false,
            });
        }
        if let Err(failure) = run_prepared(world) {
            for line in &failure.lines {
                println!("{line}");
            }
            panic!("{point:?} of message {kind}, {disk:?}: {}", failure.what);
        }
    }
}

#[test]
fn a_member_may_die_at_every_message() {
    sweep(|seed| Act::Crash {
        host: HostId(seed as usize % 3),
        words: seed * 331 % 1001,
    });
}

#[test]
fn a_member_may_hang_at_every_message() {
    sweep(|seed| Act::Freeze {
        host: HostId(seed as usize % 3),
        length: Duration::from_secs(1 + seed % 7),
    });
}

#[test]
fn a_control_connection_may_break_at_every_message() {
    sweep(|seed| Act::Break {
        host: HostId(seed as usize % 3),
        how: Break {
            up_kept: seed * 331 % 1001,
            down_kept: seed * 577 % 1001,
            host_notices: (!seed.is_multiple_of(4)).then_some(Duration::from_millis(seed % 5)),
            master_notices: (!seed.is_multiple_of(3)).then_some(Duration::from_millis(seed % 7)),
        },
    });
}

#[test]
fn the_master_may_die_at_every_message() {
    for words in [0, 400, 1000] {
        sweep(|seed| Act::CrashMaster {
            words,
            restart: Duration::from_millis(20 + 97 * seed),
        });
    }
}

#[test]
fn a_member_may_leave_at_every_message() {
    sweep(|seed| Act::Leave {
        host: HostId(seed as usize % 3),
    });
}

#[test]
fn a_process_of_a_host_may_die_at_every_message() {
    sweep_of(busy_hosts, |seed| Act::Crash {
        host: HostId(seed as usize % 4),
        words: seed * 331 % 1001,
    });
}

#[test]
fn a_process_of_a_host_may_hang_at_every_message() {
    sweep_of(busy_hosts, |seed| Act::Freeze {
        host: HostId(seed as usize % 4),
        length: Duration::from_secs(1 + seed % 7),
    });
}

#[test]
fn the_master_of_hosts_may_die_at_every_message() {
    sweep_of(busy_hosts, |seed| Act::CrashMaster {
        words: seed * 331 % 1001,
        restart: Duration::from_millis(20 + 97 * seed),
    });
}

#[test]
fn a_process_of_a_host_may_leave_at_every_message() {
    sweep_of(busy_hosts, |seed| Act::Leave {
        host: HostId(seed as usize % 4),
    });
}
