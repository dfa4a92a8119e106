//! Silence, ended connections, broken links, absence (R10, R15) and units.

use super::*;
use crate::limits;
use crate::wire::control::{AbortReason, CancelReason, LinkFault};

fn link_down(target: Puppet, fault: LinkFault, gave_up: bool) -> PeerToMaster {
    PeerToMaster::LinkDown {
        vid: Vid::default(),
        peer: target.peer,
        fault,
        gave_up,
    }
}

fn evictions(stage: &Stage) -> Vec<(PeerId, EvictReason)> {
    let evicted = stage.events.iter().filter_map(|event| match event {
        Event::Evicted { peer, reason, .. } => Some((*peer, reason.clone())),
        _ => None,
    });
    evicted.collect()
}

#[test]
fn ended_control_and_data_connections_evict_at_once_in_either_order() {
    for control_first in [true, false] {
        let mut stage = Stage::new();
        let (peers, _) = stage.founded(0, 3);
        let ended = link_down(peers[2], LinkFault::Ended, false);
        if control_first {
            stage.close(peers[2]);
            assert_eq!(evictions(&stage), []);
            stage.say(peers[0], ended);
        } else {
            stage.say(peers[0], ended);
            assert_eq!(evictions(&stage), []);
            stage.close(peers[2]);
        }
        assert_eq!(evictions(&stage), [(peers[2].peer, EvictReason::Died)]);
        assert_eq!(stage.state(0), "Suspended");
    }
}

#[test]
fn ended_control_connection_alone_is_given_time_to_come_back() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let grace = Timers::default().reattach_grace;
    stage.close(peers[1]);
    stage.pass(grace - Duration::from_millis(1), &peers[..1]);
    assert_eq!(evictions(&stage), []);
    stage.attach(&mut peers[1], report(vid));
    stage.pass(grace, &peers);
    assert_eq!(evictions(&stage), []);
    stage.close(peers[1]);
    stage.pass(grace, &peers[..1]);
    assert_eq!(evictions(&stage), [(peers[1].peer, EvictReason::Detached)]);
}

#[test]
fn slow_link_is_no_sign_of_death() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    stage.say(peers[0], link_down(peers[2], LinkFault::TimedOut, false));
    stage.close(peers[2]);
    assert_eq!(evictions(&stage), []);
}

#[test]
fn silent_peer_is_evicted_and_the_group_goes_on() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let timeout = Timers::default().peer_timeout;
    stage.pass(timeout - Duration::from_millis(1), &peers[..2]);
    assert_eq!(evictions(&stage), []);
    stage.pass(Duration::from_millis(1), &peers[..2]);
    let silent_ms = timeout.as_millis() as u64;
    assert_eq!(
        evictions(&stage),
        [(peers[2].peer, EvictReason::Silent { silent_ms })]
    );
    let told = stage.told(peers[2]);
    assert!(
        matches!(told[..], [MasterToPeer::Evicted { .. }]),
        "{told:?}"
    );
    stage.flush(peers[0], vid, report(vid));
    stage.flush(peers[1], vid, report(vid));
    assert_eq!(stage.state(0), "Installing");
}

#[test]
fn member_that_lives_but_never_answers_is_evicted() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    stage.pass(Timers::default().peer_timeout * 2, &peers[..2]);
    let evicted = evictions(&stage);
    assert!(matches!(evicted[1], (peer, EvictReason::Silent { .. }) if peer == peers[1].peer));
    assert_eq!(stage.state(0), "Installing");
}

/// No message of the master reaches it: it gives up each connection after `peer_timeout`, attaches
/// anew, and never confirms the view.
#[test]
fn member_that_attaches_again_and_again_does_not_hold_verdicts() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[0], vid, report(vid));
    stage.flush(peers[1], vid, report(vid));
    let next = stage.installed(peers[0]).vid;
    stage.confirm(peers[0], next);
    let timeout = Timers::default().peer_timeout;
    let step = timeout - Duration::from_millis(100);
    stage.pass(step, &peers[..2]);
    stage.attach(&mut peers[1], report(vid));
    stage.pass(step, &peers[..2]);
    stage.attach(&mut peers[1], report(vid));
    stage.pass(
        timeout * 2 - step * 2 - Duration::from_millis(1),
        &peers[..2],
    );
    assert_eq!(evictions(&stage).len(), 1);
    stage.pass(Duration::from_millis(1), &peers[..2]);
    let evicted = evictions(&stage);
    assert!(matches!(evicted[1], (peer, EvictReason::Silent { .. }) if peer == peers[1].peer));
}

