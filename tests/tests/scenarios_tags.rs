//! Runs that use more tags over time than may be in use at once: idle tags are returned (R2).

use ccl_tests::sim::cluster::HostId;
use ccl_tests::sim::hooks::{Act, Point};
use ccl_tests::sim::messages::INSTALL;
use ccl_tests::sim::scenario::{LOSE_ALL, Scenario, is_cancelled, is_committed, swarm};
use ccl_tests::sim::swarm::Disk;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);

/// Three members in a run that returns idle tags once four are in use.
fn tight(disk: Disk) -> Scenario {
    let mut swarm = swarm(disk, 3);
    swarm.tags_kept = 4;
    let mut s = Scenario::empty(swarm);
    s.found(3);
    s
}

#[test]
fn a_run_uses_any_number_of_tags() {
    let mut s = tight(Disk::Full);
    for tag in 0..40 {
        s.works(&[A, B, C], tag);
    }
    assert!(s.world.stats.returns >= 90, "{}", s.world.stats.returns);
    // Tags that were used before work too.
    for tag in 0..8 {
        s.works(&[A, B, C], tag);
    }
}

/// H36: B does not know yet that the others' operation was aborted before B called it.
#[test]
fn a_tag_is_kept_until_a_member_that_is_behind_has_made_its_calls() {
    let mut s = tight(Disk::Full);
    let cancelled = s.call(0, 20);
    let calls = s.post_all(&[A, C], &cancelled);
    s.pass_ms(20);
    s.world.app_cancel(A);
    s.ends(&[A, C], &calls);
    for tag in 1..10 {
        s.works(&[A, B, C], tag);
    }
    let late = s.post(B, &cancelled);
    assert!(is_cancelled(&s.end_of(B, late)));
    s.works(&[A, B, C], 0);
}

/// H37: the view that returns tags does not reach B, and in the next view an operation with the new
/// count is aborted before B comes back.
#[test]
fn who_missed_the_view_that_gave_tags_back_counts_like_the_others() {
    for disk in [Disk::Full, Disk::LazyLost, Disk::None] {
        for restarts in [false, true] {
            let mut s = tight(disk);
            for tag in 0..3 {
                s.works(&[A, B, C], tag);
            }
            let lose = Act::Break {
                host: B,
                how: LOSE_ALL,
            };
            s.when((Point::MasterSends, INSTALL), Some(B), lose);
            let fourth = s.call(3, 20);
            let fourth_calls = s.post_all(&[A, B, C], &fourth);
            s.until("the view that gives tags back", |world| {
                world.stats.returns >= 6
            });
            let again = s.call(0, 20);
            let calls = s.post_all(&[A, C], &again);
            s.world.app_cancel_call(A, calls[0]);
            if restarts {
                s.restart_master(300);
            }
            let endings = s.ends(&[A, B, C], &fourth_calls);
            assert!(endings.iter().all(is_committed), "{endings:?}");
            let endings = s.ends(&[A, C], &calls);
            assert!(endings.iter().all(is_cancelled), "{endings:?}");
            let late = s.post(B, &again);
            assert!(is_cancelled(&s.end_of(B, late)));
            for tag in 0..8 {
                s.works(&[A, B, C], tag);
            }
        }
    }
}
