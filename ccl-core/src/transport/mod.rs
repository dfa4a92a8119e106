//! Links between peers: bytes from here to there, in frames, over several connections.
//!
//! A **link** joins two peers with 1 signal connection (lane 0: posts, credits, eager data, small
//! and never behind bulk) and `lanes` bulk connections (lanes 1 …). Frames of a lane are numbered
//! and acknowledged; when a connection breaks it is dialled anew, both sides say what they have,
//! and the rest is sent again. So the layer above never sees a lost or doubled frame: a link works,
//! or it is reported down. Bulk frames belong to the link, not to a lane: an idle lane takes the
//! next.

mod bulk;
mod dial;
mod door;
mod health;
mod keeper;
mod lane;
mod link;
mod listener;
mod offer;
mod reader;
mod signal;
pub mod tcp;
mod window;

use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::Region;
use crate::ids::{OpName, PeerId};
use crate::wire::control::LinkFault;
pub use crate::wire::data::{FrameHeader, FrameKind};

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

/// Where the payload of an arriving bulk frame goes.
#[derive(Clone, Debug)]
pub enum Placement {
    /// Straight into this memory, of the frame's length. If it is taken back half-way, the rest is
    /// read into a sink and `arrived` is not called.
    Memory(Region),
    /// Read and thrown away: the operation is over.
    Discard,
    /// The sender had no right to send it: a fault of the protocol, which ends the link.
    Refuse(&'static str),
}

/// One of the links that this side has had with a peer. Its reports come in order; one that ended
/// may still be heard of after its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkName {
    /// The other side.
    pub peer: PeerId,
    /// Higher than that of any link before.
    pub incarnation: u64,
}

/// What the layer above does with what arrives. Calls come from the tasks of the transport, for one
/// lane in order, for several lanes at once; they must not block.
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
    /// All lanes of a link are up. Counts if [`tcp::Links::is_current`].
    fn link_up(&self, link: LinkName);
    /// A link broke. Counts if [`tcp::Links::is_current`].
    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool);
    /// Why a link without any connection has none: each address that was tried, and what came of
    /// it. Told when it changes, until there is one. Counts if [`tcp::Links::is_current`].
    fn no_link(&self, link: LinkName, why: String);
    /// A lane was repaired; nothing was lost.
    fn lane_repaired(&self, peer: PeerId, lane: u16);
}

/// What the layer above asks of the links of one peer. Never blocks.
pub trait LinkSender: Send + Sync + 'static {
    /// Sends a small frame on the signal lane.
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes);
    /// Queues a bulk frame; the next idle lane takes it.
    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload);
    /// Forgets queued bulk frames of an operation that is over.
    fn forget(&self, op: OpName);
}

/// Shared form of [`LinkHandler`].
pub type Handler = Arc<dyn LinkHandler>;

#[cfg(test)]
mod tests;
