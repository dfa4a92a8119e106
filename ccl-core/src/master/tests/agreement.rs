//! Verdicts that members know before the master (R19).

use super::*;

/// A report of these floors, without open operations.
fn report_floor(vid: Vid, n: u64) -> Report {
    let mut report = report_open(vid, op(n, vid), false);
    report.tags[0].open = None;
    report.tags[0].next = Some(OpNumber(n));
    report
}

fn commits(told: &[MasterToPeer]) -> Vec<OpName> {
    let commits = told.iter().filter_map(|message| match message {
        MasterToPeer::Commit(commits) => Some(commits),
        _ => None,
    });
    commits.flatten().map(|commit| commit.op).collect()
}

#[test]
fn a_note_says_that_all_below_is_committed() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[0], done(op(2, vid)));
    for &peer in &peers {
        assert_eq!(commits(&stage.told(peer)), [op(1, vid)]);
    }
    // Late notes about what is decided mean nothing.
    stage.say(peers[1], done(op(0, vid)));
    stage.say(peers[1], posted(op(2, vid)));
    assert!(stage.told(peers[1]).is_empty());
    for &peer in &peers[1..] {
        stage.say(peer, done(op(2, vid)));
    }
    assert_eq!(commits(&stage.told(peers[0])), [op(2, vid)]);
}

/// H66: a newcomer behind a carried operation hears no `Held` of it.
#[test]
fn a_floor_in_a_report_is_told_to_the_whole_view() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    stage.close(peers[0]);
    stage.attach(&mut peers[0], report_floor(vid, 2));
    assert_eq!(commits(&stage.told(peers[1])), [op(1, vid)]);
    let told = stage.told(peers[0]);
    let [MasterToPeer::Install(reply), ..] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(reply.floors[0].floor, OpNumber(2));
}

/// H65: the report of a member that has decided lists the operation no longer.
#[test]
fn the_floor_of_a_lost_member_counts() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report_floor(vid, 1));
    stage.say(peers[0], PeerToMaster::Leave);
    stage.flush(peers[1], vid, report_open(vid, op(0, vid), true));
    let install = stage.installed(peers[1]);
    assert_eq!(install.floors[0].last_committed, Some(OpNumber(0)));
    assert!(install.carried.is_empty());
}

#[test]
fn a_sync_of_shared_state_is_never_decided_by_members() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let mut report = report_floor(vid, 1);
    report.tags[0].tag = Tag::SHARED_STATE;
    stage.say(peers[0], PeerToMaster::Installed { vid, report });
    assert!(stage.closed.contains(&peers[0].connection));
}

/// A member that is back is told nothing until it attaches, and is asked to at once; but a master
/// that rebuilds waits until enough are back.
#[test]
fn a_member_that_is_back_is_asked_to_attach() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.close(peers[0]);
    stage.come_back(&mut peers[0], vid);
    stage.say(peers[1], done(op(1, vid)));
    assert!(matches!(stage.told(peers[0])[..], [MasterToPeer::Summon]));
    stage.say_attach(peers[0], report_floor(vid, 1));
    assert_eq!(stage.installed(peers[0]).floors[0].floor, OpNumber(1));

    let mut stage = stage.restart(Setup {
        new_run: false,
        ..setup()
    });
    for peer in &mut peers[..2] {
        stage.come_back(peer, vid);
        assert!(stage.told(*peer).is_empty(), "one is missing");
    }
    stage.come_back(&mut peers[2], vid);
    for &peer in &peers {
        assert!(matches!(stage.told(peer)[..], [MasterToPeer::Summon]));
    }
    for &peer in &peers[1..] {
        stage.say_attach(peer, report_floor(vid, 2));
        assert!(stage.told(peer).is_empty(), "one has yet to attach");
    }
    stage.say_attach(peers[0], report_floor(vid, 1));
    for &peer in &peers {
        assert_eq!(stage.installed(peer).floors[0].floor, OpNumber(2));
    }
}

/// A member that says that it is back, and no more, is lost like one that does not answer.
#[test]
fn a_member_that_never_attaches_is_evicted() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.close(peers[0]);
    stage.come_back(&mut peers[0], vid);
    let timeout = stage.master.setup.timers.peer_timeout * 2;
    stage.pass(timeout + Duration::from_secs(1), &peers);
    assert!(stage.closed.contains(&peers[0].connection));
}
