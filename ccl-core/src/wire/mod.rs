//! Bytes to messages and back: bounded, checked, and ignorant of sockets and of state.

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
mod reason;
mod sketch;
pub mod state;
pub mod validate;
mod wait;
