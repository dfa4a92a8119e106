//! An emulator of wide-area networks on one machine.
//!
//! Hosts are network namespaces, each with a TUN device. A router in this process delays, limits,
//! loses and cuts what they send to each other, and can be told to change while it runs. See
//! `docs/wan.md`.
//!
//! ```no_run
//! use ccl_stress::wan::{Config, Network};
//!
//! let network = Network::start(&Config {
//!     commands: vec!["set * * delay 50ms rate 1g".into()],
//!     ..Config::default()
//! })?;
//! network.command(0, "ping")?.args(["-c1", "10.77.0.2"]).status()?;
//! network.control("cut 0 1")?;
//! println!("{}", network.stats()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
pub mod command;
pub mod control;
mod error;
mod host;
pub mod lateness;
mod link;
mod loss;
mod netlink;
mod network;
mod packet;
mod preset;
mod pump;
mod router;
pub mod shaper;
pub mod stats;
mod sys;
mod timeline;
pub mod units;
mod warden;

pub use error::{Error, Result};
pub use host::{INTERFACE, Sysctl, enter_user_namespace};
pub use network::{Config, Network};
pub use preset::Preset;
