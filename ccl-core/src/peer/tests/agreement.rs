//! Verdicts among the members, without the master (R19).

use super::*;
use crate::peer::PeerToPeer;
use crate::peer::notes::DONE_DELAY;

/// Peers 1 and 3 hold an operation.
fn others_hold(fixture: &mut Fixture, op: OpName) {
    for peer in [1, 3].map(PeerId) {
        fixture.tell(said(peer, op));
    }
}

fn said(peer: PeerId, op: OpName) -> Input {
    let message = PeerToPeer::Held(op);
    Input::Said { peer, message }
}

fn contributors(end: &End) -> &[PeerId] {
    match end {
        End::Committed { contributors, .. } => contributors,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_all_members_hold_is_committed_at_once() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    others_hold(&mut fixture, op(0, 0, 1));
    assert_eq!(words(&fixture.drain()), ["StartOp"], "it is not here yet");
    fixture.tell(Input::Held(op(0, 0, 1)));
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["Say", "Committed", "StopOp"]);
    assert_eq!(contributors(&ends(&outputs)[0].1), [1, 2, 3].map(PeerId));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.pass(DONE_DELAY);
    assert!(fixture.drain().is_empty(), "the master knows it too");
}

#[test]
fn the_master_learns_it_later_and_in_one_message_for_many() {
    let mut fixture = Fixture::steady();
    for n in 0..3 {
        fixture.post_and_hold(n, op(0, n, 1));
        others_hold(&mut fixture, op(0, n, 1));
    }
    assert!(sent(fixture.drain()).is_empty());
    fixture.pass(DONE_DELAY);
    let told = sent(fixture.drain());
    let [PeerToMaster::Done(notes)] = &told[..] else {
        panic!("{told:?}")
    };
    let newest: Vec<OpName> = notes.iter().map(|note| note.op).collect();
    assert_eq!(newest, [op(0, 2, 1)], "it says all that is below");
}

#[test]
fn one_member_is_missing() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.drain();
    // Twice the same, a stranger, this peer itself, another birth, another number.
    for (peer, op) in [
        (1, op(0, 0, 1)),
        (1, op(0, 0, 1)),
        (9, op(0, 0, 1)),
        (2, op(0, 0, 1)),
        (3, op(0, 0, 2)),
        (3, op(0, 1, 1)),
    ] {
        let peer = PeerId(peer);
        fixture.tell(said(peer, op));
    }
    assert!(fixture.drain().is_empty());
    others_hold(&mut fixture, op(0, 0, 1));
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
}

#[test]
fn without_a_master_calls_go_on() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::ControlDown);
    fixture.drain();
    for n in 0..3 {
        fixture.post_and_hold(n, op(0, n, 1));
        others_hold(&mut fixture, op(0, n, 1));
        let outputs = fixture.drain();
        assert_eq!(words(&outputs), ["StartOp", "Say", "Committed", "StopOp"]);
    }
    let report = fixture.reattach();
    assert_eq!(report.tags[0].floor, OpNumber(3));
    assert_eq!(report.tags[0].last_committed, Some(OpNumber(2)));
}

/// H64: a `Held` after the report could meet a decision to abort.
#[test]
fn nothing_is_said_between_the_report_and_the_view_that_answers_it() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    let report = fixture.suspend(1);
    assert!(!report.tags[0].open.as_ref().unwrap().held);
    fixture.tell(Input::Held(op(0, 0, 1)));
    others_hold(&mut fixture, op(0, 0, 1));
    assert_eq!(words(&fixture.drain()), ["Done"], "the master decides");
    let mut change = install(2, &[1, 2, 3]);
    change.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(change));
    assert_eq!(
        words(&fixture.drain()),
        ["View", "Installed", "Say", "Committed", "StopOp"]
    );
}

#[test]
fn a_view_that_does_not_know_a_verdict_yet_does_not_take_it_back() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.suspend(1);
    others_hold(&mut fixture, op(0, 0, 1));
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
    let mut change = install(2, &[1, 2, 3]);
    change.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(change));
    let told = sent(fixture.drain());
    let [PeerToMaster::Installed { report, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(report.tags[0].floor, OpNumber(1), "the master learns it");
    assert!(report.carried.is_empty());
    fixture.post(2, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 1, 2)]);
}

/// What the master told cannot be taken back.
#[test]
fn a_view_below_what_the_master_told_is_a_contradiction() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2, 3])));
    let mut change = install(3, &[1, 2, 3]);
    change.floors = vec![floor(0, 0, None)];
    fixture.suspend(2);
    fixture.hear(MasterToPeer::Install(change));
    assert!(matches!(
        fixture.drain().last(),
        Some(Output::Ended(SessionEnd::Protocol(_)))
    ));
}

#[test]
fn a_lone_member_and_a_large_world_ask_the_master() {
    for (members, largest) in [(&[2][..], 32), (&[1, 2, 3], 2)] {
        let mut fixture = Fixture::newcomer();
        let mut first = install(1, members);
        first.costs.held_world_max = largest;
        first.released = true;
        fixture.hear(MasterToPeer::Install(first));
        fixture.drain();
        fixture.post_and_hold(1, op(0, 0, 1));
        others_hold(&mut fixture, op(0, 0, 1));
        assert_eq!(words(&fixture.drain()), ["StartOp", "Done"]);
    }
}
