//! All open operations of one peer: who has posted, who may send what, what has arrived where.
//!
//! Pure: no memory, no socket, no clock. Inputs are `start`, `stop`, and the methods for arrived
//! frames and finished work; what to send, add or copy comes out of `poll_output`. The engine
//! carries it out on real memory, the simulator on small buffers.
//!
//! Rules kept here (docs/protocol.md R1, R12, R13): a frame counts only if its operation is open
//! under the same birth and its sender is a member; a post goes to every other member and is
//! compared with every other; an operation is held only after all of them agreed; a bulk frame is
//! sent only where its bytes have a reserved place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::ahead::Came;
use super::direct::Grant;
use super::kept::{KeptPosts, order};
use super::layout::SegmentLimits;
use super::operation::{ArrivedPost, Shared};
use super::reserve::{Ahead, Reserve, Room};
use super::schedule::{Given, Operation, decode_post};
use super::slots::SlotPool;
use crate::ids::{OpName, PeerId, Rank, Tag, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::Start;

pub use super::step::{Body, Coding, CopyOwn, Operand, Output, Place, Reduction, Storage};

/// Sizes of one peer's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// How operations are cut; the same for all members.
    pub segments: SegmentLimits,
    /// This peer's own scratch memory, at least `segments.scratch_bytes`.
    pub scratch_bytes: usize,
    /// Memory behind it for what comes ahead of credits.
    pub reserve_bytes: usize,
    /// Own eager operations that may be unfinished at once.
    pub eager_ops_max: usize,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self {
            segments: SegmentLimits::default(),
            scratch_bytes: limits::SCRATCH_BYTES_DEFAULT,
            reserve_bytes: limits::RESERVE_POOL_BYTES,
            eager_ops_max: limits::EAGER_OPS_MAX,
        }
    }
}

/// The open operations of one peer.
#[derive(Debug)]
pub struct Exchange {
    limits: ExchangeLimits,
    /// At most one a tag (R1).
    operations: BTreeMap<Tag, Operation>,
    /// The newest operation of each tag that was stopped, while late posts of it may still count.
    stopped: BTreeMap<Tag, OpName>,
    kept: KeptPosts,
    /// The newest view, and the operations born before it that go on.
    view: Vid,
    carried: BTreeSet<OpName>,
    /// Operations that need slots, in the order in which they get some.
    waiting: VecDeque<Tag>,
    eager_ops: usize,
    /// Most bytes that open operations have sent ahead to any one member.
    ahead_bytes: usize,
    shared: Shared,
}

impl Exchange {
    /// An exchange without open operations.
    #[must_use]
    pub fn new(limits: ExchangeLimits) -> Self {
        Self {
            operations: BTreeMap::new(),
            stopped: BTreeMap::new(),
            kept: KeptPosts::new(limits.eager_ops_max),
            view: Vid::default(),
            carried: BTreeSet::new(),
            waiting: VecDeque::new(),
            eager_ops: 0,
            ahead_bytes: 0,
            shared: Shared {
                outputs: VecDeque::new(),
                slots: SlotPool::new(limits.scratch_bytes),
                reserve: Reserve::new(limits.scratch_bytes, limits.reserve_bytes),
                spare: Vec::new(),
            },
            limits,
        }
    }

    /// Opens an operation: posts it to every other member.
    ///
    /// # Panics
    /// If another operation of its tag is open: the caller lets none start before.
    pub fn start(&mut self, start: Start, given: Given<'_>) {
        let tag = start.birth.op.tag;
        let mut operation = Operation::new(start, given, &self.limits.segments);
        let common = &mut operation.common;
        if common.layout.is_eager()
            && common.layout.total_bytes() > 0
            && self.eager_ops < self.limits.eager_ops_max
        {
            common.is_eager_sender = true;
            self.eager_ops += 1;
        }
        self.ahead_bytes += operation.plan_ahead(self.ahead_bytes);
        operation.post(&mut self.shared);
        let name = operation.common.name;
        self.abandon(|_, op| op.tag != tag || order(op) >= order(name));
        for (peer, post) in self.kept.take(operation.common.name) {
            // A fault in a kept post is its sender's: the operation then never begins, and the
            // caller's deadline or the other members' reports end it.
            let _ = operation.take_post(peer, post, &mut self.shared);
        }
        let previous = self.operations.insert(tag, operation);
        assert!(previous.is_none(), "one operation a tag is open at once");
        self.advance(tag);
    }

