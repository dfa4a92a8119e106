//! A peer as a running process: `session` what callers use, `drive` who works on its machine and
//! when, `deferred` what is done about it in the world.

mod alarm;
pub mod call;
pub mod completion;
mod control;
mod copier;
mod deferred;
mod dial;
mod drive;
mod finish;
pub mod notice;
mod outputs;
mod public;
mod reach;
mod router;
mod session;

pub use session::Session;
