//! An emulator of wide-area networks on one machine.

pub mod command;
pub mod lateness;
mod link;
mod loss;
pub mod packet;
pub mod preset;
pub mod router;
pub mod shaper;
pub mod stats;
mod timeline;
pub mod units;
