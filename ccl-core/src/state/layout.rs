//! The entries of a state, and the blocks that they are cut into.
//!
//! Blocks are numbered through all entries, in the order of the entries; each entry begins a new
//! block. Entries whose content may differ between members have no blocks.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::limits;
use crate::reduce::Dtype;

/// Length of a block in bytes; the last of an entry may be shorter.
pub const BLOCK_BYTES: usize = limits::SEGMENT_BYTES_MAX;

/// What all members must agree on about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, unique within the state.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extent of each dimension; empty for a scalar.
    pub shape: Vec<u64>,
    /// Whether members may hold different contents: it is neither compared nor moved.
    pub allow_inequality: bool,
}

impl Key {
    /// Elements; `None` beyond 2^64.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let mut extents = self.shape.iter();
        extents.try_fold(1_u64, |count, extent| count.checked_mul(*extent))
    }

    /// Bytes; `None` beyond 2^64.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.count()?.checked_mul(self.dtype.bytes() as u64)
    }
}

/// Where the blocks of a state lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Of each entry: its first block, and its bytes that take part.
    entries: Vec<(u32, u64)>,
    count: u32,
    bytes: u64,
    /// Length of a block, and of as many as one frame carries.
    block_bytes: usize,
}

/// Part of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the entry.
    pub entry: usize,
    /// Its bytes within the entry.
    pub bytes: Range<u64>,
}

impl Blocks {
    /// Cuts entries into blocks of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are more entries or blocks than limits allow.
    pub fn new(keys: &[Key]) -> Result<Self> {
        Self::with_block_bytes(keys, BLOCK_BYTES)
    }

    /// Cuts entries into blocks of another length, for a simulator with little memory. All members
    /// must use the same.
    ///
    /// # Errors
    /// As [`Blocks::new`].
    ///
    /// # Panics
    /// If blocks are empty, or longer than a frame.
    pub fn with_block_bytes(keys: &[Key], block_bytes: usize) -> Result<Self> {
        assert!(
            (1..=BLOCK_BYTES).contains(&block_bytes),
            "blocks fit frames"
        );
        if keys.len() > limits::STATE_ENTRIES_MAX {
            return Err(Error::invalid(format!(
                "too many entries in a shared state: at most {} are allowed",
                limits::STATE_ENTRIES_MAX
            )));
        }
        let too_large = || {
            Error::invalid(
                "the shared state is too large: at most 2^32 blocks of 256 KiB are allowed",
            )
        };
        let mut blocks = Self {
            block_bytes,
            ..Self::default()
        };
        for key in keys {
            let bytes = if key.allow_inequality {
                0
            } else {
                key.bytes().ok_or_else(too_large)?
            };
            blocks.entries.push((blocks.count, bytes));
            let more = u32::try_from(bytes.div_ceil(block_bytes as u64));
            let count = more.ok().and_then(|more| blocks.count.checked_add(more));
            blocks.count = count.ok_or_else(too_large)?;
            blocks.bytes = blocks.bytes.checked_add(bytes).ok_or_else(too_large)?;
        }
        Ok(blocks)
    }

    /// Number of blocks.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes in all blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The blocks of an entry.
    #[must_use]
    pub fn of_entry(&self, entry: usize) -> Range<u32> {
        let end = self
            .entries
            .get(entry + 1)
            .map_or(self.count, |next| next.0);
        self.entries[entry].0..end
    }

    /// The position of a block.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn span(&self, block: u32) -> Span {
        assert!(block < self.count, "block {block} of {}", self.count);
        // Entries without blocks share their first block with the entry that follows.
        let entry = self.entries.partition_point(|(first, _)| *first <= block) - 1;
        let (first, bytes) = self.entries[entry];
        let start = u64::from(block - first) * self.block_bytes as u64;
        Span {
            entry,
            bytes: start..(start + self.block_bytes as u64).min(bytes),
        }
    }

    /// Where the blocks from `first` on lie, to the last: cheaper than asking for each.
    pub fn spans_from(&self, first: u32) -> impl Iterator<Item = Span> + '_ {
        // Entries without blocks share their first block with the entry that follows.
        let of_first = self.entries.partition_point(|(start, _)| *start <= first);
        let entries = self
            .entries
            .iter()
            .enumerate()
            .skip(of_first.saturating_sub(1));
        entries.flat_map(move |(entry, &(start, bytes))| {
            let starts = (0..bytes).step_by(self.block_bytes);
            let skipped = first.saturating_sub(start) as usize;
            starts.skip(skipped).map(move |start| Span {
                entry,
                bytes: start..(start + self.block_bytes as u64).min(bytes),
            })
        })
    }

    /// Most bytes of blocks that share a frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Length of a block in bytes.
    #[must_use]
    pub fn block_bytes(&self, block: u32) -> usize {
        let Range { start, end } = self.span(block).bytes;
        (end - start) as usize
    }

    /// How many blocks from `first` on, and not beyond `end`, fit in one frame.
    #[must_use]
    pub fn run_from(&self, first: u32, end: u32) -> u32 {
        let mut bytes = 0;
        let mut count = 0;
        for block in first..end.min(self.count) {
            bytes += self.block_bytes(block);
            if bytes > self.block_bytes {
                break;
            }
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, count: u64, allow_inequality: bool) -> Key {
        Key {
            name: name.into(),
            dtype: Dtype::U8,
            shape: vec![count],
            allow_inequality,
        }
    }

    const BLOCK: u64 = BLOCK_BYTES as u64;

    #[test]
    fn every_byte_that_takes_part_lies_in_exactly_one_block() {
        let keys = [
            key("empty", 0, false),
            key("one", 1, false),
            key("free", 9, true),
            key("two", BLOCK + 1, false),
            key("exact", BLOCK, false),
            key("end", 0, false),
        ];
        let blocks = Blocks::new(&keys).unwrap();
        let spans: Vec<_> = (0..blocks.count())
            .map(|block| blocks.span(block))
            .collect();
        let expected = [
            (1, 0..1),
            (3, 0..BLOCK),
            (3, BLOCK..BLOCK + 1),
            (4, 0..BLOCK),
        ]
        .map(|(entry, bytes)| Span { entry, bytes });
        assert_eq!(spans, expected);
        for first in 0..=blocks.count() {
            let from: Vec<_> = blocks.spans_from(first).collect();
            assert_eq!(from, expected[first as usize..]);
        }
        assert_eq!(blocks.bytes(), 2 * BLOCK + 2);
        assert_eq!(blocks.of_entry(3), 1..3);
        assert_eq!(blocks.of_entry(2), 1..1);
        assert_eq!(blocks.of_entry(5), 4..4);
    }

    #[test]
    fn a_run_holds_as_many_blocks_as_one_frame_carries() {
        let keys: Vec<_> = (0..10)
            .map(|index| key(&index.to_string(), BLOCK / 4, false))
            .collect();
        let blocks = Blocks::new(&keys).unwrap();
        assert_eq!(blocks.run_from(0, 10), 4);
        assert_eq!(blocks.run_from(7, 10), 3);
        assert_eq!(blocks.run_from(0, 2), 2);
    }

    #[test]
    fn a_state_that_cannot_be_numbered_is_refused() {
        let keys = [key("much", u64::MAX, false)];
        assert!(Blocks::new(&keys).is_err());
    }
}
