//! The bytes of one peer's operations: the library's exchange over small real buffers.
//!
//! Stands in for the engine: carries out on memory what the exchange decides, and hands its frames
//! to the links. Bulk frames lend memory: they are read when they leave, and again after a repair.

use std::collections::BTreeMap;

use bytes::Bytes;

use ccl_core::collective::step::{
    Body, Coding, CopyOwn, Operand, Output, Place, Reduction, Storage,
};
use ccl_core::collective::{
    Exchange, ExchangeLimits, Given, Part, SegmentLimits, Side, Span, is_staged,
};
use ccl_core::ids::{CallId, OpName, PeerId, Vid};
use ccl_core::peer::Input;
use ccl_core::transport::FrameHeader;
use ccl_core::wire::control::{Kind, Start};

use super::cluster::{HostId, World};
use super::reference;
use super::swarm::Swarm;

/// Memory of one operation: the caller's buffers, and where the result is built.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The caller's buffers, one a part.
    pub input: Vec<Vec<u8>>,
    /// Where results go; `None` if straight into the input.
    pub result: Option<Vec<Vec<u8>>>,
    /// Wire forms that differ from memory.
    pub wire: Vec<Vec<u8>>,
}

impl Memory {
    fn side(&mut self, side: Side) -> &mut Vec<Vec<u8>> {
        match side {
            Side::Input => &mut self.input,
            Side::Result => self.result.as_mut().unwrap_or(&mut self.input),
            Side::Wire => &mut self.wire,
        }
    }

    fn read(&mut self, side: Side, span: Span) -> Vec<u8> {
        self.side(side)[span.part as usize][span.range()].to_vec()
    }

    fn write(&mut self, side: Side, span: Span, bytes: &[u8]) {
        self.side(side)[span.part as usize][span.range()].copy_from_slice(bytes);
    }
}

/// Memory for data ahead of credits, too little for all that members may send, so that some of it
/// is dropped.
const RESERVE_BYTES: usize = 4096;

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Content {
    /// A small frame; its bytes are its own.
    Signal {
        /// Its header.
        header: FrameHeader,
        /// Its payload.
        payload: Bytes,
    },
    /// A bulk frame; its bytes are lent.
    Bulk {
        /// Its header.
        header: FrameHeader,
        /// Which memory.
        side: Side,
        /// Which bytes of it.
        span: Span,
        /// The bytes read; `None`: the memory was taken back before, so the frame is void.
        bytes: Option<Vec<u8>>,
    },
}

impl Content {
    /// Whether it goes on the signal lane.
    #[must_use]
    pub fn is_signal(&self) -> bool {
        matches!(self, Self::Signal { .. })
    }

    /// A number for the digest of the history.
    #[must_use]
    pub fn code(&self) -> u64 {
        let (Self::Signal { header, .. } | Self::Bulk { header, .. }) = self;
        let (kind, first) = (
            u64::from(header.frame.kind()),
            u64::from(header.frame.first()),
        );
        kind << 56 ^ header.op.tag.0 << 48 ^ header.op.n.0 << 16 ^ first
    }

    /// The operation it belongs to.
    #[must_use]
    pub fn header(&self) -> &FrameHeader {
        let (Self::Signal { header, .. } | Self::Bulk { header, .. }) = self;
        header
    }
}

/// A frame that arrives.
#[derive(Debug)]
pub struct Arrival {
    /// Its sender.
    pub from: PeerId,
    /// What.
    pub content: Content,
    /// Whether its lane broke between its header and its payload, and it came again.
    pub placed_twice: bool,
}

/// The bytes of one peer's operations.
#[derive(Debug)]
pub struct Plane {
    exchange: Exchange,
    scratch: Vec<u8>,
    memory: BTreeMap<OpName, Memory>,
    /// Errors of the exchange: uses of memory that was no longer lent.
    trespass: Option<String>,
}

impl Plane {
    /// Without operations; cuts so small that a few dozen elements make several segments.
    #[must_use]
    pub fn new(swarm: &Swarm) -> Self {
        let limits = SegmentLimits {
            bytes_min: 64,
            bytes_max: 256,
            scratch_bytes: 4096,
            eager_bytes_max: if swarm.seed.is_multiple_of(3) {
                32
            } else {
                256
            },
        };
        let exchange = Exchange::new(ExchangeLimits {
            segments: limits,
            scratch_bytes: limits.scratch_bytes,
            reserve_bytes: RESERVE_BYTES,
            eager_ops_max: 2,
        });
        Self {
            exchange,
            scratch: vec![0; limits.scratch_bytes + RESERVE_BYTES],
            memory: BTreeMap::new(),
            trespass: None,
        }
    }

