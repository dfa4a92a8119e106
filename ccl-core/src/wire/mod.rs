//! The wire formats: bytes to messages and back, with limits and checks, without sockets or state.

mod birth;
pub mod bounded;
pub mod control;
mod crossed;
pub mod data;
mod entry;
mod fault;
mod fingerprint;
mod fixed;
pub mod frame;
mod lane;
mod late;
pub mod peer_to_peer;
mod place;
mod reason;
mod records;
mod report;
mod sketch;
pub mod state;
pub mod validate;
mod wait;
