//! Peers that do not reach each other as they should: a wrong `advertise`, one direction, none.
//!
//! Goal: one direction is enough, whoever said hello first; if there is none, both are told why.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ccl_core::{
    Communicator, CommunicatorConfig, Connecting, Error, MasterServer, Options, ReduceOp,
};

use common::{HANG, config, master};

/// A peer whose advertised address refuses connections, as far as one can know.
fn misled(master: &MasterServer, name: &str) -> CommunicatorConfig {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    CommunicatorConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        advertise: Some(closed.local_addr().unwrap().to_string()),
        name: Some(name.into()),
        ..config(master, 2)
    }
}

/// Starts to join, and waits until the master knows it: sessions are ordered by that.
fn join(config: CommunicatorConfig) -> Connecting {
    let peer = Communicator::connect_start(config).unwrap();
    let until = Instant::now() + HANG;
    while !peer
        .waits_for()
        .is_some_and(|words| words.contains("to be admitted"))
    {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    peer
}

#[test]
fn a_wrong_advertise_on_one_side_is_made_up_for_whoever_comes_first() {
    for is_first in [true, false] {
        let master = master();
        let configs = match is_first {
            true => [misled(&master, "misled"), config(&master, 2)],
            false => [config(&master, 2), misled(&master, "misled")],
        };
        let [first, second] = configs;
        // The first one waits for company; the second one is admitted at once with it.
        let first = join(first);
        let second = Communicator::connect_start(second).unwrap();
        let peers = [first, second].map(|peer| peer.wait_for(HANG).unwrap().unwrap());
        let sums = peers.map(|peer| {
            std::thread::spawn(move || {
                let mut buffer = [1_u64; 1000];
                let options = Options::default();
                peer.all_reduce(&mut buffer, ReduceOp::Sum, &options)
                    .unwrap();
                peer.barrier(&options).unwrap();
                buffer[999]
            })
        });
        assert_eq!(sums.map(|sum| sum.join().unwrap()), [2, 2]);
        master.shutdown();
    }
}

#[test]
fn peers_without_any_way_to_each_other_are_told_of_the_pair() {
    let master = master();
    let patient = |config| CommunicatorConfig {
        connect_timeout: Duration::from_secs(3),
        ..config
    };
    let [ann, bob] = ["ann", "bob"].map(|name| join(patient(misled(&master, name))));
    for peer in [ann, bob] {
        let error = loop {
            match peer.wait_for(HANG) {
                Ok(admitted) => assert!(admitted.is_none()),
                Err(error) => break error,
            }
        };
        let words = error.to_string();
        println!("{words}");
        assert!(matches!(error, Error::NotAdmitted { .. }));
        for part in ["(ann, 127.0.0.1:", "(bob, 127.0.0.1:", "advertise"] {
            assert!(words.contains(part), "{part} is missing in: {words}");
        }
    }
    master.shutdown();
}

#[test]
fn advertise_alone_and_listen_alone_each_suffice() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let master = master();
    let advertising = CommunicatorConfig {
        advertise: Some(format!("127.0.0.1:{port}")),
        ..config(&master, 2)
    };
    let listening = CommunicatorConfig {
        listen: Some("0.0.0.0:0".parse().unwrap()),
        ..config(&master, 2)
    };
    let peers = [advertising, listening].map(|config| Communicator::connect_start(config).unwrap());
    let [advertising, _listening] = peers.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    assert_eq!(advertising.listen_address().port(), port);
    master.shutdown();
}
