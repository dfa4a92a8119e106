//! Goal: the same input gives the same bytes on every machine, and any bytes decode safely.
//!
//! 1. Encoded bytes, decoded values and residuals, compared with plain definitions: every encoding,
//!    type, rounding and level, lengths around blocks, odd addresses, subnormals and extremes, on a
//!    thread that flushes subnormals.
//! 2. Refusals, which leave everything as it was.
//! 3. How far a mean of many is off, and that rounding up and down balance.
//! 4. Digests over fixed inputs, the same on every machine.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::philox::philox4x32_10;
use crate::simd::on_a_hostile_thread;
use crate::tests::{digest, digest_of, levels, weights};

mod error;
mod reference;

use reference::{decoded, encoded};

const LENGTHS: [usize; 16] = [
    0, 1, 2, 3, 5, 127, 128, 129, 253, 254, 255, 256, 257, 511, 513, 1300,
];

const TYPES: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64];

const ROUNDINGS: [Rounding; 2] = [
    Rounding::Nearest,
    Rounding::Stochastic {
        seed: 0x1234_5678_9abc_def0,
        stream: 0x0f1e_2d3c_4b5a_6978,
    },
];

/// Finite values. Blocks differ in kind: all sizes, near 1, subnormal, huge, almost all zero.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let of = |index: usize, value: f32| {
        let bits = value.to_bits();
        match (seed + (index / BLOCK_ELEMENTS) as u64) % 5 {
            0 => value,
            1 => f32::from_bits(bits & 0x80ff_ffff | 0x3f00_0000),
            2 => f32::from_bits(bits & 0x807f_ffff),
            3 => f32::from_bits(bits & 0x80ff_ffff | 0x7e00_0000),
            _ if bits.is_multiple_of(61) => value,
            _ => f32::from_bits(bits & 0x8000_0000),
        }
    };
    let numbered = weights(count, seed, 9).into_iter().enumerate();
    numbered.map(|(index, value)| of(index, value)).collect()
}

/// Those values as elements of a type, and what they are as f32.
fn elements_of(dtype: Dtype, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let f64_of = |value: f32| f64::from(value) * (1.0 - 1e-9);
    let one = |value: f32| match dtype {
        Dtype::F32 => (value.to_ne_bytes().to_vec(), value),
        Dtype::F64 => (f64_of(value).to_ne_bytes().to_vec(), f64_of(value) as f32),
        Dtype::F16 => {
            let half = f16::from_f32(value.clamp(-65_504.0, 65_504.0));
            (half.to_ne_bytes().to_vec(), half.to_f32())
        }
        _ => {
            let half = bf16::from_bits((value.to_bits() >> 16) as u16);
            (half.to_ne_bytes().to_vec(), half.to_f32())
        }
    };
    let (bytes, floats): (Vec<Vec<u8>>, _) = values.iter().map(|value| one(*value)).unzip();
    (bytes.concat(), floats)
}

fn input(dtype: Dtype, bytes: &[u8], rounding: Rounding) -> Input<'_> {
    Input {
        dtype,
        bytes,
        first_index: 0,
        rounding,
        residual: None,
    }
}

/// Bytes at an odd address.
fn shifted(bytes: &[u8]) -> Vec<u8> {
    [&[0x5a], bytes].concat()
}

/// The encoding of f32 by the library.
fn encode(encoding: Encoding, values: &[f32], rounding: Rounding) -> Vec<u8> {
    let bytes = elements_of(Dtype::F32, values).0;
    let mut out = vec![0; encoding.encoded_bytes(values.len())];
    let given = input(Dtype::F32, &bytes, rounding);
    encoding.encode(given, &mut out).expect("finite");
    out
}

fn decode(encoding: Encoding, encoded: &[u8], count: usize) -> Vec<f32> {
    let mut out = vec![0; count * 4];
    let done = encoding.decode(encoded, Dtype::F32, &mut out);
    done.expect("well-formed");
    let cells = out.as_chunks().0.iter();
    cells.map(|cell| f32::from_ne_bytes(*cell)).collect()
}

fn compare_encoding(encoding: Encoding, dtype: Dtype, rounding: Rounding) {
    for (seed, length) in LENGTHS.into_iter().enumerate() {
        let (bytes, floats) = elements_of(dtype, &values(length, seed as u64));
        let blocks_before = 7_u64 << 40;
        let right = encoded(encoding, rounding, blocks_before, &floats);
        let source = shifted(&bytes);
        for level in levels() {
            let mut out = vec![0xa5; right.len() + 2];
            let mut given = input(dtype, &source[1..], rounding);
            given.first_index = blocks_before * 256;
            let target = &mut out[1..=right.len()];
            on_a_hostile_thread(|| encoding.encode_at(level, given, target)).expect("finite");
            let what = (encoding, dtype, rounding, level, length);
            assert!(*target == right[..], "{what:?}\n{target:?}\n{right:?}");
            assert_eq!((out[0], out[right.len() + 1]), (0xa5, 0xa5));
        }
    }
}

