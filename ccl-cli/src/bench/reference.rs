//! The expected result of a collective, bit for bit, computed one element at a time.
//!
//! The library's scalar reference adds; the order is the documented one of the algorithm: rank
//! order for direct; for ring each chunk starts after its owner and travels along the ring until
//! the owner adds last, rounded at every hop. Works block by block, so that a check needs little
//! memory beside the buffers it checks.

use std::ops::Range;

use ccl_core::collective::layout::{Layout, Part, SegmentLimits, Shape, Side};
use ccl_core::collective::{Extent, choose_algorithm};
use ccl_core::reduce::codec::Input;
use ccl_core::reduce::{
    Contribution, Form, Mixture, decode_or_nan, encode_or_void, mix, reference, wire_bytes,
};
use ccl_core::wire::control::CostTable;
use ccl_core::{Algorithm, Encoding, Kind, Rank, ReduceOp, View};

use super::case::Case;
use super::inputs::{Sample, Seed, fill};
use crate::failure::{Failure, Result};

/// Which algorithm a case uses in a world of this size.
pub fn algorithm(case: &Case, world_size: u32, costs: &CostTable) -> Algorithm {
    let extent = Extent {
        world_size: world_size as usize,
        bytes: wire_bytes(case.encoding, case.dtype, case.count),
        is_added_at_once: case.op == ReduceOp::Avg && case.dtype.is_integer()
            || case.encoding.is_some(),
    };
    choose_algorithm(case.kind, case.algorithm, extent, costs)
}

/// The expected result of one case at one rank.
#[derive(Clone, Debug)]
pub struct Reference {
    case: Case,
    world_size: usize,
    rank: usize,
    /// Elements of the input that are combined in one order of ranks.
    stretches: Vec<Stretch>,
    algorithm: Algorithm,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    elements: Range<usize>,
    order: Vec<usize>,
}

impl Reference {
    /// For a member of this rank of this view.
    pub fn new(case: &Case, view: &View, rank: Rank) -> Result<Self> {
        let world_size = view.members.len();
        if world_size == 0 || rank.index() >= world_size {
            return Err(Failure::new("this peer is no member of its view"));
        }
        let members = u32::try_from(world_size).expect("worlds are small");
        let algorithm = algorithm(case, members, &view.costs);
        let stretches = if algorithm == Algorithm::Ring {
            ring_stretches(case, &view.ring_order)
        } else {
            vec![Stretch {
                elements: 0..case.count,
                order: (0..world_size).collect(),
            }]
        };
        Ok(Self {
            case: *case,
            world_size,
            rank: rank.index(),
            stretches,
            algorithm,
        })
    }

