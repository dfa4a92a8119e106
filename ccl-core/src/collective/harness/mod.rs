//! Exchanges connected by a queue that delivers in seeded random order, over small real buffers.
//!
//! Signals of one sender to one receiver keep their order; bulk frames, additions and copies do
//! not. Lent bytes are read at delivery, as late as on a real link. Some frames are placed, half
//! overwritten with garbage and delivered again, as after a repair.

mod call;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::exchange::{Body, Coding, Exchange, ExchangeLimits, Operand, Output, Place};
use super::layout::{Side, Span};
use super::schedule::Given;
use crate::ids::{OpName, PeerId, Vid};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::Fingerprint;

pub(super) use call::{Call, ENCODED_LIMITS, LIMITS, Prng, reference};

pub(super) fn peer(index: usize) -> PeerId {
    PeerId(index as u64 + 10)
}

/// Memory of one operation on one peer.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) input: Vec<Vec<u8>>,
    pub(super) result: Vec<Vec<u8>>,
    wire: Vec<Vec<u8>>,
}

impl Memory {
    fn read(&self, side: Side, span: &Span) -> &[u8] {
        let parts = match side {
            Side::Input => &self.input,
            Side::Result => &self.result,
            Side::Wire => &self.wire,
        };
        &parts[span.part as usize][span.range()]
    }

    fn write(&mut self, span: &Span, bytes: &[u8]) {
        self.result[span.part as usize][span.range()].copy_from_slice(bytes);
    }

    fn side(&mut self, side: Side) -> &mut Vec<Vec<u8>> {
        match side {
            Side::Input => unreachable!("nobody writes an input"),
            Side::Result => &mut self.result,
            Side::Wire => &mut self.wire,
        }
    }

    fn encode(&mut self, coding: &Coding) {
        let elements = self.read(coding.side, &coding.elements).to_vec();
        let wire = &mut self.wire[coding.wire.part as usize][coding.wire.range()];
        coding.encode(None, &elements, wire);
    }

    fn decode(&mut self, coding: &Coding) {
        let mut elements = vec![0; coding.elements.bytes];
        let wire = self.read(Side::Wire, &coding.wire);
        coding.decode(wire, &mut elements);
        self.write(&coding.elements, &elements);
    }

    fn gather(&self, body: &Body) -> Vec<u8> {
        body.spans()
            .flat_map(|span| self.read(body.side, &span).to_vec())
            .collect()
    }
}