    /// Ends an operation, whatever became of it; its scratch memory is given to others. The caller
    /// has made sure that nobody writes to it any more.
    pub fn stop(&mut self, op: OpName) {
        let is_open = self
            .operations
            .get(&op.tag)
            .is_some_and(|operation| operation.common.name == op);
        if !is_open {
            return;
        }
        let operation = self.operations.remove(&op.tag);
        let mut operation = operation.expect("it was found a moment ago");
        if operation.common.is_eager_sender {
            self.eager_ops -= 1;
        }
        self.ahead_bytes -= operation.ahead_bytes();
        self.shared.reserve.free_all(op);
        operation.stop(&mut self.shared.slots);
        self.stopped.insert(op.tag, op);
        self.waiting.retain(|&tag| tag != op.tag);
        self.grant();
    }

    /// A signal frame arrived.
    ///
    /// # Errors
    /// A fault of the protocol by `from`.
    pub fn handle_signal(
        &mut self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        if payload.len() != header.payload_bytes as usize {
            return Err("a payload that does not have the announced length");
        }
        if let Frame::Post {
            ahead,
            fingerprint_bytes,
        } = header.frame
        {
            let post = decode_post(ahead, fingerprint_bytes, &payload)?;
            return self.handle_post(from, header.op, post);
        }
        let Some((operation, rank)) = find(&mut self.operations, header.op, from) else {
            return Ok(());
        };
        operation.handle_signal(rank, header.frame, payload, &mut self.shared)?;
        self.advance(header.op.tag);
        Ok(())
    }

    /// The header of a bulk frame arrived; again for the same frame after a repair.
    pub fn place(&mut self, from: PeerId, header: &FrameHeader) -> Place {
        if let Frame::Ahead {
            segment,
            batch_bytes,
        } = header.frame
        {
            let ahead = Ahead {
                segment,
                bytes: header.payload_bytes as usize,
                batch_bytes: batch_bytes as usize,
            };
            return self.place_ahead(from, header.op, ahead);
        }
        let Some((operation, rank)) = find(&mut self.operations, header.op, from) else {
            return Place::Discard;
        };
        operation.place(rank, header, &mut self.shared.slots)
    }

    /// The payload of a bulk frame is in its place.
    pub fn handle_arrived(&mut self, from: PeerId, header: &FrameHeader) {
        if let Frame::Ahead { segment, .. } = header.frame {
            self.take_ahead(from, header.op, segment);
            return;
        }
        let Some((operation, rank)) = find(&mut self.operations, header.op, from) else {
            return;
        };
        operation.handle_arrived(rank, header.frame, &mut self.shared);
    }

    /// An addition was carried out.
    pub fn reduced(&mut self, reduction: Reduction) {
        let mut has_freed = false;
        if let Some(operation) = open(&mut self.operations, reduction.op) {
            has_freed = operation.handle_reduced(reduction.segment, &mut self.shared);
        }
        if self.shared.spare.len() < SPARE_LISTS_MAX {
            let mut operands = reduction.operands;
            operands.clear();
            self.shared.spare.push(operands);
        }
        if has_freed {
            self.grant();
        }
    }

    /// The bytes of a signal frame are in the result.
    pub fn stored(&mut self, storage: Storage) {
        self.finished(storage.op, storage.body.count());
    }

    /// The wire form of a segment is made.
    pub fn encoded(&mut self, coding: Coding) {
        if let Some(operation) = open(&mut self.operations, coding.op) {
            operation.handle_encoded(coding.segment, &mut self.shared);
        }
    }

