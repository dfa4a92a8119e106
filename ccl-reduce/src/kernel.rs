//! The fused reduction: reads every input once, writes the output once, and combines in the order
//! given.
//!
//! `number` and `rule` fix which bits come out; `simd` chooses the vector width, which changes
//! nothing. Calling it, and when the memory may be touched, is the business of the collectives.

use std::marker::PhantomData;

use super::number::{Bf16, F16, Number, Raw};
use super::rule::{Average, Maximum, Minimum, Product, Rule, Sum};
use super::simd::{self, Kernel, Level, run_at};
use super::{Dtype, ReduceOp};

/// Combines `inputs` element by element, in their order, into `out`.
///
/// `divisor` is the number of contributors that `Avg` divides by; other operators ignore it. A
/// chain of calls may divide in its last step only. Buffers need no alignment. See `number` for the
/// rules on wrapping, rounding and NaN.
///
/// # Panics If there is no input, a length differs from that of `out` or is no multiple of the
/// element, or `Avg` is to divide by zero or has more than 65,536 inputs.
pub fn reduce(dtype: Dtype, op: ReduceOp, divisor: u32, inputs: &[&[u8]], out: &mut [u8]) {
    reduce_at(Level::best(), (dtype, op, divisor), inputs, out);
}

/// [`reduce`] with the width of the machine's instructions chosen by the caller, for tests that
/// compare them. `what` is dtype, operator and divisor.
///
/// # Panics
/// As [`reduce`], and if this machine lacks the level.
pub fn reduce_at(level: Level, what: (Dtype, ReduceOp, u32), inputs: &[&[u8]], out: &mut [u8]) {
    let (dtype, op, divisor) = what;
    check(what, inputs, out);
    let job = Job {
        level,
        op,
        divisor,
        inputs,
        out,
    };
    match (dtype, op) {
        // Wrapping sums and products have the same bits with and without a sign.
        (Dtype::I8, ReduceOp::Sum | ReduceOp::Prod) => by_operator::<u8>(job),
        (Dtype::I16, ReduceOp::Sum | ReduceOp::Prod) => by_operator::<u16>(job),
        (Dtype::I32, ReduceOp::Sum | ReduceOp::Prod) => by_operator::<u32>(job),
        (Dtype::I64, ReduceOp::Sum | ReduceOp::Prod) => by_operator::<u64>(job),
        (Dtype::U8, _) => by_operator::<u8>(job),
        (Dtype::U16, _) => by_operator::<u16>(job),
        (Dtype::U32, _) => by_operator::<u32>(job),
        (Dtype::U64, _) => by_operator::<u64>(job),
        (Dtype::I8, _) => by_operator::<i8>(job),
        (Dtype::I16, _) => by_operator::<i16>(job),
        (Dtype::I32, _) => by_operator::<i32>(job),
        (Dtype::I64, _) => by_operator::<i64>(job),
        (Dtype::F16, ReduceOp::Min | ReduceOp::Max) => by_operator::<F16>(job),
        (Dtype::F16, _) if level >= Level::Avx2 => simd::reduce_f16((op, divisor), inputs, job.out),
        (Dtype::F16, _) => by_operator::<F16>(job),
        (Dtype::Bf16, _) => by_operator::<Bf16>(job),
        (Dtype::F32, _) => by_operator::<f32>(job),
        (Dtype::F64, _) => by_operator::<f64>(job),
    }
}

/// Checks the arguments of `reduce`.
pub(super) fn check(what: (Dtype, ReduceOp, u32), inputs: &[&[u8]], out: &[u8]) {
    let (dtype, op, divisor) = what;
    assert!(!inputs.is_empty(), "a reduction has at least one input");
    assert!(
        inputs.iter().all(|input| input.len() == out.len()),
        "inputs and output have one length"
    );
    assert_eq!(out.len() % dtype.bytes(), 0, "buffers hold whole elements");
    assert!(
        op != ReduceOp::Avg || divisor > 0,
        "an average has contributors"
    );
    assert!(
        op != ReduceOp::Avg || inputs.len() <= AVERAGE_INPUTS_MAX,
        "sums of averages are exact"
    );
}

struct Job<'a> {
    level: Level,
    op: ReduceOp,
    divisor: u32,
    inputs: &'a [&'a [u8]],
    out: &'a mut [u8],
}

