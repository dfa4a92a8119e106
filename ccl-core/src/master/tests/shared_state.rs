//! Syncs of shared state: the election in between, its faults, and what a commit seals (R18).

use std::slice;

use super::*;
use crate::ids::Revision;
use crate::wire::control::{
    AbortReason, CancelReason, Digest, KeySketch, StateId, StateOffer, SyncFault, SyncStrategy,
};

pub(super) fn content(revision: u64, root: u8) -> StateId {
    StateId {
        revision: Revision(revision),
        root: Digest([root; 32]),
    }
}

pub(super) fn offer(content: StateId) -> StateOffer {
    StateOffer {
        content,
        keys: Digest::default(),
        sketch: KeySketch::default(),
        entries: 1,
        bytes: 8,
        strategy: SyncStrategy::EnforcePopular,
        is_usable: true,
        restore: false,
    }
}

fn sync(n: u64, birth: Vid) -> OpName {
    OpName {
        tag: Tag::SHARED_STATE,
        n: OpNumber(n),
        birth,
    }
}

pub(super) fn synced(op: OpName, offer: StateOffer) -> OpNote {
    let fingerprint = Fingerprint {
        attempts: u32::MAX,
        ..Fingerprint::new(Called::Sync(Box::new(offer)))
    };
    OpNote { op, fingerprint }
}

fn offers(op: OpName, offer: StateOffer) -> PeerToMaster {
    PeerToMaster::Posted(vec![synced(op, offer)])
}

fn holds(op: OpName, offer: StateOffer) -> PeerToMaster {
    PeerToMaster::Done(vec![synced(op, offer)])
}

/// The report of a peer in the middle of a sync.
fn report_sync(vid: Vid, note: &OpNote, (held, elected): (bool, Option<StateId>)) -> Report {
    let mut report = report_open(vid, note.op, held);
    let open = report.tags[0].open.as_mut().unwrap();
    open.fingerprint = note.fingerprint.clone();
    open.elected = elected;
    report
}

/// The report of a peer that saw `syncs` syncs commit, the newest of which sealed this.
fn report_sealed(vid: Vid, syncs: u64, state: StateId) -> Report {
    let mut report = report_open(vid, sync(syncs, vid), false);
    report.tags[0].open = None;
    report.tags[0].sealed = Sealed::State(state);
    report
}

/// The election that this peer received.
fn elected(told: &[MasterToPeer]) -> Vec<(StateId, Vec<PeerId>)> {
    let elected = told.iter().filter_map(|message| match message {
        MasterToPeer::Elected {
            content, sources, ..
        } => Some((*content, sources.clone())),
        _ => None,
    });
    elected.collect()
}

fn sealed(stage: &Stage) -> Option<StateId> {
    stage.master.groups[&GroupId(0)].ledger.sealed_state
}

/// Why the newest sync was aborted.
fn abort(install: &Install) -> AbortReason {
    let floors = install.floors.iter();
    let mut floor = floors.filter(|floor| floor.tag == Tag::SHARED_STATE);
    let reasons = &floor.next().expect("it was decided").reasons;
    reasons.last().expect("it was aborted").1.clone()
}

/// All members report, and confirm what is installed.
fn change(stage: &mut Stage, reports: &[(Puppet, Report)], from: Vid) -> Install {
    for (peer, report) in reports {
        stage.flush(*peer, from, report.clone());
    }
    let install = stage.installed(reports[0].0);
    for (peer, _) in reports {
        stage.confirm(*peer, install.vid);
    }
    install
}

/// All members sync this content.
fn seal(stage: &mut Stage, peers: &[Puppet], op: OpName, content: StateId) {
    for &peer in peers {
        stage.say(peer, offers(op, offer(content)));
    }
    for &peer in peers {
        stage.say(peer, holds(op, offer(content)));
    }
    assert_eq!(sealed(stage), Some(content));
    stage.sent.clear();
}

