//! The public face over real sockets: a master and several communicators, each on its own thread.
//!
//! Deaths of whole processes are tested where processes are (`ccl-cli/tests`); here a peer goes by
//! leaving, and the master by being stopped.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ccl_core::{
    Algorithm, Communicator, CommunicatorConfig, Error, MasterConfig, MasterServer, Options, Rank,
    ReduceOp, Tag, Timers,
};

/// Far beyond what anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(30);

fn master() -> MasterServer {
    let config = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        timers: Timers {
            peer_timeout: Duration::from_secs(20),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    MasterServer::start(config, None).unwrap()
}

fn config(master: &MasterServer, world: u32) -> CommunicatorConfig {
    CommunicatorConfig {
        master: master.address().to_string(),
        min_world_size: world,
        connect_timeout: HANG,
        operation_timeout: Some(HANG),
        ..CommunicatorConfig::default()
    }
}

/// Runs `body` on `world` communicators at once; returns its results in rank order.
fn run<R: Send + 'static>(
    world: u32,
    body: impl Fn(&Communicator) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let master = master();
    let results = run_with(&master, world, body);
    master.shutdown();
    results
}

fn run_with<R: Send + 'static>(
    master: &MasterServer,
    world: u32,
    body: impl Fn(&Communicator) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let body = Arc::new(body);
    let done = Arc::new(Barrier::new(world as usize));
    let threads: Vec<_> = (0..world)
        .map(|_| {
            let (config, body, done) =
                (config(master, world), Arc::clone(&body), Arc::clone(&done));
            std::thread::spawn(move || {
                let communicator = Communicator::connect(config).unwrap();
                let rank = communicator.rank();
                let result = body(&communicator);
                done.wait();
                (rank, result)
            })
        })
        .collect();
    let mut results: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    results.sort_by_key(|(rank, _)| *rank);
    results.into_iter().map(|(_, result)| result).collect()
}

fn with_tag(tag: u64) -> Options {
    Options {
        tag: Tag(tag),
        ..Options::default()
    }
}

#[test]
fn everybody_gets_the_sum_in_place_and_out_of_place() {
    for world in [1, 2, 4] {
        let counts = [0, 1, 3, 1023, 70_001, 1_048_577];
        let results = run(world, move |communicator| {
            let rank = communicator.rank().0;
            for algorithm in [Algorithm::Direct, Algorithm::Ring] {
                let options = Options {
                    algorithm,
                    ..Options::default()
                };
                for count in counts {
                    let input: Vec<i64> = (0..count).map(|i| i64::from(rank + 1) * i).collect();
                    let factor = i64::from(world * (world + 1) / 2);
                    let expected: Vec<i64> = (0..count).map(|i| factor * i).collect();
                    let mut output = vec![-1; input.len()];
                    let sum = ReduceOp::Sum;
                    communicator
                        .all_reduce_into(&input, &mut output, sum, &options)
                        .unwrap();
                    assert_eq!(output, expected);
                    let mut buffer = input.clone();
                    let outcome = communicator.all_reduce(&mut buffer, sum, &options).unwrap();
                    assert_eq!(buffer, expected);
                    assert_eq!(outcome.contributors.len(), world as usize);
                }
            }
            communicator.counters().commits
        });
        assert_eq!(results, vec![24; world as usize]);
    }
}

#[test]
fn a_list_of_buffers_is_one_transaction() {
    run(3, |communicator| {
        let rank = communicator.rank().0 as f32;
        let mut buffers: Vec<Vec<f32>> = [0, 1, 5, 4096, 100_000]
            .iter()
            .map(|&count| vec![rank; count])
            .collect();
        let mut slices: Vec<&mut [f32]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        let options = Options::default();
        communicator
            .all_reduce_many(&mut slices, ReduceOp::Avg, &options)
            .unwrap();
        assert!(buffers.iter().flatten().all(|&value| value == 1.0));
        assert_eq!(communicator.counters().commits, 1);
    });
}

#[test]
fn the_other_collectives_move_what_their_names_say() {
    run(3, |communicator| {
        let (rank, options) = (communicator.rank().0, Options::default());
        for count in [1_usize, 7, 50_000] {
            let send = vec![rank; count];
            let mut gathered = vec![9; 3 * count];
            communicator
                .all_gather(&send, &mut gathered, &options)
                .unwrap();
            assert!(
                gathered
                    .chunks(count)
                    .zip(0_u32..)
                    .all(|(c, r)| c.iter().all(|&v| v == r))
            );

            let send: Vec<u32> = (0..3 * count as u32).map(|i| i * (rank + 1)).collect();
            let mut share = vec![0; count];
            communicator
                .reduce_scatter(&send, &mut share, ReduceOp::Sum, &options)
                .unwrap();
            let first = rank * count as u32;
            assert!(share.iter().zip(first..).all(|(&value, i)| value == i * 6));

            let mut buffer = vec![rank; count];
            communicator
                .broadcast(&mut buffer, Rank(2), &options)
                .unwrap();
            assert_eq!(buffer, vec![2; count]);
        }
        communicator.barrier(&options).unwrap();
    });
}

