//! What a user reads when something fails: the whole text, as the public calls return it, over real
//! sockets.
//!
//! Goal: each text says what happened, to whom, why, and what to do, and none is a debug form.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ccl_core::event::Event;
use ccl_core::{
    Communicator, CommunicatorConfig, Error, MasterConfig, MasterServer, Options, Rank, ReduceOp,
    Timers,
};

use common::{HANG, config, master, run, with_tag};

/// Checks that a text contains all these words. Prints it for runs with `--nocapture`.
fn check(error: &Error, expected: &[&str]) {
    let text = error.to_string();
    println!("{text}");
    for words in expected {
        assert!(text.contains(words), "\"{words}\" is missing in: {text}");
    }
    for form in [
        "(\"", "Rank(", "PeerId(", "Some(", " { ", "os error", "born",
    ] {
        assert!(!text.contains(form), "a debug form, {form}, in: {text}");
    }
}

/// The error of `connect` within this time.
fn refusal(config: CommunicatorConfig) -> Error {
    let config = CommunicatorConfig {
        connect_timeout: Duration::from_millis(700),
        ..config
    };
    Communicator::connect(config).unwrap_err()
}

fn at(master: &str) -> CommunicatorConfig {
    CommunicatorConfig {
        master: master.into(),
        ..CommunicatorConfig::default()
    }
}

fn connected(master: &MasterServer, world: u32) -> Vec<Communicator> {
    let joining = (0..world).map(|_| Communicator::connect_async(config(master, world)).unwrap());
    let joining: Vec<_> = joining.collect();
    let joined = joining.iter().map(|peer| peer.wait_for(HANG).unwrap());
    joined.map(Option::unwrap).collect()
}

#[test]
fn a_master_that_is_no_host_and_port_is_told_how_to_be_one() {
    check(
        &refusal(at("http://node-7:48148")),
        &["\"http://\"", "host:port", "node-7:48148"],
    );
    check(&refusal(at("node-7")), &["no port", "node-7:48148"]);
    check(&refusal(at("node-7:48148/run")), &["host:port"]);
    check(&refusal(at("::1")), &["[::1]:48148"]);
    check(&refusal(at("fe80::1:48148")), &["[", "host:port"]);
    check(&refusal(at("node-7:99999")), &["1 to 65535"]);
}

#[test]
fn a_wrong_port_a_wrong_name_and_another_service_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let refused = refusal(at(&address.to_string()));
    check(
        &refused,
        &[&address.to_string(), "refused the connection", "ccl master"],
    );
    check(
        &refusal(at("no-such-host.invalid:48148")),
        &["no-such-host.invalid", "does not resolve"],
    );
    let (greeter, silent, closer) = (Service::Greets, Service::Listens, Service::Closes);
    let address = greeter.start();
    check(
        &refusal(at(&address.to_string())),
        &[&address.to_string(), "not a ccl master", "SSH-2.0-OpenSSH"],
    );
    let address = silent.start();
    check(
        &refusal(at(&address.to_string())),
        &[&address.to_string(), "has not answered yet"],
    );
    // Only time shows whether this is more than a busy master.
    let waiting = Communicator::connect_async(at(&address.to_string())).unwrap();
    told(
        &waiting,
        &[
            &address.to_string(),
            "does not answer: it is another service",
        ],
    );
    drop(waiting);
    let address = closer.start();
    check(
        &refusal(at(&address.to_string())),
        &[&address.to_string(), "closed the connection"],
    );
}

/// By default `ccl master` listens on loopback: a peer that uses another address of the host is
/// refused.
#[test]
fn a_master_on_loopback_only_is_told_from_no_master() {
    let Some(own) = own_address() else {
        return println!("skipped: this host has no address but loopback");
    };
    let master = master();
    let address = SocketAddr::new(own, master.address().port());
    check(
        &refusal(at(&address.to_string())),
        &["listens on loopback only", "--listen"],
    );
    master.shutdown();
}

/// The address from which this host would send.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address for documentation (RFC 5737): connecting a UDP socket only chooses the route.
    socket.connect("192.0.2.1:9").ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback()).then_some(own)
}

/// Another service at the master's port.
enum Service {
    Greets,
    Listens,
    Closes,
}

impl Service {
    fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match self {
                    Self::Greets => {
                        let _gone = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
                    }
                    Self::Listens => {}
                    Self::Closes => {
                        let _whatever = stream.read(&mut [0; 1024]);
                        continue;
                    }
                }
                std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            }
        });
        address
    }
}

#[test]
fn a_deadline_says_whose_call_it_was_and_of_what() {
    let master = master();
    let peers = connected(&master, 2);
    let options = Options {
        deadline: Some(Duration::from_millis(50)),
        ..with_tag(7)
    };
    let error = peers[0].all_reduce(&mut [1_f32; 4], ReduceOp::Sum, &options);
    let peer = format!("peer {}", peers[0].peer());
    check(
        &error.unwrap_err(),
        &["all_reduce (tag 7, call 0)", &peer, "deadline"],
    );
    drop(peers);
    master.shutdown();
}

