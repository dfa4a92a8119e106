//! Bytes to messages and back: bounded, checked, and ignorant of sockets and of state.

pub mod bounded;
pub mod control;
pub mod data;
pub mod frame;
pub mod validate;
