//! Thin shells around the machines of master and peer: their clocks, control connections and tasks.
//!
//! The connections that carry data are owned by `transport`.

pub mod clock;
mod entropy;
pub mod journal;
pub mod master;
mod outbox;
pub mod peer;
mod runtime;
