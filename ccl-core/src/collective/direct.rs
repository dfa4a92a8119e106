//! The direct schedules: each chunk goes straight to its owner, who sends the finished one to all.
//!
//! | kind | contributes to a chunk | the owner | receives the result |
//! |---|---|---|---|
//! | all-reduce, two-shot | all | adds in rank order | all |
//! | all-reduce, one-shot | all | everybody owns everything, and adds in rank order | the owner |
//! | reduce-scatter | all | adds in rank order | the owner |
//! | all-gather | the owner | – | all |
//! | broadcast | the root | passes on | all |
//!
//! An owner grants credits for contributions once all members have posted: a few segments at a
//! time, and only with a slot reserved for each contribution of a segment (docs/protocol.md R13).
//! So every granted contribution arrives whatever the applications do, every segment with slots is
//! finished, and its slots are free for the next: concurrent operations cannot deadlock each other.
//! Contributions of a broadcast and all results need no credit: their destination exists since its
//! peer has posted. Small operations put their data on the posts and send results on the signal
//! lane.

use std::ops::Range;

use bytes::Bytes;

use super::ahead::Announced;
use super::contributions::{Contribution, Contributions, Fitting};
use super::layout::Side;
use super::operation::{ArrivedPost, Bulk, Combine, Common, Post, Shared, Signal};
use super::segment_set::SegmentSet;
use super::slots::SlotPool;
use super::step::{Body, Place};
use super::traffic;
use crate::ids::Rank;
use crate::transport::Frame;
use crate::wire::control::Kind;

/// What came of an attempt to let contributions in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Not enough slots; it needs them next.
    Blocked,
    /// Some; it will need more.
    More,
    /// It was the last one.
    Complete,
}

/// The direct schedule of one operation at one peer.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) owned: Range<u32>,
    pub(super) has_begun: bool,
    /// Segments whose contribution an owner has asked for: by rank where each owns all segments.
    credited: Vec<SegmentSet>,
    /// Members that asked for eager data again because they could not keep it.
    has_asked_again: Vec<bool>,
    pub(super) contributions: Contributions,
    /// By rank: segments of its contribution that come ahead of a credit.
    pub(super) announced: Vec<u32>,
    /// Owned segments that were let in; always the first ones.
    granted: u32,
    /// Owned segments that are added up.
    reduced: u32,
}

impl Direct {
    pub(super) fn new(common: &Common) -> Self {
        let owned = common.layout.owned(common.rank);
        let segments = SegmentSet::new(common.layout.segment_count());
        Self {
            has_begun: false,
            credited: match common.layout.is_one_shot() {
                true => vec![segments; common.world_size()],
                false => vec![segments],
            },
            has_asked_again: vec![false; common.world_size()],
            contributions: Contributions::new(common),
            announced: vec![0; common.world_size()],
            granted: 0,
            reduced: 0,
            owned,
        }
    }

    /// What goes with the post to `to`, if this operation goes eagerly.
    pub(super) fn post_body(&self, common: &Common, to: Rank) -> Option<Body> {
        let segments = if common.is_reduction() {
            match common.contributes(common.rank) {
                true => common.layout.owned(to),
                false => 0..0,
            }
        } else {
            self.originated(common)
        };
        (!segments.is_empty()).then(|| common.body(Side::Input, segments))
    }

    /// Copies what this peer contributes to its own result.
    pub(super) fn start(&mut self, common: &mut Common, shared: &mut Shared) {
        let is_alone = common.world_size() == 1;
        if is_alone && common.is_reduction() && !common.is_own_input() {
            for segment in self.owned.clone() {
                self.reduce(common, segment, shared);
            }
            return;
        }
        let own = if is_alone || common.fingerprint.kind() == Kind::Broadcast {
            let is_source = common.is_reduction() || common.origin_is(common.rank);
            is_source.then(|| 0..common.layout.segment_count())
        } else {
            (!common.is_reduction()).then(|| self.owned.clone())
        };
        if let Some(segments) = own {
            common.copy_own(segments, shared);
        }
    }

