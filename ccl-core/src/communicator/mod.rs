//! The public API of a peer: the communicator, how it connects and how it ends.

mod census;
mod collectives;
mod handle;
mod memory;
mod pending;
mod records;
mod request;
mod scope;
mod shared_state;
mod sync;
mod sync_handle;

use std::sync::Arc;
use std::time::Duration;

use crate::config::CommunicatorConfig;
use crate::driver::peer::Session;
use crate::driver::peer::notice::Waiting;
use crate::error::Result;
use crate::ids::{PeerId, Rank};
use crate::outcome::{Counters, LinkState};
use crate::peer::View;

pub use census::Census;
pub use handle::{Handle, RawHandle};
pub use pending::{Connecting, SafePoint};
pub use records::{RecordHandle, RecordOptions};
pub use request::{Collective, Options, RawPart, Request};
pub use scope::{Scope, ScopedHandle};
pub use shared_state::{Hashes, SharedState};
pub use sync::{SyncInfo, SyncOptions, SyncWatch};
pub use sync_handle::SyncHandle;

/// A member of a run.
///
/// Cheap to clone; every method may be called from any thread, and blocks only where it says so.
/// When the last clone is dropped, the peer leaves the run: all open calls end, and the drop waits
/// at most a second for the master's answer.
#[derive(Clone, Debug)]
pub struct Communicator {
    membership: Arc<Membership>,
}

/// Ends the session with the last clone of its communicator.
#[derive(Debug)]
struct Membership(Arc<Session>);

impl Drop for Membership {
    fn drop(&mut self) {
        if self.0.check_process().is_err() {
            // In a forked child the threads that it would wait for do not exist.
            return std::mem::forget(Arc::clone(&self.0));
        }
        self.0.close();
    }
}

impl Communicator {
    /// Joins a run: registers with the master, links with the members, and returns once admitted.
    /// Blocks up to `connect_timeout`; the master may start later than the peers.
    ///
    /// # Errors
    /// [`crate::Error::MasterUnreachable`], [`crate::Error::NotAdmitted`] if the members reached no
    /// safe point in time, [`crate::Error::Refused`] with the master's reason,
    /// [`crate::Error::InvalidArgument`], [`crate::Error::Os`].
    pub fn connect(config: CommunicatorConfig) -> Result<Self> {
        let connecting = Self::connect_async(config)?;
        loop {
            if let Some(communicator) = connecting.wait_for(Duration::MAX)? {
                return Ok(communicator);
            }
        }
    }

    /// The id of this session, as shown in events and errors.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.session().peer()
    }

    /// Rank in the view of the newest result.
    #[must_use]
    pub fn rank(&self) -> Rank {
        self.view().rank_of(self.peer()).unwrap_or_default()
    }

    /// Number of members in the view of the newest result.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.view().world_size()
    }

    /// The view of the newest result. It changes only when a call returns (docs/protocol.md, R16).
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.session().view()
    }

    /// Number of newcomers that the next `update_topology` may admit, as far as this peer knows.
    /// Where the master is far, it may have released some calls ahead, which admit nobody.
    #[must_use]
    pub fn pending_peers(&self) -> u32 {
        self.session().pending_peers()
    }

    /// What this peer waits for now, as a text for users: at a safe point, which members have not
    /// reached it. `None` if it waits for no other peer.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.session().waits_for()
    }

    /// The same for [`crate::Notices`], which decides when to show it.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.session().waiting()
    }

    /// Counters since the communicator was created.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.session().counters()
    }

    /// The links to other peers, in the order of their ids: lanes, congestion control, rates.
    #[must_use]
    pub fn links(&self) -> Vec<LinkState> {
        self.session().link_states()
    }

    /// The address at which other peers reach this one.
    #[must_use]
    pub fn listen_address(&self) -> std::net::SocketAddr {
        self.session().listen_address()
    }

    /// A safe point: admits the newcomers that are ready. All members must call it equally often.
    /// Blocks until all have called it if a newcomer waits, otherwise for one round trip to the
    /// master. A newcomer's first call is the one that the members make after the safe point that
    /// admitted it.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] after `operation_timeout`: the next call is the same safe point
    /// again. Any fatal error.
    pub fn update_topology(&self) -> Result<Arc<View>> {
        self.update_topology_async()?.wait()
    }

    /// Leaves the run: cancels this peer's open calls, tells the master, and waits for its answer.
    /// From then on every clone gets [`crate::Error::Ended`].
    ///
    /// # Errors
    /// A fatal error, if the session had already ended for another reason.
    pub fn leave(self) -> Result<()> {
        self.session().leave()
    }

    fn session(&self) -> &Session {
        &self.membership.0
    }
}
