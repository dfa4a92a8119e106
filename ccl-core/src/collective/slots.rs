//! The scratch memory of one peer, as places that contributions are received into.
//!
//! It is divided into units of the smallest segment, eight or fewer to a block of the largest. A
//! slot is a power of two of units inside one block, aligned to its own length, so that slots of
//! different lengths never leave a hole that only the longest would fit.

/// One reserved place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    unit: u32,
    units: u8,
}

/// Which units are taken.
#[derive(Debug)]
pub(super) struct SlotPool {
    unit_bytes: usize,
    units_per_block: u32,
    /// One bit a unit, set when it is taken.
    blocks: Vec<u8>,
    /// Where the search begins: blocks before it are full.
    hint: usize,
    free_units: u32,
}

impl SlotPool {
    /// Scratch memory of whole blocks.
    ///
    /// # Panics
    /// If a block is no power of two of at most eight units.
    pub(super) fn new(unit_bytes: usize, block_bytes: usize, scratch_bytes: usize) -> Self {
        let units_per_block = u32::try_from(block_bytes / unit_bytes).expect("at most eight");
        assert!(
            units_per_block.is_power_of_two() && units_per_block <= 8,
            "a block is a power of two of at most eight units"
        );
        let blocks = scratch_bytes / block_bytes;
        Self {
            unit_bytes,
            units_per_block,
            blocks: vec![0; blocks],
            hint: 0,
            free_units: units_per_block * u32::try_from(blocks).expect("scratch is in memory"),
        }
    }

    /// Units that a segment takes.
    pub(super) fn units_of(&self, segment_bytes: usize) -> u32 {
        let units = segment_bytes.div_ceil(self.unit_bytes).next_power_of_two();
        u32::try_from(units).expect("segments are at most a block")
    }

    /// Units of the whole scratch memory.
    pub(super) fn unit_count(&self) -> u32 {
        self.units_per_block * u32::try_from(self.blocks.len()).expect("scratch is in memory")
    }

    /// Units that nobody holds.
    #[cfg(test)]
    pub(super) fn free_units(&self) -> u32 {
        self.free_units
    }

    /// Reserves a slot for a segment.
    pub(super) fn take(&mut self, segment_bytes: usize) -> Option<Slot> {
        let units = self.units_of(segment_bytes);
        assert!(
            units <= self.units_per_block,
            "segments are at most a block"
        );
        if self.free_units < units {
            return None;
        }
        let full = low_bits(self.units_per_block);
        while self.blocks.get(self.hint) == Some(&full) {
            self.hint += 1;
        }
        let mask = low_bits(units);
        for block in self.hint..self.blocks.len() {
            let taken = self.blocks[block];
            let mut at = 0;
            while at < self.units_per_block {
                if taken & (mask << at) == 0 {
                    self.blocks[block] |= mask << at;
                    self.free_units -= units;
                    let block = u32::try_from(block).expect("scratch is in memory");
                    return Some(Slot {
                        unit: block * self.units_per_block + at,
                        units: u8::try_from(units).expect("at most eight"),
                    });
                }
                at += units;
            }
        }
        None
    }

    /// Gives a slot back.
    pub(super) fn free(&mut self, slot: Slot) {
        let block = (slot.unit / self.units_per_block) as usize;
        let mask = low_bits(u32::from(slot.units)) << (slot.unit % self.units_per_block);
        assert!(self.blocks[block] & mask == mask, "a slot is freed once");
        self.blocks[block] &= !mask;
        self.free_units += u32::from(slot.units);
        self.hint = self.hint.min(block);
    }

    /// First byte of a slot in the scratch memory.
    pub(super) fn start(&self, slot: Slot) -> usize {
        slot.unit as usize * self.unit_bytes
    }
}

fn low_bits(count: u32) -> u8 {
    u8::try_from((1_u32 << count) - 1).expect("at most eight bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_overlap_and_all_come_back() {
        let mut pool = SlotPool::new(64, 256, 1024);
        let lengths = [64, 256, 100, 1, 128, 200, 64, 64];
        let slots: Vec<_> = lengths
            .iter()
            .map_while(|&bytes| pool.take(bytes))
            .collect();
        assert_eq!(slots.len(), 8, "1 + 4 + 2 + 1 + 2 + 4 + 1 + 1 units are 16");
        let mut seen = [false; 16];
        for slot in &slots {
            for unit in slot.unit..slot.unit + u32::from(slot.units) {
                assert!(!std::mem::replace(&mut seen[unit as usize], true));
            }
        }
        slots.into_iter().for_each(|slot| pool.free(slot));
        assert_eq!(pool.free_units(), 16);
        let blocks: Vec<_> = (0..4).map_while(|_| pool.take(256)).collect();
        assert_eq!(blocks.len(), 4);
        assert!(pool.take(1).is_none());
    }

    #[test]
    #[should_panic(expected = "freed once")]
    fn a_slot_freed_twice_is_noticed() {
        let mut pool = SlotPool::new(64, 64, 128);
        let slot = pool.take(64).unwrap();
        pool.free(slot);
        pool.free(slot);
    }
}
