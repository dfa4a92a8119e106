//! Links over real loopback sockets: what arrives, what is repaired, what is reported.
//!
//! A [`Node`] is one peer's links with a handler that records everything; a [`raw::Raw`] is the
//! other end of a link played by hand, byte by byte.

mod faults;
mod offers;
mod port;
mod raw;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::lock::Mutex;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Identity, TcpConfig, TcpLinks};
use crate::buffer::{Gate, Lent, Region};
use crate::ids::{LinkKey, OpName, OpNumber, PeerId, RunId};
use crate::peer::Neighbour;
use crate::transport::{
    FrameHeader, FrameKind, LinkHandler, LinkName, LinkSender, Links, Payload, Placement,
};
use crate::wire::control::LinkFault;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const RUN: RunId = RunId(77);

/// What a handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
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

struct Recorder {
    seen: mpsc::UnboundedSender<(PeerId, Seen)>,
    place: Mutex<Place>,
}

impl LinkHandler for Recorder {
    fn signal(
        &self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        let _closed = self.seen.send((from, Seen::Signal(*header, payload)));
        Ok(())
    }
    fn place(&self, from: PeerId, header: &FrameHeader) -> Placement {
        let _closed = self.seen.send((from, Seen::Placed(header.segment)));
        (self.place.lock())(header)
    }
    fn arrived(&self, from: PeerId, header: &FrameHeader) {
        let _closed = self.seen.send((from, Seen::Arrived(header.segment)));
    }
    fn link_up(&self, link: LinkName) {
        let _closed = self.seen.send((link.peer, Seen::Up));
    }
    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool) {
        let _closed = self.seen.send((link.peer, Seen::Down(fault, gave_up)));
    }
    fn no_link(&self, link: LinkName, why: String) {
        let _closed = self.seen.send((link.peer, Seen::NoLink(why)));
    }
    fn lane_repaired(&self, peer: PeerId, lane: u16) {
        let _closed = self.seen.send((peer, Seen::Repaired(lane)));
    }
}

/// One peer.
struct Node {
    id: PeerId,
    links: TcpLinks,
    recorder: Arc<Recorder>,
    seen: mpsc::UnboundedReceiver<(PeerId, Seen)>,
}

fn key_of(peer: PeerId) -> LinkKey {
    LinkKey(u128::from(peer.0) + 1000)
}

fn config(lanes: u16) -> TcpConfig {
    TcpConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lanes: Some(lanes),
        checksum: true,
        congestion_control: None,
        pacing_bytes_per_second: None,
    }
}

impl Node {
    fn new(id: u64, lanes: u16, link_timeout: Duration) -> Self {
        let node = Self::unidentified(id, config(lanes));
        node.identify(link_timeout);
        node
    }

    fn unidentified(id: u64, config: TcpConfig) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            seen: sender,
            place: Mutex::new(Box::new(|_| Placement::Discard)),
        });
        Self {
            id: PeerId(id),
            links: TcpLinks::bind(config, &Handle::current()).unwrap(),
            recorder,
            seen,
        }
    }

    fn identify(&self, link_timeout: Duration) {
        let identity = Identity {
            run: RUN,
            peer: self.id,
            key: key_of(self.id),
            link_timeout,
        };
        self.links.identify(identity, self.recorder.clone());
    }

    fn place(&self, place: impl Fn(&FrameHeader) -> Placement + Send + Sync + 'static) {
        *self.recorder.place.lock() = Box::new(place);
    }

    fn as_neighbour(&self, dial: bool) -> Neighbour {
        Neighbour {
            addresses: vec![self.links.address()],
            key: key_of(self.id),
            dial,
        }
    }

    fn want(&self, peers: &[(PeerId, Neighbour)]) {
        let wanted: BTreeMap<PeerId, Neighbour> = peers.iter().cloned().collect();
        self.links.set_wanted(&wanted);
    }

    /// The next thing seen that `pick` takes; the others are dropped.
    async fn next<R>(&mut self, mut pick: impl FnMut(&Seen) -> Option<R>) -> R {
        let wait = async {
            loop {
                let (_, seen) = self.seen.recv().await.expect("the recorder lives");
                if let Some(picked) = pick(&seen) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("peer {} waits in vain", self.id))
    }

    async fn next_is(&mut self, wanted: Seen) {
        self.next(|seen| (*seen == wanted).then_some(())).await;
    }

    /// Everything seen that was not yet asked for.
    fn drain(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok())
            .map(|(_, seen)| seen)
            .collect()
    }
}

