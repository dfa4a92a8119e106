//! Goal: every level gives the bits of the plain reference, and those are the bits of the rules.
//!
//! 1. Arbitrary and awkward inputs: all types, operators, levels, odd lengths, odd addresses.
//! 2. Single results worked out by hand, one a rule.
//! 3. A digest of results over fixed inputs, the same on every machine.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::reference;
use crate::tests::{awkward_bits, digest, elements, levels};

fn reduced(level: Level, what: (Dtype, ReduceOp, u32), inputs: &[&[u8]]) -> Vec<u8> {
    // An odd address, and a canary at each end.
    let bytes = inputs[0].len();
    let mut out = vec![0xa5; bytes + 2];
    reduce_at(level, what, inputs, &mut out[1..=bytes]);
    assert_eq!((out[0], out[bytes + 1]), (0xa5, 0xa5));
    out[1..=bytes].to_vec()
}

fn expected(what: (Dtype, ReduceOp, u32), inputs: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0; inputs[0].len()];
    reference(what.0, what.1, what.2, inputs, &mut out);
    out
}

fn compare_all(dtype: Dtype, inputs: &[&[u8]], divisor: u32) {
    for op in ReduceOp::ALL {
        compare((dtype, op, divisor), inputs);
    }
}

fn compare(what: (Dtype, ReduceOp, u32), inputs: &[&[u8]]) {
    let bytes = what.0.bytes();
    let right = expected(what, inputs);
    for level in levels() {
        let found = reduced(level, what, inputs);
        let wrong = found
            .chunks(bytes)
            .zip(right.chunks(bytes))
            .enumerate()
            .find(|(_, (a, b))| a != b);
        let world = inputs.len();
        assert_eq!(wrong, None, "{what:?} {level:?} {world} inputs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_levels_give_the_bits_of_the_reference(
        count in 0..70_usize,
        world in 1..10_usize,
        offset in 0..8_usize,
        divisor in 1..300_u32,
        seed in any::<u64>(),
    ) {
        for dtype in Dtype::ALL {
            let mut buffers = Vec::new();
            for rank in 0..world as u64 {
                let mut bytes = vec![0; offset];
                bytes.extend(elements(dtype, count, seed.wrapping_add(rank << 32), 4));
                buffers.push(bytes);
            }
            let inputs: Vec<&[u8]> = buffers.iter().map(|bytes| &bytes[offset..]).collect();
            compare_all(dtype, &inputs, divisor);
        }
    }
}

#[test]
fn lengths_around_a_tile_give_the_bits_of_the_reference() {
    for dtype in Dtype::ALL {
        for count in [TILE_ELEMENTS - 1, TILE_ELEMENTS, 2 * TILE_ELEMENTS + 3] {
            let buffers: Vec<_> = (0..5)
                .map(|rank| elements(dtype, count, rank, 50))
                .collect();
            let inputs: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
            compare_all(dtype, &inputs, 5);
        }
    }
}

#[test]
fn every_pair_of_awkward_values_gives_the_bits_of_the_reference() {
    for dtype in Dtype::ALL {
        let awkward = awkward_bits(dtype);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for a in &awkward {
            for b in &awkward {
                left.extend_from_slice(&a.to_le_bytes()[..dtype.bytes()]);
                right.extend_from_slice(&b.to_le_bytes()[..dtype.bytes()]);
            }
        }
        compare_all(dtype, &[&left, &right], 3);
    }
}

#[test]
fn every_16_bit_float_is_widened_and_narrowed_exactly() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    compare_all(Dtype::F16, &[&all], 1);
    compare_all(Dtype::Bf16, &[&all], 1);
}

/// Values whose sum lies between two f16 or bf16, on all sides of the tie.
#[test]
fn narrowing_rounds_to_nearest_even_for_every_exponent() {
    for (dtype, step) in [(Dtype::F16, 0x3ff_u16), (Dtype::Bf16, 0x7f)] {
        for scale in [1, 2, 3, 7, 20_u16] {
            let left: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
            let right: Vec<u8> = (0..=u16::MAX)
                .map(|bits| bits.wrapping_sub(scale * (step / 3)) ^ bits >> 9 & 1)
                .flat_map(u16::to_ne_bytes)
                .collect();
            compare((dtype, ReduceOp::Sum, 1), &[&left, &right]);
        }
    }
}

