//! Encodings of 8, 4 and 2 bits with a scale for each block.

use super::pack::{Codes, is_padded_with_zeros, pack, unpack};
use super::sweep::{Block, Format, MAGNITUDE, Noise, largest, narrow_bf16};
use super::{BLOCK_ELEMENTS, DecodeError};

/// An f32 scale, then one signed byte an element.
pub(super) struct Int8;
/// A bf16 scale, then half a byte an element.
pub(super) struct Int4;
/// A bf16 scale, then a quarter of a byte an element.
pub(super) struct Int2;
/// The greatest exponent, then half a byte an element: powers of two.
pub(super) struct E3m0;

impl Format for Int8 {
    const BITS: usize = 8;
    const SCALE_BYTES: usize = 4;

    #[inline(always)]
    fn encode<const STOCHASTIC: bool>(values: &Block, noise: &Noise, count: usize, out: &mut [u8]) {
        let scale = (f32::from_bits(largest(values)) / 127.0).min(INT8_SCALE_MAX);
        let mut codes = [0; BLOCK_ELEMENTS];
        quantise::<STOCHASTIC, 127>(scale, values, noise, &mut codes);
        out[..4].copy_from_slice(&scale.to_le_bytes());
        out[4..].copy_from_slice(&codes[..count]);
    }

    #[inline(always)]
    fn decode(encoded: &[u8], _count: usize, values: &mut Block) {
        let (scale, codes) = encoded.split_first_chunk().expect("a block has a scale");
        let scale = f32::from_le_bytes(*scale);
        for (value, code) in values.iter_mut().zip(codes) {
            *value = f32::from(*code as i8) * scale;
        }
    }

    #[inline(always)]
    fn validate(encoded: &[u8], _count: usize, block: usize) -> Result<(), DecodeError> {
        let (scale, _) = encoded.split_first_chunk().expect("a block has a scale");
        check_scale(u32::from_le_bytes(*scale), INT8_SCALE_MAX, block)
    }
}

/// A format whose codes are signed integers of `$bits` bits, with a bf16 scale.
macro_rules! small {
    ($format:ty: $bits:literal, scale at most $scale_max:expr, $quantise:expr) => {
        impl Format for $format {
            const BITS: usize = $bits;
            const SCALE_BYTES: usize = 2;

            #[inline(always)]
            fn encode<const STOCHASTIC: bool>(
                values: &Block,
                noise: &Noise,
                count: usize,
                out: &mut [u8],
            ) {
                let mut codes = [0; BLOCK_ELEMENTS];
                let block = Values { values, noise };
                let scale: u16 = $quantise(&block, STOCHASTIC, &mut codes);
                out[..2].copy_from_slice(&scale.to_le_bytes());
                pack::<$bits>(&codes, count, &mut out[2..]);
            }

            #[inline(always)]
            fn decode(encoded: &[u8], count: usize, values: &mut Block) {
                let (scale, packed) = encoded.split_first_chunk().expect("a block has a scale");
                let scale = f32::from_bits(u32::from(u16::from_le_bytes(*scale)) << 16);
                let mut codes = [0; BLOCK_ELEMENTS];
                unpack::<$bits>(packed, count, &mut codes);
                for (value, code) in values.iter_mut().zip(&codes) {
                    // Shifted to the top and back, the highest bit of the code is its sign.
                    let code = (*code << (8 - $bits)) as i8 >> (8 - $bits);
                    *value = f32::from(code) * scale;
                }
            }

            #[inline(always)]
            fn validate(encoded: &[u8], count: usize, block: usize) -> Result<(), DecodeError> {
                let (scale, packed) = encoded.split_first_chunk().expect("a block has a scale");
                let scale = u32::from(u16::from_le_bytes(*scale)) << 16;
                check_scale(scale, $scale_max, block)?;
                check_padding::<$bits>(packed, count, block)
            }
        }
    };
}

small!(Int4: 4, scale at most INT4_SCALE_MAX, quantise_int4);
small!(Int2: 2, scale at most INT2_SCALE_MAX, quantise_int2);

/// What is quantised.
struct Values<'a> {
    values: &'a Block,
    noise: &'a Noise,
}

