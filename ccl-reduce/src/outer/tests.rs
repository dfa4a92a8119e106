//! Goal: every member's outer step gives the bits of the formulas.
//!
//! 1. Compared with plain definitions, at every level, length and odd address, on a thread that
//!    flushes subnormals.
//! 2. Two steps worked out by hand.
//! 3. Digests over fixed inputs, the same on every machine.

use super::*;
use crate::simd::on_a_hostile_thread;
use crate::tests::{bits, digest_of, levels, weights};

const KINDS: [Momentum; 3] = [
    Momentum::None,
    Momentum::Plain(0.9),
    Momentum::Nesterov(0.9),
];

fn one_nan(value: f32) -> f32 {
    if value.is_nan() {
        f32::from_bits(0x7fc0_0000)
    } else {
        value
    }
}

/// New weight and velocity.
fn stepped(outer: Outer, gradient: f32, weight: f32, velocity: f32) -> (f32, f32) {
    let (along, velocity) = match outer.momentum {
        Momentum::None => (gradient, velocity),
        Momentum::Plain(momentum) => {
            let kept = momentum * velocity;
            (one_nan(kept + gradient), one_nan(kept + gradient))
        }
        Momentum::Nesterov(momentum) => {
            let kept = momentum * velocity;
            let velocity = one_nan(kept + gradient);
            let next = momentum * velocity;
            (gradient + next, velocity)
        }
    };
    let moved = outer.learning_rate * along;
    (one_nan(weight - moved), velocity)
}

fn velocity_of(momentum: Momentum, count: usize) -> Vec<f32> {
    match momentum {
        Momentum::None => vec![],
        Momentum::Plain(_) | Momentum::Nesterov(_) => weights(count, 3, 4),
    }
}

#[test]
fn steps_follow_the_definition_at_every_level_and_length() {
    for momentum in KINDS {
        let outer = Outer {
            learning_rate: 0.7,
            momentum,
        };
        for count in [0, 1, 3, 7, 15, 16, 17, 63, 1000] {
            let gradient = weights(count + 1, 1, 5);
            let before = weights(count + 1, 2, 5);
            for level in levels() {
                let (mut found, mut velocity) = (before.clone(), velocity_of(momentum, count));
                let old_velocity = velocity.clone();
                on_a_hostile_thread(|| {
                    let state = OuterState {
                        weights: &mut found[1..],
                        velocity: &mut velocity,
                    };
                    outer.step_at(level, &gradient[1..], state);
                });
                for index in 0..count {
                    let old = old_velocity.get(index).copied().unwrap_or_default();
                    let right = stepped(outer, gradient[index + 1], before[index + 1], old);
                    let new = velocity.get(index).copied().unwrap_or_default();
                    let pair = bits(&[found[index + 1], new]);
                    assert_eq!(pair, bits(&[right.0, right.1]), "{level:?} {momentum:?}");
                }
            }
        }
    }
}

#[test]
fn nesterov_takes_the_steps_of_torch() {
    // torch.optim.SGD(lr=0.5, momentum=0.5, nesterov=True) from 1.0 with gradients 1.0 and 2.0:
    // v = 1, w = 1 - 0.5 * (1 + 0.5) = 0.25; v = 2.5, w = 0.25 - 0.5 * (2 + 1.25) = -1.375.
    let outer = Outer {
        learning_rate: 0.5,
        momentum: Momentum::Nesterov(0.5),
    };
    let (mut weights, mut velocity) = ([1.0], [0.0]);
    for (gradient, weight) in [(1.0, 0.25), (2.0, -1.375)] {
        let state = OuterState {
            weights: &mut weights,
            velocity: &mut velocity,
        };
        outer.step(&[gradient], state);
        assert_eq!(weights, [weight]);
    }
    assert_eq!(velocity, [2.5]);
}

#[test]
fn a_step_to_infinity_and_back_leaves_the_one_nan() {
    let outer = Outer {
        learning_rate: 1.0,
        momentum: Momentum::None,
    };
    let mut weights = [f32::INFINITY];
    outer.step(
        &[f32::INFINITY],
        OuterState {
            weights: &mut weights,
            velocity: &mut [],
        },
    );
    assert_eq!(bits(&weights), [0x7fc0_0000]);
}

#[test]
#[should_panic(expected = "a velocity a weight")]
fn a_missing_velocity_is_the_callers_mistake() {
    let outer = Outer {
        learning_rate: 1.0,
        momentum: Momentum::Plain(0.9),
    };
    outer.step(
        &[1.0],
        OuterState {
            weights: &mut [1.0],
            velocity: &mut [],
        },
    );
}

#[test]
fn golden_digests_hold_at_every_level() {
    let golden = include_str!("golden.txt");
    for level in levels() {
        let mut found = String::new();
        for momentum in KINDS {
            let outer = Outer {
                learning_rate: 0.4,
                momentum,
            };
            let (mut values, mut velocity) = (weights(1500, 7, 9), velocity_of(momentum, 1500));
            for round in 0..3 {
                let state = OuterState {
                    weights: &mut values,
                    velocity: &mut velocity,
                };
                outer.step_at(level, &weights(1500, round, 9), state);
            }
            let digests = (digest_of(&values), digest_of(&velocity));
            found += &format!("{momentum:?} {:016x} {:016x}\n", digests.0, digests.1);
        }
        assert!(
            found == golden,
            "{level:?} differs; its digests are:\n{found}"
        );
    }
}
