//! A host joins two groups as one, over real sockets.
//!
//! Goal: hosts whose peers move in lockstep are never blocked by a host that is in only one group,
//! and a host that can never be complete learns why.
//!
//! 1. Two hosts step: a safe point in each group, then a reduction in each.
//! 2. One peer of a third host connects; the others go on.
//! 3. Its other peer connects after the first has been waiting: both are admitted in the same step,
//!    and all three hosts reduce.
//! 4. Peers of a unit that do not connect, disagree on its size, or are too many.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ccl_core::driver::master::EventSink;
use ccl_core::event::Event;
use ccl_core::ids::UnitId;
use ccl_core::{
    Communicator, CommunicatorConfig, Error, GroupId, MasterConfig, MasterServer, Options, ReduceOp,
};

/// Far longer than anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(30);
/// Steps of the members while half of a host waits.
const PATIENT_STEPS: u32 = 5;
/// Steps of all three hosts together.
const COMMON_STEPS: u32 = 5;

fn connect(master: String, unit: u64, group: u64, world: u32) -> JoinHandle<Communicator> {
    let config = config(master, unit, group, world);
    std::thread::spawn(move || Communicator::connect(config).unwrap())
}

fn config(master: String, unit: u64, group: u64, world: u32) -> CommunicatorConfig {
    CommunicatorConfig {
        master,
        group: GroupId(group),
        unit: Some(UnitId(unit)),
        unit_size: Some(2),
        initial_world_size: Some(world),
        connect_timeout: HANG,
        operation_timeout: Some(HANG),
        ..CommunicatorConfig::default()
    }
}

fn master() -> MasterServer {
    watched_master(None)
}

fn watched_master(sink: Option<EventSink>) -> MasterServer {
    let config = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        ..MasterConfig::default()
    };
    MasterServer::start(config, sink).unwrap()
}

fn reduce(peers: &[Communicator; 2]) -> [u32; 2] {
    [0, 1].map(|group| {
        let mut ones = [1_u32; 100];
        let options = Options::default();
        peers[group]
            .all_reduce(&mut ones, ReduceOp::Sum, &options)
            .unwrap();
        ones[99]
    })
}

/// Runs a member host until it has stepped with two others. Reports when half a host is waiting.
fn step(peers: &[Communicator; 2], waiting: Option<&Sender<()>>) {
    let (mut patient, mut common) = (0, 0);
    while common < COMMON_STEPS {
        let views = [0, 1].map(|group| peers[group].update_topology().unwrap());
        let worlds = views.map(|view| view.members.len() as u32);
        assert_eq!(worlds[0], worlds[1], "a host entered one group only");
        assert_eq!(reduce(peers), worlds);
        common += u32::from(worlds[0] == 3);
        patient += u32::from(worlds[0] == 2 && peers[0].pending_peers() > 0);
        if patient == PATIENT_STEPS
            && let Some(waiting) = waiting
        {
            // Reported again in later steps; only the first counts.
            let _heard = waiting.send(());
        }
    }
}

#[test]
fn host_whose_peers_come_one_after_the_other_enters_both_groups_in_one_step() {
    let master = master();
    let address = master.address().to_string();
    let connecting =
        [1, 2].map(|unit| [0, 1].map(|group| connect(address.clone(), unit, group, 2)));
    let members = connecting.map(|host| host.map(|peer| peer.join().unwrap()));
    let (waiting, is_waiting) = channel();
    let steps = members.map(|peers| {
        let waiting = waiting.clone();
        let is_first = peers[0].rank().0 == 0;
        std::thread::spawn(move || step(&peers, is_first.then_some(&waiting)))
    });
    let early = connect(address.clone(), 3, 0, 1);
    is_waiting.recv_timeout(HANG).unwrap();
    assert!(!early.is_finished(), "half a host is admitted nowhere");
    let late = connect(address, 3, 1, 1);
    let peers = [early, late].map(|peer| peer.join().unwrap());
    assert_eq!(reduce(&peers), [3, 3]);
    for _ in 1..COMMON_STEPS {
        for peer in &peers {
            assert_eq!(peer.update_topology().unwrap().members.len(), 3);
        }
        assert_eq!(reduce(&peers), [3, 3]);
    }
    for host in steps {
        host.join().unwrap();
    }
    drop(peers);
    master.shutdown();
}

#[test]
fn peer_whose_mates_do_not_come_is_told_how_many_did() {
    let master = master();
    let alone = CommunicatorConfig {
        connect_timeout: Duration::from_millis(300),
        ..config(master.address().to_string(), 3, 0, 1)
    };
    let error = Communicator::connect(alone).unwrap_err();
    let words = "1 of the 2 peers of unit 3 are registered";
    assert!(error.to_string().contains(words), "{error}");
    master.shutdown();
}

/// Neither waits for its `connect_timeout`, which only a hang reaches.
#[test]
fn peers_that_differ_in_the_size_of_their_unit_or_are_too_many_are_refused() {
    let (registered, is_registered) = channel();
    let sink: EventSink = Arc::new(move |event| {
        if matches!(event, Event::Registered { .. }) {
            // Reported for later peers too, which the test ignores.
            let _heard = registered.send(());
        }
    });
    let master = watched_master(Some(sink));
    let address = master.address().to_string();
    let first = Communicator::connect_async(config(address.clone(), 3, 0, 1)).unwrap();
    is_registered.recv_timeout(HANG).unwrap();
    let differing = CommunicatorConfig {
        unit_size: Some(3),
        ..config(address.clone(), 3, 1, 1)
    };
    let error = Communicator::connect(differing).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    let words = "unit_size of unit 3 is 3 for this peer but 2 for peer 0";
    assert!(error.to_string().contains(words), "{error}");
    let second = connect(address.clone(), 3, 1, 1).join().unwrap();
    let first = first.wait_for(HANG).unwrap().unwrap();
    let error = Communicator::connect(config(address, 3, 1, 1)).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    let words = "unit 3 already has all its 2 peers";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(reduce(&[first, second]), [1, 1]);
    master.shutdown();
}
