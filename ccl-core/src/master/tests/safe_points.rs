//! Founding, numbered safe points and admission (R9).

use super::*;

const GRACE: Duration = Duration::from_secs(2);

fn at(k: u64) -> PeerToMaster {
    PeerToMaster::AtSafePoint { k, ahead: 0 }
}

fn at_safe_point(vid: Vid, called: u64) -> Report {
    let mut report = report(vid);
    report.safe_called = called;
    report
}

fn safe_released(told: &[MasterToPeer]) -> Vec<u64> {
    let released = told.iter().filter_map(|message| match message {
        MasterToPeer::SafeReleased { k, .. } => Some(*k),
        _ => None,
    });
    released.collect()
}

#[test]
fn first_view_waits_for_the_greatest_wish_of_the_waiting() {
    let mut stage = Stage::new();
    let mut wish = stage.hello(0, 1);
    if let PeerToMaster::Hello { min_world, .. } = &mut wish {
        *min_world = 3;
    }
    let a = stage.join(wish);
    let b = stage.join_group(0);
    stage.ready(a, &[b]);
    stage.ready(b, &[a]);
    assert_eq!(stage.state(0), "Founding");
    let c = stage.join_group(0);
    stage.ready(c, &[a, b]);
    stage.ready(a, &[b, c]);
    assert_eq!(
        stage.state(0),
        "Founding",
        "b has not said that it is linked with c"
    );
    stage.ready(b, &[a, c]);
    assert_eq!(stage.state(0), "Steady");
    let install = stage.installed(a);
    assert_eq!(install.members.len(), 3);
    assert_eq!(
        stage.view(0).1,
        [a.peer, b.peer, c.peer],
        "in order of admission"
    );
}

#[test]
fn safe_point_without_newcomers_is_released_to_each_at_once() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    stage.say(peers[0], at(0));
    assert_eq!(safe_released(&stage.told(peers[0])), [0]);
    assert_eq!(stage.told(peers[1]), []);
    let sealed = stage
        .journal
        .iter()
        .filter(|r| matches!(r, Record::SafePoint { k: 0, .. }));
    assert_eq!(sealed.count(), 1);
    stage.say(peers[0], at(1));
    assert_eq!(safe_released(&stage.told(peers[0])), [1]);
    stage.say(peers[1], at(0));
    assert_eq!(safe_released(&stage.told(peers[1])), [1]);
}

/// H10: A is released from safe point 0 and posts; a newcomer gets ready; B calls safe point 0. If
/// B had to wait for A there, A would wait for B in its operation.
#[test]
fn late_caller_gets_what_the_first_got_although_a_newcomer_is_ready() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    stage.say(peers[0], at(0));
    stage.say(peers[0], posted(op(0, vid)));
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.told(peers[1]);
    stage.say(peers[1], at(0));
    assert_eq!(safe_released(&stage.told(peers[1])), [0]);
    stage.say(peers[1], at(1));
    assert_eq!(
        stage.told(peers[1]),
        [],
        "the next one waits for the newcomer"
    );
}

#[test]
fn all_at_a_safe_point_admit_the_ready_newcomers() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.announced();
    stage.sent.clear();
    stage.say(peers[0], at(0));
    assert_eq!(stage.told(peers[0]), []);
    stage.say(peers[1], at(0));
    assert_eq!(stage.told(peers[0]), [MasterToPeer::Suspend { vid }]);
    for &peer in &peers {
        stage.flush(peer, vid, at_safe_point(vid, 1));
    }
    let install = stage.installed(newcomer);
    assert_eq!(install.members.len(), 3);
    assert_eq!(install.safe_released, 1);
    assert_eq!(install.members[2].peer, newcomer.peer);
    stage.announced();
    let told = stage.told(peers[0]);
    assert!(matches!(&told[0], MasterToPeer::Install(_)));
    assert!(
        matches!(&told[1], MasterToPeer::Expect { newcomers, .. } if newcomers.is_empty()),
        "it is a newcomer no longer"
    );
    for &peer in &peers {
        stage.say(
            peer,
            PeerToMaster::Installed {
                vid: install.vid,
                report: at_safe_point(install.vid, 1),
            },
        );
    }
    assert_eq!(stage.state(0), "Steady");
    assert_eq!(
        stage.told(newcomer),
        [MasterToPeer::Release { vid: install.vid }]
    );
}

/// H11: an operation in another tag is open while a newcomer is admitted. It keeps its name and its
/// members.
#[test]
fn admission_carries_open_operations_on() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    let y = op(0, vid);
    stage.say(peers[0], posted(y));
    stage.say(peers[0], at(0));
    stage.say(peers[1], at(0));
    let mut facts = report_open(vid, y, false);
    facts.safe_called = 1;
    stage.flush(peers[0], vid, facts);
    stage.flush(peers[1], vid, at_safe_point(vid, 1));
    let install = stage.installed(newcomer);
    assert_eq!(install.carried[0].op, y);
    assert_eq!(
        install.carried[0].members[..],
        [peers[0].peer, peers[1].peer]
    );
    assert_eq!(install.floors[0].floor, OpNumber(0));
    stage.say(newcomer, posted(y));
    assert!(
        stage.closed.contains(&newcomer.connection),
        "the newcomer is no member of it"
    );
}

