//! Goal: equal records give equal weights, on every machine and in every order.
//!
//! 1. Directions, copies and updates, compared with plain definitions, for every level, around the
//!    edges of rows and tiles, at odd addresses, on a thread that flushes subnormals.
//! 2. Tile by tile, step by step, and with contributions reversed: the same bits.
//! 3. Digests over fixed inputs, the same on every machine.

use proptest::prelude::*;

use super::*;
use crate::philox::philox4x32_10;
use crate::simd::on_a_hostile_thread;
use crate::tests::{bits, digest, digest_of, levels, weights};

const LENGTHS: [usize; 11] = [0, 1, 127, 128, 129, 255, 4095, 4096, 4097, 4224, 8200];

const PROBE: Probe = Probe {
    run_key: 0x0123_4567_89ab_cdef,
    step: 77,
    slot: 5,
    sample: 3,
};

/// The integer of weight `weight` of tile `tile`, from the definition.
fn integer(direction: Direction, probe: Probe, tile: u64, weight: usize) -> i64 {
    let (word, bit) = match direction {
        Direction::Rademacher => (tile * 128 + weight as u64 % 128, weight / 128),
        Direction::IrwinHall => (tile * 4096 + weight as u64, 0),
    };
    let counter = [
        (word / 4) as u32,
        ((word / 4) >> 32) as u32,
        probe.step,
        probe.slot * 4096 + probe.sample,
    ];
    let key = [probe.run_key as u32, (probe.run_key >> 32) as u32];
    let word = philox4x32_10(counter, key)[word as usize % 4];
    match direction {
        Direction::Rademacher => i64::from(word >> bit & 1) * 2 - 1,
        Direction::IrwinHall => word.to_le_bytes().map(i64::from).iter().sum::<i64>() - 510,
    }
}

fn one_nan(value: f32) -> f32 {
    if value.is_nan() {
        f32::from_bits(0x7fc0_0000)
    } else {
        value
    }
}

fn perturbed(perturbation: Perturbation, first_tile: u64, weights: &[f32]) -> Vec<f32> {
    let unit = match perturbation.direction {
        Direction::Rademacher => 1.0,
        Direction::IrwinHall => (1.0 / 21_845_f64.sqrt()) as f32,
    };
    let numbered = weights.iter().enumerate();
    let copies = numbered.map(|(index, weight)| {
        let tile = first_tile + index as u64 / 4096;
        let z = integer(
            perturbation.direction,
            perturbation.probe,
            tile,
            index % 4096,
        );
        one_nan(weight + (perturbation.epsilon * unit) * z as f32)
    });
    copies.collect()
}

fn updated(update: &Update<'_>, first_tile: u64, weights: &mut [f32]) {
    let count = match update.divisor {
        Divisor::Count(count) => count as f32,
        Divisor::RootOfCount(count) => f64::from(count).sqrt() as f32,
    };
    let scaled = update.learning_rate * 2_f32.powi(update.exponent);
    let step = (scaled / count) * update.direction.unit();
    let decayed = update.learning_rate * update.weight_decay;
    let decay = 1.0 - decayed;
    for (index, weight) in weights.iter_mut().enumerate() {
        let tile = first_tile + index as u64 / 4096;
        let terms = update.contributions.iter().map(|one| {
            let z = integer(update.direction, one.probe, tile, index % 4096);
            i128::from(one.coefficient) * i128::from(z)
        });
        let sum: i128 = terms.sum();
        let kept = *weight * decay;
        let moved = step * sum as f32;
        *weight = one_nan(kept - moved);
    }
}

fn contributions(count: usize, largest: i64, seed: u64) -> Vec<Contribution> {
    let one = |index: usize| {
        let word = Stream {
            key: seed,
            high: [9, 9],
        }
        .block(index as u64);
        Contribution {
            probe: Probe {
                run_key: seed,
                step: word[0],
                slot: word[1] % SLOTS_MAX,
                sample: word[2] % SAMPLES_MAX,
            },
            coefficient: ((i128::from(word[3] as i32) * i128::from(largest)) >> 31) as i64,
        }
    };
    (0..count).map(one).collect()
}

fn update(direction: Direction, contributions: &[Contribution]) -> Update<'_> {
    Update {
        contributions,
        direction,
        learning_rate: 0.037,
        weight_decay: 0.11,
        exponent: -14,
        divisor: Divisor::Count(contributions.len().max(1) as u32),
    }
}

/// `values` behind `offset` others: no vector is aligned.
fn shifted(values: &[f32], offset: usize) -> Vec<f32> {
    let mut all = vec![1.0; offset];
    all.extend_from_slice(values);
    all
}

