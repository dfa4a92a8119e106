//! The network between the hosts: where each packet passes, and when it arrives.
//!
//! A packet passes up to five stages: the access of its sender, the uplink of its site, its link,
//! the uplink of the other site in the other direction, and the access of its receiver. It enters a
//! bottleneck when it arrives there in virtual time, so those that share one share it fairly.
//! Packets come in and go out through the pump; there is no clock and no device here.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wan::command::{Command, Direction, Hosts, LinkChange, Pairs, SITES_MAX, ShaperChange};
use crate::wan::lateness::Lateness;
use crate::wan::link::{Departure, Link};
use crate::wan::packet::{HOSTS_MAX, Packet};
use crate::wan::shaper::{QueueLimit, Shaper};
use crate::wan::stats::{BottleneckStats, LinkStats, Stats};
use crate::wan::timeline::Timeline;

/// The state of the network. Times are since its start.
#[derive(Debug)]
pub struct Router {
    hosts: Vec<Host>,
    sites: Vec<Bottlenecks>,
    /// By source × number of hosts + target.
    links: Vec<Link>,
    timeline: Timeline<Flight>,
    random: fastrand::Rng,
    lateness: Lateness,
}

/// A packet to hand to a host now.
#[derive(Debug)]
pub struct Delivery {
    /// When it should have been handed over.
    pub due: Duration,
    /// Delay of the link that it came over.
    pub delay: Duration,
    /// The packet; it names the host.
    pub packet: Packet,
}

#[derive(Debug)]
struct Host {
    access: Bottlenecks,
    site: usize,
    is_dead: bool,
}

#[derive(Clone, Debug)]
struct Bottlenecks {
    up: Shaper,
    down: Shaper,
}

/// A packet on its way.
#[derive(Debug)]
struct Flight {
    packet: Packet,
    source: usize,
    /// How often its link had been cut when it set out.
    cuts: u64,
    /// Where it goes next.
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    SourceAccess,
    SourceUplink,
    Link,
    TargetUplink,
    TargetAccess,
    Delivery,
}

impl Stage {
    const fn next(self) -> Self {
        match self {
            Self::SourceAccess => Self::SourceUplink,
            Self::SourceUplink => Self::Link,
            Self::Link => Self::TargetUplink,
            Self::TargetUplink => Self::TargetAccess,
            Self::TargetAccess | Self::Delivery => Self::Delivery,
        }
    }
}

impl Router {
    /// A network in which everything arrives at once. The seed decides what is lost.
    pub fn new(hosts: usize, seed: u64) -> Self {
        assert!((1..=HOSTS_MAX).contains(&hosts), "1 to {HOSTS_MAX} hosts");
        let host = || Host {
            access: Bottlenecks::new(),
            site: 0,
            is_dead: false,
        };
        Self {
            hosts: (0..hosts).map(|_| host()).collect(),
            sites: vec![Bottlenecks::new(); usize::from(SITES_MAX)],
            links: (0..hosts * hosts).map(|_| Link::new()).collect(),
            timeline: Timeline::new(),
            random: fastrand::Rng::with_seed(seed),
            lateness: Lateness::none(),
        }
    }

