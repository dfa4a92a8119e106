//! Numbers, floors and verdicts of single calls (R1, R2, R8, R12).

use super::*;
use crate::error::Error;
use crate::limits;
use crate::peer::notes::{DONE_DELAY, POSTED_DELAY};

#[test]
fn a_post_that_is_not_held_soon_is_told_alone() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.post(2, 1);
    assert!(sent(fixture.drain()).is_empty());
    fixture.pass(POSTED_DELAY);
    let told = sent(fixture.drain());
    let [PeerToMaster::Posted(notes)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(notes.len(), 2, "one message tells all that waited");
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.tell(Input::Held(op(1, 0, 1)));
    fixture.pass(DONE_DELAY);
    let told = sent(fixture.drain());
    let [PeerToMaster::Done(notes)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(notes.len(), 2);
}

#[test]
fn a_second_call_on_a_busy_tag_is_refused_and_takes_no_number() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.drain();
    fixture.post(2, 0);
    let refused = fixture.drain();
    assert!(matches!(
        refused[..],
        [Output::Rejected {
            call: CallId(2),
            error: Error::InvalidUsage(_)
        }]
    ));
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.drain();
    fixture.post(3, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 1, 1)]);
}

/// The maximum number of calls is in progress, and later the maximum number of tags in use: one
/// more is refused, and a tag in use still accepts calls.
#[test]
fn one_call_or_tag_more_than_there_may_be_is_refused() {
    let refusal = |fixture: &mut Fixture| match &fixture.drain()[..] {
        [Output::Rejected { error, .. }] => error.to_string(),
        other => panic!("{other:?}"),
    };
    let mut fixture = Fixture::steady();
    let calls = limits::OPEN_OPS_MAX as u64;
    (0..calls).for_each(|tag| fixture.post(tag, tag));
    assert_eq!(started(&fixture.drain()).len(), limits::OPEN_OPS_MAX);
    fixture.post(calls, calls);
    let expected = format!("{calls} operations are in progress");
    let told = refusal(&mut fixture);
    assert!(told.contains(&expected), "{told}");
    let tags = limits::TAGS_MAX as u64;
    for tag in 0..tags {
        if tag >= calls {
            fixture.post(tag, tag);
        }
        fixture.tell(Input::Held(op(tag, 0, 1)));
        fixture.commit(op(tag, 0, 1), &[1, 2, 3]);
    }
    fixture.drain();
    fixture.post(tags, tags);
    let expected = format!("{tags} tags are in use");
    let told = refusal(&mut fixture);
    assert!(told.contains(&expected), "{told}");
    fixture.post(tags, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 1, 1)]);
}

#[test]
fn too_few_peers_refuses_before_a_number_is_taken() {
    let mut fixture = Fixture::new();
    fixture.register();
    fixture.enter();
    fixture.tell(Input::Post {
        call: CallId(1),
        tag: Tag(0),
        fingerprint: Fingerprint {
            min_world: 4,
            ..fingerprint(10)
        },
        deadline: None,
    });
    let refused = fixture.drain();
    assert!(matches!(
        refused[..],
        [Output::Rejected {
            error: Error::TooFewPeers {
                world_size: 3,
                min_world_size: 4
            },
            ..
        }]
    ));
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2, 3, 4])));
    fixture.drain();
    fixture.post(2, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 0, 2)]);
}

#[test]
fn a_root_outside_the_world_is_refused_and_takes_no_number() {
    let mut fixture = Fixture::steady();
    let mut call = fingerprint(4);
    call.called = Called::Broadcast {
        root: Rank(3),
        elements: Elements::of([(Dtype::F32, 10)]),
    };
    fixture.tell(Input::Post {
        call: CallId(1),
        tag: T0,
        fingerprint: call,
        deadline: None,
    });
    let refused = fixture.drain();
    assert!(matches!(
        refused[..],
        [Output::Rejected {
            error: Error::InvalidArgument(_),
            ..
        }]
    ));
    fixture.post(2, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 0, 1)]);
}

#[test]
fn a_call_below_the_floor_is_aborted_at_once() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 2, None)];
    change.floors[0].reasons = vec![(OpNumber(0), lost(3)), (OpNumber(1), lost(3))];
    fixture.hear(MasterToPeer::Install(change));
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    fixture.drain();
    for call in [1, 2] {
        fixture.post(call, 0);
        let outputs = fixture.drain();
        assert_eq!(words(&outputs), ["Aborted"], "nothing was started");
    }
    fixture.post(3, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 2, 2)]);
}

#[test]
fn a_call_below_the_floor_waits_for_the_release_too() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    fixture.post(1, 0);
    assert!(fixture.drain().is_empty());
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    assert_eq!(words(&fixture.drain()), ["Aborted"]);
}

