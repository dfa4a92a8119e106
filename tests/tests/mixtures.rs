//! All-reduces whose contributions are encoded or have weights, over real sockets.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use ccl_core::{Algorithm, Encoding, Options, ReduceOp};

use common::{run, with_tag};

fn encoded(encoding: Encoding) -> Options {
    Options {
        encoding: Some(encoding),
        ..with_tag(1)
    }
}

fn weighted(weight: u32) -> Options {
    Options {
        weight: Some(weight),
        ..Options::default()
    }
}

/// Numbers with full mantissas, others for each rank.
fn input(rank: u32, count: usize) -> Vec<f32> {
    let mut state = rank + 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Relative error of `found`, as the root of mean squares.
fn error(found: &[f32], exact: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let differences = found.iter().zip(exact).map(|(a, b)| square(a - b));
    let (error, whole) = (differences.sum::<f64>(), exact.iter().copied().map(square));
    (error / whole.sum::<f64>()).sqrt()
}

/// Goal: every encoding gives all ranks the same bits, near the exact sum, in place or not, by any
/// algorithm.
#[test]
fn encoded_sums_are_near_and_the_same_everywhere() {
    for world in [1, 2, 4] {
        let results = run(world, move |communicator| {
            let mut results = Vec::new();
            for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
                for encoding in Encoding::ALL {
                    for count in [1, 300, 100_003] {
                        let options = Options {
                            algorithm,
                            ..encoded(encoding)
                        };
                        let mine = input(communicator.rank().0, count);
                        let mut exact = vec![0.0; count];
                        for rank in 0..world {
                            for (sum, value) in exact.iter_mut().zip(input(rank, count)) {
                                *sum += value;
                            }
                        }
                        let mut buffer = mine.clone();
                        let sum = ReduceOp::Sum;
                        communicator.all_reduce(&mut buffer, sum, &options).unwrap();
                        let mut other = vec![0.0; count];
                        communicator
                            .all_reduce_into(&mine, &mut other, sum, &options)
                            .unwrap();
                        assert_eq!(buffer, other, "in place or not");
                        let bound = tolerance(encoding);
                        let error = error(&buffer, &exact);
                        assert!(error < bound, "{encoding:?} {algorithm:?} {count}: {error}");
                        results.push(buffer);
                    }
                }
            }
            results
        });
        assert!(results.iter().all(|result| *result == results[0]));
    }
}

/// Goal: rounded at random, a value between two codes has no bias, and all ranks still agree.
#[test]
fn rounded_at_random_a_sum_has_no_bias() {
    const COUNT: usize = 1 << 16;
    let results = run(3, |communicator| {
        let rank = u64::from(communicator.rank().0);
        let mut means = Vec::new();
        for seed in [None, Some(1), Some(2)] {
            // 0.3 of the step between two codes of a block whose largest element is 127.
            let mut buffer = vec![0.3_f32; COUNT];
            buffer
                .iter_mut()
                .step_by(256)
                .for_each(|largest| *largest = 127.0);
            let options = Options {
                algorithm: Algorithm::OneShot,
                seed: seed.map(|seed| seed * 1000 + rank),
                ..encoded(Encoding::Int8)
            };
            communicator
                .all_reduce(&mut buffer, ReduceOp::Avg, &options)
                .unwrap();
            let small = (0..COUNT).filter(|index| index % 256 != 0);
            let sum: f64 = small.map(|index| f64::from(buffer[index])).sum();
            means.push((sum / (COUNT - COUNT / 256) as f64, buffer));
        }
        means
    });
    assert!(results.iter().all(|result| *result == results[0]));
    let [nearest, first, second] = &results[0][..] else {
        unreachable!("three calls");
    };
    assert_eq!(nearest.0, 0.0, "to the nearer code");
    assert!((first.0 - 0.3).abs() < 0.01 && (second.0 - 0.3).abs() < 0.01);
    assert_ne!(first.1, second.1, "another seed, other bits");
}

/// More than the relative error that an encoding leaves of such numbers.
fn tolerance(encoding: Encoding) -> f64 {
    match encoding {
        Encoding::F32 => 1e-6,
        Encoding::F16 => 1e-3,
        Encoding::Bf16 => 5e-3,
        Encoding::Int8 => 0.01,
        Encoding::E3m0 => 0.35,
        Encoding::Int4 => 0.2,
        Encoding::Int2 => 0.9,
    }
}

