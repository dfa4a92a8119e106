//! Collectives: which bytes go where when (pure), and the engine that moves them.
//!
//! `layout` cuts an operation into owner chunks and segments. `exchange` decides, for all open
//! operations of one peer, which frame goes out and where an arriving one lands; `direct` and `ring`
//! are its two schedules. None of these touches memory or sockets. `engine` carries out what they
//! decide on real memory, between the links (`transport`) and the driver.

pub mod choice;
pub mod exchange;
pub mod layout;

pub use choice::choose_algorithm;
pub use exchange::{Exchange, ExchangeLimits, Output, Place, StartOp};
pub use layout::{Layout, Part, Side, Span, parts_digest};