#[test]
fn a_newcomer_waits_behind_a_carried_operation() {
    // H11: the newcomer's first use of a tag must not become a second membership of what is under
    // way.
    let mut fixture = Fixture::newcomer();
    let mut first = install(4, &[1, 2, 3]);
    first.floors = vec![floor(0, 5, Some(4))];
    first.carried = vec![carried(op(0, 5, 3), &[1, 3])];
    fixture.hear(MasterToPeer::Install(first));
    fixture.hear(MasterToPeer::Release { vid: vid(4) });
    fixture.drain();
    fixture.post(1, 0);
    assert!(started(&fixture.drain()).is_empty());
    fixture.commit(op(0, 5, 3), &[1, 3]);
    assert_eq!(started(&fixture.drain()), [op(0, 6, 4)]);
}

#[test]
fn a_late_post_of_a_carried_operation_takes_its_birth_members_and_ring() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut change = install(2, &[1, 2, 3, 4]);
    change.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(change));
    fixture.drain();
    fixture.post(1, 0);
    let outputs = fixture.drain();
    let [Output::StartOp { start, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(start.birth, carried(op(0, 0, 1), &[1, 2, 3]));
    assert_eq!(start.rank, Rank(1));
}

#[test]
fn a_cancel_is_a_request_and_the_verdict_may_be_success() {
    // H3: a caller that returned on its own would be told "aborted" of what the others commit.
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.drain();
    let reason = CancelReason::User;
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason,
    });
    let outputs = fixture.drain();
    assert!(ends(&outputs).is_empty());
    let told = sent(outputs);
    assert!(
        matches!(
            told[..],
            [PeerToMaster::Done(_), PeerToMaster::Cancel { .. }]
        ),
        "{told:?}"
    );
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
}

#[test]
fn a_post_is_told_before_its_cancel() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    assert_eq!(words(&fixture.drain()), ["StartOp", "Posted", "Cancel"]);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::Leave,
    });
    assert!(fixture.drain().is_empty(), "the first request counts");
}

#[test]
fn a_deadline_is_a_cancel_and_a_missing_verdict_is_unknown() {
    let mut fixture = Fixture::steady();
    fixture.tell(Input::Post {
        call: CallId(1),
        tag: T0,
        fingerprint: fingerprint(4),
        deadline: Some(fixture.now + Duration::from_millis(100)),
    });
    for _ in 0..5 {
        fixture.pass(Duration::from_millis(50));
        fixture.hear(pong(1));
    }
    let cancels = |message: &PeerToMaster| {
        matches!(
            message,
            PeerToMaster::Cancel {
                reason: CancelReason::Deadline { late: None },
                ..
            }
        )
    };
    assert_eq!(
        sent(fixture.drain())
            .iter()
            .filter(|message| cancels(message))
            .count(),
        1
    );
    for _ in 0..11 {
        fixture.pass(Duration::from_secs(1));
        fixture.hear(pong(1));
    }
    let outputs = fixture.drain();
    let cause = SessionEnd::NoVerdict;
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
fn a_mismatch_cancels_and_names_field_and_values_even_when_held() {
    // H23: a peer that is done must go on comparing.
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.drain();
    let theirs = fingerprint(1000);
    fixture.tell(Input::Mismatch {
        op: op(0, 0, 1),
        peer: PeerId(3),
        theirs,
    });
    let told = sent(fixture.drain());
    let [
        PeerToMaster::Done(_),
        PeerToMaster::Cancel {
            op: cancelled,
            reason,
        },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(*cancelled, op(0, 0, 1));
    let expected = CancelReason::Mismatch {
        peer: PeerId(3),
        field: "count".into(),
        mine: "4".into(),
        theirs: "1000".into(),
    };
    assert_eq!(*reason, expected);
}

#[test]
fn a_cancel_before_the_number_is_posted_and_cancelled_for_all() {
    // H19: returning without a number would leave the others waiting in an operation that this
    // caller believes to be over.
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    fixture.post(1, 0);
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    assert!(fixture.drain().is_empty());
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2, 3])));
    let outputs = fixture.drain();
    assert_eq!(
        words(&outputs),
        ["View", "Installed", "StartOp", "Posted", "Cancel"]
    );
}

#[test]
fn last_words_of_an_operation_that_is_over_mean_nothing() {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.drain();
    fixture.tell(Input::Held(op(0, 0, 1)));
    fixture.tell(Input::Mismatch {
        op: op(0, 0, 1),
        peer: PeerId(1),
        theirs: fingerprint(9),
    });
    fixture.tell(Input::Cancel {
        call: CallId(1),
        reason: CancelReason::User,
    });
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    assert!(fixture.drain().is_empty());
}

#[test]
fn results_carry_the_view_in_which_they_were_told() {
    // H22
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, Some(0))];
    fixture.hear(MasterToPeer::Install(change));
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let (_, end) = ends(&fixture.drain()).remove(0);
    let End::Committed {
        view, contributors, ..
    } = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(view.vid, vid(2));
    assert_eq!(
        contributors,
        [PeerId(1), PeerId(2), PeerId(3)],
        "those of the birth view"
    );
}

#[test]
fn an_abort_whose_reason_is_forgotten_is_final() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.suspend(1);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(change));
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let (_, end) = ends(&fixture.drain()).remove(0);
    let End::Aborted { reason, .. } = end else {
        panic!("{end:?}")
    };
    assert!(matches!(
        reason,
        AbortReason::Cancelled {
            reason: CancelReason::Local(_),
            ..
        }
    ));
}