    /// The algorithm that is used.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Members.
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.world_size).expect("worlds are small")
    }

    /// This peer's place among them.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Elements of `result` that differ from what `seed` must give.
    pub fn count_wrong<T: Sample>(&self, result: &[T], seed: Seed) -> u64 {
        let share = self.case.count / self.world_size;
        match self.case.kind {
            Kind::AllReduce => self.count_wrong_sums(result, 0, seed),
            Kind::ReduceScatter => self.count_wrong_sums(result, share * self.rank, seed),
            Kind::AllGather => {
                let shares = result.chunks(share.max(1)).enumerate();
                shares
                    .map(|(rank, part)| count_wrong_copies(part, rank, seed))
                    .sum()
            }
            Kind::Broadcast => count_wrong_copies(result, 0, seed),
            Kind::Barrier | Kind::SharedState => 0,
        }
    }

    /// `result` is the reduction of the elements `first..` of all inputs.
    fn count_wrong_sums<T: Sample>(&self, result: &[T], first: usize, seed: Seed) -> u64 {
        let mut wrong = 0;
        for stretch in &self.stretches {
            let start = stretch.elements.start.max(first);
            let end = stretch.elements.end.min(first + result.len());
            for from in (start..end).step_by(BLOCK) {
                let part = &result[from - first..end.min(from + BLOCK) - first];
                wrong +=
                    count_different(part, &self.expected::<T>(from, part.len(), (stretch, seed)));
            }
        }
        wrong
    }

    /// The bytes of `length` elements of the reduction.
    fn expected<T: Sample>(&self, from: usize, length: usize, of: (&Stretch, Seed)) -> Vec<u8> {
        let (Stretch { order, .. }, seed) = of;
        let inputs: Vec<Vec<u8>> = order
            .iter()
            .map(|&rank| bytes_of_input::<T>(length, (rank, from), seed))
            .collect();
        if self.algorithm == Algorithm::Ring {
            self.by_hops(&inputs)
        } else {
            self.at_once(&inputs)
        }
    }

    fn at_once(&self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        if let Some(encoding) = self.case.encoding {
            return self.encoded(encoding, &inputs);
        }
        if let [only] = inputs[..] {
            return only.to_vec();
        }
        let mut result = vec![0; inputs[0].len()];
        reference(
            self.case.dtype,
            self.case.op,
            self.world_size(),
            &inputs,
            &mut result,
        );
        result
    }

    /// As above, of encoded contributions. `from` is the first element of a block.
    fn encoded(&self, encoding: Encoding, inputs: &[&[u8]]) -> Vec<u8> {
        let dtype = self.case.dtype;
        let mixture = Mixture {
            encoding: Some(encoding),
            divisor: self.world_size as u64,
            ..Mixture::of(dtype, self.case.op)
        };
        let contributions = inputs.iter().map(|&elements| Contribution {
            weight: 1,
            form: Form::Unrounded(elements),
        });
        let contributions: Vec<Contribution<'_>> = contributions.collect();
        let mut sum = vec![0; inputs[0].len()];
        mix(&mixture, &contributions, &mut sum);
        if self.case.kind != Kind::AllReduce || self.algorithm == Algorithm::OneShot {
            return sum;
        }
        let count = sum.len() / dtype.bytes();
        let mut encoded = vec![0; encoding.encoded_bytes(count)];
        let input = Input::of(dtype, &sum);
        encode_or_void(encoding, input, &mut encoded);
        decode_or_nan(encoding, dtype, &encoded, &mut sum);
        sum
    }

    /// Error of a result relative to the exact one, as the root of mean squares.
    pub fn error<T: Sample>(&self, result: &[T], seed: Seed) -> f64 {
        let share = self.case.count / self.world_size;
        let first = match self.case.kind {
            Kind::ReduceScatter => share * self.rank,
            _ => 0,
        };
        let divisor = match self.case.op {
            ReduceOp::Avg => self.world_size as f64,
            _ => 1.0,
        };
        let (mut error, mut whole) = (0.0, 0.0);
        let mut input = [T::default(); BLOCK];
        for (block, part) in result.chunks(BLOCK).enumerate() {
            let mut exact = vec![0.0; part.len()];
            let input = &mut input[..part.len()];
            for rank in 0..self.world_size {
                fill(input, seed, rank, first + block * BLOCK);
                for (sum, element) in exact.iter_mut().zip(&*input) {
                    *sum += element.value() / divisor;
                }
            }
            for (found, exact) in part.iter().zip(&exact) {
                error += (found.value() - exact).powi(2);
                whole += exact.powi(2);
            }
        }
        if whole > 0.0 {
            (error / whole).sqrt()
        } else {
            0.0
        }
    }

    /// The last hop divides, if an average is asked for.
    fn by_hops(&self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut partial = inputs[0].clone();
        for (hop, input) in inputs.iter().enumerate().skip(1) {
            let is_last = hop + 1 == inputs.len();
            let op = match self.case.op {
                ReduceOp::Avg if !is_last => ReduceOp::Sum,
                op => op,
            };
            let mut next = vec![0; partial.len()];
            reference(
                self.case.dtype,
                op,
                self.world_size(),
                &[&partial, input],
                &mut next,
            );
            partial = next;
        }
        partial
    }
}

