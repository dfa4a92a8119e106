//! First messages of connections that were given up: they come late, or twice, and change nothing.

use super::takeover::without_journal;
use super::*;

fn hello_of(stage: &Stage, key: u128, counter: u64) -> PeerToMaster {
    let mut hello = stage.hello(0, key);
    if let PeerToMaster::Hello { attach, .. } = &mut hello {
        *attach = counter;
    }
    hello
}

/// Sends this over a separate connection, which is closed without an answer.
fn is_ignored(stage: &mut Stage, message: PeerToMaster) {
    let connection = stage.connection();
    let before = (stage.journal.clone(), stage.view(0));
    stage.say_at(connection, message);
    assert_eq!(stage.told_at(connection), []);
    assert!(stage.closed.contains(&connection));
    assert_eq!((stage.journal.clone(), stage.view(0)), before);
}

/// The link key of the first peer that `founded` makes.
const FIRST_KEY: u128 = 100;

#[test]
fn a_late_hello_of_a_member_is_ignored() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let late = hello_of(&stage, FIRST_KEY, 1);
    is_ignored(&mut stage, late.clone());
    // Its connection has ended, and it has not come back yet.
    stage.close(peers[0]);
    is_ignored(&mut stage, late.clone());
    stage.attach(&mut peers[0], report(vid));
    is_ignored(&mut stage, late);
    let between = hello_of(&stage, FIRST_KEY, 2);
    is_ignored(&mut stage, between);
    stage.say(peers[0], PeerToMaster::Ping);
    assert!(matches!(
        stage.told(peers[0]).last(),
        Some(MasterToPeer::Pong { .. })
    ));
    assert_eq!(stage.view(0), (vid, vec![peers[0].peer, peers[1].peer]));
}

#[test]
fn a_late_hello_of_a_member_is_ignored_by_the_next_master_too() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 1);
    let mut stage = stage.restart(setup());
    let late = hello_of(&stage, FIRST_KEY, 1);
    is_ignored(&mut stage, late.clone());
    stage.attach(&mut peers[0], report(vid));
    is_ignored(&mut stage, late);
}

#[test]
fn a_late_hello_of_a_session_that_is_over_is_ignored() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    stage.say(peers[0], PeerToMaster::Leave);
    let late = hello_of(&stage, FIRST_KEY, 1);
    is_ignored(&mut stage, late);
    assert!(stage.master.groups[&GroupId(0)].newcomers.is_empty());
    // The same process says it anew.
    let again = stage.join(hello_of(&stage, FIRST_KEY, 2));
    assert_ne!(again.peer, peers[0].peer);
}

#[test]
fn what_follows_a_late_hello_on_its_connection_is_ignored() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 1);
    let connection = stage.connection();
    stage.say_at(connection, hello_of(&stage, FIRST_KEY, 1));
    let linked = Vec::new();
    stage.say_at(connection, PeerToMaster::Ready { vid, linked });
    stage.say_at(connection, PeerToMaster::Withdraw { k: 0 });
    stage.say_at(connection, PeerToMaster::Leave);
    assert_eq!(stage.told_at(connection), []);
    assert_eq!(stage.view(0), (vid, vec![peers[0].peer]));
}

/// While it waits for a run to be founded, a newcomer sends nothing but heartbeats.
#[test]
fn a_newcomer_that_says_more_before_the_run_is_founded_is_forgotten() {
    let patient = || Setup {
        new_run: false,
        ..setup()
    };
    let others: [fn(&Stage) -> PeerToMaster; 5] = [
        |_| PeerToMaster::Leave,
        |stage| hello_of(stage, 1, 1),
        |stage| hello_of(stage, 1, 2),
        |stage| hello_of(stage, 2, 1),
        |_| PeerToMaster::Attach {
            run_id: RunId(1),
            session: SessionId(2),
            attach: 2,
            claim: Claim::default(),
            report: Report::default(),
        },
    ];
    for other in others {
        let mut stage = Stage::with(patient(), &[]);
        let connection = stage.connection();
        stage.say_at(connection, hello_of(&stage, 1, 1));
        let other = other(&stage);
        stage.say_at(connection, other);
        assert!(stage.closed.contains(&connection));
        stage.sent.clear();
        stage.pass(Timers::default().rebuild_window, &[]);
        assert_eq!(stage.told_at(connection), []);
        assert!(stage.master.groups.is_empty());
    }
}

/// Before a run exists there are no sessions, and yet a newcomer may be gone.
#[test]
fn a_late_hello_of_a_newcomer_that_left_before_the_run_was_founded_is_ignored() {
    let mut stage = Stage::with(without_journal(), &[]);
    let first = stage.connection();
    stage.say_at(first, hello_of(&stage, 1, 3));
    stage.input(Input::Closed { connection: first });
    let late = stage.connection();
    stage.say_at(late, hello_of(&stage, 1, 3));
    assert!(stage.closed.contains(&late));
    stage.pass(Timers::default().rebuild_window, &[]);
    assert_eq!(stage.told_at(late), []);
    assert!(stage.master.groups.is_empty(), "nobody is there");
    let connection = stage.connection();
    stage.say_at(connection, hello_of(&stage, 1, 2));
    assert_eq!(stage.told_at(connection), []);
    // The same process says it anew.
    stage.join(hello_of(&stage, 1, 4));
}

/// A master that takes over a run without members forgets its sessions, but not the processes that
/// it heard.
#[test]
fn a_late_hello_of_a_session_that_was_not_taken_over_is_ignored() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let written = stage.journal.clone();
    let mut stage = Stage::with(without_journal(), &[]);
    (stage.journal, stage.next_connection) = (written, 99);
    stage.attach(&mut peers[0], report(vid));
    stage.close(peers[0]);
    stage.pass(Timers::default().rebuild_window, &[]);
    let late = stage.connection();
    stage.say_at(late, hello_of(&stage, FIRST_KEY, 1));
    stage.pass(Timers::default().rebuild_window, &[]);
    assert_eq!(stage.told_at(late), []);
    // The same process says it anew.
    stage.join(hello_of(&stage, FIRST_KEY, 3));
}

/// A master that finds its journal outdated forgets sessions, but not over which connections they
/// were heard.
#[test]
fn a_late_hello_of_a_session_that_a_doubted_journal_names_is_ignored() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let gone = stage.join(hello_of(&stage, 1, 5));
    let mut stage = stage.restart(setup());
    stage.close(gone);
    let newer = self::vid(vid.term.0, vid.epoch.0 + 1);
    stage.attach(&mut peers[0], report(newer));
    assert!(stage.events.contains(&Event::JournalOutdated));
    let late = stage.connection();
    stage.say_at(late, hello_of(&stage, 1, 5));
    assert_eq!(stage.told_at(late), []);
    assert!(stage.closed.contains(&late));
    stage.join(hello_of(&stage, 1, 6));
}
