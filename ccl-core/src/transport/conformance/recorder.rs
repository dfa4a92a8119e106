//! A handler that records everything, and test bytes that identify their segment.

use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::{Gate, Lent, Region};
use crate::ids::{LinkKey, OpName, OpNumber, PeerId};
use crate::lock::Mutex;
use crate::transport::{Frame, FrameHeader, LinkHandler, LinkName, LinkSender, Payload, Placement};
use crate::wire::control::LinkFault;

/// What a handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Seen {
    Signal(FrameHeader, Bytes),
    Placed(u32),
    Arrived(u32),
    Up,
    Down(LinkFault, bool),
    Repaired(u16),
    NoLink(String),
}

/// Where arriving segments go.
type Place = Box<dyn Fn(&FrameHeader) -> Placement + Send + Sync>;

/// The handler of one peer.
pub(in crate::transport) struct Recorder {
    tell: Box<dyn Fn(Seen) + Send + Sync>,
    place: Mutex<Place>,
}

impl Recorder {
    /// Reports its events, and discards segments until `place_by`.
    pub(in crate::transport) fn new(tell: impl Fn(Seen) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            tell: Box::new(tell),
            place: Mutex::new(Box::new(|_| Placement::Discard)),
        })
    }

    pub(in crate::transport) fn place_by(
        &self,
        place: impl Fn(&FrameHeader) -> Placement + Send + Sync + 'static,
    ) {
        *self.place.lock() = Box::new(place);
    }
}

impl LinkHandler for Recorder {
    fn signal(
        &self,
        _from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        (self.tell)(Seen::Signal(*header, payload));
        Ok(())
    }
    fn place(&self, _from: PeerId, header: &FrameHeader) -> Placement {
        (self.tell)(Seen::Placed(header.frame.first()));
        (self.place.lock())(header)
    }
    fn arrived(&self, _from: PeerId, header: &FrameHeader) {
        (self.tell)(Seen::Arrived(header.frame.first()));
    }
    fn link_up(&self, _link: LinkName) {
        (self.tell)(Seen::Up);
    }
    fn link_down(&self, _link: LinkName, fault: LinkFault, gave_up: bool) {
        (self.tell)(Seen::Down(fault, gave_up));
    }
    fn no_link(&self, _link: LinkName, why: String) {
        (self.tell)(Seen::NoLink(why));
    }
    fn lane_repaired(&self, _peer: PeerId, lane: u16) {
        (self.tell)(Seen::Repaired(lane));
    }
}

pub(in crate::transport) fn key_of(peer: PeerId) -> LinkKey {
    LinkKey(u128::from(peer.0) + 1000)
}

pub(in crate::transport) fn op(n: u64) -> OpName {
    OpName {
        n: OpNumber(n),
        ..OpName::default()
    }
}

pub(in crate::transport) fn bulk_header(segment: u32, payload_bytes: usize) -> FrameHeader {
    FrameHeader {
        op: op(1),
        frame: Frame::Contribution { segment, hop: 0 },
        payload_bytes: u32::try_from(payload_bytes).unwrap(),
    }
}

pub(in crate::transport) fn signal_header(segment: u32, payload: &Bytes) -> FrameHeader {
    FrameHeader {
        frame: Frame::EagerResult {
            first: segment,
            count: 1,
        },
        ..bulk_header(segment, payload.len())
    }
}

/// Bytes that are unique to one segment.
pub(in crate::transport) fn pattern(segment: u32, bytes: usize) -> Vec<u8> {
    let mut state = segment.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

/// Memory for segments of equal length.
pub(in crate::transport) struct Segments {
    pub(in crate::transport) gate: Arc<Gate>,
    region: Region,
    bytes: usize,
}

impl Segments {
    pub(in crate::transport) fn new(count: usize, bytes: usize) -> Self {
        Self::of(vec![0; count * bytes], bytes)
    }

    pub(in crate::transport) fn patterned(count: u32, bytes: usize) -> Self {
        let all = (0..count).flat_map(|segment| pattern(segment, bytes));
        Self::of(all.collect(), bytes)
    }

    fn of(all: Vec<u8>, bytes: usize) -> Self {
        let gate = Gate::new();
        Self {
            region: Lent::leaked(all).open(&gate),
            gate,
            bytes,
        }
    }

    pub(in crate::transport) fn get(&self, segment: u32) -> Region {
        let start = segment as usize * self.bytes;
        self.region.slice(start..start + self.bytes)
    }

    /// Arriving segments go here.
    pub(in crate::transport) fn place_into(&self, recorder: &Recorder) {
        let (region, bytes) = (self.region.clone(), self.bytes);
        recorder.place_by(move |header| {
            let start = header.frame.first() as usize * bytes;
            Placement::Memory(region.slice(start..start + header.payload_bytes as usize))
        });
    }

    pub(in crate::transport) fn send(&self, links: &impl LinkSender, to: PeerId, segment: u32) {
        let header = bulk_header(segment, self.bytes);
        links.bulk(to, header, Payload::Lent(self.get(segment)));
    }

    pub(in crate::transport) fn assert_patterned(&self, segment: u32) {
        let expected = pattern(segment, self.bytes);
        let is_equal = self.get(segment).read(|bytes| bytes == expected);
        assert_eq!(is_equal, Some(true), "segment {segment}");
    }
}
