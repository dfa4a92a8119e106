//! One open operation of one peer: who has posted, which segments of the result are here.
//!
//! This is what the schedules have in common. Which contribution goes where, and what is added
//! when, is decided by `direct` and `ring`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::{SharedLayout, Side, Span};
use super::reserve::Reserve;
use super::segment_set::SegmentSet;
use super::slots::SlotPool;
use super::step::{Body, Coding, CopyOwn, Operand, Output, Reduction, Storage};
use crate::ids::{Members, OpName, PeerId, Rank};
use crate::mutation::{Mutation, is_active};
use crate::reduce::{ReduceOp, WEIGHT_MAX};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::{Fingerprint, Kind, Start};

/// What all operations of a peer share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is to be done, oldest first.
    pub(super) outputs: VecDeque<Output>,
    /// The scratch memory.
    pub(super) slots: SlotPool,
    /// What came ahead of credits.
    pub(super) reserve: Reserve,
    /// Lists of operands that were used, for the next additions.
    pub(super) spare: Vec<Vec<Operand>>,
}

/// What is known of one member's post.
#[derive(Clone, Debug, Default)]
pub(super) enum Post {
    /// It has not arrived.
    #[default]
    Missing,
    /// It called the same.
    Agrees {
        /// Its contribution to this peer's chunk, if it came along.
        eager: Option<Bytes>,
    },
    /// It called something else.
    Differs,
}

/// A post as it arrived.
#[derive(Clone, Debug)]
pub(super) struct ArrivedPost {
    pub(super) fingerprint: Fingerprint,
    /// By how much the contribution counts.
    pub(super) weight: u32,
    /// Segments that come ahead of a credit.
    pub(super) ahead: u32,
    /// What followed the fingerprint; empty unless the sender went eagerly.
    pub(super) body: Bytes,
    /// Whether a body came but was not kept, because the sender had too many here.
    pub(super) is_body_lost: bool,
}

/// The part of an operation that does not depend on the schedule.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) name: OpName,
    pub(super) fingerprint: Fingerprint,
    pub(super) members: Members,
    pub(super) rank: Rank,
    pub(super) layout: SharedLayout,
    /// Whether this peer's data went with its posts.
    pub(super) is_eager_sender: bool,
    /// Most bytes that a member may send ahead to another.
    pub(super) ahead_bytes_max: usize,
    pub(super) posts: Vec<Post>,
    /// By rank, as far as they have posted: 0 for who contributes nothing.
    pub(super) weights: Vec<u32>,
    posts_missing: usize,
    is_mismatched: bool,
    /// Segments of the result that are here, or for which a copy is under way.
    have: SegmentSet,
    /// Segments of the result that are not finished.
    results_missing: u32,
    is_held: bool,
    /// Segments that this peer has encoded; of no use where their form is that of memory.
    encoded: SegmentSet,
    /// What is to be sent of own input as soon as it is encoded, by segment.
    unsent: BTreeMap<u32, Vec<(Rank, Frame)>>,
    /// Payload bytes sent and received.
    pub(super) moved_bytes: u64,
    /// Payload bytes that this peer sends and receives in all.
    pub(super) total_bytes: u64,
}

impl Common {
    pub(super) fn new(start: Start, layout: SharedLayout, weight: u32) -> Self {
        let n = start.birth.members.len();
        let me = start.rank;
        let results = match start.fingerprint.kind() {
            Kind::ReduceScatter => layout.owned(me).len(),
            _ => layout.segment_count() as usize,
        };
        let to_encode = match layout.is_raw() {
            true => 0,
            false => layout.segment_count(),
        };
        let mut posts = vec![Post::Missing; n];
        posts[me.index()] = Post::Agrees { eager: None };
        let mut weights = vec![1; n];
        weights[me.index()] = weight;
        Self {
            name: start.birth.op,
            fingerprint: start.fingerprint,
            members: start.birth.members,
            rank: me,
            is_eager_sender: false,
            ahead_bytes_max: start.birth.costs.ahead_bytes_max(n),
            posts,
            weights,
            posts_missing: n - 1,
            is_mismatched: false,
            have: SegmentSet::new(layout.segment_count()),
            results_missing: u32::try_from(results).expect("segments fit 2^32"),
            is_held: false,
            encoded: SegmentSet::new(to_encode),
            unsent: BTreeMap::new(),
            moved_bytes: 0,
            total_bytes: 0,
            layout,
        }
    }

    pub(super) fn world_size(&self) -> usize {
        self.members.len()
    }

    pub(super) fn rank_of(&self, peer: PeerId) -> Option<Rank> {
        self.members.rank_of(peer)
    }