    /// Takes what came with a member's post.
    pub(super) fn take_body(
        &mut self,
        common: &mut Common,
        from: Rank,
        post: ArrivedPost,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        if common.is_reduction() {
            let announced = Announced {
                from,
                count: post.ahead,
            };
            let is_data = post.ahead > 0 || !post.body.is_empty();
            if is_data && !common.contributes(from) {
                return Err("data of a member that contributes nothing");
            }
            self.take_announced(common, announced, shared)?;
            return take_contribution(common, from, post.body);
        }
        if post.ahead > 0 {
            return Err("data ahead of an operation that combines nothing");
        }
        let segments = common.layout.owned(from);
        if post.is_body_lost {
            credit(common, from, segments, shared);
            return Ok(());
        }
        if post.body.is_empty() {
            return Ok(());
        }
        if !common.origin_is(from) {
            return Err("data from a member that has none to send");
        }
        common.store(segments, post.body, shared)
    }

    /// All members have posted the same; true if it needs slots.
    pub(super) fn begin(&mut self, common: &mut Common, shared: &mut Shared) -> bool {
        self.has_begun = true;
        if common.is_reduction() {
            return self.begin_reduction(common, shared);
        }
        if !common.is_eager_sender {
            let segments = self.originated(common);
            for to in common.others() {
                common.send_results(to, Side::Input, segments.clone(), shared);
            }
        }
        let root = common.fingerprint.called.root();
        if let Some(root) = root.filter(|root| *root != common.rank)
            && !self.owned.is_empty()
        {
            credit(common, root, self.owned.clone(), shared);
        }
        false
    }

    fn begin_reduction(&mut self, common: &mut Common, shared: &mut Shared) -> bool {
        common.total_bytes = traffic::of_direct(common);
        if self.owned.is_empty() || common.world_size() == 1 {
            return false;
        }
        self.contributions.begin(common, &shared.reserve);
        for segment in self.owned.clone() {
            if self.contributions.is_complete(segment) {
                self.reduce(common, segment, shared);
            }
        }
        let needs_slots = |segment: &u32| self.contributions.needed(*segment) > 0;
        let first = self.owned.clone().find(needs_slots);
        self.granted = first.unwrap_or(self.owned.end) - self.owned.start;
        first.is_some()
    }

    /// Lets in the contributions to up to `quantum` more segments. Fewer than that only if it has
    /// none under way, so that credits travel in batches.
    pub(super) fn grant(
        &mut self,
        common: &mut Common,
        quantum: u32,
        shared: &mut Shared,
    ) -> Grant {
        let first = self.owned.start + self.granted;
        let wanted = quantum.min(self.owned.end - first);
        let slot_bytes = common.layout.slot_bytes();
        let room = shared.slots.room(slot_bytes);
        let Fitting { count, slots } = self.contributions.fitting(first..first + wanted, room);
        let is_idle = self.granted == self.reduced;
        if count == 0 || (count < wanted && !is_idle) {
            return Grant::Blocked;
        }
        shared.slots.reserve(slots, slot_bytes);
        for segment in first..first + count {
            self.contributions.let_in(segment);
        }
        self.granted += count;
        for &from in self.contributions.senders() {
            let segments = self.contributions.wanted(first..first + count, from);
            if !segments.is_empty() {
                credit(common, from, segments, shared);
            }
        }
        if first + count == self.owned.end {
            return Grant::Complete;
        }
        Grant::More
    }

