//! How an operation is cut into chunks with owners, and chunks into segments.
//!
//! All parts together are one flat space of bytes, cut into `n` chunks of nearly equal bytes. Chunk
//! `k` begins at byte `total * k / n` of the flat space, moved back to a multiple of 64 bytes
//! inside the part it falls in, so no chunk splits an element. Chunk `k` is owned by rank `k`
//! (two-shot) or by the `k`-th member of the ring order (ring). In a one-shot there is one chunk,
//! and every rank owns it. In a reduce-scatter and an all-gather the chunk of rank `r` is instead
//! its share: elements `r * count ..` of each part. In an eager broadcast the root owns everything.
//!
//! Segments are numbered from 0 in the order of chunks; a segment never crosses a chunk or a part.
//! The bits of a ring all-reduce depend on the chunks, those of a direct one on nothing here.
//! Everything is a function of what all members share.

use std::ops::Range;
use std::sync::Arc;

use crate::ids::Rank;
use crate::limits;
use crate::reduce::{BLOCK_ELEMENTS, Dtype, Encoding, wire_bytes};
use crate::wire::control::Kind;

pub use super::shape::Shape;

/// One buffer of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Element type.
    pub dtype: Dtype,
    /// Elements: of the whole buffer for all-reduce and broadcast, of one rank's share for
    /// all-gather and reduce-scatter.
    pub count: u64,
}

impl Part {
    /// Its length in bytes, as it is counted.
    ///
    /// # Panics
    /// If it is longer than the address space: the caller has checked the buffer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let count = usize::try_from(self.count).expect("the buffer is in memory");
        let bytes = count.checked_mul(self.dtype.bytes());
        bytes.expect("the buffer is in memory")
    }
}

/// Which of a peer's two memories for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What it contributes; never written before the verdict.
    Input,
    /// Where the result is put together: the caller's receive buffer, or staging memory if that is
    /// the input.
    Result,
    /// Where segments are that travel in another form than memory has, one after the other: first
    /// what this peer sends, then the result that comes back.
    Wire,
}

/// A run of bytes inside one part of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the part.
    pub part: u32,
    /// First byte inside the part.
    pub start: usize,
    /// Length in bytes; at most a segment.
    pub bytes: usize,
}

impl Span {
    /// The bytes inside the part.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes
    }
}

/// Sizes that decide how operations are cut and stored. All members use the same; tests use small
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Smallest cut of a chunk that large worlds and small chunks go down to; a power of two.
    pub bytes_min: usize,
    /// Largest segment; a power of two.
    pub bytes_max: usize,
    /// Scratch memory that every member has at least; four whole segments should fit.
    pub scratch_bytes: usize,
    /// Largest operation that goes eagerly, in bytes of its flat space.
    pub eager_bytes_max: usize,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        Self {
            bytes_min: limits::SEGMENT_BYTES_MIN,
            bytes_max: limits::SEGMENT_BYTES_MAX,
            scratch_bytes: limits::SCRATCH_BYTES_MIN,
            eager_bytes_max: limits::EAGER_BYTES_MAX,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    part: u32,
    chunk: u32,
    input: usize,
    result: usize,
    wire: usize,
    bytes: usize,
    /// Bytes of its chunk before it, in memory.
    offset: usize,
}

/// The chunks and segments of one operation.
#[derive(Clone, Debug)]
pub struct Layout {
    parts: Vec<Part>,
    /// By part: bytes on the wire of its segments so far.
    wire_ends: Vec<usize>,
    segments: Vec<Segment>,
    /// First segment of each chunk, and one past the last.
    chunk_starts: Vec<u32>,
    /// Bytes of each chunk on the wire.
    chunk_wire_bytes: Vec<usize>,
    /// Who owns each chunk; of no use in a one-shot.
    owners: Vec<Rank>,
    /// Chunk of each rank.
    chunk_of_rank: Vec<u32>,
    total_bytes: usize,
    slot_bytes: usize,
    is_eager: bool,
    is_one_shot: bool,
    encoding: Option<Encoding>,
}

