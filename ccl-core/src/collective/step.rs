//! What an exchange wants done: frames to send, additions and copies to carry out.
//!
//! These say which bytes, never where in memory those are: spans of the caller's parts, and places
//! in the scratch memory. Whoever carries a step out hands it back when it is done.

use std::ops::Range;

use bytes::Bytes;

use super::layout::{SharedLayout, Side, Span};
use crate::ids::{OpName, PeerId};
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::FrameHeader;
use crate::wire::control::Fingerprint;

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

/// An addition to carry out; hand it back to
/// [`Exchange::reduced`](super::exchange::Exchange::reduced) when done.
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

/// Bytes of a signal frame to copy into the result; hand it back to
/// [`Exchange::stored`](super::exchange::Exchange::stored) when done.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The operation.
    pub op: OpName,
    /// Where the bytes go, one segment after the other.
    pub body: Body,
    /// The bytes.
    pub payload: Bytes,
}

/// Own input that is also result; hand it back to
/// [`Exchange::copied`](super::exchange::Exchange::copied) when done.
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
    pub layout: SharedLayout,
    /// Which memory.
    pub side: Side,
    /// Which segments.
    pub segments: Range<u32>,
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
    /// Add, then call [`Exchange::reduced`](super::exchange::Exchange::reduced).
    Reduce(Reduction),
    /// Copy from a frame into the result, then call
    /// [`Exchange::stored`](super::exchange::Exchange::stored).
    Store(Storage),
    /// Copy from input to result, then call
    /// [`Exchange::copied`](super::exchange::Exchange::copied).
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

impl Output {
    /// The operation whose memory it is about, if it is about memory.
    #[must_use]
    pub fn op(&self) -> Option<OpName> {
        match self {
            Self::Signal { header, body, .. } => body.as_ref().map(|_| header.op),
            Self::Bulk { header, .. } => Some(header.op),
            Self::Reduce(reduction) => Some(reduction.op),
            Self::Store(storage) => Some(storage.op),
            Self::Copy(copy) => Some(copy.op),
            Self::Held(_) | Self::Mismatch { .. } => None,
        }
    }
}
