//! Records that are given while views, members and masters change (docs/protocol.md, R17).
//!
//! Each scenario sets one trap. The checkers of every script add: what is told of a step is the
//! same at all members, in order, chained, and what its members gave.

use std::time::Duration;

use ccl_core::ids::{CallId, Step, StreamId};
use ccl_core::peer::{End, SessionEnd};
use ccl_core::wire::control::{EvictReason, RecordRule};
use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::{ENTERED, INSTALL, RECORDED, RECORDS_HELD};
use ccl_tests::sim::scenario::{self, LOSE_ALL, Scenario};
use ccl_tests::sim::swarm::Disk;
use ccl_tests::sim::workload::Ending;

const S: StreamId = StreamId(1);

/// Waits for all.
const STRICT: RecordRule = RecordRule {
    deadline_ms: None,
    quorum: 0,
    grace_ms: 0,
    age_max: 0,
};

/// Waits for so long.
const fn within(deadline_ms: u32) -> RecordRule {
    RecordRule {
        deadline_ms: Some(deadline_ms),
        ..STRICT
    }
}

fn hosts(count: usize) -> Vec<HostId> {
    (0..count).map(HostId).collect()
}

fn enter(run: &mut Scenario, host: HostId, rule: RecordRule) -> CallId {
    let payload = vec![host.0 as u8 + 1];
    run.world.app_enter(host, S, (payload, rule))
}

fn enter_all(run: &mut Scenario, hosts: &[HostId], rule: RecordRule) -> Vec<CallId> {
    hosts.iter().map(|host| enter(run, *host, rule)).collect()
}

/// The step that a call was told, and who had given what: first byte and age.
fn told(ending: &Ending) -> (u64, Vec<(u8, u32)>) {
    let Ending::End(End::Recorded { record, .. }) = ending else {
        panic!("a step ended as {ending:?}");
    };
    let entries = record.entries.iter();
    // Hosts are not admitted in the order of their names.
    let mut gave: Vec<_> = entries.map(|entry| (entry.payload[0], entry.age)).collect();
    gave.sort_unstable();
    (record.step.0, gave)
}

fn told_of(run: &mut Scenario, hosts: &[HostId], calls: &[CallId]) -> (u64, Vec<(u8, u32)>) {
    let ends = run.ends(hosts, calls);
    let first = told(&ends[0]);
    assert!(ends.iter().all(|ending| told(ending) == first), "{ends:?}");
    first
}

/// All members go through one more step, and all of them are in its record.
fn goes_on(run: &mut Scenario, hosts: &[HostId]) -> u64 {
    let calls = enter_all(run, hosts, STRICT);
    let (step, gave) = told_of(run, hosts, &calls);
    assert_eq!(gave.len(), hosts.len(), "step {step}");
    step
}

/// R17: one round trip with a journal, two without.
#[test]
fn a_record_takes_one_round_trip_with_a_journal_and_two_without() {
    for (disk, longest) in [(Disk::Full, 5), (Disk::None, 9)] {
        let mut run = Scenario::with(3, disk);
        let begin = run.world.now;
        assert_eq!(goes_on(&mut run, &hosts(3)), 0);
        let took = run.world.now - begin;
        assert!(
            took <= Duration::from_millis(longest),
            "{took:?} with {disk:?}"
        );
        let is_one = took <= Duration::from_millis(4);
        assert_eq!(is_one, disk == Disk::Full, "{took:?} with {disk:?}");
    }
}

