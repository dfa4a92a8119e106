//! What every call returns after the end of a session, however it ended.
//!
//! Goal: after the end of a session every call returns an error that says how it ended.
//!
//! 1. A session is ended in each of four ways.
//! 2. Every public call is made three times, with buffers for the former world size.
//! 3. Each error is fatal and names the end; queries keep their last answers; nothing panics.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::time::Duration;

use ccl_core::{
    Communicator, CommunicatorConfig, Counters, Error, MasterConfig, MasterServer, Options, Rank,
    ReduceOp, Result, SharedState, SyncOptions, SyncStrategy, Tag, Timers,
};

const SUM: ReduceOp = ReduceOp::Sum;

fn master() -> MasterServer {
    let config = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        timers: Timers {
            post_timeout: Some(Duration::from_millis(100)),
            heartbeat_interval: Duration::from_millis(50),
            detach_timeout: Duration::from_secs(2),
            peer_timeout: Duration::from_secs(2),
            ..Timers::default()
        },
        ..MasterConfig::default()
    };
    MasterServer::start(config, None).unwrap()
}

/// Two members of a run.
fn pair(master: &MasterServer) -> [Communicator; 2] {
    let config = CommunicatorConfig {
        master: master.address().to_string(),
        min_world_size: 2,
        ..CommunicatorConfig::default()
    };
    let connecting = [0, 1].map(|_| Communicator::connect_async(config.clone()).unwrap());
    connecting.map(|connecting| {
        loop {
            if let Some(communicator) = connecting.wait_for(Duration::MAX).unwrap() {
                return communicator;
            }
        }
    })
}

/// A call, with buffers for a world of two.
type Call = fn(&Communicator) -> Result<()>;

const CALLS: &[(&str, Call)] = &[
    ("all_reduce", |c| {
        c.all_reduce(&mut [1, 2], SUM, &Options::default())
            .map(drop)
    }),
    ("all_reduce_into", |c| {
        c.all_reduce_into(&[1, 2], &mut [0; 2], SUM, &Options::default())
            .map(drop)
    }),
    ("all_reduce_many", |c| {
        c.all_reduce_many(&mut [&mut [1, 2], &mut [3]], SUM, &Options::default())
            .map(drop)
    }),
    ("all_reduce_async", |c| {
        let handle = c.all_reduce_async(vec![1, 2], SUM, &Options::default());
        handle.wait().1.map(drop)
    }),
    ("all_reduce_into_async", |c| {
        let (send, receive) = (vec![1, 2], vec![0; 2]);
        let handle = c.all_reduce_into_async(send, receive, SUM, &Options::default());
        handle.wait().1.map(drop)
    }),
    ("all_reduce_many_async", |c| {
        let buffers = vec![vec![1, 2], vec![3]];
        let handle = c.all_reduce_many_async(buffers, SUM, &Options::default());
        handle.wait().1.map(drop)
    }),
    ("all_gather_async", |c| {
        let handle = c.all_gather_async(vec![1], vec![0; 2], &Options::default());
        handle.wait().1.map(drop)
    }),
    ("reduce_scatter_async", |c| {
        let handle = c.reduce_scatter_async(vec![1, 2], vec![0], SUM, &Options::default());
        handle.wait().1.map(drop)
    }),
    ("broadcast_async", |c| {
        let handle = c.broadcast_async(vec![1, 2], Rank(1), &Options::default());
        handle.wait().1.map(drop)
    }),
    ("barrier_async", |c| {
        c.barrier_async(&Options::default()).wait().1.map(drop)
    }),
    ("scope.all_reduce", |c| {
        let mut buffer = [1, 2];
        c.scope(|scope| {
            let handle = scope.all_reduce(&mut buffer, SUM, &Options::default())?;
            handle.wait().map(drop)
        })
    }),
    ("scope.all_reduce_into", |c| {
        let mut buffer = [1, 2];
        c.scope(|scope| {
            let handle = scope.all_reduce_into(&[1, 2], &mut buffer, SUM, &Options::default())?;
            handle.wait().map(drop)
        })
    }),
    ("all_gather", |c| {
        c.all_gather(&[1], &mut [0; 2], &Options::default())
            .map(drop)
    }),
    ("reduce_scatter", |c| {
        c.reduce_scatter(&[1, 2], &mut [0], SUM, &Options::default())
            .map(drop)
    }),
    ("broadcast", |c| {
        c.broadcast(&mut [1, 2], Rank(1), &Options::default())
            .map(drop)
    }),
    ("barrier", |c| c.barrier(&Options::default()).map(drop)),
    ("barrier of a tag never used", |c| {
        let options = Options {
            tag: Tag(77),
            ..Options::default()
        };
        c.barrier(&options).map(drop)
    }),
    ("sync_shared_state", |c| {
        let (mut memory, strategy) = ([1.0_f32; 4], SyncStrategy::default());
        let mut state = SharedState::new(0);
        state.add("weights", &[4], &mut memory)?;
        c.sync_shared_state(&mut state, strategy).map(drop)
    }),
    ("sync_while", |c| {
        let mut memory = [1.0_f32; 4];
        let mut state = SharedState::new(0);
        state.add("weights", &[4], &mut memory)?;
        c.sync_while(&mut state, &SyncOptions::default(), |handle| {
            handle.cancel()
        })
        .map(drop)
    }),
    ("update_topology", |c| c.update_topology().map(drop)),
    ("update_topology_async", |c| {
        c.update_topology_async()?.wait().map(drop)
    }),
];

