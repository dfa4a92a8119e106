//! Views, commits and view changes (R1–R6, R8, R12).

use super::*;
use crate::wire::control::{AbortReason, CancelReason, Carried};

#[test]
fn operation_commits_when_all_are_done() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    assert_eq!(stage.state(0), "Steady");
    let x = op(0, vid);
    for &peer in &peers {
        stage.say(peer, posted(x));
    }
    stage.say(peers[0], done(x));
    stage.say(peers[1], done(x));
    assert_eq!(stage.told(peers[0]), []);
    stage.say(peers[2], done(x));
    for &peer in &peers {
        let told = stage.told(peer);
        let [MasterToPeer::Commit(commits)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(commits[0].op, x);
        assert_eq!(
            commits[0].contributors,
            peers.iter().map(|p| p.peer).collect::<Vec<_>>()
        );
    }
}

#[test]
fn loss_suspends_decides_installs_and_releases() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    for &peer in &peers {
        stage.say(peer, posted(x));
    }
    stage.say(peers[2], PeerToMaster::Leave);
    assert_eq!(stage.state(0), "Suspended");
    assert_eq!(stage.told(peers[0]), [MasterToPeer::Suspend { vid }]);
    stage.flush(peers[0], vid, report_open(vid, x, false));
    stage.flush(peers[1], vid, report_open(vid, x, true));
    let install = stage.installed(peers[0]);
    assert_eq!(install.vid.epoch.0, vid.epoch.0 + 1);
    assert_eq!(install.members.len(), 2);
    assert_eq!(install.floors[0].floor, OpNumber(1));
    assert_eq!(install.floors[0].last_committed, None);
    let lost = AbortReason::Lost {
        peer: peers[2].peer,
        reason: EvictReason::Left,
    };
    assert_eq!(install.floors[0].reasons, [(OpNumber(0), lost)]);
    stage.confirm(peers[0], install.vid);
    assert_eq!(stage.told(peers[0]), []);
    stage.confirm(peers[1], install.vid);
    assert_eq!(
        stage.told(peers[0]),
        [MasterToPeer::Release { vid: install.vid }]
    );
    assert_eq!(stage.state(0), "Steady");
}
