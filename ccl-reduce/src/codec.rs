//! Encodings of floating-point buffers for the wire: fewer bytes, with every bit specified.
//!
//! docs/numerics.md ("Encodings") has the definitions. Blocks are 256 elements, counted from the
//! start of the whole buffer, so that no bit depends on how a buffer is cut into messages. Who
//! encodes, adds and forwards is the business of the collectives.

mod block;
mod pack;
mod sweep;
mod wide;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Dtype;
use crate::philox::Stream;
use crate::simd::{Level, run_at};
use block::{E3m0, Int2, Int4, Int8};
use sweep::{Add, Check, Decode, Encode, Format, Validate};
use wide::{WideBf16, WideF16, WideF32};

/// What elements become on the wire. Numbers are stable: they cross the wire and the C ABI, where 0
/// is no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Encoding {
    /// f32.
    F32 = 1,
    /// The upper half of an f32.
    Bf16 = 2,
    /// IEEE 754 half precision; values beyond its range become the greatest.
    F16 = 3,
    /// An f32 scale a block, and whole numbers from -127 to 127.
    Int8 = 4,
    /// The greatest exponent of a block, and a sign and three bits of exponent an element.
    E3m0 = 5,
    /// A bf16 scale a block, and whole numbers from -7 to 7.
    Int4 = 6,
    /// A bf16 scale a block, and -1, 0 or 1.
    Int2 = 7,
}

/// How a value between two codes is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearer one.
    #[default]
    Nearest,
    /// Up with a probability equal to its distance from the lower one, so that the mean error is 0.
    Stochastic {
        /// Key of Philox.
        seed: u64,
        /// What else tells this buffer from others: step and rank, say.
        stream: u64,
    },
}

/// What is encoded.
#[derive(Debug)]
pub struct Input<'a> {
    /// A floating-point type. f64 is rounded to f32 first.
    pub dtype: Dtype,
    /// Whole elements; no alignment is needed.
    pub bytes: &'a [u8],
    /// Index of the first element in the whole buffer, a multiple of [`BLOCK_ELEMENTS`].
    pub first_index: u64,
    /// How values between two codes are rounded.
    pub rounding: Rounding,
    /// Error feedback: what earlier calls lost, one f32 an element, zeros at first. It is added to
    /// the input, and replaced by what is lost now.
    pub residual: Option<&'a mut [f32]>,
}

impl<'a> Input<'a> {
    /// A whole buffer, each value to be rounded to the nearer code.
    #[must_use]
    pub const fn of(dtype: Dtype, bytes: &'a [u8]) -> Self {
        Self {
            dtype,
            bytes,
            first_index: 0,
            rounding: Rounding::Nearest,
            residual: None,
        }
    }
}

/// An element is infinite, not a number, or too large for f32. Nothing has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// Its index in the whole buffer; the first such one.
    pub index: u64,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        write!(
            out,
            "element {index} is not a finite f32, and cannot be encoded"
        )
    }
}

impl std::error::Error for NotFinite {}