/// A member that had no connection when the view was installed has the same time once it is back.
#[test]
fn member_that_comes_back_during_a_change_has_time_to_answer() {
    let mut stage = Stage::new();
    stage.master.shared.timers.reattach_grace = Timers::default().peer_timeout * 3;
    let (mut peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.flush(peers[1], vid, report(vid));
    stage.close(peers[1]);
    stage.flush(peers[0], vid, report(vid));
    let next = stage.installed(peers[0]).vid;
    stage.confirm(peers[0], next);
    let timeout = Timers::default().peer_timeout;
    stage.pass(timeout * 2 + Duration::from_secs(1), &peers[..1]);
    stage.attach(&mut peers[1], report(vid));
    stage.pass(timeout * 2 - Duration::from_millis(1), &peers[..2]);
    assert_eq!(evictions(&stage).len(), 1);
    stage.attach(&mut peers[1], report(vid));
    stage.pass(Duration::from_millis(1), &peers[..2]);
    assert_eq!(evictions(&stage).len(), 2);
}

#[test]
fn dead_link_between_two_costs_the_latest_admitted_after_the_window() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    stage.say(peers[0], link_down(peers[2], LinkFault::TimedOut, true));
    stage.say(peers[2], link_down(peers[0], LinkFault::TimedOut, true));
    let window = Timers::default().blame_window;
    stage.pass(window - Duration::from_millis(1), &peers);
    assert_eq!(evictions(&stage), []);
    stage.pass(Duration::from_millis(1), &peers);
    let by = vec![peers[0].peer];
    assert_eq!(
        evictions(&stage),
        [(peers[2].peer, EvictReason::Unreachable { by })]
    );
}

#[test]
fn first_reporter_does_not_decide_who_goes() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 4);
    stage.say(peers[0], link_down(peers[3], LinkFault::TimedOut, true));
    stage.say(peers[1], link_down(peers[0], LinkFault::TimedOut, true));
    stage.say(peers[2], link_down(peers[0], LinkFault::TimedOut, true));
    stage.pass(Timers::default().blame_window, &peers);
    let evicted = evictions(&stage);
    assert_eq!(evicted.len(), 1);
    assert_eq!(evicted[0].0, peers[0].peer, "it ends three broken links");
}

#[test]
fn repaired_link_is_not_blamed() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    stage.say(peers[0], link_down(peers[1], LinkFault::TimedOut, true));
    let peer = peers[1].peer;
    stage.say(peers[0], PeerToMaster::LinkUp { peer });
    stage.pass(Timers::default().blame_window * 2, &peers);
    assert_eq!(evictions(&stage), []);
}

/// One of two members hangs: the other gives up the link before the hung one counts as silent.
#[test]
fn living_end_of_a_link_to_a_hung_member_is_not_blamed() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let (hung, living) = (peers[0], peers[1]);
    stage.pass(Duration::from_secs(3), &[living]);
    stage.say(living, link_down(hung, LinkFault::TimedOut, true));
    stage.pass(Timers::default().blame_window, &[living]);
    assert_eq!(evictions(&stage)[0].0, hung.peer);
    assert_eq!(evictions(&stage).len(), 1);
}

/// A member closes its links to one that was evicted before the next view is installed.
#[test]
fn links_to_the_evicted_are_nobodys_fault() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.say(peers[2], PeerToMaster::Leave);
    stage.say(peers[0], link_down(peers[2], LinkFault::Ended, true));
    stage.flush(peers[0], vid, report(vid));
    stage.flush(peers[1], vid, report(vid));
    stage.pass(Timers::default().blame_window * 2, &peers[..2]);
    assert_eq!(evictions(&stage).len(), 1);
}

#[test]
fn address_that_comes_back_after_broken_links_waits() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    stage.say(peers[0], link_down(peers[1], LinkFault::TimedOut, true));
    stage.pass(Timers::default().blame_window, &peers);
    stage.flush(peers[0], vid, report(vid));
    let install = stage.installed(peers[0]);
    stage.confirm(peers[0], install.vid);
    let evicted = match &stage.journal[stage.journal.len() - 1] {
        Record::ViewSealed(view) => view.departed[0].0,
        other => panic!("{other:?}"),
    };
    assert_eq!(evicted, peers[1].peer);
    // The second of two founders had this key, so this address.
    let mut hello = stage.hello(0, 500);
    if let PeerToMaster::Hello { addresses, .. } = &mut hello {
        *addresses = vec![address(101)];
    }
    let back = stage.join(hello);
    stage.ready(back, &peers[..1]);
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 0, ahead: 0 });
    assert_eq!(stage.view(0).1, [peers[0].peer]);
    assert_eq!(
        stage.state(0),
        "Steady",
        "released unchanged: nobody may be admitted yet"
    );
    stage.pass(limits::BACKOFF_MIN, &[peers[0], back]);
    stage.say(peers[0], PeerToMaster::AtSafePoint { k: 1, ahead: 0 });
    assert_eq!(stage.state(0), "Suspended");
}

