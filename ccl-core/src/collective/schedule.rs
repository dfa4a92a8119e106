//! One open operation with its schedule: direct or ring.
//!
//! It makes the checks of posts and signal frames that both schedules need, and passes the rest on
//! to the operation's schedule.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ahead::Came;
use super::choice::{Extent, choose_algorithm};
use super::direct::{self, Direct, Grant, sends_results};
use super::exchange::room;
use super::layout::{Layout, Part, SegmentLimits, Shape};
use super::operation::{ArrivedPost, Common, Post, Shared, Signal};
use super::reserve::{Ahead, Reserve};
use super::ring::Ring;
use super::slots::SlotPool;
use super::step::Place;
use super::traffic;
use crate::ids::{PeerId, Rank};
use crate::mutation::{Mutation, is_active};
use crate::reduce::{self, ReduceOp};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::{Fingerprint, Start};

/// An open operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) common: Common,
    schedule: Schedule,
    has_begun: bool,
    /// Segments that go ahead of a credit, by receiver; none if nothing does.
    ahead: Vec<Batch>,
}

/// What this peer brings to an operation.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Its buffers.
    pub parts: &'a [Part],
    /// By how much its contribution counts: 1 without weights.
    pub weight: u32,
}

/// What goes ahead of a credit to one member.
#[derive(Clone, Debug, Default)]
struct Batch {
    segments: Range<u32>,
    bytes: usize,
}

#[derive(Debug)]
enum Schedule {
    Direct(Direct),
    Ring(Ring),
}

impl Operation {
    pub(super) fn new(start: Start, given: Given<'_>, limits: &SegmentLimits) -> Self {
        let Given { parts, weight } = given;
        let birth = &start.birth;
        let n = birth.members.len();
        assert!(start.rank.index() < n, "this peer is a member");
        let fingerprint = &start.fingerprint;
        let called = &fingerprint.called;
        let root = called.root();
        assert!(
            root.is_none_or(|root| root.index() < n),
            "the root is a member"
        );
        let ring_order = Arc::clone(&birth.ring_order);
        let has_integers = parts.iter().any(|part| part.dtype.is_integer());
        let extent = Extent {
            world_size: n,
            bytes: parts.iter().map(|part| wire_bytes(fingerprint, part)).sum(),
            is_added_at_once: (called.reduce_op() == Some(ReduceOp::Avg) && has_integers)
                || fingerprint.encoding.is_some()
                || fingerprint.is_weighted,
        };
        let wanted = fingerprint.algorithm;
        let algorithm = choose_algorithm(called.kind(), wanted, extent, &birth.costs);
        let shape = Shape {
            kind: called.kind(),
            algorithm,
            parts,
            world_size: n,
            ring_order: &ring_order,
            root,
            encoding: fingerprint.encoding,
            segments_per_chunk: birth.costs.segments_per_chunk(),
        };
        let layout = Arc::new(Layout::new(&shape, limits));
        let goes_around = shape.is_ring() && n > 1;
        let mut common = Common::new(start, layout, weight);
        let schedule = if goes_around {
            common.total_bytes = traffic::of_ring(&common, &ring_order);
            Schedule::Ring(Ring::new(&common, &ring_order))
        } else {
            common.total_bytes = traffic::of_direct(&common);
            Schedule::Direct(Direct::new(&common))
        };
        Self {
            common,
            schedule,
            has_begun: false,
            ahead: Vec::new(),
        }
    }

    /// Decides what goes ahead of credits, if so many bytes are on their way to a member already.
    /// Returns how many more that makes.
    pub(super) fn plan_ahead(&mut self, bytes: usize) -> usize {
        let common = &self.common;
        let layout = &common.layout;
        let left = match is_active(Mutation::AheadBeyondReserve) {
            true => usize::MAX,
            false => common.ahead_bytes_max.saturating_sub(bytes),
        };
        let is_bulky = common.is_reduction() && !layout.is_eager();
        if !is_bulky
            || !common.contributes(common.rank)
            || matches!(self.schedule, Schedule::Ring(_))
            || left == 0
        {
            return 0;
        }
        let mut ahead = vec![Batch::default(); common.world_size()];
        for to in common.others() {
            ahead[to.index()] = first_segments(layout, to, left);
        }
        self.ahead = ahead;
        self.ahead_bytes()
    }

    /// Most bytes that went ahead to any one member.
    pub(super) fn ahead_bytes(&self) -> usize {
        let bytes = self.ahead.iter().map(|batch| batch.bytes);
        bytes.max().unwrap_or(0)
    }

    /// Sends the segments that go ahead, one to each member in turn.
    fn send_ahead(&mut self, shared: &mut Shared) {
        let longest = self.ahead.iter().map(|batch| batch.segments.len()).max();
        for index in 0..longest.unwrap_or(0) {
            for to in self.common.others() {
                let Batch { segments, bytes } = &self.ahead[to.index()];
                let Some(segment) = segments.clone().nth(index) else {
                    continue;
                };
                let frame = Frame::Ahead {
                    segment,
                    batch_bytes: u32::try_from(*bytes).expect("reserves are small"),
                };
                self.common.send_input(to, frame, shared);
            }
        }
    }

