//! The status for operators.

use super::*;
use crate::wire::control::Wait;

/// An empty master; a newcomer that waits for another; members, a call of one of them, a
/// member that lost its connection, and a newcomer that waits for a safe point.
#[test]
fn a_status_says_who_is_there_what_is_open_and_what_is_waited_for() {
    let mut stage = Stage::new();
    assert_eq!(stage.master.status().groups, []);

    let mut hello = stage.hello(7, 1);
    if let PeerToMaster::Hello { min_world, .. } = &mut hello {
        *min_world = 2;
    }
    let lone = stage.join(hello);
    let status = stage.master.status();
    assert!(status.run.is_some() && status.term == Term(1), "{status:?}");
    let [group] = &status.groups[..] else {
        panic!("{status:?}");
    };
    assert_eq!((group.group, group.phase), (GroupId(7), "Founding"));
    assert_eq!(group.newcomers[0].peer, lone.peer);
    let waits_for = &group.newcomers[0].waits_for;
    assert!(
        matches!(waits_for, Some(Wait::FirstView { needed: 2, .. })),
        "{waits_for:?}"
    );

    let (peers, vid) = stage.founded(0, 3);
    start(&mut stage, &peers[..1], op(0, vid), &[]);
    stage.pass(Duration::from_millis(300), &peers[..1]);
    stage.close(peers[2]);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    let status = stage.master.status();
    let group = &status.groups[0];
    assert_eq!((group.view, group.phase), (vid, "Steady"));
    assert_eq!((group.open_operations, group.safe_points), (1, 0));
    let members: Vec<PeerId> = group.members.iter().map(|member| member.peer).collect();
    assert_eq!(members, [0, 1, 2].map(|rank| peers[rank].peer));
    let silences = [0, 1, 2].map(|rank| group.members[rank].silent_for);
    assert!(
        silences[0] < silences[1] && silences[2].is_none(),
        "{silences:?}"
    );
    let waits_for = &group.newcomers[0].waits_for;
    assert!(
        matches!(waits_for, Some(Wait::SafePoint { members: 3, .. })),
        "{waits_for:?}"
    );
}

/// No member reaches a safe point during a view change: a newcomer waits for their answers first.
#[test]
fn a_status_says_whose_answer_a_change_waits_for() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    let status = stage.master.status();
    let Some(Wait::Change { missing }) = &status.groups[0].newcomers[0].waits_for else {
        panic!("{status:?}");
    };
    let late: Vec<_> = missing.first.iter().map(|named| named.peer).collect();
    assert_eq!((missing.count, late), (1, vec![peers[1].peer]));
}

/// Whether the journal needs a stamp: newcomers and members without a connection do not count.
#[test]
fn only_members_with_a_connection_can_hear_of_the_master() {
    let mut stage = Stage::new();
    let mut hello = stage.hello(7, 1);
    if let PeerToMaster::Hello { min_world, .. } = &mut hello {
        *min_world = 2;
    }
    stage.join(hello);
    assert!(!stage.master.has_members(), "a newcomer");
    let (peers, _) = stage.founded(0, 2);
    stage.close(peers[0]);
    assert!(stage.master.has_members(), "one is connected");
    stage.close(peers[1]);
    assert!(!stage.master.has_members(), "none is connected");
}