/// Room for the wire form of a few elements, which is longer than they are.
fn longer(mut part: Vec<u8>) -> Vec<u8> {
    part.resize(part.len() + 8 * 4, 0);
    part
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
    /// Bytes that each open operation has sent ahead to each other peer.
    pub(super) sent_ahead: BTreeMap<(OpName, usize), usize>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Bulk {
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
    /// Bytes of contributions that each peer has sent.
    pub(super) contributed: Vec<usize>,
    signals: BTreeMap<(usize, usize), VecDeque<(FrameHeader, Bytes)>>,
    bulks: Vec<Bulk>,
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
            sent_ahead: BTreeMap::new(),
            scratch: vec![0; limits.scratch_bytes + limits.reserve_bytes],
        };
        Self {
            peers: (0..peers).map(peer).collect(),
            prng: Prng(seed),
            contributed: vec![0; peers],
            signals: BTreeMap::new(),
            bulks: Vec::new(),
            work: Vec::new(),
            is_repairing: seed % 2 == 1,
        }
    }

    /// Makes the call on one member; member `r` of the operation is peer `r`.
    pub(super) fn start(&mut self, at: usize, call: &Call) {
        let op = call.name();
        let memory = Memory {
            input: call.input(at),
            result: call
                .side_bytes(Side::Result)
                .into_iter()
                .map(|bytes| vec![0xA5; bytes])
                .collect(),
            wire: call.input(at).into_iter().map(longer).collect(),
        };
        self.peers[at].memory.insert(op, memory);
        let start = call.start(at, peer);
        let given = Given {
            parts: &call.parts,
            weight: call.weight(at),
        };
        self.peers[at].exchange.start(start, given);
        self.drain(at);
        let bytes_max = call.costs.ahead_bytes_max(call.world_size);
        for to in 0..call.world_size {
            let sent = &self.peers[at].sent_ahead;
            let to_it = sent.iter().filter(|((_, other), _)| *other == to);
            let bytes: usize = to_it.map(|(_, bytes)| bytes).sum();
            assert!(bytes <= bytes_max, "{at} sends {to} more ahead than it may");
        }
    }

    pub(super) fn stop(&mut self, at: usize, op: OpName) {
        self.peers[at].exchange.stop(op);
        self.peers[at].memory.remove(&op);
        self.peers[at].sent_ahead.retain(|(name, _), _| *name != op);
        self.drain(at);
    }

    /// A view is in force at a peer: of the operations born before, these go on.
    pub(super) fn forget(&mut self, at: usize, before: Vid, carried: &[OpName]) {
        let carried = carried.iter().copied();
        self.peers[at].exchange.forget(before, carried);
        self.drain(at);
    }

    /// Delivers one item; false if the queue is empty.
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
            let bulk = self.bulks.swap_remove(choice);
            self.deliver_bulk(bulk);
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
                    sender.credits += usize::from(matches!(header.frame, Frame::Credit { .. }));
                    if let (Some(body), Some(memory)) = (body, sender.memory.get(&header.op)) {
                        payload.extend(memory.gather(&body));
                        if matches!(header.frame, Frame::Post { .. }) {
                            self.contributed[at] += body.bytes();
                        }
                        sender.eager_bodies += 1;
                    }
                    self.inject(at, index(to), header, payload.into());
                }
                Output::Bulk {
                    to,
                    header,
                    side,
                    span,
                } => {
                    if let Frame::Ahead { batch_bytes, .. } = header.frame {
                        let sent = &mut self.peers[at].sent_ahead;
                        sent.insert((header.op, index(to)), batch_bytes as usize);
                    }
                    if !matches!(header.frame, Frame::Result { .. }) {
                        self.contributed[at] += span.bytes;
                    }
                    self.bulks.push(Bulk {
                        from: at,
                        to: index(to),
                        header,
                        side,
                        span,
                    });
                }
                Output::Abandon { from, op } => self.peers[at].exchange.abandoned(from, op),
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

    fn deliver_bulk(&mut self, bulk: Bulk) {
        let op = bulk.header.op;
        let Some(memory) = self.peers[bulk.from].memory.get(&op) else {
            return;
        };
        let payload = memory.read(bulk.side, &bulk.span).to_vec();
        let is_torn = self.is_repairing && self.prng.below(4) == 0;
        let receiver = &mut self.peers[bulk.to];
        let place = receiver.exchange.place(peer(bulk.from), &bulk.header);
        let target = match place {
            Place::Slot { start, bytes } | Place::Reserve { start, bytes } => {
                &mut receiver.scratch[start..start + bytes]
            }
            Place::Memory { side, span } => {
                let memory = receiver.memory.get_mut(&op).unwrap();
                &mut memory.side(side)[span.part as usize][span.range()]
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
            self.bulks.push(bulk);
            return;
        }
        target.copy_from_slice(&payload);
        receiver
            .exchange
            .handle_arrived(peer(bulk.from), &bulk.header);
        self.drain(bulk.to);
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let peer = &mut self.peers[at];
        match output {
            Output::Reduce(reduction) => {
                let Some(memory) = peer.memory.get_mut(&reduction.op) else {
                    return;
                };
                let operands: Vec<&[u8]> = reduction
                    .operands
                    .iter()
                    .map(|operand| match operand {
                        Operand::Own(span) => memory.read(Side::Input, span),
                        Operand::Slot { start, bytes } => &peer.scratch[*start..start + bytes],
                        Operand::Eager(bytes) => bytes,
                        Operand::Target => memory.read(Side::Result, &reduction.target),
                    })
                    .collect();
                let mut sum = vec![0; reduction.target.bytes];
                reduction.combine(None, &operands, &mut sum);
                memory.write(&reduction.target, &sum);
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
            Output::Encode(coding) => {
                if let Some(memory) = peer.memory.get_mut(&coding.op) {
                    memory.encode(&coding);
                    peer.exchange.encoded(coding);
                }
            }
            Output::Decode(coding) => {
                if let Some(memory) = peer.memory.get_mut(&coding.op) {
                    memory.decode(&coding);
                    peer.exchange.decoded(coding);
                }
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