    /// Tells every other member what was called, and what this peer has for it if that is small.
    pub(super) fn post(&mut self, shared: &mut Shared) {
        let common = &mut self.common;
        let posted = (&common.fingerprint, common.weights[common.rank.index()]);
        let head = postcard::to_stdvec(&posted).expect("it is plain data");
        let head = Bytes::from(head);
        for to in common.others() {
            let body = match &self.schedule {
                Schedule::Direct(direct) if common.is_eager_sender => direct.post_body(common, to),
                _ => None,
            };
            let signal = Signal {
                frame: Frame::Post {
                    ahead: ahead_count(&self.ahead, to),
                    fingerprint_bytes: u32::try_from(head.len()).expect("fingerprints are small"),
                },
                head: head.clone(),
                body,
            };
            common.send_signal(to, signal, shared);
        }
        if let Schedule::Direct(direct) = &mut self.schedule {
            direct.start(common, shared);
        }
        self.send_ahead(shared);
    }

    pub(super) fn take_post(
        &mut self,
        from: PeerId,
        post: ArrivedPost,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        let Some(from) = self.common.rank_of(from) else {
            return Ok(());
        };
        if !self.common.take_post(from, &post, shared)? {
            return Ok(());
        }
        match &mut self.schedule {
            Schedule::Direct(direct) => direct.take_body(&mut self.common, from, post, shared),
            Schedule::Ring(_) if post.body.is_empty() && post.ahead == 0 => Ok(()),
            Schedule::Ring(_) => Err("data on the post of a ring operation"),
        }
    }

    /// Takes a credit or an eager result.
    pub(super) fn handle_signal(
        &mut self,
        from: Rank,
        frame: Frame,
        payload: Bytes,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        let Schedule::Direct(direct) = &mut self.schedule else {
            return Err("a credit or a small result in a ring operation");
        };
        match frame {
            Frame::Credit { first, count } => {
                let segments = run(first, count)?;
                if !payload.is_empty() {
                    return Err("a credit with data");
                }
                if self.common.is_mismatched() {
                    return Ok(());
                }
                direct.handle_credit(&mut self.common, from, segments, shared)
            }
            Frame::EagerResult { first, count } => {
                let segments = run(first, count)?;
                let owned = self.common.layout.owned(from);
                let is_owners = segments.start >= owned.start && segments.end <= owned.end;
                let is_made_here = self.common.is_reduction() && !sends_results(&self.common);
                if !is_owners || is_made_here {
                    return Err("a result from a member that does not own it");
                }
                self.common.store(segments, payload, shared)
            }
            _ => Err("not a signal frame of a collective"),
        }
    }

    pub(super) fn place(
        &mut self,
        from: Rank,
        header: &FrameHeader,
        slots: &mut SlotPool,
    ) -> Place {
        let layout = &self.common.layout;
        let (segment, is_result) = match header.frame {
            Frame::Contribution { segment, .. } => (segment, false),
            Frame::Result { segment, .. } => (segment, true),
            _ => return Place::Refuse("not a bulk frame"),
        };
        if segment >= layout.segment_count() {
            return Place::Refuse("a segment that does not exist");
        }
        if header.payload_bytes as usize != layout.wire_bytes(segment) {
            return Place::Refuse("a segment of the wrong length");
        }
        if is_result && !self.common.is_encoded(segment) {
            return Place::Refuse("a result before its contributions");
        }
        match &mut self.schedule {
            Schedule::Direct(direct) => direct.place(&self.common, from, header.frame, slots),
            Schedule::Ring(ring) => ring.place(&self.common, from, header.frame),
        }
    }

    /// Where a segment goes that came ahead of a credit.
    pub(super) fn place_ahead(&mut self, from: Rank, ahead: Ahead, reserve: &mut Reserve) -> Place {
        let common = &self.common;
        match (&common.posts[from.index()], &self.schedule) {
            // Whether it has called the same is not known yet.
            (Post::Missing, _) => {
                let peer = common.members[from.index()];
                room(reserve.place(peer, common.name, ahead), ahead.bytes)
            }
            (Post::Differs, _) => Place::Discard,
            (_, Schedule::Direct(direct)) => direct.place_ahead(common, from, ahead, reserve),
            (_, Schedule::Ring(_)) => Place::Refuse("data ahead in a ring operation"),
        }
    }

    /// A segment that came ahead of a credit is in the reserve.
    pub(super) fn take_ahead(&mut self, came: Came, shared: &mut Shared) {
        if let Schedule::Direct(direct) = &mut self.schedule {
            direct.take_ahead(&mut self.common, came, shared);
        }
    }

