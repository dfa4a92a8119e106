//! A peer as a running process: `session` is what callers use, `core` holds the machine and its
//! state, `drive` decides which thread runs it, and `deferred` carries out its decisions.

mod alarm;
pub mod call;
pub mod completion;
mod control;
mod copier;
mod core;
mod deferred;
mod dial;
mod drive;
pub mod notice;
mod public;
mod reach;
mod router;
mod session;

pub use session::Session;
