//! Things that are due at a time, the earliest first.
//!
//! Of those due at the same time the one added first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A queue by time. The heap moves small entries only; what is due stays where it is.
#[derive(Debug)]
pub struct Timeline<T> {
    heap: BinaryHeap<Reverse<Entry>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    added: u64,
}

/// Ordered by time, then by when it was added.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    due: Duration,
    number: u64,
    slot: usize,
}

impl<T> Timeline<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            added: 0,
        }
    }

    /// Adds something due at this time.
    pub fn push(&mut self, due: Duration, item: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let previous = self.slots[slot].replace(item);
        assert!(previous.is_none(), "a free slot is empty");
        self.added += 1;
        self.heap.push(Reverse(Entry {
            due,
            number: self.added,
            slot,
        }));
    }

    /// When the next is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.0.due)
    }

    /// The next that is due at `now` or was before, and when it was due.
    pub fn pop(&mut self, now: Duration) -> Option<(Duration, T)> {
        self.next_due().filter(|due| *due <= now)?;
        let Reverse(entry) = self.heap.pop()?;
        self.free.push(entry.slot);
        let item = self.slots[entry.slot].take();
        Some((entry.due, item.expect("an entry's slot is filled")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_comes_before_its_time() {
        let mut timeline = Timeline::new();
        timeline.push(Duration::from_millis(5), 'a');
        assert_eq!(timeline.pop(Duration::from_micros(4999)), None);
        let due = Duration::from_millis(5);
        assert_eq!(timeline.next_due(), Some(due));
        assert_eq!(timeline.pop(due), Some((due, 'a')));
        assert_eq!(timeline.pop(Duration::MAX), None);
    }

    proptest! {
        /// What comes out is what went in, sorted by time and, at the same time, by order of
        /// arrival, however pushes and pops alternate.
        #[test]
        fn the_earliest_comes_first(
            steps in prop::collection::vec((0_u64..50, 0_usize..3), 1..200),
        ) {
            let mut timeline = Timeline::new();
            let mut expected = Vec::new();
            for (number, (micros, pops)) in steps.into_iter().enumerate() {
                let due = Duration::from_micros(micros);
                timeline.push(due, number);
                expected.push((due, number));
                for _ in 0..pops {
                    expected.sort_unstable();
                    let first = (!expected.is_empty()).then(|| expected.remove(0));
                    prop_assert_eq!(timeline.pop(Duration::MAX), first);
                }
            }
            expected.sort_unstable();
            for entry in expected {
                prop_assert_eq!(timeline.pop(Duration::MAX), Some(entry));
            }
            prop_assert_eq!(timeline.pop(Duration::MAX), None);
        }
    }
}