/// The chunks of a ring all-reduce, each with the ranks in the order in which they add.
fn ring_stretches(case: &Case, ring_order: &[Rank]) -> Vec<Stretch> {
    let world_size = ring_order.len();
    let parts = [Part {
        dtype: case.dtype,
        count: case.count as u64,
    }];
    let shape = Shape {
        kind: Kind::AllReduce,
        algorithm: Algorithm::Ring,
        parts: &parts,
        world_size,
        ring_order,
        root: None,
        encoding: None,
        segments_per_chunk: 1,
    };
    let layout = Layout::new(&shape, &SegmentLimits::default());
    let mut stretches = Vec::new();
    for chunk in 0..world_size {
        let segments = layout.chunk_segments(chunk);
        if segments.is_empty() {
            continue;
        }
        let start = layout.span(Side::Input, segments.start).start / case.dtype.bytes();
        let length = layout.run_bytes(segments) / case.dtype.bytes();
        // It starts at the member after its owner, and goes once around.
        let order = (1..=world_size).map(|hop| ring_order[(chunk + hop) % world_size].index());
        stretches.push(Stretch {
            elements: start..start + length,
            order: order.collect(),
        });
    }
    stretches
}

fn count_wrong_copies<T: Sample>(part: &[T], rank: usize, seed: Seed) -> u64 {
    let blocks = part.chunks(BLOCK).enumerate();
    blocks
        .map(|(block, part)| {
            count_different(
                part,
                &bytes_of_input::<T>(part.len(), (rank, block * BLOCK), seed),
            )
        })
        .sum()
}

fn bytes_of_input<T: Sample>(length: usize, place: (usize, usize), seed: Seed) -> Vec<u8> {
    let (rank, first) = place;
    let mut elements = vec![T::default(); length];
    fill(&mut elements, seed, rank, first);
    let mut bytes = vec![0; length * size_of::<T>()];
    for (cell, element) in bytes.chunks_exact_mut(size_of::<T>()).zip(&elements) {
        cell.copy_from_slice(&element.bits().to_le_bytes()[..size_of::<T>()]);
    }
    bytes
}

fn count_different<T: Sample>(result: &[T], expected: &[u8]) -> u64 {
    let expected = expected.chunks_exact(size_of::<T>());
    let different = result
        .iter()
        .zip(expected)
        .filter(|(element, expected)| element.bits().to_le_bytes()[..size_of::<T>()] != **expected);
    different.count() as u64
}