/// All queries of a communicator, as text. Counters of links still increase a little.
fn facts(communicator: &Communicator) -> String {
    let Counters { commits, .. } = communicator.counters();
    let (peer, rank) = (communicator.peer(), communicator.rank());
    let (world_size, view) = (communicator.world_size(), communicator.view());
    let (address, census) = (communicator.listen_address(), communicator.census());
    let pending = communicator.pending_peers();
    format!("{peer} {rank} {world_size} {view:?} {address} {census:?} {pending} {commits}")
}

/// Makes every call; the error of each must contain `words`.
fn check_calls(communicator: &Communicator, facts_before: &str, words: &str) {
    for round in 0..3 {
        for (name, call) in CALLS {
            let error = call(communicator).expect_err(name);
            let text = error.to_string();
            assert!(error.is_fatal(), "{name}, round {round}: {text}");
            assert!(!error.is_retryable(), "{name}, round {round}: {text}");
            assert!(text.contains(words), "{name}, round {round}: {text}");
            assert_eq!(facts(communicator), facts_before, "after {name}");
        }
    }
}

#[test]
fn after_an_eviction_every_call_says_so() {
    let master = master();
    let [one, other] = pair(&master);
    let facts = facts(&other);
    // The other member never reaches it, and is evicted after `post_timeout`.
    let end = one.barrier(&Options::default());
    assert!(matches!(end, Err(Error::PeerLost { .. })), "{end:?}");
    // It may not know yet: whichever call is first, the others find that the session is over.
    let first = other.update_topology();
    assert!(matches!(first, Err(Error::Evicted(_))), "{first:?}");
    check_calls(&other, &facts, "evicted");
    let end = other.clone().leave();
    assert!(matches!(end, Err(Error::Evicted(_))), "{end:?}");
    other.close();
    check_calls(&other, &facts, "evicted");
}

#[test]
fn after_leaving_every_call_says_so() {
    let master = master();
    let [one, _other] = pair(&master);
    let facts = facts(&one);
    one.clone().leave().unwrap();
    check_calls(&one, &facts, "it left");
    one.clone().leave().unwrap();
    one.close();
    check_calls(&one, &facts, "it left");
}

#[test]
fn after_closing_every_call_says_so() {
    let master = master();
    let [one, _other] = pair(&master);
    let facts = facts(&one);
    one.close();
    check_calls(&one, &facts, "it left");
    one.close();
    one.clone().leave().unwrap();
}

#[test]
fn after_closing_without_a_master_every_call_says_so() {
    let master = master();
    let [one, _other] = pair(&master);
    let facts = facts(&one);
    master.shutdown();
    one.close();
    check_calls(&one, &facts, "it left");
}

#[test]
fn after_an_unknown_end_every_call_says_so() {
    let master = master();
    let [one, _other] = pair(&master);
    let facts = facts(&one);
    master.shutdown();
    let end = one.barrier(&Options::default());
    assert!(matches!(end, Err(Error::Unknown(_))), "{end:?}");
    check_calls(&one, &facts, "no master for longer than detach_timeout");
    let end = one.clone().leave();
    assert!(matches!(end, Err(Error::Ended(_))), "{end:?}");
}
