//! The steps that an exchange asks for: frames to send, additions and copies to carry out.
//!
//! A step names bytes, never their address: spans of the caller's parts, and slots of scratch
//! memory. Whoever carries out a step hands it back when done.

use std::ops::Range;

use bytes::Bytes;

use super::layout::{SharedLayout, Side, Span};
use crate::ids::{OpName, PeerId};
use crate::reduce::codec::Input;
use crate::reduce::{self, Contribution, Dtype, Encoding, Form, Mixture, ReduceOp, Rounding};
use crate::transport::FrameHeader;
use crate::wire::control::Fingerprint;

/// Where an arriving bulk frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into scratch memory of `bytes` bytes from `start`.
    Slot {
        /// First byte in the scratch memory.
        start: usize,
        /// Length in bytes.
        bytes: usize,
    },
    /// Into scratch memory from `start`, of an operation that may not be open yet.
    Reserve {
        /// First byte in the scratch memory.
        start: usize,
        /// Length in bytes.
        bytes: usize,
    },
    /// Straight into the result, or to where it will be decoded from.
    Memory {
        /// Which of the operation's memories.
        side: Side,
        /// The bytes of that memory.
        span: Span,
    },
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
    /// A contribution in scratch memory, in wire form.
    Slot {
        /// First byte in the scratch memory.
        start: usize,
        /// Length in bytes.
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
    /// How operands in slots are encoded; own input is rounded to it.
    pub encoding: Option<Encoding>,
    /// How elements combine: `Sum` on the way to an average around the ring.
    pub reduce_op: ReduceOp,
    /// What `Avg` divides by, without weights.
    pub divisor: u32,
    /// By how much each operand counts; empty without weights.
    pub weights: Vec<u32>,
    /// What is added, in this order.
    pub operands: Vec<Operand>,
    /// Where in the result it goes.
    pub target: Span,
}

impl Reduction {
    /// Combines operands, given by their bytes in order, into the target. `seed`: own input is
    /// rounded stochastically.
    ///
    /// # Panics
    /// If the bytes are not as long as operands and target say.
    pub fn combine(&self, seed: Option<u64>, operands: &[&[u8]], target: &mut [u8]) {
        let is_plain = self.encoding.is_none() && self.weights.is_empty();
        // Without operands every member has weight 0.
        if is_plain && !operands.is_empty() {
            reduce::reduce(self.dtype, self.reduce_op, self.divisor, operands, target);
            return;
        }
        let weights = self.weights.iter().copied().map(u64::from);
        let mixture = Mixture {
            dtype: self.dtype,
            encoding: self.encoding,
            rounding: rounding(seed, Side::Input, self.target.part),
            first_index: (self.target.start / self.dtype.bytes()) as u64,
            reduce_op: self.reduce_op,
            divisor: match self.weights.is_empty() {
                true => self.divisor.into(),
                false => weights.sum(),
            },
        };
        let given = self.operands.iter().zip(operands).enumerate();
        let contributions: Vec<Contribution<'_>> = given
            .map(|(index, (operand, bytes))| Contribution {
                weight: self.weights.get(index).copied().unwrap_or(1),
                form: match operand {
                    Operand::Slot { .. } if self.encoding.is_some() => Form::Encoded(bytes),
                    Operand::Own(_) => Form::Unrounded(bytes),
                    _ => Form::Elements(bytes),
                },
            })
            .collect();
        reduce::mix(&mixture, &contributions, target);
    }
}

impl Coding {
    /// Encodes the segment's elements. `seed`: rounded stochastically.
    pub fn encode(&self, seed: Option<u64>, elements: &[u8], wire: &mut [u8]) {
        let input = Input {
            dtype: self.dtype,
            bytes: elements,
            first_index: self.first_index,
            rounding: rounding(seed, self.side, self.elements.part),
            residual: None,
        };
        reduce::encode_or_void(self.encoding, input, wire);
    }

    /// Decodes the segment.
    pub fn decode(&self, wire: &[u8], elements: &mut [u8]) {
        reduce::decode_or_nan(self.encoding, self.dtype, wire, elements);
    }
}

/// How one peer rounds: each buffer, and sums, with random numbers of their own.
fn rounding(seed: Option<u64>, side: Side, part: u32) -> Rounding {
    let is_sum = side != Side::Input;
    match seed {
        None => Rounding::Nearest,
        Some(seed) => Rounding::Stochastic {
            seed,
            stream: u64::from(is_sum) << 32 | u64::from(part),
        },
    }
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

/// A segment to put from one form into the other; hand it back to
/// [`Exchange::encoded`](super::exchange::Exchange::encoded) or
/// [`Exchange::decoded`](super::exchange::Exchange::decoded) when done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// The operation.
    pub op: OpName,
    /// The segment.
    pub segment: u32,
    /// Its wire form.
    pub encoding: Encoding,
    /// Element type.
    pub dtype: Dtype,
    /// Which memory its elements are in.
    pub side: Side,
    /// The segment's elements in that memory.
    pub elements: Span,
    /// Index of the first of them in the result.
    pub first_index: u64,
    /// Its wire form in [`Side::Wire`].
    pub wire: Span,
}

/// A run of segments on one side, in order, without gaps, in the form that memory has.
#[derive(Clone, Debug)]
pub struct Body {
    /// How the operation is cut.
    pub layout: SharedLayout,
    /// Which of the operation's memories.
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

    /// Number of segments.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.segments.end - self.segments.start
    }

    /// Total bytes of the segments.
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
        /// The receiver.
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
        /// The receiver.
        to: PeerId,
        /// Its header, complete.
        header: FrameHeader,
        /// Which of the operation's memories.
        side: Side,
        /// The bytes of that memory.
        span: Span,
    },
    /// Add, then call [`Exchange::reduced`](super::exchange::Exchange::reduced).
    Reduce(Reduction),
    /// Copy from a frame into the result, then call
    /// [`Exchange::stored`](super::exchange::Exchange::stored).
    Store(Storage),
    /// Put elements into their wire form, then call
    /// [`Exchange::encoded`](super::exchange::Exchange::encoded).
    Encode(Coding),
    /// Put the wire form of a finished segment into the result, then call
    /// [`Exchange::decoded`](super::exchange::Exchange::decoded).
    Decode(Coding),
    /// Copy from input to result, then call
    /// [`Exchange::copied`](super::exchange::Exchange::copied).
    Copy(CopyOwn),
    /// See that nobody writes any more to what came ahead for an operation that is over, then call
    /// [`Exchange::abandoned`](super::exchange::Exchange::abandoned).
    Abandon {
        /// The sender.
        from: PeerId,
        /// The operation.
        op: OpName,
    },
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
            Self::Encode(coding) | Self::Decode(coding) => Some(coding.op),
            Self::Copy(copy) => Some(copy.op),
            Self::Held(_) | Self::Mismatch { .. } | Self::Abandon { .. } => None,
        }
    }
}
