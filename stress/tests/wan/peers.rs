//! Peers of the library whose path is cut, and works again.

use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ccl_core::{
    Communicator, CommunicatorConfig, Counters, MasterConfig, MasterServer, Options, ReduceOp,
    Timers,
};
use ccl_stress::wan::Network;

use crate::{HANG, start, turn, wait_until};

/// A master in a host, on a port of its own.
fn master(network: &Network, host: usize) -> MasterServer {
    let config = MasterConfig {
        listen: (network.address(host), 0).into(),
        new_run: true,
        timers: Timers {
            // The system gives up no connection before.
            link_timeout: HANG,
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    // Its threads stay in the host that the first one is in.
    let start = move || MasterServer::start(config, None).unwrap();
    network.spawn(host, start).unwrap().join().unwrap()
}

/// The members of a group, one in each of the first hosts.
fn group(network: &Network, master: &MasterServer, world: u32) -> Vec<Communicator> {
    let connect = |host| {
        let config = CommunicatorConfig {
            master: master.address().to_string(),
            listen: Some((network.address(host), 0).into()),
            initial_world_size: Some(world),
            ..CommunicatorConfig::default()
        };
        let connect = || Communicator::connect(config).unwrap();
        network.spawn(host, connect).unwrap()
    };
    let connecting: Vec<_> = (0..world as usize).map(connect).collect();
    connecting
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

/// What every member has when a call has ended.
struct Call(Vec<JoinHandle<Instant>>);

impl Call {
    fn start(members: &[Communicator], count: usize) -> Self {
        let call = |member: &Communicator| {
            let (member, world) = (member.clone(), members.len() as u64);
            std::thread::spawn(move || {
                let mut buffer = vec![1_u64; count];
                let options = Options::default();
                member
                    .all_reduce(&mut buffer, ReduceOp::Sum, &options)
                    .unwrap();
                assert_eq!(buffer, vec![world; count]);
                Instant::now()
            })
        };
        Self(members.iter().map(call).collect())
    }

    /// When the last member had the result.
    fn end(self) -> Instant {
        let ends = self.0.into_iter().map(|thread| thread.join().unwrap());
        ends.max().unwrap()
    }
}

fn repairs(members: &[Communicator]) -> u64 {
    members
        .iter()
        .map(Communicator::counters)
        .map(|Counters { repairs, .. }| repairs)
        .sum()
}

/// Goal: after a cut a link is in use again at once, long before the system sends again.
///
/// 1. Two peers, 5 ms apart, reduce over 100 Mbit/s; the master hears both all the time.
/// 2. In the middle of the call their path is cut for so long that the system has sent again at
///    about 0.2, 0.6, 1.4 and 3 s, and waits until 6 s.
/// 3. Once it works again, the connections are replaced, and the call ends as soon as what was left
///    can be sent.
#[test]
fn lanes_that_got_stuck_in_a_cut_are_replaced_once_the_path_works() {
    let Some(_turn) = turn() else { return };
    let network = start(3, &["set * * delay 2.5ms rate 100m"]);
    let master = master(&network, 2);
    let members = group(&network, &master, 2);
    Call::start(&members, 100_000).end();
    assert_eq!(repairs(&members), 0);
    let sent = || network.stats().unwrap().link(0, 1).unwrap().bytes;
    let before = sent();
    let call = Call::start(&members, COUNT);
    wait_until("a part has been sent", || sent() > before + 1_000_000);
    network.control("split 0 1").unwrap();
    let (_keep, never) = channel::<()>();
    // No message arrives.
    let _ = never.recv_timeout(CUT);
    assert_eq!(repairs(&members), 0, "nothing is repaired over a dead path");
    network.control("join 0 1").unwrap();
    let healed = Instant::now();
    let took = call.end() - healed;
    println!("ended {took:?} after the path worked again");
    assert!(repairs(&members) > 0, "lanes were replaced");
    assert!(took < AFTER_CUT_MAX, "{took:?}");
    drop(members);
    master.shutdown();
}

/// A call of 8 MB sends as much in each direction: 0.7 s at the rate of the path.
const COUNT: usize = 1_000_000;
/// Less than `peer_timeout`, and after the system has sent again for the fourth time.
const CUT: Duration = Duration::from_millis(3500);
/// More than the rest of the call takes, and less than the system waits until it sends again.
const AFTER_CUT_MAX: Duration = Duration::from_millis(2500);
