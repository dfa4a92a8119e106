//! The contributions to the chunk that a peer owns: which may be sent, which have arrived.

use std::ops::Range;

use super::ahead::Came;
use super::operation::{Common, Post, Shared};
use super::reserve::Reserve;
use super::slots::{Slot, SlotPool};
use super::step::Operand;
use crate::ids::Rank;
use crate::mutation::{Mutation, is_active};

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
    /// Sent ahead; it has room in the reserve.
    Ahead,
    /// Received ahead, from this byte of the scratch memory.
    Came(usize),
    /// Added; its slot is somebody else's.
    Added,
}

/// Segments that may be let in at once, and the slots that they need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitting {
    pub(super) count: u32,
    pub(super) slots: u32,
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
    /// By owned segment: contributions that have not arrived.
    missing: Vec<u32>,
    /// By rank: of how many first segments the contribution came ahead and found room.
    ahead: Vec<u32>,
    /// By rank: how many of those are not added.
    ahead_left: Vec<u32>,
}

impl Contributions {
    /// Nothing let in. Takes no memory where nothing is combined.
    pub(super) fn new(common: &Common) -> Self {
        let owned = common.layout.owned(common.rank);
        let is_combined = common.is_reduction() && !common.is_own_input();
        let count = if is_combined { owned.len() } else { 0 };
        Self {
            owned,
            world_size: common.world_size(),
            senders: Vec::new(),
            cells: vec![Contribution::Absent; count * common.world_size()],
            missing: vec![0; count],
            ahead: vec![0; common.world_size()],
            ahead_left: vec![0; common.world_size()],
        }
    }

    /// The contribution of a member to so many first segments has room in the reserve.
    pub(super) fn expect_ahead(&mut self, from: Rank, count: u32) {
        self.ahead[from.index()] = count;
        self.ahead_left[from.index()] = count;
    }

    /// All members have posted: says whose data did not come along, and what came ahead.
    pub(super) fn begin(&mut self, common: &mut Common, reserve: &Reserve) {
        let needs_more = |&rank: &Rank| {
            let post = &common.posts[rank.index()];
            common.contributes(rank) && !matches!(post, Post::Agrees { eager: Some(_) })
        };
        self.senders = common.others().filter(needs_more).collect();
        self.missing.fill(self.senders.len() as u32);
        for index in 0..self.senders.len() {
            let from = self.senders[index];
            let peer = common.members[from.index()];
            for segment in self.owned.start..self.owned.start + self.ahead[from.index()] {
                let cell = self.cell(segment, from);
                self.cells[cell] = Contribution::Ahead;
                let bytes = common.layout.wire_bytes(segment);
                let run = reserve.arrived(peer, common.name, segment);
                if let Some(Range { start, .. }) = run.filter(|run| run.len() == bytes) {
                    self.take_ahead(Came {
                        from,
                        segment,
                        start,
                    });
                    common.moved_bytes += bytes as u64;
                }
            }
        }
    }

    /// Members whose contributions did not come with their posts.
    pub(super) fn senders(&self) -> &[Rank] {
        &self.senders
    }

    /// Whether every contribution to a segment is here.
    pub(super) fn is_complete(&self, segment: u32) -> bool {
        self.missing[(segment - self.owned.start) as usize] == 0
    }

    /// Slots that a segment needs.
    pub(super) fn needed(&self, segment: u32) -> u32 {
        let needs_slot = |from: &&Rank| !self.is_ahead(segment, **from);
        self.senders.iter().filter(needs_slot).count() as u32
    }

    /// How many of these segments may be let in, with room for so many slots.
    pub(super) fn fitting(&self, segments: Range<u32>, room: u32) -> Fitting {
        let mut fitting = Fitting { count: 0, slots: 0 };
        for segment in segments {
            let slots = fitting.slots + self.needed(segment);
            if slots > room {
                break;
            }
            fitting.count += 1;
            fitting.slots = slots;
        }
        fitting
    }

    /// Those of these segments that a member is to be asked for.
    pub(super) fn wanted(&self, segments: Range<u32>, from: Rank) -> Range<u32> {
        let first = self.owned.start + self.ahead[from.index()];
        first.clamp(segments.start, segments.end)..segments.end
    }

    /// Whether the contribution of a member to a segment came ahead and found room.
    pub(super) fn is_ahead(&self, segment: u32, from: Rank) -> bool {
        segment - self.owned.start < self.ahead[from.index()]
    }

    pub(super) fn get(&self, segment: u32, from: Rank) -> Contribution {
        self.cells[self.cell(segment, from)]
    }

    /// Lets in the contributions to a segment, for which slots are reserved.
    pub(super) fn let_in(&mut self, segment: u32) {
        for index in 0..self.senders.len() {
            let from = self.senders[index];
            let cell = self.cell(segment, from);
            if !self.is_ahead(segment, from) {
                self.cells[cell] = Contribution::Reserved;
            }
        }
    }

    /// A segment that was sent ahead is here, from this byte: whether it is the last contribution;
    /// `None` if nobody waited for it.
    pub(super) fn take_ahead(&mut self, came: Came) -> Option<bool> {
        let Came {
            from,
            segment,
            start,
        } = came;
        let cell = self.cell(segment, from);
        if self.cells[cell] != Contribution::Ahead {
            return None;
        }
        self.cells[cell] = Contribution::Came(start);
        Some(self.count_arrival(segment))
    }

    /// A segment is added: the members of which all that came ahead is added now.
    pub(super) fn used_up(&mut self, segment: u32) -> Vec<Rank> {
        let mut used_up = Vec::new();
        for index in 0..self.senders.len() {
            let from = self.senders[index];
            if self.is_ahead(segment, from) {
                let left = &mut self.ahead_left[from.index()];
                *left -= 1;
                if *left == 0 || is_active(Mutation::ReserveFreedEarly) {
                    used_up.push(from);
                }
            }
        }
        used_up
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
                Contribution::Ahead | Contribution::Came(_) => {
                    *cell = Contribution::Added;
                    continue;
                }
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
        Some(self.count_arrival(segment))
    }

    fn count_arrival(&mut self, segment: u32) -> bool {
        let missing = &mut self.missing[(segment - self.owned.start) as usize];
        *missing -= 1;
        *missing == 0
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
            if !common.contributes(rank) {
                continue;
            }
            operands.push(match (self.get(segment, rank), post) {
                (Contribution::Arrived(slot), _) => Operand::Slot {
                    start: shared.slots.start(slot),
                    bytes: common.layout.wire_bytes(segment),
                },
                (Contribution::Came(start), _) => Operand::Slot {
                    start,
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
        if common.layout.is_one_shot() && is_active(Mutation::OneShotOwnFirst) {
            operands.swap(0, common.rank.index());
        }
        operands
    }

    fn cell(&self, segment: u32, rank: Rank) -> usize {
        (segment - self.owned.start) as usize * self.world_size + rank.index()
    }
}
