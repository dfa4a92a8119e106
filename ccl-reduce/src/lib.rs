//! Arithmetic of collectives: element types, operators, kernels.
//!
//! Rules that fix every bit (docs/numerics.md):
//! - Contributions are combined in the order given, each element by itself.
//! - Sums and products of integers wrap. An average divides the exact sum once and truncates toward
//!   zero.
//! - f16 and bf16 are combined in f32 and rounded once, to nearest, ties to even.
//! - Minimum and maximum order by value, then -0 before +0; a NaN wins over every number.
//! - Every NaN in a result is the type's one quiet, positive NaN without payload.
//! - No fused multiply-add, no library functions; subnormal numbers are kept.

pub mod codec;
pub mod gradient;
pub mod kernel;
mod mixture;
mod number;
pub mod outer;
pub mod perturbation;
pub mod philox;
mod reference;
mod rule;
mod simd;

pub use codec::{BLOCK_ELEMENTS, Encoding, Rounding, wire_bytes};
pub use kernel::{AVERAGE_INPUTS_MAX, reduce, reduce_at};
pub use mixture::{Contribution, Form, Mixture, WEIGHT_MAX, decode_or_nan, encode_or_void, mix};
pub use reference::reference;
pub use simd::Level;

use serde::{Deserialize, Serialize};

/// Type of the elements of a buffer. Numbers are stable: they cross the wire and the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Dtype {
    U8 = 0,
    U16 = 1,
    U32 = 2,
    U64 = 3,
    I8 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    F16 = 8,
    Bf16 = 9,
    F32 = 10,
    F64 = 11,
}

impl Dtype {
    /// All of them, by number.
    pub const ALL: [Self; 12] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
    ];

    /// Whether its values are whole numbers.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Its name as the CLI and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

/// How elements combine. Numbers are stable: they cross the wire and the C ABI.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ReduceOp {
    #[default]
    Sum = 0,
    /// The sum divided by the number of contributors. Of integers the exact sum, which never wraps,
    /// truncated toward zero.
    Avg = 1,
    Prod = 2,
    Min = 3,
    Max = 4,
}

impl ReduceOp {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [Self::Sum, Self::Avg, Self::Prod, Self::Min, Self::Max];

    /// Its name as the CLI and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Prod => "prod",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// A Rust type that collectives understand.
pub trait Element: Copy + Send + Sync + 'static {
    /// Its number on the wire.
    const DTYPE: Dtype;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl Element for $rust {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

element!(
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64
);

#[cfg(test)]
mod tests;