    /// The elements of a finished segment are in the result.
    pub fn decoded(&mut self, coding: Coding) {
        self.finished(coding.op, 1);
    }

    /// Own input is in the result.
    pub fn copied(&mut self, copy: CopyOwn) {
        self.finished(copy.op, copy.body.count());
    }

    /// What peers posted ahead that are no neighbours any more is forgotten.
    pub fn retain_peers(&mut self, is_neighbour: impl Fn(PeerId) -> bool) {
        self.kept.retain_peers(&is_neighbour);
        self.abandon(|peer, _| is_neighbour(peer));
    }

    /// A view is in force: of the operations born before, these go on. The others are decided, and
    /// what was or will be posted for them is of no use.
    pub fn forget(&mut self, before: Vid, carried: impl IntoIterator<Item = OpName>) {
        self.view = before;
        self.carried = carried.into_iter().collect();
        self.stopped.retain(|_, op| op.birth >= before);
        let (view, carried) = (self.view, &self.carried);
        self.kept
            .retain(|op| op.birth >= view || carried.contains(&op));
        let carried = self.carried.clone();
        self.abandon(|_, op| op.birth >= view || carried.contains(&op));
    }

    /// What `peer` posted ahead is forgotten: it is no neighbour any more.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.kept.forget_peer(peer);
        self.abandon(|other, _| other != peer);
    }

    /// Nobody writes any more to what `from` sent ahead for this operation.
    pub fn abandoned(&mut self, from: PeerId, op: OpName) {
        self.shared.reserve.abandoned(from, op);
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// Payload bytes sent and received so far, and those of the whole operation; `None` if it is
    /// not open.
    #[must_use]
    pub fn progress(&self, op: OpName) -> Option<(u64, u64)> {
        let common = &self.operations.get(&op.tag)?.common;
        let moved = common.moved_bytes.min(common.total_bytes);
        (common.name == op).then_some((moved, common.total_bytes))
    }

    /// By how much each member's contribution counts, if it has weights and is open.
    #[must_use]
    pub fn weights(&self, op: OpName) -> Option<BTreeMap<PeerId, u32>> {
        let common = &self.operations.get(&op.tag)?.common;
        let weights = common.weights.iter().copied();
        let by_peer = common.members.iter().copied().zip(weights);
        (common.name == op && common.fingerprint.is_weighted).then(|| by_peer.collect())
    }

    /// Whether no operation holds scratch memory.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.slots.reserved() == 0 && self.shared.reserve.taken_bytes() == 0
    }

    fn place_ahead(&mut self, from: PeerId, op: OpName, ahead: Ahead) -> Place {
        if let Some((operation, rank)) = find(&mut self.operations, op, from) {
            return operation.place_ahead(rank, ahead, &mut self.shared.reserve);
        }
        if self.is_past(op) || self.shared.reserve.is_past(from, op) {
            return Place::Discard;
        }
        let open = self.open_op(op.tag);
        let abandoned = self.shared.reserve.abandon_before(from, op, open);
        self.tell_abandoned(abandoned);
        room(self.shared.reserve.place(from, op, ahead), ahead.bytes)
    }

    /// A segment that was sent ahead is in the reserve.
    fn take_ahead(&mut self, from: PeerId, op: OpName, segment: u32) {
        let Some(start) = self.shared.reserve.take_arrival(from, op, segment) else {
            return;
        };
        if let Some((operation, from)) = find(&mut self.operations, op, from) {
            let came = Came {
                from,
                segment,
                start,
            };
            operation.take_ahead(came, &mut self.shared);
        }
    }

    /// Gives up what came ahead for operations that are not open and of no use.
    fn abandon(&mut self, is_of_use: impl Fn(PeerId, OpName) -> bool) {
        let operations = &self.operations;
        let is_open = |op: OpName| {
            let open = operations.get(&op.tag);
            open.is_some_and(|operation| operation.common.name == op)
        };
        let abandoned = self
            .shared
            .reserve
            .abandon(|peer, op| is_of_use(peer, op) || is_open(op));
        self.tell_abandoned(abandoned);
    }

    fn tell_abandoned(&mut self, abandoned: Vec<(PeerId, OpName)>) {
        let told = abandoned
            .into_iter()
            .map(|(from, op)| Output::Abandon { from, op });
        self.shared.outputs.extend(told);
    }

    fn handle_post(
        &mut self,
        from: PeerId,
        op: OpName,
        post: ArrivedPost,
    ) -> Result<(), &'static str> {
        if let Some((operation, _)) = find(&mut self.operations, op, from) {
            operation.take_post(from, post, &mut self.shared)?;
            self.advance(op.tag);
            return Ok(());
        }
        if self.is_past(op) {
            return Ok(());
        }
        self.kept.keep(from, op, post)
    }

    fn open_op(&self, tag: Tag) -> Option<OpName> {
        let operation = self.operations.get(&tag)?;
        Some(operation.common.name)
    }

    /// Whether an operation that is not open here never will be.
    fn is_past(&self, op: OpName) -> bool {
        let open = self.open_op(op.tag);
        let stopped = self.stopped.get(&op.tag).copied();
        let newest = open.map(order).max(stopped.map(order));
        newest.is_some_and(|newest| order(op) <= newest) || self.is_over(op)
    }

    /// Whether an operation that is not open here was decided before the present view.
    fn is_over(&self, op: OpName) -> bool {
        op.birth < self.view && !self.carried.contains(&op)
    }

    fn finished(&mut self, op: OpName, count: u32) {
        if let Some(operation) = open(&mut self.operations, op) {
            operation.common.finish(count);
            operation.common.check_held(&mut self.shared);
        }
    }

    /// Lets data flow once all members have posted, and says when the result is whole.
    fn advance(&mut self, tag: Tag) {
        let Some(operation) = self.operations.get_mut(&tag) else {
            return;
        };
        if operation.begin_if_agreed(&mut self.shared) {
            self.waiting.push_back(tag);
        }
        operation.common.check_held(&mut self.shared);
        self.grant();
    }

    /// Gives slots to the operations that wait for some, in turn. Nobody passes the first in line:
    /// it gets what comes free, so none starves however many slots it needs at once.
    fn grant(&mut self) {
        while let Some(&tag) = self.waiting.front() {
            let operation = self
                .operations
                .get_mut(&tag)
                .expect("a stopped operation does not wait");
            match operation.grant(&mut self.shared) {
                Grant::Blocked => return,
                Grant::More => self.waiting.rotate_left(1),
                Grant::Complete => drop(self.waiting.pop_front()),
            }
        }
    }
}