    /// An owner lets this peer's contribution in, or a receiver of eager data wants it again.
    pub(super) fn handle_credit(
        &mut self,
        common: &mut Common,
        from: Rank,
        segments: Range<u32>,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        if segments.is_empty() || segments.end > common.layout.segment_count() {
            return Err("a credit for segments that do not exist");
        }
        if !common.is_reduction() && segments == self.originated(common) {
            if !common.is_eager_sender || self.has_asked_again[from.index()] {
                return Err("a credit for data that was already sent");
            }
            self.has_asked_again[from.index()] = true;
            common.send_results(from, Side::Input, segments, shared);
            return Ok(());
        }
        let chunk = common.layout.owned(from);
        if segments.start < chunk.start || segments.end > chunk.end {
            return Err("a credit for another member's chunk");
        }
        if !common.is_reduction() && common.origin(segments.start) != common.rank {
            return Err("a credit to a member that has nothing to send");
        }
        let is_shared = common.layout.is_one_shot();
        let credited = &mut self.credited[if is_shared { from.index() } else { 0 }];
        for segment in segments {
            if !credited.insert(segment) {
                return Err("a credit granted twice");
            }
            common.send_input(from, Frame::Contribution { segment, hop: 0 }, shared);
        }
        Ok(())
    }

    /// Where a bulk frame of a member goes; its segment exists and its length is right.
    pub(super) fn place(
        &mut self,
        common: &Common,
        from: Rank,
        frame: Frame,
        slots: &mut SlotPool,
    ) -> Place {
        let segment = match frame {
            Frame::Contribution { segment, .. } => segment,
            frame => return place_result(common, from, frame.first()),
        };
        if !self.owned.contains(&segment) {
            return Place::Refuse("a contribution to another member's chunk");
        }
        if !common.is_reduction() {
            if !self.has_begun || common.origin(segment) != from {
                return Place::Refuse("a contribution without a credit");
            }
            return place_in_result(common, segment);
        }
        match self.contributions.place(segment, from, slots) {
            Contribution::Absent | Contribution::Reserved => {
                Place::Refuse("a contribution without a credit")
            }
            Contribution::Ahead | Contribution::Came(_) => {
                Place::Refuse("a contribution that was sent ahead")
            }
            Contribution::Arrived(_) | Contribution::Added => Place::Discard,
            Contribution::Placed(slot) => Place::Slot {
                start: slots.start(slot),
                bytes: common.layout.wire_bytes(segment),
            },
        }
    }

    /// A bulk frame that was placed is in its place.
    pub(super) fn handle_arrived(
        &mut self,
        common: &mut Common,
        from: Rank,
        frame: Frame,
        shared: &mut Shared,
    ) {
        let segment = frame.first();
        let is_contribution = matches!(frame, Frame::Contribution { .. });
        if is_contribution && common.is_reduction() {
            self.take_arrival(common, from, segment, shared);
            return;
        }
        if !common.claim(segment) {
            return;
        }
        common.moved_bytes += common.layout.wire_bytes(segment) as u64;
        common.decode(segment, shared);
        if is_contribution {
            for to in common.others().filter(|&to| to != from) {
                let segments = segment..segment + 1;
                common.send_results(to, Side::Result, segments, shared);
            }
        }
    }

    fn take_arrival(&mut self, common: &mut Common, from: Rank, segment: u32, shared: &mut Shared) {
        let Some(is_last) = self.contributions.take_arrival(segment, from) else {
            return;
        };
        common.moved_bytes += common.layout.wire_bytes(segment) as u64;
        if is_last {
            self.reduce(common, segment, shared);
        }
    }

    /// A segment of the own chunk is added up; true if slots came free.
    pub(super) fn handle_reduced(
        &mut self,
        common: &mut Common,
        segment: u32,
        shared: &mut Shared,
    ) -> bool {
        self.contributions.release(segment, &mut shared.slots);
        for from in self.contributions.used_up(segment) {
            let peer = common.members[from.index()];
            shared.reserve.free(peer, common.name);
        }
        self.reduced += 1;
        let is_new = common.claim(segment);
        assert!(is_new, "nobody else writes an owned segment");
        let has_freed = !self.contributions.senders().is_empty();
        let is_sent = sends_results(common);
        if is_sent && common.encode(Side::Result, segment, shared) {
            return has_freed;
        }
        common.finish(1);
        let segments = if !is_sent {
            0..0
        } else if !common.layout.is_eager() {
            segment..segment + 1
        } else if self.reduced == self.owned.end - self.owned.start {
            self.owned.clone()
        } else {
            0..0
        };
        for to in common.others() {
            common.send_results(to, Side::Result, segments.clone(), shared);
        }
        has_freed
    }

