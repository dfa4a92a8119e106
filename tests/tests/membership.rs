//! Membership of a run, over real sockets: newcomers, leaving peers, safe points, masters that stop
//! and restart.
//!
//! Deaths of whole processes are tested in `ccl-cli/tests`. Here a peer is lost by leaving, and a
//! master by being stopped.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use ccl_core::event::Event;
use ccl_core::{
    Communicator, CommunicatorConfig, Error, MasterConfig, MasterServer, Options, Rank, ReduceOp,
    Timers,
};

use common::{HANG, config, master, run, with_tag};

#[test]
fn a_newcomer_is_admitted_at_a_safe_point_and_a_leaver_is_lost_to_the_others() {
    let master = master();
    let first = Communicator::connect(config(&master, 1)).unwrap();
    assert_eq!(first.world_size(), 1);
    let newcomer = {
        let config = config(&master, 1);
        std::thread::spawn(move || {
            let communicator = Communicator::connect(config).unwrap();
            assert_eq!(
                (communicator.rank(), communicator.world_size()),
                (Rank(1), 2)
            );
            let mut buffer = [1_u32];
            communicator
                .all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
                .unwrap();
            assert_eq!(buffer, [2]);
            communicator.leave().unwrap();
        })
    };
    while first.update_topology().unwrap().members.len() < 2 {
        std::thread::yield_now();
    }
    let mut buffer = [1_u32];
    let options = Options::default();
    first
        .all_reduce(&mut buffer, ReduceOp::Sum, &options)
        .unwrap();
    assert_eq!(buffer, [2]);
    // The other peer leaves: this call is aborted, or runs alone in the next view.
    let mut buffer = [7_u32];
    match first.all_reduce(&mut buffer, ReduceOp::Sum, &options) {
        Ok(outcome) => assert_eq!(outcome.contributors, vec![first.peer()]),
        Err(error) => assert!(matches!(error, Error::PeerLost { .. }), "{error}"),
    }
    assert_eq!(buffer, [7]);
    newcomer.join().unwrap();
    first
        .all_reduce(&mut buffer, ReduceOp::Sum, &options)
        .unwrap();
    assert_eq!((buffer, first.world_size()), ([7], 1));
    first.leave().unwrap();
    master.shutdown();
}

#[test]
fn too_few_peers_is_said_and_repaired_by_a_newcomer() {
    let master = master();
    let both = Arc::new(Barrier::new(2));
    let other = {
        let (config, both) = (config(&master, 2), Arc::clone(&both));
        std::thread::spawn(move || {
            let communicator = Communicator::connect(config).unwrap();
            both.wait();
            communicator.leave().unwrap();
        })
    };
    let first = Communicator::connect(config(&master, 2)).unwrap();
    both.wait();
    let lost = loop {
        match first.barrier(&Options::default()) {
            Err(Error::PeerLost { .. }) => {}
            end => break end,
        }
    };
    assert!(
        matches!(
            lost,
            Err(Error::TooFewPeers {
                world_size: 1,
                min_world_size: 2
            })
        ),
        "{lost:?}"
    );
    other.join().unwrap();
    let third = {
        let config = config(&master, 2);
        std::thread::spawn(move || {
            let communicator = Communicator::connect(config).unwrap();
            communicator.barrier(&Options::default()).unwrap();
            communicator
        })
    };
    while first.update_topology().unwrap().members.len() < 2 {
        std::thread::yield_now();
    }
    first.barrier(&Options::default()).unwrap();
    drop(third.join().unwrap());
    master.shutdown();
}

#[test]
fn peers_may_start_before_the_master() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let peer = std::thread::spawn(move || {
        let config = CommunicatorConfig {
            master: port.to_string(),
            connect_timeout: HANG,
            ..CommunicatorConfig::default()
        };
        Communicator::connect(config).unwrap().world_size()
    });
    let config = MasterConfig {
        listen: port,
        new_run: true,
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None).unwrap();
    assert_eq!(peer.join().unwrap(), 1);
    master.shutdown();
}

/// A master with this journal that reports registrations.
fn master_on(listen: SocketAddr, journal: &Path, registered: mpsc::Sender<()>) -> MasterServer {
    let config = MasterConfig {
        listen,
        journal: Some(journal.into()),
        ..MasterConfig::default()
    };
    let tell = move |event: &Event| {
        if matches!(event, Event::Registered { .. }) {
            let _nobody_waits_any_more = registered.send(());
        }
    };
    MasterServer::start(config, Some(Arc::new(tell))).unwrap()
}