/// Encoded bytes that no encoder writes. Nothing has been decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// So many elements have another number of bytes.
    Length {
        /// Bytes of so many elements.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A number is infinite or not a number, or a scale is negative or too large.
    NotFinite {
        /// Block that holds it, from 0.
        block: usize,
    },
    /// Unused bits at the end of a block are set.
    Padding {
        /// The block, from 0.
        block: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(out, "{found} encoded bytes; expected {expected}")
            }
            Self::NotFinite { block } => {
                write!(
                    out,
                    "block {block} of the encoded data holds no finite number or scale"
                )
            }
            Self::Padding { block } => {
                write!(
                    out,
                    "unused bits of block {block} of the encoded data are set"
                )
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Evaluates `$kernel` with `$format` as the type of `$encoding`.
macro_rules! with_format {
    ($encoding:expr, $format:ident => $kernel:expr) => {
        match $encoding {
            Encoding::F32 => {
                type $format = WideF32;
                $kernel
            }
            Encoding::Bf16 => {
                type $format = WideBf16;
                $kernel
            }
            Encoding::F16 => {
                type $format = WideF16;
                $kernel
            }
            Encoding::Int8 => {
                type $format = Int8;
                $kernel
            }
            Encoding::E3m0 => {
                type $format = E3m0;
                $kernel
            }
            Encoding::Int4 => {
                type $format = Int4;
                $kernel
            }
            Encoding::Int2 => {
                type $format = Int2;
                $kernel
            }
        }
    };
}

impl Encoding {
    /// All of them, by number.
    pub const ALL: [Self; 7] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::Int8,
        Self::E3m0,
        Self::Int4,
        Self::Int2,
    ];

    /// Its name as the CLI and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::E3m0 => "e3m0",
            Self::Int4 => "int4",
            Self::Int2 => "int2",
        }
    }

    /// Bytes of `count` elements that start at a block. Whole blocks add up: a buffer may be cut
    /// after any of them.
    #[must_use]
    pub const fn encoded_bytes(self, count: usize) -> usize {
        let (blocks, rest) = (count / BLOCK_ELEMENTS, count % BLOCK_ELEMENTS);
        let (scale_bytes, bits) = with_format!(self, F => (F::SCALE_BYTES, F::BITS));
        let whole = blocks * (scale_bytes + BLOCK_ELEMENTS * bits / 8);
        if rest == 0 {
            whole
        } else {
            whole + scale_bytes + (rest * bits).div_ceil(8)
        }
    }

    /// Encodes `input` into `out`.
    ///
    /// # Errors
    /// [`NotFinite`] if an element, with its residual, is no finite f32; `out` and the residual are
    /// as before.
    ///
    /// # Panics
    /// If the type is no floating-point type, a length does not fit, or the first index is no
    /// multiple of [`BLOCK_ELEMENTS`].
    pub fn encode(self, input: Input<'_>, out: &mut [u8]) -> Result<(), NotFinite> {
        self.encode_at(Level::best(), input, out)
    }

    /// [`Encoding::encode`] at a given level.
    ///
    /// # Errors
    /// As [`Encoding::encode`].
    ///
    /// # Panics
    /// As [`Encoding::encode`], and if this machine lacks the level.
    pub fn encode_at(
        self,
        level: Level,
        mut input: Input<'_>,
        out: &mut [u8],
    ) -> Result<(), NotFinite> {
        let count = elements(input.dtype, input.bytes);
        let blocks_before = input.first_index / BLOCK_ELEMENTS as u64;
        assert_eq!(
            input.first_index % BLOCK_ELEMENTS as u64,
            0,
            "starts at a block"
        );
        assert_eq!(out.len(), self.encoded_bytes(count), "room for the encoded");
        check_finite_at(level, &input)?;
        let (seed, stream) = match input.rounding {
            Rounding::Nearest => (0, 0),
            Rounding::Stochastic { seed, stream } => (seed, stream),
        };
        let noise = Stream {
            key: seed,
            high: [stream as u32, (stream >> 32) as u32],
        };
        let bytes = input.bytes;
        let residual = input.residual.as_deref_mut();
        macro_rules! encode {
            ($stochastic:literal) => {
                with_format!(self, F => run_at(
                    level,
                    Encode::<F, $stochastic> {
                        dtype: input.dtype,
                        bytes,
                        blocks_before,
                        noise,
                        residual,
                        out,
                        format: std::marker::PhantomData,
                    },
                ))
            };
        }
        match input.rounding {
            Rounding::Nearest => encode!(false),
            Rounding::Stochastic { .. } => encode!(true),
        }
        Ok(())
    }

    /// Decodes into `out`, which holds elements of `dtype`. What f16 or bf16 cannot hold becomes
    /// their greatest value.
    ///
    /// # Errors
    /// [`DecodeError`] if no encoder writes these bytes; `out` is as before.
    ///
    /// # Panics
    /// If the type is no floating-point type, or `out` holds no whole elements.
    pub fn decode(self, encoded: &[u8], dtype: Dtype, out: &mut [u8]) -> Result<(), DecodeError> {
        self.decode_at(Level::best(), encoded, Output { dtype, bytes: out })
    }

    /// [`Encoding::decode`] at a given level.
    ///
    /// # Errors
    /// As [`Encoding::decode`].
    ///
    /// # Panics
    /// As [`Encoding::decode`], and if this machine lacks the level.
    pub fn decode_at(
        self,
        level: Level,
        encoded: &[u8],
        output: Output<'_>,
    ) -> Result<(), DecodeError> {
        let count = elements(output.dtype, output.bytes);
        self.validate(level, encoded, count)?;
        with_format!(self, F => run_at(
            level,
            Decode::<F> {
                encoded,
                output,
                format: std::marker::PhantomData,
            },
        ));
        Ok(())
    }

    /// Adds `weight` times each decoded element to `sum`, which holds f32 of this machine:
    /// `s = fl(s + fl(weight * x))`. A NaN is stored as `7fc00000`.
    ///
    /// # Errors
    /// [`DecodeError`] if no encoder writes these bytes; `sum` is as before.
    ///
    /// # Panics
    /// If `sum` holds no whole elements.
    pub fn decode_add(
        self,
        encoded: &[u8],
        weight: f32,
        sum: &mut [u8],
    ) -> Result<(), DecodeError> {
        self.decode_add_at(Level::best(), encoded, weight, sum)
    }

    /// [`Encoding::decode_add`] at a given level.
    ///
    /// # Errors
    /// As [`Encoding::decode_add`].
    ///
    /// # Panics
    /// As [`Encoding::decode_add`], and if this machine lacks the level.
    pub fn decode_add_at(
        self,
        level: Level,
        encoded: &[u8],
        weight: f32,
        sum: &mut [u8],
    ) -> Result<(), DecodeError> {
        let count = elements(Dtype::F32, sum);
        self.validate(level, encoded, count)?;
        with_format!(self, F => run_at(
            level,
            Add::<F> {
                encoded,
                weight,
                sum,
                format: std::marker::PhantomData,
            },
        ));
        Ok(())
    }

    fn validate(self, level: Level, encoded: &[u8], count: usize) -> Result<(), DecodeError> {
        let (expected, found) = (self.encoded_bytes(count), encoded.len());
        if expected != found {
            return Err(DecodeError::Length { expected, found });
        }
        with_format!(self, F => run_at(
            level,
            Validate::<F> {
                encoded,
                count,
                format: std::marker::PhantomData,
            },
        ))
    }
}