#[test]
fn numbers_that_are_not_finite_are_named_before_anything_is_sent() {
    let results = run(2, |communicator| {
        let mut buffers = [vec![1.0_f32; 500], vec![1.0; 500]];
        let mut slices: Vec<&mut [f32]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        let before = communicator.counters().sent_bytes;
        if communicator.rank().0 == 0 {
            slices[1][333] = f32::NAN;
        }
        let options = encoded(Encoding::Bf16);
        let attempt = |slices: &mut [&mut [f32]]| {
            communicator.all_reduce_many(slices, ReduceOp::Sum, &options)
        };
        let mut text = String::new();
        if communicator.rank().0 == 0 {
            text = attempt(&mut slices).unwrap_err().to_string();
            assert_eq!(communicator.counters().sent_bytes, before);
            slices[1][333] = 1.0;
        }
        attempt(&mut slices).unwrap();
        assert!(buffers.iter().flatten().all(|&value| value == 2.0));
        text
    });
    assert!(
        results[0].contains("element 333 of buffer 1 is not finite"),
        "{}",
        results[0]
    );
}

#[test]
fn weights_count_and_the_outcome_says_whose_data_it_is() {
    run(3, |communicator| {
        let rank = communicator.rank().0;
        for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
            for count in [3, 70_000] {
                // Weights 0, 1 and 2 of 10, 20 and 30.
                let options = Options {
                    algorithm,
                    ..weighted(rank)
                };
                let mine = (rank as f64 + 1.0) * 10.0;
                let mut buffer = vec![mine; count];
                let outcome = communicator
                    .all_reduce(&mut buffer, ReduceOp::Sum, &options)
                    .unwrap();
                assert!(buffer.iter().all(|&value| value == 80.0));
                let members = communicator.view().members.clone();
                let contributors: Vec<_> = members[1..].iter().map(|m| m.peer).collect();
                assert_eq!(outcome.contributors, contributors);
                assert_eq!(outcome.weights, [1, 2]);

                let mut buffer = vec![mine; count];
                communicator
                    .all_reduce(&mut buffer, ReduceOp::Avg, &options)
                    .unwrap();
                assert!(buffer.iter().all(|&value| value == 80.0 / 3.0));
            }
        }
    });
}

#[test]
fn if_all_abstain_the_result_is_zero_and_nobodys() {
    run(2, |communicator| {
        for reduce_op in [ReduceOp::Sum, ReduceOp::Avg] {
            let mut buffer = vec![7.0_f32; 1000];
            let outcome = communicator
                .all_reduce(&mut buffer, reduce_op, &weighted(0))
                .unwrap();
            assert!(buffer.iter().all(|&value| value == 0.0));
            assert!(outcome.contributors.is_empty() && outcome.weights.is_empty());
        }
    });
}

#[test]
fn who_differs_in_encoding_or_weights_learns_it() {
    let options = [
        encoded(Encoding::F16),
        encoded(Encoding::Bf16),
        weighted(1),
        Options::default(),
    ];
    for (pair, field) in [((0, 1), "encoding"), ((2, 3), "weighted")] {
        let options = options.clone();
        run(2, move |communicator| {
            let own = [pair.0, pair.1][communicator.rank().index()];
            let mut buffer = vec![1.0_f32; 10];
            let end = communicator.all_reduce(&mut buffer, ReduceOp::Sum, &options[own]);
            let error = end.unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        });
    }
}

#[test]
fn calls_that_cannot_be_encoded_or_weighed_are_refused() {
    run(1, |communicator| {
        let (sum, max) = (ReduceOp::Sum, ReduceOp::Max);
        let mut integers = [1_u32; 4];
        let mut floats = [1.0_f32; 4];
        let mut texts = Vec::new();
        for options in [encoded(Encoding::F16), weighted(3)] {
            let ends = [
                communicator.all_reduce(&mut integers, sum, &options),
                communicator.all_reduce(&mut floats, max, &options),
                communicator.broadcast(&mut floats, ccl_core::Rank(0), &options),
            ];
            texts.extend(ends.map(|end| end.unwrap_err().to_string()));
        }
        let end = communicator.all_reduce(&mut floats, sum, &weighted(1 << 25));
        texts.push(end.unwrap_err().to_string());
        let expected = [
            "u32 elements cannot have an encoding",
            "the operator max cannot have an encoding",
            "broadcast cannot have an encoding",
            "u32 elements cannot have weights",
            "the operator max cannot have weights",
            "broadcast cannot have weights",
            "at most 16777216",
        ];
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
    });
}
