//! View changes: what is reported, what waits, and when outcomes are returned (R3–R6).

use super::*;

#[test]
fn nothing_is_posted_between_flush_and_install() {
    // H11
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.post(1, 0);
    assert!(fixture.drain().is_empty());
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2])));
    let outputs = fixture.drain();
    assert_eq!(started(&outputs), [op(0, 0, 2)]);
    assert_eq!(words(&outputs), ["Links", "View", "Installed", "StartOp"]);
}

#[test]
fn posts_are_taken_from_install_on() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2])));
    fixture.drain();
    fixture.post_and_hold(1, op(0, 0, 2));
    assert_eq!(words(&fixture.drain()), ["StartOp", "Say"]);
    fixture.commit(op(0, 0, 2), &[1, 2]);
    assert_eq!(
        words(&fixture.drain()),
        ["Committed", "StopOp"],
        "new commits are told at once"
    );
}

#[test]
fn a_result_that_comes_after_the_flush_is_still_told() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    fixture.tell(Input::Held(op(0, 0, 1)));
    assert_eq!(words(&fixture.drain()), ["Done"]);
    let mut change = install(2, &[1, 2, 3]);
    change.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(change));
    let told = sent(fixture.drain());
    let [PeerToMaster::Installed { report, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(
        report.tags[0].open.as_ref().unwrap().held,
        "and restated in Installed"
    );
    assert_eq!(report.carried.len(), 1);
}

#[test]
fn a_report_says_the_newest_commit_of_a_tag() {
    // H4: forgetting a committed operation must not read as not holding it.
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.drain();
    let report = fixture.suspend(1);
    assert_eq!(report.tags.len(), 1);
    assert_eq!(report.tags[0].floor, OpNumber(1));
    assert_eq!(report.tags[0].last_committed, Some(OpNumber(0)));
    assert!(report.tags[0].open.is_none());
    assert!(report.released);
}

#[test]
fn verdicts_of_a_change_wait_for_its_release_over_a_second_change() {
    // H1, H8
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    let report = fixture.suspend(2);
    assert!(!report.released);
    assert_eq!(report.tags[0].floor, OpNumber(1));
    let mut change = install(3, &[2]);
    change.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(change));
    assert!(ends(&fixture.drain()).is_empty());
    fixture.hear(MasterToPeer::Release { vid: vid(3) });
    assert_eq!(words(&fixture.drain()), ["Aborted"]);
}

#[test]
fn a_carried_operation_keeps_its_name_and_commits_in_the_new_view() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2, 3, 4]);
    change.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(change));
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.drain();
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
    fixture.post(2, 0);
    assert_eq!(
        started(&fixture.drain()),
        [op(0, 1, 2)],
        "the next is born in the new view"
    );
}

#[test]
fn a_repeated_suspend_is_flushed_again() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.suspend(1);
}

#[test]
fn a_release_of_a_view_that_is_past_means_nothing() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2])));
    fixture.drain();
    fixture.hear(MasterToPeer::Release { vid: vid(1) });
    assert!(fixture.drain().is_empty());
    let report = fixture.suspend(2);
    assert!(!report.released);
}
