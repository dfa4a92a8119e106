//! The reduction written plainly, one element at a time: the reference that the kernels are tested
//! against.

use half::{bf16, f16};

use super::{Dtype, ReduceOp, kernel};

/// The same bits as [`super::reduce`], slowly.
///
/// # Panics
/// As [`super::reduce`].
pub fn reference(dtype: Dtype, op: ReduceOp, divisor: u32, inputs: &[&[u8]], out: &mut [u8]) {
    kernel::check((dtype, op, divisor), inputs, out);
    let bytes = dtype.bytes();
    let mut column = Vec::with_capacity(inputs.len());
    for (index, cell) in out.chunks_exact_mut(bytes).enumerate() {
        let start = index * bytes;
        column.clear();
        column.extend(inputs.iter().map(|input| &input[start..start + bytes]));
        cell.copy_from_slice(&one(dtype, op, divisor, &column)[..bytes]);
    }
}

/// One element of the result, in the first bytes.
fn one(dtype: Dtype, op: ReduceOp, divisor: u32, column: &[&[u8]]) -> [u8; 8] {
    macro_rules! values {
        ($element:ty) => {
            column.iter().map(|bytes| {
                <$element>::from_ne_bytes((*bytes).try_into().expect("cut to one element"))
            })
        };
    }
    macro_rules! integer {
        ($int:ty) => {{
            let values = values!($int);
            let result = match op {
                ReduceOp::Sum => values.fold(0, <$int>::wrapping_add),
                ReduceOp::Avg => {
                    let sum: i128 = values.map(i128::from).sum();
                    let (least, most) = (<$int>::MIN.into(), <$int>::MAX.into());
                    (sum / i128::from(divisor)).clamp(least, most) as $int
                }
                ReduceOp::Prod => values.fold(1, <$int>::wrapping_mul),
                ReduceOp::Min => values.min().expect("checked: at least one input"),
                ReduceOp::Max => values.max().expect("checked: at least one input"),
            };
            padded(&result.to_ne_bytes())
        }};
    }
    macro_rules! float {
        ($float:ty as $wide:ty, $nan:expr, $round:expr) => {{
            let combined = combine(op, divisor, values!($float).map(<$wide>::from));
            let bits = if combined.is_nan() {
                $nan
            } else {
                $round(combined)
            };
            padded(&bits.to_ne_bytes())
        }};
    }
    match dtype {
        Dtype::U8 => integer!(u8),
        Dtype::U16 => integer!(u16),
        Dtype::U32 => integer!(u32),
        Dtype::U64 => integer!(u64),
        Dtype::I8 => integer!(i8),
        Dtype::I16 => integer!(i16),
        Dtype::I32 => integer!(i32),
        Dtype::I64 => integer!(i64),
        Dtype::F16 => float!(f16 as f32, 0x7e00, |x| f16::from_f32(x).to_bits()),
        Dtype::Bf16 => float!(bf16 as f32, 0x7fc0, |x| bf16::from_f32(x).to_bits()),
        Dtype::F32 => float!(f32 as f32, 0x7fc0_0000, f32::to_bits),
        Dtype::F64 => float!(f64 as f64, 0x7ff8_0000_0000_0000, f64::to_bits),
    }
}

fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

/// The arithmetic that f32 and f64 share.
trait Float: Copy {
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn divide(self, divisor: u32) -> Self;
    /// By value, -0 before +0. False if either is NaN.
    fn comes_before(self, other: Self) -> bool;
    fn is_nan(self) -> bool;
}

macro_rules! float {
    ($($float:ty),*) => {$(
        impl Float for $float {
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            fn divide(self, divisor: u32) -> Self {
                self / divisor as Self
            }
            fn comes_before(self, other: Self) -> bool {
                let is_lesser_zero = self.is_sign_negative() && other.is_sign_positive();
                self < other || self == other && is_lesser_zero
            }
            fn is_nan(self) -> bool {
                <$float>::is_nan(self)
            }
        }
    )*};
}

float!(f32, f64);

fn combine<F: Float>(op: ReduceOp, divisor: u32, values: impl Iterator<Item = F>) -> F {
    let combined = match op {
        ReduceOp::Sum => values.reduce(F::add),
        ReduceOp::Avg => values.reduce(F::add).map(|sum| sum.divide(divisor)),
        ReduceOp::Prod => values.reduce(F::multiply),
        // The value that is not before the other loses, unless it is NaN.
        ReduceOp::Min => values.reduce(|a, b| {
            if a.is_nan() || a.comes_before(b) {
                a
            } else {
                b
            }
        }),
        ReduceOp::Max => values.reduce(|a, b| {
            if a.is_nan() || b.comes_before(a) {
                a
            } else {
                b
            }
        }),
    };
    combined.expect("checked: at least one input")
}
