//! The only owners of sockets, clocks and tasks: thin shells around the pure machines.

mod alarm;
pub mod call;
pub mod clock;
pub mod completion;
mod control;
mod copier;
mod deferred;
mod dial;
mod drive;
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