/// One element of each input, and one of the result, as written in Rust.
macro_rules! gives {
    ($dtype:ident $op:ident / $divisor:literal: [$($input:expr),*] => $result:expr) => {{
        let inputs = [$($input.to_ne_bytes()),*];
        let inputs: Vec<&[u8]> = inputs.iter().map(<[u8; _]>::as_slice).collect();
        let what = (Dtype::$dtype, ReduceOp::$op, $divisor);
        assert_eq!(expected(what, &inputs), $result.to_ne_bytes(), "reference {what:?}");
        for level in levels() {
            assert_eq!(reduced(level, what, &inputs), $result.to_ne_bytes(), "{level:?} {what:?}");
        }
    }};
}

#[test]
fn integers_wrap_and_averages_truncate_toward_zero() {
    gives!(U8 Sum / 1: [200_u8, 100_u8] => 44_u8);
    gives!(I8 Sum / 1: [i8::MAX, 1_i8] => i8::MIN);
    gives!(I32 Prod / 1: [i32::MIN, -1_i32] => i32::MIN);
    gives!(I32 Avg / 2: [-3_i32, -4_i32] => -3_i32);
    gives!(I32 Avg / 2: [3_i32, 4_i32] => 3_i32);
    gives!(U8 Avg / 256: [200_u8, 50_u8] => 0_u8);
    gives!(I8 Avg / 300: [-128_i8, 1_i8] => 0_i8);
    gives!(I64 Avg / 2: [i64::MIN, 0_i64] => i64::MIN / 2);
    gives!(U64 Avg / 2: [u64::MAX, 0_u64] => u64::MAX / 2);
    gives!(I16 Min / 1: [-5_i16, 4_i16] => -5_i16);
    gives!(U16 Max / 1: [65_000_u16, 4_u16] => 65_000_u16);
}

#[test]
fn integer_averages_of_extremes_are_those_extremes() {
    macro_rules! extremes {
        ($($dtype:ident $int:ty),*) => {$(
            for value in [<$int>::MAX, <$int>::MAX - 1, <$int>::MIN, <$int>::MIN + 1] {
                gives!($dtype Avg / 2: [value, value] => value);
                gives!($dtype Avg / 3: [value, value, value] => value);
                gives!($dtype Avg / 5: [value, value, value, value, value] => value);
            }
            gives!($dtype Avg / 2: [<$int>::MAX, <$int>::MAX - 1] => <$int>::MAX - 1);
        )*};
    }
    extremes!(U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64);
    gives!(U8 Avg / 2: [200_u8, 200_u8] => 200_u8);
    gives!(I8 Avg / 2: [i8::MIN, i8::MIN + 1] => i8::MIN + 1);
    gives!(I64 Avg / 2: [i64::MIN, i64::MAX] => 0_i64);
}

/// The largest world, with the values that need the most digits.
#[test]
fn integer_averages_of_the_largest_world_are_exact() {
    let world = 256;
    for dtype in Dtype::ALL.into_iter().take(8) {
        let buffers: Vec<_> = (0..world as u64)
            .map(|rank| {
                let mut bytes = vec![0xff; 3 * dtype.bytes()];
                bytes.extend(elements(dtype, 9, rank, 2));
                bytes
            })
            .collect();
        let inputs: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
        compare((dtype, ReduceOp::Avg, world as u32), &inputs);
    }
}

#[test]
fn integer_averages_are_exact_around_every_multiple_of_the_divisor() {
    for divisor in [1, 2, 3, 7, 100, 255, 256, 65_537, (1 << 24) + 1, u32::MAX] {
        for dtype in Dtype::ALL.into_iter().take(8) {
            let bytes = dtype.bytes();
            let mut sums = Vec::new();
            for multiple in 0..300_u64 {
                let near = multiple.wrapping_mul(0x1_0001_0001_0003) / u64::from(divisor);
                for sum in [near * u64::from(divisor), multiple * u64::from(divisor)] {
                    for sum in [sum.wrapping_sub(1), sum, sum.wrapping_neg()] {
                        sums.extend_from_slice(&sum.to_le_bytes()[..bytes]);
                    }
                }
            }
            compare((dtype, ReduceOp::Avg, divisor), &[&sums]);
        }
    }
}

#[test]
fn half_precision_is_summed_in_f32_and_rounded_once() {
    let h = f16::from_f32;
    // 2048 + 1 is a tie that rounds to 2048; added one by one in f16, 2048 + 1 + 1 would stay 2048.
    gives!(F16 Sum / 1: [h(2048.0), h(1.0), h(1.0)] => h(2050.0));
    gives!(F16 Sum / 1: [h(2048.0), h(1.0)] => h(2048.0));
    gives!(F16 Sum / 1: [h(2050.0), h(1.0)] => h(2052.0));
    // Beyond the largest f16 on the way, inside it at the end.
    gives!(F16 Avg / 2: [h(60_000.0), h(60_000.0)] => h(60_000.0));
    gives!(F16 Sum / 1: [h(65_504.0), h(15.0)] => h(65_504.0));
    gives!(F16 Sum / 1: [h(65_504.0), h(16.0)] => f16::INFINITY);
    let b = bf16::from_f32;
    gives!(Bf16 Sum / 1: [b(256.0), b(1.0), b(1.0)] => b(258.0));
    gives!(Bf16 Sum / 1: [b(256.0), b(1.0)] => b(256.0));
}

