//! The master does not run for a while, or hears no peer (R20).

use super::*;
use crate::wire::control::LinkFault;

fn evictions(stage: &Stage) -> Vec<PeerId> {
    let evicted = stage.events.iter().filter_map(|event| match event {
        Event::Evicted { peer, .. } => Some(*peer),
        _ => None,
    });
    evicted.collect()
}

fn timeout() -> Duration {
    Timers::default().peer_timeout
}

impl Stage {
    /// The master does not run for a while; then its timer fires first.
    fn stand_still(&mut self, pause: Duration) {
        self.now = self.now + pause;
        self.input(Input::Timeout);
    }
}

#[test]
fn a_pause_is_not_the_silence_of_others_even_if_the_timer_rings_first() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    stage.pass(timeout() / 2, &peers);
    for pause in [timeout(), timeout() * 2, timeout() * 100] {
        stage.stand_still(pause);
        let paused_ms = pause.as_millis() as u64;
        let noticed = Event::MasterPaused { paused_ms };
        assert_eq!(stage.events.last(), Some(&noticed));
        stage.pass(timeout(), &peers);
        assert_eq!(evictions(&stage), []);
    }
}

/// Waiting input is read first, and then patience begins anew.
#[test]
fn a_peer_that_was_nearly_given_up_before_the_pause_is_heard_after_it() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    let moment = Duration::from_millis(1);
    stage.pass(timeout() - moment, &peers[..2]);
    stage.stand_still(timeout());
    stage.pass(timeout(), &peers[..2]);
    assert_eq!(evictions(&stage), []);
    stage.say(peers[2], PeerToMaster::Ping);
    stage.pass(timeout() * 2, &peers);
    assert_eq!(evictions(&stage), []);
}

#[test]
fn a_dead_peer_is_found_soon_after_the_pause() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    stage.pass(timeout() / 2, &peers[..2]);
    stage.stand_still(timeout() * 3);
    let anew = timeout() + Timers::default().heartbeat_interval;
    stage.pass(anew - Duration::from_millis(1), &peers[..2]);
    assert_eq!(evictions(&stage), []);
    stage.pass(Duration::from_millis(1), &peers[..2]);
    assert_eq!(evictions(&stage), [peers[2].peer]);
}

/// Each of the master's other timeouts stands still too; short ones begin anew.
#[test]
fn grace_blame_answers_and_presence_stand_still_with_the_master() {
    let timers = Timers::default();
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    stage.close(peers[2]);
    stage.pass(
        timers.reattach_grace - Duration::from_millis(1),
        &peers[..2],
    );
    stage.stand_still(timers.reattach_grace * 10);
    stage.pass(timers.reattach_grace, &peers[..2]);
    assert_eq!(evictions(&stage), []);
    let mut back = peers[2];
    stage.attach(&mut back, report(vid));
    let peers = [peers[0], peers[1], back];

    let gave_up = PeerToMaster::LinkDown {
        vid,
        peer: back.peer,
        fault: LinkFault::TimedOut,
        gave_up: true,
    };
    stage.say(peers[0], gave_up);
    stage.stand_still(timers.blame_window * 20);
    assert_eq!(evictions(&stage), []);
    stage.say(peers[0], PeerToMaster::LinkUp { peer: back.peer });

    stage.say(peers[0], posted(op(0, vid)));
    stage.stand_still(timers.post_timeout.unwrap() * 2);
    assert_eq!(evictions(&stage), []);
    stage.say(peers[1], posted(op(0, vid)));
    stage.say(back, posted(op(0, vid)));

    stage.say(peers[0], PeerToMaster::Leave);
    stage.stand_still(timeout() * 3);
    stage.pass(timeout(), &peers[1..]);
    assert_eq!(evictions(&stage), [peers[0].peer], "it left");
}

/// Of two members whose link broke while the master was paused, the dead one is evicted, although
/// the last messages of both were read at the same time.
#[test]
fn a_link_that_broke_during_the_pause_is_judged_when_the_silent_end_is_known() {
    for dead in [0, 1] {
        let mut stage = Stage::new();
        let (peers, vid) = stage.founded(0, 2);
        let alive = peers[1 - dead];
        stage.stand_still(timeout());
        stage.say(peers[dead], PeerToMaster::Ping);
        let gave_up = PeerToMaster::LinkDown {
            vid,
            peer: peers[dead].peer,
            fault: LinkFault::TimedOut,
            gave_up: true,
        };
        stage.say(alive, gave_up);
        stage.pass(timeout() / 2, &[alive]);
        assert_eq!(evictions(&stage), [peers[dead].peer]);
    }
}

