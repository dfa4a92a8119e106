//! What the kernels need to know of each element type: how to read, combine, compare and write it.
//!
//! Everything here is branch-free arithmetic on one element, so that the compiler may vectorise it
//! without changing a bit. The loops are in `kernel`; the rules are listed in the parent module.

/// The bits of one element, in a byte buffer of any alignment.
pub(super) trait Raw: Copy {
    /// Its bytes.
    type Cell: Copy;

    fn cells(bytes: &[u8]) -> &[Self::Cell];
    fn cells_mut(bytes: &mut [u8]) -> &mut [Self::Cell];
    fn read(cell: Self::Cell) -> Self;
    fn write(self) -> Self::Cell;
}

/// One element type in arithmetic.
pub(super) trait Number {
    /// Its bits.
    type Raw: Raw;
    /// The accumulator of sums and products.
    type Accumulator: Copy + Default;
    /// The accumulator of averages, exact for integers.
    type Total: Copy + Default;
    /// Sorts like the elements, with NaNs at the winning end.
    type Key: Copy + Default + Ord;

    fn lift(raw: Self::Raw) -> Self::Accumulator;
    fn add(a: Self::Accumulator, b: Self::Accumulator) -> Self::Accumulator;
    fn multiply(a: Self::Accumulator, b: Self::Accumulator) -> Self::Accumulator;
    fn lower(value: Self::Accumulator) -> Self::Raw;

    fn count(raw: Self::Raw) -> Self::Total;
    fn total(a: Self::Total, b: Self::Total) -> Self::Total;
    /// The quotient, rounded by the type's rule: toward zero, or to nearest even.
    fn mean(total: Self::Total, divisor: u32) -> Self::Raw;

    /// The key among candidates for a minimum: NaN is least.
    fn key_low(raw: Self::Raw) -> Self::Key;
    /// The key among candidates for a maximum: NaN is greatest.
    fn key_high(raw: Self::Raw) -> Self::Key;
    fn from_key(key: Self::Key) -> Self::Raw;
}

/// IEEE 754 half precision.
pub(super) struct F16;
/// The upper half of an f32.
pub(super) struct Bf16;

macro_rules! raw {
    ($($raw:ty),*) => {$(
        impl Raw for $raw {
            type Cell = [u8; size_of::<$raw>()];

            #[inline(always)]
            fn cells(bytes: &[u8]) -> &[Self::Cell] {
                bytes.as_chunks().0
            }

            #[inline(always)]
            fn cells_mut(bytes: &mut [u8]) -> &mut [Self::Cell] {
                bytes.as_chunks_mut().0
            }

            #[inline(always)]
            fn read(cell: Self::Cell) -> Self {
                Self::from_ne_bytes(cell)
            }

            #[inline(always)]
            fn write(self) -> Self::Cell {
                self.to_ne_bytes()
            }
        }
    )*};
}

raw!(u8, u16, u32, u64, i8, i16, i32, i64);

/// `$total` holds every sum of [`super::AVERAGE_INPUTS_MAX`] values exactly: a wider integer, or a
/// float, which the machine adds and divides side by side. A float that holds dividend and divisor
/// never rounds a quotient up to the next whole number: that one is at least 1/divisor away, which
/// is more than the float's last place. A divisor that it cannot hold is beyond every sum, and
/// gives 0. A divisor smaller than the number of inputs may give a quotient beyond the type: the
/// nearest value.
macro_rules! integer {
    ($($int:ty as $total:ty: $mean:expr),*) => {$(
        impl Number for $int {
            type Raw = Self;
            type Accumulator = Self;
            type Total = $total;
            type Key = Self;

            #[inline(always)]
            fn lift(raw: Self) -> Self {
                raw
            }

            #[inline(always)]
            fn add(a: Self, b: Self) -> Self {
                a.wrapping_add(b)
            }

            #[inline(always)]
            fn multiply(a: Self, b: Self) -> Self {
                a.wrapping_mul(b)
            }

            #[inline(always)]
            fn lower(value: Self) -> Self {
                value
            }

            #[inline(always)]
            fn count(raw: Self) -> $total {
                raw as $total
            }

            #[inline(always)]
            fn total(a: $total, b: $total) -> $total {
                a + b
            }

            #[inline(always)]
            fn mean(total: $total, divisor: u32) -> Self {
                $mean(total / divisor as $total)
            }

            #[inline(always)]
            fn key_low(raw: Self) -> Self {
                raw
            }

            #[inline(always)]
            fn key_high(raw: Self) -> Self {
                raw
            }

            #[inline(always)]
            fn from_key(key: Self) -> Self {
                key
            }
        }
    )*};
}