#[test]
fn float_sums_keep_the_order_and_averages_divide_once() {
    gives!(F32 Sum / 1: [1e8_f32, 1.0_f32, -1e8_f32] => 0.0_f32);
    gives!(F32 Sum / 1: [1e8_f32, -1e8_f32, 1.0_f32] => 1.0_f32);
    gives!(F32 Avg / 3: [1.0_f32, 0.0_f32, 0.0_f32] => (1.0_f32 / 3.0));
    gives!(F64 Avg / 7: [1.0_f64, 1.0_f64] => (2.0_f64 / 7.0));
    gives!(F32 Sum / 1: [-0.0_f32] => -0.0_f32);
    gives!(F32 Sum / 1: [-0.0_f32, -0.0_f32] => -0.0_f32);
    gives!(F32 Sum / 1: [-0.0_f32, 0.0_f32] => 0.0_f32);
    gives!(F32 Sum / 1: [f32::from_bits(1), f32::from_bits(2)] => f32::from_bits(3));
}

#[test]
fn nan_wins_and_is_one_pattern_and_minus_zero_is_less() {
    let nan = f32::from_bits(0x7fc0_0000);
    let odd_nan = f32::from_bits(0xff80_0001);
    gives!(F32 Sum / 1: [odd_nan, 1.0_f32] => nan);
    gives!(F32 Sum / 1: [f32::INFINITY, f32::NEG_INFINITY] => nan);
    gives!(F32 Sum / 1: [odd_nan] => nan);
    gives!(F32 Min / 1: [odd_nan, f32::NEG_INFINITY] => nan);
    gives!(F32 Min / 1: [f32::NEG_INFINITY, odd_nan, 0.0_f32] => nan);
    gives!(F32 Max / 1: [f32::INFINITY, odd_nan] => nan);
    gives!(F32 Max / 1: [odd_nan, f32::INFINITY] => nan);
    gives!(F32 Min / 1: [0.0_f32, -0.0_f32] => -0.0_f32);
    gives!(F32 Max / 1: [-0.0_f32, 0.0_f32] => 0.0_f32);
    gives!(F64 Max / 1: [-f64::NAN, 1.0_f64] => f64::from_bits(0x7ff8_0000_0000_0000));
    gives!(F16 Min / 1: [f16::from_bits(0xfc01), f16::ONE] => f16::from_bits(0x7e00));
    gives!(Bf16 Prod / 1: [bf16::INFINITY, bf16::ZERO] => bf16::from_bits(0x7fc0));
}

/// The digests were made on x86-64 with its baseline instructions. A difference on another machine,
/// or after a change, means that two peers of one run would disagree.
#[test]
fn golden_digests_hold_at_every_level() {
    let golden = include_str!("golden.txt");
    for level in levels() {
        let mut found = String::new();
        for dtype in Dtype::ALL {
            for op in ReduceOp::ALL {
                found += &golden_line(level, dtype, op);
            }
        }
        assert!(
            found == golden,
            "{level:?} differs; its digests are:\n{found}"
        );
    }
}

fn golden_line(level: Level, dtype: Dtype, op: ReduceOp) -> String {
    let mut digests = String::new();
    for world in [1, 2, 3, 8_u32] {
        let buffers: Vec<_> = (0..u64::from(world))
            .map(|rank| elements(dtype, 1500, rank, 9))
            .collect();
        let inputs: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
        let out = reduced(level, (dtype, op, world), &inputs);
        digests += &format!(" {:016x}", digest(&out));
    }
    format!("{} {}{digests}\n", dtype.name(), op.name())
}

#[test]
#[should_panic(expected = "inputs and output have one length")]
fn a_shorter_input_is_the_callers_mistake() {
    reduce(Dtype::U8, ReduceOp::Sum, 1, &[&[1, 2], &[1]], &mut [0, 0]);
}

#[test]
#[should_panic(expected = "whole elements")]
fn half_an_element_is_the_callers_mistake() {
    reduce(Dtype::F32, ReduceOp::Sum, 1, &[&[0; 6]], &mut [0; 6]);
}

#[test]
fn nothing_is_reduced_to_nothing() {
    reduce(Dtype::F16, ReduceOp::Avg, 2, &[&[], &[]], &mut []);
}