    /// Gives back every slot: nobody writes to them any more.
    pub(super) fn stop(&mut self, slots: &mut SlotPool) {
        self.contributions.release_all(slots);
    }

    /// Segments whose result is this peer's own input, to be sent to all by this peer itself.
    fn originated(&self, common: &Common) -> Range<u32> {
        if !common.is_reduction() && common.origin_is(common.rank) {
            self.owned.clone()
        } else {
            0..0
        }
    }

    /// All contributions are here: adds them in rank order.
    pub(super) fn reduce(&self, common: &Common, segment: u32, shared: &mut Shared) {
        let operands = self.contributions.operands(common, segment, shared);
        let rule = Combine {
            reduce_op: common.reduce_op(),
            divisor: common.members.world_size(),
        };
        common.reduce(segment, rule, operands, shared);
    }
}

/// Keeps a contribution that came with a post.
fn take_contribution(common: &mut Common, from: Rank, body: Bytes) -> Result<(), &'static str> {
    if body.is_empty() {
        return Ok(());
    }
    if body.len() != common.layout.owned_wire_bytes(common.rank) {
        return Err("an eager contribution of the wrong length");
    }
    common.moved_bytes += body.len() as u64;
    common.posts[from.index()] = Post::Agrees { eager: Some(body) };
    Ok(())
}

fn place_result(common: &Common, from: Rank, segment: u32) -> Place {
    if common.is_reduction() && !sends_results(common) {
        return Place::Refuse("a result that its receiver makes itself");
    }
    if common.layout.owner(segment) != from {
        return Place::Refuse("a result from a member that does not own it");
    }
    place_in_result(common, segment)
}

fn place_in_result(common: &Common, segment: u32) -> Place {
    if common.has(segment) {
        return Place::Discard;
    }
    let (side, span) = common.layout.on_wire(Side::Result, segment);
    Place::Memory { side, span }
}

/// Whether the sums that an owner makes go to the others.
pub(super) fn sends_results(common: &Common) -> bool {
    common.fingerprint.kind() == Kind::AllReduce && !common.layout.is_one_shot()
}

/// A finished segment has its wire form: takes it over, and sends it to the others.
pub(super) fn send_encoded_result(common: &mut Common, segment: u32, shared: &mut Shared) {
    common.decode(segment, shared);
    for to in common.others() {
        common.send_results(to, Side::Result, segment..segment + 1, shared);
    }
}

fn credit(common: &mut Common, to: Rank, segments: Range<u32>, shared: &mut Shared) {
    let signal = Signal {
        frame: Frame::Credit {
            first: segments.start,
            count: segments.end - segments.start,
        },
        head: Bytes::new(),
        body: None,
    };
    common.send_signal(to, signal, shared);
}

impl Common {
    /// Sends finished segments: on the signal lane if the operation is small.
    fn send_results(&mut self, to: Rank, side: Side, segments: Range<u32>, shared: &mut Shared) {
        if segments.is_empty() {
            return;
        }
        if self.layout.is_eager() {
            let signal = Signal {
                frame: Frame::EagerResult {
                    first: segments.start,
                    count: segments.end - segments.start,
                },
                head: Bytes::new(),
                body: Some(self.body(side, segments)),
            };
            self.send_signal(to, signal, shared);
            return;
        }
        for segment in segments {
            let bulk = Bulk {
                frame: Frame::Result { segment, hop: 0 },
                side,
            };
            self.send_bulk(to, bulk, shared);
        }
    }
}
