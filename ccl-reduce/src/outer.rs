//! The outer step: moves shared weights along a reduced pseudo-gradient, as `torch.optim.SGD` does,
//! with every rounding in a fixed place.
//!
//! docs/numerics.md ("Outer steps") has the formulas. How the pseudo-gradient came about is not
//! known here.

use crate::number::canonical;
use crate::simd::{Kernel, Level, run_at};

/// What an outer step does with the velocity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Momentum {
    /// There is none: `w = fl(w - fl(lr * d))`.
    None,
    /// `v = fl(fl(mu * v) + d)`, then `w = fl(w - fl(lr * v))`.
    Plain(f32),
    /// `v = fl(fl(mu * v) + d)`, then `w = fl(w - fl(lr * fl(d + fl(mu * v))))`.
    Nesterov(f32),
}

/// Settings of an outer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outer {
    /// Length of the step.
    pub learning_rate: f32,
    /// Kind and size of the momentum.
    pub momentum: Momentum,
}

/// What an outer step changes.
#[derive(Debug)]
pub struct OuterState<'a> {
    /// The shared weights.
    pub weights: &'a mut [f32],
    /// As many, zeros before the first step; empty without momentum.
    pub velocity: &'a mut [f32],
}

impl Outer {
    /// Takes one step along `gradient`, which points uphill: old weights less new ones. A NaN is
    /// stored as `7fc00000`.
    ///
    /// # Panics
    /// If a length differs from that of the gradient.
    pub fn step(&self, gradient: &[f32], state: OuterState<'_>) {
        self.step_at(Level::best(), gradient, state);
    }

    /// [`Outer::step`] at a given level.
    ///
    /// # Panics
    /// As [`Outer::step`], and if this machine lacks the level.
    pub fn step_at(&self, level: Level, gradient: &[f32], state: OuterState<'_>) {
        let velocity_count = match self.momentum {
            Momentum::None => 0,
            Momentum::Plain(_) | Momentum::Nesterov(_) => gradient.len(),
        };
        assert_eq!(state.weights.len(), gradient.len(), "a gradient a weight");
        assert_eq!(state.velocity.len(), velocity_count, "a velocity a weight");
        let step = Step {
            outer: *self,
            gradient,
            state,
        };
        run_at(level, step);
    }
}

struct Step<'a> {
    outer: Outer,
    gradient: &'a [f32],
    state: OuterState<'a>,
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rate = self.outer.learning_rate;
        let OuterState { weights, velocity } = self.state;
        let weights = weights.iter_mut().zip(self.gradient);
        match self.outer.momentum {
            Momentum::None => {
                for (weight, gradient) in weights {
                    *weight = canonical(*weight - rate * gradient);
                }
            }
            Momentum::Plain(momentum) => {
                for ((weight, gradient), velocity) in weights.zip(velocity) {
                    *velocity = canonical(momentum * *velocity + gradient);
                    *weight = canonical(*weight - rate * *velocity);
                }
            }
            Momentum::Nesterov(momentum) => {
                for ((weight, gradient), velocity) in weights.zip(velocity) {
                    *velocity = canonical(momentum * *velocity + gradient);
                    let ahead = gradient + momentum * *velocity;
                    *weight = canonical(*weight - rate * ahead);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