#[test]
fn directions_follow_the_definition() {
    for direction in Direction::ALL {
        let mut found = vec![0; 5000];
        direction.integers(PROBE, 1 << 28, &mut found);
        for (index, value) in found.iter().enumerate() {
            let tile = (1 << 28) + index as u64 / 4096;
            let right = integer(direction, PROBE, tile, index % 4096);
            assert_eq!(i64::from(*value), right, "{direction:?} {index}");
        }
    }
}

#[test]
fn integers_times_their_unit_have_mean_0_and_variance_1() {
    for direction in Direction::ALL {
        let mut found = vec![0; 1 << 18];
        direction.integers(PROBE, 0, &mut found);
        let unit = f64::from(direction.unit());
        let values: Vec<f64> = found.iter().map(|z| f64::from(*z) * unit).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|z| z * z).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01, "{direction:?}: mean {mean}");
        assert!(
            (square - 1.0).abs() < 0.01,
            "{direction:?}: variance {square}"
        );
    }
}

#[test]
fn different_probes_have_different_counters() {
    let other = |change: fn(&mut Probe)| {
        let mut probe = PROBE;
        change(&mut probe);
        probe.stream()
    };
    let all = [
        PROBE.stream(),
        other(|probe| probe.step += 1),
        other(|probe| probe.slot += 1),
        other(|probe| probe.sample += 1),
        other(|probe| (probe.slot, probe.sample) = (3, 5)),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{one:?}");
    }
}

#[test]
fn copies_follow_the_definition_at_every_level_and_length() {
    for direction in Direction::ALL {
        for (index, length) in LENGTHS.into_iter().enumerate() {
            let values = weights(length, index as u64, 6);
            let perturbation = Perturbation {
                direction,
                probe: PROBE,
                epsilon: -1.7e-3,
            };
            let right = perturbed(perturbation, 41, &values);
            for level in levels() {
                let offset = index % 5;
                let source = shifted(&values, offset);
                let mut out = vec![7.0; offset + length + 1];
                let target = &mut out[offset..offset + length];
                on_a_hostile_thread(|| {
                    perturbation.write_at(level, 41, &source[offset..], target);
                });
                assert_eq!(
                    bits(target),
                    bits(&right),
                    "{level:?} {direction:?} {length}"
                );
                assert_eq!(out[offset + length].to_bits(), 7_f32.to_bits());
            }
        }
    }
}

