//! Goal: a byte means one integer to everybody, and is the nearest to what was meant.

use super::*;
use crate::simd::on_a_hostile_thread;

const SHIFTS: [i32; 5] = [-SHIFT_MAX, -3, 0, 5, SHIFT_MAX];

fn value(code: GradientCode, byte: u8, shift: i32) -> f64 {
    let coefficient = code.decode(byte).expect("known").expect("no abstention");
    f64::from(coefficient) * 2_f64.powi(shift - code.fraction_bits())
}

/// f32 of all sizes and both signs.
fn gradients() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(65_521).map(f32::from_bits)
}

#[test]
fn the_table_of_log8_is_eight_steps_an_octave() {
    for (code, entry) in LOG8.iter().enumerate().skip(1) {
        let exact = 2_f64.powf(6.0 + (code as f64 - 1.0) / 8.0);
        assert_eq!(f64::from(*entry), exact.round(), "code {code}");
    }
    assert_eq!((LOG8[0], LOG8[1], LOG8[127]), (0, 64, 3_526_975));
}

#[test]
fn every_known_byte_decodes_and_encodes_to_itself() {
    for code in GradientCode::ALL {
        for shift in SHIFTS {
            for byte in 0..=u8::MAX {
                let Ok(Some(coefficient)) = code.decode(byte) else {
                    continue;
                };
                assert!(coefficient.abs() <= code.largest());
                let gradient = value(code, byte, shift) as f32;
                assert_eq!(code.encode(gradient, shift), byte, "{code:?} shift {shift}");
            }
        }
    }
}

#[test]
fn codes_are_the_nearest_to_the_gradient() {
    for code in [GradientCode::Log8, GradientCode::Int8] {
        for shift in SHIFTS {
            let values = (0..=u8::MAX).filter(|byte| *byte != ABSTAIN);
            let values: Vec<f64> = values.map(|byte| value(code, byte, shift)).collect();
            for gradient in gradients()
                .filter(|gradient| gradient.is_finite())
                .step_by(37)
            {
                let meant = f64::from(gradient);
                let distance = |value: f64| (value - meant).abs();
                let least = values
                    .iter()
                    .copied()
                    .map(distance)
                    .fold(f64::MAX, f64::min);
                let found = value(code, code.encode(gradient, shift), shift);
                assert_eq!(distance(found), least, "{code:?} {gradient} {shift}");
            }
        }
    }
}

#[test]
fn log8_is_at_most_4_6_percent_off_within_its_range() {
    let mut worst = 0_f64;
    for gradient in (0..100_000).map(|index| 1.0 / 256.0 * 1.000_1_f32.powi(index)) {
        if gradient > 215.0 {
            break;
        }
        let found = value(
            GradientCode::Log8,
            GradientCode::Log8.encode(gradient, 0),
            0,
        );
        worst = worst.max((found / f64::from(gradient) - 1.0).abs());
    }
    assert!((0.0459..0.046).contains(&worst), "{worst}");
}

#[test]
fn signs_are_signs() {
    for gradient in gradients().filter(|gradient| gradient.is_finite()) {
        let found = GradientCode::Sign.decode(GradientCode::Sign.encode(gradient, 0));
        let sign = i32::from(gradient > 0.0) - i32::from(gradient < 0.0);
        assert_eq!(found, Ok(Some(sign)), "{gradient}");
    }
}

#[test]
fn what_is_no_number_abstains_and_zeros_are_zero() {
    for code in GradientCode::ALL {
        for gradient in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(code.encode(gradient, 0), ABSTAIN);
        }
        assert_eq!(code.decode(ABSTAIN), Ok(None));
        assert_eq!((code.encode(0.0, 0), code.encode(-0.0, 0)), (0, 0));
    }
    // Too small for the code: zero, not the byte of an abstention.
    assert_eq!(GradientCode::Log8.encode(-1e-6, 0), 0);
}

#[test]
fn a_byte_that_no_encoder_writes_is_refused() {
    assert_eq!(GradientCode::Sign.decode(2), Err(UnknownCode { byte: 2 }));
    let text = UnknownCode { byte: 2 }.to_string();
    assert_eq!(text, "no gradient is encoded as 0x02");
}

#[test]
fn codes_are_the_same_on_a_thread_that_flushes_subnormals() {
    for code in GradientCode::ALL {
        for gradient in gradients().step_by(11) {
            let right = code.encode(gradient, -SHIFT_MAX);
            let found = on_a_hostile_thread(|| code.encode(gradient, -SHIFT_MAX));
            assert_eq!(found, right, "{code:?} {gradient:e}");
        }
    }
}
