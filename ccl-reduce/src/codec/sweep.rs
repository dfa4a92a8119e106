//! The loops over blocks. A short last block is worked on as a whole one, filled up with zeros.

use std::marker::PhantomData;

use super::{BLOCK_ELEMENTS, DecodeError, Dtype, Output};
use crate::number::{Bf16, F16, Number, Raw, canonical};
use crate::philox::{ROW_BLOCKS, ROW_WORDS, Stream};
use crate::simd::Kernel;

/// Elements of one block as f32.
pub(super) type Block = [f32; BLOCK_ELEMENTS];
/// A random number below 2^16 for each of them.
pub(super) type Noise = [u32; BLOCK_ELEMENTS];

/// One encoding.
pub(super) trait Format {
    /// Bits of an element.
    const BITS: usize;
    /// Bytes before the elements of a block.
    const SCALE_BYTES: usize;
    /// Bytes of a whole block.
    const BYTES: usize = Self::SCALE_BYTES + BLOCK_ELEMENTS * Self::BITS / 8;

    /// Encodes the first `count` values, which are finite; those after them are zeros.
    fn encode<const STOCHASTIC: bool>(values: &Block, noise: &Noise, count: usize, out: &mut [u8]);

    /// Decodes `count` values. Those after them are left open.
    fn decode(encoded: &[u8], count: usize, values: &mut Block);

    /// Whether an encoder may have written this block, the number of which is `block`.
    fn validate(encoded: &[u8], count: usize, block: usize) -> Result<(), DecodeError>;
}

/// Finds the first element that is not finite.
pub(super) struct Check<'a> {
    pub dtype: Dtype,
    pub bytes: &'a [u8],
    pub residual: Option<&'a [f32]>,
}

impl Kernel for Check<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run(self) -> Option<usize> {
        let mut values = [0.0; BLOCK_ELEMENTS];
        let block_bytes = BLOCK_ELEMENTS * self.dtype.bytes();
        for (index, bytes) in self.bytes.chunks(block_bytes).enumerate() {
            let start = index * BLOCK_ELEMENTS;
            let residual = self.residual.map(|residual| &residual[start..]);
            load(self.dtype, bytes, residual, &mut values);
            if largest(&values) >= INFINITY {
                let found = values.iter().position(|value| !value.is_finite());
                return found.map(|offset| start + offset);
            }
        }
        None
    }
}

/// Encodes.
pub(super) struct Encode<'a, F, const STOCHASTIC: bool> {
    pub dtype: Dtype,
    pub bytes: &'a [u8],
    /// Blocks of the whole buffer before this part.
    pub blocks_before: u64,
    pub noise: Stream,
    pub residual: Option<&'a mut [f32]>,
    pub out: &'a mut [u8],
    pub format: PhantomData<F>,
}

impl<F: Format, const STOCHASTIC: bool> Kernel for Encode<'_, F, STOCHASTIC> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (mut values, mut noise) = ([0.0; BLOCK_ELEMENTS], [0; BLOCK_ELEMENTS]);
        let element_bytes = self.dtype.bytes();
        let inputs = self.bytes.chunks(BLOCK_ELEMENTS * element_bytes);
        for (index, (bytes, out)) in inputs.zip(self.out.chunks_mut(F::BYTES)).enumerate() {
            let start = index * BLOCK_ELEMENTS;
            let count = bytes.len() / element_bytes;
            let residual = self.residual.as_deref().map(|residual| &residual[start..]);
            load(self.dtype, bytes, residual, &mut values);
            if STOCHASTIC {
                let block = self.blocks_before.wrapping_add(index as u64);
                fill(&mut noise, self.noise, block);
            }
            F::encode::<STOCHASTIC>(&values, &noise, count, out);
            if let Some(residual) = self.residual.as_deref_mut() {
                let mut decoded = [0.0; BLOCK_ELEMENTS];
                F::decode(out, count, &mut decoded);
                let lost = values
                    .iter()
                    .zip(&decoded)
                    .map(|(value, code)| value - code);
                let residual = &mut residual[start..start + count];
                residual
                    .iter_mut()
                    .zip(lost)
                    .for_each(|(to, lost)| *to = lost);
            }
        }
    }
}

/// Tells whether bytes can be decoded.
pub(super) struct Validate<'a, F> {
    pub encoded: &'a [u8],
    pub count: usize,
    pub format: PhantomData<F>,
}

impl<F: Format> Kernel for Validate<'_, F> {
    type Output = Result<(), DecodeError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut left = self.count;
        for (block, encoded) in self.encoded.chunks(F::BYTES).enumerate() {
            let count = left.min(BLOCK_ELEMENTS);
            F::validate(encoded, count, block)?;
            left -= count;
        }
        Ok(())
    }
}

/// Decodes.
pub(super) struct Decode<'a, F> {
    pub encoded: &'a [u8],
    pub output: Output<'a>,
    pub format: PhantomData<F>,
}

