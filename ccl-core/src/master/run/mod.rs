//! Which run a master serves, and when it starts to serve it (R11).
//!
//! A master without a history first waits for members of an earlier run. Otherwise a restarted
//! master that meets a newcomer first would split the run.

pub mod attach;
pub mod census;
pub mod doubt;
pub mod entry;
pub mod generation;
pub mod hearing;
pub mod room;
pub mod roster;
pub mod silence;
pub mod takeover;
pub mod unit;
pub mod wait;

use std::net::SocketAddr;

use crate::ids::{GroupId, LinkKey, RunId, UnitId};
use crate::limits;
use crate::master::ConnectionId;
use crate::time::Instant;
use crate::wire::control::Place;

/// What a master knows of its run.
#[derive(Debug)]
pub enum Run {
    /// Nothing: no history, and no member of an earlier run was heard.
    Empty(Waiting),
    /// Members of this run attach; it is taken over once a group of it can be rebuilt.
    Adopting { run_id: RunId, waiting: Waiting },
    /// The run is served.
    Founded {
        run_id: RunId,
        /// For a run taken over without a journal: until when groups that were not heard of may
        /// still turn out to have members.
        adopted: Option<Instant>,
    },
}

/// Newcomers of a run that does not exist yet.
#[derive(Debug)]
pub struct Waiting {
    pub window: Instant,
    pub hellos: Vec<Hello>,
}

/// A newcomer's `Hello`, and the connection that carried it.
#[derive(Clone, Debug)]
pub struct Hello {
    pub connection: ConnectionId,
    pub protocol: u32,
    pub run: String,
    pub group: GroupId,
    pub unit: Option<UnitId>,
    pub unit_size: Option<u32>,
    pub place: Option<Place>,
    pub addresses: Vec<SocketAddr>,
    pub key: LinkKey,
    pub min_world: u32,
    pub attach: u64,
    pub name: String,
}

impl Waiting {
    pub fn new(window: Instant) -> Self {
        Self {
            window,
            hellos: Vec::new(),
        }
    }

    /// Keeps a hello until the run is known. A newer one of the same process replaces it. Returns
    /// the connection that is given up, which is the new one if there is no room.
    pub fn keep(&mut self, hello: Hello) -> Option<ConnectionId> {
        if let Some(known) = self.hellos.iter_mut().find(|known| known.key == hello.key) {
            if hello.attach <= known.attach {
                return Some(hello.connection);
            }
            return Some(std::mem::replace(known, hello).connection);
        }
        if self.hellos.len() >= limits::PEERS_MAX {
            return Some(hello.connection);
        }
        self.hellos.push(hello);
        None
    }

    pub fn is_at(&self, connection: ConnectionId) -> bool {
        self.hellos
            .iter()
            .any(|hello| hello.connection == connection)
    }

    /// Drops the hello that came over this connection.
    pub fn forget(&mut self, connection: ConnectionId) -> Option<Hello> {
        let mut hellos = self.hellos.iter();
        let index = hellos.position(|hello| hello.connection == connection)?;
        Some(self.hellos.remove(index))
    }
}

impl Run {
    pub fn waiting(&mut self) -> Option<&mut Waiting> {
        match self {
            Self::Empty(waiting) | Self::Adopting { waiting, .. } => Some(waiting),
            Self::Founded { .. } => None,
        }
    }

    pub fn run_id(&self) -> Option<RunId> {
        match self {
            Self::Empty(_) => None,
            Self::Adopting { run_id, .. } | Self::Founded { run_id, .. } => Some(*run_id),
        }
    }

    /// Whether sessions may be taken over on their own claim.
    pub fn is_adopted(&self) -> bool {
        match self {
            Self::Empty(_) => false,
            Self::Adopting { .. } => true,
            Self::Founded { adopted, .. } => adopted.is_some(),
        }
    }
}
