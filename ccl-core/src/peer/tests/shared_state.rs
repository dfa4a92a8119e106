//! Syncs of shared state: posted like any call, elected by the master, sealed by a commit (R18).

use super::*;
use crate::error::Error;
use crate::ids::Revision;
use crate::wire::control::{Digest, KeySketch, StateId, StateOffer, SyncStrategy};

const TAG: u64 = Tag::SHARED_STATE.0;

pub(super) fn content(revision: u64, root: u8) -> StateId {
    StateId {
        revision: Revision(revision),
        root: Digest([root; 32]),
    }
}

/// A sync by a peer that has `mine`.
pub(super) fn sync(mine: StateId) -> Fingerprint {
    Fingerprint::new(Called::Sync(Box::new(StateOffer {
        content: mine,
        keys: Digest::default(),
        sketch: KeySketch::default(),
        entries: 1,
        bytes: 8,
        strategy: SyncStrategy::EnforcePopular,
        is_usable: true,
        restore: false,
    })))
}

fn elects(op: OpName, content: StateId, sources: &[u64]) -> MasterToPeer {
    MasterToPeer::Elected {
        op,
        content,
        sources: sources.iter().copied().map(PeerId).collect(),
    }
}

/// The election that was passed to the transfer.
fn elected(outputs: &[Output]) -> Vec<StateId> {
    let elected = outputs.iter().filter_map(|output| match output {
        Output::Elected { content, .. } => Some(*content),
        _ => None,
    });
    elected.collect()
}

impl Fixture {
    fn call(&mut self, call: u64, tag: u64, fingerprint: Fingerprint) {
        self.tell(Input::Post {
            call: CallId(call),
            tag: Tag(tag),
            fingerprint,
            deadline: None,
        });
    }

    /// In the middle of a sync, with revision 1 of root 1.
    fn syncing() -> Self {
        let mut fixture = Self::steady();
        fixture.call(1, TAG, sync(content(1, 1)));
        fixture.drain();
        fixture
    }
}

/// The sync in a report.
fn open(report: &Report) -> (bool, Option<StateId>) {
    let open = report.tags[0].open.as_ref().unwrap();
    assert_eq!(report.tags[0].tag, Tag::SHARED_STATE);
    (open.held, open.elected)
}

#[test]
fn a_sync_is_elected_held_committed_and_then_sealed() {
    let mut fixture = Fixture::syncing();
    let x = op(TAG, 0, 1);
    fixture.hear(elects(x, content(2, 2), &[1]));
    assert_eq!(elected(&fixture.drain()), [content(2, 2)]);
    fixture.tell(Input::Held(x));
    assert_eq!(words(&fixture.drain()), ["Done"]);
    fixture.commit_sealing(x, &[1, 2, 3], Sealed::State(content(2, 2)));
    assert_eq!(words(&fixture.drain()), ["Committed", "StopOp"]);
    let report = fixture.suspend(1);
    assert_eq!(report.tags[0].sealed, Sealed::State(content(2, 2)));
}

#[test]
fn a_commit_that_seals_what_was_not_elected_ends_the_session() {
    for sealed in [Sealed::Nothing, Sealed::State(content(2, 3))] {
        let mut fixture = Fixture::syncing();
        let x = op(TAG, 0, 1);
        fixture.hear(elects(x, content(2, 2), &[1]));
        fixture.tell(Input::Held(x));
        fixture.drain();
        fixture.commit_sealing(x, &[1, 2, 3], sealed);
        let outputs = fixture.drain();
        let is_over = |output: &Output| matches!(output, Output::Ended(SessionEnd::Protocol(_)));
        assert!(outputs.iter().any(is_over), "{outputs:?}");
    }
}

#[test]
fn an_election_said_again_is_passed_on_once() {
    let mut fixture = Fixture::syncing();
    let x = op(TAG, 0, 1);
    fixture.hear(elects(x, content(1, 1), &[2]));
    fixture.hear(elects(x, content(1, 1), &[2, 3]));
    assert_eq!(elected(&fixture.drain()), [content(1, 1)]);
}

