//! A master and communicators over real sockets, each on its own thread.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ccl_core::{
    Communicator, CommunicatorConfig, MasterConfig, MasterServer, Options, Tag, Timers,
};

/// Far longer than anything here takes; only a hang reaches it.
pub const HANG: Duration = Duration::from_secs(30);

pub fn master() -> MasterServer {
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

pub fn config(master: &MasterServer, world: u32) -> CommunicatorConfig {
    CommunicatorConfig {
        master: master.address().to_string(),
        min_world_size: world,
        connect_timeout: HANG,
        operation_timeout: Some(HANG),
        ..CommunicatorConfig::default()
    }
}

/// Runs `body` on `world` communicators at once; returns its results in rank order.
pub fn run<R: Send + 'static>(
    world: u32,
    body: impl Fn(&Communicator) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let master = master();
    let results = run_with(&master, world, body);
    master.shutdown();
    results
}

pub fn run_with<R: Send + 'static>(
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

pub fn with_tag(tag: u64) -> Options {
    Options {
        tag: Tag(tag),
        ..Options::default()
    }
}
