//! Where contributions lie that came ahead of a credit, until they are added.
//!
//! A member may send the first segments of its contribution together with its post. Their place at
//! the receiver is one run of bytes for each sender and operation, a *batch*. It gets all of it
//! when the first of it is seen, or none: then its frames are dropped, and asked for again with a
//! credit once all have posted. So nobody waits for room here, and sender and receiver need not
//! agree on how much of it is in use.
//!
//! A batch is here before its operation is open. If the operation never opens, its memory is
//! *abandoned*: used again once nobody writes to it any more.

use std::collections::BTreeMap;
use std::ops::Range;

use super::kept::order;
use crate::ids::{OpName, PeerId};
use crate::limits;
use crate::mutation::{Mutation, is_active};

/// The batches, by sender and operation.
#[derive(Debug)]
pub(super) struct Reserve {
    /// First byte in the scratch memory.
    start: usize,
    bytes: usize,
    /// First byte of each run in use, and one past its last.
    taken: BTreeMap<usize, usize>,
    taken_bytes: usize,
    links: BTreeMap<PeerId, BTreeMap<OpName, Batch>>,
    /// Runs that somebody may still write to.
    abandoned: Vec<((PeerId, OpName), usize)>,
}

/// What one member sends ahead for one operation.
#[derive(Debug)]
struct Batch {
    /// First byte of its run; `None`: there was no room.
    start: Option<usize>,
    /// Length of its run.
    bytes: usize,
    /// Bytes of the run that have an owner.
    filled: usize,
    pieces: BTreeMap<u32, Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    bytes: usize,
    has_arrived: bool,
}

/// The frame of one segment that was sent ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) segment: u32,
    /// Its length.
    pub(super) bytes: usize,
    /// Length of its batch.
    pub(super) batch_bytes: usize,
}

/// Where such a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// From this byte of the scratch memory.
    At(usize),
    /// There is no room for its batch.
    Lost,
    /// Its sender contradicts itself.
    Wrong(&'static str),
}

impl Reserve {
    /// `bytes` bytes of scratch memory from `start`.
    pub(super) fn new(start: usize, bytes: usize) -> Self {
        Self {
            start,
            bytes,
            taken: BTreeMap::new(),
            taken_bytes: 0,
            links: BTreeMap::new(),
            abandoned: Vec::new(),
        }
    }

    /// Bytes of a batch that a segment takes: whole cache lines.
    pub(super) fn bytes_for(segment_bytes: usize) -> usize {
        segment_bytes.next_multiple_of(CACHE_LINE_BYTES)
    }

