//! Links between peers: they carry frames from one peer to another.
//!
//! The layer above never sees a lost or duplicated frame: a link works, or it is reported down.
//! This file owns the traits between the layers above and the transports: [`Links`], implemented by
//! `tcp` and, for tests, by `mem`. All implementations pass the same tests (`conformance`).

#[cfg(test)]
pub(crate) mod mem;
mod tcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use self::tcp::{TcpConfig, TcpLinks};
use crate::buffer::Region;
use crate::config::CommunicatorConfig;
use crate::error::Result;
use crate::ids::{LinkKey, OpName, PeerId, RunId};
use crate::net::Tuned;
use crate::peer::Neighbour;
use crate::wire::control::LinkFault;
pub use crate::wire::data::{Frame, FrameHeader};

/// The links of one peer, which listens from now on: at `listen`, or on every address of this host
/// and a port that the system chooses.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument), [`Error::Os`](crate::Error::Os).
pub fn bind(
    config: &CommunicatorConfig,
    listen: Option<SocketAddr>,
    runtime: &Handle,
) -> Result<Arc<dyn Links>> {
    let config = TcpConfig {
        listen,
        ..TcpConfig::from(config)
    };
    Ok(Arc::new(TcpLinks::bind(config, runtime)?))
}

/// The bytes of a frame to send.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Owned; kept until acknowledged. For signal frames.
    Small(Bytes),
    /// Lent; read when it is sent, and again after a repair. If it is taken back before the frame
    /// has wholly left, the frame is sent as void and the receiver drops it.
    Lent(Region),
}

impl Payload {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Lent(region) => region.bytes(),
        }
    }
}

/// The destination of an arriving bulk frame's payload.
#[derive(Clone, Debug)]
pub enum Placement {
    /// Straight into this memory, of the frame's length. If it is taken back half-way, the rest is
    /// discarded and `arrived` is not called.
    Memory(Region),
    /// Discarded: the operation is over.
    Discard,
    /// The sender had no right to send it: a fault of the protocol, which ends the link.
    Refuse(&'static str),
}

/// One of the links that this side has had with a peer. Its reports come in order; those of an
/// ended link may still arrive after its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkName {
    /// The peer at the other end.
    pub peer: PeerId,
    /// Higher than that of any link before.
    pub incarnation: u64,
}

/// The layer above, which handles what arrives. Calls come from the tasks of the transport: in
/// order for one lane, concurrently for several. They must not block.
pub trait LinkHandler: Send + Sync + 'static {
    /// A signal frame arrived, whole and checked. An error is a fault of the protocol by `from`.
    fn signal(
        &self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str>;
    /// The header of a bulk frame arrived. Called again for the same frame after a repair.
    fn place(&self, from: PeerId, header: &FrameHeader) -> Placement;
    /// The payload of a bulk frame is in its place, whole and checked.
    fn arrived(&self, from: PeerId, header: &FrameHeader);
    /// All lanes of a link are up. Counts if [`Links::is_current`].
    fn link_up(&self, link: LinkName);
    /// A link broke. Counts if [`Links::is_current`].
    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool);
    /// Why a link has no connection: the addresses that were tried, and the error of each. Called
    /// when it changes, until there is a connection. Counts if [`Links::is_current`].
    fn no_link(&self, link: LinkName, why: String);
    /// A lane was repaired; nothing was lost.
    fn lane_repaired(&self, peer: PeerId, lane: u16);
}

/// Sends for the layer above over the links of one peer. Never blocks.
pub trait LinkSender: Send + Sync + 'static {
    /// Sends a small frame on the signal lane.
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes);
    /// Queues a bulk frame; the next idle lane takes it.
    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload);
    /// Drops queued bulk frames of an operation that is over.
    fn forget(&self, op: OpName);
}

/// This peer's identity, once the master has assigned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// This peer's session.
    pub peer: PeerId,
    /// The key that a connection to this peer's port must present.
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
    /// Bulk lanes that take part.
    pub lanes: u16,
    /// Lanes that broke and were repaired.
    pub repairs: u64,
    /// The options that the newest connection really has, if links have any.
    pub tuned: Option<Tuned>,
    /// What the link was found to deliver.
    pub rates: Rates,
}

/// What a link delivers, as far as it was busy; zeros before, and for links within a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The most that was acknowledged lately, in bytes per second.
    pub delivered_bytes_per_second: u64,
    /// Limit on what all lanes together send, in bytes per second; none so far if `None`.
    pub limit_bytes_per_second: Option<u64>,
    /// The shortest round trip.
    pub rtt: Duration,
}

/// All links of one peer, and its listening port.
pub trait Links: LinkSender {
    /// The address listened on, with the port that the system chose.
    fn address(&self) -> SocketAddr;
    /// Sets this peer's identity and handler. A newcomer that the master has forgotten gets another
    /// identity: its earlier links end.
    fn identify(&self, identity: Identity, handler: Handler);
    /// The complete list of links to keep: makes those that are missing, ends those not listed. A
    /// call into the handler that is under way in another thread may still finish for a link that
    /// ends.
    ///
    /// Without effect before [`Links::identify`].
    fn set_wanted(&self, wanted: &BTreeMap<PeerId, Neighbour>);
    /// Whether the link is the current one with its peer. Reports of an earlier one are outdated,
    /// and may come late, since reports of several links come in any order.
    fn is_current(&self, link: LinkName) -> bool;
    /// Traffic by peer, of the currently wanted links.
    fn counters(&self) -> BTreeMap<PeerId, LinkCounters>;
    /// Ends all links, stops listening and drops the handler.
    fn shutdown(&self);
    /// Blocks until the port and all connections are closed after `shutdown`, at most `timeout`.
    /// Returns whether they are.
    fn wait_closed(&self, timeout: Duration) -> bool;
}

/// Shared form of [`LinkHandler`].
pub type Handler = Arc<dyn LinkHandler>;

#[cfg(test)]
mod conformance;
