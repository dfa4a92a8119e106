//! Exchanges joined by a queue that delivers in seeded random order, over real small buffers.
//!
//! Signals of one sender to one receiver keep their order; bulk frames, additions and copies do
//! not. Lent bytes are read when they are delivered, as late as a real link might; some frames are
//! placed, half written with rubbish and delivered again, as after a repair.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::exchange::{Body, Exchange, ExchangeLimits, Operand, Output, Place, StartOp};
use super::layout::{Layout, Part, SegmentLimits, Shape, Side, Span, parts_digest};
use crate::ids::{Epoch, OpName, OpNumber, PeerId, Rank, Tag, Term, Vid};
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::FrameHeader;
use crate::wire::control::{Algorithm, Fingerprint, Kind};

/// Small sizes, so that small buffers have many segments.
pub(super) const LIMITS: ExchangeLimits = ExchangeLimits {
    segments: SegmentLimits {
        bytes_min: 64,
        bytes_max: 256,
        scratch_bytes: 4096,
        eager_bytes_max: 96,
    },
    scratch_bytes: 4096,
    eager_ops_max: 2,
};

pub(super) fn peer(index: usize) -> PeerId {
    PeerId(index as u64 + 10)
}

/// A seeded generator: splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Prng(pub(super) u64);

impl Prng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One collective, as every member calls it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) algorithm: Algorithm,
    pub(super) op: ReduceOp,
    pub(super) root: u32,
    pub(super) parts: Vec<Part>,
    pub(super) world_size: usize,
    pub(super) ring_order: Vec<Rank>,
    pub(super) tag: u64,
    pub(super) n: u64,
}

impl Call {
    pub(super) fn all_reduce(world_size: usize, dtype: Dtype, count: u64) -> Self {
        Self {
            kind: Kind::AllReduce,
            algorithm: Algorithm::Direct,
            op: ReduceOp::Sum,
            root: 0,
            parts: vec![Part { dtype, count }],
            world_size,
            ring_order: (0..world_size as u32).map(Rank).collect(),
            tag: 0,
            n: 0,
        }
    }

    pub(super) fn name(&self) -> OpName {
        OpName {
            tag: Tag(self.tag),
            n: OpNumber(self.n),
            birth: Vid {
                term: Term(1),
                epoch: Epoch(1),
            },
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            kind: self.kind,
            algorithm: self.algorithm,
            op: self.op,
            dtype: self.parts.first().map_or(Dtype::U8, |part| part.dtype),
            count: self.parts.iter().map(|part| part.count).sum(),
            parts: self.parts.len() as u32,
            parts_digest: parts_digest(&self.parts),
            root: Rank(self.root),
            quantization: 0,
            retry: false,
            attempts: 0,
            min_world: 1,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        let shape = Shape {
            kind: self.kind,
            algorithm: self.algorithm,
            parts: &self.parts,
            world_size: self.world_size,
            ring_order: &self.ring_order,
            root: Rank(self.root),
        };
        Layout::new(&shape, &LIMITS.segments)
    }

    /// Bytes of each part on one side of one member.
    pub(super) fn side_bytes(&self, side: Side) -> Vec<usize> {
        let n = self.world_size;
        let times = match (self.kind, side) {
            (Kind::ReduceScatter, Side::Input) | (Kind::AllGather, Side::Result) => n,
            _ => 1,
        };
        let bytes = |part: &Part| part.count as usize * part.dtype.bytes() * times;
        self.parts.iter().map(bytes).collect()
    }

    /// What a member contributes: rubbish, but no NaN to keep the scalar reference short.
    pub(super) fn input(&self, rank: usize) -> Vec<Vec<u8>> {
        let mut prng = Prng(self.tag * 1000 + self.n * 100 + rank as u64);
        let bytes = self.side_bytes(Side::Input);
        let parts = self.parts.iter().zip(bytes);
        parts
            .map(|(part, bytes)| {
                let elements = 0..bytes / part.dtype.bytes();
                elements
                    .flat_map(|_| element(part.dtype, &mut prng))
                    .collect()
            })
            .collect()
    }
}

/// Memory of one operation at one peer.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) input: Vec<Vec<u8>>,
    pub(super) result: Vec<Vec<u8>>,
}

impl Memory {
    fn read(&self, side: Side, span: &Span) -> &[u8] {
        let parts = match side {
            Side::Input => &self.input,
            Side::Result => &self.result,
        };
        &parts[span.part as usize][span.range()]
    }

    fn write(&mut self, span: &Span, bytes: &[u8]) {
        self.result[span.part as usize][span.range()].copy_from_slice(bytes);
    }

