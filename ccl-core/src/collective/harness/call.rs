//! Collectives for tests: small limits, inputs from a seed, and the expected bytes.

use crate::collective::exchange::ExchangeLimits;
use crate::collective::layout::{Layout, Part, SegmentLimits, Shape, Side};
use crate::ids::{Epoch, OpName, OpNumber, PeerId, Rank, Tag, Term, Vid};
use crate::reduce::codec::Input;
use crate::reduce::{self, Dtype, Encoding, ReduceOp};
use crate::wire::control::{
    Algorithm, Birth, Called, CostTable, Elements, Fingerprint, Kind, Start,
};

/// Small sizes, so that small buffers have many segments.
pub(in crate::collective) const LIMITS: ExchangeLimits = ExchangeLimits {
    segments: SegmentLimits {
        bytes_min: 64,
        bytes_max: 256,
        scratch_bytes: 4096,
        eager_bytes_max: 96,
    },
    scratch_bytes: 4096,
    reserve_bytes: 4096,
    eager_ops_max: 2,
};

/// As small as whole blocks of encodings allow.
pub(in crate::collective) const ENCODED_LIMITS: ExchangeLimits = ExchangeLimits {
    segments: SegmentLimits {
        bytes_min: 2048,
        bytes_max: 2048,
        scratch_bytes: 32_768,
        eager_bytes_max: 96,
    },
    scratch_bytes: 32_768,
    reserve_bytes: 32_768,
    eager_ops_max: 2,
};

/// A seeded generator: splitmix64.
#[derive(Clone, Debug)]
pub(in crate::collective) struct Prng(pub(in crate::collective) u64);

impl Prng {
    pub(in crate::collective) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::collective) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One collective, the same call on every member.
#[derive(Clone, Debug)]
pub(in crate::collective) struct Call {
    pub(in crate::collective) kind: Kind,
    pub(in crate::collective) algorithm: Algorithm,
    pub(in crate::collective) op: ReduceOp,
    pub(in crate::collective) root: u32,
    pub(in crate::collective) parts: Vec<Part>,
    pub(in crate::collective) world_size: usize,
    pub(in crate::collective) ring_order: Vec<Rank>,
    pub(in crate::collective) tag: u64,
    pub(in crate::collective) n: u64,
    pub(in crate::collective) encoding: Option<Encoding>,
    /// By rank; empty: none.
    pub(in crate::collective) weights: Vec<u32>,
    pub(in crate::collective) caller: String,
    pub(in crate::collective) costs: CostTable,
    pub(in crate::collective) epoch: u32,
}

impl Call {
    pub(in crate::collective) fn all_reduce(world_size: usize, dtype: Dtype, count: u64) -> Self {
        Self {
            kind: Kind::AllReduce,
            algorithm: Algorithm::TwoShot,
            op: ReduceOp::Sum,
            root: 0,
            parts: vec![Part { dtype, count }],
            world_size,
            ring_order: (0..world_size as u32).map(Rank).collect(),
            tag: 0,
            n: 0,
            encoding: None,
            weights: Vec::new(),
            caller: String::new(),
            costs: CostTable {
                reserve_bytes: 2048,
                ..CostTable::default()
            },
            epoch: 1,
        }
    }

    pub(in crate::collective) fn name(&self) -> OpName {
        OpName {
            tag: Tag(self.tag),
            n: OpNumber(self.n),
            birth: Vid {
                term: Term(1),
                epoch: Epoch(self.epoch),
            },
        }
    }

    pub(in crate::collective) fn fingerprint(&self) -> Fingerprint {
        let parts = self.parts.iter();
        let elements = Elements::of(parts.map(|part| (part.dtype, part.count)));
        let (reduce_op, root) = (self.op, Rank(self.root));
        let called = match self.kind {
            Kind::AllReduce => Called::AllReduce {
                reduce_op,
                elements,
            },
            Kind::ReduceScatter => Called::ReduceScatter {
                reduce_op,
                elements,
            },
            Kind::AllGather => Called::AllGather { elements },
            Kind::Broadcast => Called::Broadcast { root, elements },
            Kind::Barrier => Called::Barrier,
            Kind::SharedState => unreachable!("a sync is no exchange"),
        };
        Fingerprint {
            algorithm: self.algorithm,
            encoding: self.encoding,
            is_weighted: !self.weights.is_empty(),
            caller: self.caller.clone(),
            ..Fingerprint::new(called)
        }
    }

    /// The operation that the member at `at` starts; `peer` maps positions to peers.
    pub(in crate::collective) fn start(&self, at: usize, peer: fn(usize) -> PeerId) -> Start {
        Start {
            birth: Birth {
                op: self.name(),
                members: (0..self.world_size).map(peer).collect(),
                ring_order: self.ring_order.clone().into(),
                costs: self.costs,
            },
            rank: Rank(at as u32),
            fingerprint: self.fingerprint(),
        }
    }