#[test]
fn member_that_does_not_call_is_evicted_with_what_it_did_not_call() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.master.shared.timers.post_timeout = Some(Duration::from_secs(20));
    let x = op(0, vid);
    stage.say(peers[0], posted(x));
    stage.pass(Duration::from_secs(10), &peers);
    stage.say(peers[1], posted(x));
    stage.pass(Duration::from_millis(19_999), &peers);
    assert_eq!(evictions(&stage), []);
    stage.pass(Duration::from_millis(1), &peers);
    let reason = EvictReason::NotPosted { tag: x.tag, n: x.n };
    assert_eq!(evictions(&stage), [(peers[2].peer, reason)]);
}

/// Four members, of which two wait in one operation and two in another.
fn crossing() -> (Stage, Vec<Puppet>, Vid, [OpName; 2]) {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 4);
    stage.master.shared.timers.post_timeout = Some(POST);
    let one = op(0, vid);
    let other = OpName { tag: Tag(8), ..one };
    peers[..2]
        .iter()
        .for_each(|peer| stage.say(*peer, posted(one)));
    peers[2..]
        .iter()
        .for_each(|peer| stage.say(*peer, posted(other)));
    stage.pass(POST, &peers);
    (stage, peers, vid, [one, other])
}

const POST: Duration = Duration::from_secs(20);

#[test]
fn crossed_call_that_somebody_makes_before_the_decision_goes_on() {
    let (mut stage, peers, vid, [one, other]) = crossing();
    assert_eq!(evictions(&stage), []);
    assert_eq!(stage.state(0), "Suspended");
    peers[2..]
        .iter()
        .for_each(|peer| stage.say(*peer, posted(one)));
    peers[..2]
        .iter()
        .for_each(|peer| stage.flush(*peer, vid, report_open(vid, one, false)));
    peers[2..]
        .iter()
        .for_each(|peer| stage.flush(*peer, vid, report_open(vid, other, false)));
    let install = stage.installed(peers[0]);
    let carried: Vec<_> = install.carried.iter().map(|birth| birth.op).collect();
    assert_eq!(carried, [one]);
    let floor = install.floors.iter().find(|floor| floor.tag == other.tag);
    let reasons = &floor.expect("it ended").reasons;
    assert!(
        matches!(
            &reasons[0].1,
            AbortReason::Cancelled {
                reason: CancelReason::Crossed(_),
                ..
            }
        ),
        "{reasons:?}"
    );
}

/// It may have called the operation unnoticed, so it is not named.
#[test]
fn crossed_call_is_aborted_for_a_loss_if_there_is_one() {
    let (mut stage, peers, vid, [one, other]) = crossing();
    stage.say(peers[3], PeerToMaster::Leave);
    peers[..2]
        .iter()
        .for_each(|peer| stage.flush(*peer, vid, report_open(vid, one, false)));
    stage.flush(peers[2], vid, report_open(vid, other, false));
    let install = stage.installed(peers[0]);
    let reasons = install.floors.iter().flat_map(|floor| &floor.reasons);
    let is_loss = |reason: &AbortReason| matches!(reason, AbortReason::Lost { .. });
    let losses: Vec<_> = reasons.map(|(_, reason)| is_loss(reason)).collect();
    assert_eq!(losses, [true, true]);
}

#[test]
fn unit_is_lost_as_one_across_groups() {
    let mut stage = Stage::new();
    let first = stage.join(stage.unit_hello(0, 1, 9));
    stage.ready(first, &[]);
    let second = stage.join(stage.unit_hello(1, 2, 9));
    stage.ready(second, &[]);
    let third = stage.join(stage.unit_hello(1, 3, 9));
    let alone = stage.join_group(0);
    stage.say(first, done(op(0, vid(9, 9))));
    let [(lost, EvictReason::Protocol(_)), others @ ..] = &evictions(&stage)[..] else {
        panic!("{:?}", evictions(&stage));
    };
    assert_eq!(*lost, first.peer);
    let expected = [
        (second.peer, EvictReason::Unit(first.peer)),
        (third.peer, EvictReason::Unit(first.peer)),
    ];
    assert_eq!(others, expected);
    assert!(!stage.closed.contains(&alone.connection));
}

#[test]
fn fault_reports_about_strangers_do_nothing() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let (others, _) = stage.founded(1, 1);
    stage.say(peers[0], link_down(others[0], LinkFault::Ended, true));
    stage.say(peers[0], link_down(peers[0], LinkFault::Ended, true));
    let all = [peers[0], peers[1], others[0]];
    stage.pass(Timers::default().blame_window * 2, &all);
    assert_eq!(evictions(&stage), []);
}
