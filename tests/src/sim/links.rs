//! Links between peers, as the transport makes and reports them.
//!
//! A link has one lane for small frames and several for bulk. Lanes keep their order; an idle bulk
//! lane takes the next frame. A reset loses nothing: what is under way is sent again, from memory
//! as it is then. Only when one side no longer wants the link is something lost.

mod breaks;
mod lanes;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ccl_core::ids::PeerId;
use ccl_core::limits::HELLO_TIMEOUT;
use ccl_core::peer::{Input, Neighbour};
use ccl_core::time::Instant;
use ccl_core::wire::control::LinkFault;

use super::cluster::{Event, HostEvent, HostId, World};
use super::peer_host::Process;
use super::plane::{Arrival, Content};

/// Frames that a host remembers, to be replayed as frames of an earlier life.
const RECENT_MAX: usize = 8;

/// How many of 1,000 failed attempts to make a link are reported.
const NO_LINK_PERMILLE: u64 = 50;

/// Frames under way on one bulk lane.
const LANE_FRAMES_MAX: usize = 8;

/// Two hosts, the lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey(pub HostId, pub HostId);

impl LinkKey {
    /// The link between two hosts.
    #[must_use]
    pub fn new(one: HostId, other: HostId) -> Self {
        Self(one.min(other), one.max(other))
    }

    /// From which host to which.
    #[must_use]
    pub fn ends(self, direction: Direction) -> (HostId, HostId) {
        match direction {
            Direction::Up => (self.0, self.1),
            Direction::Down => (self.1, self.0),
        }
    }

    /// The direction away from a host.
    #[must_use]
    pub fn from(self, host: HostId) -> Direction {
        if self.0 == host {
            Direction::Up
        } else {
            Direction::Down
        }
    }
}

/// The direction of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the lower host to the higher.
    Up,
    /// From the higher to the lower.
    Down,
}

/// One frame on its way.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its sender.
    pub from: PeerId,
    /// Its contents.
    pub content: Content,
    /// The link's session, so that frames of an earlier one are dropped.
    pub session: u64,
    /// Its lane.
    pub route: (LinkKey, Direction, usize),
}

/// A lane: its frames, oldest first.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(Instant, Frame)>,
    /// Whether an event for its first frame is on its way.
    armed: bool,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Way {
    lanes: Vec<Lane>,
    /// Bulk frames that no lane has taken.
    bulk: VecDeque<Frame>,
    /// Whether a partition stops it.
    blocked: bool,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    /// Whether all lanes are up.
    pub up: bool,
    /// +1 each time that it comes up.
    generation: u64,
    /// +1 each time that one end no longer wants it, so that frames under way are lost.
    session: u64,
    /// Number of times it went down; names the wait for its repair.
    downs: u64,
    dialling: bool,
    /// Its lanes are being repaired until then.
    paused: Instant,
    ways: [Way; 2],
    /// How many times slower than others it is.
    pub slowness: u32,
}

impl Link {
    fn new(lanes: u16) -> Self {
        let way = || Way {
            lanes: (0..=lanes).map(|_| Lane::default()).collect(),
            ..Way::default()
        };
        Self {
            up: false,
            generation: 0,
            session: 0,
            downs: 0,
            dialling: false,
            paused: Instant::default(),
            ways: [way(), way()],
            slowness: 1,
        }
    }

    /// Drops the frames under way. Returns whether any of them went in this direction.
    fn clear(&mut self, direction: Direction) -> bool {
        self.session += 1;
        let way = &self.ways[direction as usize];
        let lost = !way.bulk.is_empty() || way.lanes.iter().any(|lane| !lane.frames.is_empty());
        for way in &mut self.ways {
            way.bulk.clear();
            for lane in &mut way.lanes {
                lane.frames.clear();
            }
        }
        lost
    }
}

impl World {
    /// A peer names the links it wants.
    pub fn host_links(&mut self, host: HostId, wanted: BTreeMap<PeerId, Neighbour>) {
        let before = std::mem::replace(&mut self.hosts[host.0].neighbours, wanted);
        let now = self.now;
        let kept: Vec<PeerId> = self.hosts[host.0].neighbours.keys().copied().collect();
        self.trace
            .line(now, format_args!("{host:?} wants links to {kept:?}"));
        for (peer, neighbour) in before {
            if !self.hosts[host.0].neighbours.contains_key(&peer) {
                self.hosts[host.0].plane.forget_peer(peer);
                self.unlink(host, peer, &neighbour);
            }
        }
        self.redial_links(host);
    }