/// It is in no view yet, so the journal does not know it, and it gets another id.
#[test]
fn a_newcomer_that_a_restarted_master_does_not_know_begins_anew() {
    let name = format!("ccl-forgotten-{}", std::process::id());
    let journal = std::env::temp_dir().join(name);
    let (told, registered) = mpsc::channel();
    let master = master_on(([127, 0, 0, 1], 0).into(), &journal, told.clone());
    let (waits, comes) = (config(&master, 2), config(&master, 2));
    let waiting = std::thread::spawn(move || {
        let communicator = Communicator::connect(waits).unwrap();
        communicator.barrier(&Options::default()).unwrap();
        communicator.world_size()
    });
    registered.recv_timeout(HANG).unwrap();
    let address = master.address();
    master.shutdown();
    let master = master_on(address, &journal, told);
    let communicator = Communicator::connect(comes).unwrap();
    communicator.barrier(&Options::default()).unwrap();
    assert_eq!((waiting.join().unwrap(), communicator.world_size()), (2, 2));
    drop(communicator);
    master.shutdown();
    std::fs::remove_file(journal.with_extension("marker")).unwrap();
    std::fs::remove_file(journal).unwrap();
}

#[test]
fn no_master_is_an_error_that_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = CommunicatorConfig {
        master: port.to_string(),
        connect_timeout: Duration::from_millis(200),
        ..CommunicatorConfig::default()
    };
    let error = Communicator::connect(config).unwrap_err();
    assert!(matches!(error, Error::MasterUnreachable { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
}

#[test]
fn another_run_is_refused_by_name() {
    let master = master();
    let config = CommunicatorConfig {
        run: "other".into(),
        ..config(&master, 1)
    };
    let error = Communicator::connect(config).unwrap_err();
    assert!(
        matches!(&error, Error::Refused(reason) if reason.contains("other")),
        "{error}"
    );
    master.shutdown();
}

#[test]
fn operations_go_on_while_the_master_is_replaced() {
    let directory = std::env::temp_dir().join(format!("ccl-restart-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let journal = directory.join("journal");
    let master = {
        let journal = Some(journal.clone());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = MasterConfig {
            listen,
            journal,
            new_run: true,
            ..MasterConfig::default()
        };
        MasterServer::start(config, None).unwrap()
    };
    let address = master.address();
    let reached = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (config, reached) = (config(&master, 3), Arc::clone(&reached));
            std::thread::spawn(move || {
                let communicator = Communicator::connect(config).unwrap();
                for round in 0..40_u64 {
                    if round == 10 {
                        reached.wait();
                    }
                    let mut buffer = vec![round; 50_000];
                    let options = Options {
                        attempts: 3,
                        ..Options::default()
                    };
                    communicator
                        .all_reduce(&mut buffer, ReduceOp::Sum, &options)
                        .unwrap();
                    assert_eq!(buffer, vec![3 * round; 50_000]);
                }
                reached.wait();
            })
        })
        .collect();
    reached.wait();
    master.shutdown();
    let config = MasterConfig {
        listen: address,
        journal: Some(journal),
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None).unwrap();
    reached.wait();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    master.shutdown();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn whoever_waits_in_slices_is_admitted_or_gives_up() {
    let master = master();
    let alone = Communicator::connect_async(config(&master, 2)).unwrap();
    assert!(alone.wait_for(Duration::from_millis(20)).unwrap().is_none());
    drop(alone);
    let one = Communicator::connect_async(config(&master, 2)).unwrap();
    let other = Communicator::connect_async(config(&master, 2)).unwrap();
    let [one, other] = [one, other].map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    assert_eq!((one.world_size(), other.world_size()), (2, 2));
    let impatient = CommunicatorConfig {
        connect_timeout: Duration::from_millis(50),
        ..config(&master, 2)
    };
    let newcomer = Communicator::connect_async(impatient).unwrap();
    let end = newcomer.wait_for(HANG);
    assert!(matches!(end, Err(Error::NotAdmitted { waited_ms: 50, .. })));
}

#[test]
fn a_safe_point_that_is_given_up_is_not_used_up() {
    let master = master();
    let connect = || Communicator::connect_async(config(&master, 2)).unwrap();
    let [one, other] = [connect(), connect()].map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    let newcomer = connect();
    // Once the newcomer is ready to be admitted, a safe point needs both members.
    let point = loop {
        let point = one.update_topology_async().unwrap();
        match point.wait_for(Duration::from_millis(20)).unwrap() {
            Some(_nobody_waited_yet) => drop(other.update_topology().unwrap()),
            None => break point,
        }
    };
    point.cancel();
    assert!(matches!(point.wait(), Err(Error::Timeout)));
    let [one, other] = [one, other].map(|peer| {
        std::thread::spawn(move || {
            // Both reach the same safe points, and so see the same views.
            while peer.update_topology().unwrap().members.len() < 3 {}
            peer
        })
    });
    let newcomer = newcomer.wait_for(HANG).unwrap().unwrap();
    let [one, other] = [one, other].map(|thread| thread.join().unwrap());
    for peer in [one, other, newcomer] {
        assert_eq!(peer.world_size(), 3);
    }
}

#[test]
fn a_member_hears_of_a_newcomer_that_waits() {
    let master = master();
    let member = Communicator::connect(config(&master, 1)).unwrap();
    assert_eq!(member.pending_peers(), 0);
    let newcomer = Communicator::connect_async(config(&master, 1)).unwrap();
    while member.pending_peers() == 0 {
        // Each barrier asks the master, whose answer follows its `Expect`.
        member.barrier(&Options::default()).unwrap();
    }
    while member.update_topology().unwrap().members.len() < 2 {}
    assert_eq!(member.pending_peers(), 0);
    let newcomer = newcomer.wait_for(HANG).unwrap().unwrap();
    assert_eq!(newcomer.world_size(), 2);
}

#[test]
fn a_connect_is_given_up_from_another_thread() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = CommunicatorConfig {
        // A port where no master answers.
        master: listener.local_addr().unwrap().to_string(),
        connect_timeout: Duration::from_secs(3600),
        ..CommunicatorConfig::default()
    };
    let connecting = Communicator::connect_async(config).unwrap();
    let waiter = {
        let connecting = connecting.clone();
        std::thread::spawn(move || connecting.wait_for(HANG))
    };
    connecting.cancel();
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Ended(_)), "{error}");
}