#[test]
fn updates_follow_the_definition_at_every_level_and_length() {
    for direction in Direction::ALL {
        for (index, length) in LENGTHS.into_iter().enumerate() {
            let given = contributions(index, 3_526_975, 8);
            let mut change = update(direction, &given);
            if index % 2 == 1 {
                change.divisor = Divisor::RootOfCount(index as u32);
            }
            let before = weights(length, index as u64, 6);
            let mut right = before.clone();
            updated(&change, 3, &mut right);
            for level in levels() {
                let offset = index % 3;
                let mut found = shifted(&before, offset);
                on_a_hostile_thread(|| replay_at(level, 3, &mut found[offset..], &[change]));
                assert_eq!(
                    bits(&found[offset..]),
                    bits(&right),
                    "{level:?} {direction:?} {length}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sums near the limits of 32 and 63 bits included.
    #[test]
    fn updates_of_any_size_follow_the_definition(
        count in 0..20_usize,
        size_bits in 0..49_u32,
        length in 1..300_usize,
        seed in any::<u64>(),
    ) {
        for direction in Direction::ALL {
            let given = contributions(count, 1 << size_bits, seed);
            let change = update(direction, &given);
            let before = weights(length, seed, 6);
            let mut right = before.clone();
            updated(&change, seed >> 40, &mut right);
            for level in levels() {
                let mut found = before.clone();
                replay_at(level, seed >> 40, &mut found, &[change]);
                prop_assert_eq!(bits(&found), bits(&right));
            }
        }
    }
}

/// Greatest sums of 32 bits, and the first that need 64.
#[test]
fn sums_at_the_limit_of_32_bits_are_exact() {
    for surplus in [-1, 0, 1] {
        let largest = (i64::from(i32::MAX) + surplus) / 2;
        let given: Vec<Contribution> = (0..2)
            .map(|sample| Contribution {
                probe: Probe { sample, ..PROBE },
                coefficient: if sample == 0 {
                    largest
                } else {
                    -largest - (surplus & 1)
                },
            })
            .collect();
        let change = update(Direction::Rademacher, &given);
        let before = weights(500, 4, 9);
        let mut right = before.clone();
        updated(&change, 0, &mut right);
        for level in levels() {
            let mut found = before.clone();
            replay_at(level, 0, &mut found, &[change]);
            assert_eq!(bits(&found), bits(&right), "{level:?} {surplus}");
        }
    }
}

#[test]
fn so_many_codes_of_log8_fit_32_bits() {
    let largest = u64::from(crate::gradient::GradientCode::Log8.largest().unsigned_abs());
    let fit = |count: u64| count * largest <= i32::MAX as u64;
    assert!(fit(608) && !fit(609));
}

#[test]
fn replay_gives_the_bits_of_single_steps_and_of_any_order() {
    for direction in Direction::ALL {
        let steps: Vec<Vec<Contribution>> = (0..12)
            .map(|step| contributions(8, 3_000_000, step))
            .collect();
        let reversed: Vec<Vec<Contribution>> = steps
            .iter()
            .map(|step| step.iter().rev().copied().collect())
            .collect();
        let updates: Vec<_> = steps.iter().map(|step| update(direction, step)).collect();
        let before = weights(2 * TILE_WEIGHTS + 77, 1, 9);
        let mut batched = before.clone();
        replay(0, &mut batched, &updates);
        let mut stepwise = before.clone();
        for step in &reversed {
            replay(0, &mut stepwise, &[update(direction, step)]);
        }
        assert_eq!(bits(&batched), bits(&stepwise));
        let mut parted = before;
        let (left, right) = parted.split_at_mut(TILE_WEIGHTS);
        replay(1, right, &updates);
        replay(0, left, &updates);
        assert_eq!(bits(&batched), bits(&parted));
    }
}

/// The fault of the published method: it adds, subtracts twice and adds again.
#[test]
fn perturbing_in_place_would_not_restore_the_weights() {
    let before: Vec<f32> = (1..4096).map(|index| 1.0 / index as f32).collect();
    let shifted = |weights: &[f32], epsilon: f32| {
        let perturbation = Perturbation {
            direction: Direction::Rademacher,
            probe: PROBE,
            epsilon,
        };
        let mut out = vec![0.0; weights.len()];
        perturbation.write(0, weights, &mut out);
        out
    };
    let after = shifted(&shifted(&shifted(&before, 1e-3), -2e-3), 1e-3);
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(changed > 1000, "{changed} of 4095 changed");
}

#[test]
#[should_panic(expected = "slots have 20 bits")]
fn a_slot_beyond_its_bits_is_the_callers_mistake() {
    let _ = Probe {
        slot: SLOTS_MAX,
        ..PROBE
    }
    .stream();
}

#[test]
#[should_panic(expected = "samples have 12 bits")]
fn a_sample_beyond_its_bits_is_the_callers_mistake() {
    let given = [Contribution {
        probe: Probe {
            sample: SAMPLES_MAX,
            ..PROBE
        },
        coefficient: 1,
    }];
    replay(0, &mut [1.0], &[update(Direction::Rademacher, &given)]);
}

/// A difference on another machine, or after a change, means that two peers of one run would
/// disagree.
#[test]
fn golden_digests_hold_at_every_level() {
    let golden = include_str!("golden.txt");
    for level in levels() {
        let mut found = String::new();
        for direction in Direction::ALL {
            let mut integers = vec![0; 9000];
            direction.integers(PROBE, 11, &mut integers);
            let bytes: Vec<u8> = integers.iter().flat_map(|z| z.to_le_bytes()).collect();
            let values = weights(9000, 5, 9);
            let perturbation = Perturbation {
                direction,
                probe: PROBE,
                epsilon: 1e-3,
            };
            let mut copy = vec![0.0; values.len()];
            perturbation.write_at(level, 11, &values, &mut copy);
            let mut narrow = values.clone();
            let few = contributions(9, 2_000, 2);
            replay_at(level, 11, &mut narrow, &[update(direction, &few)]);
            let mut wide = values;
            let many = contributions(9, 1 << 45, 3);
            replay_at(level, 11, &mut wide, &[update(direction, &many)]);
            let digests = [
                digest(&bytes),
                digest_of(&copy),
                digest_of(&narrow),
                digest_of(&wide),
            ];
            found += &format!("{direction:?}");
            digests
                .iter()
                .for_each(|digest| found += &format!(" {digest:016x}"));
            found.push('\n');
        }
        assert!(
            found == golden,
            "{level:?} differs; its digests are:\n{found}"
        );
    }
}