    fn gather(&self, body: &Body) -> Vec<u8> {
        body.spans()
            .flat_map(|span| self.read(body.side, &span).to_vec())
            .collect()
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) exchange: Exchange,
    pub(super) memory: BTreeMap<OpName, Memory>,
    pub(super) held: Vec<OpName>,
    pub(super) mismatches: Vec<(PeerId, Fingerprint)>,
    pub(super) faults: Vec<&'static str>,
    pub(super) eager_bodies: usize,
    pub(super) credits: usize,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    from: usize,
    to: usize,
    header: FrameHeader,
    side: Side,
    span: Span,
}

/// All of them.
#[derive(Debug)]
pub(super) struct World {
    pub(super) peers: Vec<Peer>,
    pub(super) prng: Prng,
    signals: BTreeMap<(usize, usize), VecDeque<(FrameHeader, Bytes)>>,
    bulks: Vec<Frame>,
    work: Vec<(usize, Output)>,
    is_repairing: bool,
}

impl World {
    pub(super) fn new(peers: usize, limits: ExchangeLimits, seed: u64) -> Self {
        let peer = |_| Peer {
            exchange: Exchange::new(limits),
            memory: BTreeMap::new(),
            held: Vec::new(),
            mismatches: Vec::new(),
            faults: Vec::new(),
            eager_bodies: 0,
            credits: 0,
            scratch: vec![0; limits.scratch_bytes],
        };
        Self {
            peers: (0..peers).map(peer).collect(),
            prng: Prng(seed),
            signals: BTreeMap::new(),
            bulks: Vec::new(),
            work: Vec::new(),
            is_repairing: seed % 2 == 1,
        }
    }

    /// One member calls; member `r` of the operation is peer `r`.
    pub(super) fn start(&mut self, at: usize, call: &Call) {
        let op = call.name();
        let memory = Memory {
            input: call.input(at),
            result: call
                .side_bytes(Side::Result)
                .into_iter()
                .map(|bytes| vec![0xA5; bytes])
                .collect(),
        };
        self.peers[at].memory.insert(op, memory);
        self.peers[at].exchange.start(StartOp {
            op,
            fingerprint: call.fingerprint(),
            parts: call.parts.clone().into(),
            members: (0..call.world_size).map(peer).collect(),
            ring_order: Arc::from(call.ring_order.clone()),
            rank: Rank(at as u32),
        });
        self.drain(at);
    }

    pub(super) fn stop(&mut self, at: usize, op: OpName) {
        self.peers[at].exchange.stop(op);
        self.peers[at].memory.remove(&op);
        self.drain(at);
    }

    /// Delivers something; false if nothing is under way.
    pub(super) fn step(&mut self) -> bool {
        let links: Vec<_> = self.signals.keys().copied().collect();
        let count = links.len() + self.bulks.len() + self.work.len();
        if count == 0 {
            return false;
        }
        let mut choice = self.prng.below(count);
        if choice < links.len() {
            self.deliver_signal(links[choice]);
            return true;
        }
        choice -= links.len();
        if choice < self.bulks.len() {
            let frame = self.bulks.swap_remove(choice);
            self.deliver_bulk(frame);
            return true;
        }
        let (at, output) = self.work.swap_remove(choice - self.bulks.len());
        self.carry_out(at, output);
        self.drain(at);
        true
    }

    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    pub(super) fn inject(&mut self, from: usize, to: usize, header: FrameHeader, payload: Bytes) {
        let link = self.signals.entry((from, to)).or_default();
        link.push_back((header, payload));
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.peers[at].exchange.poll_output() {
            let index = |to: PeerId| to.0 as usize - 10;
            match output {
                Output::Signal {
                    to,
                    header,
                    head,
                    body,
                } => {
                    let sender = &mut self.peers[at];
                    let mut payload = head.to_vec();
                    sender.credits +=
                        usize::from(header.kind == crate::transport::FrameKind::Credit);
                    if let (Some(body), Some(memory)) = (body, sender.memory.get(&header.op)) {
                        payload.extend(memory.gather(&body));
                        sender.eager_bodies += 1;
                    }
                    self.inject(at, index(to), header, payload.into());
                }
                Output::Bulk {
                    to,
                    header,
                    side,
                    span,
                } => self.bulks.push(Frame {
                    from: at,
                    to: index(to),
                    header,
                    side,
                    span,
                }),
                Output::Held(op) => self.peers[at].held.push(op),
                Output::Mismatch { peer, theirs, .. } => {
                    self.peers[at].mismatches.push((peer, theirs));
                }
                work => self.work.push((at, work)),
            }
        }
    }

