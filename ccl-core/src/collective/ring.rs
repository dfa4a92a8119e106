//! The ring schedule of an all-reduce: partial sums travel around once, then the finished chunks.
//!
//! Position `p` of the ring order owns chunk `p`. The sum of chunk `c` begins with the input of
//! position `c + 1` and travels on to position `c`; each position adds its own input to what comes:
//! `((x[c+1] + x[c+2]) + …) + x[c]`, positions modulo `n`, elements rounded to their type at each
//! hop, an average divided by the owner at the end. Then the finished chunk travels from the owner
//! around to the position before it. Each segment travels by itself, so all hops are busy at once.
//!
//! A partial sum is received into the result's memory, and the local input is added there: no
//! scratch memory, hence no credits; it is enough that all have posted. The finished segment may
//! overwrite it later, since it can only arrive after the next member has received the partial sum,
//! which is then never sent again. Encoded contributions never go around: each hop would round
//! again.

use super::layout::Side;
use super::operation::{Bulk, Combine, Common, Shared};
use super::segment_set::SegmentSet;
use super::step::{Operand, Place};
use crate::ids::Rank;
use crate::reduce::ReduceOp;
use crate::transport::Frame;

/// The ring schedule of one operation at one peer.
#[derive(Debug)]
pub(super) struct Ring {
    position: usize,
    next: Rank,
    previous: Rank,
    has_begun: bool,
    /// Segments whose partial sum came.
    arrived: SegmentSet,
    /// Segments to which this peer has added its input.
    added: SegmentSet,
    /// Segments to pass on once all members have posted.
    held_back: Vec<Bulk>,
}

impl Ring {
    pub(super) fn new(common: &Common, ring_order: &[Rank]) -> Self {
        let n = ring_order.len();
        let position = ring_order
            .iter()
            .position(|&rank| rank == common.rank)
            .expect("the ring order names every member");
        let count = common.layout.segment_count();
        Self {
            position,
            next: ring_order[(position + 1) % n],
            previous: ring_order[(position + n - 1) % n],
            has_begun: false,
            arrived: SegmentSet::new(count),
            added: SegmentSet::new(count),
            held_back: Vec::new(),
        }
    }

    /// All members have posted the same.
    pub(super) fn begin(&mut self, common: &mut Common, shared: &mut Shared) {
        self.has_begun = true;
        let n = common.world_size();
        for segment in common.layout.chunk_segments((self.position + n - 1) % n) {
            self.added.insert(segment);
            self.send_sum(common, segment, shared);
        }
        for bulk in std::mem::take(&mut self.held_back) {
            self.pass_on(common, bulk, shared);
        }
    }

    /// Where a bulk frame of a member goes; its segment exists and its length is right.
    pub(super) fn place(&self, common: &Common, from: Rank, frame: Frame) -> Place {
        if from != self.previous {
            return Place::Refuse("a segment from a member that is not the previous one");
        }
        let (segment, hop, is_result) = match frame {
            Frame::Contribution { segment, hop } => (segment, hop, false),
            Frame::Result { segment, hop } => (segment, hop, true),
            _ => return Place::Refuse("not a bulk frame"),
        };
        let (hops, is_here) = if is_result {
            (self.hops_since_owner(common, segment), common.has(segment))
        } else {
            let is_here = self.arrived.contains(segment);
            (self.hops_since_start(common, segment), is_here)
        };
        if hops == 0 || hop != hops - 1 {
            return Place::Refuse("a segment out of order around the ring");
        }
        if is_result && !self.added.contains(segment) {
            return Place::Refuse("a result before its contributions");
        }
        if is_here {
            return Place::Discard;
        }
        let side = Side::Result;
        let span = common.layout.span(side, segment);
        Place::Memory { side, span }
    }

    /// A bulk frame that was placed is in its place.
    pub(super) fn handle_arrived(
        &mut self,
        common: &mut Common,
        frame: Frame,
        shared: &mut Shared,
    ) {
        let segment = frame.first();
        if matches!(frame, Frame::Contribution { .. }) {
            if self.arrived.insert(segment) {
                common.moved_bytes += common.layout.wire_bytes(segment) as u64;
                self.add(common, segment, shared);
            }
            return;
        }
        if !common.claim(segment) {
            return;
        }
        common.moved_bytes += common.layout.bytes(segment) as u64;
        common.finish(1);
        let hops = self.hops_since_owner(common, segment);
        if hops + 1 < common.members.world_size() {
            self.pass_on(common, result(segment, hops), shared);
        }
    }

    /// The own input was added to a segment.
    pub(super) fn handle_reduced(
        &mut self,
        common: &mut Common,
        segment: u32,
        shared: &mut Shared,
    ) {
        let is_new = self.added.insert(segment);
        assert!(is_new, "a segment is added to once");
        self.send_sum(common, segment, shared);
    }

    /// Sends the sum up to this position on, or the finished segment.
    fn send_sum(&mut self, common: &mut Common, segment: u32, shared: &mut Shared) {
        let hops = self.hops_since_start(common, segment);
        if hops + 1 < common.members.world_size() {
            let side = if hops == 0 { Side::Input } else { Side::Result };
            self.pass_on(common, contribution(segment, side, hops), shared);
            return;
        }
        common.claim(segment);
        common.finish(1);
        self.pass_on(common, result(segment, 0), shared);
    }

    fn add(&self, common: &Common, segment: u32, shared: &mut Shared) {
        let mut operands = shared.spare.pop().unwrap_or_default();
        operands.push(Operand::Target);
        operands.push(Operand::Own(common.own(segment)));
        let n = common.members.world_size();
        let is_last = self.hops_since_start(common, segment) + 1 == n;
        let (reduce_op, divisor) = match common.reduce_op() {
            ReduceOp::Avg if !is_last => (ReduceOp::Sum, 1),
            reduce_op => (reduce_op, n),
        };
        let rule = Combine { reduce_op, divisor };
        common.reduce(segment, rule, operands, shared);
    }

    fn pass_on(&mut self, common: &mut Common, bulk: Bulk, shared: &mut Shared) {
        if self.has_begun {
            common.send_bulk(self.next, bulk, shared);
        } else {
            self.held_back.push(bulk);
        }
    }

    /// Hops from the position that begins a segment's sum to this one.
    fn hops_since_start(&self, common: &Common, segment: u32) -> u32 {
        let n = common.world_size();
        ((self.position + n - 1 - common.layout.chunk(segment)) % n) as u32
    }

    /// Hops from the position that owns a segment to this one.
    fn hops_since_owner(&self, common: &Common, segment: u32) -> u32 {
        let n = common.world_size();
        ((self.position + n - common.layout.chunk(segment)) % n) as u32
    }
}

fn contribution(segment: u32, side: Side, hop: u32) -> Bulk {
    Bulk {
        frame: Frame::Contribution { segment, hop },
        side,
    }
}

fn result(segment: u32, hop: u32) -> Bulk {
    Bulk {
        frame: Frame::Result { segment, hop },
        side: Side::Result,
    }
}