fn by_operator<N: Number>(job: Job<'_>) {
    let Job {
        level,
        op,
        divisor,
        inputs,
        out,
    } = job;
    match op {
        ReduceOp::Sum => run(level, &Sum::<N>(PhantomData), inputs, out),
        ReduceOp::Avg => {
            let average = Average::<N> {
                divisor,
                number: PhantomData,
            };
            run(level, &average, inputs, out);
        }
        ReduceOp::Prod => run(level, &Product::<N>(PhantomData), inputs, out),
        ReduceOp::Min => run(level, &Minimum::<N>(PhantomData), inputs, out),
        ReduceOp::Max => run(level, &Maximum::<N>(PhantomData), inputs, out),
    }
}

fn run<R: Rule>(level: Level, rule: &R, inputs: &[&[u8]], out: &mut [u8]) {
    run_at(level, Sweep { rule, inputs, out });
}

struct Sweep<'a, R> {
    rule: &'a R,
    inputs: &'a [&'a [u8]],
    out: &'a mut [u8],
}

impl<R: Rule> Kernel for Sweep<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        sweep(self.rule, self.inputs, self.out);
    }
}

/// The loops. Inlined into one function per level, where the compiler vectorises them for it.
#[inline(always)]
fn sweep<R: Rule>(rule: &R, inputs: &[&[u8]], out: &mut [u8]) {
    match inputs {
        [] => unreachable!("checked on entry"),
        [only] => {
            let cells = R::Raw::cells_mut(out).iter_mut();
            for (cell, a) in cells.zip(R::Raw::cells(only)) {
                *cell = rule.lower(rule.lift(R::Raw::read(*a))).write();
            }
        }
        [first, second] => sweep_pair(rule, (first, second), out),
        [first, second, middle @ .., last] => {
            let ends = (*first, *second, *last);
            sweep_tiles(rule, ends, middle, out);
        }
    }
}

#[inline(always)]
fn sweep_pair<R: Rule>(rule: &R, pair: (&[u8], &[u8]), out: &mut [u8]) {
    let inputs = R::Raw::cells(pair.0).iter().zip(R::Raw::cells(pair.1));
    for (cell, (a, b)) in R::Raw::cells_mut(out).iter_mut().zip(inputs) {
        let (a, b) = (rule.lift(R::Raw::read(*a)), rule.lift(R::Raw::read(*b)));
        *cell = rule.lower(rule.combine(a, b)).write();
    }
}

/// Three inputs and more: the accumulators of a tile stay in the first-level cache.
#[inline(always)]
fn sweep_tiles<R: Rule>(rule: &R, ends: (&[u8], &[u8], &[u8]), middle: &[&[u8]], out: &mut [u8]) {
    let mut states = [R::State::default(); TILE_ELEMENTS];
    let tile_bytes = TILE_ELEMENTS * size_of::<R::Raw>();
    for (tile, out) in out.chunks_mut(tile_bytes).enumerate() {
        let start = tile * tile_bytes;
        let range = start..start + out.len();
        let first = R::Raw::cells(&ends.0[range.clone()]).iter();
        let second = R::Raw::cells(&ends.1[range.clone()]);
        for (state, (a, b)) in states.iter_mut().zip(first.zip(second)) {
            *state = rule.combine(rule.lift(R::Raw::read(*a)), rule.lift(R::Raw::read(*b)));
        }
        for input in middle {
            let input = R::Raw::cells(&input[range.clone()]);
            for (state, a) in states.iter_mut().zip(input) {
                *state = rule.combine(*state, rule.lift(R::Raw::read(*a)));
            }
        }
        let last = R::Raw::cells(&ends.2[range]).iter();
        let cells = R::Raw::cells_mut(out).iter_mut().zip(last);
        for ((cell, a), state) in cells.zip(&states) {
            let whole = rule.combine(*state, rule.lift(R::Raw::read(*a)));
            *cell = rule.lower(whole).write();
        }
    }
}

/// Elements of a tile: 8 KiB of f64 state, and as much of each of two streams, fit any first-level
/// cache. Averages of 64-bit integers have twice the state, and are rare.
const TILE_ELEMENTS: usize = 1024;

/// Most inputs of an average: so many bytes add up to less than 2^24, which f32 holds exactly.
pub const AVERAGE_INPUTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests;