impl Layout {
    /// Cuts an operation.
    ///
    /// # Panics
    /// If the ring order is no permutation, or the parts are more than memory can hold: the caller
    /// checks both.
    #[must_use]
    pub fn new(shape: &Shape<'_>, limits: &SegmentLimits) -> Self {
        let n = shape.world_size;
        assert!(n > 0, "an operation has at least one member");
        let shares = if shape.is_by_share() { n } else { 1 };
        let total_bytes = shape.parts.iter().map(Part::bytes).sum::<usize>() * shares;
        let encoding = match shape.kind {
            Kind::AllReduce | Kind::ReduceScatter => shape.encoding,
            _ => None,
        };
        let is_small = total_bytes <= limits.eager_bytes_max;
        let is_eager = is_small && encoding.is_none() && !shape.is_ring();
        let is_one_shot = shape.is_one_shot();
        let mut layout = Self {
            parts: shape.parts.to_vec(),
            wire_ends: vec![0; shape.parts.len()],
            segments: Vec::new(),
            chunk_starts: vec![0],
            chunk_wire_bytes: Vec::with_capacity(n),
            owners: shape.owners(),
            chunk_of_rank: vec![0; n],
            total_bytes,
            slot_bytes: slot_bytes(n, limits),
            is_eager,
            is_one_shot,
            encoding,
        };
        for (chunk, owner) in layout.owners.iter().enumerate() {
            layout.chunk_of_rank[owner.index()] = u32::try_from(chunk).expect("worlds are small");
        }
        let chunk_count = layout.owners.len();
        let piece_bytes = total_bytes / chunk_count / shape.segments_per_chunk;
        let mut segment_bytes = segment_bytes(piece_bytes, n, limits);
        if encoding.is_some() {
            // Blocks are encoded whole.
            segment_bytes = segment_bytes.max(BLOCK_BYTES_MAX);
            assert!(
                segment_bytes <= layout.slot_bytes,
                "slots hold whole segments"
            );
        }
        for chunk in 0..chunk_count {
            if shape.is_by_share() {
                layout.cut_share(shape.kind, chunk, segment_bytes);
            } else {
                let whole_to = shape.root.filter(|_| is_eager);
                layout.cut_flat(whole_to, chunk, segment_bytes);
            }
            layout.close_chunk();
        }
        layout
    }

    /// Number of segments.
    #[must_use]
    pub fn segment_count(&self) -> u32 {
        *self.chunk_starts.last().expect("it begins with a zero")
    }

    /// Number of members.
    #[must_use]
    pub fn world_size(&self) -> usize {
        self.chunk_of_rank.len()
    }

    /// Bytes of the flat space: of the larger of input and result.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Length of the largest segment in a world of this size: the same for all its operations.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Whether it is small enough to go on the signal lane.
    #[must_use]
    pub fn is_eager(&self) -> bool {
        self.is_eager
    }

