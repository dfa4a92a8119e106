//! Tags that are given back, as a member sees it (R2).

use super::*;
use crate::limits;
use crate::wire::control::GivenBack;

/// A view change that gives tags back in these views.
fn change(epoch: u32, given_back: &[(u64, u32)]) -> Install {
    let given_back = given_back.iter().map(|&(tag, begun)| GivenBack {
        tag: Tag(tag),
        vid: vid(begun),
    });
    Install {
        given_back: given_back.collect(),
        ..install(epoch, &[1, 2, 3])
    }
}

/// The report of the `Installed` among these outputs.
fn installed(outputs: Vec<Output>) -> Report {
    let message = sent(outputs).into_iter().find_map(|message| match message {
        PeerToMaster::Installed { report, .. } => Some(report),
        _ => None,
    });
    message.expect("an Install is confirmed")
}

/// A member that has committed operation 0 of tag 0 and has flushed view 1.
fn used() -> Fixture {
    let mut fixture = Fixture::steady();
    fixture.post_and_hold(1, op(0, 0, 1));
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    fixture.drain();
    let report = fixture.suspend(1);
    assert_eq!(report.tags[0].next, Some(OpNumber(1)));
    fixture
}

#[test]
fn a_tag_that_is_given_back_begins_at_0_again() {
    let mut fixture = used();
    fixture.hear(MasterToPeer::Install(change(2, &[(0, 2)])));
    let report = installed(fixture.drain());
    assert_eq!(report.tags, []);
    assert_eq!(report.given_back.len(), 1, "others may not know yet");
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    fixture.drain();
    fixture.post_and_hold(2, op(0, 0, 2));
    assert_eq!(started(&fixture.drain()), [op(0, 0, 2)]);
    fixture.commit(op(0, 0, 2), &[1, 2, 3]);
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
    assert_eq!(fixture.suspend(2).given_back, [], "all others know");
}

#[test]
fn a_call_that_waits_for_its_number_gets_that_of_the_tag_begun_anew() {
    let mut fixture = used();
    fixture.post(2, 0);
    assert_eq!(started(&fixture.drain()), []);
    fixture.hear(MasterToPeer::Install(change(2, &[(0, 2)])));
    assert_eq!(started(&fixture.drain()), [op(0, 0, 2)]);
}

#[test]
fn an_operation_that_was_aborted_since_the_tag_began_anew_is_answered() {
    let mut fixture = used();
    let mut later = change(3, &[(0, 2)]);
    later.floors = vec![floor(0, 1, None)];
    fixture.hear(MasterToPeer::Install(later));
    fixture.hear(MasterToPeer::Release { vid: vid(3) });
    fixture.drain();
    fixture.post(2, 0);
    let outputs = fixture.drain();
    assert!(matches!(&ends(&outputs)[..], [(CallId(2), End::Aborted { op, .. })] if op.n.0 == 0));
    fixture.post(3, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 1, 3)]);
}

#[test]
fn what_this_member_has_forgotten_already_is_not_forgotten_twice() {
    let mut fixture = used();
    fixture.hear(MasterToPeer::Install(change(2, &[(0, 2)])));
    fixture.post_and_hold(2, op(0, 0, 2));
    fixture.commit(op(0, 0, 2), &[1, 2, 3]);
    fixture.drain();
    fixture.suspend(2);
    let mut next = change(3, &[(0, 2)]);
    next.floors = vec![floor(0, 1, Some(0))];
    fixture.hear(MasterToPeer::Install(next));
    fixture.drain();
    fixture.post(3, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 1, 3)]);
}

#[test]
fn a_newcomer_takes_a_tag_up_where_it_is_whatever_was_given_back() {
    let mut fixture = Fixture::newcomer();
    let mut first = change(2, &[(0, 2)]);
    first.floors = vec![floor(0, 4, Some(3))];
    fixture.hear(MasterToPeer::Install(first));
    fixture.drain();
    fixture.post(1, 0);
    assert_eq!(started(&fixture.drain()), [op(0, 4, 2)]);
}

#[test]
fn a_tag_in_use_is_not_given_back() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    assert_eq!(fixture.suspend(1).tags[0].next, None);
    fixture.hear(MasterToPeer::Install(change(2, &[(0, 2)])));
    let outputs = fixture.drain();
    assert!(matches!(
        &ends(&outputs)[..],
        [(
            CallId(1),
            End::Unknown {
                cause: SessionEnd::Protocol(_)
            }
        )]
    ));
}

#[test]
fn a_call_that_is_refused_uses_up_no_tag() {
    let mut fixture = Fixture::with_min_world(4);
    fixture.register();
    fixture.enter();
    for tag in 0..limits::TAGS_MAX as u64 + 1 {
        let mut wanted = fingerprint(4);
        wanted.min_world = 4;
        fixture.tell(Input::Post {
            call: CallId(tag),
            tag: Tag(tag),
            fingerprint: wanted,
            deadline: None,
        });
        let outputs = fixture.drain();
        let [Output::Rejected { error, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert!(error.is_retryable(), "{error}");
    }
}

#[test]
fn frames_of_operations_that_are_decided_are_forgotten() {
    let mut fixture = Fixture::steady();
    fixture.suspend(1);
    let mut next = change(2, &[]);
    next.carried = vec![carried(op(0, 0, 1), &[1, 2, 3])];
    fixture.hear(MasterToPeer::Install(next));
    let forgets = fixture
        .drain()
        .into_iter()
        .filter_map(|output| match output {
            Output::Forget { before, carried } => Some((before, carried)),
            _ => None,
        });
    let forgets: Vec<_> = forgets.collect();
    assert_eq!(forgets, [(vid(2), vec![op(0, 0, 1)])]);
}
