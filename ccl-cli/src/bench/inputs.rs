//! What each rank contributes: a function of seed, rank and index, so that every peer can tell what
//! the others sent.
//!
//! All values of integers appear, negative ones too; floats differ in size so that the order of
//! additions changes bits, with now and then a −0, an infinity or a NaN.

use ccl_core::{Dtype, Element, bf16, f16};

/// An element that can be made from random bits, and compared bit for bit.
pub trait Sample: Element + Default {
    /// The element that these bits stand for.
    fn sample(random: u64) -> Self;
    /// Its bits.
    fn bits(self) -> u64;
    /// Its value, exact but for integers of more than 53 bits.
    fn value(self) -> f64;
}

/// Which inputs: each check of a bench uses others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    number: u64,
    is_finite: bool,
}

impl Seed {
    /// Inputs of this number.
    pub const fn new(number: u64) -> Self {
        Self {
            number,
            is_finite: false,
        }
    }

    /// Without NaN and infinities, if wanted.
    pub const fn finite(self, is_finite: bool) -> Self {
        Self { is_finite, ..self }
    }
}

/// Random bits with this one give an ordinary number.
const ORDINARY: u64 = 1 << 11;

/// Writes the elements `first..` of what `rank` contributes.
pub fn fill<T: Sample>(buffer: &mut [T], seed: Seed, rank: usize, first: usize) {
    let base = mix(seed.number ^ mix(rank as u64 + 1));
    for (index, element) in buffer.iter_mut().enumerate() {
        let random = mix(base.wrapping_add((first + index) as u64));
        *element = T::sample(if seed.is_finite {
            random | ORDINARY
        } else {
            random
        });
    }
}

/// The finalizer of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            #[allow(clippy::unnecessary_cast)]
            fn sample(random: u64) -> Self {
                random as Self
            }
            #[allow(clippy::unnecessary_cast)]
            fn bits(self) -> u64 {
                self as u64
            }
            fn value(self) -> f64 {
                self as f64
            }
        }
    )*};
}

macro_rules! floats {
    ($($type:ty, $bits:ty, $mantissa:literal, $bias:literal);*) => {$(
        impl Sample for $type {
            #[allow(clippy::unnecessary_cast)]
            fn sample(random: u64) -> Self {
                match random & 0xfff {
                    0..=31 => return Self::from_bits(1 << (<$bits>::BITS - 1)), // −0
                    32 => return <$type>::NAN,
                    33 => return <$type>::INFINITY,
                    34 => return <$type>::NEG_INFINITY,
                    _ => {}
                }
                let sign = ((random >> 12) & 1) as $bits;
                let exponent = ((random >> 13) & 7) as $bits + $bias - 4;
                let mantissa = ((random >> 16) as $bits) & ((1 << $mantissa) - 1);
                Self::from_bits(sign << (<$bits>::BITS - 1) | exponent << $mantissa | mantissa)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
            fn value(self) -> f64 {
                self.into()
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);
floats!(f16, u16, 10, 15; bf16, u16, 7, 127; f32, u32, 23, 127; f64, u64, 52, 1023);

/// Calls a generic function with the Rust type that a [`Dtype`] names.
macro_rules! with_type {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use ccl_core::Dtype;
        match $dtype {
            Dtype::U8 => {
                type $T = u8;
                $body
            }
            Dtype::U16 => {
                type $T = u16;
                $body
            }
            Dtype::U32 => {
                type $T = u32;
                $body
            }
            Dtype::U64 => {
                type $T = u64;
                $body
            }
            Dtype::I8 => {
                type $T = i8;
                $body
            }
            Dtype::I16 => {
                type $T = i16;
                $body
            }
            Dtype::I32 => {
                type $T = i32;
                $body
            }
            Dtype::I64 => {
                type $T = i64;
                $body
            }
            Dtype::F16 => {
                type $T = ccl_core::f16;
                $body
            }
            Dtype::Bf16 => {
                type $T = ccl_core::bf16;
                $body
            }
            Dtype::F32 => {
                type $T = f32;
                $body
            }
            Dtype::F64 => {
                type $T = f64;
                $body
            }
        }
    }};
}
pub(crate) use with_type;

/// The type that `name` names.
pub fn parse_dtype(name: &str) -> Result<Dtype, String> {
    let all = Dtype::ALL;
    all.into_iter()
        .find(|dtype| dtype.name() == name)
        .ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|dtype| dtype.name()).collect();
            format!("not one of {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_same_wherever_it_is_cut() {
        let mut whole = [0_i32; 100];
        fill(&mut whole, Seed::new(7), 2, 0);
        let mut tail = [0_i32; 40];
        fill(&mut tail, Seed::new(7), 2, 60);
        assert_eq!(whole[60..], tail);
    }

    #[test]
    fn ranks_and_seeds_differ() {
        let of = |seed, rank| {
            let mut buffer = [0_u64; 4];
            fill(&mut buffer, Seed::new(seed), rank, 0);
            buffer
        };
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 0), of(2, 0));
    }

    #[test]
    fn floats_have_every_kind_of_value() {
        let mut buffer = vec![f16::ZERO; 1 << 16];
        fill(&mut buffer, Seed::new(3), 0, 0);
        let has = |test: fn(f16) -> bool| buffer.iter().any(|&element| test(element));
        assert!(has(|x| x.is_nan()) && has(|x| x.is_infinite()));
        assert!(has(|x| x.to_bits() == 0x8000), "minus zero");
        assert!(has(|x| x < f16::NEG_ONE) && has(|x| x > f16::ONE));
        let finite = buffer.iter().filter(|x| x.is_finite()).count();
        assert!(finite > buffer.len() * 99 / 100);
    }

    #[test]
    fn integers_have_negative_values() {
        let mut buffer = [0_i8; 64];
        fill(&mut buffer, Seed::new(3), 0, 0);
        assert!(buffer.iter().any(|&x| x < 0) && buffer.iter().any(|&x| x > 0));
    }
}