    /// Whether every member adds up everything.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        self.is_one_shot
    }

    /// Element type of a segment.
    #[must_use]
    pub fn dtype(&self, segment: u32) -> Dtype {
        self.parts[self.segments[segment as usize].part as usize].dtype
    }

    /// Length of a segment in memory.
    #[must_use]
    pub fn bytes(&self, segment: u32) -> usize {
        self.segments[segment as usize].bytes
    }

    /// Length of a segment on the wire.
    #[must_use]
    pub fn wire_bytes(&self, segment: u32) -> usize {
        let dtype = self.dtype(segment);
        let count = self.bytes(segment) / dtype.bytes();
        wire_bytes(self.encoding, dtype, count)
    }

    /// How the segments travel.
    #[must_use]
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    /// Whether the bytes on the wire are those in memory.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.encoding.is_none()
    }

    /// Where a segment lies in one side of a member that has it there.
    #[must_use]
    pub fn span(&self, side: Side, segment: u32) -> Span {
        let place = &self.segments[segment as usize];
        let (start, bytes) = match side {
            Side::Input => (place.input, place.bytes),
            Side::Result => (place.result, place.bytes),
            Side::Wire => (place.wire, self.wire_bytes(segment)),
        };
        let part = place.part;
        Span { part, start, bytes }
    }

    /// Index of a segment's first element in its part of the result: that of a block.
    #[must_use]
    pub fn first_index(&self, segment: u32) -> u64 {
        let span = self.span(Side::Result, segment);
        (span.start / self.dtype(segment).bytes()) as u64
    }

    /// Where a segment lies as it travels, if its elements are on this side.
    #[must_use]
    pub fn on_wire(&self, side: Side, segment: u32) -> (Side, Span) {
        let side = if self.is_raw() { side } else { Side::Wire };
        (side, self.span(side, segment))
    }

    /// Bytes of its chunk before a segment, in memory.
    #[must_use]
    pub fn offset_in_chunk(&self, segment: u32) -> usize {
        self.segments[segment as usize].offset
    }

    /// Index of the chunk that a segment belongs to.
    #[must_use]
    pub fn chunk(&self, segment: u32) -> usize {
        self.segments[segment as usize].chunk as usize
    }

    /// Who owns a segment, where one member does.
    #[must_use]
    pub fn owner(&self, segment: u32) -> Rank {
        self.owners[self.chunk(segment)]
    }

    /// The segments of a chunk.
    #[must_use]
    pub fn chunk_segments(&self, chunk: usize) -> Range<u32> {
        self.chunk_starts[chunk]..self.chunk_starts[chunk + 1]
    }

    /// Bytes of a chunk on the wire.
    #[must_use]
    pub fn chunk_wire_bytes(&self, chunk: usize) -> usize {
        self.chunk_wire_bytes[chunk]
    }

    /// Bytes of all chunks on the wire.
    #[must_use]
    pub fn total_wire_bytes(&self) -> usize {
        self.chunk_wire_bytes.iter().sum()
    }

    /// The segments that a rank owns.
    #[must_use]
    pub fn owned(&self, rank: Rank) -> Range<u32> {
        self.chunk_segments(self.chunk_of_rank[rank.index()] as usize)
    }

    /// Bytes that a rank owns, on the wire.
    #[must_use]
    pub fn owned_wire_bytes(&self, rank: Rank) -> usize {
        self.chunk_wire_bytes[self.chunk_of_rank[rank.index()] as usize]
    }

    /// Bytes of a run of segments in memory.
    #[must_use]
    pub fn run_bytes(&self, segments: Range<u32>) -> usize {
        segments.map(|segment| self.bytes(segment)).sum()
    }

    /// Share of one rank, as its segments: the same place in each part.
    fn cut_share(&mut self, kind: Kind, chunk: usize, segment_bytes: usize) {
        for part in 0..self.parts.len() {
            let share = self.parts[part].bytes();
            let base = chunk * share;
            let mut at = 0;
            while at < share {
                let bytes = segment_bytes.min(share - at);
                let (input, result) = match kind {
                    Kind::ReduceScatter => (base + at, at),
                    _ => (at, base + at),
                };
                self.push(part, [input, result], bytes);
                at += bytes;
            }
        }
    }

    /// The chunk of the flat space, or all of it for the one owner that takes everything.
    fn cut_flat(&mut self, whole_to: Option<Rank>, chunk: usize, segment_bytes: usize) {
        let (first, last) = match whole_to {
            None => (self.boundary(chunk), self.boundary(chunk + 1)),
            Some(owner) if owner.index() == chunk => (0, self.total_bytes),
            Some(_) => return,
        };
        let mut base = 0;
        for part in 0..self.parts.len() {
            let end = base + self.parts[part].bytes();
            let mut at = first.max(base);
            while at < last.min(end) {
                let bytes = segment_bytes.min(last.min(end) - at);
                self.push(part, [at - base; 2], bytes);
                at += bytes;
            }
            base = end;
        }
    }

    /// First byte of a chunk in the flat space.
    fn boundary(&self, chunk: usize) -> usize {
        let n = self.owners.len();
        if chunk == n {
            return self.total_bytes;
        }
        let ideal = (self.total_bytes as u128 * chunk as u128 / n as u128) as usize;
        let mut base = 0;
        for part in &self.parts {
            let bytes = part.bytes();
            if ideal < base + bytes {
                let alignment_bytes = match self.encoding {
                    None => CHUNK_ALIGNMENT_BYTES,
                    Some(_) => BLOCK_ELEMENTS * part.dtype.bytes(),
                };
                return base + (ideal - base) / alignment_bytes * alignment_bytes;
            }
            base += bytes;
        }
        base
    }

    fn push(&mut self, part: usize, [input, result]: [usize; 2], bytes: usize) {
        let is_first = self.segments.len() == self.segment_count() as usize;
        let offset = match self.segments.last() {
            Some(before) if !is_first => before.offset + before.bytes,
            _ => 0,
        };
        self.segments.push(Segment {
            offset,
            part: u32::try_from(part).expect("parts are bounded by PARTS_MAX"),
            chunk: u32::try_from(self.chunk_wire_bytes.len()).expect("worlds are small"),
            input,
            result,
            wire: self.wire_ends[part],
            bytes,
        });
        let dtype = self.parts[part].dtype;
        self.wire_ends[part] += wire_bytes(self.encoding, dtype, bytes / dtype.bytes());
    }

    fn close_chunk(&mut self) {
        let start = self.segment_count();
        let end = u32::try_from(self.segments.len()).expect("segments of 64 KiB fit 2^32");
        let wire_bytes = (start..end).map(|segment| self.wire_bytes(segment)).sum();
        self.chunk_wire_bytes.push(wire_bytes);
        self.chunk_starts.push(end);
    }
}

/// At least a piece of a chunk, whose segments overlap on their way; within the limits.
fn segment_bytes(piece_bytes: usize, n: usize, limits: &SegmentLimits) -> usize {
    let bytes = piece_bytes.max(1).next_power_of_two();
    bytes.clamp(limits.bytes_min, slot_bytes(n, limits))
}

/// Largest segment such that four whole ones, of `n - 1` contributions each, fit the scratch memory
/// if the limits allow it.
fn slot_bytes(n: usize, limits: &SegmentLimits) -> usize {
    let room = (limits.scratch_bytes / 4 / (n - 1).max(1)).max(1);
    let room = 1 << room.ilog2();
    usize::clamp(room, limits.bytes_min, limits.bytes_max)
}

/// Longest block of an encoding, in memory: of f64.
const BLOCK_BYTES_MAX: usize = BLOCK_ELEMENTS * size_of::<f64>();
const _: () = assert!(BLOCK_BYTES_MAX <= limits::SEGMENT_BYTES_MIN);

/// Chunks of what is not encoded begin at multiples of this inside their part: a cache line, and a
/// multiple of every element's length.
const CHUNK_ALIGNMENT_BYTES: usize = 64;

/// Shared form of [`Layout`].
pub type SharedLayout = Arc<Layout>;

#[cfg(test)]
mod tests;
