//! Links in memory, under virtual time: one seed gives one history.
//!
//! A lane carries one frame at a time, for a time that the seed chooses, so bulk frames of a call
//! can overtake each other and a half-written frame can still fail. [`Faults`] break lanes and
//! damage bytes; the frame is then sent again, as after the repair of a connection. The caller
//! drives it with [`MemNetwork::step`].

mod faults;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use faults::Faults;

use super::{
    FrameHeader, Handler, Identity, LinkCounters, LinkName, LinkSender, Links, Payload, Placement,
    Rates,
};
use crate::buffer::Region;
use crate::ids::{OpName, PeerId};
use crate::lock::Mutex;
use crate::peer::Neighbour;
use crate::time::Instant;
use crate::wire::control::LinkFault;

/// The network between the peers. Clones refer to the same network.
#[derive(Clone)]
pub(crate) struct MemNetwork(Arc<Mutex<World>>);

/// The links of one peer.
#[derive(Clone)]
pub(crate) struct MemLinks {
    network: MemNetwork,
    address: SocketAddr,
}

struct World {
    now: Instant,
    seed: u64,
    faults: Faults,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    ends: BTreeMap<SocketAddr, End>,
    lives: u64,
}

/// One peer's port and links.
struct End {
    lanes: u16,
    role: Option<(Identity, Handler)>,
    links: BTreeMap<PeerId, Link>,
}

/// One side of a link.
struct Link {
    /// Its incarnation, never used again.
    life: u64,
    neighbour: Neighbour,
    /// The other side's incarnation with which it is up.
    other: Option<u64>,
    is_failed: bool,
    /// The signal lane first.
    lanes: Vec<Lane>,
    signals: VecDeque<Frame>,
    bulk: VecDeque<Frame>,
    received_bytes: u64,
    repairs: u64,
}

#[derive(Default)]
struct Lane {
    on_its_way: Option<Frame>,
    /// Where the payload goes, once its header has arrived.
    placement: Option<Placement>,
    /// Frames begun so far: events of an earlier one are void.
    begun: u64,
    sent_bytes: u64,
}

#[derive(Clone)]
struct Frame {
    header: FrameHeader,
    payload: Payload,
}

/// A lane of one side's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    from: SocketAddr,
    to: PeerId,
    life: u64,
    lane: usize,
    begun: u64,
}

/// A future event.
enum Event {
    /// Two ends check whether both want the link.
    Meet(SocketAddr, PeerId),
    /// The header of a frame arrives.
    Begin(At),
    /// The rest of it arrives.
    Finish(At),
    /// The lane is repaired, and its frame is sent again from the start.
    Repaired(At),
    /// The handler gets an event.
    Tell(SocketAddr, LinkName, Report),
}

/// Link events for handlers.
#[derive(Clone, Copy)]
enum Report {
    Up,
    Down(LinkFault, bool),
    Repaired(u16),
}

impl MemNetwork {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(World {
            now: Instant::default(),
            seed,
            faults,
            events: BTreeMap::new(),
            next_event: 0,
            ends: BTreeMap::new(),
            lives: 0,
        })))
    }

    /// The links of one more peer, with this many bulk lanes each.
    pub(crate) fn links(&self, lanes: u16) -> MemLinks {
        let mut world = self.0.lock();
        let host = u8::try_from(world.ends.len() + 1).expect("a few peers");
        let address = SocketAddr::from(([10, 0, 0, host], 1));
        let end = End {
            lanes,
            role: None,
            links: BTreeMap::new(),
        };
        world.ends.insert(address, end);
        drop(world);
        MemLinks {
            network: self.clone(),
            address,
        }
    }

    /// Handles the next event; false if there is none.
    pub(crate) fn step(&self) -> bool {
        let mut world = self.0.lock();
        let Some(((at, _), event)) = world.events.pop_first() else {
            return false;
        };
        world.now = at;
        match event {
            Event::Meet(address, peer) => world.meet(address, peer),
            Event::Repaired(at) => world.repaired(at),
            Event::Begin(at) => {
                drop(world);
                self.begin(at);
            }
            Event::Finish(at) => {
                drop(world);
                self.finish(at);
            }
            Event::Tell(address, link, report) => {
                let handler = world.handler(address);
                drop(world);
                match (handler, report) {
                    (Some(handler), Report::Up) => handler.link_up(link),
                    (Some(handler), Report::Down(fault, gave_up)) => {
                        handler.link_down(link, fault, gave_up);
                    }
                    (Some(handler), Report::Repaired(lane)) => {
                        handler.lane_repaired(link.peer, lane)
                    }
                    (None, _) => {}
                }
            }
        }
        true
    }

    fn begin(&self, at: At) {
        let mut world = self.0.lock();
        let Some((frame, from, handler)) = world.delivery(at) else {
            return;
        };
        let one_in = world.faults.breaks;
        if world.is_due(one_in) {
            return world.break_lane(at);
        }
        let is_bulk = at.lane > 0;
        drop(world);
        // Under no lock: the handler may send.
        let placement = is_bulk.then(|| handler.place(from, &frame.header));
        let mut world = self.0.lock();
        if let Some(Placement::Refuse(_)) = placement {
            return world.violated(at, from);
        }
        if let Some(Placement::Memory(region)) = &placement {
            // If it fails now, half of it has arrived.
            let half = region.bytes() / 2;
            copy(&frame.payload, region, half);
        }
        if let Some(lane) = world.lane(at) {
            lane.placement = placement;
            world.plan(Event::Finish(at));
        }
    }

    fn finish(&self, at: At) {
        let mut world = self.0.lock();
        let Some((frame, from, handler)) = world.delivery(at) else {
            return;
        };
        let one_in = world.faults.damage;
        let is_damaged = frame.payload.bytes() > 0 && world.is_due(one_in);
        let placement = world.lane(at).and_then(|lane| lane.placement.take());
        if is_damaged {
            if let Some(Placement::Memory(region)) = &placement {
                region.write(|bytes| bytes[0] ^= 0x55);
            }
            return world.break_lane(at);
        }
        world.sent(at, &frame, from);
        drop(world);
        let said = match (placement, &frame.payload) {
            (None, Payload::Small(bytes)) => handler.signal(from, &frame.header, bytes.clone()),
            (Some(Placement::Memory(region)), payload) => {
                if copy(payload, &region, region.bytes()) {
                    handler.arrived(from, &frame.header);
                }
                Ok(())
            }
            _ => Ok(()),
        };
        let mut world = self.0.lock();
        match said {
            Ok(()) => world.next_frame(at),
            Err(_) => world.violated(at, from),
        }
    }
}