    /// Tries again to make every link that a host wants and lacks.
    pub fn redial_links(&mut self, host: HostId) {
        let wanted: Vec<(PeerId, Neighbour)> = self.hosts[host.0]
            .neighbours
            .iter()
            .map(|(peer, neighbour)| (*peer, neighbour.clone()))
            .collect();
        for (peer, neighbour) in wanted {
            if let Some(other) = self.resolve(&neighbour) {
                self.want_link(LinkKey::new(host, other));
            } else {
                self.report_unreachable(host, peer);
            }
        }
    }

    /// The host that listens at a neighbour's address.
    fn resolve(&self, neighbour: &Neighbour) -> Option<HostId> {
        let address = neighbour.addresses.first()?;
        self.ports.get(address).copied()
    }

    /// No host listens at the neighbour's address: in the end repair is given up.
    fn report_unreachable(&mut self, host: HostId, peer: PeerId) {
        let after = self.swarm.timers.link_timeout;
        let event = Event::LinkDown {
            host,
            peer,
            fault: LinkFault::Refused,
            gave_up: true,
        };
        self.notice(host, peer, after, event);
    }

    /// The host that is exactly this session and still listens there.
    fn resolve_exactly(&self, peer: PeerId, neighbour: &Neighbour) -> Option<HostId> {
        let other = self.resolve(neighbour)?;
        (self.hosts[other.0].peer.peer() == Some(peer)).then_some(other)
    }

    fn want_link(&mut self, key: LinkKey) {
        let lanes = self.swarm.lanes;
        let timeout = self.swarm.timers.link_timeout;
        let link = self.links.entry(key).or_insert_with(|| Link::new(lanes));
        if link.up || link.dialling {
            return;
        }
        link.dialling = true;
        let down = link.downs;
        // A link that never worked may take as long as an unidentified connection may.
        let timeout = if link.generation == 0 {
            timeout + HELLO_TIMEOUT
        } else {
            timeout
        };
        let delay = self.link_delay(key);
        self.schedule(delay, Event::LinkDial { link: key });
        self.schedule(timeout, Event::LinkExpire { link: key, down });
    }

    /// Whether one end wants a link to exactly the other end's session.
    fn wants(&self, host: HostId, other: HostId) -> bool {
        let Some(peer) = self.hosts[other.0].peer.peer() else {
            return false;
        };
        self.hosts[host.0]
            .neighbours
            .get(&peer)
            .is_some_and(|n| n.key == self.hosts[other.0].key && self.resolve(n) == Some(other))
    }

    /// Whether one end wants a link to the other's address.
    fn wants_anybody(&self, host: HostId, other: HostId) -> bool {
        self.hosts[host.0]
            .neighbours
            .values()
            .any(|n| self.resolve(n) == Some(other))
    }

    /// An attempt to make a link.
    pub fn link_dial(&mut self, key: LinkKey) {
        let LinkKey(a, b) = key;
        let reachable =
            |host: HostId| self.hosts[host.0].is_running() && !self.hosts[host.0].isolated;
        let both_run = reachable(a) && reachable(b);
        let wanted = self.wants(a, b) && self.wants(b, a);
        let one_wants = self.wants_anybody(a, b) || self.wants_anybody(b, a);
        let is_way = self.is_way(key);
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let open = is_way && !link.ways.iter().any(|way| way.blocked);
        if link.up || !one_wants {
            link.dialling = false;
            return;
        }
        if !(both_run && wanted && open) {
            if self.network_rng.chance(NO_LINK_PERMILLE) {
                self.report_no_link(key);
            }
            let delay = self.network_rng.millis(20, 300);
            self.schedule(delay, Event::LinkDial { link: key });
            return;
        }
        link.up = true;
        link.dialling = false;
        link.generation += 1;
        let generation = link.generation;
        let now = self.now;
        self.trace.line(now, format_args!("link {key:?} is up"));
        self.trace.fold(now, &[20, a.0 as u64, b.0 as u64]);
        let dials = self.dialler_count(key);
        if dials != 1 {
            self.fail(format!("{dials} ends of {key:?} dial, not one"));
        }
        for (host, other) in [(a, b), (b, a)] {
            let Some(peer) = self.hosts[other.0].peer.peer() else {
                continue;
            };
            let delay = self.link_delay(key);
            let event = Event::LinkUp {
                host,
                peer,
                generation,
            };
            self.notice(host, peer, delay, event);
        }
        self.kick_link(key);
    }

