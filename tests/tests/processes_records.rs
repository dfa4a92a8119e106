//! Records while processes are killed and stopped (docs/protocol.md R17).
//!
//! There are a master, which keeps a journal, and three members, each a process. They give entries
//! for a stream, and each says which step came last, the hash of the stream, and how many of its
//! entries are in it. So equal answers mean equal records.

use std::time::Duration;

use ccl_tests::process::{Process, Signal};
use ccl_tests::processes::Site;

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");
const KEEPER: &str = env!("CARGO_BIN_EXE_keeper");
/// Longer than any of this takes.
const DETACH: Duration = Duration::from_secs(60);

fn members(site: &Site) -> Vec<Process> {
    let peers: Vec<Process> = (0..3).map(|_| site.peer(ACTOR, 3)).collect();
    for peer in &peers {
        let answer = peer.line();
        assert!(answer.starts_with("connected"), "{answer}");
    }
    peers
}

fn say_all(peers: &mut [Process], command: &str) {
    peers.iter_mut().for_each(|peer| peer.say(command));
}

/// What each says: next step and hash, which are equal, and how many entries of its own it saw.
fn answers(peers: &[Process]) -> (String, Vec<String>) {
    let answers: Vec<String> = peers.iter().map(Process::line).collect();
    let split = |answer: &String| {
        let (stream, own) = answer.rsplit_once(' ').expect("an answer");
        (stream.to_owned(), own.to_owned())
    };
    let (streams, own): (Vec<_>, Vec<_>) = answers.iter().map(split).unzip();
    assert!(streams.iter().all(|it| *it == streams[0]), "{answers:?}");
    (streams[0].clone(), own)
}

/// The master is killed ten times while records are sealed: none is lost, and none sealed twice.
#[test]
fn no_record_is_lost_or_sealed_twice_when_the_master_is_killed() {
    let mut site = Site::new(KEEPER, "records", DETACH);
    let mut master = site.master(&[]);
    let mut peers = members(&site);
    for round in 1..=10 {
        say_all(&mut peers, "records 200 0");
        master.kill();
        master = site.master(&[]);
        let (stream, own) = answers(&peers);
        let step = format!("records {} ", 200 * round);
        assert!(stream.starts_with(&step), "{stream}");
        assert_eq!(own, ["200"; 3], "every entry is in the record of its step");
    }
}

/// A member is killed: the others' steps go on without it.
#[test]
fn a_killed_member_holds_no_step_up() {
    let mut site = Site::new(KEEPER, "records-member", DETACH);
    let _master = site.master(&[]);
    let mut peers = members(&site);
    say_all(&mut peers, "records 50 0");
    answers(&peers);
    let mut victim = peers.pop().expect("there are three");
    victim.say("records 10000 0");
    say_all(&mut peers, "records 200 0");
    victim.kill();
    let (stream, own) = answers(&peers);
    assert!(stream.starts_with("records 250 "), "{stream}");
    assert_eq!(own, ["200"; 2]);
}

/// A member is stopped: each step is sealed at its deadline, and the member gets all of them later.
#[test]
fn a_stopped_member_delays_a_step_until_its_deadline_only() {
    let mut site = Site::new(KEEPER, "records-stopped", DETACH);
    let _master = site.master(&[]);
    let mut peers = members(&site);
    say_all(&mut peers, "records 5 0");
    answers(&peers);
    let mut stopped = peers.pop().expect("there are three");
    stopped.signal(Signal::SIGSTOP);
    say_all(&mut peers, "records 5 50");
    let (stream, own) = answers(&peers);
    assert_eq!(own, ["5"; 2]);
    stopped.signal(Signal::SIGCONT);
    let late = stopped.ask("records 5 50");
    assert_eq!(
        late,
        format!("{stream} 0"),
        "the same records, without its entries"
    );
}
