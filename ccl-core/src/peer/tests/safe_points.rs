//! Numbered safe points (R9, H10).

use super::*;

fn at(fixture: &mut Fixture, call: u64) {
    fixture.tell(Input::SafePoint {
        call: CallId(call),
        deadline: None,
    });
}

#[test]
fn a_safe_point_is_numbered_and_released_unchanged() {
    let mut fixture = Fixture::steady();
    for k in 0..2 {
        at(&mut fixture, k);
        assert_eq!(
            sent(fixture.drain()),
            [PeerToMaster::AtSafePoint { k, ahead: 0 }]
        );
        fixture.hear(MasterToPeer::SafeReleased { k, vid: vid(1) });
        let ends = ends(&fixture.drain());
        let [(call, End::SafePoint { view })] = &ends[..] else {
            panic!("{ends:?}")
        };
        assert_eq!((*call, view.vid), (CallId(k), vid(1)));
    }
}

#[test]
fn an_admission_is_told_with_the_release_of_its_view() {
    let mut fixture = Fixture::steady();
    at(&mut fixture, 1);
    let report = fixture.suspend(1);
    assert_eq!((report.safe_called, report.safe_released), (1, 0));
    let mut change = install(2, &[1, 2, 3, 4]);
    change.safe_released = 1;
    fixture.hear(MasterToPeer::Install(change));
    assert!(ends(&fixture.drain()).is_empty());
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let ends = ends(&fixture.drain());
    let [(_, End::SafePoint { view })] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!(view.members.len(), 4);
}

#[test]
fn a_loss_does_not_end_the_wait() {
    let mut fixture = Fixture::steady();
    at(&mut fixture, 1);
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2])));
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let outputs = fixture.drain();
    assert!(ends(&outputs).is_empty());
    let told = sent(outputs);
    let [PeerToMaster::Installed { report, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(report.safe_called, 1, "and the master hears of it again");
}

#[test]
fn a_withdrawn_safe_point_is_not_consumed() {
    let mut fixture = Fixture::steady();
    let deadline = Some(fixture.now + Duration::from_millis(10));
    fixture.tell(Input::SafePoint {
        call: CallId(1),
        deadline,
    });
    fixture.drain();
    fixture.pass(Duration::from_millis(10));
    let outputs = fixture.drain();
    assert_eq!(ends(&outputs), [(CallId(1), End::Withdrawn)]);
    assert_eq!(sent(outputs), [PeerToMaster::Withdraw { k: 0 }]);
    at(&mut fixture, 2);
    assert_eq!(
        sent(fixture.drain()),
        [PeerToMaster::AtSafePoint { k: 0, ahead: 0 }]
    );
}

#[test]
fn a_safe_point_that_was_released_after_the_withdrawal_is_answered_at_once() {
    let mut fixture = Fixture::steady();
    at(&mut fixture, 1);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    fixture.hear(MasterToPeer::SafeReleased { k: 0, vid: vid(1) });
    fixture.drain();
    at(&mut fixture, 2);
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["SafePoint"]);
    at(&mut fixture, 3);
    assert_eq!(
        sent(fixture.drain()),
        [PeerToMaster::AtSafePoint { k: 1, ahead: 0 }]
    );
}

#[test]
fn a_point_released_by_a_change_waits_for_the_release_though_it_was_turned_away_from() {
    let mut fixture = Fixture::steady();
    at(&mut fixture, 1);
    fixture.suspend(1);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    assert_eq!(ends(&fixture.drain()), [(CallId(1), End::Withdrawn)]);
    let mut change = install(2, &[1, 2, 3, 4]);
    change.safe_released = 1;
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    at(&mut fixture, 2);
    fixture.hear(MasterToPeer::SafeReleased { k: 0, vid: vid(2) });
    assert!(
        ends(&fixture.drain()).is_empty(),
        "others may not be that far"
    );
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    assert!(matches!(
        ends(&fixture.drain())[..],
        [(CallId(2), End::SafePoint { .. })]
    ));
}

/// The others' calls end with the release of the view, and so does that of a caller that withdraws
/// that late.
#[test]
fn a_point_released_by_a_change_is_not_withdrawn_any_more() {
    let mut fixture = Fixture::steady();
    at(&mut fixture, 1);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2, 3, 4]);
    change.safe_released = 1;
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    let outputs = fixture.drain();
    assert!(ends(&outputs).is_empty() && sent(outputs).is_empty());
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let ends = ends(&fixture.drain());
    let [(CallId(1), End::SafePoint { view })] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!(view.members.len(), 4);
}

#[test]
fn a_newcomer_counts_from_where_the_group_is() {
    let mut fixture = Fixture::newcomer();
    let mut first = install(7, &[1, 2]);
    first.safe_released = 5;
    first.released = true;
    fixture.hear(MasterToPeer::Install(first));
    fixture.drain();
    at(&mut fixture, 1);
    assert_eq!(
        sent(fixture.drain()),
        [PeerToMaster::AtSafePoint { k: 5, ahead: 0 }]
    );
}

#[test]
fn one_safe_point_at_a_time() {
    let mut fixture = Fixture::newcomer();
    at(&mut fixture, 1);
    assert!(
        matches!(fixture.drain()[..], [Output::Rejected { .. }]),
        "not admitted yet"
    );
    fixture.enter();
    at(&mut fixture, 2);
    fixture.drain();
    at(&mut fixture, 3);
    assert!(matches!(
        fixture.drain()[..],
        [Output::Rejected {
            call: CallId(3),
            ..
        }]
    ));
}