impl<F: Format> Kernel for Decode<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut values = [0.0; BLOCK_ELEMENTS];
        let element_bytes = self.output.dtype.bytes();
        let outputs = self.output.bytes.chunks_mut(BLOCK_ELEMENTS * element_bytes);
        for (out, encoded) in outputs.zip(self.encoded.chunks(F::BYTES)) {
            F::decode(encoded, out.len() / element_bytes, &mut values);
            store(self.output.dtype, &values, out);
        }
    }
}

/// Decodes and adds.
pub(super) struct Add<'a, F> {
    pub encoded: &'a [u8],
    pub weight: f32,
    pub sum: &'a mut [u8],
    pub format: PhantomData<F>,
}

impl<F: Format> Kernel for Add<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut values = [0.0; BLOCK_ELEMENTS];
        let sums = self.sum.chunks_mut(BLOCK_ELEMENTS * 4);
        for (sum, encoded) in sums.zip(self.encoded.chunks(F::BYTES)) {
            F::decode(encoded, sum.len() / 4, &mut values);
            let (cells, _) = sum.as_chunks_mut::<4>();
            for (cell, value) in cells.iter_mut().zip(&values) {
                let sum = f32::from_ne_bytes(*cell) + self.weight * value;
                *cell = canonical(sum).to_ne_bytes();
            }
        }
    }
}

/// Reads a block as f32, with zeros after its end, and adds the residual.
#[inline(always)]
fn load(dtype: Dtype, bytes: &[u8], residual: Option<&[f32]>, values: &mut Block) {
    match dtype {
        Dtype::F32 => load_as(bytes, values, f32::lift),
        Dtype::Bf16 => load_as(bytes, values, Bf16::lift),
        Dtype::F16 => load_as(bytes, values, F16::lift),
        Dtype::F64 => load_as(bytes, values, |bits: u64| f64::lift(bits) as f32),
        _ => unreachable!("checked on entry"),
    }
    let count = bytes.len() / dtype.bytes();
    if count < BLOCK_ELEMENTS {
        values[count..].fill(0.0);
    }
    if let Some(residual) = residual {
        for (value, residual) in values.iter_mut().zip(&residual[..count]) {
            *value += residual;
        }
    }
}

#[inline(always)]
fn load_as<R: Raw>(bytes: &[u8], values: &mut Block, widen: impl Fn(R) -> f32) {
    for (value, cell) in values.iter_mut().zip(R::cells(bytes)) {
        *value = widen(R::read(*cell));
    }
}

/// Writes as many values as there is room for.
#[inline(always)]
fn store(dtype: Dtype, values: &Block, out: &mut [u8]) {
    match dtype {
        Dtype::F32 => store_as(values, out, f32::to_bits),
        Dtype::Bf16 => store_as(values, out, narrow_bf16),
        Dtype::F16 => store_as(values, out, narrow_f16),
        Dtype::F64 => store_as(values, out, |value| f64::from(value).to_bits()),
        _ => unreachable!("checked on entry"),
    }
}

#[inline(always)]
fn store_as<R: Raw>(values: &Block, out: &mut [u8], narrow: impl Fn(f32) -> R) {
    for (cell, value) in R::cells_mut(out).iter_mut().zip(values) {
        *cell = narrow(*value).write();
    }
}

/// To nearest, ties to even; beyond the range, the greatest.
#[inline(always)]
pub(super) fn narrow_bf16(value: f32) -> u16 {
    Bf16::lower(value.clamp(-BF16_MAX, BF16_MAX))
}

/// To nearest, ties to even; beyond the range, the greatest.
#[inline(always)]
pub(super) fn narrow_f16(value: f32) -> u16 {
    F16::lower(value.clamp(-F16_MAX, F16_MAX))
}

/// Bits of the greatest absolute value. Absolute values order like their bits.
#[inline(always)]
pub(super) fn largest(values: &Block) -> u32 {
    let mut largest = 0;
    for value in values {
        largest = largest.max(value.to_bits() & MAGNITUDE);
    }
    largest
}

/// Elements 0 to 127 take the lower halves of 128 words, elements 128 to 255 the upper halves.
#[inline(always)]
fn fill(noise: &mut Noise, stream: Stream, block: u64) {
    let words = stream.row(block.wrapping_mul(ROW_BLOCKS));
    let (low, high) = noise.split_at_mut(ROW_WORDS);
    for ((low, high), word) in low.iter_mut().zip(high).zip(words) {
        *low = word & 0xffff;
        *high = word >> 16;
    }
}

/// All bits of an f32 but the sign.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;
/// Bits of infinity.
pub(super) const INFINITY: u32 = 0x7f80_0000;
const BF16_MAX: f32 = f32::from_bits(0x7f7f_0000);
const F16_MAX: f32 = 65_504.0;
const _: () = assert!(BLOCK_ELEMENTS == 2 * ROW_WORDS);