    /// Carries out a command; questions change nothing. On an error nothing has changed.
    pub fn apply(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Set(pairs, change) => self.set_links(pairs, change)?,
            Command::Access(hosts, direction, change) => {
                for host in self.resolve(hosts)? {
                    self.hosts[host].access.set(*direction, change);
                }
            }
            Command::Site(site, hosts) => {
                for host in self.resolve(hosts)? {
                    self.hosts[host].site = usize::from(*site);
                }
            }
            Command::Uplink(site, direction, change) => {
                self.sites[usize::from(*site)].set(*direction, change);
            }
            Command::Cut(pairs) => self.cut(pairs, true)?,
            Command::Heal(None) => self.links.iter_mut().for_each(|link| link.set_cut(false)),
            Command::Heal(Some(pairs)) => self.cut(pairs, false)?,
            Command::Split(pairs) => {
                self.cut(pairs, true)?;
                self.cut(&pairs.reversed(), true)?;
            }
            Command::Join(pairs) => {
                self.cut(pairs, false)?;
                self.cut(&pairs.reversed(), false)?;
            }
            Command::Kill(hosts) => self.kill(hosts, true)?,
            Command::Revive(hosts) => self.kill(hosts, false)?,
            Command::Reset => self.reset(),
            Command::Stats | Command::Hosts => {}
        }
        self.settle();
        Ok(())
    }

    /// Takes a packet that a host sent.
    pub fn handle_packet(&mut self, now: Duration, source: usize, packet: Packet) {
        let target = packet.target();
        if target >= self.hosts.len() || target == source {
            return;
        }
        let is_open = self.is_open(source, target);
        let link = self.link_mut(source, target);
        if !is_open {
            link.cut_segments += packet.segments();
            return;
        }
        let flight = Flight {
            cuts: link.cuts(),
            packet,
            source,
            stage: Stage::SourceAccess,
        };
        self.advance(now, flight);
    }

    /// When `poll_delivery` has something to do next.
    pub fn next_due(&self) -> Option<Duration> {
        self.timeline.next_due()
    }

    /// The next packet to hand over, if one is due.
    pub fn poll_delivery(&mut self, now: Duration) -> Option<Delivery> {
        while let Some((due, flight)) = self.timeline.pop(now) {
            let target = flight.packet.target();
            let is_open = self.is_open(flight.source, target);
            let link = self.link_mut(flight.source, target);
            if !is_open || link.cuts() != flight.cuts {
                link.cut_segments += flight.packet.segments();
            } else if flight.stage == Stage::Delivery {
                return Some(Delivery {
                    due,
                    delay: link.delay(),
                    packet: flight.packet,
                });
            } else {
                self.advance(due, flight);
            }
        }
        None
    }

    /// Counts a packet that is handed over at `now`.
    pub fn record(&mut self, delivery: &Delivery, now: Duration) {
        let late = now.saturating_sub(delivery.due);
        self.lateness.record(late, delivery.delay);
    }

    /// What was counted since the start or the last reset.
    pub fn stats(&self) -> Stats {
        let count = self.hosts.len();
        let is_used = |link: &Link| link.segments + link.cut_segments > 0;
        let links = self.links.iter().enumerate();
        let mut bottlenecks = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            bottlenecks.extend(host.access.stats(&format!("access of host {index}")));
        }
        for (index, site) in self.sites.iter().enumerate() {
            bottlenecks.extend(site.stats(&format!("uplink of site {index}")));
        }
        Stats {
            links: links
                .filter(|(_, link)| is_used(link))
                .map(|(index, link)| LinkStats {
                    source: index / count,
                    target: index % count,
                    ..link.stats()
                })
                .collect(),
            bottlenecks,
            lateness: self.lateness.stats(),
            ..Stats::default()
        }
    }

    /// Moves a packet on from where it is at `now`, until it has to wait.
    fn advance(&mut self, now: Duration, flight: Flight) {
        let mut moving = VecDeque::from([(now, flight)]);
        while let Some((at, mut flight)) = moving.pop_front() {
            while self.is_passed_freely(&flight) {
                flight.stage = flight.stage.next();
            }
            if flight.stage == Stage::Delivery || at > now && self.is_bottleneck(&flight) {
                self.timeline.push(at, flight);
                continue;
            }
            let Flight {
                packet,
                source,
                cuts,
                stage,
            } = flight;
            for departure in self.pass(at, source, stage, packet) {
                let flight = Flight {
                    packet: departure.packet,
                    source,
                    cuts,
                    stage: stage.next(),
                };
                moving.push_back((departure.at, flight));
            }
        }
    }

    /// Whether the next stage changes nothing.
    fn is_passed_freely(&self, flight: &Flight) -> bool {
        !matches!(flight.stage, Stage::Link | Stage::Delivery) && !self.is_bottleneck(flight)
    }

    /// Whether packets wait for each other in the next stage.
    fn is_bottleneck(&self, flight: &Flight) -> bool {
        let (source, target) = (flight.source, flight.packet.target());
        let sites = (self.hosts[source].site, self.hosts[target].site);
        let shaper = match flight.stage {
            Stage::SourceAccess => &self.hosts[source].access.up,
            Stage::TargetAccess => &self.hosts[target].access.down,
            Stage::SourceUplink if sites.0 != sites.1 => &self.sites[sites.0].up,
            Stage::TargetUplink if sites.0 != sites.1 => &self.sites[sites.1].down,
            Stage::Link => self.links[source * self.hosts.len() + target].shaper(),
            Stage::SourceUplink | Stage::TargetUplink | Stage::Delivery => return false,
        };
        !shaper.is_unlimited()
    }

    /// Sends a packet through a stage.
    fn pass(
        &mut self,
        at: Duration,
        source: usize,
        stage: Stage,
        packet: Packet,
    ) -> Vec<Departure> {
        let target = packet.target();
        let departure = Departure { at, packet };
        let shaper = match stage {
            Stage::SourceAccess => &mut self.hosts[source].access.up,
            Stage::TargetAccess => &mut self.hosts[target].access.down,
            Stage::SourceUplink => &mut self.sites[self.hosts[source].site].up,
            Stage::TargetUplink => &mut self.sites[self.hosts[target].site].down,
            Stage::Link => {
                let link = &mut self.links[source * self.hosts.len() + target];
                return link.pass(departure, &mut self.random);
            }
            Stage::Delivery => return vec![departure],
        };
        departure.through(shaper)
    }

    fn set_links(&mut self, pairs: &Pairs, change: &LinkChange) -> Result<(), String> {
        for index in self.link_indices(pairs)? {
            self.links[index].set(change, &mut self.random);
        }
        Ok(())
    }

    fn cut(&mut self, pairs: &Pairs, is_cut: bool) -> Result<(), String> {
        for index in self.link_indices(pairs)? {
            self.links[index].set_cut(is_cut);
        }
        Ok(())
    }

    fn kill(&mut self, hosts: &Hosts, is_dead: bool) -> Result<(), String> {
        for host in self.resolve(hosts)? {
            self.hosts[host].is_dead = is_dead;
            let count = self.hosts.len();
            for other in 0..count {
                self.links[host * count + other].drop_flights();
                self.links[other * count + host].drop_flights();
            }
        }
        Ok(())
    }

    fn resolve(&self, hosts: &Hosts) -> Result<Vec<usize>, String> {
        hosts.resolve(self.hosts.len())
    }

    fn link_indices(&self, pairs: &Pairs) -> Result<Vec<usize>, String> {
        let sources = self.resolve(&pairs.sources)?;
        let targets = self.resolve(&pairs.targets)?;
        let count = self.hosts.len();
        let all = sources.iter().flat_map(|source| {
            let others = targets.iter().filter(move |target| *target != source);
            others.map(move |target| source * count + target)
        });
        Ok(all.collect())
    }

    fn link_mut(&mut self, source: usize, target: usize) -> &mut Link {
        &mut self.links[source * self.hosts.len() + target]
    }

    fn is_open(&self, source: usize, target: usize) -> bool {
        let is_cut = self.links[source * self.hosts.len() + target].is_cut();
        !is_cut && !self.hosts[source].is_dead && !self.hosts[target].is_dead
    }

    /// Computes the queues anew: those in products depend on delays. A bottleneck of several links
    /// has the queue that the longest needs.
    fn settle(&mut self) {
        let count = self.hosts.len();
        let mut longest = Duration::ZERO;
        for index in 0..self.links.len() {
            let (source, target) = (index / count, index % count);
            let back = self.links[target * count + source].delay();
            let round_trip = self.links[index].delay() + back;
            self.links[index].settle(round_trip);
            longest = longest.max(round_trip);
        }
        let hosts = self.hosts.iter_mut().map(|host| &mut host.access);
        for bottlenecks in hosts.chain(&mut self.sites) {
            bottlenecks.up.settle(longest);
            bottlenecks.down.settle(longest);
        }
    }

    fn reset(&mut self) {
        self.links.iter_mut().for_each(Link::reset);
        let hosts = self.hosts.iter_mut().map(|host| &mut host.access);
        for bottlenecks in hosts.chain(&mut self.sites) {
            bottlenecks.up.reset();
            bottlenecks.down.reset();
        }
        self.lateness = Lateness::none();
    }
}

impl Bottlenecks {
    const fn new() -> Self {
        Self {
            up: Shaper::new(QueueLimit::Products(1.0)),
            down: Shaper::new(QueueLimit::Products(1.0)),
        }
    }

    fn set(&mut self, direction: Direction, change: &ShaperChange) {
        let shaper = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        shaper.set(change.rate, change.queue);
    }

    /// Of those that had something to do.
    fn stats(&self, name: &str) -> Vec<BottleneckStats> {
        let both = [("up", &self.up), ("down", &self.down)];
        let used = both.into_iter().filter(|(_, it)| it.queue_bytes_max > 0);
        used.map(|(direction, shaper)| BottleneckStats {
            name: format!("{name}, {direction}"),
            overflow_segments: shaper.dropped_segments,
            queue_bytes_max: shaper.queue_bytes_max,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;
