//! Deaths of whole processes, at moments that only a delayed connection can reproduce.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use ccl_core::{MasterConfig, MasterServer, Timers};
use ccl_tests::process::{Process, Signal, send_signal};
use ccl_tests::processes::{Proxy, peer};
use std::net::TcpListener;
use std::time::Duration;

const ACTOR: &str = env!("CARGO_BIN_EXE_actor");

fn master() -> MasterServer {
    let config = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        timers: Timers {
            peer_timeout: Duration::from_secs(5),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    MasterServer::start(config, None).unwrap()
}

fn progress(actor: &mut Process) -> (u64, u64) {
    let answer = actor.ask("progress");
    let mut numbers = answer
        .split(' ')
        .skip(1)
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn start_all(actors: &mut [Process], command: &str) {
    for actor in actors.iter_mut() {
        actor.say(command);
    }
    for actor in actors {
        assert_eq!(actor.line(), "started");
    }
}

/// Goal: a contributor dies when only the verdict is missing. Every survivor holds the complete
/// result, so it counts, including the dead peer's contribution (docs/protocol.md R4): nothing is
/// repeated.
///
/// 1. There are three peers; the victim reaches the master through a proxy.
/// 2. The proxy drops what the victim sends, including its `Done`; all start an in-place
///    operation.
/// 3. When both survivors have moved every byte, the victim is killed.
/// 4. Both survivors get the result of three.
/// 5. The same call works with the two survivors.
#[test]
fn a_peer_killed_when_all_survivors_hold_its_operation_is_in_the_result() {
    let master = master();
    let proxy = Proxy::start(master.address());
    let mut survivors: Vec<Process> = (0..2)
        .map(|_| peer(ACTOR, master.address(), 3, 2))
        .collect();
    let mut victim = peer(ACTOR, proxy.address(), 3, 2);
    for actor in survivors.iter().chain([&victim]) {
        assert!(actor.line().starts_with("connected"));
    }
    proxy.hold();
    let command = "reduce 0 1000003 in 7";
    assert_eq!(victim.ask(command), "started");
    start_all(&mut survivors, command);
    for survivor in &mut survivors {
        while matches!(progress(survivor), (done, total) if done < total) {}
    }
    victim.kill();
    for survivor in &mut survivors {
        assert_eq!(survivor.ask("wait"), "ok true 3");
    }
    start_all(&mut survivors, command);
    for survivor in &mut survivors {
        assert_eq!(survivor.ask("wait"), "ok true 2");
    }
    master.shutdown();
}

/// Goal: P1 and P2 hold for deaths anywhere in the data of an operation, from its first segment to
/// the time between its last segment and the verdict.
///
/// 1. Four peers start an operation, in place or not.
/// 2. One is killed when it has moved a given share of its bytes.
/// 3. The survivors all get the right result of four, or all get an error with intact inputs.
/// 4. The same call works with the three survivors.
#[test]
fn a_peer_killed_at_any_share_of_its_bytes_is_lost_to_all_or_to_none() {
    for (share, place) in [
        (1, "out"),
        (1, "in"),
        (40, "in"),
        (80, "out"),
        (99, "in"),
        (100, "in"),
    ] {
        let master = master();
        let mut actors: Vec<Process> = (0..4)
            .map(|_| peer(ACTOR, master.address(), 4, 2))
            .collect();
        for actor in &actors {
            assert!(actor.line().starts_with("connected"));
        }
        let command = format!("reduce 0 4000003 {place} 11");
        start_all(&mut actors, &command);
        let mut victim = actors.pop().unwrap();
        while matches!(progress(&mut victim), (done, total) if done * 100 < share * total) {}
        victim.kill();
        let ends: Vec<String> = actors.iter_mut().map(|actor| actor.ask("wait")).collect();
        let all = |prefix: &str| ends.iter().all(|end| end.starts_with(prefix));
        assert!(
            all("ok true 4") || all("error true"),
            "share {share}, {place} place: {ends:?}"
        );
        start_all(&mut actors, &command);
        for actor in &mut actors {
            assert_eq!(actor.ask("wait"), "ok true 3");
        }
        master.shutdown();
    }
}

/// A process that sleeps until it is killed here.
struct Sleeper(u32);

impl Drop for Sleeper {
    fn drop(&mut self) {
        send_signal(self.0, Signal::SIGKILL);
    }
}

/// Goal: a forked worker keeps none of its parent's connections. The parent's death is noticed by
/// the end of its connections, not by silence, and its port is free.
///
/// 1. Two of three peers start an operation; the third has forked a child that sleeps.
/// 2. The third is killed; the child continues to sleep.
/// 3. The others' call ends with "its process ended". The port can be used again.
#[test]
fn a_death_is_noticed_at_once_though_a_forked_worker_lives_on() {
    let master = master();
    let mut peers: Vec<Process> = (0..3)
        .map(|_| peer(ACTOR, master.address(), 3, 2))
        .collect();
    let greetings: Vec<String> = peers.iter().map(Process::line).collect();
    let mut victim = peers.pop().unwrap();
    let forked = victim.ask("fork");
    let _sleeper = Sleeper(forked.strip_prefix("forked ").unwrap().parse().unwrap());
    start_all(&mut peers, "reduce 0 1000 in 5");
    victim.kill();
    for peer in &mut peers {
        let end = peer.ask("wait");
        assert!(end.starts_with("error true"), "{end}");
        assert!(end.contains("its process ended"), "{end}");
    }
    let port: u16 = greetings[2].rsplit(' ').next().unwrap().parse().unwrap();
    TcpListener::bind(("127.0.0.1", port)).unwrap();
    master.shutdown();
}
