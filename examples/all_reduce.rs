//! A master and three peers in one process average a buffer; normally each is a separate process.

use std::thread;

use ccl_core::{Communicator, CommunicatorConfig, MasterConfig, MasterServer};
use ccl_core::{Options, ReduceOp, Result};

const PEERS: u32 = 3;

fn run_peer(master: String) -> Result<()> {
    let config = CommunicatorConfig {
        master,
        initial_world_size: Some(PEERS), // wait until this many have joined
        ..CommunicatorConfig::default()
    };
    let communicator = Communicator::connect(config)?;
    let rank = communicator.rank();
    let mut gradients = vec![rank.0 as f32; 1_000_000];
    let outcome = communicator.all_reduce(&mut gradients, ReduceOp::Avg, &Options::default())?;
    let contributors = outcome.contributors.len();
    println!("rank {rank}: {} from {contributors} peers", gradients[0]);
    communicator.leave()
}

fn main() -> Result<()> {
    let master = MasterServer::start(
        MasterConfig {
            listen: ([127, 0, 0, 1], 0).into(), // port 0: the system chooses
            new_run: true,                      // do not wait for an earlier run
            ..MasterConfig::default()
        },
        None,
    )?;
    let peers = (0..PEERS).map(|_| {
        let address = master.address().to_string();
        thread::spawn(move || run_peer(address))
    });
    for peer in peers.collect::<Vec<_>>() {
        peer.join().expect("a peer does not panic")?;
    }
    Ok(())
}
