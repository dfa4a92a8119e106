//! How the words of Philox become the integers of a tile.
//!
//! A tile is 32 rows of 128 weights. Row r holds weights 128 r to 128 r + 127. The loops over rows
//! are where the integers are used.

use super::TILE_WEIGHTS;
use crate::philox::{ROW_BLOCKS, ROW_WORDS, Stream};

/// One distribution. An integer is its part, which is at least 0, plus `OFFSET`.
pub(super) trait Draw {
    const OFFSET: i64;

    /// Words for row `row` of tile `tile`, one a weight.
    fn words(stream: Stream, tile: u64, row: usize) -> [u32; ROW_WEIGHTS];

    /// Makes the words anew if this row has others than the row before.
    fn refresh(words: &mut [u32; ROW_WEIGHTS], stream: Stream, tile: u64, row: usize);

    /// The integer of a weight in row `row`, from its word.
    fn value(word: u32, row: usize) -> i32;

    /// Its part, times `coefficient`.
    fn scaled<T: Total>(word: u32, row: usize, coefficient: T) -> T;
}

/// Bit r of word j belongs to weight j of row r: all rows share one row of words, and a vector of
/// words gives a vector of weights without a shuffle.
pub(super) struct RademacherDraw;

impl Draw for RademacherDraw {
    const OFFSET: i64 = -1;

    #[inline(always)]
    fn words(stream: Stream, tile: u64, _row: usize) -> [u32; ROW_WEIGHTS] {
        stream.row(tile.wrapping_mul(ROW_BLOCKS))
    }

    #[inline(always)]
    fn refresh(words: &mut [u32; ROW_WEIGHTS], stream: Stream, tile: u64, row: usize) {
        if row == 0 {
            *words = Self::words(stream, tile, row);
        }
    }

    #[inline(always)]
    fn value(word: u32, row: usize) -> i32 {
        if word & 1 << row == 0 { -1 } else { 1 }
    }

    #[inline(always)]
    fn scaled<T: Total>(word: u32, row: usize, coefficient: T) -> T {
        if word & 1 << row == 0 {
            T::of(0)
        } else {
            coefficient.plus(coefficient)
        }
    }
}

/// One word a weight, in order.
pub(super) struct IrwinHallDraw;

impl Draw for IrwinHallDraw {
    const OFFSET: i64 = -510;

    #[inline(always)]
    fn words(stream: Stream, tile: u64, row: usize) -> [u32; ROW_WEIGHTS] {
        let blocks_before = tile.wrapping_mul(TILE_ROWS as u64).wrapping_add(row as u64);
        stream.row(blocks_before.wrapping_mul(ROW_BLOCKS))
    }

    #[inline(always)]
    fn refresh(words: &mut [u32; ROW_WEIGHTS], stream: Stream, tile: u64, row: usize) {
        *words = Self::words(stream, tile, row);
    }

    #[inline(always)]
    fn value(word: u32, _row: usize) -> i32 {
        byte_sum(word) as i32 - 510
    }

    #[inline(always)]
    fn scaled<T: Total>(word: u32, _row: usize, coefficient: T) -> T {
        coefficient.times(byte_sum(word))
    }
}

/// Two sums of two bytes side by side, then the sum of those.
#[inline(always)]
fn byte_sum(word: u32) -> u32 {
    let pairs = (word & 0x00ff_00ff) + (word >> 8 & 0x00ff_00ff);
    (pairs + (pairs >> 16)) & 0xffff
}

/// An exact sum. Intermediate sums may wrap: the caller has shown that the final one fits.
pub(super) trait Total: Copy {
    fn of(value: i64) -> Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, factor: u32) -> Self;
    /// To nearest, ties to even.
    fn rounded(self) -> f32;
}

macro_rules! total {
    ($($int:ty),*) => {$(
        impl Total for $int {
            #[inline(always)]
            fn of(value: i64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn times(self, factor: u32) -> Self {
                self.wrapping_mul(factor as Self)
            }

            #[inline(always)]
            fn rounded(self) -> f32 {
                self as f32
            }
        }
    )*};
}

total!(i32, i64);

/// Weights of a row.
pub(super) const ROW_WEIGHTS: usize = ROW_WORDS;
/// Rows of a tile: one for each bit of a word.
pub(super) const TILE_ROWS: usize = u32::BITS as usize;
const _: () = assert!(TILE_ROWS * ROW_WEIGHTS == TILE_WEIGHTS);
