//! Peers that cannot fully reach each other: a wrong `advertise`, one direction only, or none.
//!
//! Goal: one direction is enough, whichever peer registered first; with none, both learn why.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ccl_core::ids::{GroupId, LinkKey, Vid};
use ccl_core::limits::CONTROL_FRAME_BYTES_MAX;
use ccl_core::wire::control::{MasterToPeer, PROTOCOL_VERSION, PeerToMaster};
use ccl_core::wire::frame::{Deframer, encode};
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

/// Starts joining, and waits until the peer is registered, which determines the order of sessions.
fn join(config: CommunicatorConfig) -> Connecting {
    let peer = Communicator::connect_async(config).unwrap();
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
        // The first peer waits for a second one; then both are admitted at once.
        let first = join(first);
        let second = Communicator::connect_async(second).unwrap();
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

/// Goal: each of two peers that cannot reach each other learns why it is not admitted. In each
/// round one gives up while the other, which is more patient, is still there: once that has given
/// up, too, there would be no pair any more.
#[test]
fn peers_without_any_way_to_each_other_are_told_of_the_pair() {
    for impatient in ["ann", "bob"] {
        let master = master();
        let peers = ["ann", "bob"].map(|name| {
            let mut config = misled(&master, name);
            if name == impatient {
                config.connect_timeout = Duration::from_secs(3);
            }
            (name, join(config))
        });
        let (_, peer) = peers.iter().find(|(name, _)| *name == impatient).unwrap();
        let error = loop {
            match peer.wait_for(HANG) {
                Ok(admitted) => assert!(admitted.is_none()),
                Err(error) => break error,
            }
        };
        let words = error.to_string();
        println!("{words}");
        assert!(matches!(error, Error::NotAdmitted { .. }));
        for part in [
            "(ann, 127.0.0.1:",
            "(bob, 127.0.0.1:",
            "cannot be reached from peer",
            ": Connection refused",
            "advertise",
        ] {
            assert!(words.contains(part), "{part} is missing in: {words}");
        }
        drop(peers);
        master.shutdown();
    }
}

/// A simulated peer that sends heartbeats, and to which no other peer has a link.
struct Hermit {
    stream: TcpStream,
    deframer: Deframer,
}

impl Hermit {
    fn join(master: &MasterServer) -> Self {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hermit = Self {
            stream: TcpStream::connect(master.address()).unwrap(),
            deframer: Deframer::new(CONTROL_FRAME_BYTES_MAX),
        };
        hermit.stream.set_read_timeout(Some(HANG)).unwrap();
        hermit.say(&PeerToMaster::Hello {
            protocol: PROTOCOL_VERSION,
            library: "test".into(),
            run: "default".into(),
            group: GroupId(0),
            unit: None,
            unit_size: None,
            place: None,
            addresses: vec![closed.local_addr().unwrap()],
            key: LinkKey(1),
            min_world: 2,
            attach: 1,
            name: "hermit".into(),
        });
        while !matches!(hermit.next(), MasterToPeer::Welcome { .. }) {}
        hermit.say(&PeerToMaster::Ready {
            vid: Vid::default(),
            linked: Vec::new(),
        });
        hermit
    }

    fn say(&mut self, message: &PeerToMaster) {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> MasterToPeer {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.deframer.pop().unwrap() {
                return message;
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the master keeps the connection");
            self.deframer.push(&buffer[..count]);
        }
    }

    /// What the master reports that it waits for.
    fn waits_for(&mut self) -> String {
        self.say(&PeerToMaster::Ping);
        loop {
            if let MasterToPeer::Pong { waits, .. } = self.next() {
                return waits.map(|wait| wait.to_string()).unwrap_or_default();
            }
        }
    }
}

/// Goal: a peer that no other peer can reach, and that registered first, does not keep the others
/// out, and learns why it is not admitted.
///
/// 1. It registers; two others follow, and the first view needs two.
/// 2. Those two are admitted, and work.
/// 3. The first learns which peer cannot reach it, at which address, and why.
#[test]
fn a_peer_that_nobody_reaches_keeps_nobody_out_and_is_told_why() {
    let master = master();
    let mut hermit = Hermit::join(&master);
    let others = ["ann", "bob"].map(|name| {
        let config = CommunicatorConfig {
            name: Some(name.into()),
            ..config(&master, 2)
        };
        Communicator::connect_async(config).unwrap()
    });
    let others = others.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    let sizes = others.each_ref().map(Communicator::world_size);
    assert_eq!(sizes, [2, 2]);
    let until = Instant::now() + HANG;
    loop {
        let words = hermit.waits_for();
        let is_told = [
            "(hermit, 127.0.0.1:",
            "(ann, 127.0.0.1:",
            ": Connection refused",
        ];
        if is_told.iter().all(|part| words.contains(part)) {
            println!("{words}");
            break;
        }
        assert!(Instant::now() < until, "{words}");
        std::thread::yield_now();
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
    let peers = [advertising, listening].map(|config| Communicator::connect_async(config).unwrap());
    let [advertising, _listening] = peers.map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    assert_eq!(advertising.listen_address().port(), port);
    master.shutdown();
}