#[test]
fn newcomer_that_dies_turns_the_safe_point_into_unchanged() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], at(0));
    stage.sent.clear();
    stage.close(newcomer);
    stage.pass(GRACE, &peers);
    assert_eq!(safe_released(&stage.told(peers[0])), [0]);
    assert_eq!(stage.view(0).0, vid);
}

#[test]
fn newcomer_whose_link_breaks_turns_the_safe_point_into_unchanged() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], at(0));
    stage.ready(newcomer, &peers[..1]);
    assert_eq!(safe_released(&stage.told(peers[0])), [0]);
}

#[test]
fn withdrawal_turns_the_safe_point_into_unchanged_and_is_not_counted() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.sent.clear();
    stage.say(peers[0], at(0));
    stage.say(peers[1], at(0));
    stage.say(peers[1], PeerToMaster::Withdraw { k: 0 });
    assert_eq!(safe_released(&stage.told(peers[0])), [0]);
    assert_eq!(stage.told(peers[1]), []);
    stage.say(peers[1], at(0));
    assert_eq!(
        safe_released(&stage.told(peers[1])),
        [0],
        "the same one again"
    );
}

#[test]
fn withdrawal_after_all_have_come_still_admits_nobody() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    for &peer in &peers {
        stage.say(peer, at(0));
    }
    stage.say(peers[0], PeerToMaster::Withdraw { k: 0 });
    stage.flush(peers[0], vid, at_safe_point(vid, 0));
    stage.flush(peers[1], vid, at_safe_point(vid, 1));
    let install = stage.installed(peers[1]);
    assert_eq!((install.members.len(), install.safe_released), (2, 0));
    for (peer, called) in [(peers[0], 0), (peers[1], 1)] {
        let report = at_safe_point(install.vid, called);
        stage.say(
            peer,
            PeerToMaster::Installed {
                vid: install.vid,
                report,
            },
        );
    }
    assert_eq!(safe_released(&stage.told(peers[1])), [0]);
}

#[test]
fn withdrawal_lost_with_the_connection_is_seen_in_the_report() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], at(0));
    stage.close(peers[0]);
    stage.attach(&mut peers[0], at_safe_point(vid, 0));
    stage.sent.clear();
    stage.say(peers[1], at(0));
    assert_eq!(safe_released(&stage.told(peers[1])), [0]);
}

#[test]
fn loss_does_not_abort_the_wait_and_may_complete_it() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], at(0));
    stage.say(peers[1], at(0));
    stage.say(peers[2], PeerToMaster::Leave);
    for &peer in &peers[..2] {
        stage.flush(peer, vid, at_safe_point(vid, 1));
    }
    let install = stage.installed(newcomer);
    assert_eq!(install.members.len(), 3);
    assert_eq!(install.safe_released, 1);
}

#[test]
fn newcomers_without_a_link_between_them_are_admitted_one_at_a_time() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 1);
    let (c, d) = (stage.join_group(0), stage.join_group(0));
    stage.ready(c, &peers);
    stage.ready(d, &peers);
    stage.say(peers[0], at(0));
    stage.flush(peers[0], vid, at_safe_point(vid, 1));
    let install = stage.installed(peers[0]);
    assert_eq!(stage.view(0).1, [peers[0].peer, c.peer]);
    let mut report = at_safe_point(install.vid, 1);
    report.safe_released = 1;
    stage.say(
        peers[0],
        PeerToMaster::Installed {
            vid: install.vid,
            report,
        },
    );
    stage.say(peers[0], at(1));
    let told = stage.told(peers[0]);
    assert_eq!(
        safe_released(&told),
        [1],
        "d is not linked with c: {told:?}"
    );
}

fn absences(stage: &Stage) -> Vec<(PeerId, EvictReason)> {
    let evicted = stage.events.iter().filter_map(|event| match event {
        Event::Evicted { peer, reason, .. } => Some((*peer, reason.clone())),
        _ => None,
    });
    evicted.collect()
}

/// Three members of which two wait at safe point 0 for a newcomer that is ready.
fn held_up(post_timeout: Duration) -> (Stage, Vec<Puppet>, Puppet, Vid) {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.master.shared.timers.post_timeout = Some(post_timeout);
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &peers);
    stage.say(peers[0], at(0));
    stage.pass(post_timeout / 2, &[&peers[..], &[newcomer]].concat());
    stage.say(peers[1], at(0));
    assert_eq!(stage.state(0), "Steady");
    (stage, peers, newcomer, vid)
}

const POST: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(1);

