//! A master that contradicts itself: its connection is dropped, or the session ends with a reason,
//! without a panic.

use super::*;
use crate::event::Event;

/// What contradicts something certain ends the session; open calls are unknown, never a verdict.
fn assert_ends(fixture: &mut Fixture, message: MasterToPeer) {
    fixture.hear(message);
    let outputs = fixture.drain();
    let Some(Output::Ended(SessionEnd::Protocol(_))) = outputs.last() else {
        panic!("{outputs:?}")
    };
    let is_unknown = |(_, end): &(CallId, End)| matches!(end, End::Unknown { .. });
    assert!(ends(&outputs).iter().all(is_unknown));
}

/// What is merely out of turn costs the connection; the next one starts from a report.
fn assert_dropped(fixture: &mut Fixture, message: MasterToPeer) {
    fixture.hear(message);
    let outputs = fixture.drain();
    let is_fault = |output: &Output| matches!(output, Output::Event(Event::ProtocolFault { .. }));
    assert!(outputs.iter().any(is_fault));
    assert!(words(&outputs).contains(&"Disconnect".to_owned()));
}

#[test]
fn a_commit_of_what_is_not_held() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.drain();
    let contributors = vec![PeerId(1)];
    let commit = CommitRecord {
        op: op(0, 0, 1),
        contributors,
        sealed: Sealed::Nothing,
    };
    assert_ends(&mut fixture, MasterToPeer::Commit(vec![commit]));
}

#[test]
fn a_commit_of_what_was_never_called_or_lies_ahead() {
    for n in [0, 1] {
        let mut fixture = Fixture::steady();
        let commit = CommitRecord {
            op: op(0, n, 1),
            contributors: Vec::new(),
            sealed: Sealed::Nothing,
        };
        assert_ends(&mut fixture, MasterToPeer::Commit(vec![commit]));
    }
}

#[test]
fn a_commit_under_another_name() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    let commit = CommitRecord {
        op: op(0, 0, 0),
        contributors: Vec::new(),
        sealed: Sealed::Nothing,
    };
    assert_ends(&mut fixture, MasterToPeer::Commit(vec![commit]));
}

#[test]
fn a_view_from_the_past() {
    // H7: a lower term is older, whatever its epoch.
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut past = install(9, &[1, 2, 3]);
    past.vid.term = Term(0);
    assert_ends(&mut fixture, MasterToPeer::Install(past));
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut later = install(0, &[1, 2, 3]);
    later.vid.term = Term(2);
    fixture.hear(MasterToPeer::Install(later));
    assert!(words(&fixture.drain()).contains(&"Installed".to_owned()));
}

#[test]
fn a_floor_that_falls() {
    // H8
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 0, None)];
    assert_ends(&mut fixture, MasterToPeer::Install(change));
}

#[test]
fn another_commit_below_the_same_floor() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    assert_ends(&mut fixture, MasterToPeer::Install(change));
}

#[test]
fn a_commit_by_floor_of_what_is_not_held() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, Some(0))];
    assert_ends(&mut fixture, MasterToPeer::Install(change));
}

#[test]
fn an_open_operation_that_is_neither_decided_nor_carried() {
    // I5
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    assert_ends(&mut fixture, MasterToPeer::Install(install(2, &[1, 2])));
}

#[test]
fn an_operation_carried_under_another_birth_or_with_other_members() {
    // I3
    for wrong in [
        carried(op(0, 0, 0), &[1, 2, 3]),
        carried(op(0, 0, 1), &[1, 2]),
    ] {
        let mut fixture = Fixture::steady();
        fixture.post(1, 0);
        fixture.suspend(1);
        let mut change = install(2, &[1, 2, 3]);
        change.carried = vec![wrong];
        assert_ends(&mut fixture, MasterToPeer::Install(change));
    }
}

#[test]
fn views_that_cannot_be() {
    let spoil: [fn(&mut Install); 7] = [
        |view| view.members.retain(|member| member.peer != ME),
        |view| view.members.swap(0, 1),
        |view| view.ring_order = vec![Rank(0), Rank(0), Rank(1)],
        |view| view.ring_order.clear(),
        |view| view.floors = vec![floor(0, 0, Some(0))],
        |view| view.floors = vec![floor(0, u64::MAX, None)],
        |view| view.floors = vec![floor(0, 1, None), floor(0, 1, None)],
    ];
    for spoil in spoil {
        let mut fixture = Fixture::newcomer();
        let mut view = install(1, &[1, 2, 3]);
        spoil(&mut view);
        assert_ends(&mut fixture, MasterToPeer::Install(view));
    }
}

#[test]
fn a_safe_point_that_is_taken_back() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::SafePoint {
        call: CallId(1),
        deadline: None,
    });
    fixture.hear(MasterToPeer::SafeReleased { k: 0, vid: vid(1) });
    fixture.suspend(1);
    assert_ends(&mut fixture, MasterToPeer::Install(install(2, &[1, 2])));
}

#[test]
fn the_same_view_with_other_members() {
    let mut fixture = Fixture::steady();
    fixture.reattach();
    assert_ends(&mut fixture, MasterToPeer::Install(install(1, &[1, 2])));
}

#[test]
fn messages_out_of_turn_cost_the_connection() {
    let install = install(2, &[1, 2]);
    let out_of_turn = [
        MasterToPeer::Install(install),
        MasterToPeer::Suspend { vid: vid(2) },
        MasterToPeer::Release { vid: vid(2) },
        MasterToPeer::SafeReleased { k: 0, vid: vid(2) },
        MasterToPeer::SafeReleased {
            k: 700,
            vid: vid(1),
        },
        MasterToPeer::Summon,
        MasterToPeer::Welcome {
            run_id: RunId(1),
            session: SessionId(1),
            peer: PeerId(9),
            term: Term(1),
            timers: Timers::default(),
            others: OtherGroups::default(),
            waits: None,
        },
    ];
    for message in out_of_turn {
        let mut fixture = Fixture::steady();
        assert_dropped(&mut fixture, message);
        fixture.pass(Duration::from_millis(100));
        fixture.tell(Input::ControlUp);
        assert!(words(&fixture.drain()).contains(&"Here".to_owned()));
    }
}

#[test]
fn only_the_reply_may_follow_an_attach() {
    let mut fixture = Fixture::steady();
    fixture.reattach();
    assert_dropped(&mut fixture, MasterToPeer::Suspend { vid: vid(1) });
}
