//! Thin shells around the machines of master and peer: their clocks, control connections and tasks.
//!
//! The connections that carry data are owned by `transport`.

mod alarm;
pub mod call;
pub mod clock;
pub mod completion;
mod control;
mod copier;
mod deferred;
mod dial;
mod drive;
mod entropy;
mod finish;
pub mod journal;
pub mod master;
pub mod notice;
pub mod outbox;
mod outputs;
pub mod peer;
mod public;
mod reach;
mod runtime;
mod shared_state;
