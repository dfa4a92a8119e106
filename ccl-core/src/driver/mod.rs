//! The only owners of sockets, clocks and tasks: thin shells around the pure machines.

mod alarm;
pub mod clock;
pub mod completion;
mod control;
mod drive;
pub mod journal;
pub mod master;
pub mod outbox;
pub mod peer;
mod runtime;
mod signals;
