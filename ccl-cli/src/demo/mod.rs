//! `ccl demo`: a master and some peers, each a process of its own, train a network together, while
//! newcomers come and go, one peer is killed, another is stopped, and optionally the master dies as
//! well; or, with `--churn`, a peer is killed, stopped or started about once a second.

mod churn;
mod crew;
mod data;
mod display;
mod master;
mod notes;
mod orchestrate;
pub mod peer;
mod plan;
mod schedule;
mod story;
mod summary;
mod train;
mod trainer;

use std::process::ExitCode;

use clap::Args;

use crate::failure::{Failure, Result};

/// Options of `ccl demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Number of peers at the start.
    #[arg(long, value_name = "N", default_value_t = 4)]
    peers: usize,
    /// Seed for weights, order of images, and which peers fail or join when.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Passes over the images.
    #[arg(long, value_name = "N", default_value_t = 14)]
    epochs: usize,
    /// No faults, and no peers that join or leave.
    #[arg(long)]
    no_faults: bool,
    /// Kill, stop or start a process about once a second, in a world of 2 to 6.
    #[arg(long, conflicts_with_all = ["no_faults", "restart_master"])]
    churn: bool,
    /// How long the churn lasts.
    #[arg(long, value_name = "N", default_value_t = 60, requires = "churn")]
    seconds: u64,
    /// Number of times to kill the master, and to restart it on its port with its journal once the
    /// others need it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    restart_master: usize,
    /// Silence after which a peer counts as dead, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    peer_timeout_ms: u64,
    /// Print one JSON object per line; the last one is the summary.
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration; exit status 1 if a check failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let peers = match (arguments.churn, arguments.no_faults) {
        (true, _) => churn::WORLD,
        (false, true) => 1..=PEERS_MAX,
        (false, false) => 3..=PEERS_MAX,
    };
    if !peers.contains(&arguments.peers) {
        let (least, most) = (peers.start(), peers.end());
        return Err(Failure::new(format!("--peers must be {least} to {most}")));
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
    if arguments.churn {
        return churn::run(arguments);
    }
    orchestrate::run(arguments)
}

/// Most peers: each is a process that computes, and a batch is divided among them.
const PEERS_MAX: usize = 32;
/// Most passes: the order of the images of each is kept in memory.
const EPOCHS_MAX: usize = 1000;
