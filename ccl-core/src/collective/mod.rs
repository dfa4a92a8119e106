//! Collectives: which bytes go where and when (pure), and the engine that moves them.
//!
//! `layout` cuts an operation into chunks and segments.
//! `exchange` decides, for all open operations of one peer, which frame to send and where an
//! arriving one goes; `direct` and `ring` are its two schedules. None of these touches memory or
//! sockets. `engine` carries out their decisions on real memory, between the links (`transport`)
//! and the driver.

mod ahead;
#[cfg(test)]
mod ahead_tests;
pub mod choice;
mod contributions;
mod direct;
pub mod engine;
pub mod exchange;
#[cfg(test)]
mod harness;
mod kept;
pub mod layout;
mod memory;
mod operation;
mod reserve;
mod ring;
mod run;
mod schedule;
mod segment_set;
mod shape;
mod slots;
pub mod step;
#[cfg(test)]
mod tests;
mod traffic;

pub use choice::{Extent, choose_algorithm};
pub use engine::{Engine, EngineEvent, EngineEvents, LargeCopy, Staged};
pub use exchange::{Exchange, ExchangeLimits, is_staged};
pub use layout::{Layout, Part, SegmentLimits, Side, Span};
pub use memory::{Brought, Buffer, Scratch};
pub use schedule::Given;
pub use step::{Output, Place};