integer!(
    u8 as f32: |mean| mean as Self,
    u16 as f64: |mean| mean as Self,
    u32 as f64: |mean| mean as Self,
    u64 as u128: |mean: u128| mean.min(u64::MAX.into()) as Self,
    i8 as f32: |mean| mean as Self,
    i16 as f64: |mean| mean as Self,
    i32 as f64: |mean| mean as Self,
    i64 as i128: |mean: i128| mean.clamp(i64::MIN.into(), i64::MAX.into()) as Self
);

/// Turns sign and magnitude into a number that orders alike, and back.
macro_rules! flip {
    ($signed:expr, $bits:ty, $key:ty) => {{
        let signed: $key = $signed;
        signed ^ ((signed >> (<$key>::BITS - 1)) as $bits >> 1) as $key
    }};
}

/// All bits but the sign.
macro_rules! magnitude_mask {
    ($bits:ty) => {
        <$bits>::MAX >> 1
    };
}

/// The part that all floating-point types share: arithmetic in `$float`, keys on `$bits`.
macro_rules! float {
    ($number:ty: $bits:ty, $key:ty, $float:ty, infinity $infinity:expr, nan $nan:expr) => {
        impl Number for $number {
            type Raw = $bits;
            type Accumulator = $float;
            type Total = $float;
            type Key = $key;

            #[inline(always)]
            fn lift(raw: $bits) -> $float {
                Self::widen(raw)
            }

            #[inline(always)]
            fn add(a: $float, b: $float) -> $float {
                a + b
            }

            #[inline(always)]
            fn multiply(a: $float, b: $float) -> $float {
                a * b
            }

            #[inline(always)]
            fn lower(value: $float) -> $bits {
                let bits = Self::narrow(value);
                if value.is_nan() { $nan } else { bits }
            }

            #[inline(always)]
            fn count(raw: $bits) -> $float {
                Self::widen(raw)
            }

            #[inline(always)]
            fn total(a: $float, b: $float) -> $float {
                a + b
            }

            #[inline(always)]
            fn mean(total: $float, divisor: u32) -> $bits {
                Self::lower(total / divisor as $float)
            }

            #[inline(always)]
            fn key_low(raw: $bits) -> $key {
                let key = flip!(raw as $key, $bits, $key);
                if raw & magnitude_mask!($bits) > $infinity {
                    <$key>::MIN
                } else {
                    key
                }
            }

            #[inline(always)]
            fn key_high(raw: $bits) -> $key {
                let key = flip!(raw as $key, $bits, $key);
                if raw & magnitude_mask!($bits) > $infinity {
                    <$key>::MAX
                } else {
                    key
                }
            }

            #[inline(always)]
            fn from_key(key: $key) -> $bits {
                let bits = flip!(key, $bits, $key) as $bits;
                if bits & magnitude_mask!($bits) > $infinity {
                    $nan
                } else {
                    bits
                }
            }
        }
    };
}

float!(f32: u32, i32, f32, infinity 0x7f80_0000, nan 0x7fc0_0000);
float!(f64: u64, i64, f64, infinity 0x7ff0_0000_0000_0000, nan 0x7ff8_0000_0000_0000);
float!(F16: u16, i16, f32, infinity 0x7c00, nan 0x7e00);
float!(Bf16: u16, i16, f32, infinity 0x7f80, nan 0x7fc0);

