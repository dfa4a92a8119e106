//! The peer's process does not run for a while (R20).

use super::*;
use crate::timers::Timers;

fn timers() -> Timers {
    Timers::default()
}

/// The process is paused; then its timer fires first.
fn stand_still(fixture: &mut Fixture, pause: Duration) {
    fixture.now = fixture.now + pause;
    fixture.tell(Input::Timeout);
}

#[test]
fn a_pause_is_not_the_masters_silence() {
    let mut fixture = Fixture::steady();
    for pause in [timers().peer_timeout, timers().detach_timeout * 3] {
        stand_still(&mut fixture, pause);
        assert_eq!(
            words(&fixture.drain()),
            ["Ping"],
            "it says that it is alive"
        );
        fixture.pass(timers().peer_timeout / 2);
        let pong = MasterToPeer::Pong {
            term: Term(1),
            others: OtherGroups::default(),
            waits: None,
        };
        fixture.hear(pong);
        fixture.pass(timers().peer_timeout - Duration::from_millis(1));
        assert!(!words(&fixture.drain()).contains(&"Disconnect".to_owned()));
    }
    fixture.pass(Duration::from_millis(1));
    assert!(words(&fixture.drain()).contains(&"Disconnect".to_owned()));
}

#[test]
fn a_pause_does_not_use_up_the_time_for_a_verdict_or_a_farewell() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    fixture.tell(Input::Leave { call: CallId(9) });
    fixture.drain();
    stand_still(&mut fixture, timers().verdict_timeout * 2);
    assert_eq!(words(&fixture.drain()), ["Ping"]);
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Left,
    });
    assert!(words(&fixture.drain()).contains(&"Ended".to_owned()));
}

/// The caller meant real time.
#[test]
fn a_callers_deadline_passes_during_a_pause() {
    let mut fixture = Fixture::steady();
    let deadline = Some(fixture.now + timers().peer_timeout);
    fixture.tell(Input::Post {
        call: CallId(1),
        tag: Tag(0),
        fingerprint: fingerprint(4),
        deadline,
    });
    fixture.drain();
    stand_still(&mut fixture, timers().peer_timeout);
    assert!(words(&fixture.drain()).contains(&"Cancel".to_owned()));
}

/// R11: a restarted master relies on no session being alive after that.
#[test]
fn a_pause_uses_up_the_time_without_a_master() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.tell(Input::ControlDown);
    fixture.drain();
    stand_still(&mut fixture, timers().detach_timeout);
    let outputs = fixture.drain();
    let cause = SessionEnd::Detached;
    assert_eq!(ends(&outputs), [(CallId(1), End::Unknown { cause })]);
}
