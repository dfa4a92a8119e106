//! Views, commits and view changes (R1–R6, R8, R12).

use super::*;
use crate::wire::control::{AbortReason, Birth, CancelReason, CostTable};

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

#[test]
fn commits_of_one_input_share_one_message() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    let y = OpName { tag: Tag(8), ..x };
    stage.say(peers[0], PeerToMaster::Done(vec![note(x), note(y)]));
    stage.say(peers[1], PeerToMaster::Done(vec![note(x), note(y)]));
    let told = stage.told(peers[0]);
    let [MasterToPeer::Commit(commits)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        commits.iter().map(|commit| commit.op).collect::<Vec<_>>(),
        [x, y]
    );
    let sealed = stage
        .journal
        .iter()
        .filter(|r| matches!(r, Record::Committed { .. }));
    assert_eq!(sealed.count(), 1);
}

#[test]
fn commit_is_sealed_before_it_is_told_and_a_view_before_its_install() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    stage.say(peers[0], done(x));
    stage.master.handle(
        stage.now,
        Input::Message {
            connection: peers[1].connection,
            from: address(1),
            message: done(x),
        },
    );
    let first = stage.master.poll_output();
    assert!(matches!(
        first,
        Some(Output::Journal {
            record: Record::Committed { .. },
            durable: false,
        })
    ));
    stage.drain();
    stage.say(peers[0], PeerToMaster::Leave);
    let flush = PeerToMaster::Flush {
        vid,
        report: report(vid),
    };
    stage.master.handle(
        stage.now,
        Input::Message {
            connection: peers[1].connection,
            from: address(1),
            message: flush,
        },
    );
    let first = stage.master.poll_output();
    assert!(matches!(
        first,
        Some(Output::Journal {
            record: Record::ViewSealed(_),
            durable: true,
        })
    ));
}

#[test]
fn second_loss_before_everybody_installed_decides_nothing_anew() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 4);
    let x = op(0, vid);
    start(&mut stage, &peers, x, &peers[..1]);
    stage.say(peers[3], PeerToMaster::Leave);
    for &peer in &peers[..3] {
        stage.flush(peer, vid, report_open(vid, x, peer == peers[0]));
    }
    let first = stage.installed(peers[0]);
    stage.confirm(peers[0], first.vid);
    stage.say(peers[2], PeerToMaster::Leave);
    assert_eq!(
        stage.told(peers[0]),
        [MasterToPeer::Suspend { vid: first.vid }]
    );
    stage.flush(
        peers[0],
        first.vid,
        report_open(first.vid, op(1, first.vid), false),
    );
    let mut late = report_open(first.vid, op(1, first.vid), false);
    late.tags[0].open = None;
    stage.flush(peers[1], first.vid, late);
    let second = stage.installed(peers[0]);
    assert_eq!(
        second.floors[0].floor,
        OpNumber(2),
        "n = 1 is aborted, n = 0 stays"
    );
    assert_eq!(second.floors[0].reasons.len(), 2);
    assert!(!second.released);
    stage.confirm(peers[0], second.vid);
    assert_eq!(
        stage.told(peers[0]),
        [],
        "nobody may tell before all have the view"
    );
    stage.confirm(peers[1], second.vid);
    assert_eq!(
        stage.told(peers[0]),
        [MasterToPeer::Release { vid: second.vid }]
    );
}

#[test]
fn loss_during_a_change_is_struck_from_the_awaited() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    stage.say(peers[1], PeerToMaster::Leave);
    let install = stage.installed(peers[0]);
    assert_eq!(install.members.len(), 1);
    assert_eq!(install.departed.len(), 2);
    stage.confirm(peers[0], install.vid);
    assert_eq!(stage.state(0), "Steady");
}

#[test]
fn group_whose_last_member_is_gone_is_founded_again_with_its_floors() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    start(&mut stage, &peers, op(0, vid), &peers);
    stage.say(peers[0], PeerToMaster::Leave);
    stage.say(peers[1], PeerToMaster::Leave);
    assert_eq!(stage.state(0), "Founding");
    let newcomer = stage.join_group(0);
    stage.ready(newcomer, &[]);
    let install = stage.installed(newcomer);
    assert!(install.vid > vid);
    assert_eq!(install.floors[0].floor, OpNumber(1));
    assert_eq!(
        install.members[0].number.0, 2,
        "numbers of admission are never reused"
    );
    assert_eq!(stage.state(0), "Steady");
}

#[test]
fn operation_of_an_older_view_goes_on_under_its_name() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let x = op(0, vid);
    let y = OpName { tag: Tag(8), ..x };
    stage.say(peers[0], posted(x));
    stage.say(peers[0], posted(y));
    let reason = CancelReason::User;
    stage.say(peers[0], PeerToMaster::Cancel { op: y, reason });
    let mut facts = report_open(vid, x, false);
    facts.tags.extend(report_open(vid, y, false).tags);
    stage.flush(peers[0], vid, facts);
    stage.flush(peers[1], vid, report(vid));
    let install = stage.installed(peers[0]);
    let carried = Birth {
        op: x,
        members: peers.iter().map(|peer| peer.peer).collect(),
        ring_order: [Rank(0), Rank(1)].into(),
        costs: CostTable::ONE_HOST,
    };
    assert_eq!(install.carried, [carried]);
    for &peer in &peers {
        stage.confirm(peer, install.vid);
    }
    stage.sent.clear();
    start(&mut stage, &peers, x, &peers);
    let told = stage.told(peers[0]);
    assert!(matches!(&told[..], [MasterToPeer::Commit(commits)] if commits[0].op == x));
}