/// H72: the record is on disk, nobody was told, and the master dies. Also with every member's entry
/// changed by a loss meanwhile.
#[test]
fn a_record_that_was_sealed_and_not_sent_is_told_by_the_next_master() {
    for with_loss in [false, true] {
        let mut run = Scenario::with_members(3);
        let act = Act::CrashMaster {
            words: 0,
            restart: Duration::from_millis(300),
        };
        run.when((Point::MasterSends, RECORDED), None, act);
        let all = hosts(3);
        let calls = enter_all(&mut run, &all, STRICT);
        if with_loss {
            run.pass_ms(10);
            run.world.crash(HostId(2), Some(0));
        }
        let left = if with_loss { 2 } else { 3 };
        let record = told_of(&mut run, &all[..left], &calls[..left]);
        assert_eq!(record, (0, vec![(1, 0), (2, 0), (3, 0)]));
        assert_eq!(goes_on(&mut run, &all[..left]), 1);
    }
}

/// The master dies with entries that it has heard and not sealed: they are facts.
#[test]
fn entries_are_said_again_to_the_next_master() {
    for disk in [Disk::Full, Disk::None] {
        let mut run = Scenario::with(3, disk);
        let all = hosts(3);
        let mut calls = enter_all(&mut run, &all[..2], STRICT);
        run.pass_ms(50);
        run.restart_master(300);
        run.pass_ms(5000);
        calls.push(enter(&mut run, HostId(2), STRICT));
        let (step, gave) = told_of(&mut run, &all, &calls);
        assert_eq!((step, gave.len()), (0, 3));
    }
}

/// No view change aborts a step; who is lost gives nothing.
#[test]
fn a_step_survives_the_loss_of_a_member_and_an_admission() {
    let mut run = Scenario::with_members(3);
    let all = hosts(3);
    let calls = enter_all(&mut run, &all[..2], STRICT);
    run.pass_ms(20);
    run.world.crash(HostId(2), Some(0));
    let record = told_of(&mut run, &all[..2], &calls);
    assert_eq!(record, (0, vec![(1, 0), (2, 0)]));
    let newcomer = run.join();
    run.pass_ms(300);
    run.admit(&all[..2], newcomer);
    assert_eq!(goes_on(&mut run, &[HostId(0), HostId(1), newcomer]), 1);
}

/// A deadline ends the wait for one that is silent, and holds in a view change.
#[test]
fn nobody_waits_longer_than_a_deadline() {
    let mut run = Scenario::with_members(3);
    let all = hosts(3);
    run.world.freeze(HostId(2), Duration::from_millis(1500));
    for step in 0..3 {
        let begin = run.world.now;
        let calls = enter_all(&mut run, &all[..2], within(200));
        let record = told_of(&mut run, &all[..2], &calls);
        assert_eq!(record, (step, vec![(1, 0), (2, 0)]));
        assert!(run.world.now - begin < Duration::from_millis(250));
    }
    run.pass_ms(1500);
    for step in 0..3 {
        let call = enter(&mut run, HostId(2), within(200));
        let ending = run.end_of(HostId(2), call);
        assert_eq!(
            told(&ending),
            (step, vec![(1, 0), (2, 0)]),
            "late, and in order"
        );
    }
    assert_eq!(goes_on(&mut run, &all), 3);
}

/// H75: a late entry is in one later record, however often it is said.
#[test]
fn a_late_entry_is_in_one_later_record() {
    let mut run = Scenario::with_members(3);
    let all = hosts(3);
    let lenient = RecordRule {
        age_max: 3,
        ..within(100)
    };
    let calls = enter_all(&mut run, &all[..2], lenient);
    told_of(&mut run, &all[..2], &calls);
    let late = enter(&mut run, HostId(2), lenient);
    assert_eq!(told(&run.end_of(HostId(2), late)).0, 0);
    let calls = enter_all(&mut run, &all[..2], lenient);
    run.break_control(HostId(2));
    let record = told_of(&mut run, &all[..2], &calls);
    run.pass_ms(500);
    run.restart_master(300);
    run.pass_ms(3000);
    let calls = enter_all(&mut run, &all[..2], lenient);
    let next = told_of(&mut run, &all[..2], &calls);
    let aged = |(_, gave): &(u64, Vec<(u8, u32)>)| gave.iter().filter(|(_, age)| *age > 0).count();
    assert_eq!(aged(&record) + aged(&next), 1, "{record:?}, then {next:?}");
}