    fn is_mixed(&self) -> bool {
        self.encoding.is_some() || !self.weights.is_empty()
    }

    /// Encodings that do not make its elements longer, and none.
    pub(in crate::collective) fn encodings(dtype: Dtype) -> Vec<Option<Encoding>> {
        let shorter = |encoding: &Encoding| encoding.encoded_bytes(256) <= 256 * dtype.bytes();
        let all = Encoding::ALL.into_iter().filter(shorter).map(Some);
        std::iter::once(None).chain(all).collect()
    }

    pub(in crate::collective) fn weight(&self, rank: usize) -> u32 {
        self.weights.get(rank).copied().unwrap_or(1)
    }

    /// Averages of integers never do, nor what is encoded or has weights.
    fn goes_around(&self) -> bool {
        let has_integers = self.parts.iter().any(|part| part.dtype.is_integer());
        let is_exact = self.op == ReduceOp::Avg && has_integers;
        self.algorithm == Algorithm::Ring && !self.is_mixed() && !is_exact
    }

    pub(in crate::collective) fn layout(&self) -> Layout {
        let shape = Shape {
            kind: self.kind,
            algorithm: self.algorithm,
            parts: &self.parts,
            world_size: self.world_size,
            ring_order: &self.ring_order,
            root: self.fingerprint().called.root(),
            encoding: self.encoding,
            segments_per_chunk: CostTable::default().segments_per_chunk(),
        };
        Layout::new(&shape, &LIMITS.segments)
    }

    /// Bytes of each part on one side of one member.
    pub(in crate::collective) fn side_bytes(&self, side: Side) -> Vec<usize> {
        let n = self.world_size;
        let times = match (self.kind, side) {
            (Kind::ReduceScatter, Side::Input) | (Kind::AllGather, Side::Result) => n,
            _ => 1,
        };
        let bytes = |part: &Part| part.count as usize * part.dtype.bytes() * times;
        self.parts.iter().map(bytes).collect()
    }

    /// A member's input: random, but without NaN, to keep the scalar reference short.
    pub(in crate::collective) fn input(&self, rank: usize) -> Vec<Vec<u8>> {
        let mut prng = Prng(self.tag * 1000 + self.n * 100 + rank as u64);
        let bytes = self.side_bytes(Side::Input);
        let parts = self.parts.iter().zip(bytes);
        parts
            .map(|(part, bytes)| {
                let mut input = Vec::with_capacity(bytes);
                while input.len() < bytes {
                    push_element(part.dtype, &mut prng, &mut input);
                }
                input
            })
            .collect()
    }
}

/// A random element without surprises: small integers, floats of moderate exponent.
fn push_element(dtype: Dtype, prng: &mut Prng, out: &mut Vec<u8>) {
    let random = prng.next();
    let small = (random % 2001) as f64 / 7.0 - 140.0;
    match dtype {
        Dtype::F16 => out.extend(half::f16::from_f64(small).to_le_bytes()),
        Dtype::Bf16 => out.extend(half::bf16::from_f64(small).to_le_bytes()),
        Dtype::F32 => out.extend((small as f32).to_le_bytes()),
        Dtype::F64 => out.extend(small.to_le_bytes()),
        _ => out.extend_from_slice(&random.to_le_bytes()[..dtype.bytes()]),
    }
}

/// The expected result of a call on one member, computed from all inputs in the documented order.
pub(in crate::collective) fn reference(call: &Call, rank: usize) -> Vec<Vec<u8>> {
    let inputs: Vec<_> = (0..call.world_size).map(|rank| call.input(rank)).collect();
    let part = |part: usize| -> Vec<u8> {
        let column: Vec<&[u8]> = inputs.iter().map(|input| &input[part][..]).collect();
        let dtype = call.parts[part].dtype;
        match call.kind {
            Kind::Barrier | Kind::SharedState => Vec::new(),
            Kind::Broadcast => column[call.root as usize].to_vec(),
            Kind::AllGather => column.concat(),
            Kind::AllReduce if call.goes_around() => around(call, part, &column),
            Kind::AllReduce if call.is_mixed() => mix(call, dtype, &column),
            Kind::AllReduce => sum_up(call, dtype, &column),
            Kind::ReduceScatter => {
                let share = column[0].len() / call.world_size;
                let range = rank * share..(rank + 1) * share;
                let shares: Vec<&[u8]> = column.iter().map(|bytes| &bytes[range.clone()]).collect();
                match call.is_mixed() {
                    true => mix(call, dtype, &shares),
                    false => sum_up(call, dtype, &shares),
                }
            }
        }
    };
    (0..call.parts.len()).map(part).collect()
}

