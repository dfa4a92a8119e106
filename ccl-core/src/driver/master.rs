//! A master as a running server: sockets, clock and journal around `master::Master`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::MasterConfig;
use crate::error::Result;
use crate::event::Event;

/// Receives every event of a master; called from its thread, so it must not block.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// A running master. Dropping it stops it.
#[derive(Debug)]
pub struct MasterServer {}

impl MasterServer {
    /// Binds the port, reads the journal, and serves from a thread of its own.
    ///
    /// # Errors
    /// [`crate::Error::Os`] if the port or the journal cannot be opened;
    /// [`crate::Error::InvalidArgument`] for a journal of another run or with damage in its middle.
    pub fn start(_config: MasterConfig, _events: Option<EventSink>) -> Result<Self> {
        unimplemented!()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Stops serving and waits for the thread.
    pub fn shutdown(self) {
        unimplemented!()
    }
}