    fn deliver_signal(&mut self, link: (usize, usize)) {
        let queue = self.signals.get_mut(&link).unwrap();
        let (header, payload) = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.signals.remove(&link);
        }
        let receiver = &mut self.peers[link.1];
        let taken = receiver
            .exchange
            .handle_signal(peer(link.0), &header, payload);
        receiver.faults.extend(taken.err());
        self.drain(link.1);
    }

    fn deliver_bulk(&mut self, frame: Frame) {
        let op = frame.header.op;
        let Some(memory) = self.peers[frame.from].memory.get(&op) else {
            return;
        };
        let payload = memory.read(frame.side, &frame.span).to_vec();
        let is_torn = self.is_repairing && self.prng.below(4) == 0;
        let receiver = &mut self.peers[frame.to];
        let place = receiver.exchange.place(peer(frame.from), &frame.header);
        let target = match place {
            Place::Slot { start, bytes } => &mut receiver.scratch[start..start + bytes],
            Place::Result(span) => {
                let memory = receiver.memory.get_mut(&op).unwrap();
                &mut memory.result[span.part as usize][span.range()]
            }
            Place::Discard => return,
            Place::Refuse(why) => {
                receiver.faults.push(why);
                return;
            }
        };
        if is_torn {
            let half = target.len() / 2;
            target[..half].fill(0xEE);
            self.bulks.push(frame);
            return;
        }
        target.copy_from_slice(&payload);
        receiver
            .exchange
            .handle_arrived(peer(frame.from), &frame.header);
        self.drain(frame.to);
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let peer = &mut self.peers[at];
        match output {
            Output::Reduce(reduction) => {
                let Some(memory) = peer.memory.get_mut(&reduction.op) else {
                    return;
                };
                let operands: Vec<Vec<u8>> = reduction
                    .operands
                    .iter()
                    .map(|operand| match operand {
                        Operand::Own(span) => memory.read(Side::Input, span).to_vec(),
                        Operand::Slot { start, bytes } => {
                            peer.scratch[*start..start + bytes].to_vec()
                        }
                        Operand::Eager(bytes) => bytes.to_vec(),
                        Operand::Target => memory.read(Side::Result, &reduction.target).to_vec(),
                    })
                    .collect();
                let operation = (reduction.dtype, reduction.reduce_op, reduction.divisor);
                memory.write(&reduction.target, &combine(operation, &operands));
                peer.exchange.reduced(reduction);
            }
            Output::Store(storage) => {
                let Some(memory) = peer.memory.get_mut(&storage.op) else {
                    return;
                };
                let mut rest = &storage.payload[..];
                for span in storage.body.spans() {
                    memory.write(&span, &rest[..span.bytes]);
                    rest = &rest[span.bytes..];
                }
                peer.exchange.stored(storage);
            }
            Output::Copy(copy) => {
                let Some(memory) = peer.memory.get_mut(&copy.op) else {
                    return;
                };
                let bytes = memory.gather(&copy.body);
                let mut rest = &bytes[..];
                for segment in copy.body.segments.clone() {
                    let span = copy.body.layout.span(Side::Result, segment);
                    memory.write(&span, &rest[..span.bytes]);
                    rest = &rest[span.bytes..];
                }
                peer.exchange.copied(copy);
            }
            _ => unreachable!("everything else was drained"),
        }
    }
}

/// A random element without surprises: small integers, floats of moderate exponent.
fn element(dtype: Dtype, prng: &mut Prng) -> Vec<u8> {
    let random = prng.next();
    let small = (random % 2001) as f64 / 7.0 - 140.0;
    match dtype {
        Dtype::F16 => half::f16::from_f64(small).to_le_bytes().to_vec(),
        Dtype::Bf16 => half::bf16::from_f64(small).to_le_bytes().to_vec(),
        Dtype::F32 => (small as f32).to_le_bytes().to_vec(),
        Dtype::F64 => small.to_le_bytes().to_vec(),
        _ => random.to_le_bytes()[..dtype.bytes()].to_vec(),
    }
}

