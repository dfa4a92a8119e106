//! One byte for a projected gradient, and the small integer that it stands for.
//!
//! The byte is what peers exchange; every peer derives the update from the integer alone, so that
//! the code may be coarse but never ambiguous. docs/numerics.md ("Byte codes") has the definitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::simd::on_ieee_terms;

/// How a projected gradient becomes a byte. Numbers are stable: they cross the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum GradientCode {
    /// Sign and logarithm: eight steps an octave over 16 octaves, at most 4.6 % off.
    #[default]
    Log8 = 0,
    /// A whole number from -127 to 127.
    Int8 = 1,
    /// Only the sign.
    Sign = 2,
}

/// A byte that no encoder writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode {
    /// The byte.
    pub byte: u8,
}

impl fmt::Display for UnknownCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no gradient is encoded as {:#04x}", self.byte)
    }
}

impl std::error::Error for UnknownCode {}

impl GradientCode {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::Log8, Self::Int8, Self::Sign];

    /// Its name as the CLI and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log8 => "log8",
            Self::Int8 => "int8",
            Self::Sign => "sign",
        }
    }

    /// A coefficient of 1 stands for 2 to the shift less these bits.
    #[must_use]
    pub const fn fraction_bits(self) -> i32 {
        match self {
            Self::Log8 => 14,
            Self::Int8 => 4,
            Self::Sign => 0,
        }
    }

    /// Greatest absolute value of a coefficient.
    #[must_use]
    pub const fn largest(self) -> i32 {
        match self {
            Self::Log8 => LOG8[127],
            Self::Int8 => 127,
            Self::Sign => 1,
        }
    }

    /// The code nearest to `gradient / 2^shift`, or the greatest; [`ABSTAIN`] for NaN and infinity.
    ///
    /// # Panics
    /// If `shift` is not from -[`SHIFT_MAX`] to [`SHIFT_MAX`].
    #[must_use]
    pub fn encode(self, gradient: f32, shift: i32) -> u8 {
        assert!((-SHIFT_MAX..=SHIFT_MAX).contains(&shift), "shift {shift}");
        if !gradient.is_finite() {
            return ABSTAIN;
        }
        let exponent = self.fraction_bits() - shift;
        let magnitude = on_ieee_terms(|| self.magnitude(scaled(gradient.abs(), exponent)));
        match (self, gradient.is_sign_negative()) {
            (_, false) => magnitude,
            (Self::Log8, true) if magnitude == 0 => 0,
            (Self::Log8, true) => magnitude | 0x80,
            (Self::Int8 | Self::Sign, true) => magnitude.wrapping_neg(),
        }
    }

    fn magnitude(self, size: f64) -> u8 {
        match self {
            Self::Log8 => LOG8.windows(2).filter(|pair| is_beyond(pair, size)).count() as u8,
            Self::Int8 => nearest(size.min(127.0)),
            Self::Sign => u8::from(size > 0.0),
        }
    }

    /// The coefficient that a byte stands for, in units of 2 to the shift less
    /// [`GradientCode::fraction_bits`]; `None` if its sender abstains.
    ///
    /// # Errors
    /// [`UnknownCode`] if no encoder writes this byte.
    pub const fn decode(self, byte: u8) -> Result<Option<i32>, UnknownCode> {
        if byte == ABSTAIN {
            return Ok(None);
        }
        let coefficient = match self {
            Self::Log8 if byte >= 0x80 => -LOG8[(byte & 0x7f) as usize],
            Self::Log8 => LOG8[byte as usize],
            Self::Int8 => byte as i8 as i32,
            Self::Sign if matches!(byte, 0 | 1 | 0xff) => byte as i8 as i32,
            Self::Sign => return Err(UnknownCode { byte }),
        };
        Ok(Some(coefficient))
    }
}

/// Exactly the product with a power of two: f64 has the range.
fn scaled(size: f32, exponent: i32) -> f64 {
    f64::from(size) * f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Whether `size` is nearer to the second of two neighbours, or halfway.
fn is_beyond(pair: &[i32], size: f64) -> bool {
    size >= f64::from(pair[0] + pair[1]) / 2.0
}

/// Ties to even: beyond 2^52 an f64 has no digits after the point.
fn nearest(size: f64) -> u8 {
    const PUSH: f64 = (1_u64 << 52) as f64;
    ((size + PUSH) - PUSH) as u8
}

/// The byte of a sender that takes part without a gradient.
pub const ABSTAIN: u8 = 0x80;
/// Largest shift. Coefficients then stay far from the limits of f32.
pub const SHIFT_MAX: i32 = 64;

/// Integers of `log8`: 0, then 2^(6 + (k - 1) / 8) to the nearest whole number.
const LOG8: [i32; 128] = log8();

const fn log8() -> [i32; 128] {
    let mut table = [0; 128];
    let mut code = 1;
    while code < 128 {
        let (octave, step) = ((code - 1) / 8, (code - 1) % 8);
        let surplus = 30 - (6 + octave);
        table[code] = ((ROOTS[step] + (1 << (surplus - 1))) >> surplus) as i32;
        code += 1;
    }
    table
}

/// 2^(30 + k / 8) to the nearest whole number.
const ROOTS: [u64; 8] = [
    1_073_741_824,
    1_170_923_762,
    1_276_901_417,
    1_392_470_869,
    1_518_500_250,
    1_655_936_265,
    1_805_811_301,
    1_969_251_188,
];

#[cfg(test)]
mod tests;