#[inline(always)]
fn quantise_int4(block: &Values<'_>, is_stochastic: bool, codes: &mut Codes) -> u16 {
    let exact = f32::from_bits(largest(block.values)) / 7.0;
    let code = scale_code(exact.min(INT4_SCALE_MAX), is_stochastic);
    let scale = f32::from_bits(u32::from(code) << 16);
    if is_stochastic {
        quantise::<true, 7>(scale, block.values, block.noise, codes);
    } else {
        quantise::<false, 7>(scale, block.values, block.noise, codes);
    }
    code
}

/// Stochastic: the scale is the greatest absolute value, so that the mean error is 0. Nearest: the
/// elements above a threshold are sent, and the scale is the mean of their absolute values; the
/// squared error is then that of zeros less `sum^2 / count`, and the best of eight thresholds is
/// taken. A fixed one would let error feedback pile up where one element is much larger than
/// others.
#[inline(always)]
fn quantise_int2(block: &Values<'_>, is_stochastic: bool, codes: &mut Codes) -> u16 {
    let top = f32::from_bits(largest(block.values));
    if is_stochastic {
        let code = scale_code(top.min(INT2_SCALE_MAX), true);
        let scale = f32::from_bits(u32::from(code) << 16);
        quantise::<true, 1>(scale, block.values, block.noise, codes);
        return code;
    }
    // In units of 2^-15 of the greatest value: integers, whose sums are exact in any order.
    let mut sizes = [0_i32; BLOCK_ELEMENTS];
    let divisor = if top > 0.0 { top } else { 1.0 };
    for (size, value) in sizes.iter_mut().zip(block.values) {
        *size = floor(value.abs() / divisor * 32_768.0);
    }
    let mut best = Sent::above(INT2_THRESHOLDS[0], &sizes);
    for threshold in &INT2_THRESHOLDS[1..] {
        let sent = Sent::above(*threshold, &sizes);
        best = if sent.is_better_than(&best) {
            sent
        } else {
            best
        };
    }
    let share = best.sum as f32 / (best.count.max(1) * 32_768) as f32;
    let code = scale_code((top * share).min(INT2_SCALE_MAX), false);
    if code != 0 {
        for ((code, size), value) in codes.iter_mut().zip(&sizes).zip(block.values) {
            let sign = if value.is_sign_negative() { 0xff } else { 1 };
            *code = if *size > best.threshold { sign } else { 0 };
        }
    }
    code
}

/// The elements above a threshold.
struct Sent {
    threshold: i32,
    sum: i32,
    count: i32,
}

impl Sent {
    #[inline(always)]
    fn above(threshold: i32, sizes: &[i32; BLOCK_ELEMENTS]) -> Self {
        let (mut sum, mut count) = (0, 0);
        for size in sizes {
            let is_sent = *size > threshold;
            sum += if is_sent { *size } else { 0 };
            count += i32::from(is_sent);
        }
        Self {
            threshold,
            sum,
            count,
        }
    }

    /// Whether `sum^2 / count` is greater.
    #[inline(always)]
    fn is_better_than(&self, other: &Self) -> bool {
        let square = |sum: i32| i64::from(sum) * i64::from(sum);
        square(self.sum) * i64::from(other.count) > square(other.sum) * i64::from(self.count)
    }
}

impl Format for E3m0 {
    const BITS: usize = 4;
    const SCALE_BYTES: usize = 1;

    #[inline(always)]
    fn encode<const STOCHASTIC: bool>(values: &Block, noise: &Noise, count: usize, out: &mut [u8]) {
        let surplus = if STOCHASTIC { 0x7f_ffff } else { 0x40_0000 };
        let top = ((largest(values) + surplus) >> 23).min(EXPONENT_MAX);
        let least = top.saturating_sub(6).max(1);
        let step = f32::from_bits(least << 23);
        let mut codes = [0; BLOCK_ELEMENTS];
        for ((code, value), noise) in codes.iter_mut().zip(values).zip(noise) {
            let magnitude = value.to_bits() & MAGNITUDE;
            let surplus = if STOCHASTIC { noise << 7 } else { 0x40_0000 };
            let mut exponent = ((magnitude + surplus) >> 23).min(EXPONENT_MAX);
            if STOCHASTIC {
                let share = f32::from_bits(magnitude).min(step) / step;
                let share = floor(share * 65_536.0) as u32;
                let small = if *noise < share { least } else { 0 };
                exponent = if magnitude >> 23 < least {
                    small
                } else {
                    exponent
                };
            }
            let level = if exponent < least {
                0
            } else {
                exponent + 7 - top
            };
            let sign = if level == 0 {
                0
            } else {
                value.to_bits() >> 28 & 8
            };
            *code = (level | sign) as u8;
        }
        out[0] = top as u8;
        pack::<4>(&codes, count, &mut out[1..]);
    }

