//! Life without a master, and coming back to one (R5, R7, R10).

use super::*;
use crate::error::Error;

#[test]
fn posting_goes_on_until_the_master_asks_for_the_report() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::ControlDown);
    fixture.drain();
    fixture.post_and_hold(1, op(0, 0, 1));
    assert_eq!(words(&fixture.drain()), ["StartOp", "Say"]);
    fixture.pass(Duration::from_millis(30));
    fixture.tell(Input::ControlUp);
    fixture.post(2, 1);
    assert_eq!(
        words(&fixture.drain()),
        ["Connect", "Here", "StartOp"],
        "a master that has not asked stops nobody"
    );
    fixture.hear(MasterToPeer::Summon);
    fixture.post(3, 2);
    let outputs = fixture.drain();
    assert!(
        started(&outputs).is_empty(),
        "nothing is posted once Attach is sent"
    );
    let told = sent(outputs);
    let [
        PeerToMaster::Attach {
            report, attach: 2, ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert!(report.tags[0].open.as_ref().unwrap().held);
    let mut reply = install(1, &[1, 2, 3]);
    reply.released = true;
    fixture.hear(MasterToPeer::Install(reply));
    let outputs = fixture.drain();
    assert_eq!(started(&outputs), [op(2, 0, 1)]);
    assert_eq!(words(&outputs), ["Installed", "StartOp"]);
}

#[test]
fn the_reply_carries_an_outcome_that_was_lost_with_the_link() {
    // H12
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.reattach();
    let mut reply = install(1, &[1, 2, 3]);
    reply.released = true;
    reply.floors = vec![floor(0, 1, Some(0))];
    fixture.hear(MasterToPeer::Install(reply));
    assert_eq!(
        words(&fixture.drain()),
        ["Installed", "Committed", "StopOp"]
    );
}

#[test]
fn a_reply_while_suspended_does_not_let_posts_through() {
    // H13
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.reattach();
    let mut reply = install(1, &[1, 2, 3]);
    reply.released = true;
    reply.suspended = true;
    fixture.hear(MasterToPeer::Install(reply));
    fixture.post(1, 0);
    assert!(started(&fixture.drain()).is_empty());
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2])));
    assert_eq!(started(&fixture.drain()), [op(0, 0, 2)]);
}

#[test]
fn an_attach_that_may_have_been_heard_is_a_flush_for_good() {
    let mut fixture = Fixture::steady();
    fixture.reattach();
    fixture.tell(Input::ControlDown);
    fixture.post(1, 0);
    assert!(started(&fixture.drain()).is_empty());
}

#[test]
fn a_result_that_comes_while_attaching_is_restated() {
    // H14
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    let report = fixture.reattach();
    assert!(!report.tags[0].open.as_ref().unwrap().held);
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.tell(Input::SafePoint {
        call: CallId(2),
        deadline: None,
    });
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    assert!(fixture.drain().is_empty());
    let mut rebuilt = install(2, &[1, 2, 3]);
    rebuilt.vid = Vid {
        term: Term(2),
        epoch: Epoch(2),
    };
    rebuilt.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(rebuilt));
    let told = sent(fixture.drain());
    let [PeerToMaster::Installed { report, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    let open = report.tags[0].open.as_ref().unwrap();
    assert!(open.held);
    assert_eq!(open.cancel, Some(CancelReason::User));
    assert_eq!(report.safe_called, 1);
}

#[test]
fn an_attach_that_crosses_an_eviction_ends_the_session() {
    // H16, H2
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.reattach();
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Detached,
    });
    let outputs = fixture.drain();
    let cause = SessionEnd::Evicted(eviction(EvictReason::Detached));
    assert_eq!(
        ends(&outputs),
        [(
            CallId(1),
            End::Unknown {
                cause: cause.clone()
            }
        )]
    );
    assert!(matches!(outputs.last(), Some(Output::Ended(end)) if *end == cause));
}

#[test]
fn without_a_master_for_too_long_open_calls_are_unknown() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.tell(Input::ControlDown);
    fixture.drain();
    let timeout = Timers::default().detach_timeout;
    let mut attempts = 0;
    let end = fixture.now + timeout;
    while fixture.now < end {
        fixture.pass(Duration::from_millis(100));
        for output in fixture.drain() {
            match output {
                Output::Connect => {
                    attempts += 1;
                    fixture.tell(Input::ControlDown);
                }
                Output::Finish {
                    end: End::Unknown { cause },
                    ..
                } => {
                    assert_eq!(cause, SessionEnd::Detached);
                    assert_eq!(fixture.now, end);
                }
                _ => {}
            }
        }
    }
    assert!(fixture.peer.poll_timeout().is_none(), "the session is over");
    assert!(
        (40..200).contains(&attempts),
        "{attempts} attempts in {timeout:?}"
    );
}

#[test]
fn a_silent_master_is_given_up() {
    let mut fixture = Fixture::steady();
    fixture.pass(Duration::from_millis(2600));
    let pings = sent(fixture.drain());
    assert_eq!(pings.len(), 10);
    assert!(pings.iter().all(|message| *message == PeerToMaster::Ping));
    fixture.pass(Duration::from_millis(2410));
    let outputs = fixture.drain();
    assert!(words(&outputs).contains(&"Disconnect".to_owned()));
    assert!(words(&outputs).contains(&"Connect".to_owned()));
}

#[test]
fn last_words_of_a_connection_that_was_given_up_are_not_heard() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::ControlDown);
    fixture.drain();
    fixture.hear(MasterToPeer::Suspend { vid: vid(1) });
    assert!(fixture.drain().is_empty());
}

#[test]
fn calls_after_an_eviction_are_refused_with_its_reason() {
    let mut fixture = Fixture::steady();
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::NotHeard,
    });
    fixture.drain();
    fixture.post(1, 0);
    fixture.tell(Input::SafePoint {
        call: CallId(2),
        deadline: None,
    });
    fixture.tell(Input::Leave { call: CallId(3) });
    let outputs = fixture.drain();
    assert!(matches!(
        &outputs[..],
        [
            Output::Rejected {
                error: Error::Evicted(one),
                ..
            },
            Output::Rejected {
                error: Error::Evicted(other),
                ..
            },
            Output::Finish { end: End::Left, .. }
        ] if *one == eviction(EvictReason::NotHeard) && one == other
    ));
}

#[test]
fn a_waiting_call_was_never_started_and_is_not_unknown() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.post(1, 0);
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Died,
    });
    let outputs = fixture.drain();
    assert!(matches!(
        outputs[0],
        Output::Rejected {
            error: Error::Evicted(_),
            ..
        }
    ));
}

#[test]
fn a_verdict_that_was_held_back_is_unknown_after_an_eviction() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Died,
    });
    let ends = ends(&fixture.drain());
    assert!(matches!(ends[..], [(_, End::Unknown { .. })]));
}