#[test]
fn commit_inside_a_change_that_is_installing_is_told_at_once() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    for &peer in &peers[..2] {
        stage.flush(peer, vid, report(vid));
    }
    let install = stage.installed(peers[0]);
    stage.confirm(peers[0], install.vid);
    let x = op(0, install.vid);
    stage.say(peers[0], done(x));
    assert_eq!(stage.told(peers[0]), []);
    stage.say(peers[1], done(x));
    assert_eq!(stage.state(0), "Installing");
    assert!(matches!(
        stage.told(peers[0])[..],
        [MasterToPeer::Commit(_)]
    ));
}

#[test]
fn nothing_commits_while_suspended() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let x = op(0, vid);
    start(&mut stage, &peers, x, &peers[..2]);
    let y = OpName { tag: Tag(8), ..x };
    stage.say(peers[0], posted(y));
    let reason = CancelReason::User;
    stage.say(peers[0], PeerToMaster::Cancel { op: y, reason });
    stage.say(peers[2], done(x));
    assert_eq!(stage.told(peers[1]), [MasterToPeer::Suspend { vid }]);
}

#[test]
fn groups_never_wait_for_each_other() {
    let mut stage = Stage::new();
    let (first, vid) = stage.founded(0, 2);
    let (second, other) = stage.founded(1, 3);
    stage.say(first[1], PeerToMaster::Leave);
    assert_eq!(
        stage.state(0),
        "Suspended",
        "a member of group 0 does not answer"
    );
    start(&mut stage, &second, op(0, other), &second);
    assert!(matches!(
        stage.told(second[0])[..],
        [MasterToPeer::Commit(_)]
    ));
    stage.say(second[2], PeerToMaster::Leave);
    for &peer in &second[..2] {
        stage.flush(peer, other, report(other));
    }
    let install = stage.installed(second[0]);
    for &peer in &second[..2] {
        stage.confirm(peer, install.vid);
    }
    assert_eq!(stage.state(1), "Steady");
    assert_eq!(stage.view(0).0, vid);
}

/// Forbidden messages cost their senders the session, with the reason.
#[test]
fn protocol_is_enforced() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 9);
    let future = Vid {
        epoch: crate::ids::Epoch(vid.epoch.0 + 1),
        ..vid
    };
    let mut above = report_open(vid, op(3, vid), false);
    above.tags[0].open = None;
    above.tags[0].last_committed = None;
    let of_shared_state = note(OpName {
        tag: Tag::SHARED_STATE,
        ..op(0, vid)
    });
    let wrong = [
        posted(op(1, Vid::default())),
        posted(op(0, future)),
        done(op(0, Vid::default())),
        PeerToMaster::Posted(vec![of_shared_state]),
        PeerToMaster::Installed {
            vid,
            report: report(future),
        },
        PeerToMaster::Installed { vid, report: above },
        stage.hello(0, 1),
    ];
    for (peer, message) in peers.iter().zip(wrong) {
        stage.say(*peer, message.clone());
        let told = stage.told(*peer);
        let reason = told.iter().find_map(|message| match message {
            MasterToPeer::Evicted { reason } => Some(reason),
            _ => None,
        });
        assert!(
            matches!(reason, Some(EvictReason::Protocol(_))),
            "{message:?}: {told:?}"
        );
        assert!(stage.closed.contains(&peer.connection));
    }
    stage.flush(peers[7], vid, report(vid));
    stage.say(peers[7], posted(op(0, vid)));
    assert!(
        stage.closed.contains(&peers[7].connection),
        "posted after its Flush"
    );
    assert_eq!(stage.state(0), "Suspended");
    stage.flush(peers[8], vid, report(vid));
    assert_eq!(stage.installed(peers[8]).members.len(), 1);
}

#[test]
fn stale_answers_do_nothing() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.flush(peers[0], vid, report(vid));
    assert_eq!(stage.state(0), "Steady");
    stage.say(peers[2], PeerToMaster::Leave);
    stage.confirm(peers[0], vid);
    assert_eq!(stage.state(0), "Suspended");
    for &peer in &peers[..2] {
        stage.flush(peer, vid, report(vid));
    }
    let install = stage.installed(peers[0]);
    stage.confirm(peers[0], vid);
    stage.confirm(peers[0], install.vid);
    stage.flush(peers[1], vid, report(vid));
    assert_eq!(stage.state(0), "Installing");
    stage.confirm(peers[1], install.vid);
    assert_eq!(stage.state(0), "Steady");
}

/// Every tag ends in aborts with long reasons, and the reported ones fit a control frame.
#[test]
fn reasons_of_many_aborts_fit_a_frame() {
    use crate::limits;
    let mut ledger = group::ledger::Ledger::default();
    let view = group::View {
        vid: vid(1, 1),
        members: vec![member(0)],
        ..Default::default()
    };
    let long = AbortReason::Cancelled {
        by: PeerId(0),
        reason: CancelReason::Local("x".repeat(limits::TEXT_BYTES_MAX)),
    };
    for n in 0..3 {
        for tag in 0..limits::TAGS_MAX as u64 {
            let x = OpName {
                tag: Tag(tag),
                ..op(n, view.vid)
            };
            ledger
                .post(
                    PeerId(0),
                    &note(x),
                    group::ledger::InView {
                        view: &view,
                        now: Instant(0),
                    },
                )
                .unwrap();
            ledger.abort(x.tag, long.clone());
        }
    }
    let floors = ledger.floors();
    assert_eq!(floors.len(), limits::TAGS_MAX);
    assert_eq!(floors[0].reasons[0].0, OpNumber(2), "the newest first");
    let bytes = postcard::to_stdvec(&floors).unwrap().len();
    assert!(
        bytes < limits::CONTROL_FRAME_BYTES_MAX as usize / 2,
        "{bytes}"
    );
}
