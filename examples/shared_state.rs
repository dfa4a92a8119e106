//! Two peers that begin with different weights and end with the same bits.

use std::thread;

use ccl_core::{
    Communicator, CommunicatorConfig, MasterConfig, MasterServer, Result, SharedState, SyncStrategy,
};

fn run_peer(master: String, revision: u64, mut weights: Vec<f32>) -> Result<Vec<f32>> {
    let config = CommunicatorConfig {
        master,
        min_world_size: 2,
        ..CommunicatorConfig::default()
    };
    let communicator = Communicator::connect(config)?;
    let mut state = SharedState::new(revision);
    state.add("weights", &[weights.len() as u64], &mut weights)?;
    let info = communicator.sync_shared_state(&mut state, SyncStrategy::EnforcePopular)?;
    println!(
        "revision {}, {} bytes from {} peers",
        info.revision,
        info.received_bytes,
        info.sources.len()
    );
    communicator.leave()?;
    Ok(weights)
}

fn main() -> Result<()> {
    let config = MasterConfig {
        listen: ([127, 0, 0, 1], 0).into(), // port 0: the system chooses
        new_run: true,                      // do not wait for an earlier run
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None)?;
    let address = master.address().to_string();
    // A newcomer has revision 0, whatever its weights are.
    let newcomer = {
        let address = address.clone();
        thread::spawn(move || run_peer(address, 0, vec![0.0; 1_000_000]))
    };
    let ahead = run_peer(address, 7, vec![1.5; 1_000_000])?;
    let newcomer = newcomer.join().expect("a peer does not panic")?;
    assert_eq!(ahead, newcomer);
    Ok(())
}
