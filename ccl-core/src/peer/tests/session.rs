//! Joining, leaving, being refused.

use super::*;

#[test]
fn a_peer_retries_until_there_is_a_master() {
    let mut fixture = Fixture::new();
    assert_eq!(words(&fixture.drain()), ["Connect"]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        fixture.tell(Input::ControlDown);
        let at = fixture.peer.poll_timeout().expect("it tries again");
        pauses.push(at - fixture.now);
        fixture.now = at;
        fixture.tell(Input::Timeout);
        assert_eq!(words(&fixture.drain()), ["Connect"]);
    }
    assert!(pauses[0] >= Duration::from_millis(25) && pauses[0] <= Duration::from_millis(75));
    assert!(pauses[7] >= Duration::from_millis(500) && pauses[7] <= Duration::from_millis(1500));
    fixture.tell(Input::ControlUp);
    assert_eq!(words(&fixture.drain()), ["Hello"]);
}

/// A master with a shorter heartbeat interval than usual gets the first heartbeat in time too.
#[test]
fn the_first_sign_of_life_comes_as_soon_as_the_master_wants_it() {
    let mut fixture = Fixture::new();
    fixture.tell(Input::ControlUp);
    let timers = Timers {
        heartbeat_interval: Duration::from_millis(10),
        ..Timers::default()
    };
    fixture.hear(welcome_with(timers));
    fixture.drain();
    fixture.pass(timers.heartbeat_interval);
    assert_eq!(words(&fixture.drain()), ["Ping"]);
}

#[test]
fn a_newcomer_whose_connection_breaks_attaches_and_says_again_that_it_is_ready() {
    let mut fixture = Fixture::newcomer();
    fixture.hear(MasterToPeer::Expect {
        vid: vid(1),
        members: vec![member(1)],
        newcomers: vec![member(2)],
    });
    fixture.tell(Input::LinkUp(PeerId(1)));
    fixture.drain();
    let report = fixture.reattach();
    assert_eq!(report, Report::default());
}

#[test]
fn a_newcomer_that_the_master_forgot_begins_anew() {
    let mut fixture = Fixture::newcomer();
    fixture.reattach();
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::NotAMember,
    });
    assert_eq!(words(&fixture.drain()), ["Disconnect"]);
    assert_eq!(fixture.peer.peer(), None);
    fixture.pass(Duration::from_millis(100));
    assert_eq!(words(&fixture.drain()), ["Connect"]);
    fixture.tell(Input::ControlUp);
    assert_eq!(words(&fixture.drain()), ["Hello"]);
}

/// Live peers of its unit do the same, and all meet again.
#[test]
fn a_newcomer_whose_unit_is_lost_begins_anew() {
    let lost = PeerId(1);
    for reason in [
        EvictReason::Unit(lost),
        EvictReason::Unaware,
        EvictReason::UnitTorn,
        EvictReason::UnitLeft(lost),
    ] {
        let mut fixture = Fixture::newcomer();
        fixture.hear(MasterToPeer::Evicted { reason });
        assert_eq!(words(&fixture.drain()), ["Disconnect"]);
        fixture.pass(Duration::from_millis(100));
        fixture.tell(Input::ControlUp);
        assert!(words(&fixture.drain()).contains(&"Hello".to_owned()));
    }
}

#[test]
fn a_newcomer_that_is_one_too_many_is_refused() {
    let mut fixture = Fixture::newcomer();
    let reason = "unit 7 already has all its 2 peers".to_owned();
    fixture.hear(MasterToPeer::Refused {
        reason: reason.clone(),
    });
    let outputs = fixture.drain();
    assert!(
        matches!(outputs.last(), Some(Output::Ended(SessionEnd::Refused(why))) if *why == reason)
    );
}

#[test]
fn a_refused_peer_gets_the_reason() {
    let mut fixture = Fixture::new();
    fixture.tell(Input::ControlUp);
    fixture.drain();
    let reason = "another run".to_owned();
    fixture.hear(MasterToPeer::Refused {
        reason: reason.clone(),
    });
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["Disconnect", "Ended"]);
    assert!(matches!(&outputs[1], Output::Ended(SessionEnd::Refused(why)) if *why == reason));
}

#[test]
fn leaving_cancels_what_is_open_and_waits_for_the_masters_word() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.drain();
    fixture.tell(Input::Leave { call: CallId(9) });
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["Posted", "Cancel", "Leave"]);
    fixture.post(2, 1);
    assert!(matches!(fixture.drain()[..], [Output::Rejected { .. }]));
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Left,
    });
    let outputs = fixture.drain();
    let cause = SessionEnd::Left;
    let expected = [(CallId(1), End::Unknown { cause }), (CallId(9), End::Left)];
    assert_eq!(ends(&outputs), expected);
    assert!(matches!(
        outputs.last(),
        Some(Output::Ended(SessionEnd::Left))
    ));
}

#[test]
fn leaving_ends_although_no_master_answers() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::ControlDown);
    fixture.tell(Input::Leave { call: CallId(9) });
    fixture.drain();
    fixture.pass(Timers::default().verdict_timeout);
    let outputs = fixture.drain();
    assert_eq!(ends(&outputs), [(CallId(9), End::Left)]);
}

#[test]
fn leaving_while_suspended_or_attaching_is_said_when_the_master_listens() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.tell(Input::Leave { call: CallId(9) });
    assert_eq!(words(&fixture.drain()), ["Leave"]);
    fixture.reattach();
    let mut reply = install(1, &[1, 2, 3]);
    reply.suspended = true;
    fixture.hear(MasterToPeer::Install(reply));
    assert_eq!(words(&fixture.drain()), ["Installed", "Leave"]);
}

#[test]
fn leaving_before_a_master_was_found_is_over_at_once() {
    let mut fixture = Fixture::new();
    fixture.tell(Input::Leave { call: CallId(9) });
    let outputs = fixture.drain();
    assert_eq!(ends(&outputs), [(CallId(9), End::Left)]);
}