    /// Opens an operation on this memory.
    pub fn start(&mut self, start: Start, parts: &[Part], mut memory: Memory, in_place: bool) {
        if in_place && !is_staged(true) {
            memory.result = None;
        }
        self.memory.insert(start.birth.op, memory);
        self.exchange.start(start, Given { parts, weight: 1 });
    }

    /// Ends an operation. Its memory stays until the application takes it.
    pub fn stop(&mut self, op: OpName) {
        self.exchange.stop(op);
    }

    /// Takes the memory of an operation back.
    pub fn take(&mut self, op: OpName) -> Option<Memory> {
        self.memory.remove(&op)
    }

    /// R14: the memory of a call that has ended is neither read nor written.
    fn trespasses(&mut self, op: OpName, what: &str) {
        let what = format!("{op} has ended, and its memory is used: {what} (R14)");
        self.trespass.get_or_insert(what);
    }

    /// A view is in force: of the operations born before it, these are carried.
    pub fn forget(&mut self, before: Vid, carried: Vec<OpName>) {
        self.exchange.forget(before, carried);
    }

    /// A peer is no longer a neighbour.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.exchange.forget_peer(peer);
    }

    /// Whether no operation holds memory.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.exchange.is_idle()
    }

    /// A frame leaves: lent memory is read.
    pub fn leaves(&mut self, content: &mut Content) {
        if let Content::Bulk {
            header,
            side,
            span,
            bytes,
        } = content
        {
            *bytes = self
                .memory
                .get_mut(&header.op)
                .map(|memory| memory.read(*side, *span));
        }
    }

    /// A frame is sent again after a repair: lent memory is read again.
    pub fn sent_again(&mut self, content: &mut Content) {
        self.leaves(content);
    }

    /// A frame arrives.
    ///
    /// # Errors The exchange blames the sender.
    pub fn arrives(&mut self, arrival: Arrival) -> Result<(), &'static str> {
        let from = arrival.from;
        let (header, bytes) = match arrival.content {
            Content::Signal { header, payload } => {
                return self.exchange.handle_signal(from, &header, payload);
            }
            Content::Bulk { header, bytes, .. } => (header, bytes),
        };
        if arrival.placed_twice {
            self.exchange.place(from, &header);
        }
        let place = self.exchange.place(from, &header);
        let Some(bytes) = bytes else {
            return Ok(());
        };
        match place {
            Place::Discard => return Ok(()),
            Place::Refuse(why) => return Err(why),
            Place::Slot { start, bytes: room } | Place::Reserve { start, bytes: room } => {
                assert_eq!(room, bytes.len(), "a slot is as long as its segment");
                self.scratch[start..start + room].copy_from_slice(&bytes);
            }
            Place::Memory { side, span } => {
                let Some(memory) = self.memory.get_mut(&header.op) else {
                    return Err("a frame was placed into an operation that is over");
                };
                memory.write(side, span, &bytes);
            }
        }
        self.exchange.handle_arrived(from, &header);
        Ok(())
    }

    fn reduce(&mut self, reduction: Reduction) {
        let Some(memory) = self.memory.get_mut(&reduction.op) else {
            self.trespasses(reduction.op, "reduces");
            self.exchange.reduced(reduction);
            return;
        };
        let operands: Vec<Vec<u8>> = reduction
            .operands
            .iter()
            .map(|operand| match operand {
                Operand::Own(span) => memory.read(Side::Input, *span),
                Operand::Slot { start, bytes } => self.scratch[*start..][..*bytes].to_vec(),
                Operand::Eager(bytes) => bytes.to_vec(),
                Operand::Target => memory.read(Side::Result, reduction.target),
            })
            .collect();
        let slices: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
        let mut sum = vec![0; reduction.target.bytes];
        reduction.combine(None, &slices, &mut sum);
        memory.write(Side::Result, reduction.target, &sum);
        self.exchange.reduced(reduction);
    }

    fn store(&mut self, storage: Storage) {
        if let Some(memory) = self.memory.get_mut(&storage.op) {
            let mut at = 0;
            for span in storage.body.spans() {
                memory.write(Side::Result, span, &storage.payload[at..at + span.bytes]);
                at += span.bytes;
            }
        } else {
            self.trespasses(storage.op, "stores");
        }
        self.exchange.stored(storage);
    }

    fn encode(&mut self, coding: Coding) {
        if let Some(memory) = self.memory.get_mut(&coding.op) {
            let elements = memory.read(coding.side, coding.elements);
            let mut wire = vec![0; coding.wire.bytes];
            coding.encode(None, &elements, &mut wire);
            memory.write(Side::Wire, coding.wire, &wire);
        } else {
            self.trespasses(coding.op, "encodes");
        }
        self.exchange.encoded(coding);
    }

    fn decode(&mut self, coding: Coding) {
        if let Some(memory) = self.memory.get_mut(&coding.op) {
            let wire = memory.read(Side::Wire, coding.wire);
            let mut elements = vec![0; coding.elements.bytes];
            coding.decode(&wire, &mut elements);
            memory.write(coding.side, coding.elements, &elements);
        } else {
            self.trespasses(coding.op, "decodes");
        }
        self.exchange.decoded(coding);
    }

    fn copy(&mut self, copy: CopyOwn) {
        if let Some(memory) = self.memory.get_mut(&copy.op) {
            let layout = copy.body.layout.clone();
            for segment in copy.body.segments.clone() {
                let bytes = memory.read(Side::Input, layout.span(Side::Input, segment));
                memory.write(Side::Result, layout.span(Side::Result, segment), &bytes);
            }
        } else {
            self.trespasses(copy.op, "copies");
        }
        self.exchange.copied(copy);
    }

    fn payload(&mut self, op: OpName, head: &Bytes, body: Option<&Body>) -> Bytes {
        let mut payload = head.to_vec();
        match (body, self.memory.get_mut(&op)) {
            (Some(body), Some(memory)) => {
                for span in body.spans() {
                    payload.extend_from_slice(&memory.read(body.side, span));
                }
            }
            (Some(_), None) => self.trespasses(op, "sends"),
            (None, _) => {}
        }
        Bytes::from(payload)
    }
}