#[test]
fn calls_that_differ_are_told_with_both_values_and_whose_they_are() {
    type Call = fn(&Communicator, bool) -> Error;
    let differing: [(&str, Call); 4] = [
        ("dtype is", |peer, odd| {
            let options = Options::default();
            if odd {
                return peer
                    .all_reduce(&mut [1_f64; 4], ReduceOp::Sum, &options)
                    .unwrap_err();
            }
            peer.all_reduce(&mut [1_f32; 4], ReduceOp::Sum, &options)
                .unwrap_err()
        }),
        ("count is", |peer, odd| {
            let mut buffer = vec![1_f32; if odd { 5 } else { 4 }];
            peer.all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
                .unwrap_err()
        }),
        ("root is", |peer, odd| {
            let root = Rank(u32::from(odd));
            peer.broadcast(&mut [1_f32; 4], root, &Options::default())
                .unwrap_err()
        }),
        ("operator is", |peer, odd| {
            let op = if odd { ReduceOp::Max } else { ReduceOp::Sum };
            peer.all_reduce(&mut [1_f32; 4], op, &Options::default())
                .unwrap_err()
        }),
    ];
    for (field, call) in differing {
        let errors = run(2, move |peer| call(peer, peer.rank() == Rank(1)));
        for error in errors {
            check(&error, &[field, "on peer ", "(tag 0, call 0)", "same call"]);
        }
    }
}

#[test]
fn a_lost_peer_is_told_with_the_call_that_it_was_lost_in() {
    let master = master();
    let mut peers = connected(&master, 2);
    let leaver = peers.pop().unwrap();
    let name = format!("peer {}", leaver.peer());
    let call = peers[0].all_reduce_async(vec![1_i32; 4], ReduceOp::Sum, &with_tag(3));
    // If the call has not started when the other peer leaves, there are too few peers instead.
    while call.progress().total_bytes == 0 {
        std::thread::yield_now();
    }
    drop(leaver);
    let error = call.wait().1.unwrap_err();
    check(
        &error,
        &[&name, "all_reduce (tag 3, call 0)", "it left", "call again"],
    );
    master.shutdown();
}

/// Three peers, named, in rank order.
fn named_trio(master: &MasterServer) -> [Communicator; 3] {
    let joining = ["ann", "bob", "carl"]
        .map(|name| Communicator::connect_async(named(config(master, 3), name)).unwrap());
    let mut peers = joining.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    peers.sort_by_key(Communicator::rank);
    peers
}

fn within(millis: u64) -> Options {
    Options {
        deadline: Some(Duration::from_millis(millis)),
        ..Options::default()
    }
}

/// A sync and an all-reduce have different tags: they are not compared, and each waits for the
/// other.
#[test]
fn a_timeout_names_who_has_not_called_and_which_call_they_were_in() {
    let (events, master) = watched();
    let [one, other, third] = named_trio(&master);
    let state = ccl_core::SharedState::new(0);
    let sync = third.sync_shared_state_async(state, &ccl_core::SyncOptions::default());
    let sync = sync.map_err(|(error, _)| error).unwrap();
    let reduce = one.all_reduce_async(vec![1_i32; 4], ReduceOp::Sum, &within(300));
    let name = |peer: &Communicator| {
        let view = peer.view();
        let me = view.members.iter().find(|it| it.peer == peer.peer());
        format!("peer {} ({}, ", peer.peer(), me.unwrap().name)
    };
    let in_sync = format!("peer {} was in sync (call 0)", third.peer());
    check(
        &reduce.wait().1.unwrap_err(),
        &[
            "all_reduce (tag 0, call 0) timed out",
            &format!("the timeout of {}", name(&one)),
            &name(&other),
            &format!(" and {}", name(&third)),
            "had not called it",
            &in_sync,
            "operation_timeout",
        ],
    );
    reported(&events, &["aborted", "had not called it", &in_sync]);
    drop(sync);
    master.shutdown();
}

/// Waits until this peer reports these words, and returns its report.
fn told(peer: &ccl_core::Connecting, words: &[&str]) {
    let until = Instant::now() + HANG;
    loop {
        let text = peer.waits_for().unwrap_or_default();
        if words.iter().all(|word| text.contains(word)) {
            return println!("{text}");
        }
        assert!(Instant::now() < until, "{words:?} is not in: {text}");
        assert!(peer.wait_for(Duration::from_millis(20)).unwrap().is_none());
    }
}

fn named(config: CommunicatorConfig, name: &str) -> CommunicatorConfig {
    CommunicatorConfig {
        name: Some(name.into()),
        ..config
    }
}

