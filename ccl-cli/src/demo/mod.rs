//! `ccl demo`: a master and some peers, each a process of its own, train a network together, while
//! one peer is killed, another is stopped, and if asked for the master dies as well.

mod data;
mod display;
mod notes;
mod orchestrate;
pub mod peer;
mod plan;
mod schedule;
mod story;
mod train;

use std::process::ExitCode;

use clap::Args;

use crate::failure::{Failure, Result};

/// Options of `ccl demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Number of peers at the start.
    #[arg(long, value_name = "N", default_value_t = 4)]
    peers: usize,
    /// Decides weights, order of images, who fails and when.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Passes over the images.
    #[arg(long, value_name = "N", default_value_t = 14)]
    epochs: usize,
    /// Let everybody live.
    #[arg(long)]
    no_faults: bool,
    /// Kill the master so many times, and start it again on its port with its journal.
    #[arg(long, value_name = "N", default_value_t = 0)]
    restart_master: usize,
    /// Silence after which a peer counts as dead, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    peer_timeout_ms: u64,
    /// Print one JSON object a line; the last one is the summary.
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration; exit status 1 if it did not end as it must.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let peers_min = if arguments.no_faults { 1 } else { 3 };
    if !(peers_min..=PEERS_MAX).contains(&arguments.peers) {
        return Err(Failure::new(format!(
            "--peers must be {peers_min} to {PEERS_MAX}"
        )));
    }
    if !(1..=EPOCHS_MAX).contains(&arguments.epochs) {
        return Err(Failure::new(format!("--epochs must be 1 to {EPOCHS_MAX}")));
    }
    if arguments.restart_master > plan::RESTARTS_MAX {
        return Err(Failure::new(format!(
            "--restart-master must be 0 to {}",
            plan::RESTARTS_MAX
        )));
    }
    orchestrate::run(arguments)
}

/// Most peers: each is a process that computes, and a batch is divided among them.
const PEERS_MAX: usize = 32;
/// Most passes: the order of the images of each is kept in memory.
const EPOCHS_MAX: usize = 1000;
