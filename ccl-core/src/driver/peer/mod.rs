//! A peer as a running process: `session` what callers use, `core` the machine and what belongs to
//! its decisions, `drive` who works on it and when, `deferred` what is done about it in the world.

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
