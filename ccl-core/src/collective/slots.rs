//! The scratch memory of one peer: slots of equal length that contributions are received into.
//!
//! A credit reserves a slot, but does not yet choose one. The slot is chosen when the frame's
//! header arrives, most recently used first. So many segments may be in flight while the few slots
//! in use stay in the cache, and scratch memory that no sender is fast enough to fill is never
//! allocated.
//!
//! A slot has the length of the largest segment at some world size. While slots of one length are
//! reserved, no other length is handed out; that happens only across a view change.

/// Index of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// Which places are reserved and which are in use.
#[derive(Debug)]
pub(super) struct SlotPool {
    scratch_bytes: usize,
    slot_bytes: usize,
    /// Reserved, in use included.
    reserved: u32,
    /// Given back, the last one on top.
    free: Vec<Slot>,
    /// Slots below were used before.
    used: u32,
}

impl SlotPool {
    /// A pool in which nothing is reserved.
    pub(super) fn new(scratch_bytes: usize) -> Self {
        Self {
            scratch_bytes,
            slot_bytes: 1,
            reserved: 0,
            free: Vec::new(),
            used: 0,
        }
    }

    /// How many slots of this length the scratch memory has.
    pub(super) fn capacity(&self, slot_bytes: usize) -> u32 {
        u32::try_from(self.scratch_bytes / slot_bytes).expect("slots are no crumbs")
    }

    /// How many slots of this length may be reserved now.
    pub(super) fn room(&self, slot_bytes: usize) -> u32 {
        match self.reserved {
            0 => self.capacity(slot_bytes),
            reserved if self.slot_bytes == slot_bytes => self.capacity(slot_bytes) - reserved,
            _ => 0,
        }
    }

    /// Reserves so many slots.
    ///
    /// # Panics
    /// If there is no room for them.
    pub(super) fn reserve(&mut self, count: u32, slot_bytes: usize) {
        if count == 0 {
            return;
        }
        assert!(
            count <= self.room(slot_bytes),
            "the caller has asked for the room"
        );
        if self.slot_bytes != slot_bytes {
            self.slot_bytes = slot_bytes;
            self.free.clear();
            self.used = 0;
        }
        self.reserved += count;
    }

    /// Chooses a slot for somebody who has reserved one.
    pub(super) fn take(&mut self) -> Slot {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        assert!(
            self.used < self.reserved,
            "whoever takes a slot has reserved it"
        );
        self.used += 1;
        Slot(self.used - 1)
    }

    /// Gives a slot back; it stays reserved.
    pub(super) fn put_back(&mut self, slot: Slot) {
        debug_assert!(!self.free.contains(&slot), "a slot is given back once");
        self.free.push(slot);
    }

    /// Gives up reservations of slots that are not in use.
    pub(super) fn release(&mut self, count: u32) {
        let reserved = self.reserved.checked_sub(count);
        self.reserved = reserved.expect("what is released was reserved");
    }

    /// Slots that are reserved.
    pub(super) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// First byte of a slot in the scratch memory.
    pub(super) fn start(&self, slot: Slot) -> usize {
        slot.0 as usize * self.slot_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_end_where_the_scratch_memory_ends() {
        let mut pool = SlotPool::new(1000);
        assert_eq!(pool.room(256), 3);
        pool.reserve(2, 256);
        assert_eq!(pool.room(256), 1);
        pool.release(1);
        assert_eq!(pool.room(256), 2);
    }

    #[test]
    fn the_slot_used_last_is_used_next() {
        let mut pool = SlotPool::new(1024);
        pool.reserve(4, 256);
        let (a, b) = (pool.take(), pool.take());
        assert_ne!(pool.start(a), pool.start(b));
        pool.put_back(a);
        assert_eq!(pool.take(), a);
        let another = pool.take();
        assert_eq!(pool.start(another), 512, "a new one only if all are in use");
    }

    #[test]
    fn slots_of_another_length_wait_until_none_is_reserved() {
        let mut pool = SlotPool::new(1024);
        pool.reserve(1, 256);
        let slot = pool.take();
        assert_eq!(pool.room(64), 0);
        pool.put_back(slot);
        assert_eq!(pool.room(64), 0);
        pool.release(1);
        assert_eq!(pool.room(64), 16);
        pool.reserve(16, 64);
        let slots: Vec<Slot> = (0..16).map(|_| pool.take()).collect();
        let starts: Vec<usize> = slots.into_iter().map(|slot| pool.start(slot)).collect();
        assert_eq!(starts, (0..16).map(|index| index * 64).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "has reserved it")]
    fn a_slot_without_a_reservation_is_noticed() {
        SlotPool::new(1024).take();
    }
}
