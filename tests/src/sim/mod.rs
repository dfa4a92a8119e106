//! A deterministic simulator: the library's machines under virtual time, seeded faults, and
//! checkers that stand outside.
//!
//! `run_seed` is the whole of it: faults on (safety), then faults off (liveness with deadlines).
//! `scenario` scripts the same world by hand.

pub mod aim;
pub mod checkers;
pub mod closed;
pub mod cluster;
pub mod disk;
pub mod endings;
pub mod faults;
pub mod hermit;
pub mod hooks;
pub mod links;
pub mod liveness;
pub mod master_host;
pub mod messages;
#[cfg(ccl_mutations)]
pub mod mutations;
pub mod network;
pub mod peer_host;
pub mod plane;
pub mod program;
pub mod records;
pub mod reference;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod site;
pub mod situations;
pub mod stale;
pub mod swarm;
pub mod sync;
pub mod sync_rules;
pub mod trace;
pub mod trouble;
pub mod workload;

pub use run::{Failure, Outcome, run_seed};
