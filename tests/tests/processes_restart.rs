//! A master and a member are killed, and the others go on (docs/protocol.md R19).
//!
//! Goal: nobody waits for a dead master, except for a loss, and the next master says what was lost.
//!
//! 1. There are a master and three members, each a process, and they reduce.
//! 2. The master is killed. Calls and safe points go on.
//! 3. One member is killed too, before the others call or in the middle of a call.
//! 4. A master starts on the same port, with the journal or without. It asks the members that come
//!    back for their reports.
//! 5. A call that the member did not make ends as lost for both survivors, with their inputs
//!    intact; one that it made may also be whole for both. Later calls and safe points work with
//!    two.

use std::time::Duration;

use ccl_tests::process::Process;
use ccl_tests::processes::Site;

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");
const KEEPER: &str = env!("CARGO_BIN_EXE_keeper");
/// Longer than any of this takes.
const DETACH: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The others call after the death.
    BeforeTheCall,
    /// All have called, and bytes are moving.
    WithinTheCall,
}

fn ask_all(peers: &mut [Process], command: &str, expected: &str) {
    for peer in peers.iter_mut() {
        peer.say(command);
    }
    for peer in peers {
        let answer = peer.line();
        assert!(answer.starts_with(expected), "{command}: {answer}");
    }
}

fn reduce(peers: &mut [Process]) {
    let contributors = peers.len();
    ask_all(peers, "reduce 0 100003 in 5", "started");
    ask_all(peers, "wait", &format!("ok true {contributors}"));
}

fn safe_point(peers: &mut [Process]) {
    let members = peers.len();
    ask_all(peers, "update", &format!("ok {members}"));
}

fn a_death_without_a_master(name: &str, moment: Moment, keeps_journal: bool) {
    let mut site = Site::new(KEEPER, name, DETACH);
    let mut master = site.master(&[]);
    let mut peers: Vec<Process> = (0..3).map(|_| site.peer(ACTOR, 3)).collect();
    for peer in &peers {
        let answer = peer.line();
        assert!(answer.starts_with("connected"), "{answer}");
    }
    reduce(&mut peers);
    master.kill();
    for _ in 0..10 {
        reduce(&mut peers);
        safe_point(&mut peers);
    }
    let long_call = "reduce 0 4000003 in 7";
    if moment == Moment::WithinTheCall {
        ask_all(&mut peers, long_call, "started");
        let victim = &mut peers[2];
        while victim.ask("progress").starts_with("progress 0 ") {}
    }
    let mut victim = peers.pop().expect("there are three");
    victim.kill();
    if moment == Moment::BeforeTheCall {
        ask_all(&mut peers, long_call, "started");
    }
    if !keeps_journal {
        site.lose_journal();
    }
    let _master = site.master(&[]);
    let ends: Vec<String> = peers.iter_mut().map(|peer| peer.ask("wait")).collect();
    let all = |prefix: &str| ends.iter().all(|end| end.starts_with(prefix));
    let may_be_whole = moment == Moment::WithinTheCall;
    assert!(
        all("error true") || may_be_whole && all("ok true 3"),
        "{ends:?}"
    );
    reduce(&mut peers);
    safe_point(&mut peers);
}

#[test]
fn a_member_killed_before_a_call_is_lost_once_the_master_is_back() {
    a_death_without_a_master("before", Moment::BeforeTheCall, true);
}

#[test]
fn a_member_killed_within_a_call_is_lost_once_the_master_is_back() {
    a_death_without_a_master("within", Moment::WithinTheCall, true);
}

#[test]
fn a_member_killed_without_a_master_is_lost_to_one_that_lost_its_journal() {
    a_death_without_a_master("disk", Moment::WithinTheCall, false);
}