/// Finds what [`Encoding::encode`] would refuse, so that a caller can look at a whole buffer before
/// it sends the first part.
///
/// # Errors
/// [`NotFinite`] if an element, with its residual, is no finite f32.
///
/// # Panics
/// If the type is no floating-point type, or a length does not fit.
pub fn check_finite(input: &Input<'_>) -> Result<(), NotFinite> {
    check_finite_at(Level::best(), input)
}

fn check_finite_at(level: Level, input: &Input<'_>) -> Result<(), NotFinite> {
    let count = elements(input.dtype, input.bytes);
    if let Some(residual) = &input.residual {
        assert_eq!(residual.len(), count, "a residual an element");
    }
    let check = Check {
        dtype: input.dtype,
        bytes: input.bytes,
        residual: input.residual.as_deref(),
    };
    match run_at(level, check) {
        None => Ok(()),
        Some(offset) => Err(NotFinite {
            index: input.first_index + offset as u64,
        }),
    }
}

/// Bytes of `count` elements on the wire, from a block on: encoded, or as they are in memory.
#[must_use]
pub const fn wire_bytes(encoding: Option<Encoding>, dtype: Dtype, count: usize) -> usize {
    match encoding {
        Some(encoding) => encoding.encoded_bytes(count),
        None => count * dtype.bytes(),
    }
}

/// Where decoded elements go.
#[derive(Debug)]
pub struct Output<'a> {
    /// A floating-point type.
    pub dtype: Dtype,
    /// Whole elements; no alignment is needed.
    pub bytes: &'a mut [u8],
}

/// How many elements these bytes are.
fn elements(dtype: Dtype, bytes: &[u8]) -> usize {
    assert!(!dtype.is_integer(), "{} is not encoded", dtype.name());
    assert_eq!(
        bytes.len() % dtype.bytes(),
        0,
        "buffers hold whole elements"
    );
    bytes.len() / dtype.bytes()
}

/// Elements of a block.
pub const BLOCK_ELEMENTS: usize = 256;

#[cfg(test)]
mod tests;