/// The result of a call at one member, computed from all inputs in the documented order.
pub(super) fn reference(call: &Call, rank: usize) -> Vec<Vec<u8>> {
    let inputs: Vec<_> = (0..call.world_size).map(|rank| call.input(rank)).collect();
    let part = |part: usize| -> Vec<u8> {
        let column: Vec<&[u8]> = inputs.iter().map(|input| &input[part][..]).collect();
        let dtype = call.parts[part].dtype;
        match call.kind {
            Kind::Barrier => Vec::new(),
            Kind::Broadcast => column[call.root as usize].to_vec(),
            Kind::AllGather => column.concat(),
            Kind::AllReduce if call.algorithm == Algorithm::Ring => around(call, part, &column),
            Kind::AllReduce => sum_up(call, dtype, &column),
            Kind::ReduceScatter => {
                let share = column[0].len() / call.world_size;
                let range = rank * share..(rank + 1) * share;
                let shares: Vec<&[u8]> = column.iter().map(|bytes| &bytes[range.clone()]).collect();
                sum_up(call, dtype, &shares)
            }
        }
    };
    (0..call.parts.len()).map(part).collect()
}

/// In rank order, rounded once.
fn sum_up(call: &Call, dtype: Dtype, inputs: &[&[u8]]) -> Vec<u8> {
    if inputs.len() == 1 {
        return inputs[0].to_vec();
    }
    let operands: Vec<_> = inputs.iter().map(|bytes| bytes.to_vec()).collect();
    combine((dtype, call.op, inputs.len() as u32), &operands)
}

/// From the position after the owner's around to the owner's, rounded at each hop.
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
            sum = combine((dtype, op, divisor), &[sum, of(hop)]);
        }
        out[span.range()].copy_from_slice(&sum);
    }
    out
}

/// Element by element, in the order of the operands.
fn combine((dtype, op, divisor): (Dtype, ReduceOp, u32), operands: &[Vec<u8>]) -> Vec<u8> {
    macro_rules! integers {
        ($t:ty) => {
            each(operands, |values: &mut dyn Iterator<Item = $t>| {
                let combined = values.reduce(|a, b| match op {
                    ReduceOp::Sum | ReduceOp::Avg => a.wrapping_add(b),
                    ReduceOp::Prod => a.wrapping_mul(b),
                    ReduceOp::Min => a.min(b),
                    ReduceOp::Max => a.max(b),
                });
                let combined = combined.unwrap();
                match op {
                    ReduceOp::Avg => (i128::from(combined) / i128::from(divisor)) as $t,
                    _ => combined,
                }
            })
        };
    }
    macro_rules! floats {
        ($t:ty, $wide:ty, $widen:expr, $narrow:expr) => {
            each(operands, |values: &mut dyn Iterator<Item = $t>| {
                let combined = values.map($widen).reduce(|a: $wide, b| match op {
                    ReduceOp::Sum | ReduceOp::Avg => a + b,
                    ReduceOp::Prod => a * b,
                    ReduceOp::Min => a.min(b),
                    ReduceOp::Max => a.max(b),
                });
                let combined = combined.unwrap();
                $narrow(match op {
                    ReduceOp::Avg => combined / divisor as $wide,
                    _ => combined,
                })
            })
        };
    }
    match dtype {
        Dtype::U8 => integers!(u8),
        Dtype::U16 => integers!(u16),
        Dtype::U32 => integers!(u32),
        Dtype::U64 => integers!(u64),
        Dtype::I8 => integers!(i8),
        Dtype::I16 => integers!(i16),
        Dtype::I32 => integers!(i32),
        Dtype::I64 => integers!(i64),
        Dtype::F16 => floats!(
            half::f16,
            f32,
            |v: half::f16| v.to_f32(),
            half::f16::from_f32
        ),
        Dtype::Bf16 => floats!(
            half::bf16,
            f32,
            |v: half::bf16| v.to_f32(),
            half::bf16::from_f32
        ),
        Dtype::F32 => floats!(f32, f32, |v| v, |v| v),
        Dtype::F64 => floats!(f64, f64, |v| v, |v| v),
    }
}

trait Bytewise: Copy {
    fn load(bytes: &[u8]) -> Self;
    fn save(self, out: &mut Vec<u8>);
}

macro_rules! bytewise {
    ($($t:ty),*) => {$(
        impl Bytewise for $t {
            fn load(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().unwrap())
            }
            fn save(self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )*};
}

bytewise!(
    u8,
    u16,
    u32,
    u64,
    i8,
    i16,
    i32,
    i64,
    half::f16,
    half::bf16,
    f32,
    f64
);

fn each<T: Bytewise>(
    operands: &[Vec<u8>],
    combine: impl Fn(&mut dyn Iterator<Item = T>) -> T,
) -> Vec<u8> {
    let width = size_of::<T>();
    let mut out = Vec::with_capacity(operands[0].len());
    for at in (0..operands[0].len()).step_by(width) {
        let mut values = operands.iter().map(|bytes| T::load(&bytes[at..at + width]));
        combine(&mut values).save(&mut out);
    }
    out
}