/// An end that was seen is judged at once, but not before all waiting input was read: the peer may
/// be reconnecting.
#[test]
fn a_seen_end_is_judged_when_what_waited_was_heard() {
    for comes_back in [true, false] {
        let mut stage = Stage::new();
        let (peers, vid) = stage.founded(0, 3);
        stage.stand_still(timeout() * 2);
        let ended = PeerToMaster::LinkDown {
            vid,
            peer: peers[2].peer,
            fault: LinkFault::Ended,
            gave_up: false,
        };
        stage.say(peers[0], ended);
        stage.close(peers[2]);
        assert_eq!(evictions(&stage), []);
        let mut alive = peers.clone();
        if comes_back {
            stage.attach(&mut alive[2], report(vid));
        } else {
            alive.pop();
        }
        stage.pass(Timers::default().heartbeat_interval, &alive);
        let gone = peers[2..].iter().map(|peer| peer.peer);
        let gone: Vec<_> = gone.filter(|_| !comes_back).collect();
        assert_eq!(evictions(&stage), gone);
    }
}

#[test]
fn who_hears_nobody_evicts_nobody_until_all_must_be_gone() {
    let timers = Timers::default();
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    stage.pass(timers.detach_timeout, &[]);
    assert_eq!(evictions(&stage), []);
    let told = |event: &&Event| **event == Event::MasterHearsNobody;
    assert_eq!(stage.events.iter().filter(told).count(), 1);
    stage.say(peers[1], PeerToMaster::Ping);
    stage.pass(timers.heartbeat_interval, &peers[1..2]);
    stage.pass(timers.detach_timeout, &peers);
    assert_eq!(evictions(&stage), [], "all had a while to be heard");
    stage.pass(
        timers.detach_timeout + timeout() - Duration::from_millis(1),
        &[],
    );
    assert_eq!(evictions(&stage), []);
    stage.pass(Duration::from_millis(200), &[]);
    assert_eq!(evictions(&stage).len(), 3);
    assert_eq!(stage.state(0), "Founding");
}

/// With as long a heartbeat as may be set, one that is a little late does not keep others in.
#[test]
fn the_only_member_that_speaks_shows_that_the_others_do_not() {
    let mut setup = setup();
    setup.timers.heartbeat_interval = setup.timers.peer_timeout / 2;
    let mut stage = Stage::with(setup, &[]);
    let (peers, _) = stage.founded(0, 2);
    let late = timeout() / 2 + Duration::from_millis(200);
    for _ in 0..2 {
        stage.pass(late, &[]);
        stage.say(peers[0], PeerToMaster::Ping);
    }
    assert_eq!(evictions(&stage), [peers[1].peer]);
    assert!(!stage.events.contains(&Event::MasterHearsNobody));
}

/// Another group's member shows that the master can hear.
#[test]
fn silence_of_one_whole_group_is_judged_if_another_is_heard() {
    let mut stage = Stage::new();
    let (silent, _) = stage.founded(0, 2);
    let (alive, _) = stage.founded(1, 1);
    stage.pass(timeout(), &alive);
    let silent: Vec<_> = silent.iter().map(|peer| peer.peer).collect();
    assert_eq!(evictions(&stage), silent);
}

/// A newcomer that is heard is no evidence against the members, which have more to lose.
#[test]
fn a_newcomer_alone_does_not_condemn_the_members() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    stage.pass(timeout() * 3, &[newcomer]);
    assert_eq!(evictions(&stage), []);
    stage.pass(timeout(), &[peers[0], peers[1], newcomer]);
    assert_eq!(evictions(&stage), []);
    stage.pass(Timers::default().detach_timeout + timeout(), &[newcomer]);
    let members: Vec<_> = peers.iter().map(|peer| peer.peer).collect();
    assert_eq!(evictions(&stage), members);
}

/// Ends of connections count as heard: if all are seen to end, only `reattach_grace` is waited for.
#[test]
fn members_whose_connections_all_ended_are_given_up_as_before() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    peers.iter().for_each(|peer| stage.close(*peer));
    stage.pass(Timers::default().reattach_grace, &[]);
    assert_eq!(evictions(&stage).len(), 2);
}

/// A master without input for an hour did not miss a turn.
#[test]
fn an_idle_master_does_not_take_its_idleness_for_a_pause() {
    let mut stage = Stage::new();
    assert_eq!(stage.master.poll_timeout(), None);
    stage.now = stage.now + Duration::from_secs(3600);
    let (peers, _) = stage.founded(0, 2);
    let paused = |event: &Event| matches!(event, Event::MasterPaused { .. });
    assert!(!stage.events.iter().any(paused));
    stage.pass(timeout() * 2, &peers);
    assert_eq!(evictions(&stage), []);
}