    /// The other members, each peer beginning with the rank after its own, so that not all send to
    /// the same one first.
    pub(super) fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let (me, n) = (self.rank.0, self.members.world_size());
        (1..n).map(move |step| Rank((me + step) % n))
    }

    /// Whether elements are combined, as opposed to copied from the one member that has them.
    pub(super) fn is_reduction(&self) -> bool {
        self.fingerprint.called.reduce_op().is_some()
    }

    /// How elements are combined.
    pub(super) fn reduce_op(&self) -> ReduceOp {
        let reduce_op = self.fingerprint.called.reduce_op();
        reduce_op.expect("only a reduction has something to add")
    }

    /// The member whose input is the result in a segment, where nothing is combined.
    pub(super) fn origin(&self, segment: u32) -> Rank {
        let root = self.fingerprint.called.root();
        root.unwrap_or_else(|| self.layout.owner(segment))
    }

    /// Whether, where nothing is combined, a member has the result of its own chunk to begin with.
    pub(super) fn origin_is(&self, rank: Rank) -> bool {
        self.fingerprint
            .called
            .root()
            .is_none_or(|root| root == rank)
    }

    /// Whether all members called the same, as far as this peer must know before it lets data flow.
    pub(super) fn is_agreed(&self) -> bool {
        !self.is_mismatched && (self.posts_missing == 0 || is_active(Mutation::CreditWhenPosted))
    }

    pub(super) fn is_mismatched(&self) -> bool {
        self.is_mismatched
    }

    /// Whether the result is this peer's input as it is: it is alone.
    pub(super) fn is_own_input(&self) -> bool {
        self.members.len() == 1 && self.layout.is_raw() && !self.fingerprint.is_weighted
    }

    /// Whether a member's data is in the result, as far as it has posted.
    pub(super) fn contributes(&self, rank: Rank) -> bool {
        self.weights[rank.index()] > 0
    }

    /// Takes a member's post; true if it agrees.
    pub(super) fn take_post(
        &mut self,
        from: Rank,
        post: &ArrivedPost,
        shared: &mut Shared,
    ) -> Result<bool, &'static str> {
        if !matches!(self.posts[from.index()], Post::Missing) {
            return Err("an operation posted twice");
        }
        if self.is_held && is_active(Mutation::FingerprintSkippedWhenDone) {
            return Ok(false);
        }
        let (theirs, weight) = (&post.fingerprint, post.weight);
        if *theirs != self.fingerprint {
            self.posts[from.index()] = Post::Differs;
            self.is_mismatched = true;
            shared.outputs.push_back(Output::Mismatch {
                op: self.name,
                peer: self.members[from.index()],
                theirs: theirs.clone(),
            });
            return Ok(false);
        }
        check_weight(&self.fingerprint, weight)?;
        self.posts[from.index()] = Post::Agrees { eager: None };
        self.weights[from.index()] = weight;
        self.posts_missing -= 1;
        Ok(true)
    }

    pub(super) fn has(&self, segment: u32) -> bool {
        self.have.contains(segment)
    }

    /// Notes that the bytes of a result segment are here, or on their way into place; false if they
    /// were before.
    pub(super) fn claim(&mut self, segment: u32) -> bool {
        self.have.insert(segment)
    }

    /// A claimed segment of the result is finished.
    pub(super) fn finish(&mut self, count: u32) {
        self.results_missing = self
            .results_missing
            .checked_sub(count)
            .expect("each segment is claimed, and so finished, once");
    }

    /// Asks for the wire form of a segment; false if that is how it lies in memory already.
    pub(super) fn encode(&self, side: Side, segment: u32, shared: &mut Shared) -> bool {
        let is_encoded = !self.layout.is_raw();
        if is_encoded {
            let coding = self.coding(side, segment);
            shared.outputs.push_back(Output::Encode(coding));
        }
        is_encoded
    }

    /// This peer's wire form of a segment is made: sends own input that waited for it. False if it
    /// is the form of a finished segment.
    pub(super) fn take_encoded(&mut self, segment: u32, shared: &mut Shared) -> bool {
        let is_new = self.encoded.insert(segment);
        assert!(is_new, "a segment is encoded once");
        let unsent = self.unsent.remove(&segment);
        let is_input = unsent.is_some();
        for (to, frame) in unsent.unwrap_or_default() {
            let side = Side::Input;
            self.send_bulk(to, Bulk { frame, side }, shared);
        }
        is_input
    }

    /// Whether the place of a segment's wire form is free for the result: this peer's own part in
    /// it has left it.
    pub(super) fn is_encoded(&self, segment: u32) -> bool {
        self.layout.is_raw() || !self.contributes(self.rank) || self.encoded.contains(segment)
    }

    /// Sends own input, as soon as it has its wire form.
    pub(super) fn send_input(&mut self, to: Rank, frame: Frame, shared: &mut Shared) {
        let segment = frame.first();
        if self.layout.is_raw() || self.encoded.contains(segment) {
            let side = Side::Input;
            self.send_bulk(to, Bulk { frame, side }, shared);
            return;
        }
        if !self.unsent.contains_key(&segment) {
            self.encode(Side::Input, segment, shared);
        }
        self.unsent.entry(segment).or_default().push((to, frame));
    }

    /// The wire form of a claimed segment of the result is here.
    pub(super) fn decode(&mut self, segment: u32, shared: &mut Shared) {
        if self.layout.is_raw() {
            self.finish(1);
        } else {
            let coding = self.coding(Side::Result, segment);
            shared.outputs.push_back(Output::Decode(coding));
        }
    }

    fn coding(&self, side: Side, segment: u32) -> Coding {
        Coding {
            op: self.name,
            segment,
            encoding: self.layout.encoding().expect("only then is it asked for"),
            dtype: self.layout.dtype(segment),
            side,
            elements: self.layout.span(side, segment),
            first_index: self.layout.first_index(segment),
            wire: self.layout.span(Side::Wire, segment),
        }
    }

    /// Says once that the whole result is here and everybody called the same.
    pub(super) fn check_held(&mut self, shared: &mut Shared) {
        let is_compared =
            self.posts_missing == 0 || is_active(Mutation::FingerprintSkippedWhenDone);
        if self.results_missing == 0 && is_compared && !self.is_mismatched && !self.is_held {
            self.is_held = true;
            shared.outputs.push_back(Output::Held(self.name));
        }
    }

    /// Copies own input to the result.
    pub(super) fn copy_own(&mut self, segments: Range<u32>, shared: &mut Shared) {
        for segment in segments.clone() {
            self.claim(segment);
        }
        if !segments.is_empty() {
            let body = self.body(Side::Input, segments);
            let op = self.name;
            shared.outputs.push_back(Output::Copy(CopyOwn { op, body }));
        }
    }

    /// Stores result segments that came on a signal frame; their number and length are checked.
    pub(super) fn store(
        &mut self,
        segments: Range<u32>,
        payload: Bytes,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        if payload.len() != self.layout.run_bytes(segments.clone()) {
            return Err("a result of the wrong length");
        }
        for segment in segments.clone() {
            if !self.claim(segment) {
                return Err("a result sent twice");
            }
        }
        self.moved_bytes += payload.len() as u64;
        let body = self.body(Side::Result, segments);
        let op = self.name;
        shared
            .outputs
            .push_back(Output::Store(Storage { op, body, payload }));
        Ok(())
    }

    pub(super) fn body(&self, side: Side, segments: Range<u32>) -> Body {
        Body {
            layout: Arc::clone(&self.layout),
            side,
            segments,
        }
    }

    /// Sends a frame on the signal lane.
    pub(super) fn send_signal(&mut self, to: Rank, signal: Signal, shared: &mut Shared) {
        let body_bytes = signal.body.as_ref().map_or(0, Body::bytes);
        self.moved_bytes += body_bytes as u64;
        let payload_bytes = u32::try_from(signal.head.len() + body_bytes);
        shared.outputs.push_back(Output::Signal {
            to: self.members[to.index()],
            header: FrameHeader {
                op: self.name,
                frame: signal.frame,
                payload_bytes: payload_bytes.expect("eager bodies are small"),
            },
            head: signal.head,
            body: signal.body,
        });
    }

    /// Queues one segment for a lane.
    pub(super) fn send_bulk(&mut self, to: Rank, bulk: Bulk, shared: &mut Shared) {
        let (side, span) = self.layout.on_wire(bulk.side, bulk.frame.first());
        self.moved_bytes += span.bytes as u64;
        shared.outputs.push_back(Output::Bulk {
            to: self.members[to.index()],
            header: FrameHeader {
                op: self.name,
                frame: bulk.frame,
                payload_bytes: u32::try_from(span.bytes).expect("segments are small"),
            },
            side,
            span,
        });
    }

    /// Asks for an addition.
    pub(super) fn reduce(
        &self,
        segment: u32,
        Combine { reduce_op, divisor }: Combine,
        operands: Vec<Operand>,
        shared: &mut Shared,
    ) {
        let weights = match self.fingerprint.is_weighted {
            true => self.weights.iter().copied().filter(|&w| w > 0).collect(),
            false => Vec::new(),
        };
        shared.outputs.push_back(Output::Reduce(Reduction {
            op: self.name,
            segment,
            dtype: self.layout.dtype(segment),
            encoding: self.layout.encoding(),
            reduce_op,
            divisor,
            weights,
            operands,
            target: self.layout.span(Side::Result, segment),
        }));
    }

    /// Own input in a segment.
    pub(super) fn own(&self, segment: u32) -> Span {
        self.layout.span(Side::Input, segment)
    }
}

/// Checks the weight in a post that agrees.
fn check_weight(fingerprint: &Fingerprint, weight: u32) -> Result<(), &'static str> {
    match fingerprint.is_weighted {
        true if weight > WEIGHT_MAX => Err("a weight beyond the largest"),
        false if weight != 1 => Err("a weight of a call without weights"),
        _ => Ok(()),
    }
}

/// How operands become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combine {
    pub(super) reduce_op: ReduceOp,
    /// What an average is divided by.
    pub(super) divisor: u32,
}

/// A signal frame about an operation.
pub(super) struct Signal {
    pub(super) frame: Frame,
    pub(super) head: Bytes,
    pub(super) body: Option<Body>,
}

/// A bulk frame about an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    pub(super) frame: Frame,
    /// Where its elements are.
    pub(super) side: Side,
}