/// Copies the first bytes of a payload; false if either side has taken its memory back.
fn copy(payload: &Payload, to: &Region, count: usize) -> bool {
    let bytes = match payload {
        Payload::Small(bytes) => Some(bytes[..count].to_vec()),
        Payload::Lent(region) => region.read(|bytes| bytes[..count].to_vec()),
    };
    let Some(bytes) = bytes else { return false };
    to.write(|to| to[..count].copy_from_slice(&bytes)).is_some()
}

impl World {
    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn is_due(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random().is_multiple_of(one_in)
    }

    fn plan(&mut self, event: Event) {
        let delay = Duration::from_micros(1 + self.random() % 1000);
        let at = self.now + delay;
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    /// Queues an event for a handler, after all earlier ones.
    fn tell(&mut self, address: SocketAddr, link: LinkName, report: Report) {
        let event = Event::Tell(address, link, report);
        self.events.insert((self.now, self.next_event), event);
        self.next_event += 1;
    }

    fn handler(&self, address: SocketAddr) -> Option<Handler> {
        let (_, handler) = self.ends.get(&address)?.role.as_ref()?;
        Some(Arc::clone(handler))
    }

    fn link(&mut self, address: SocketAddr, peer: PeerId) -> Option<&mut Link> {
        self.ends.get_mut(&address)?.links.get_mut(&peer)
    }

    fn lane(&mut self, at: At) -> Option<&mut Lane> {
        let link = self.link(at.from, at.to)?;
        let is_this = link.life == at.life && !link.is_failed && link.other.is_some();
        let lane = link.lanes.get_mut(at.lane).filter(|_| is_this)?;
        (lane.begun == at.begun).then_some(lane)
    }

    /// The frame on its way, its sender and its handler, if link and lane are still the same.
    fn delivery(&mut self, at: At) -> Option<(Frame, PeerId, Handler)> {
        let frame = self.lane(at)?.on_its_way.clone()?;
        let from = self.ends[&at.from].role.as_ref()?.0.peer;
        let (address, _) = self.other_end(at.from, at.to)?;
        Some((frame, from, self.handler(address)?))
    }

    /// The other side of a link that is up, and the link's name there.
    fn other_end(&mut self, address: SocketAddr, peer: PeerId) -> Option<(SocketAddr, LinkName)> {
        let me = self.ends[&address].role.as_ref()?.0.peer;
        let link = self.link(address, peer)?;
        let (life, other) = (link.other?, link.neighbour.addresses[0]);
        let there = self.link(other, me).filter(|there| there.life == life)?;
        let incarnation = there.life;
        let name = LinkName {
            peer: me,
            incarnation,
        };
        Some((other, name))
    }

    fn meet(&mut self, address: SocketAddr, peer: PeerId) {
        let Some((identity, _)) = &self.ends[&address].role else {
            return;
        };
        let (me, key) = (identity.peer, identity.key);
        let Some(link) = self.link(address, peer).filter(|it| it.other.is_none()) else {
            return;
        };
        let (life, other_key, other) = (link.life, link.neighbour.key, link.neighbour.addresses[0]);
        let is_here = |end: &End| {
            let role = end.role.as_ref();
            role.is_some_and(|(there, _)| there.peer == peer && there.key == other_key)
        };
        if !self.ends.get(&other).is_some_and(is_here) {
            return;
        }
        let Some(there) = self.link(other, me).filter(|it| it.neighbour.key == key) else {
            return;
        };
        if there.other.is_some() || there.is_failed {
            return;
        }
        there.other = Some(life);
        let other_life = there.life;
        let link = self.link(address, peer).expect("it was there");
        link.other = Some(other_life);
        for (at, peer, incarnation) in [(address, peer, life), (other, me, other_life)] {
            self.tell(at, LinkName { peer, incarnation }, Report::Up);
            self.fill(at, peer);
        }
    }

    /// Lets idle lanes take queued frames.
    fn fill(&mut self, address: SocketAddr, peer: PeerId) {
        let Some(link) = self.link(address, peer) else {
            return;
        };
        if link.other.is_none() || link.is_failed {
            return;
        }
        let mut begun = Vec::new();
        for (index, lane) in link.lanes.iter_mut().enumerate() {
            let queue = if index == 0 {
                &mut link.signals
            } else {
                &mut link.bulk
            };
            if lane.on_its_way.is_some() {
                continue;
            }
            let Some(frame) = queue.pop_front() else {
                continue;
            };
            lane.on_its_way = Some(frame);
            lane.begun += 1;
            begun.push(At {
                from: address,
                to: peer,
                life: link.life,
                lane: index,
                begun: lane.begun,
            });
        }
        begun.into_iter().for_each(|at| self.plan(Event::Begin(at)));
    }

    fn sent(&mut self, at: At, frame: &Frame, from: PeerId) {
        let bytes = frame.payload.bytes() as u64 + 64;
        if let Some(lane) = self.lane(at) {
            lane.sent_bytes += bytes;
        }
        if let Some((other, _)) = self.other_end(at.from, at.to)
            && let Some(there) = self.link(other, from)
        {
            there.received_bytes += bytes;
        }
    }

    fn next_frame(&mut self, at: At) {
        if let Some(lane) = self.lane(at) {
            lane.on_its_way = None;
            self.fill(at.from, at.to);
        }
    }

    /// The frame in flight is lost with the connection, and is sent again after the repair.
    fn break_lane(&mut self, mut at: At) {
        if let Some(lane) = self.lane(at) {
            lane.begun += 1;
            lane.placement = None;
            at.begun = lane.begun;
            self.plan(Event::Repaired(at));
        }
    }

    fn repaired(&mut self, at: At) {
        let Some((other, there)) = self.other_end(at.from, at.to) else {
            return;
        };
        let Some(lane) = self.lane(at) else {
            return;
        };
        let has_frame = lane.on_its_way.is_some();
        let here = LinkName {
            peer: at.to,
            incarnation: at.life,
        };
        for (address, name) in [(at.from, here), (other, there)] {
            if let Some(link) = self.link(address, name.peer) {
                link.repairs += 1;
            }
            let lane = u16::try_from(at.lane).expect("a few lanes");
            self.tell(address, name, Report::Repaired(lane));
        }
        match has_frame {
            true => self.plan(Event::Begin(at)),
            false => self.fill(at.from, at.to),
        }
    }

    /// A frame that the other side had no right to send ends the link.
    fn violated(&mut self, at: At, from: PeerId) {
        let Some((other, there)) = self.other_end(at.from, at.to) else {
            return;
        };
        self.tell(other, there, Report::Down(LinkFault::Protocol, true));
        self.end_other(other, from);
        if let Some(link) = self.link(other, from) {
            link.is_failed = true;
        }
    }

    /// One side of a link ends, and the other side notices.
    fn end_other(&mut self, address: SocketAddr, peer: PeerId) {
        let Some((other, there)) = self.other_end(address, peer) else {
            return;
        };
        self.tell(other, there, Report::Down(LinkFault::Ended, false));
        self.lives += 1;
        let life = self.lives;
        let Some(link) = self.link(other, there.peer) else {
            return;
        };
        let lost = link.lanes.iter().any(|lane| lane.on_its_way.is_some());
        link.other = None;
        link.life = life;
        link.lanes
            .iter_mut()
            .for_each(|lane| lane.on_its_way = None);
        let name = LinkName {
            peer: there.peer,
            incarnation: life,
        };
        if lost || !link.signals.is_empty() || !link.bulk.is_empty() {
            link.signals.clear();
            link.bulk.clear();
            self.tell(other, name, Report::Down(LinkFault::Ended, true));
        }
        self.plan(Event::Meet(other, there.peer));
    }
}
