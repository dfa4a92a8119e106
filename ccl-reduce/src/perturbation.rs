//! Random directions in weight space, and the two things done with them: a perturbed copy of the
//! weights, and one rounded update from an exact integer sum of many directions.
//!
//! docs/numerics.md ("Perturbations") fixes every bit. What a loss is, who contributes, and which
//! steps exist is decided elsewhere.

mod tile;
mod update;

use serde::{Deserialize, Serialize};

use crate::number::canonical;
use crate::philox::Stream;
use crate::simd::{Kernel, Level, run_at};
use tile::{Draw, IrwinHallDraw, RademacherDraw};

pub use update::{Contribution, Divisor, Update, replay, replay_at};

/// Weights of a tile. A tensor starts at a tile, so that any part of it can be perturbed without
/// the rest.
pub const TILE_WEIGHTS: usize = 4096;

/// Distribution of the components of a direction, as small integers times [`Direction::unit`].
/// Numbers are stable: they cross the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Direction {
    /// -1 or +1, from one bit.
    #[default]
    Rademacher = 0,
    /// The sum of four bytes less 510: nearly Gaussian, from one word.
    IrwinHall = 1,
}

impl Direction {
    /// All of them, by number.
    pub const ALL: [Self; 2] = [Self::Rademacher, Self::IrwinHall];

    /// Its name as the CLI and error texts write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rademacher => "rademacher",
            Self::IrwinHall => "irwin-hall",
        }
    }

    /// What an integer is multiplied by to have variance 1.
    #[must_use]
    pub const fn unit(self) -> f32 {
        match self {
            Self::Rademacher => 1.0,
            // 1 / sqrt(21845), the variance of four independent bytes.
            Self::IrwinHall => f32::from_bits(0x3bdd_b446),
        }
    }

    /// Greatest absolute value of its integers.
    #[must_use]
    pub const fn largest(self) -> u32 {
        match self {
            Self::Rademacher => 1,
            Self::IrwinHall => 510,
        }
    }

    /// The integers of a direction, weight by weight, from the first of tile `first_tile`.
    pub fn integers(self, probe: Probe, first_tile: u64, out: &mut [i16]) {
        let mut row = [0; tile::ROW_WEIGHTS];
        let stream = probe.stream();
        for (tile, out) in out.chunks_mut(TILE_WEIGHTS).enumerate() {
            let tile = first_tile + tile as u64;
            for (index, out) in out.chunks_mut(tile::ROW_WEIGHTS).enumerate() {
                match self {
                    Self::Rademacher => row_of::<RademacherDraw>(stream, tile, index, &mut row),
                    Self::IrwinHall => row_of::<IrwinHallDraw>(stream, tile, index, &mut row),
                }
                out.copy_from_slice(&row[..out.len()]);
            }
        }
    }
}

fn row_of<D: Draw>(stream: Stream, tile: u64, row: usize, out: &mut [i16; tile::ROW_WEIGHTS]) {
    let words = D::words(stream, tile, row);
    for (value, word) in out.iter_mut().zip(words) {
        *value = D::value(word, row) as i16;
    }
}

/// Names one direction of a run. Different probes have different Philox counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Drawn once for the run.
    pub run_key: u64,
    /// Step of the run in which it was drawn.
    pub step: u32,
    /// The member's never-reused number in the run, below [`SLOTS_MAX`].
    pub slot: u32,
    /// Number among the member's samples of this step, below [`SAMPLES_MAX`].
    pub sample: u32,
}

impl Probe {
    /// Its key, and the last two words of its counters.
    ///
    /// # Panics
    /// If slot or sample is not below its limit: two probes would share a direction.
    #[must_use]
    pub const fn stream(self) -> Stream {
        assert!(self.slot < SLOTS_MAX, "slots have 20 bits");
        assert!(self.sample < SAMPLES_MAX, "samples have 12 bits");
        Stream {
            key: self.run_key,
            high: [self.step, self.slot << SAMPLE_BITS | self.sample],
        }
    }
}