#[test]
fn a_first_view_says_who_is_here_and_how_many_it_waits_for() {
    let (events, master) = watched();
    let ann = Communicator::connect_async(named(config(&master, 3), "ann")).unwrap();
    told(
        &ann,
        &["1 of the 3 peers", "ann, 127.0.0.1:", "initial_world_size"],
    );
    let impatient = CommunicatorConfig {
        connect_timeout: Duration::from_millis(700),
        ..named(config(&master, 3), "bob")
    };
    let error = Communicator::connect(impatient).unwrap_err();
    check(
        &error,
        &["2 of the 3 peers", "peer 0 (ann, ", "peer 1 (bob, "],
    );
    assert!(matches!(error, Error::NotAdmitted { waits: Some(_), .. }));
    // The operator gets the same text, once.
    reported(&events, &["group 0 is waiting: ", "1 of the 3 peers"]);
    drop(ann);
    master.shutdown();
}

/// A master on a port that members of an earlier run may know admits no newcomer at first.
#[test]
fn a_master_without_history_says_what_it_waits_for_and_how_long() {
    let earlier = master();
    let listen = earlier.address();
    earlier.shutdown();
    let config = MasterConfig {
        listen,
        timers: Timers {
            rebuild_window: Duration::from_secs(60),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    let (events, master) = watched_with(config);
    // The operator learns it at once, even if no peer connects.
    let first = events.recv_timeout(HANG).unwrap().to_string();
    for words in [
        "no history",
        " 60 s for members of an earlier run",
        "--new-run",
    ] {
        assert!(first.contains(words), "{words:?} is not in: {first}");
    }
    let peer = Communicator::connect_async(at(&listen.to_string())).unwrap();
    let words = [
        "waiting for the master at",
        "no history",
        " s for members of an earlier run",
    ];
    told(&peer, &words);
    check(
        &refusal(at(&listen.to_string())),
        &["no history", "new_run to skip the wait"],
    );
    drop(peer);
    master.shutdown();
}

#[test]
fn a_newcomer_is_told_who_has_not_come_to_the_safe_point() {
    let master = master();
    let founders = ["ann", "bob"].map(|name| named(config(&master, 2), name));
    let founders = founders.map(|config| Communicator::connect_async(config).unwrap());
    let founders = founders.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    let carl = Communicator::connect_async(named(config(&master, 2), "carl")).unwrap();
    told(
        &carl,
        &[
            "0 of 2 members have called update_topology",
            "ann, ",
            "bob, ",
        ],
    );
    let point = founders[0].update_topology_async().unwrap();
    told(&carl, &["1 of 2 members", "still missing: peer ", "(bob, "]);
    let until = Instant::now() + HANG;
    while !founders[0]
        .waits_for()
        .is_some_and(|text| text.contains("(bob, "))
    {
        assert!(Instant::now() < until && !point.is_finished());
        std::thread::yield_now();
    }
    founders[1].update_topology().unwrap();
    let view = point.wait().unwrap();
    let names: Vec<_> = view.members.iter().map(|member| &*member.name).collect();
    assert_eq!(names[2], "carl");
    assert_eq!(carl.wait_for(HANG).unwrap().unwrap().waits_for(), None);
    master.shutdown();
}

#[test]
fn peers_are_told_of_by_name_and_address() {
    let (events, master) = watched();
    let peers = ["ann", "bob"].map(|name| named(config(&master, 2), name));
    let peers = peers.map(|config| Communicator::connect_async(config).unwrap());
    let [ann, bob] = peers.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    let call = ann.all_reduce_async(vec![1_i32; 4], ReduceOp::Sum, &with_tag(2));
    let address = bob.listen_address();
    drop(bob);
    let error = call.wait().1.unwrap_err();
    check(
        &error,
        &[&format!(
            "(bob, {address}) was lost during all_reduce (tag 2, call 0)"
        )],
    );
    reported(&events, &["bob, ", "ended: it left"]);
    master.shutdown();
}

#[test]
fn a_name_that_cannot_be_shown_is_refused() {
    for name in ["", "two\nlines", &"n".repeat(65)] {
        let error = Communicator::connect(named(CommunicatorConfig::default(), name));
        check(&error.unwrap_err(), &["name must be 1 to 64 bytes"]);
    }
    let default = run(1, |peer| peer.view().members[0].name.clone());
    let process = format!(":{}", std::process::id());
    assert!(default[0].ends_with(&process) && default[0].len() > process.len());
}

/// Waits until the operator's log contains this.
fn reported(events: &Receiver<Event>, words: &[&str]) {
    loop {
        let line = events.recv_timeout(HANG).unwrap().to_string();
        if words.iter().all(|word| line.contains(word)) {
            return println!("{line}");
        }
    }
}

/// A master of a new run, and its log for the operator.
fn watched() -> (Receiver<Event>, MasterServer) {
    watched_with(MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        ..MasterConfig::default()
    })
}

fn watched_with(config: MasterConfig) -> (Receiver<Event>, MasterServer) {
    let (told, events) = channel();
    let tell = move |event: &Event| {
        let _nobody_listens_any_more = told.send(event.clone());
    };
    let master = MasterServer::start(config, Some(Arc::new(tell))).unwrap();
    (events, master)
}
