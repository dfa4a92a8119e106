//! What results must be, computed one element after the other, apart from the library's kernels.

use ccl_core::{Dtype, ReduceOp, bf16, f16};

use super::rng::Rng;

/// Input of one member: finite numbers that do not overflow whatever is done with 16 of them.
///
/// With `exact`, sums of floats are exact in every order, for algorithms whose order depends on the
/// ring.
#[must_use]
pub fn input(seed: u64, dtype: Dtype, count: usize, exact: bool) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(count * dtype.bytes());
    for _ in 0..count {
        let bits = rng.bits();
        let small = (bits % 15) as f32 - 7.0;
        let wide = ((bits >> 20) % 4_000_001) as f32 / 999.0 - 2000.0;
        let float = if exact { small } else { wide };
        match dtype {
            Dtype::F32 => bytes.extend_from_slice(&float.to_le_bytes()),
            Dtype::F64 => bytes.extend_from_slice(&f64::from(float).to_le_bytes()),
            Dtype::F16 => bytes.extend_from_slice(&f16::from_f32(float).to_le_bytes()),
            Dtype::Bf16 => bytes.extend_from_slice(&bf16::from_f32(float).to_le_bytes()),
            _ => bytes.extend_from_slice(&bits.to_le_bytes()[..dtype.bytes()]),
        }
    }
    bytes
}

/// The reduction of these inputs, added in this order.
///
/// # Panics
/// If the inputs differ in length or there is none.
#[must_use]
pub fn reduce(dtype: Dtype, op: ReduceOp, inputs: &[&[u8]]) -> Vec<u8> {
    match dtype {
        Dtype::U8 => integers::<1>(op, inputs, false),
        Dtype::I8 => integers::<1>(op, inputs, true),
        Dtype::U16 => integers::<2>(op, inputs, false),
        Dtype::I16 => integers::<2>(op, inputs, true),
        Dtype::U32 => integers::<4>(op, inputs, false),
        Dtype::I32 => integers::<4>(op, inputs, true),
        Dtype::U64 => integers::<8>(op, inputs, false),
        Dtype::I64 => integers::<8>(op, inputs, true),
        Dtype::F32 => floats::<4>(op, inputs, f32::from_le_bytes, f32::to_le_bytes),
        Dtype::F16 => floats::<2>(
            op,
            inputs,
            |b| f16::from_le_bytes(b).to_f32(),
            |x| f16::from_f32(x).to_le_bytes(),
        ),
        Dtype::Bf16 => floats::<2>(
            op,
            inputs,
            |b| bf16::from_le_bytes(b).to_f32(),
            |x| bf16::from_f32(x).to_le_bytes(),
        ),
        Dtype::F64 => doubles(op, inputs),
    }
}

/// Integers of `N` bytes wrap; an average divides the exact sum, and truncates toward zero.
fn integers<const N: usize>(op: ReduceOp, inputs: &[&[u8]], signed: bool) -> Vec<u8> {
    let widen = |bytes: &[u8]| {
        let fill = if signed && bytes[N - 1] & 0x80 != 0 {
            0xff
        } else {
            0
        };
        let mut wide = [fill; 16];
        wide[..N].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    };
    let wrap = |value: i128| widen(&value.to_le_bytes()[..N]);
    let mut result = Vec::with_capacity(inputs[0].len());
    for at in (0..inputs[0].len()).step_by(N) {
        let mut values = inputs.iter().map(|input| widen(&input[at..at + N]));
        let first = values.next().expect("there is an input");
        let mut total = values.fold(first, |sum, value| match op {
            ReduceOp::Sum => wrap(sum.wrapping_add(value)),
            ReduceOp::Avg => sum + value,
            ReduceOp::Prod => wrap(sum.wrapping_mul(value)),
            ReduceOp::Min => sum.min(value),
            ReduceOp::Max => sum.max(value),
        });
        if op == ReduceOp::Avg {
            total /= inputs.len() as i128;
        }
        result.extend_from_slice(&total.to_le_bytes()[..N]);
    }
    result
}

/// Floats that are added in 32 bits and rounded once.
fn floats<const N: usize>(
    op: ReduceOp,
    inputs: &[&[u8]],
    read: impl Fn([u8; N]) -> f32,
    write: impl Fn(f32) -> [u8; N],
) -> Vec<u8> {
    let mut result = Vec::with_capacity(inputs[0].len());
    for at in (0..inputs[0].len()).step_by(N) {
        let mut values = inputs
            .iter()
            .map(|input| read(input[at..at + N].try_into().expect("N bytes")));
        let first = values.next().expect("there is an input");
        let mut total = values.fold(first, |sum, value| match op {
            ReduceOp::Sum | ReduceOp::Avg => sum + value,
            ReduceOp::Prod => sum * value,
            ReduceOp::Min => sum.min(value),
            ReduceOp::Max => sum.max(value),
        });
        if op == ReduceOp::Avg {
            total /= inputs.len() as f32;
        }
        result.extend_from_slice(&write(total));
    }
    result
}

fn doubles(op: ReduceOp, inputs: &[&[u8]]) -> Vec<u8> {
    let read = |input: &&[u8], at: usize| {
        f64::from_le_bytes(input[at..at + 8].try_into().expect("eight bytes"))
    };
    let mut result = Vec::with_capacity(inputs[0].len());
    for at in (0..inputs[0].len()).step_by(8) {
        let mut values = inputs.iter().map(|input| read(input, at));
        let first = values.next().expect("there is an input");
        let mut total = values.fold(first, |sum, value| match op {
            ReduceOp::Sum | ReduceOp::Avg => sum + value,
            ReduceOp::Prod => sum * value,
            ReduceOp::Min => sum.min(value),
            ReduceOp::Max => sum.max(value),
        });
        if op == ReduceOp::Avg {
            total /= inputs.len() as f64;
        }
        result.extend_from_slice(&total.to_le_bytes());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_averages_truncate_toward_zero() {
        let (a, b) = ([200u8, 5], [100u8, 6]);
        assert_eq!(reduce(Dtype::U8, ReduceOp::Sum, &[&a, &b]), [44, 11]);
        assert_eq!(reduce(Dtype::U8, ReduceOp::Avg, &[&a, &b]), [150, 5]);
        let (c, d) = ((-7i32).to_le_bytes(), 0i32.to_le_bytes());
        let avg = reduce(Dtype::I32, ReduceOp::Avg, &[&c, &d]);
        assert_eq!(avg, (-3i32).to_le_bytes());
    }

    #[test]
    fn small_floats_are_rounded_once() {
        let one = bf16::from_f32(256.0).to_le_bytes();
        let two = bf16::from_f32(1.0).to_le_bytes();
        let sum = reduce(Dtype::Bf16, ReduceOp::Sum, &[&one, &two, &two]);
        assert_eq!(sum, bf16::from_f32(258.0).to_le_bytes());
    }
}
