//! Philox4x32-10, a counter-based generator: any word of its output is found without the others.
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). What keys
//! and counters stand for is decided where the words are used: `perturbation` and `codec`.

/// The part of a counter and the key that all blocks of one sequence share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Key: its low word is the generator's first key word.
    pub key: u64,
    /// Third and fourth counter word. The first two are the number of the block, low word first.
    pub high: [u32; 2],
}

impl Stream {
    /// The four words of one block.
    #[inline(always)]
    #[must_use]
    pub const fn block(self, number: u64) -> [u32; 4] {
        let (low, middle) = (number as u32, (number >> 32) as u32);
        let key = [self.key as u32, (self.key >> 32) as u32];
        philox4x32_10([low, middle, self.high[0], self.high[1]], key)
    }

    /// The words of [`ROW_BLOCKS`] blocks from block `first`, in order: word `4 * b + k` is word
    /// `k` of block `first + b`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn row(self, first: u64) -> [u32; ROW_WORDS] {
        let mut words = [0; ROW_WORDS];
        for (index, block) in words.as_chunks_mut().0.iter_mut().enumerate() {
            *block = self.block(first.wrapping_add(index as u64));
        }
        words
    }
}

/// Ten rounds, as in Random123.
#[inline(always)]
#[must_use]
pub const fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k, mut l] = key;
    let mut round = 0;
    while round < 10 {
        let left = a as u64 * 0xd251_1f53;
        let right = c as u64 * 0xcd9e_8d57;
        (a, b) = ((right >> 32) as u32 ^ b ^ k, right as u32);
        (c, d) = ((left >> 32) as u32 ^ d ^ l, left as u32);
        k = k.wrapping_add(0x9e37_79b9);
        l = l.wrapping_add(0xbb67_ae85);
        round += 1;
    }
    [a, b, c, d]
}

/// Words that the kernels make at once.
pub(crate) const ROW_WORDS: usize = 128;
/// Blocks that they come from.
pub(crate) const ROW_BLOCKS: u64 = ROW_WORDS as u64 / 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Random123 1.14, file `kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn the_known_answers_of_random123_are_given() {
        let ones = u32::MAX;
        let answers = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [ones; 4],
                [ones; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in answers {
            assert_eq!(philox4x32_10(counter, key), answer);
        }
    }

    #[test]
    fn key_and_block_number_enter_low_word_first() {
        let stream = Stream {
            key: 0x299f_31d0_a409_3822,
            high: [0x1319_8a2e, 0x0370_7344],
        };
        let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(stream.block(0x85a3_08d3_243f_6a88), answer);
    }

    #[test]
    fn a_row_is_its_blocks_in_order_across_a_carry() {
        let stream = Stream {
            key: 7,
            high: [1, 2],
        };
        for first in [0, 32, (1 << 32) - 3, u64::MAX - 31] {
            let row = stream.row(first);
            for (index, block) in row.as_chunks().0.iter().enumerate() {
                assert_eq!(*block, stream.block(first.wrapping_add(index as u64)));
            }
        }
    }
}
