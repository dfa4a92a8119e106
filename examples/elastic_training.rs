//! A training loop that goes on when peers die and admits newcomers between steps.
//!
//! Start a master (`ccl master`), then this program in two or more shells; kill one, start another.

use std::time::Duration;

use ccl_core::{
    Communicator, CommunicatorConfig, Error, Options, Rank, ReduceOp, Result, SharedState,
    SyncStrategy,
};

fn main() -> Result<()> {
    let config = CommunicatorConfig {
        master: std::env::args().nth(1).unwrap_or("127.0.0.1:48148".into()),
        min_world_size: 2,
        ..CommunicatorConfig::default()
    };
    let communicator = Communicator::connect(config)?;
    let mut training = Training::default();
    while !training.is_finished() {
        match training.step(&communicator) {
            Ok(()) => training.print(&communicator),
            // All survivors undo the step: continue with them.
            Err(Error::PeerLost { peer, reason, .. }) => eprintln!("lost peer {peer}: {reason}"),
            Err(Error::TooFewPeers { .. }) => wait_for_company(),
            // Evicted, or the outcome is unknown: start again as a newcomer.
            Err(error) => return Err(error),
        }
        // Newcomers enter here and nowhere else: the sync that opens a step is their first call.
        communicator.update_topology()?;
    }
    communicator.leave()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the library may not sleep; we may"
)]
fn wait_for_company() {
    std::thread::sleep(Duration::from_secs(1));
}

/// What all members hold alike.
struct Training {
    weights: Vec<f32>,
    /// Steps done.
    revision: u64,
    slope: f32,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            weights: vec![0.0; 100_000],
            revision: 0,
            slope: f32::MAX,
        }
    }
}

impl Training {
    fn step(&mut self, communicator: &Communicator) -> Result<()> {
        self.synchronise(communicator)?;
        let mut gradients = self.gradients(communicator.rank());
        let options = Options::default();
        communicator.all_reduce(&mut gradients, ReduceOp::Avg, &options)?;
        for (weight, gradient) in self.weights.iter_mut().zip(&gradients) {
            *weight -= 0.001 * gradient;
        }
        self.revision += 1;
        self.slope = gradients[0].abs();
        Ok(())
    }

    /// Moves nothing, but to a newcomer. All make it in each step: nobody but the master knows for
    /// certain who has just come.
    fn synchronise(&mut self, communicator: &Communicator) -> Result<()> {
        let mut state = SharedState::new(self.revision);
        state.add("weights", &[self.weights.len() as u64], &mut self.weights)?;
        let info = communicator.sync_shared_state(&mut state, SyncStrategy::EnforcePopular)?;
        self.revision = info.revision;
        Ok(())
    }

    /// Stands for a backward pass over this peer's share of the data.
    fn gradients(&self, rank: Rank) -> Vec<f32> {
        let target = 1.0 + rank.0 as f32 / 100.0;
        self.weights.iter().map(|weight| weight - target).collect()
    }

    /// The same answer on every member, since it is drawn from a result.
    fn is_finished(&self) -> bool {
        self.slope < 1e-3
    }

    fn print(&self, communicator: &Communicator) {
        let peers = communicator.world_size();
        println!(
            "{peers} peers: weight {:.4}, slope {:.4}",
            self.weights[0], self.slope
        );
    }
}