    /// Gives a batch its run, unless it has one or had no room; false if it has none.
    ///
    /// # Errors
    /// What is wrong with the batch of this sender.
    pub(super) fn open(
        &mut self,
        from: PeerId,
        op: OpName,
        batch_bytes: usize,
    ) -> Result<bool, &'static str> {
        let batches = self.links.entry(from).or_default();
        if let Some(batch) = batches.get(&op) {
            return match batch.bytes == batch_bytes {
                true => Ok(batch.start.is_some()),
                false => Err("data ahead of another length than announced"),
            };
        }
        if batches.len() >= limits::TAGS_MAX {
            return Err("data ahead on too many tags");
        }
        let in_use = batches.values().filter(|batch| batch.start.is_some());
        let link_bytes = in_use.map(|batch| batch.bytes).sum::<usize>() + batch_bytes;
        // What one link takes is as much as it leaves for the others, so that none takes it all.
        let left = self.bytes.checked_sub(self.taken_bytes + batch_bytes);
        let start = match left {
            Some(left) if link_bytes <= left => self.take_run(batch_bytes),
            _ => None,
        };
        let batch = Batch {
            start,
            bytes: batch_bytes,
            filled: 0,
            pieces: BTreeMap::new(),
        };
        let batches = self.links.entry(from).or_default();
        batches.insert(op, batch);
        Ok(start.is_some())
    }

    /// The header of a segment is here; again for the same one after a repair.
    pub(super) fn place(&mut self, from: PeerId, op: OpName, ahead: Ahead) -> Room {
        match self.open(from, op, ahead.batch_bytes) {
            Err(why) => return Room::Wrong(why),
            Ok(false) => return Room::Lost,
            Ok(true) => {}
        }
        let batch = self.batch(from, op).expect("it was opened a moment ago");
        if let Some(piece) = batch.pieces.get(&ahead.segment) {
            return match piece.bytes == ahead.bytes {
                _ if piece.has_arrived => Room::Lost,
                true => Room::At(piece.start),
                false => Room::Wrong("a segment sent ahead with two lengths"),
            };
        }
        let start = batch.start.expect("it has a run") + batch.filled;
        let filled = batch.filled + Self::bytes_for(ahead.bytes);
        if ahead.bytes == 0 || filled > batch.bytes {
            return Room::Wrong("more data ahead than announced");
        }
        batch.filled = filled;
        let piece = Piece {
            start,
            bytes: ahead.bytes,
            has_arrived: false,
        };
        batch.pieces.insert(ahead.segment, piece);
        Room::At(start)
    }

    /// A segment is in its place; where, if nobody knew that before.
    pub(super) fn take_arrival(&mut self, from: PeerId, op: OpName, segment: u32) -> Option<usize> {
        let piece = self.batch(from, op)?.pieces.get_mut(&segment)?;
        let is_new = !std::mem::replace(&mut piece.has_arrived, true);
        is_new.then_some(piece.start)
    }

    /// Where a segment is that has arrived.
    pub(super) fn arrived(&self, from: PeerId, op: OpName, segment: u32) -> Option<Range<usize>> {
        let piece = self.links.get(&from)?.get(&op)?.pieces.get(&segment)?;
        let run = piece.start..piece.start + piece.bytes;
        piece.has_arrived.then_some(run)
    }

    /// Every segment of a batch is added: its memory is used again.
    pub(super) fn free(&mut self, from: PeerId, op: OpName) {
        let batches = self.links.get_mut(&from);
        let batch = batches.and_then(|batches| batches.remove(&op));
        self.give_back(batch.expect("a batch is freed once"));
    }

    /// An operation is over, and nobody writes to its memory.
    pub(super) fn free_all(&mut self, op: OpName) {
        if is_active(Mutation::ReserveKeptAfterAbort) {
            return;
        }
        let removed = |batches: &mut BTreeMap<_, _>| batches.remove(&op);
        let batches: Vec<Batch> = self.links.values_mut().filter_map(removed).collect();
        for batch in batches {
            self.give_back(batch);
        }
    }

    /// Gives up the batches that are of no use any more. Their senders and operations: nobody may
    /// write to their memory when [`Reserve::abandoned`] is called.
    pub(super) fn abandon(
        &mut self,
        is_of_use: impl Fn(PeerId, OpName) -> bool,
    ) -> Vec<(PeerId, OpName)> {
        let mut names = Vec::new();
        for (&from, batches) in &mut self.links {
            let useless = batches.extract_if(.., |&op, _| !is_of_use(from, op));
            for (op, batch) in useless {
                if let Some(start) = batch.start {
                    self.abandoned.push(((from, op), start));
                    names.push((from, op));
                }
            }
        }
        self.links.retain(|_, batches| !batches.is_empty());
        names
    }

    /// A newer operation of its tag makes the earlier ones of this sender useless.
    pub(super) fn abandon_before(
        &mut self,
        from: PeerId,
        op: OpName,
        open: Option<OpName>,
    ) -> Vec<(PeerId, OpName)> {
        let batches = self.links.get(&from);
        let is_before =
            |it: &OpName| it.tag == op.tag && order(*it) < order(op) && Some(*it) != open;
        if !batches.is_some_and(|batches| batches.keys().any(is_before)) {
            return Vec::new();
        }
        self.abandon(|peer, it| peer != from || !is_before(&it))
    }

    /// Whether a newer operation of its tag has a batch of this sender.
    pub(super) fn is_past(&self, from: PeerId, op: OpName) -> bool {
        let batches = self.links.get(&from);
        let is_newer = |it: &OpName| it.tag == op.tag && order(*it) > order(op);
        batches.is_some_and(|batches| batches.keys().any(is_newer))
    }

    /// Nobody writes to an abandoned batch any more.
    pub(super) fn abandoned(&mut self, from: PeerId, op: OpName) {
        let is_named = |(name, _): &((PeerId, OpName), usize)| *name == (from, op);
        if let Some(index) = self.abandoned.iter().position(is_named) {
            let (_, start) = self.abandoned.swap_remove(index);
            self.free_run(start);
        }
    }

    /// Bytes in use.
    pub(super) fn taken_bytes(&self) -> usize {
        self.taken_bytes
    }

    fn batch(&mut self, from: PeerId, op: OpName) -> Option<&mut Batch> {
        self.links.get_mut(&from)?.get_mut(&op)
    }

    fn give_back(&mut self, batch: Batch) {
        if let Some(start) = batch.start {
            self.free_run(start);
        }
    }

    /// The lowest run of this length that is free, so that the same memory is used again.
    fn take_run(&mut self, bytes: usize) -> Option<usize> {
        let mut start = self.start;
        for (&first, &end) in &self.taken {
            if first - start >= bytes {
                break;
            }
            start = end;
        }
        if bytes == 0 || start + bytes > self.start + self.bytes {
            return None;
        }
        self.taken.insert(start, start + bytes);
        self.taken_bytes += bytes;
        Some(start)
    }

    fn free_run(&mut self, start: usize) {
        let end = self.taken.remove(&start);
        self.taken_bytes -= end.expect("what is freed was taken") - start;
    }
}