/// From bits to the accumulator, exactly, and back, rounding to nearest even. What a NaN narrows to
/// is left open: `Number::lower` replaces it.
trait Convert {
    type Bits;
    type Float;

    fn widen(bits: Self::Bits) -> Self::Float;
    fn narrow(value: Self::Float) -> Self::Bits;
}

impl Convert for f32 {
    type Bits = u32;
    type Float = Self;

    #[inline(always)]
    fn widen(bits: u32) -> Self {
        Self::from_bits(bits)
    }

    #[inline(always)]
    fn narrow(value: Self) -> u32 {
        value.to_bits()
    }
}

impl Convert for f64 {
    type Bits = u64;
    type Float = Self;

    #[inline(always)]
    fn widen(bits: u64) -> Self {
        Self::from_bits(bits)
    }

    #[inline(always)]
    fn narrow(value: Self) -> u64 {
        value.to_bits()
    }
}

impl Convert for Bf16 {
    type Bits = u16;
    type Float = f32;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        let bits = value.to_bits();
        let is_odd = (bits >> 16) & 1;
        (bits.wrapping_add(0x7fff + is_odd) >> 16) as u16
    }
}

impl Convert for F16 {
    type Bits = u16;
    type Float = f32;

    /// Shifts the fields into place and corrects the exponent's bias. A subnormal becomes a normal
    /// f32 by one exact subtraction.
    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        let fields = u32::from(bits & 0x7fff) << 13;
        let exponent = fields & F16_EXPONENT_MASK;
        let rebased = fields + F16_BIAS_STEP;
        let special = rebased + F16_BIAS_STEP;
        let subnormal = f32::from_bits(rebased + (1 << 23)) - f32::from_bits(F16_LEAST_NORMAL);
        let magnitude = if exponent == F16_EXPONENT_MASK {
            special
        } else if exponent == 0 {
            subnormal.to_bits()
        } else {
            rebased
        };
        f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
    }

    /// Rounds a normal result by adding just under half of its last place, a subnormal one by
    /// letting an f32 addition push the surplus bits out.
    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        let bits = value.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        let is_odd = (magnitude >> 13) & 1;
        let normal = magnitude
            .wrapping_sub(F16_BIAS_STEP)
            .wrapping_add(0xfff + is_odd)
            >> 13;
        let pushed = f32::from_bits(magnitude) + f32::from_bits(F16_SUBNORMAL_PUSH);
        let subnormal = pushed.to_bits().wrapping_sub(F16_SUBNORMAL_PUSH);
        let rounded = if magnitude >= F16_OVERFLOW {
            0x7c00
        } else if magnitude < F16_LEAST_NORMAL {
            subnormal
        } else {
            normal
        };
        (rounded | (bits >> 16) & 0x8000) as u16
    }
}

/// Where the exponent of an f16 lies once its fields are shifted into those of an f32.
const F16_EXPONENT_MASK: u32 = 0x7c00 << 13;
/// Difference of the exponents' biases, in place.
const F16_BIAS_STEP: u32 = (127 - 15) << 23;
/// The smallest normal f16, as an f32.
const F16_LEAST_NORMAL: u32 = 113 << 23;
/// 2^16: this and everything above is infinite as an f16. What lies between 65,520 and 2^16 rounds
/// up to infinity by itself.
const F16_OVERFLOW: u32 = (127 + 16) << 23;
/// An f32 whose last place is that of subnormal f16.
const F16_SUBNORMAL_PUSH: u32 = (127 - 15 + 23 - 10 + 1) << 23;

/// Machines differ in the NaNs that they produce; one is stored.
#[inline(always)]
pub(super) fn canonical(value: f32) -> f32 {
    if value.is_nan() {
        f32::from_bits(0x7fc0_0000)
    } else {
        value
    }
}
