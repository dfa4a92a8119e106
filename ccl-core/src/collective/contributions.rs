//! The contributions to the chunk that a peer owns: which may be sent, which have arrived.

use std::ops::Range;

use super::operation::{Common, Post, Shared};
use super::slots::{Slot, SlotPool};
use super::step::Operand;
use crate::ids::Rank;

/// Where the contribution of one member to one owned segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contribution {
    /// Not let in, or came with the post, or this peer's own.
    Absent,
    /// Let in; a slot is reserved for it.
    Reserved,
    /// On its way into this slot.
    Placed(Slot),
    /// Received into this slot.
    Arrived(Slot),
    /// Added; its slot is somebody else's.
    Added,
}

/// All of them, for one operation at one owner.
#[derive(Debug)]
pub(super) struct Contributions {
    owned: Range<u32>,
    world_size: usize,
    /// Members whose contributions need slots.
    senders: Vec<Rank>,
    /// By owned segment, then by rank.
    cells: Vec<Contribution>,
    /// By owned segment: contributions let in and not arrived.
    missing: Vec<u32>,
}

impl Contributions {
    /// Nothing let in. Takes no memory where nothing is combined.
    pub(super) fn new(common: &Common) -> Self {
        let owned = common.layout.owned(common.rank);
        let is_combined = common.is_reduction() && common.world_size() > 1;
        let count = if is_combined { owned.len() } else { 0 };
        Self {
            owned,
            world_size: common.world_size(),
            senders: Vec::new(),
            cells: vec![Contribution::Absent; count * common.world_size()],
            missing: vec![0; count],
        }
    }

    /// All members have posted: says whose data did not come along.
    pub(super) fn begin(&mut self, common: &Common) {
        let needs_slots =
            |rank: &Rank| !matches!(common.posts[rank.index()], Post::Agrees { eager: Some(_) });
        self.senders = common.others().filter(needs_slots).collect();
    }

    /// Members whose contributions need slots.
    pub(super) fn senders(&self) -> &[Rank] {
        &self.senders
    }

    pub(super) fn get(&self, segment: u32, from: Rank) -> Contribution {
        self.cells[self.cell(segment, from)]
    }

    /// Lets in the contributions to a segment, for which slots are reserved.
    pub(super) fn let_in(&mut self, segment: u32) {
        for index in 0..self.senders.len() {
            let cell = self.cell(segment, self.senders[index]);
            self.cells[cell] = Contribution::Reserved;
        }
        self.missing[(segment - self.owned.start) as usize] = self.senders.len() as u32;
    }

    /// The header of a contribution is here: the slot for its payload, or where it is already.
    pub(super) fn place(&mut self, segment: u32, from: Rank, slots: &mut SlotPool) -> Contribution {
        let cell = self.cell(segment, from);
        if self.cells[cell] == Contribution::Reserved {
            self.cells[cell] = Contribution::Placed(slots.take());
        }
        self.cells[cell]
    }

    /// Gives the slots of a segment up.
    pub(super) fn release(&mut self, segment: u32, slots: &mut SlotPool) {
        let first = self.cell(segment, Rank(0));
        for cell in &mut self.cells[first..first + self.world_size] {
            match *cell {
                Contribution::Absent | Contribution::Added => continue,
                Contribution::Reserved => {}
                Contribution::Placed(slot) | Contribution::Arrived(slot) => slots.put_back(slot),
            }
            slots.release(1);
            *cell = Contribution::Added;
        }
    }

    /// Gives every slot up.
    pub(super) fn release_all(&mut self, slots: &mut SlotPool) {
        for index in 0..self.missing.len() {
            let index = u32::try_from(index).expect("segments fit 2^32");
            self.release(self.owned.start + index, slots);
        }
    }

    /// A contribution is in its slot: whether it is the last of its segment; `None` if nobody
    /// waited for it.
    pub(super) fn take_arrival(&mut self, segment: u32, from: Rank) -> Option<bool> {
        let cell = self.cell(segment, from);
        let Contribution::Placed(slot) = self.cells[cell] else {
            return None;
        };
        self.cells[cell] = Contribution::Arrived(slot);
        let missing = &mut self.missing[(segment - self.owned.start) as usize];
        *missing -= 1;
        Some(*missing == 0)
    }

    /// What is added up for a segment, in rank order.
    pub(super) fn operands(
        &self,
        common: &Common,
        segment: u32,
        shared: &mut Shared,
    ) -> Vec<Operand> {
        let mut operands = shared.spare.pop().unwrap_or_default();
        for (rank, post) in (0..).map(Rank).zip(&common.posts) {
            operands.push(match (self.get(segment, rank), post) {
                (Contribution::Arrived(slot), _) => Operand::Slot {
                    start: shared.slots.start(slot),
                    bytes: common.layout.wire_bytes(segment),
                },
                (_, Post::Agrees { eager: Some(body) }) => {
                    let start = common.layout.offset_in_chunk(segment);
                    let bytes = common.layout.bytes(segment);
                    Operand::Eager(body.slice(start..start + bytes))
                }
                _ => Operand::Own(common.own(segment)),
            });
        }
        operands
    }

    fn cell(&self, segment: u32, rank: Rank) -> usize {
        (segment - self.owned.start) as usize * self.world_size + rank.index()
    }
}