/// Kernels meet whole cache lines if segments begin at multiples of this.
const CACHE_LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OpNumber, Tag};

    fn op(tag: u64, n: u64) -> OpName {
        OpName {
            tag: Tag(tag),
            n: OpNumber(n),
            ..OpName::default()
        }
    }

    fn ahead(segment: u32, bytes: usize, batch_bytes: usize) -> Ahead {
        Ahead {
            segment,
            bytes,
            batch_bytes,
        }
    }

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    #[test]
    fn a_batch_gets_all_its_room_or_none() {
        let mut reserve = Reserve::new(1000, 1024);
        assert_eq!(
            reserve.place(A, op(0, 0), ahead(3, 60, 192)),
            Room::At(1000)
        );
        assert_eq!(reserve.taken_bytes(), 192);
        assert_eq!(
            reserve.place(A, op(0, 0), ahead(4, 100, 192)),
            Room::At(1064)
        );
        assert_eq!(
            reserve.place(A, op(0, 0), ahead(3, 60, 192)),
            Room::At(1000)
        );
        assert_eq!(reserve.place(A, op(1, 0), ahead(0, 64, 512)), Room::Lost);
        assert_eq!(reserve.place(A, op(1, 0), ahead(1, 64, 512)), Room::Lost);
        reserve.free(A, op(0, 0));
        assert_eq!(reserve.place(A, op(1, 0), ahead(0, 64, 512)), Room::Lost);
        assert_eq!(reserve.taken_bytes(), 0);
    }

    #[test]
    fn one_sender_leaves_as_much_as_it_takes() {
        let mut reserve = Reserve::new(0, 1024);
        assert_eq!(reserve.open(A, op(0, 0), 513), Ok(false));
        assert_eq!(reserve.open(A, op(1, 0), 512), Ok(true));
        assert_eq!(reserve.open(A, op(2, 0), 64), Ok(false));
        assert_eq!(reserve.open(B, op(0, 0), 256), Ok(true));
    }

    #[test]
    fn a_sender_that_contradicts_itself_is_noticed() {
        let mut reserve = Reserve::new(0, 1024);
        let mut place = |segment, bytes, batch_bytes| {
            reserve.place(A, op(0, 0), ahead(segment, bytes, batch_bytes))
        };
        assert_eq!(place(0, 64, 128), Room::At(0));
        assert!(matches!(place(1, 64, 192), Room::Wrong(_)));
        assert!(matches!(place(0, 32, 128), Room::Wrong(_)));
        assert!(matches!(place(1, 65, 128), Room::Wrong(_)));
        assert!(matches!(place(1, 0, 128), Room::Wrong(_)));
    }

    #[test]
    fn abandoned_memory_is_used_again_only_when_nobody_writes_to_it() {
        let mut reserve = Reserve::new(0, 256);
        assert_eq!(reserve.place(A, op(0, 0), ahead(0, 64, 128)), Room::At(0));
        assert_eq!(reserve.abandon_before(A, op(0, 1), Some(op(0, 0))), []);
        assert_eq!(reserve.abandon_before(A, op(0, 1), None), [(A, op(0, 0))]);
        assert_eq!(reserve.place(B, op(0, 1), ahead(0, 64, 64)), Room::At(128));
        reserve.abandoned(A, op(0, 0));
        reserve.abandoned(A, op(0, 0));
        assert_eq!(reserve.taken_bytes(), 64);
        assert_eq!(reserve.take_arrival(A, op(0, 0), 0), None);
    }

    #[test]
    fn a_segment_arrives_once() {
        let mut reserve = Reserve::new(0, 256);
        assert_eq!(reserve.place(A, op(0, 0), ahead(7, 64, 64)), Room::At(0));
        assert_eq!(reserve.arrived(A, op(0, 0), 7), None);
        assert_eq!(reserve.take_arrival(A, op(0, 0), 7), Some(0));
        assert_eq!(reserve.take_arrival(A, op(0, 0), 7), None);
        assert_eq!(reserve.arrived(A, op(0, 0), 7), Some(0..64));
        assert_eq!(reserve.place(A, op(0, 0), ahead(7, 64, 64)), Room::Lost);
    }
}