/// A perturbed copy of weights. The weights themselves are never touched: adding and subtracting
/// the same direction does not restore them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perturbation {
    /// Distribution of the direction.
    pub direction: Direction,
    /// Which direction.
    pub probe: Probe,
    /// Length of the step along it; negative for the opposite side.
    pub epsilon: f32,
}

impl Perturbation {
    /// Writes `fl(w + fl(fl(epsilon * unit) * z))` for each weight, the first of which is the first
    /// of tile `first_tile`. A NaN is written as `7fc00000`.
    ///
    /// # Panics
    /// If the lengths differ, or as [`Probe::stream`].
    pub fn write(&self, first_tile: u64, weights: &[f32], out: &mut [f32]) {
        self.write_at(Level::best(), first_tile, weights, out);
    }

    /// [`Perturbation::write`] at a given level.
    ///
    /// # Panics
    /// As [`Perturbation::write`], and if this machine lacks the level.
    pub fn write_at(&self, level: Level, first_tile: u64, weights: &[f32], out: &mut [f32]) {
        assert_eq!(weights.len(), out.len(), "each weight has its copy");
        let stream = self.probe.stream();
        macro_rules! run {
            ($draw:ty) => {
                run_at(
                    level,
                    Write::<$draw> {
                        stream,
                        step: [self.epsilon, self.direction.unit()],
                        first_tile,
                        weights,
                        out,
                        draw: std::marker::PhantomData,
                    },
                )
            };
        }
        match self.direction {
            Direction::Rademacher => run!(RademacherDraw),
            Direction::IrwinHall => run!(IrwinHallDraw),
        }
    }
}

struct Write<'a, D> {
    stream: Stream,
    /// Multiplied inside, where the rounding mode is known.
    step: [f32; 2],
    first_tile: u64,
    weights: &'a [f32],
    out: &'a mut [f32],
    draw: std::marker::PhantomData<D>,
}

impl<D: Draw> Kernel for Write<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let step = self.step[0] * self.step[1];
        let tiles = self.out.chunks_mut(TILE_WEIGHTS);
        for (index, (out, weights)) in tiles.zip(self.weights.chunks(TILE_WEIGHTS)).enumerate() {
            let tile = self.first_tile.wrapping_add(index as u64);
            let mut words = [0; tile::ROW_WEIGHTS];
            let (rows, tail) = out.as_chunks_mut::<{ tile::ROW_WEIGHTS }>();
            let (weight_rows, weight_tail) = weights.as_chunks::<{ tile::ROW_WEIGHTS }>();
            let last = rows.len();
            for (row, (out, weights)) in rows.iter_mut().zip(weight_rows).enumerate() {
                D::refresh(&mut words, self.stream, tile, row);
                let row = Row {
                    row,
                    step,
                    words: &words,
                };
                row.write::<D>(weights, out);
            }
            if !tail.is_empty() {
                D::refresh(&mut words, self.stream, tile, last);
                let row = Row {
                    row: last,
                    step,
                    words: &words,
                };
                row.write::<D>(weight_tail, tail);
            }
        }
    }
}

struct Row<'a> {
    row: usize,
    step: f32,
    words: &'a [u32; tile::ROW_WEIGHTS],
}

impl Row<'_> {
    #[inline(always)]
    fn write<D: Draw>(&self, weights: &[f32], out: &mut [f32]) {
        for (out, (weight, word)) in out.iter_mut().zip(weights.iter().zip(self.words)) {
            *out = canonical(weight + self.step * D::value(*word, self.row) as f32);
        }
    }
}

const SAMPLE_BITS: u32 = 12;

/// Most samples of a member in one step.
pub const SAMPLES_MAX: u32 = 1 << SAMPLE_BITS;
/// Most slots of a run: a slot is never given to another member.
pub const SLOTS_MAX: u32 = 1 << (32 - SAMPLE_BITS);

#[cfg(test)]
mod tests;
