//! The links of one peer over TCP: its port, and one link to each wanted peer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{FrameHeader, Handler, LinkSender, Payload};
use crate::config::CommunicatorConfig;
use crate::error::Result;
use crate::ids::{LinkKey, OpName, PeerId, RunId};
use crate::peer::Neighbour;

/// What the links of one peer are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinksConfig {
    /// Address to listen on; `None`: every address of this host, IPv6 and IPv4, on a port that the
    /// system chooses.
    pub listen: Option<SocketAddr>,
    /// Bulk lanes of the links that this side dials.
    pub lanes: u16,
    /// Whether payloads carry a CRC-32.
    pub checksum: bool,
    /// TCP congestion control; see [`CommunicatorConfig::congestion_control`].
    pub congestion_control: Option<String>,
    /// Most bytes a second a lane may send.
    pub pacing_bytes_per_second: Option<u64>,
}

impl From<&CommunicatorConfig> for LinksConfig {
    fn from(config: &CommunicatorConfig) -> Self {
        Self {
            listen: config.listen,
            lanes: config.lanes,
            checksum: config.checksum,
            congestion_control: config.congestion_control.clone(),
            pacing_bytes_per_second: config.pacing_bytes_per_second,
        }
    }
}

/// Who this peer is, once the master has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// This peer's session.
    pub peer: PeerId,
    /// What a connection to this peer's port must show.
    pub key: LinkKey,
    /// How long a broken lane may take to be repaired before its link is given up.
    pub link_timeout: Duration,
}

/// Traffic of one link since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
    /// Bytes received, headers included.
    pub received_bytes: u64,
    /// Bytes sent on each lane, by lane index.
    pub lane_sent_bytes: Vec<u64>,
    /// Lanes that broke and were repaired.
    pub repairs: u64,
}

/// All links of one peer. Clones refer to the same links; [`Links::shutdown`] ends them.
#[derive(Clone, Debug)]
pub struct Links {}

#[allow(unused_variables, clippy::unused_self)]
impl Links {
    /// Binds the port. Nobody is let in before [`Links::identify`]. Tasks run on `runtime`, whose I/O
    /// and time drivers must be on; nothing here blocks.
    ///
    /// # Errors
    /// [`crate::Error::Os`] names the address that cannot be listened on.
    pub fn bind(config: LinksConfig, runtime: &Handle) -> Result<Self> {
        unimplemented!()
    }

    /// The address listened on, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Says who this peer is and who handles what arrives. Called once, before `set_wanted`.
    pub fn identify(&self, identity: Identity, handler: Handler) {
        unimplemented!()
    }

    /// The links to keep, complete: makes what is missing, ends what is not listed. A call into the
    /// handler that is under way in another thread may still finish for a link that ends.
    pub fn set_wanted(&self, wanted: &BTreeMap<PeerId, Neighbour>) {
        unimplemented!()
    }

    /// Traffic by peer, of the links that are wanted at the moment.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<PeerId, LinkCounters> {
        unimplemented!()
    }

    /// Breaks one connection of a link as a reset by the network would: for tests.
    pub fn reset_lane(&self, peer: PeerId, lane: u16) {
        unimplemented!()
    }

    /// Ends all links and stops listening.
    pub fn shutdown(&self) {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unused_self)]
impl LinkSender for Links {
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes) {
        unimplemented!()
    }
    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload) {
        unimplemented!()
    }
    fn forget(&self, op: OpName) {
        unimplemented!()
    }
}
