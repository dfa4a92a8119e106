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