#[test]
fn bytes_follow_the_definition() {
    for encoding in Encoding::ALL {
        for dtype in TYPES {
            for rounding in ROUNDINGS {
                compare_encoding(encoding, dtype, rounding);
            }
        }
    }
}

fn compare_decoding(encoding: Encoding, bytes: &[u8], count: usize) {
    let right = decoded(encoding, bytes, count);
    let weight = -0.3;
    let before = weights(count, 11, 9);
    let source = shifted(bytes);
    for level in levels() {
        for dtype in TYPES {
            let right = elements_of_decoded(dtype, &right);
            let mut out = vec![0; right.len() + 1];
            let output = Output {
                dtype,
                bytes: &mut out[1..],
            };
            let done = on_a_hostile_thread(|| encoding.decode_at(level, &source[1..], output));
            done.expect("well-formed");
            assert!(
                out[1..] == right,
                "{encoding:?} {level:?} {dtype:?} {count}"
            );
        }
        let mut sum = shifted(&elements_of(Dtype::F32, &before).0);
        let target = &mut sum[1..];
        let done =
            on_a_hostile_thread(|| encoding.decode_add_at(level, &source[1..], weight, target));
        done.expect("well-formed");
        let pairs = before.iter().zip(&right);
        let added: Vec<f32> = pairs.map(|(sum, value)| sum + weight * value).collect();
        assert!(
            sum[1..] == elements_of(Dtype::F32, &added).0,
            "{encoding:?} {level:?} {count}"
        );
    }
}

/// Beyond the range of the type is its greatest value.
fn elements_of_decoded(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let greatest = f32::from_bits(0x7f7f_0000);
    let one = |value: f32| match dtype {
        Dtype::F32 => value.to_ne_bytes().to_vec(),
        Dtype::F64 => f64::from(value).to_ne_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value.clamp(-65_504.0, 65_504.0))
            .to_ne_bytes()
            .to_vec(),
        _ => bf16::from_f32(value.clamp(-greatest, greatest))
            .to_ne_bytes()
            .to_vec(),
    };
    values.iter().flat_map(|value| one(*value)).collect()
}