/// Elements that are checked at a time.
const BLOCK: usize = 8192;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ccl_core::Dtype;

    use super::*;
    use crate::bench::case::Step;

    fn case(kind: Kind, algorithm: Algorithm, count: usize) -> Case {
        Case {
            kind,
            algorithm,
            dtype: Dtype::F32,
            op: ReduceOp::Sum,
            encoding: None,
            count,
            in_place: false,
            warmup: 1,
            step: Step::PLAIN,
            iterations: 1,
            check: true,
        }
    }

    fn members(world_size: usize) -> Reference {
        let case = case(Kind::AllReduce, Algorithm::TwoShot, 0);
        Reference {
            case,
            world_size,
            rank: 0,
            stretches: Vec::new(),
            algorithm: Algorithm::TwoShot,
        }
    }

    fn reference_of(case: Case, ring_order: &[Rank]) -> Reference {
        let is_ring = case.algorithm == Algorithm::Ring;
        let world_size = ring_order.len();
        let stretches = if is_ring {
            ring_stretches(&case, ring_order)
        } else {
            vec![Stretch {
                elements: 0..case.count,
                order: (0..world_size).collect(),
            }]
        };
        Reference {
            case,
            stretches,
            algorithm: case.algorithm,
            ..members(world_size)
        }
    }

    const SEED: Seed = Seed::new(9);
    const RING: [Rank; 3] = [Rank(2), Rank(0), Rank(1)];

    fn inputs(count: usize) -> Vec<Vec<f32>> {
        let input = |rank| {
            let mut input = vec![0.0; count];
            fill(&mut input, SEED, rank, 0);
            input
        };
        (0..3).map(input).collect()
    }

    #[test]
    fn direct_adds_in_rank_order_and_one_wrong_bit_is_counted() {
        const COUNT: usize = 20_000;
        let inputs = inputs(COUNT);
        let mut result: Vec<f32> = (0..COUNT)
            .map(|i| inputs[0][i] + inputs[1][i] + inputs[2][i])
            .collect();
        for element in result.iter_mut().filter(|element| element.is_nan()) {
            *element = f32::from_bits(0x7fc0_0000);
        }
        let reference = reference_of(case(Kind::AllReduce, Algorithm::TwoShot, COUNT), &RING);
        assert_eq!(reference.count_wrong(&result, SEED), 0);
        result[12_345] = f32::from_bits(result[12_345].to_bits() ^ 1);
        assert_eq!(reference.count_wrong(&result, SEED), 1);
        assert!(reference.count_wrong(&result, Seed::new(10)) > 19_000);
    }

    #[test]
    fn a_ring_chunk_starts_after_its_owner_and_ends_with_it() {
        const COUNT: usize = 48;
        let stretches = ring_stretches(&case(Kind::AllReduce, Algorithm::Ring, COUNT), &RING);
        let elements: Vec<_> = stretches
            .iter()
            .map(|stretch| stretch.elements.clone())
            .collect();
        assert_eq!(elements, [0..16, 16..32, 32..48]);
        assert_eq!(stretches[0].order, [0, 1, 2], "rank 2 owns the first chunk");
        assert_eq!(stretches[1].order, [1, 2, 0]);
        assert_eq!(stretches[2].order, [2, 0, 1]);
    }

    #[test]
    fn ring_and_direct_differ_in_bits_only_where_the_order_does() {
        let ring = reference_of(case(Kind::AllReduce, Algorithm::Ring, 48), &RING);
        let direct = reference_of(case(Kind::AllReduce, Algorithm::TwoShot, 48), &RING);
        let result: Vec<f32> = (0..3)
            .flat_map(|chunk| {
                let bytes = ring.expected::<f32>(16 * chunk, 16, (&ring.stretches[chunk], SEED));
                let elements: Vec<f32> = bytes
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                    .collect();
                elements
            })
            .collect();
        assert_eq!(ring.count_wrong(&result, SEED), 0);
        assert!(direct.count_wrong(&result, SEED) > 0);
        assert_eq!(
            direct.count_wrong(&result[..16], SEED),
            0,
            "the first chunk is in rank order"
        );
    }

    #[test]
    fn shares_and_copies_are_checked_where_they_lie() {
        const COUNT: usize = 30_000;
        let inputs = inputs(COUNT / 3);
        let gather = reference_of(case(Kind::AllGather, Algorithm::TwoShot, COUNT), &RING);
        assert_eq!(gather.count_wrong(&inputs.concat(), SEED), 0);
        let broadcast = reference_of(case(Kind::Broadcast, Algorithm::TwoShot, COUNT / 3), &RING);
        assert_eq!(broadcast.count_wrong(&inputs[0], SEED), 0);
        assert!(broadcast.count_wrong(&inputs[1], SEED) > 0);
    }

    #[test]
    fn negative_integers_are_compared_in_their_own_width() {
        let mut input = vec![0_i16; 100];
        fill(&mut input, SEED, 0, 0);
        let case = Case {
            dtype: Dtype::I16,
            ..case(Kind::Broadcast, Algorithm::TwoShot, 100)
        };
        assert_eq!(reference_of(case, &RING).count_wrong(&input, SEED), 0);
    }

    #[test]
    fn a_world_of_one_gives_its_input() {
        let mut input = vec![0.0_f32; 5000];
        fill(&mut input, SEED, 0, 0);
        for algorithm in [Algorithm::TwoShot, Algorithm::Ring] {
            let alone = reference_of(case(Kind::AllReduce, algorithm, 5000), &[Rank(0)]);
            assert_eq!(alone.count_wrong(&input, SEED), 0);
        }
    }

    #[test]
    fn a_stranger_to_the_view_is_refused() {
        let view = Arc::new(View::default());
        assert!(
            Reference::new(&case(Kind::AllReduce, Algorithm::Auto, 1), &view, Rank(0)).is_err()
        );
    }
}
