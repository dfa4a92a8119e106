//! Sums of contributions that were rounded to an encoding, or have weights.
//!
//! Computed in f32, of f64 in f64, contribution by contribution in the order given:
//! `(w[0]·x[0] + w[1]·x[1]) + …`, each operation rounded to nearest; an average is divided once, by
//! the sum of the weights, and the result rounded once to its type.

use std::marker::PhantomData;
use std::ops::{Add, Div, Mul};

use super::codec::{BLOCK_ELEMENTS, Encoding, Input, Rounding};
use super::number::{Bf16, F16, Number, Raw};
use super::simd::{self, Kernel, Level};
use super::{Dtype, ReduceOp};

/// What is added, and how.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Element type of the result and of contributions that are not encoded.
    pub dtype: Dtype,
    /// How contributions are encoded.
    pub encoding: Option<Encoding>,
    /// How this peer rounds its own.
    pub rounding: Rounding,
    /// Index of the first element in the whole buffer, the first of a block.
    pub first_index: u64,
    /// `Sum` or `Avg`.
    pub reduce_op: ReduceOp,
    /// What `Avg` divides by: the sum of all weights.
    pub divisor: u64,
}

/// One contribution.
#[derive(Clone, Copy, Debug)]
pub struct Contribution<'a> {
    /// By how much it counts.
    pub weight: u32,
    /// Its elements.
    pub form: Form<'a>,
}

/// How the elements of a contribution are given.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// As they are to be added.
    Elements(&'a [u8]),
    /// To be rounded to the encoding first.
    Unrounded(&'a [u8]),
    /// Encoded.
    Encoded(&'a [u8]),
}

/// Adds the contributions up into `out`, which begins with a block. Without contributions it is
/// filled with zeros.
///
/// # Panics
/// If a length does not fit, or elements are no floating-point numbers.
pub fn mix(mixture: &Mixture, contributions: &[Contribution<'_>], out: &mut [u8]) {
    mix_at(Level::best(), mixture, contributions, out);
}

fn mix_at(level: Level, mixture: &Mixture, contributions: &[Contribution<'_>], out: &mut [u8]) {
    let job = Job {
        mixture,
        contributions,
        out,
    };
    match mixture.dtype {
        Dtype::F32 => simd::run_at(level, Mixing::<f32>(job, PhantomData)),
        Dtype::F64 => simd::run_at(level, Mixing::<f64>(job, PhantomData)),
        Dtype::F16 => simd::run_at(level, Mixing::<F16>(job, PhantomData)),
        Dtype::Bf16 => simd::run_at(level, Mixing::<Bf16>(job, PhantomData)),
        dtype => panic!("{} has no weights and no encoding", dtype.name()),
    }
}

struct Job<'a> {
    mixture: &'a Mixture,
    contributions: &'a [Contribution<'a>],
    out: &'a mut [u8],
}

struct Mixing<'a, N>(Job<'a>, PhantomData<N>);

impl<N: Number> Kernel for Mixing<'_, N>
where
    N::Accumulator: Wide,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Job {
            mixture,
            contributions,
            out,
        } = self.0;
        let mut sums = [N::Accumulator::default(); PIECE_ELEMENTS];
        let mut values = [N::Accumulator::default(); PIECE_ELEMENTS];
        let divisor = match mixture.reduce_op {
            ReduceOp::Avg if mixture.divisor > 0 => N::Accumulator::from_u64(mixture.divisor),
            _ => N::Accumulator::from_u64(1),
        };
        let piece_bytes = PIECE_ELEMENTS * size_of::<N::Raw>();
        for (piece, out) in out.chunks_mut(piece_bytes).enumerate() {
            let cells = N::Raw::cells_mut(out);
            let (sums, values) = (&mut sums[..cells.len()], &mut values[..cells.len()]);
            sums.fill(N::Accumulator::default());
            for (index, contribution) in contributions.iter().enumerate() {
                load::<N>(mixture, contribution, piece * PIECE_ELEMENTS, values);
                let weight = N::Accumulator::from_u64(contribution.weight.into());
                if index == 0 {
                    for (sum, value) in sums.iter_mut().zip(&*values) {
                        *sum = weight * *value;
                    }
                    continue;
                }
                for (sum, value) in sums.iter_mut().zip(&*values) {
                    *sum = *sum + weight * *value;
                }
            }
            for (cell, sum) in cells.iter_mut().zip(&*sums) {
                *cell = N::lower(*sum / divisor).write();
            }
        }
    }
}