    #[inline(always)]
    fn decode(encoded: &[u8], count: usize, values: &mut Block) {
        let (top, packed) = encoded.split_first().expect("a block has a scale");
        let top = i32::from(*top);
        let mut codes = [0; BLOCK_ELEMENTS];
        unpack::<4>(packed, count, &mut codes);
        for (value, code) in values.iter_mut().zip(&codes) {
            let level = i32::from(*code & 7);
            let exponent = top - 7 + level;
            let bits = (exponent as u32) << 23 | u32::from(*code & 8) << 28;
            let is_zero = level == 0 || exponent <= 0;
            *value = f32::from_bits(if is_zero { 0 } else { bits });
        }
    }

    #[inline(always)]
    fn validate(encoded: &[u8], count: usize, block: usize) -> Result<(), DecodeError> {
        let (top, packed) = encoded.split_first().expect("a block has a scale");
        if u32::from(*top) > EXPONENT_MAX {
            return Err(DecodeError::NotFinite { block });
        }
        check_padding::<4>(packed, count, block)
    }
}

/// Whole multiples of the scale, from `-LIMIT` to `LIMIT`; zeros if it is zero.
#[inline(always)]
fn quantise<const STOCHASTIC: bool, const LIMIT: i32>(
    scale: f32,
    values: &Block,
    noise: &Noise,
    codes: &mut Codes,
) {
    if scale == 0.0 {
        return;
    }
    for ((code, value), noise) in codes.iter_mut().zip(values).zip(noise) {
        let exact = value / scale;
        let whole = if STOCHASTIC {
            floor(exact + *noise as f32 / 65_536.0)
        } else {
            nearest(exact)
        };
        *code = whole.clamp(-LIMIT, LIMIT) as u8;
    }
}

/// A scale as bf16: to nearest, or, so that no value exceeds its greatest multiple, up.
#[inline(always)]
fn scale_code(scale: f32, is_up: bool) -> u16 {
    if is_up {
        ((scale.to_bits() + 0xffff) >> 16) as u16
    } else {
        narrow_bf16(scale)
    }
}

/// To the nearest whole number, ties to even, for absolute values below 2^22.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    ((value + PUSH).to_bits() as i32).wrapping_sub(PUSH.to_bits() as i32)
}

/// The whole number at or below, for absolute values below 2^22.
#[inline(always)]
pub(super) fn floor(value: f32) -> i32 {
    let rounded = (value + PUSH) - PUSH;
    nearest(value) - i32::from(rounded > value)
}

#[inline(always)]
fn check_scale(bits: u32, scale_max: f32, block: usize) -> Result<(), DecodeError> {
    if bits <= scale_max.to_bits() {
        Ok(())
    } else {
        Err(DecodeError::NotFinite { block })
    }
}

#[inline(always)]
fn check_padding<const BITS: usize>(
    packed: &[u8],
    count: usize,
    block: usize,
) -> Result<(), DecodeError> {
    if count == BLOCK_ELEMENTS || is_padded_with_zeros::<BITS>(packed, count) {
        Ok(())
    } else {
        Err(DecodeError::Padding { block })
    }
}

/// 1.5 * 2^23: an f32 of this size has no digits after the point, and its lowest bits count.
const PUSH: f32 = 12_582_912.0;
/// The greatest exponent of a finite f32, with its bias.
const EXPONENT_MAX: u32 = 254;
/// The greatest f32 over 128: no code times a scale overflows.
const INT8_SCALE_MAX: f32 = f32::from_bits(0x7f7f_ffff - (7 << 23));
/// The greatest bf16 over 8.
const INT4_SCALE_MAX: f32 = f32::from_bits(0x7f7f_0000 - (3 << 23));
/// The greatest bf16 over 2.
const INT2_SCALE_MAX: f32 = f32::from_bits(0x7f7f_0000 - (1 << 23));
/// In units of 2^-15 of the greatest absolute value. For normally distributed values the best
/// threshold is near 0.22.
const INT2_THRESHOLDS: [i32; 8] = [2_048, 4_096, 6_144, 8_192, 12_288, 16_384, 20_480, 24_576];