#[test]
fn values_follow_the_definition() {
    for encoding in Encoding::ALL {
        for (seed, length) in LENGTHS.into_iter().enumerate() {
            let bytes = encode(encoding, &values(length, seed as u64), Rounding::Nearest);
            compare_decoding(encoding, &bytes, length);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives is refused, or is finite and what the definition says.
    #[test]
    fn any_bytes_decode_safely(count in 0..600_usize, seed in any::<u64>(), tame in any::<bool>()) {
        for encoding in Encoding::ALL {
            let mut bytes = crate::tests::elements(Dtype::U8, encoding.encoded_bytes(count), seed, 9);
            // Most random scales and floats are too large; a small top byte lets others pass.
            let step = match encoding {
                Encoding::F32 | Encoding::Bf16 | Encoding::F16 => encoding.encoded_bytes(1),
                _ => encoding.encoded_bytes(BLOCK_ELEMENTS),
            };
            let top = match encoding {
                Encoding::F32 => 3,
                Encoding::Int8 => 3,
                Encoding::E3m0 => 0,
                _ => 1,
            };
            if tame {
                bytes.iter_mut().skip(top).step_by(step).for_each(|byte| *byte &= 0x3f);
            }
            let mut out = vec![0xee; count * 4];
            match encoding.decode(&bytes, Dtype::F32, &mut out) {
                Ok(()) => {
                    let found = decode(encoding, &bytes, count);
                    prop_assert!(found.iter().all(|value| value.is_finite()));
                    compare_decoding(encoding, &bytes, count);
                }
                Err(_) => {
                    prop_assert!(out.iter().all(|byte| *byte == 0xee));
                    let mut sum = vec![0xee; count * 4];
                    prop_assert!(encoding.decode_add(&bytes, 1.0, &mut sum).is_err());
                    prop_assert_eq!(sum, out);
                }
            }
        }
    }
}

#[test]
fn a_buffer_may_be_cut_after_any_block() {
    let all = values(1300, 2);
    let bytes = elements_of(Dtype::F32, &all).0;
    for encoding in Encoding::ALL {
        for rounding in ROUNDINGS {
            let whole = encode(encoding, &all, rounding);
            for cut in [256, 512, 1280] {
                let mut parts = vec![0; whole.len()];
                let (left, right) = parts.split_at_mut(encoding.encoded_bytes(cut));
                let first = input(Dtype::F32, &bytes[..cut * 4], rounding);
                encoding.encode(first, left).expect("finite");
                let mut second = input(Dtype::F32, &bytes[cut * 4..], rounding);
                second.first_index = cut as u64;
                encoding.encode(second, right).expect("finite");
                assert!(parts == whole, "{encoding:?} {rounding:?} {cut}");
            }
        }
    }
}

#[test]
fn encodings_take_the_bytes_that_they_promise() {
    let bytes = |encoding: Encoding| [1, 255, 256, 257].map(|count| encoding.encoded_bytes(count));
    assert_eq!(bytes(Encoding::F32), [4, 1020, 1024, 1028]);
    assert_eq!(bytes(Encoding::Bf16), [2, 510, 512, 514]);
    assert_eq!(bytes(Encoding::F16), [2, 510, 512, 514]);
    assert_eq!(bytes(Encoding::Int8), [5, 259, 260, 265]);
    assert_eq!(bytes(Encoding::E3m0), [2, 129, 129, 131]);
    assert_eq!(bytes(Encoding::Int4), [3, 130, 130, 133]);
    assert_eq!(bytes(Encoding::Int2), [3, 66, 66, 69]);
    let share = |encoding: Encoding| encoding.encoded_bytes(1 << 24) as f64 / f64::from(1 << 26);
    assert!(share(Encoding::Int8) <= 0.26 && share(Encoding::E3m0) <= 0.14);
}

#[test]
fn the_first_element_that_is_not_finite_is_named_and_nothing_is_written() {
    let names = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for encoding in Encoding::ALL {
        for (place, level) in [0, 255, 256, 700, 999]
            .into_iter()
            .zip(levels().collect::<Vec<_>>().into_iter().cycle())
        {
            let mut given = values(1000, 0);
            given[999] = f32::NAN;
            given[place] = names[place % 4];
            let bytes = elements_of(Dtype::F32, &given).0;
            let mut residual = vec![0.5; 1000];
            let mut out = vec![0xa5; encoding.encoded_bytes(1000)];
            let input = Input {
                first_index: 2560,
                residual: Some(&mut residual),
                ..input(Dtype::F32, &bytes, Rounding::Nearest)
            };
            let index = 2560 + place as u64;
            assert_eq!(check_finite(&input), Err(NotFinite { index }));
            let refused = encoding.encode_at(level, input, &mut out);
            assert_eq!(refused, Err(NotFinite { index }));
            assert!(out.iter().all(|byte| *byte == 0xa5));
            assert!(residual.iter().all(|lost| *lost == 0.5));
        }
    }
}

#[test]
fn what_overflows_f32_is_not_finite() {
    let encode = |bytes: &[u8], dtype: Dtype, residual: Option<&mut [f32]>| {
        let mut out = vec![0; Encoding::Int8.encoded_bytes(bytes.len() / dtype.bytes())];
        let input = Input {
            residual,
            ..input(dtype, bytes, Rounding::Nearest)
        };
        Encoding::Int8.encode(input, &mut out)
    };
    let large = [1.0, 1e39].map(f64::to_ne_bytes).concat();
    assert_eq!(
        encode(&large, Dtype::F64, None),
        Err(NotFinite { index: 1 })
    );
    let largest = [1.0, f32::MAX].map(f32::to_ne_bytes).concat();
    assert_eq!(encode(&largest, Dtype::F32, None), Ok(()));
    let residual = &mut [0.0, f32::MAX];
    let refused = encode(&largest, Dtype::F32, Some(residual));
    assert_eq!(refused, Err(NotFinite { index: 1 }));
}

/// A bit of noise over the lower code and the upper one, in every direction.
#[test]
fn residuals_hold_what_was_lost() {
    for encoding in Encoding::ALL {
        for rounding in ROUNDINGS {
            let given = values(700, 0);
            let old = values(700, 3)
                .iter()
                .map(|value| value * 1e-30)
                .collect::<Vec<_>>();
            let bytes = elements_of(Dtype::F32, &given).0;
            let sums: Vec<f32> = given.iter().zip(&old).map(|(a, b)| a + b).collect();
            let right = encoded(encoding, rounding, 0, &sums);
            let kept = decoded(encoding, &right, 700);
            let lost: Vec<f32> = sums.iter().zip(&kept).map(|(a, b)| a - b).collect();
            for level in levels() {
                let mut residual = old.clone();
                let mut out = vec![0; right.len()];
                let input = Input {
                    residual: Some(&mut residual),
                    ..input(Dtype::F32, &bytes, rounding)
                };
                encoding.encode_at(level, input, &mut out).expect("finite");
                assert!(out == right, "{encoding:?} {rounding:?} {level:?}");
                assert_eq!(
                    digest_of(&residual),
                    digest_of(&lost),
                    "{encoding:?} {level:?}"
                );
            }
        }
    }
}

#[test]
fn malformed_bytes_are_refused_with_their_reason() {
    let count = 300;
    let refused = |encoding: Encoding, at: usize, bytes: &[u8]| {
        let mut encoded = encode(encoding, &vec![1.0; count], Rounding::Nearest);
        encoded[at..at + bytes.len()].copy_from_slice(bytes);
        encoding.decode(&encoded, Dtype::F32, &mut vec![0; count * 4])
    };
    let not_finite = |block| Err(DecodeError::NotFinite { block });
    for scale in [f32::NAN, f32::INFINITY, -1.0, -0.0, 1e38] {
        assert_eq!(
            refused(Encoding::Int8, 260, &scale.to_le_bytes()),
            not_finite(1)
        );
        let upper = &scale.to_le_bytes()[2..];
        assert_eq!(
            refused(Encoding::Int4, 130, upper),
            not_finite(1),
            "{scale}"
        );
    }
    assert_eq!(
        refused(Encoding::Int8, 260, &1e36_f32.to_le_bytes()),
        Ok(())
    );
    assert_eq!(refused(Encoding::Int2, 0, &[0x7f, 0x7f]), not_finite(0));
    assert_eq!(refused(Encoding::Int2, 0, &[0xff, 0x7e]), Ok(()));
    assert_eq!(refused(Encoding::E3m0, 129, &[255]), not_finite(1));
    assert_eq!(refused(Encoding::E3m0, 129, &[254]), Ok(()));
    assert_eq!(
        refused(Encoding::F32, 8, &f32::NAN.to_le_bytes()),
        not_finite(0)
    );
    assert_eq!(refused(Encoding::Bf16, 598, &[0x80, 0x7f]), not_finite(1));
    assert_eq!(refused(Encoding::F16, 598, &[0, 0xfc]), not_finite(1));

    let mut odd = encode(Encoding::Int4, &[1.0; 3], Rounding::Nearest);
    *odd.last_mut().expect("two bytes of codes") |= 0x10;
    let decode = |bytes: &[u8]| Encoding::Int4.decode(bytes, Dtype::F32, &mut [0; 12]);
    assert_eq!(decode(&odd), Err(DecodeError::Padding { block: 0 }));
    let length = DecodeError::Length {
        expected: 4,
        found: 5,
    };
    assert_eq!(decode(&[0; 5]), Err(length));
    assert_eq!(length.to_string(), "5 encoded bytes; expected 4");
}

#[test]
#[should_panic(expected = "starts at a block")]
fn a_part_that_starts_inside_a_block_is_the_callers_mistake() {
    let mut given = input(Dtype::F32, &[0; 4], Rounding::Nearest);
    given.first_index = 255;
    let _ = Encoding::Int8.encode(given, &mut [0; 5]);
}

#[test]
#[should_panic(expected = "u8 is not encoded")]
fn integers_are_the_callers_mistake() {
    let given = input(Dtype::U8, &[0; 4], Rounding::Nearest);
    let _ = Encoding::F32.encode(given, &mut [0; 16]);
}

/// A difference on another machine, or after a change, means that two peers of one run would
/// disagree.
#[test]
fn golden_digests_hold_at_every_level() {
    let golden = include_str!("golden.txt");
    for level in levels() {
        let mut found = String::new();
        for encoding in Encoding::ALL {
            found += encoding.name();
            for dtype in TYPES {
                for rounding in ROUNDINGS {
                    let bytes = elements_of(dtype, &values(1333, 4)).0;
                    let mut out = vec![0; encoding.encoded_bytes(1333)];
                    let given = input(dtype, &bytes, rounding);
                    encoding.encode_at(level, given, &mut out).expect("finite");
                    let mut sum = elements_of(Dtype::F32, &weights(1333, 1, 9)).0;
                    let done = encoding.decode_add_at(level, &out, 1.5, &mut sum);
                    done.expect("just encoded");
                    found += &format!(" {:016x} {:016x}", digest(&out), digest(&sum));
                }
            }
            found.push('\n');
        }
        assert!(
            found == golden,
            "{level:?} differs; its digests are:\n{found}"
        );
    }
}
