//! Runs the state machines of master and peer: owns their clocks, control connections and tasks.
//!
//! Data connections belong to `transport`.

pub mod clock;
mod entropy;
pub mod journal;
pub mod master;
mod outbox;
pub mod peer;
mod runtime;