    /// Lets data flow once all members have posted the same; true if it then needs slots.
    pub(super) fn begin_if_agreed(&mut self, shared: &mut Shared) -> bool {
        if self.has_begun || !self.common.is_agreed() {
            return false;
        }
        self.has_begun = true;
        match &mut self.schedule {
            Schedule::Direct(direct) => direct.begin(&mut self.common, shared),
            Schedule::Ring(ring) => {
                ring.begin(&mut self.common, shared);
                false
            }
        }
    }

    /// The payload of a bulk frame is in its place.
    pub(super) fn handle_arrived(&mut self, from: Rank, frame: Frame, shared: &mut Shared) {
        let common = &mut self.common;
        match &mut self.schedule {
            Schedule::Direct(direct) => direct.handle_arrived(common, from, frame, shared),
            Schedule::Ring(ring) => ring.handle_arrived(common, frame, shared),
        }
        common.check_held(shared);
    }

    /// An addition was carried out; true if slots came free.
    pub(super) fn handle_reduced(&mut self, segment: u32, shared: &mut Shared) -> bool {
        let common = &mut self.common;
        let has_freed = match &mut self.schedule {
            Schedule::Direct(direct) => direct.handle_reduced(common, segment, shared),
            Schedule::Ring(ring) => {
                ring.handle_reduced(common, segment, shared);
                false
            }
        };
        common.check_held(shared);
        has_freed
    }

    /// What this peer sends of a segment was encoded.
    pub(super) fn handle_encoded(&mut self, segment: u32, shared: &mut Shared) {
        let common = &mut self.common;
        if !common.take_encoded(segment, shared) {
            direct::send_encoded_result(common, segment, shared);
        }
    }

    /// Lets more contributions in; only for operations that need slots.
    pub(super) fn grant(&mut self, shared: &mut Shared) -> Grant {
        let quantum = self.quantum(&shared.slots);
        match &mut self.schedule {
            Schedule::Direct(direct) => direct.grant(&mut self.common, quantum, shared),
            Schedule::Ring(_) => Grant::Complete,
        }
    }

    /// Gives the slots back.
    pub(super) fn stop(&mut self, slots: &mut SlotPool) {
        if let Schedule::Direct(direct) = &mut self.schedule {
            direct.stop(slots);
        }
    }

    /// Segments to let in at once: an eighth of the scratch memory, so that credits are few and the
    /// senders still never run dry.
    fn quantum(&self, slots: &SlotPool) -> u32 {
        let others = self.common.members.world_size() - 1;
        let capacity = slots.capacity(self.common.layout.slot_bytes());
        (capacity / others.max(1) / 8).clamp(1, QUANTUM_SEGMENTS_MAX)
    }
}

/// Bytes of a buffer as it travels.
fn wire_bytes(fingerprint: &Fingerprint, part: &Part) -> usize {
    let count = part.bytes() / part.dtype.bytes();
    reduce::wire_bytes(fingerprint.encoding, part.dtype, count)
}

/// The segments of a frame that is about several.
fn run(first: u32, count: u32) -> Result<Range<u32>, &'static str> {
    let end = first.checked_add(count);
    Ok(first..end.ok_or("a range of segments that overflows")?)
}

fn ahead_count(ahead: &[Batch], to: Rank) -> u32 {
    let batch = ahead.get(to.index());
    batch.map_or(0, |batch| batch.segments.end - batch.segments.start)
}

/// As many of the first segments that a member adds up as fit.
fn first_segments(layout: &Layout, to: Rank, bytes_max: usize) -> Batch {
    let owned = layout.owned(to);
    let mut batch = Batch {
        segments: owned.start..owned.start,
        bytes: 0,
    };
    for segment in owned {
        let bytes = batch.bytes + Reserve::bytes_for(layout.wire_bytes(segment));
        if bytes > bytes_max {
            break;
        }
        batch.bytes = bytes;
        batch.segments.end = segment + 1;
    }
    batch
}

/// Takes a post apart.
pub(super) fn decode_post(
    ahead: u32,
    fingerprint_bytes: u32,
    payload: &Bytes,
) -> Result<ArrivedPost, &'static str> {
    let head_bytes = fingerprint_bytes as usize;
    if head_bytes > payload.len() {
        return Err("a post shorter than its fingerprint");
    }
    let head = postcard::take_from_bytes::<(Fingerprint, u32)>(&payload[..head_bytes]);
    match head {
        Ok(((fingerprint, weight), [])) => Ok(ArrivedPost {
            fingerprint,
            weight,
            ahead,
            body: payload.slice(head_bytes..),
            is_body_lost: false,
        }),
        _ => Err("a post without a fingerprint"),
    }
}

/// Most segments let in at once: enough to fill one frame each of many lanes.
const QUANTUM_SEGMENTS_MAX: u32 = 8;
