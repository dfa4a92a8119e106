//! Encodings of 16 and 32 bits, which need no scale.

use super::sweep::{Block, Format, INFINITY, MAGNITUDE, Noise, narrow_bf16, narrow_f16};
use super::{BLOCK_ELEMENTS, DecodeError};
use crate::codec::block::floor;
use crate::number::{Bf16, F16, Number};

/// An f32, little end first.
pub(super) struct WideF32;
/// The upper half of an f32, little end first.
pub(super) struct WideBf16;
/// An f16, little end first.
pub(super) struct WideF16;

/// `$code` encodes a value, given noise or `None`; `$value` decodes; codes whose bits without the
/// sign are `$infinity` or more are not finite.
macro_rules! wide {
    ($format:ty: $bits:ty, $code:expr, $value:expr, $infinity:expr) => {
        impl Format for $format {
            const BITS: usize = <$bits>::BITS as usize;
            const SCALE_BYTES: usize = 0;

            #[inline(always)]
            fn encode<const STOCHASTIC: bool>(
                values: &Block,
                noise: &Noise,
                _count: usize,
                out: &mut [u8],
            ) {
                let pairs = values.iter().zip(noise);
                let cells = out.as_chunks_mut().0.iter_mut();
                for (cell, (value, noise)) in cells.zip(pairs) {
                    let code: $bits = $code(*value, STOCHASTIC.then_some(*noise));
                    *cell = code.to_le_bytes();
                }
            }

            #[inline(always)]
            fn decode(encoded: &[u8], _count: usize, values: &mut Block) {
                for (value, cell) in values.iter_mut().zip(encoded.as_chunks().0) {
                    *value = $value(<$bits>::from_le_bytes(*cell));
                }
            }

            #[inline(always)]
            fn validate(encoded: &[u8], _count: usize, block: usize) -> Result<(), DecodeError> {
                let mut largest = 0;
                for cell in encoded.as_chunks().0 {
                    largest = largest.max(<$bits>::from_le_bytes(*cell) & (<$bits>::MAX >> 1));
                }
                if largest < $infinity {
                    Ok(())
                } else {
                    Err(DecodeError::NotFinite { block })
                }
            }
        }
    };
}

wide!(WideF32: u32, |value: f32, _| value.to_bits(), f32::from_bits, INFINITY);
wide!(WideBf16: u16, code_bf16, Bf16::lift, 0x7f80);
wide!(WideF16: u16, code_f16, F16::lift, 0x7c00);

/// Adds the noise where the bits will be dropped: what carries is rounded up.
#[inline(always)]
fn code_bf16(value: f32, noise: Option<u32>) -> u16 {
    let Some(noise) = noise else {
        return narrow_bf16(value);
    };
    let bits = value.to_bits();
    let magnitude = ((bits & MAGNITUDE) + noise) >> 16;
    (magnitude.min(0x7f7f) | (bits >> 16 & 0x8000)) as u16
}

/// The same with the upper 13 bits of the noise; below the least normal f16, in units of its last
/// place.
#[inline(always)]
fn code_f16(value: f32, noise: Option<u32>) -> u16 {
    let Some(noise) = noise else {
        return narrow_f16(value);
    };
    let bits = value.to_bits();
    let magnitude = bits & MAGNITUDE;
    let normal = magnitude.wrapping_sub(BIAS_STEP).wrapping_add(noise >> 3) >> 13;
    let units = f32::from_bits(magnitude).min(1.0) * (1 << 24) as f32;
    let subnormal = floor(units.min(1024.0) + noise as f32 / 65_536.0) as u32;
    let rounded = if magnitude < LEAST_NORMAL {
        subnormal
    } else {
        normal.min(0x7bff)
    };
    (rounded | (bits >> 16 & 0x8000)) as u16
}

/// Difference of the exponents' biases of f32 and f16, in place.
const BIAS_STEP: u32 = (127 - 15) << 23;
/// The smallest normal f16, as an f32.
const LEAST_NORMAL: u32 = 113 << 23;
const _: () = assert!(WideBf16::BYTES == 2 * BLOCK_ELEMENTS);