#[test]
fn election_waits_for_the_last_post_and_the_commit_for_the_last_holder() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = sync(0, vid);
    let (a, b) = (content(4, 1), content(3, 2));
    stage.say(peers[0], offers(x, offer(a)));
    stage.say(peers[1], offers(x, offer(b)));
    assert_eq!(elected(&stage.told(peers[0])), []);
    stage.say(peers[2], offers(x, offer(a)));
    let sources = vec![peers[0].peer, peers[2].peer];
    for &peer in &peers {
        assert_eq!(elected(&stage.told(peer)), [(a, sources.clone())]);
    }
    stage.say(peers[0], holds(x, offer(a)));
    stage.say(peers[2], holds(x, offer(a)));
    assert_eq!(sealed(&stage), None);
    stage.say(peers[1], holds(x, offer(b)));
    assert_eq!(sealed(&stage), Some(a));
    let told = stage.told(peers[1]);
    assert!(matches!(&told[..], [MasterToPeer::Commit(_)]), "{told:?}");
    let sealed = Event::StateSealed {
        group: GroupId(0),
        content: a,
    };
    assert_eq!(stage.events.last(), Some(&sealed));
}

#[test]
fn next_election_starts_from_what_was_sealed() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    seal(&mut stage, &peers, sync(0, vid), content(4, 1));
    // The sealed content wins over a popular stray at the same revision.
    let x = sync(1, vid);
    stage.say(peers[0], offers(x, offer(content(4, 2))));
    stage.say(peers[1], offers(x, offer(content(4, 1))));
    let told = elected(&stage.told(peers[0]));
    assert_eq!(told, [(content(4, 1), vec![peers[1].peer])]);
}

#[test]
fn fault_aborts_for_all_at_a_view_change_and_evicts_nobody() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = sync(0, vid);
    let mut odd = offer(content(1, 1));
    odd.keys = Digest([9; 32]);
    let notes = [synced(x, offer(content(1, 1))), synced(x, odd)];
    for (peer, note) in peers.iter().zip(&notes) {
        stage.say(*peer, PeerToMaster::Posted(vec![note.clone()]));
    }
    assert_eq!(stage.state(0), "Suspended");
    for &peer in &peers {
        assert_eq!(stage.told(peer), [MasterToPeer::Suspend { vid }]);
    }
    let reports = [0, 1].map(|index| {
        let report = report_sync(vid, &notes[index], (false, None));
        (peers[index], report)
    });
    let install = change(&mut stage, &reports, vid);
    let fault = SyncFault::Keys {
        peer: peers[1].peer,
        theirs: (1, 8),
        most: (1, 8),
        odd: Digest([9; 32]),
        usual: Digest::default(),
        difference: None,
    };
    assert_eq!(abort(&install), AbortReason::State(fault));
    assert_eq!(install.members.len(), 2);
    assert_eq!(stage.state(0), "Steady");
    // The next sync of the same members may succeed.
    seal(&mut stage, &peers, sync(1, install.vid), content(1, 1));
}

/// The odd one may be the one that is gone: the survivors are to try again.
#[test]
fn loss_of_a_member_is_told_before_a_fault_in_what_it_brought() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = sync(0, vid);
    let mut odd = offer(content(1, 1));
    odd.strategy = SyncStrategy::SendOnly;
    stage.say(peers[0], offers(x, offer(content(1, 1))));
    stage.say(peers[1], offers(x, offer(content(1, 1))));
    stage.say(peers[2], offers(x, odd));
    assert_eq!(stage.state(0), "Suspended");
    stage.say(peers[2], PeerToMaster::Leave);
    let note = synced(x, offer(content(1, 1)));
    let report = report_sync(vid, &note, (false, None));
    let reports = [(peers[0], report.clone()), (peers[1], report)];
    let install = change(&mut stage, &reports, vid);
    let lost = AbortReason::Lost {
        peer: peers[2].peer,
        reason: EvictReason::Left,
    };
    assert_eq!(abort(&install), lost);
}

#[test]
fn loss_aborts_a_sync_unless_all_survivors_hold_what_was_elected() {
    for holders in [1, 2] {
        let mut stage = Stage::new();
        let (peers, vid) = stage.founded(0, 3);
        let x = sync(0, vid);
        let (a, b) = (content(4, 1), content(3, 2));
        stage.say(peers[0], offers(x, offer(a)));
        stage.say(peers[1], offers(x, offer(b)));
        stage.say(peers[2], offers(x, offer(a)));
        stage.say(peers[2], PeerToMaster::Leave);
        let reports = [(0, a), (1, b)].map(|(index, mine)| {
            let facts = (index < holders, Some(a));
            let report = report_sync(vid, &synced(x, offer(mine)), facts);
            (peers[index], report)
        });
        let install = change(&mut stage, &reports, vid);
        if holders == 2 {
            assert_eq!(sealed(&stage), Some(a));
            assert_eq!(install.floors[0].last_committed, Some(x.n));
        } else {
            assert_eq!(sealed(&stage), None);
            assert!(matches!(abort(&install), AbortReason::Lost { .. }));
        }
    }
}