#[test]
fn a_close_ends_the_calls_of_every_clone() {
    let ends = run(2, |communicator| {
        if communicator.rank() == Rank(1) {
            return communicator.barrier(&Options::default()).map(drop);
        }
        let clone = communicator.clone();
        let waiter = std::thread::spawn(move || clone.barrier(&with_tag(7)).map(drop));
        communicator.barrier(&Options::default()).unwrap();
        communicator.close();
        waiter.join().unwrap()
    });
    assert!(
        matches!(ends[0], Err(Error::Ended(_) | Error::Cancelled { .. })),
        "{ends:?}"
    );
    assert!(ends[1].is_ok(), "{ends:?}");
}

/// Waits until this is reported of the other groups; only a hang takes long.
fn await_census(member: &Communicator, expected: (u32, u32, u32)) {
    let until = std::time::Instant::now() + HANG;
    loop {
        let census = member.census();
        let found = (
            census.global_world_size,
            census.groups,
            census.largest_group,
        );
        if found == expected {
            return;
        }
        assert!(std::time::Instant::now() < until, "{found:?}");
        std::thread::yield_now();
    }
}

#[test]
fn members_and_groups_of_the_whole_run_are_known() {
    let master = master();
    let of_group = |world: u32, group: u64| CommunicatorConfig {
        group: ccl_core::GroupId(group),
        ..config(&master, world)
    };
    let alone = Communicator::connect(of_group(1, 0)).unwrap();
    await_census(&alone, (1, 1, 1));
    let first = Communicator::connect_async(of_group(2, 1)).unwrap();
    let second = Communicator::connect(of_group(2, 1)).unwrap();
    let first = first.wait_for(HANG).unwrap().unwrap();
    for member in [&first, &second] {
        // Both learned of the first group when they joined.
        assert_eq!(member.census().global_world_size, 3);
    }
    await_census(&alone, (3, 2, 2));
    assert_eq!(alone.world_size(), 1);
    second.leave().unwrap();
    await_census(&alone, (2, 2, 1));
    first.leave().unwrap();
    await_census(&alone, (1, 1, 1));
}

#[test]
fn whoever_was_evicted_hears_why_from_every_later_call() {
    let timers = Timers {
        post_timeout: Some(Duration::from_millis(50)),
        ..Timers::default()
    };
    let master = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        timers,
        ..MasterConfig::default()
    };
    let master = MasterServer::start(master, None).unwrap();
    let of_two = || CommunicatorConfig {
        initial_world_size: Some(2),
        ..config(&master, 1)
    };
    let calling = Communicator::connect_async(of_two()).unwrap();
    let silent = Communicator::connect(of_two()).unwrap();
    let calling = calling.wait_for(HANG).unwrap().unwrap();
    let options = with_tag(3);
    let mut data = [1.0_f32];
    let error = calling.all_reduce(&mut data, ReduceOp::Sum, &options);
    assert!(matches!(error, Err(Error::PeerLost { .. })), "{error:?}");

    let mut state = ccl_core::SharedState::new(0);
    let ends = [
        silent.barrier(&options).map(drop),
        silent.barrier(&options).map(drop),
        silent
            .all_reduce(&mut data, ReduceOp::Sum, &options)
            .map(drop),
        silent.update_topology().map(drop),
        silent
            .sync_shared_state(&mut state, ccl_core::SyncStrategy::default())
            .map(drop),
        silent.clone().leave(),
    ];
    for end in ends {
        let Err(Error::Evicted(eviction)) = &end else {
            panic!("{end:?}");
        };
        assert!(eviction.to_string().contains("tag 3"), "{eviction}");
        assert_eq!(
            (eviction.peer, eviction.vid),
            (silent.peer(), silent.view().vid)
        );
    }
    silent.close();
    let end = silent.barrier(&options);
    assert!(matches!(end, Err(Error::Evicted(_))), "{end:?}");
}