/// Two peers with a link between them; the second dials.
async fn pair(lanes: u16, link_timeout: Duration) -> (Node, Node) {
    let mut first = Node::new(1, lanes, link_timeout);
    let mut second = Node::new(2, lanes, link_timeout);
    first.want(&[(second.id, second.as_neighbour(false))]);
    second.want(&[(first.id, first.as_neighbour(true))]);
    first.next_is(Seen::Up).await;
    second.next_is(Seen::Up).await;
    (first, second)
}

fn op(n: u64) -> OpName {
    OpName {
        n: OpNumber(n),
        ..OpName::default()
    }
}

fn bulk_header(segment: u32, payload_bytes: usize) -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Contribution,
        op: op(1),
        segment,
        extra: 0,
        payload_bytes: u32::try_from(payload_bytes).unwrap(),
    }
}

fn signal_header(segment: u32, payload: &Bytes) -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Post,
        ..bulk_header(segment, payload.len())
    }
}

/// Bytes that no other segment has in this order.
fn pattern(segment: u32, bytes: usize) -> Vec<u8> {
    let mut state = segment.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

/// Memory for `count` segments of equal length.
struct Segments {
    gate: Arc<Gate>,
    region: Region,
    bytes: usize,
}

impl Segments {
    fn new(count: usize, bytes: usize) -> Self {
        let gate = Gate::new();
        let region = Lent::leaked(vec![0; count * bytes]).open(&gate);
        Self {
            gate,
            region,
            bytes,
        }
    }

    fn patterned(count: usize, bytes: usize) -> Self {
        let mut all = Vec::with_capacity(count * bytes);
        for segment in 0..count {
            all.extend(pattern(u32::try_from(segment).unwrap(), bytes));
        }
        let gate = Gate::new();
        let region = Lent::leaked(all).open(&gate);
        Self {
            gate,
            region,
            bytes,
        }
    }

    fn get(&self, segment: u32) -> Region {
        let start = segment as usize * self.bytes;
        self.region.slice(start..start + self.bytes)
    }

    fn place_into(&self, node: &Node) {
        let (region, bytes) = (self.region.clone(), self.bytes);
        node.place(move |header| {
            let start = header.segment as usize * bytes;
            Placement::Memory(region.slice(start..start + header.payload_bytes as usize))
        });
    }

    fn send(&self, node: &Node, to: PeerId, segment: u32) {
        let header = bulk_header(segment, self.bytes);
        let payload = Payload::Lent(self.get(segment));
        node.links.bulk(to, header, payload);
    }

    fn assert_patterned(&self, segment: u32) {
        let expected = pattern(segment, self.bytes);
        let is_equal = self.get(segment).read(|bytes| bytes == expected);
        assert_eq!(is_equal, Some(true), "segment {segment}");
    }
}

/// Waits until each of `count` segments has arrived, once.
async fn all_arrive(node: &mut Node, count: u32) {
    let mut missing: BTreeSet<u32> = (0..count).collect();
    while !missing.is_empty() {
        let segment = node
            .next(|seen| match seen {
                Seen::Arrived(segment) => Some(*segment),
                Seen::Down(fault, gave_up) => panic!("link down: {fault:?} {gave_up}"),
                _ => None,
            })
            .await;
        assert!(missing.remove(&segment), "segment {segment} came twice");
    }
}
