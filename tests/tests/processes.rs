//! Deaths of whole processes, at moments that only a held-up connection can pin down.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use ccl_core::{MasterConfig, MasterServer, Timers};
use ccl_tests::processes::{Actor, Proxy};
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

fn progress(actor: &mut Actor) -> (u64, u64) {
    let answer = actor.ask("progress");
    let mut numbers = answer
        .split(' ')
        .skip(1)
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Goal: P2 at its hardest moment. All data of an in-place operation is where it belongs, only the
/// verdict is missing, and then a contributor dies: every survivor has its input back.
///
/// 1. Three peers; the victim reaches the master through a proxy.
/// 2. The proxy swallows what the victim says, its `Done` included; all start an in-place
///    operation.
/// 3. When both survivors have moved every byte, the victim is killed.
/// 4. Both survivors get an error that names the loss, with their inputs intact.
/// 5. The same call works with the two that are left.
#[test]
fn a_peer_killed_between_its_last_segment_and_the_commit_costs_nobody_the_input() {
    let master = master();
    let proxy = Proxy::start(master.address());
    let mut survivors: Vec<Actor> = (0..2)
        .map(|_| Actor::spawn(ACTOR, master.address(), 3, 2))
        .collect();
    let mut victim = Actor::spawn(ACTOR, proxy.address(), 3, 2);
    for actor in survivors.iter().chain([&victim]) {
        assert!(actor.answer().starts_with("connected"));
    }
    proxy.hold();
    let command = "reduce 0 1000003 in 7";
    assert_eq!(victim.ask(command), "started");
    for survivor in &mut survivors {
        assert_eq!(survivor.ask(command), "started");
    }
    for survivor in &mut survivors {
        while matches!(progress(survivor), (done, total) if done < total) {}
    }
    victim.kill();
    for survivor in &mut survivors {
        let end = survivor.ask("wait");
        assert!(
            end.starts_with("error true") && end.contains("was lost"),
            "{end}"
        );
        assert_eq!(survivor.ask(command), "started");
    }
    for survivor in &mut survivors {
        assert_eq!(survivor.ask("wait"), "ok true");
    }
    master.shutdown();
}

/// Goal: a death in the middle of the data of an operation. In place and out of place, the
/// survivors learn of it and have their inputs; the next call works.
#[test]
fn a_peer_killed_in_the_middle_of_the_data_is_lost_to_the_others_alone() {
    for place in ["in", "out"] {
        let master = master();
        let mut actors: Vec<Actor> = (0..4)
            .map(|_| Actor::spawn(ACTOR, master.address(), 4, 2))
            .collect();
        for actor in &actors {
            assert!(actor.answer().starts_with("connected"));
        }
        let command = format!("reduce 0 8000003 {place} 11");
        for actor in &mut actors {
            actor.say(&command);
        }
        for actor in &actors {
            assert_eq!(actor.answer(), "started");
        }
        let mut victim = actors.pop().unwrap();
        let (done, total) = loop {
            let (done, total) = progress(&mut victim);
            if done > 0 {
                break (done, total);
            }
        };
        victim.kill();
        for actor in &mut actors {
            let end = actor.ask("wait");
            // The victim may have been so far that the operation committed.
            assert!(
                end == "ok true" || end.starts_with("error true"),
                "{end} at {done}/{total}"
            );
        }
        for actor in &mut actors {
            actor.say(&command);
        }
        for actor in &mut actors {
            assert_eq!(actor.answer(), "started");
            assert_eq!(actor.ask("wait"), "ok true");
        }
        master.shutdown();
    }
}