#[test]
fn member_that_was_away_hears_of_the_election_after_its_reply() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let x = sync(0, vid);
    let note = synced(x, offer(content(1, 1)));
    let report = report_sync(vid, &note, (false, None));
    stage.say(peers[1], PeerToMaster::Posted(vec![note.clone()]));
    stage.close(peers[1]);
    // Before the election there is nothing to receive.
    stage.attach(&mut peers[1], report.clone());
    assert_eq!(stage.told(peers[1]).len(), 1);
    stage.close(peers[1]);
    stage.say(peers[0], PeerToMaster::Posted(vec![note.clone()]));
    assert_eq!(stage.told(peers[0]).len(), 1);
    // In the steady view, and while that ends.
    for state in ["Steady", "Suspended"] {
        assert_eq!(stage.state(0), state);
        stage.attach(&mut peers[1], report.clone());
        let told = stage.told(peers[1]);
        assert!(matches!(&told[0], MasterToPeer::Install(_)), "{told:?}");
        assert_eq!(elected(&told[1..]).len(), 1, "{told:?}");
        stage.close(peers[1]);
        let reason = CancelReason::User;
        stage.say(peers[0], PeerToMaster::Cancel { op: x, reason });
    }
}

#[test]
fn carried_sync_is_elected_in_the_view_in_which_the_last_member_posts() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = sync(0, vid);
    let y = op(0, vid);
    let notes: Vec<_> = [1, 2, 2]
        .map(|root| synced(x, offer(content(1, root))))
        .to_vec();
    for index in [0, 1] {
        let note = notes[index].clone();
        stage.say(peers[index], PeerToMaster::Posted(vec![note]));
    }
    stage.say(peers[0], posted(y));
    let reason = CancelReason::User;
    stage.say(peers[0], PeerToMaster::Cancel { op: y, reason });
    assert_eq!(stage.state(0), "Suspended");
    // The last one had just posted too: nothing is elected while the view ends.
    stage.say(peers[2], PeerToMaster::Posted(vec![notes[2].clone()]));
    stage.sent.clear();
    for (peer, note) in peers.iter().zip(&notes) {
        stage.flush(*peer, vid, report_sync(vid, note, (false, None)));
    }
    let sources = vec![peers[1].peer, peers[2].peer];
    for &peer in &peers {
        let told = stage.told(peer);
        let [
            MasterToPeer::Install(install),
            MasterToPeer::Elected { op, .. },
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!((install.carried[0].op, *op), (x, x));
        assert_eq!(elected(&told), [(content(1, 2), sources.clone())]);
    }
}

#[test]
fn sealed_state_survives_the_master_with_its_journal() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    seal(&mut stage, &peers, sync(0, vid), content(4, 1));
    let mut stage = stage.restart(setup());
    for peer in &mut peers {
        stage.attach(peer, report(vid));
    }
    assert_eq!(sealed(&stage), Some(content(4, 1)));
}

#[test]
fn sealed_state_survives_a_group_whose_members_are_all_gone() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 1);
    seal(&mut stage, &peers, sync(0, vid), content(4, 1));
    stage.say(peers[0], PeerToMaster::Leave);
    assert_eq!(stage.state(0), "Founding");
    let mut stage = stage.restart(setup());
    let (peers, vid) = stage.founded(0, 1);
    stage.say(peers[0], offers(sync(1, vid), offer(content(0, 2))));
    let note = synced(sync(1, vid), offer(content(0, 2)));
    let report = report_sync(vid, &note, (false, None));
    let install = change(&mut stage, &[(peers[0], report)], vid);
    let AbortReason::State(SyncFault::RevisionLost { sealed, .. }) = abort(&install) else {
        panic!("{install:?}");
    };
    assert_eq!(sealed, content(4, 1));
}

