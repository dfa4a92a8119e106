//! All open operations of one peer: who has posted, who may send what, what is where.
//!
//! Pure: no memory, no socket, no clock. Frames and finished work come in by the `handle_*` methods
//! and `start`/`stop`; what is to be sent, added or copied comes out of `poll_output`. The engine
//! carries it out on real memory, the simulator on small buffers.
//!
//! Rules kept here (docs/protocol.md R1, R12, R13): a frame counts only if its operation is open under
//! the same birth and its sender is a member; a post goes to every other member and is compared with
//! every other; an operation is held only after all of them agreed; a bulk frame is sent only where
//! its bytes have a reserved place.

use std::sync::Arc;

use bytes::Bytes;

use super::layout::{Layout, Part, SegmentLimits, Side, Span};
use crate::ids::{OpName, PeerId, Rank};
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::FrameHeader;
use crate::wire::control::Fingerprint;

/// Sizes of one peer's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// How operations are cut; the same for all members.
    pub segments: SegmentLimits,
    /// This peer's own scratch memory, at least `segments.scratch_bytes`.
    pub scratch_bytes: usize,
    /// Own eager operations that may be unfinished at once.
    pub eager_ops_max: usize,
}

/// An operation to start.
#[derive(Clone, Debug)]
pub struct StartOp {
    /// Its name.
    pub op: OpName,
    /// What was called.
    pub fingerprint: Fingerprint,
    /// The buffers.
    pub parts: Arc<[Part]>,
    /// Members in rank order of the birth view.
    pub members: Arc<[PeerId]>,
    /// The ring of the birth view, as ranks.
    pub ring_order: Arc<[Rank]>,
    /// This peer's rank in it.
    pub rank: Rank,
}

/// Where an arriving bulk frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into scratch memory of `bytes` bytes from `start`.
    Slot {
        /// First byte in the scratch memory.
        start: usize,
        /// Length.
        bytes: usize,
    },
    /// Straight into the result.
    Result(Span),
    /// Nowhere: its operation is over, or it is here already.
    Discard,
    /// Its sender had no right to send it.
    Refuse(&'static str),
}

/// One operand of an addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// This peer's own input.
    Own(Span),
    /// A contribution in scratch memory.
    Slot {
        /// First byte in the scratch memory.
        start: usize,
        /// Length.
        bytes: usize,
    },
    /// A contribution that came on a signal frame.
    Eager(Bytes),
    /// What lies at the target in the result: a partial sum that came around the ring.
    Target,
}

/// An addition to carry out; hand it back to [`Exchange::reduced`] when done.
#[derive(Debug, PartialEq, Eq)]
pub struct Reduction {
    /// The operation.
    pub op: OpName,
    /// The segment.
    pub segment: u32,
    /// Element type.
    pub dtype: Dtype,
    /// How elements combine: `Sum` on the way to an average around the ring.
    pub reduce_op: ReduceOp,
    /// What `Avg` divides by.
    pub divisor: u32,
    /// What is added, in this order.
    pub operands: Vec<Operand>,
    /// Where in the result it goes.
    pub target: Span,
}

/// Bytes of a signal frame to copy into the result; hand it back to [`Exchange::stored`] when done.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The operation.
    pub op: OpName,
    /// Where the bytes go, one segment after the other.
    pub body: Body,
    /// The bytes.
    pub payload: Bytes,
}

/// Own input that is also result; hand it back to [`Exchange::copied`] when done.
#[derive(Clone, Debug)]
pub struct CopyOwn {
    /// The operation.
    pub op: OpName,
    /// The segments to copy from input to result.
    pub body: Body,
}

/// A run of segments on one side, in order, without gaps.
#[derive(Clone, Debug)]
pub struct Body {
    /// How the operation is cut.
    pub layout: Arc<Layout>,
    /// Which memory.
    pub side: Side,
    /// Which segments.
    pub segments: std::ops::Range<u32>,
}

impl Body {
    /// Where the bytes are, one segment after the other.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.segments
            .clone()
            .map(|segment| self.layout.span(self.side, segment))
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layout.run_bytes(self.segments.clone())
    }
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// Send a frame on the signal lane: `head`, then the bytes of `body`.
    Signal {
        /// To whom.
        to: PeerId,
        /// Its header, complete.
        header: FrameHeader,
        /// The first bytes of the payload.
        head: Bytes,
        /// The rest of it.
        body: Option<Body>,
    },
    /// Queue a bulk frame, read from memory when it is sent.
    Bulk {
        /// To whom.
        to: PeerId,
        /// Its header, complete.
        header: FrameHeader,
        /// Which memory.
        side: Side,
        /// Which bytes.
        span: Span,
    },
    /// Add, then call [`Exchange::reduced`].
    Reduce(Reduction),
    /// Copy from a frame into the result, then call [`Exchange::stored`].
    Store(Storage),
    /// Copy from input to result, then call [`Exchange::copied`].
    Copy(CopyOwn),
    /// The whole result is here, and all members called the same.
    Held(OpName),
    /// Another member called something else.
    Mismatch {
        /// The operation.
        op: OpName,
        /// The other member.
        peer: PeerId,
        /// What it called.
        theirs: Fingerprint,
    },
}

/// The open operations of one peer.
#[derive(Debug)]
pub struct Exchange {}

#[allow(unused_variables, clippy::unused_self)]
impl Exchange {
    /// Without operations.
    #[must_use]
    pub fn new(limits: ExchangeLimits) -> Self {
        unimplemented!()
    }
    /// Opens an operation: posts it to every other member.
    pub fn start(&mut self, start: StartOp) {
        unimplemented!()
    }
    /// Ends an operation, whatever became of it; its scratch memory is given to others. The caller has
    /// made sure that nobody writes to it any more.
    pub fn stop(&mut self, op: OpName) {
        unimplemented!()
    }
    /// A signal frame arrived. An error is a fault of the protocol by `from`.
    pub fn handle_signal(
        &mut self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        unimplemented!()
    }
    /// The header of a bulk frame arrived; again for the same frame after a repair.
    pub fn place(&mut self, from: PeerId, header: &FrameHeader) -> Place {
        unimplemented!()
    }
    /// The payload of a bulk frame is in its place.
    pub fn handle_arrived(&mut self, from: PeerId, header: &FrameHeader) {
        unimplemented!()
    }
    /// An addition was carried out.
    pub fn reduced(&mut self, reduction: Reduction) {
        unimplemented!()
    }
    /// The bytes of a signal frame are in the result.
    pub fn stored(&mut self, storage: Storage) {
        unimplemented!()
    }
    /// Own input is in the result.
    pub fn copied(&mut self, copy: CopyOwn) {
        unimplemented!()
    }
    /// What `peer` posted ahead is forgotten: it is no neighbour any more.
    pub fn forget_peer(&mut self, peer: PeerId) {
        unimplemented!()
    }
    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }
    /// Payload bytes sent and received so far, and those of the whole operation.
    #[must_use]
    pub fn progress(&self, op: OpName) -> Option<(u64, u64)> {
        unimplemented!()
    }
}

/// Whether results are put together outside the caller's memory: in place they must be, for the input
/// is what a retry or a resend reads (P2, R14).
#[must_use]
pub fn is_staged(is_in_place: bool) -> bool {
    use crate::mutation::{Mutation, is_active};
    is_in_place && !is_active(Mutation::ResendFromOverwritten)
}