/// The open operation that a frame is about, and the rank of its sender in it.
fn find(
    operations: &mut BTreeMap<Tag, Operation>,
    op: OpName,
    from: PeerId,
) -> Option<(&mut Operation, Rank)> {
    let operation = operations.get_mut(&op.tag)?;
    if operation.common.name != op && !is_active(Mutation::NoBirthCheck) {
        return None;
    }
    let rank = operation.common.rank_of(from)?;
    (rank != operation.common.rank).then_some((operation, rank))
}

fn open(operations: &mut BTreeMap<Tag, Operation>, op: OpName) -> Option<&mut Operation> {
    let operation = operations.get_mut(&op.tag)?;
    (operation.common.name == op).then_some(operation)
}

/// Where a segment goes that came ahead.
pub(super) fn room(room: Room, bytes: usize) -> Place {
    match room {
        Room::At(start) => Place::Reserve { start, bytes },
        Room::Lost => Place::Discard,
        Room::Wrong(why) => Place::Refuse(why),
    }
}

/// Whether results are put together outside the caller's memory: in place they must be, for the
/// input is what a retry or a resend reads (P2, R14).
#[must_use]
pub fn is_staged(is_in_place: bool) -> bool {
    is_in_place && !is_active(Mutation::ResendFromOverwritten)
}

/// Lists of operands kept for the next additions.
const SPARE_LISTS_MAX: usize = 256;