/// The newest sync counts as sealed last: after a restore, a lower revision than some member knows.
#[test]
fn without_a_journal_the_newest_sync_of_any_member_says_what_is_sealed() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let setup = Setup {
        new_run: false,
        journaled: false,
        ..setup()
    };
    let journal = std::mem::take(&mut stage.journal);
    let mut stage = stage.restart(setup);
    stage.journal = journal;
    stage.attach(&mut peers[0], report_sealed(vid, 1, content(9, 1)));
    stage.attach(&mut peers[1], report_sealed(vid, 2, content(3, 2)));
    stage.attach(&mut peers[2], report(vid));
    stage.pass(Timers::default().rebuild_window, &peers);
    assert_eq!(stage.state(0), "Installing");
    assert_eq!(sealed(&stage), Some(content(3, 2)));
}

#[test]
fn restarted_master_commits_what_the_survivors_hold_and_have_heard_of() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let x = sync(0, vid);
    let mut stage = stage.restart(setup());
    let a = content(4, 1);
    for (index, mine) in [(0, a), (1, content(3, 2))] {
        let note = synced(x, offer(mine));
        let report = report_sync(vid, &note, (true, Some(a)));
        stage.attach(&mut peers[index], report);
    }
    stage.pass(Timers::default().rebuild_window, &peers[..2]);
    let install = stage.installed(peers[0]);
    assert_eq!(install.floors[0].last_committed, Some(x.n));
    assert_eq!(sealed(&stage), Some(a));
    let views = stage.journal.iter().rev();
    let mut states = views.filter_map(|record| match record {
        Record::ViewSealed(view) => Some(view.state),
        _ => None,
    });
    assert_eq!(states.next(), Some(Some(a)));
}

/// One member has received the election and others have not. They get the same one, although this
/// master would elect something else, because it does not know what was sealed.
#[test]
fn restarted_master_stands_by_an_election_that_any_member_has_heard_of() {
    for is_heard in [true, false] {
        let mut stage = Stage::new();
        let (mut peers, vid) = stage.founded(0, 3);
        let x = sync(0, vid);
        let mut stage = stage.restart(setup());
        let (a, b) = (content(4, 1), content(4, 2));
        for (index, mine) in [a, b, b].into_iter().enumerate() {
            let heard = (is_heard && index == 1).then_some(a);
            let note = synced(x, offer(mine));
            let report = report_sync(vid, &note, (false, heard));
            stage.attach(&mut peers[index], report);
        }
        let sources = match is_heard {
            true => (a, vec![peers[0].peer]),
            false => (b, vec![peers[1].peer, peers[2].peer]),
        };
        for &peer in &peers {
            assert_eq!(elected(&stage.told(peer)), slice::from_ref(&sources));
        }
    }
}

#[test]
fn syncs_that_no_correct_peer_posts_end_its_session() {
    let refused: [fn(&mut OpNote); 2] = [
        |note| note.fingerprint.called = Called::Barrier,
        |note| note.op.tag = Tag(7),
    ];
    for spoil in refused {
        let mut stage = Stage::new();
        let (peers, vid) = stage.founded(0, 2);
        let mut note = synced(sync(0, vid), offer(content(1, 1)));
        spoil(&mut note);
        stage.say(peers[0], PeerToMaster::Posted(vec![note]));
        assert_eq!(evictions(&stage), [peers[0].peer]);
    }
}

#[test]
fn holding_what_was_not_elected_ends_the_session() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = sync(0, vid);
    stage.say(peers[0], holds(x, offer(content(1, 1))));
    assert_eq!(evictions(&stage), [peers[0].peer]);
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let note = synced(x, offer(content(1, 1)));
    let report = report_sync(vid, &note, (false, Some(content(1, 2))));
    stage.attach(&mut peers[1], report);
    assert_eq!(evictions(&stage), [peers[1].peer]);
}

fn evictions(stage: &Stage) -> Vec<PeerId> {
    let evicted = stage.events.iter().filter_map(|event| match event {
        Event::Evicted {
            peer,
            reason: EvictReason::Protocol(_),
            ..
        } => Some(*peer),
        _ => None,
    });
    evicted.collect()
}
