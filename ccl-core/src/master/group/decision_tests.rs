//! Every row of R4, from both sides.

use super::*;
use crate::ids::{OpName, Rank};
use crate::master::group::ledger::{InView, Ledger};
use crate::master::tests::{fingerprint, member, note, op, vid};
use crate::time::Instant;
use crate::wire::control::{CancelReason, Fingerprint, OpNote};

const LOST: EvictReason = EvictReason::Died;

/// An operation of members 0, 1 and 2, of which these have posted and these hold the result.
struct Case {
    ledger: Ledger,
    op: OpName,
}

impl Case {
    fn new(fingerprint: &Fingerprint, posted: &[u64], held: &[u64]) -> Self {
        let view = crate::master::group::View {
            vid: vid(1, 1),
            members: (0..3).map(member).collect(),
            ring_order: (0..3).map(Rank).collect(),
            ..Default::default()
        };
        let op = op(0, view.vid);
        let note = OpNote {
            op,
            fingerprint: fingerprint.clone(),
        };
        let mut ledger = Ledger::default();
        let at = InView {
            view: &view,
            now: Instant(0),
        };
        for &peer in posted {
            ledger.post(PeerId(peer), &note, at).unwrap();
        }
        for &peer in held {
            ledger.done(PeerId(peer), &note, at).unwrap();
        }
        Self { ledger, op }
    }

    fn cancelled_by(mut self, peer: u64) -> Self {
        self.ledger
            .cancel(PeerId(peer), self.op, CancelReason::User);
        self
    }

    fn carried(mut self) -> Self {
        self.ledger.carry(self.op.tag);
        self
    }

    fn verdict(&self, survivors: &[u64]) -> Verdict {
        let survivors = survivors.iter().copied().map(PeerId).collect();
        let gone = (0..3)
            .map(PeerId)
            .filter(|peer| !BTreeSet::contains(&survivors, peer));
        let lost = gone.map(|peer| (peer, LOST)).collect();
        let survival = Survival {
            survivors: &survivors,
            lost: &lost,
        };
        decide(self.ledger.open().next().unwrap(), &survival)
    }
}

fn reduce() -> Fingerprint {
    fingerprint(10)
}

fn committed() -> Verdict {
    Verdict::Committed
}

fn lost(peer: u64) -> Verdict {
    Verdict::Aborted(AbortReason::Lost {
        peer: PeerId(peer),
        reason: LOST,
    })
}

fn cancelled(by: u64) -> Verdict {
    Verdict::Aborted(AbortReason::Cancelled {
        by: PeerId(by),
        reason: CancelReason::User,
    })
}

#[test]
fn every_survivor_holds_it_so_it_commits_with_all_members() {
    let case = Case::new(&reduce(), &[0, 1, 2], &[0, 1]);
    assert_eq!(case.verdict(&[0, 1]), committed());
    assert_eq!(case.verdict(&[0]), committed());
}

#[test]
fn one_survivor_does_not_hold_it_so_the_loss_aborts_it() {
    let case = Case::new(&reduce(), &[0, 1, 2], &[0]);
    assert_eq!(case.verdict(&[0, 1]), lost(2));
}

#[test]
fn nobody_is_lost_so_it_goes_on() {
    let case = Case::new(&reduce(), &[0, 1], &[0]);
    assert_eq!(case.verdict(&[0, 1, 2]), Verdict::Carried);
}

#[test]
fn cancel_of_a_survivor_aborts_it_unless_all_hold() {
    let case = Case::new(&reduce(), &[0, 1], &[0]).cancelled_by(1);
    assert_eq!(case.verdict(&[0, 1, 2]), cancelled(1));
    let case = Case::new(&reduce(), &[0, 1, 2], &[0, 1, 2]).cancelled_by(1);
    assert_eq!(case.verdict(&[0, 1, 2]), committed());
}

#[test]
fn cancel_is_final_even_if_a_member_is_lost_too() {
    let case = Case::new(&reduce(), &[0, 1], &[]).cancelled_by(1);
    assert_eq!(case.verdict(&[0, 1]), cancelled(1));
}

#[test]
fn nobody_surviving_posted_it_so_it_is_forgotten_with_its_cancel() {
    let case = Case::new(&reduce(), &[2], &[]).cancelled_by(2);
    assert_eq!(case.verdict(&[0, 1]), Verdict::Forgotten);
}

#[test]
fn carried_operation_that_nobody_surviving_posted_is_still_decided() {
    let case = Case::new(&reduce(), &[2], &[]).carried();
    assert_eq!(case.verdict(&[0, 1]), lost(2));
    let case = Case::new(&reduce(), &[], &[]);
    assert!(case.ledger.open().next().is_none());
}

#[test]
fn operation_without_surviving_members_never_commits() {
    let case = Case::new(&reduce(), &[0, 1, 2], &[0, 1, 2]).carried();
    assert_eq!(case.verdict(&[]), lost(0));
}

#[test]
fn difference_is_never_sealed_over() {
    let mut case = Case::new(&reduce(), &[0], &[0]);
    let view = crate::master::group::View {
        vid: vid(1, 1),
        members: (0..3).map(member).collect(),
        ..Default::default()
    };
    let mut other = note(case.op);
    other.fingerprint = fingerprint(11);
    for peer in [1, 2] {
        case.ledger
            .done(
                PeerId(peer),
                &other,
                InView {
                    view: &view,
                    now: Instant(0),
                },
            )
            .unwrap();
    }
    assert_eq!(case.ledger.complete(), []);
    let Verdict::Aborted(AbortReason::Cancelled { by, reason }) = case.verdict(&[0, 1, 2]) else {
        panic!("a difference aborts");
    };
    assert_eq!(by, PeerId(1));
    assert_eq!(
        reason,
        CancelReason::Mismatch {
            peer: PeerId(0),
            field: "count".into(),
            mine: "11".into(),
            theirs: "10".into(),
        }
    );
}