#[test]
fn operations_of_many_tags_run_at_once_in_any_order() {
    run(4, |communicator| {
        let rank = communicator.rank().0;
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    // Each rank starts the tags in an order of its own.
                    let start = |round| {
                        let tag = 10 * thread + (round + u64::from(rank)) % 6;
                        let count = if tag % 2 == 0 { 11 } else { 120_000 };
                        let buffers = vec![vec![tag + u64::from(rank); count]];
                        let (sum, options) = (ReduceOp::Sum, with_tag(tag));
                        (
                            tag,
                            communicator
                                .all_reduce_start(buffers, sum, &options)
                                .unwrap(),
                        )
                    };
                    let handles: Vec<_> = (0..6).map(start).collect();
                    for (tag, handle) in handles {
                        let (buffers, end) = handle.wait();
                        end.unwrap();
                        assert!(buffers[0].iter().all(|&value| value == 4 * tag + 6));
                    }
                });
            }
        });
    });
}

#[test]
fn a_difference_names_the_peer_and_both_values_and_the_next_call_works() {
    let errors = run(3, |communicator| {
        let count = if communicator.rank().0 == 1 {
            1001
        } else {
            1000
        };
        let mut buffer = vec![1.0_f32; count];
        let error = communicator
            .all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
            .unwrap_err();
        assert_eq!(buffer, vec![1.0; count], "the input is intact");
        let mut buffer = vec![1.0_f32; 10];
        communicator
            .all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
            .unwrap();
        assert_eq!(buffer, vec![3.0; 10]);
        error.to_string()
    });
    for error in errors {
        assert!(error.contains("count") && error.contains("1000") && error.contains("1001"));
    }
}

#[test]
fn a_cancel_ends_the_call_of_everybody_and_spares_the_input() {
    run(2, |communicator| {
        let mut buffers = vec![vec![5_u32; 300_000]];
        if communicator.rank().0 == 0 {
            let options = Options::default();
            let handle = communicator
                .all_reduce_start(buffers, ReduceOp::Sum, &options)
                .unwrap();
            assert!(matches!(
                handle.wait_for(Duration::from_millis(20)),
                Err(Error::Timeout)
            ));
            assert!(!handle.is_finished());
            handle.cancel();
            let end;
            (buffers, end) = handle.wait();
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
            assert_eq!(buffers[0], vec![5; 300_000]);
            communicator.barrier(&with_tag(1)).unwrap();
        } else {
            // Called after the verdict: the cancelled number is used up here too.
            communicator.barrier(&with_tag(1)).unwrap();
            let end = communicator.all_reduce(&mut buffers[0], ReduceOp::Sum, &Options::default());
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        }
        let end = communicator.all_reduce(&mut buffers[0], ReduceOp::Sum, &Options::default());
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(buffers[0], vec![10; 300_000]);
    });
}

#[test]
fn a_deadline_is_a_cancel() {
    run(2, |communicator| {
        if communicator.rank().0 == 0 {
            let deadline = Some(Duration::from_millis(50));
            let options = Options {
                deadline,
                ..Options::default()
            };
            let mut buffer = [1_u8];
            let end = communicator.all_reduce(&mut buffer, ReduceOp::Sum, &options);
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        } else {
            let end = communicator.barrier(&with_tag(0));
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        }
        communicator.barrier(&with_tag(0)).unwrap();
    });
}

#[test]
fn a_busy_tag_is_refused_and_uses_no_number() {
    run(2, |communicator| {
        let options = with_tag(3);
        if communicator.rank().0 == 0 {
            let buffers = vec![vec![1_i32; 100]];
            let first = communicator
                .all_reduce_start(buffers, ReduceOp::Sum, &options)
                .unwrap();
            let second = communicator.barrier(&options);
            assert!(matches!(second, Err(Error::InvalidUsage(_))), "{second:?}");
            communicator.barrier(&with_tag(4)).unwrap();
            first.wait().1.unwrap();
        } else {
            communicator.barrier(&with_tag(4)).unwrap();
            communicator
                .all_reduce(&mut [1_i32; 100], ReduceOp::Sum, &options)
                .unwrap();
        }
        communicator.barrier(&options).unwrap();
    });
}

