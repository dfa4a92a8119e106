//! The life of a session without faults, and with common ones.

use super::*;
use crate::peer::notes::DONE_DELAY;

#[test]
fn a_peer_connects_registers_and_is_admitted() {
    let mut fixture = Fixture::new();
    assert_eq!(words(&fixture.drain()), ["Connect"]);
    fixture.tell(Input::ControlUp);
    assert_eq!(words(&fixture.drain()), ["Hello"]);
    fixture.register();
    fixture.hear(MasterToPeer::Expect {
        vid: vid(0),
        members: Vec::new(),
        newcomers: vec![member(1), member(2), member(3)],
    });
    assert_eq!(words(&fixture.drain()), ["Links", "Ready"]);
    fixture.tell(Input::LinkUp(PeerId(1)));
    fixture.tell(Input::LinkUp(PeerId(3)));
    let ready = sent(fixture.drain()).pop();
    let linked = vec![PeerId(1), PeerId(3)];
    assert_eq!(
        ready,
        Some(PeerToMaster::Ready {
            vid: vid(0),
            linked
        })
    );
    fixture.hear(MasterToPeer::Install(install(1, &[1, 2, 3])));
    assert_eq!(words(&fixture.drain()), ["View", "Installed"]);
    fixture.hear(MasterToPeer::Release { vid: vid(1) });
    assert!(fixture.drain().is_empty());
}

#[test]
fn an_operation_is_posted_held_and_committed_for_one_message() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    let outputs = fixture.drain();
    assert_eq!(started(&outputs), [op(0, 0, 1)]);
    assert!(sent(outputs).is_empty(), "a post waits for its result");
    fixture.tell(Input::Held(op(0, 0, 1)));
    let note = OpNote {
        op: op(0, 0, 1),
        fingerprint: fingerprint(4),
    };
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["Say"]);
    fixture.pass(DONE_DELAY);
    assert_eq!(sent(fixture.drain()), [PeerToMaster::Done(vec![note])]);
    fixture.commit(op(0, 0, 1), &[1, 2, 3]);
    let outputs = fixture.drain();
    assert_eq!(words(&outputs), ["Committed", "StopOp"]);
    let (call, end) = ends(&outputs).remove(0);
    assert_eq!(call, CallId(1));
    let End::Committed { contributors, .. } = end else {
        panic!("{end:?}")
    };
    assert_eq!(contributors, [PeerId(1), PeerId(2), PeerId(3)]);
}

#[test]
fn a_loss_aborts_what_is_not_held_and_is_told_after_release() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.drain();
    let report = fixture.suspend(1);
    assert_eq!(report.tags.len(), 1);
    assert!(!report.tags[0].open.as_ref().unwrap().held);
    let mut change = install(2, &[1, 2]);
    change.floors = vec![floor(0, 1, None)];
    change.floors[0].reasons = vec![(OpNumber(0), lost(3))];
    fixture.hear(MasterToPeer::Install(change));
    assert_eq!(
        words(&fixture.drain()),
        ["Links", "View", "StopOp", "Installed"]
    );
    fixture.hear(MasterToPeer::Release { vid: vid(2) });
    let outputs = fixture.drain();
    let (_, end) = ends(&outputs).remove(0);
    let End::Aborted { reason, view, .. } = end else {
        panic!("{end:?}")
    };
    assert_eq!(reason, lost(3));
    assert_eq!(view.vid, vid(2));
}

#[test]
fn an_evicted_peer_tells_unknown() {
    let mut fixture = Fixture::steady();
    fixture.post(1, 0);
    fixture.drain();
    let reason = EvictReason::Silent { silent_ms: 5000 };
    fixture.hear(MasterToPeer::Evicted {
        reason: reason.clone(),
    });
    let outputs = fixture.drain();
    assert_eq!(
        words(&outputs),
        ["StopOp", "Unknown", "Links", "Disconnect", "Ended"]
    );
    let cause = SessionEnd::Evicted(eviction(reason));
    assert_eq!(ends(&outputs), [(CallId(1), End::Unknown { cause })]);
}