/// Its heartbeats go on; without R15 at safe points all would wait for it forever.
#[test]
fn member_that_does_not_come_to_a_safe_point_is_evicted_and_the_newcomer_let_in() {
    let (mut stage, peers, newcomer, vid) = held_up(POST);
    let all = [&peers[..], &[newcomer]].concat();
    stage.pass(POST - MOMENT, &all);
    assert_eq!(absences(&stage), []);
    stage.pass(MOMENT, &all);
    let reason = EvictReason::NotAtSafePoint { k: 0 };
    assert_eq!(absences(&stage), [(peers[2].peer, reason)]);
    stage.flush(peers[0], vid, at_safe_point(vid, 1));
    stage.flush(peers[1], vid, at_safe_point(vid, 1));
    let members = stage.view(0).1;
    assert_eq!(members, [peers[0].peer, peers[1].peer, newcomer.peer]);
}

/// A member in an operation is not absent; its time restarts when the operation ends.
#[test]
fn member_in_an_operation_is_not_missed_at_a_safe_point() {
    let (mut stage, peers, newcomer, vid) = held_up(POST);
    let all = [&peers[..], &[newcomer]].concat();
    let x = op(0, vid);
    peers.iter().for_each(|peer| stage.say(*peer, posted(x)));
    stage.pass(POST * 3, &all);
    assert_eq!(absences(&stage), []);
    peers.iter().for_each(|peer| stage.say(*peer, done(x)));
    stage.pass(POST - MOMENT, &all);
    assert_eq!(absences(&stage), []);
    stage.say(peers[2], at(0));
    assert_eq!(stage.state(0), "Suspended");
}

#[test]
fn nobody_is_missed_at_a_safe_point_where_nobody_waits() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    stage.master.shared.timers.post_timeout = Some(POST);
    stage.say(peers[0], at(0));
    stage.pass(POST * 2, &peers);
    assert_eq!(absences(&stage), []);
}

/// Goal: nobody else suffers from a member that lies about safe points. 1. It says that it is at
/// one far away. 2. The others are told nothing of it, and wait for it at the open one. 3. It is
/// evicted as one that does not come, and the newcomer is admitted at the open one.
#[test]
fn member_that_is_further_than_the_others_have_been_is_not_believed() {
    let (mut stage, peers, newcomer, vid) = held_up(POST);
    stage.sent.clear();
    stage.say(peers[2], PeerToMaster::AtSafePoint { k: 1000, ahead: 64 });
    for peer in &peers {
        assert_eq!(safe_released(&stage.told(*peer)), [] as [u64; 0]);
    }
    let all = [&peers[..], &[newcomer]].concat();
    stage.pass(POST, &all);
    let reason = EvictReason::NotAtSafePoint { k: 0 };
    assert_eq!(absences(&stage), [(peers[2].peer, reason)]);
    stage.flush(peers[0], vid, at_safe_point(vid, 1));
    stage.flush(peers[1], vid, at_safe_point(vid, 1));
    let members = stage.view(0).1;
    assert_eq!(members, [peers[0].peer, peers[1].peer, newcomer.peer]);
    assert_eq!(stage.installed(peers[0]).safe_released, 1);
}

/// The same lie in a report that answers a change.
#[test]
fn report_of_safe_points_that_the_others_have_not_called_is_not_believed() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    let mut lie = at_safe_point(vid, 1000);
    lie.safe_released = 1000;
    stage.flush(peers[0], vid, lie);
    stage.flush(peers[1], vid, at_safe_point(vid, 0));
    assert_eq!(stage.installed(peers[1]).safe_released, 0);
}

/// What members have agreed on counts as soon as the last of them says that it was there.
#[test]
fn safe_points_that_members_released_are_learned_from_all_of_them() {
    let (mut stage, peers, newcomer, vid) = held_up(POST);
    stage.sent.clear();
    stage.say(peers[0], at(1));
    stage.say(peers[1], at(1));
    assert_eq!(safe_released(&stage.told(peers[0])), [] as [u64; 0]);
    stage.say(peers[2], at(0));
    for peer in &peers {
        let told = safe_released(&stage.told(*peer));
        assert!(!told.is_empty() && told.iter().all(|k| *k == 0), "{told:?}");
    }
    assert_eq!(stage.state(0), "Steady", "the last is not at 1 yet");
    stage.say(peers[2], at(1));
    for peer in &peers {
        stage.flush(*peer, vid, at_safe_point(vid, 2));
    }
    assert!(stage.view(0).1.contains(&newcomer.peer));
    assert_eq!(stage.installed(peers[0]).safe_released, 2);
}

/// The others are further than a member says to be, whose word is missing or a lie.
#[test]
fn member_that_denies_what_the_others_released_is_evicted() {
    let (mut stage, peers, newcomer, vid) = held_up(POST);
    stage.say(peers[0], at(1));
    stage.say(peers[1], at(1));
    let all = [&peers[..], &[newcomer]].concat();
    stage.pass(POST, &all);
    let reason = EvictReason::NotAtSafePoint { k: 0 };
    assert_eq!(absences(&stage), [(peers[2].peer, reason)]);
    for peer in &peers[..2] {
        let mut report = at_safe_point(vid, 2);
        report.safe_released = 1;
        stage.flush(*peer, vid, report);
    }
    assert!(stage.view(0).1.contains(&newcomer.peer));
    assert_eq!(stage.installed(peers[0]).safe_released, 2);
}
