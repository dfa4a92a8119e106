//! The master: who is in the run, in what order, and which results count.
//!
//! Pure: `handle` takes the time and one input, `poll_output` drains what is to be done,
//! `poll_timeout` says when to call again with [`Input::Timeout`]. The rules R1–R17 and the tables
//! are in docs/protocol.md.

mod record;

use crate::time::Instant;
use crate::wire::control::{MasterToPeer, PeerToMaster};

pub use record::{Record, Registration, SealedMember, SealedView};

/// Names one accepted connection; never reused by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happens to a master.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection sent a whole message. Connections are unknown before their first.
    Message {
        /// Which connection.
        connection: ConnectionId,
        /// The address it comes from, for newcomers that announce an unspecified one.
        from: std::net::SocketAddr,
        /// What it said, already validated against the limits.
        message: PeerToMaster,
    },
    /// A connection ended.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// The time that `poll_timeout` named has come.
    Timeout,
}

/// What a master wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append these bytes-to-be to the journal. With `durable`, nothing that follows may be carried
    /// out before the record has reached the disk (fsync by config); without, it may be lazy.
    Journal {
        /// The sealed record.
        record: Record,
        /// Whether later outputs wait for it.
        durable: bool,
    },
    /// Send a message.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What.
        message: MasterToPeer,
    },
    /// Close a connection once everything sent to it has left.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Something an operator wants to know.
    Event(crate::event::Event),
}

/// What a master is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the run.
    pub run: String,
    /// Waiting times, told to every peer.
    pub timers: crate::config::Timers,
    /// Found a run at once if there is no history.
    pub new_run: bool,
    /// Rebuild without a majority if there is no journal.
    pub force_rebuild: bool,
    /// Whether the driver keeps a journal on disk: a restarted master then gets all durable records.
    pub journaled: bool,
    /// 256 bits of entropy for session secrets and the run id; the simulator passes its seed.
    pub entropy: [u64; 4],
}

/// The master of a run. Pure: see the module's documentation.
#[derive(Debug)]
pub struct Master {}

#[allow(unused_variables, clippy::unused_self)]
impl Master {
    /// A master that starts, or takes up the run whose journal holds `history`.
    #[must_use]
    pub fn new(setup: Setup, history: &[Record], now: Instant) -> Self {
        unimplemented!()
    }
    /// Takes one input. `now` never runs backwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        unimplemented!()
    }
    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }
    /// When to call `handle` with [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
}