impl World {
    /// Carries out the next output of a peer's exchange. False if there is none.
    pub fn plane_step(&mut self, host: HostId) -> bool {
        let plane = &mut self.hosts[host.0].plane;
        let Some(output) = plane.exchange.poll_output() else {
            return false;
        };
        match output {
            Output::Signal {
                to,
                header,
                head,
                body,
            } => {
                let payload = plane.payload(header.op, &head, body.as_ref());
                self.send_frame(host, to, Content::Signal { header, payload });
            }
            Output::Bulk {
                to,
                header,
                side,
                span,
            } => {
                let content = Content::Bulk {
                    header,
                    side,
                    span,
                    bytes: None,
                };
                self.send_frame(host, to, content);
            }
            Output::Reduce(reduction) => plane.reduce(reduction),
            Output::Store(storage) => plane.store(storage),
            Output::Encode(coding) => plane.encode(coding),
            Output::Decode(coding) => plane.decode(coding),
            Output::Copy(copy) => plane.copy(copy),
            Output::Abandon { from, op } => plane.exchange.abandoned(from, op),
            Output::Held(op) => {
                self.hosts[host.0].told.holds(op);
                self.host_input_quietly(host, Input::Held(op));
            }
            Output::Mismatch { op, peer, theirs } => {
                self.host_input_quietly(host, Input::Mismatch { op, peer, theirs });
            }
        }
        if let Some(what) = self.hosts[host.0].plane.trespass.take() {
            self.fail(format!("{host:?}: {what}"));
        }
        true
    }

    /// The layout of an operation's buffers at one member.
    #[must_use]
    pub fn shape(&self, host: HostId, call: CallId, start: &Start) -> (Vec<Part>, Memory) {
        let call = self.hosts[host.0].app.memory_of(call);
        let world = start.birth.members.len();
        let (input_shares, result_shares) = match start.fingerprint.kind() {
            Kind::AllGather => (1, world),
            Kind::ReduceScatter => (world, 1),
            _ => (1, 1),
        };
        let mut memory = Memory {
            input: Vec::new(),
            result: Some(Vec::new()),
            wire: Vec::new(),
        };
        for (index, part) in call.parts.iter().enumerate() {
            let count = part.count as usize;
            let seed = super::rng::mix_all(&[call.input_seed, index as u64]);
            let (count, exact) = (count * input_shares, call.exact);
            memory
                .input
                .push(reference::input(seed, part.dtype, count, exact));
            let bytes = part.count as usize * part.dtype.bytes() * result_shares;
            if let Some(result) = &mut memory.result {
                result.push(vec![0xee; bytes]);
            }
        }
        memory.wire.clone_from(&memory.input);
        (call.parts.clone(), memory)
    }
}