/// H27, H76: without a journal what was told survives the master and any minority.
#[test]
fn without_a_journal_a_record_that_was_told_survives_the_master_and_a_member() {
    for words in [0, 500, 1000] {
        let mut run = Scenario::with(3, Disk::None);
        let all = hosts(3);
        let act = Act::Break {
            host: HostId(2),
            how: LOSE_ALL,
        };
        run.when((Point::AtMaster, RECORDS_HELD), Some(HostId(0)), act);
        let calls = enter_all(&mut run, &all, STRICT);
        let first = told_of(&mut run, &all[..2], &calls[..2]);
        run.world.crash(HostId(0), Some(words));
        run.world.master_crash(false, Some(words));
        run.pass_ms(300);
        run.world.master_start();
        assert_eq!(told_of(&mut run, &all[1..], &calls[1..]), first);
        assert_eq!(goes_on(&mut run, &all[1..]), 1);
    }
}

/// Without a journal the word of one member is not enough: it may die with the master.
#[test]
fn without_a_journal_callers_wait_for_a_majority() {
    let mut run = Scenario::with(3, Disk::None);
    let all = hosts(3);
    for host in [HostId(1), HostId(2)] {
        let act = Act::Block {
            host,
            up: true,
            down: false,
        };
        run.when((Point::AtMaster, ENTERED), Some(host), act);
    }
    let calls = enter_all(&mut run, &all, STRICT);
    run.pass_ms(200);
    assert!(
        calls
            .iter()
            .zip(&all)
            .all(|(call, host)| run.ending(*host, *call).is_none())
    );
    run.world.block_control(HostId(1), Some(false), Some(false));
    run.world.block_control(HostId(2), Some(false), Some(false));
    assert_eq!(told_of(&mut run, &all, &calls).0, 0);
}

/// H73: without a journal nothing is told between a view and its release.
#[test]
fn without_a_journal_nothing_is_told_before_the_view_is_released() {
    let mut run = Scenario::with(3, Disk::None);
    let all = hosts(3);
    let block = |run: &mut Scenario, is_blocked| {
        run.world
            .block_control(HostId(1), Some(is_blocked), Some(is_blocked));
    };
    let calls = enter_all(&mut run, &all[..2], STRICT);
    run.pass_ms(20);
    run.world.app_leave(HostId(2));
    run.when(
        (Point::MasterSends, INSTALL),
        Some(HostId(1)),
        Act::Block {
            host: HostId(1),
            up: true,
            down: true,
        },
    );
    run.pass_ms(500);
    assert_eq!(run.ending(HostId(0), calls[0]), None);
    block(&mut run, false);
    let record = told_of(&mut run, &all[..2], &calls);
    assert_eq!(record.0, 0);
}

/// H74: a newcomer that learns late of its admission counts from there.
#[test]
fn a_newcomer_begins_where_it_was_admitted_however_late_it_learns_of_it() {
    let mut run = Scenario::with_members(2);
    let all = hosts(2);
    goes_on(&mut run, &all);
    let newcomer = run.join();
    run.pass_ms(300);
    let act = Act::Break {
        host: newcomer,
        how: LOSE_ALL,
    };
    run.when((Point::MasterSends, INSTALL), Some(newcomer), act);
    let points: Vec<_> = all.iter().map(|host| run.safe_point(*host)).collect();
    run.until("the view with the newcomer", |world| {
        all.iter().all(|host| scenario::size(world, *host) == 3)
    });
    // Sealed without it, while it attaches again.
    let calls = enter_all(&mut run, &all, within(2));
    assert_eq!(told_of(&mut run, &all, &calls).0, 1);
    run.ends(&all, &points);
    run.until("the newcomer's first view", |world| {
        scenario::size(world, newcomer) == 3
    });
    let call = enter(&mut run, newcomer, within(100));
    assert_eq!(told(&run.end_of(newcomer, call)).0, 1, "its first step");
    assert_eq!(goes_on(&mut run, &[HostId(0), HostId(1), newcomer]), 2);
}