/// Weighs and adds what is left of the inputs after encoding; in a two-shot all-reduce the result
/// is encoded too.
fn mix(call: &Call, dtype: Dtype, inputs: &[&[u8]]) -> Vec<u8> {
    let rounded = |elements: &[u8], to: Dtype| -> Vec<u8> {
        let Some(encoding) = call.encoding else {
            return elements.to_vec();
        };
        let count = elements.len() / dtype.bytes();
        let mut encoded = vec![0; encoding.encoded_bytes(count)];
        let input = Input::of(dtype, elements);
        encoding.encode(input, &mut encoded).unwrap();
        let mut back = vec![0; count * to.bytes()];
        encoding.decode(&encoded, to, &mut back).unwrap();
        back
    };
    let weight = |rank: usize| call.weights.get(rank).copied().unwrap_or(1);
    let total: u32 = (0..inputs.len()).map(weight).sum();
    let divisor = match call.op {
        ReduceOp::Avg if total > 0 => total,
        _ => 1,
    };
    let mut sum = vec![0; inputs[0].len()];
    // Decoded contributions are f32.
    let given = call.encoding.map_or(dtype, |_| Dtype::F32);
    let inputs: Vec<Vec<u8>> = inputs.iter().map(|input| rounded(input, given)).collect();
    for (index, out) in sum.chunks_exact_mut(dtype.bytes()).enumerate() {
        let of = |rank: usize| &inputs[rank][index * given.bytes()..][..given.bytes()];
        let ranks = (0..inputs.len()).filter(|&rank| weight(rank) > 0);
        if dtype == Dtype::F64 {
            let terms = ranks.map(|rank| f64::from(weight(rank)) * as_f64(given, of(rank)));
            let sum = terms.reduce(|sum, term| sum + term).unwrap_or(0.0);
            out.copy_from_slice(&(sum / f64::from(divisor)).to_ne_bytes());
            continue;
        }
        let terms = ranks.map(|rank| weight(rank) as f32 * as_f64(given, of(rank)) as f32);
        let sum = terms.reduce(|sum, term| sum + term).unwrap_or(0.0) / divisor as f32;
        match dtype {
            Dtype::F32 => out.copy_from_slice(&sum.to_ne_bytes()),
            Dtype::F16 => out.copy_from_slice(&half::f16::from_f32(sum).to_ne_bytes()),
            _ => out.copy_from_slice(&half::bf16::from_f32(sum).to_ne_bytes()),
        }
    }
    match call.kind == Kind::AllReduce && call.algorithm != Algorithm::OneShot {
        true => rounded(&sum, dtype),
        false => sum,
    }
}

fn as_f64(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::F64 => f64::from_ne_bytes(bytes.try_into().unwrap()),
        Dtype::F32 => f32::from_ne_bytes(bytes.try_into().unwrap()).into(),
        Dtype::F16 => half::f16::from_ne_bytes(bytes.try_into().unwrap()).to_f64(),
        _ => half::bf16::from_ne_bytes(bytes.try_into().unwrap()).to_f64(),
    }
}

/// Reduces in rank order, rounding once.
fn sum_up(call: &Call, dtype: Dtype, inputs: &[&[u8]]) -> Vec<u8> {
    if inputs.len() == 1 {
        return inputs[0].to_vec();
    }
    let operands: Vec<_> = inputs.iter().map(|bytes| bytes.to_vec()).collect();
    combine(
        reduce::reference,
        (dtype, call.op, inputs.len() as u32),
        &operands,
    )
}

/// Reduces from the position after the owner's around the ring to the owner's, rounding at each
/// hop.
fn around(call: &Call, part: usize, inputs: &[&[u8]]) -> Vec<u8> {
    let n = call.world_size;
    let mut out = inputs[0].to_vec();
    if n == 1 {
        return out;
    }
    let layout = call.layout();
    let dtype = call.parts[part].dtype;
    for segment in 0..layout.segment_count() {
        let span = layout.span(Side::Result, segment);
        if span.part as usize != part {
            continue;
        }
        let chunk = layout.chunk(segment);
        let of = |hop: usize| {
            let rank = call.ring_order[(chunk + 1 + hop) % n].index();
            inputs[rank][span.range()].to_vec()
        };
        let mut sum = of(0);
        for hop in 1..n {
            let (op, divisor) = match call.op {
                ReduceOp::Avg if hop + 1 < n => (ReduceOp::Sum, 1),
                op => (op, n as u32),
            };
            sum = combine(reduce::reference, (dtype, op, divisor), &[sum, of(hop)]);
        }
        out[span.range()].copy_from_slice(&sum);
    }
    out
}

/// Uses the library's kernel if that is to be tested, otherwise its scalar reference.
type Kernel = fn(Dtype, ReduceOp, u32, &[&[u8]], &mut [u8]);

/// Reduces element by element, in the order of the operands.
fn combine(kernel: Kernel, operation: (Dtype, ReduceOp, u32), operands: &[Vec<u8>]) -> Vec<u8> {
    let (dtype, op, divisor) = operation;
    let slices: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
    let mut out = vec![0; operands[0].len()];
    kernel(dtype, op, divisor, &slices, &mut out);
    out
}
