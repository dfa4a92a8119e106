//! Applying what a step's record holds: an exact integer sum of directions for each weight, then
//! one rounded update. Many records are applied to one tile before the next tile is touched.
//!
//! Sums of integers do not depend on the order of contributions, nor does the update.

use super::tile::{Draw, IrwinHallDraw, ROW_WEIGHTS, RademacherDraw, Total};
use super::{Direction, Probe, TILE_WEIGHTS};
use crate::number::canonical;
use crate::simd::{Kernel, Level, run_at};

/// One projected gradient: how far, in whole units, along which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Which direction.
    pub probe: Probe,
    /// How far along it. The unit is 2 to the update's exponent.
    pub coefficient: i64,
}

/// What the sum of contributions is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// Their number.
    Count(u32),
    /// The square root of their number.
    RootOfCount(u32),
}

/// One step of all weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update<'a> {
    /// In any order.
    pub contributions: &'a [Contribution],
    /// Distribution of their directions.
    pub direction: Direction,
    /// Length of the step.
    pub learning_rate: f32,
    /// Share of each weight that decays, times the learning rate.
    pub weight_decay: f32,
    /// A coefficient of 1 stands for 2 to this power; from -126 to 127.
    pub exponent: i32,
    /// At least 1.
    pub divisor: Divisor,
}

/// Applies `updates` in their order to weights, the first of which is the first of tile
/// `first_tile`:
///
/// ```text
/// S = sum of coefficient * z            exact
/// w = fl(fl(w * fl(1 - fl(lr * wd))) - fl(c * fl(S)))
/// c = fl(fl(fl(lr * 2^exponent) / divisor) * unit)
/// ```
///
/// A NaN is stored as `7fc00000`. The same bits result if each update is applied to all weights
/// before the next.
///
/// # Panics
/// If a probe, an exponent or a divisor is outside its range, or a sum might exceed 63 bits.
pub fn replay(first_tile: u64, weights: &mut [f32], updates: &[Update<'_>]) {
    replay_at(Level::best(), first_tile, weights, updates);
}

/// [`replay`] at a given level.
///
/// # Panics
/// As [`replay`], and if this machine lacks the level.
pub fn replay_at(level: Level, first_tile: u64, weights: &mut [f32], updates: &[Update<'_>]) {
    for update in updates {
        update.check();
    }
    let replay = Replay {
        first_tile,
        weights,
        updates,
    };
    run_at(level, replay);
}

impl Update<'_> {
    fn check(&self) {
        assert!((-126..=127).contains(&self.exponent), "a normal f32");
        let (Divisor::Count(count) | Divisor::RootOfCount(count)) = self.divisor;
        assert!(count > 0, "a mean has contributors");
        for contribution in self.contributions {
            let _ = contribution.probe.stream(); // Panics unless slot and sample are in range.
        }
        assert!(i64::try_from(self.bound()).is_ok(), "sums fit 63 bits");
    }

    /// No sum has a greater absolute value.
    fn bound(&self) -> u128 {
        let sizes = self.contributions.iter();
        let total: u128 = sizes
            .map(|one| u128::from(one.coefficient.unsigned_abs()))
            .sum();
        total * u128::from(self.direction.largest())
    }

    /// What weights and sums are multiplied by.
    #[inline(always)]
    fn factors(&self) -> Factors {
        let power = f32::from_bits(((self.exponent + 127) as u32) << 23);
        let divisor = match self.divisor {
            Divisor::Count(count) => count as f32,
            Divisor::RootOfCount(count) => (count as f32).sqrt(),
        };
        Factors {
            decay: 1.0 - self.learning_rate * self.weight_decay,
            step: self.learning_rate * power / divisor * self.direction.unit(),
        }
    }
}

#[derive(Clone, Copy)]
struct Factors {
    decay: f32,
    step: f32,
}

struct Replay<'a> {
    first_tile: u64,
    weights: &'a mut [f32],
    updates: &'a [Update<'a>],
}

impl Kernel for Replay<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (index, weights) in self.weights.chunks_mut(TILE_WEIGHTS).enumerate() {
            let tile = self.first_tile.wrapping_add(index as u64);
            for update in self.updates {
                let is_narrow = update.bound() <= i32::MAX as u128;
                match (update.direction, is_narrow) {
                    (Direction::Rademacher, true) => {
                        apply::<RademacherDraw, i32>(update, tile, weights);
                    }
                    (Direction::Rademacher, false) => {
                        apply::<RademacherDraw, i64>(update, tile, weights);
                    }
                    (Direction::IrwinHall, true) => {
                        apply::<IrwinHallDraw, i32>(update, tile, weights);
                    }
                    (Direction::IrwinHall, false) => {
                        apply::<IrwinHallDraw, i64>(update, tile, weights);
                    }
                }
            }
        }
    }
}

/// One update of one tile. The bound has shown that `T` holds every sum.
#[inline(always)]
fn apply<D: Draw, T: Total>(update: &Update<'_>, tile: u64, weights: &mut [f32]) {
    let coefficients = update.contributions.iter().map(|one| one.coefficient);
    let offset = coefficients
        .fold(0_i64, i64::wrapping_add)
        .wrapping_mul(D::OFFSET);
    let mut sums = [[T::of(offset); ROW_WEIGHTS]; TILE_WEIGHTS / ROW_WEIGHTS];
    let rows = weights.len().div_ceil(ROW_WEIGHTS);
    for contribution in update.contributions {
        let stream = contribution.probe.stream();
        let coefficient = T::of(contribution.coefficient);
        let mut words = [0; ROW_WEIGHTS];
        for (row, sums) in sums[..rows].iter_mut().enumerate() {
            D::refresh(&mut words, stream, tile, row);
            for (sum, word) in sums.iter_mut().zip(&words) {
                *sum = sum.plus(D::scaled(*word, row, coefficient));
            }
        }
    }
    let factors = update.factors();
    let (weight_rows, tail) = weights.as_chunks_mut::<ROW_WEIGHTS>();
    for (weights, sums) in weight_rows.iter_mut().zip(&sums) {
        step(weights, sums, factors);
    }
    step(tail, &sums[rows.max(1) - 1], factors);
}

#[inline(always)]
fn step<T: Total>(weights: &mut [f32], sums: &[T; ROW_WEIGHTS], factors: Factors) {
    for (weight, sum) in weights.iter_mut().zip(sums) {
        *weight = canonical(*weight * factors.decay - factors.step * sum.rounded());
    }
}