/// Its entry crosses the record that was sealed at the deadline.
#[test]
fn an_entry_that_crosses_its_record_is_answered_by_it() {
    let mut run = Scenario::with_members(2);
    let first = enter(&mut run, HostId(0), within(50));
    let now = run.world.now;
    run.until("the record", |world| {
        world.now - now >= Duration::from_millis(51)
    });
    let second = enter(&mut run, HostId(1), within(50));
    let record = told_of(&mut run, &hosts(2), &[first, second]);
    assert_eq!(record, (0, vec![(1, 0)]));
    assert_eq!(goes_on(&mut run, &hosts(2)), 1);
}

/// Whoever consumes nothing is evicted before the others keep too much for it.
#[test]
fn whoever_consumes_nothing_is_evicted() {
    let mut run = Scenario::with_members(3);
    let all = hosts(3);
    let rule = RecordRule {
        quorum: 2,
        ..STRICT
    };
    let payload = vec![7; 4096];
    let mut steps = 0;
    while run.world.hosts[2].ended.is_none() {
        let calls = all[..2].iter();
        let calls: Vec<_> = calls
            .map(|host| run.world.app_enter(*host, S, (payload.clone(), rule)))
            .collect();
        run.ends(&all[..2], &calls);
        steps += 1;
        assert!(steps < 100);
    }
    let end = run.session_end(HostId(2));
    let SessionEnd::Evicted(eviction) = &end else {
        panic!("{end:?}");
    };
    assert!(matches!(
        eviction.reason,
        EvictReason::RecordsBehind {
            stream: S,
            steps: 60..70
        }
    ));
    run.view_of(&all[..2]);
    assert_eq!(Step(goes_on(&mut run, &all[..2])), Step(steps));
}

/// A caller whose session ends cannot know whether what it gave is in a record.
#[test]
fn the_end_of_a_session_ends_its_steps_as_unknown() {
    let mut run = Scenario::with_members(2);
    let call = enter(&mut run, HostId(0), STRICT);
    run.when(
        (Point::HostSends, ENTERED),
        None,
        Act::Leave { host: HostId(0) },
    );
    let other = enter(&mut run, HostId(1), STRICT);
    let ending = run.end_of(HostId(0), call);
    assert!(matches!(ending, Ending::End(End::Unknown { .. })) || told(&ending).0 == 0);
    assert_eq!(told(&run.end_of(HostId(1), other)).0, 0);
}

/// Bugs that seeds do not notice: they cost time, or need a master without a journal and a member
/// to die in one round trip.
#[cfg(ccl_mutations)]
#[test]
fn bugs_that_seeds_do_not_notice_are_noticed() {
    use ccl_core::mutation::{Mutation, activate};

    let scripts: [(Mutation, fn()); 4] = [
        (
            Mutation::RecordDeadlineIgnored,
            nobody_waits_longer_than_a_deadline,
        ),
        (
            Mutation::RecordToldAlone,
            a_record_takes_one_round_trip_with_a_journal_and_two_without,
        ),
        (
            Mutation::RecordReleasedByOne,
            without_a_journal_callers_wait_for_a_majority,
        ),
        (
            Mutation::AdmissionWithoutSteps,
            a_newcomer_begins_where_it_was_admitted_however_late_it_learns_of_it,
        ),
    ];
    assert_eq!(
        scripts.map(|(mutation, _)| mutation),
        ccl_tests::sim::mutations::SCRIPTED[8..]
    );
    for (mutation, script) in scripts {
        activate(Some(mutation));
        let noticed = std::panic::catch_unwind(script).is_err();
        activate(None);
        assert!(noticed, "{mutation:?}");
    }
}