    /// One end learns why there is no link yet; the text differs from time to time.
    fn report_no_link(&mut self, LinkKey(a, b): LinkKey) {
        let ends = if self.network_rng.chance(500) {
            (a, b)
        } else {
            (b, a)
        };
        let words = ["refused", "no answer"][self.network_rng.index(2)];
        let why = format!("{}: {words}", self.hosts[ends.1.0].address);
        if let Some(peer) = self.hosts[ends.1.0].peer.peer()
            && self.hosts[ends.0.0].is_running()
            && self.hosts[ends.0.0].is_live()
        {
            self.host_input(ends.0, Input::NoLink { peer, why });
        }
    }

    fn dialler_count(&self, LinkKey(a, b): LinkKey) -> usize {
        let dials = |host: HostId, other: HostId| {
            self.hosts[other.0]
                .peer
                .peer()
                .and_then(|peer| self.hosts[host.0].neighbours.get(&peer))
                .is_some_and(|neighbour| neighbour.dial)
        };
        usize::from(dials(a, b)) + usize::from(dials(b, a))
    }

    /// The transport of one end reports that the link is whole, unless that is outdated.
    pub fn host_link_up(&mut self, host: HostId, peer: PeerId, generation: u64) {
        let Some(neighbour) = self.hosts[host.0].neighbours.get(&peer).cloned() else {
            return;
        };
        let Some(other) = self.resolve(&neighbour) else {
            return;
        };
        let current = self
            .links
            .get(&LinkKey::new(host, other))
            .is_some_and(|link| link.up && link.generation == generation);
        if current {
            self.host_input(host, Input::LinkUp(peer));
        }
    }

    /// A broken link was not repaired in time: both ends give it up, and go on trying. A paused end
    /// does not notice the time; it has as much again.
    pub fn link_expire(&mut self, key: LinkKey, down: u64) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        if link.up || link.downs != down {
            return;
        }
        link.downs += 1;
        let down = link.downs;
        for (host, other) in [(key.0, key.1), (key.1, key.0)] {
            if !self.wants_anybody(host, other) {
                continue;
            }
            if let Process::Frozen(_) = self.hosts[host.0].process {
                let again = self.swarm.timers.link_timeout;
                self.schedule(again, Event::LinkExpire { link: key, down });
            } else {
                self.report_down(host, other, true);
            }
        }
    }

    /// One end learns that its link broke, and how that looks from there.
    fn report_down(&mut self, host: HostId, other: HostId, gave_up: bool) {
        let fault = match self.hosts[other.0].process {
            Process::Dead { power_loss: false } if gave_up => LinkFault::Refused,
            Process::Dead { power_loss: false } => LinkFault::Ended,
            _ if gave_up => LinkFault::TimedOut,
            _ => LinkFault::Ended,
        };
        let peers: Vec<PeerId> = self.hosts[host.0]
            .neighbours
            .iter()
            .filter(|(_, neighbour)| self.resolve(neighbour) == Some(other))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in peers {
            let delay = self.network_rng.millis(0, 20);
            let event = Event::LinkDown {
                host,
                peer,
                fault,
                gave_up,
            };
            self.notice(host, peer, delay, event);
        }
    }

    /// The dialling end is refused at the port of the dead process.
    fn report_refused(&mut self, host: HostId, dead: HostId) {
        let Some(peer) = self.hosts[dead.0].peer.peer() else {
            return;
        };
        let neighbour = self.hosts[host.0].neighbours.get(&peer);
        if !neighbour.is_some_and(|neighbour| neighbour.dial) || self.network_rng.chance(300) {
            return;
        }
        let delay = self.network_rng.millis(20, 100);
        let event = Event::LinkDown {
            host,
            peer,
            fault: LinkFault::Refused,
            gave_up: true,
        };
        self.notice(host, peer, delay, event);
    }

    /// One transport's reports about one link arrive in order.
    fn notice(&mut self, host: HostId, peer: PeerId, delay: Duration, event: Event) {
        let at = self.now + delay;
        let last = self.hosts[host.0].notices.entry(peer).or_insert(at);
        *last = at.max(*last);
        let at = *last;
        self.schedule_at(at, event);
    }

    /// One end no longer wants a link: the other sees it end, and frames under way are lost.
    fn unlink(&mut self, host: HostId, peer: PeerId, neighbour: &Neighbour) {
        let Some(other) = self.resolve_exactly(peer, neighbour) else {
            return;
        };
        let key = LinkKey::new(host, other);
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let lost = link.clear(key.from(other));
        if std::mem::replace(&mut link.up, false) {
            link.downs += 1;
            self.report_down(other, host, lost);
            if self.wants_anybody(other, host) {
                self.want_link(key);
            }
        }
    }
}
