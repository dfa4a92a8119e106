//! A set of segments of one operation, one bit each.

/// Which segments; allocated once.
#[derive(Clone, Debug)]
pub(super) struct SegmentSet {
    words: Vec<u64>,
}

impl SegmentSet {
    /// Without segments, for an operation of `count`.
    pub(super) fn new(count: u32) -> Self {
        Self {
            words: vec![0; count.div_ceil(64) as usize],
        }
    }

    pub(super) fn contains(&self, segment: u32) -> bool {
        self.words[segment as usize / 64] >> (segment % 64) & 1 == 1
    }

    /// Adds a segment; false if it was there.
    pub(super) fn insert(&mut self, segment: u32) -> bool {
        let word = &mut self.words[segment as usize / 64];
        let bit = 1 << (segment % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_new_once() {
        let mut set = SegmentSet::new(130);
        assert!(set.insert(129));
        assert!(!set.insert(129));
        assert!(set.contains(129));
        assert!(!set.contains(65));
    }
}