#[test]
fn borrowed_buffers_run_side_by_side_in_a_scope() {
    run(2, |communicator| {
        let (mut a, mut b) = (vec![1.0_f64; 200_000], [2_i8; 3]);
        communicator.scope(|scope| {
            let first = scope
                .all_reduce(&mut a, ReduceOp::Sum, &with_tag(0))
                .unwrap();
            let second = scope
                .all_reduce(&mut b, ReduceOp::Prod, &with_tag(1))
                .unwrap();
            second.wait().unwrap();
            first.wait().unwrap();
        });
        assert_eq!(a, vec![2.0; 200_000]);
        assert_eq!(b, [4; 3]);
    });
}

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
    // The other leaves: this call is aborted for its loss, or runs alone in the view after it.
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
    let alone = Communicator::connect_start(config(&master, 2)).unwrap();
    assert!(alone.wait_for(Duration::from_millis(20)).unwrap().is_none());
    drop(alone);
    let one = Communicator::connect_start(config(&master, 2)).unwrap();
    let other = Communicator::connect_start(config(&master, 2)).unwrap();
    let [one, other] = [one, other].map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    assert_eq!((one.world_size(), other.world_size()), (2, 2));
    let impatient = CommunicatorConfig {
        connect_timeout: Duration::from_millis(50),
        ..config(&master, 2)
    };
    let newcomer = Communicator::connect_start(impatient).unwrap();
    let end = newcomer.wait_for(HANG);
    assert!(matches!(end, Err(Error::NotAdmitted { waited_ms: 50 })));
}

#[test]
fn a_safe_point_that_is_given_up_is_not_used_up() {
    let master = master();
    let connect = || Communicator::connect_start(config(&master, 2)).unwrap();
    let [one, other] = [connect(), connect()].map(|peer| peer.wait_for(HANG).unwrap().unwrap());
    let newcomer = connect();
    // Once the newcomer is ready to be admitted, a safe point needs both members.
    let point = loop {
        let point = one.update_topology_start().unwrap();
        match point.wait_for(Duration::from_millis(20)).unwrap() {
            Some(_nobody_waited_yet) => drop(other.update_topology().unwrap()),
            None => break point,
        }
    };
    point.cancel();
    assert!(matches!(point.wait(), Err(Error::Timeout)));
    let [one, other] = [one, other].map(|peer| {
        std::thread::spawn(move || {
            // Both come to the same safe points, and so see the same views.
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
    let newcomer = Communicator::connect_start(config(&master, 1)).unwrap();
    while member.pending_peers() == 0 {
        // Each barrier asks the master, whose answer comes after its `Expect`.
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
        // A port where nobody answers as a master.
        master: listener.local_addr().unwrap().to_string(),
        connect_timeout: Duration::from_secs(3600),
        ..CommunicatorConfig::default()
    };
    let connecting = Communicator::connect_start(config).unwrap();
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

/// Waits until what is told of the other groups is this; only a hang takes long.
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
    let of_group = |world: u32, group: u32| CommunicatorConfig {
        group: ccl_core::GroupId(group),
        ..config(&master, world)
    };
    let alone = Communicator::connect(of_group(1, 0)).unwrap();
    await_census(&alone, (1, 1, 1));
    let first = Communicator::connect_start(of_group(2, 1)).unwrap();
    let second = Communicator::connect(of_group(2, 1)).unwrap();
    let first = first.wait_for(HANG).unwrap().unwrap();
    for member in [&first, &second] {
        // Both were told of the first group when they came.
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
    let calling = Communicator::connect_start(of_two()).unwrap();
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
        let Err(Error::Evicted(reason)) = &end else {
            panic!("{end:?}");
        };
        assert!(reason.to_string().contains("tag 3"), "{reason}");
    }
    silent.close();
    let end = silent.barrier(&options);
    assert!(matches!(end, Err(Error::Evicted(_))), "{end:?}");
}

#[test]
fn after_its_end_an_operation_still_tells_how_far_it_was() {
    run(2, |communicator| {
        let handle = communicator
            .all_reduce_start(
                vec![vec![1.0_f32; 100_000]],
                ReduceOp::Sum,
                &Options::default(),
            )
            .unwrap();
        while !handle.is_finished() {
            std::thread::yield_now();
        }
        for tag in 1..4 {
            let progress = handle.progress();
            assert_eq!(progress.done_bytes, progress.total_bytes);
            assert!(progress.done_bytes >= 400_000, "{progress:?}");
            communicator.barrier(&with_tag(tag)).unwrap();
        }
        let (sums, end) = handle.wait();
        end.unwrap();
        assert_eq!(sums[0][99_999], 2.0);
    });
}