/// The values of a contribution from an element on, which begins a block.
#[inline(always)]
fn load<N: Number>(
    mixture: &Mixture,
    contribution: &Contribution<'_>,
    first: usize,
    values: &mut [N::Accumulator],
) where
    N::Accumulator: Wide,
{
    let count = values.len();
    let of_elements = |bytes: &'_ [u8]| {
        let element_bytes = mixture.dtype.bytes();
        let start = first * element_bytes;
        start..(start + count * element_bytes).min(bytes.len())
    };
    let mut cells = [0; PIECE_ELEMENTS * 4];
    let cells = &mut cells[..count * 4];
    match (contribution.form, mixture.encoding) {
        (Form::Elements(elements), _) | (Form::Unrounded(elements), None) => {
            return lift::<N>(&elements[of_elements(elements)], values);
        }
        (Form::Unrounded(elements), Some(encoding)) => {
            let mut encoded = [0; PIECE_ELEMENTS * 4];
            let encoded = &mut encoded[..encoding.encoded_bytes(count)];
            let input = Input {
                dtype: mixture.dtype,
                bytes: &elements[of_elements(elements)],
                first_index: mixture.first_index + first as u64,
                rounding: mixture.rounding,
                residual: None,
            };
            encode_or_void(encoding, input, encoded);
            decode_or_nan(encoding, Dtype::F32, encoded, cells);
        }
        (Form::Encoded(encoded), encoding) => {
            let encoding = encoding.expect("encoded contributions have an encoding");
            let start = encoding.encoded_bytes(first);
            let encoded = &encoded[start..start + encoding.encoded_bytes(count)];
            decode_or_nan(encoding, Dtype::F32, encoded, cells);
        }
    }
    for (value, cell) in values.iter_mut().zip(cells.as_chunks::<4>().0) {
        *value = Wide::from_f32(f32::from_ne_bytes(*cell));
    }
}

/// Encodes; what is not finite becomes bytes that decode to NaN.
pub fn encode_or_void(encoding: Encoding, input: Input<'_>, encoded: &mut [u8]) {
    if encoding.encode(input, encoded).is_err() {
        encoded.fill(VOID);
    }
}

/// Decodes to elements of a type; bytes that no encoder writes become NaN.
pub fn decode_or_nan(encoding: Encoding, dtype: Dtype, encoded: &[u8], elements: &mut [u8]) {
    if encoding.decode(encoded, dtype, elements).is_ok() {
        return;
    }
    match dtype {
        Dtype::F16 => fill_with(elements, 0x7e00_u16.to_ne_bytes()),
        Dtype::Bf16 => fill_with(elements, 0x7fc0_u16.to_ne_bytes()),
        Dtype::F64 => fill_with(elements, (0x7ff8_u64 << 48).to_ne_bytes()),
        _ => fill_with(elements, 0x7fc0_0000_u32.to_ne_bytes()),
    }
}

fn fill_with<const N: usize>(elements: &mut [u8], nan: [u8; N]) {
    elements.as_chunks_mut::<N>().0.fill(nan);
}

impl Mixture {
    /// Of contributions that are not encoded, without weights, of one contributor.
    #[must_use]
    pub const fn of(dtype: Dtype, reduce_op: ReduceOp) -> Self {
        Self {
            dtype,
            encoding: None,
            rounding: Rounding::Nearest,
            first_index: 0,
            reduce_op,
            divisor: 1,
        }
    }
}

#[inline(always)]
fn lift<N: Number>(elements: &[u8], values: &mut [N::Accumulator]) {
    for (value, cell) in values.iter_mut().zip(N::Raw::cells(elements)) {
        *value = N::lift(N::Raw::read(*cell));
    }
}

/// What sums are made in: f32 or f64.
pub(crate) trait Wide:
    Copy + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn from_u64(value: u64) -> Self;
    fn from_f32(value: f32) -> Self;
}

impl Wide for f32 {
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Wide for f64 {
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.into()
    }
}

/// Largest weight: f32 holds every smaller one exactly.
pub const WEIGHT_MAX: u32 = 1 << 24;
/// Elements added up at once: whole blocks, whose sums and values stay in the first-level cache.
const PIECE_ELEMENTS: usize = 4 * BLOCK_ELEMENTS;
/// No encoder writes a block of it.
const VOID: u8 = 0xff;