#[test]
fn the_report_says_what_was_elected_and_seals_nothing_before_the_commit() {
    let mut fixture = Fixture::syncing();
    let report = fixture.reattach();
    assert_eq!(open(&report), (false, None));
    let mut reply = install(1, &[1, 2, 3]);
    reply.suspended = true;
    fixture.hear(MasterToPeer::Install(reply));
    let x = op(TAG, 0, 1);
    // It was missed with the connection, and the view ends.
    fixture.hear(elects(x, content(1, 1), &[2]));
    assert_eq!(elected(&fixture.drain()), [content(1, 1)]);
    fixture.tell(Input::Held(x));
    let report = fixture.reattach();
    assert_eq!(open(&report), (true, Some(content(1, 1))));
    assert_eq!(report.tags[0].sealed, Sealed::Nothing);
}

#[test]
fn a_commit_at_a_view_change_seals_too_and_an_abort_does_not() {
    for commits in [true, false] {
        let mut fixture = Fixture::syncing();
        let x = op(TAG, 0, 1);
        fixture.hear(elects(x, content(1, 1), &[2]));
        fixture.tell(Input::Held(x));
        fixture.suspend(1);
        let mut next = install(2, &[2, 3]);
        next.floors = vec![floor(TAG, 1, commits.then_some(0))];
        fixture.hear(MasterToPeer::Install(next));
        let told = sent(fixture.drain());
        let Some(PeerToMaster::Installed { report, .. }) = told.first() else {
            panic!("{told:?}");
        };
        let sealed = Sealed::from(commits.then(|| content(1, 1)));
        assert_eq!(report.tags[0].sealed, sealed);
    }
}

#[test]
fn an_election_of_another_sync_or_of_none_is_not_for_this_peer() {
    let mut fixture = Fixture::steady();
    fixture.hear(elects(op(TAG, 0, 1), content(1, 1), &[1]));
    fixture.call(1, TAG, sync(content(1, 1)));
    fixture.hear(elects(op(TAG, 1, 1), content(1, 1), &[2]));
    fixture.hear(elects(op(TAG, 0, 0), content(1, 1), &[2]));
    fixture.post(2, 0);
    fixture.hear(elects(op(0, 0, 1), content(1, 1), &[2]));
    assert_eq!(elected(&fixture.drain()), []);
    assert!(fixture.peer.view().is_some());
}

#[test]
fn an_election_that_cannot_be_true_ends_the_session() {
    let x = op(TAG, 0, 1);
    let lies = [
        elects(x, content(2, 2), &[]),
        elects(x, content(2, 2), &[7]),
        // This peer has another content, or has it although it is not named as a source.
        elects(x, content(2, 2), &[1, 2]),
        elects(x, content(1, 1), &[1]),
    ];
    for lie in lies {
        let mut fixture = Fixture::syncing();
        fixture.hear(lie.clone());
        let outputs = fixture.drain();
        let ended = matches!(outputs.last(), Some(Output::Ended(SessionEnd::Protocol(_))));
        assert!(ended, "{lie:?}: {outputs:?}");
    }
    let mut fixture = Fixture::syncing();
    fixture.hear(elects(x, content(2, 2), &[1]));
    fixture.hear(elects(x, content(3, 3), &[1]));
    let outputs = fixture.drain();
    assert!(matches!(
        outputs.last(),
        Some(Output::Ended(SessionEnd::Protocol(_)))
    ));
}

#[test]
fn only_syncs_go_on_the_reserved_tag_and_only_there() {
    let calls = [(TAG, fingerprint(1)), (0, sync(content(1, 1)))];
    for (tag, fingerprint) in calls {
        let mut fixture = Fixture::steady();
        fixture.call(1, tag, fingerprint);
        let outputs = fixture.drain();
        let refused = matches!(
            outputs[..],
            [Output::Rejected {
                error: Error::InvalidUsage(_),
                ..
            }]
        );
        assert!(refused, "{outputs:?}");
    }
}
