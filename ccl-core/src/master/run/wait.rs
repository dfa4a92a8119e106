//! What each peer waits for, as reported to it and to the operator. Nothing is decided here.
//!
//! A peer learns it in reply to its heartbeat; the operator gets one event for each long wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::Event;
use crate::ids::{GroupId, PeerId, Rank};
use crate::limits::{self, WAIT_NAMES_MAX};
use crate::master::Master;
use crate::master::group::Group;
use crate::master::group::admission::{LinkedSet, Turn};
use crate::master::group::phase::Phase;
use crate::master::group::rebuild::Rebuild;
use crate::master::shared::Shared;
use crate::names::Names;
use crate::time::Instant;
use crate::wire::control::{MissingLink, NamedPeer, SomePeers, UnitCount, Wait};

/// What a group waits for, as of the last check.
#[derive(Debug, Default)]
pub struct Waits {
    seen: Option<Wait>,
    /// What was last reported to the operator.
    told: Option<Wait>,
    next_look: Option<Instant>,
    /// Why there is no link, by reporter and other end.
    no_links: BTreeMap<PeerId, BTreeMap<PeerId, String>>,
}

impl Waits {
    /// A peer reports why it has no link to another or, with an empty text, that it has one.
    pub fn note_no_link(&mut self, from: PeerId, to: PeerId, why: String) {
        let said = self.no_links.entry(from).or_default();
        match why.is_empty() {
            true => drop(said.remove(&to)),
            // A wait shows no more than these.
            false if said.len() < WAIT_NAMES_MAX || said.contains_key(&to) => {
                said.insert(to, why);
            }
            false => {}
        }
    }

    /// A session is over.
    pub fn forget(&mut self, peer: PeerId) {
        self.no_links.remove(&peer);
        self.no_links.values_mut().for_each(|said| {
            said.remove(&peer);
        });
    }

    fn why(&self, from: PeerId, to: PeerId) -> Option<&String> {
        self.no_links.get(&from)?.get(&to)
    }
}

impl Master {
    /// What a peer waits for, other than its own program.
    pub fn wait_of(&self, peer: PeerId) -> Option<Wait> {
        let unit = self.count_unit(peer).map(Wait::Unit);
        let is_short = |unit: &UnitCount| unit.registered < unit.size;
        let short = self.count_unit(peer).filter(is_short).map(Wait::Unit);
        let group = self.groups.get(&self.group_of(peer))?;
        short.or_else(|| group.wait_of(&self.shared, peer)).or(unit)
    }
}

impl Master {
    /// What a newcomer waits for at a master without a run.
    pub fn wait_for_earlier_run(&mut self) -> Option<Wait> {
        let now = self.shared.now;
        let window = self.run.waiting()?.window;
        let rebuilt = self.groups.values().find_map(|group| match &group.phase {
            Phase::Rebuild(rebuild) => group.wait_for_rebuild(&self.shared, rebuild),
            _ => None,
        });
        if rebuilt.is_some() {
            return rebuilt;
        }
        Some(Wait::EarlierRun {
            seconds: seconds(window - now),
        })
    }

    /// The names of all peers of a group.
    pub fn names_of(&self, id: GroupId) -> Names {
        let group = self.groups.get(&id);
        group.map_or_else(Names::default, |group| group.names(&self.shared))
    }
}

impl Group {
    /// What a peer of this group waits for.
    fn wait_of(&self, shared: &Shared, peer: PeerId) -> Option<Wait> {
        if let Phase::Rebuild(rebuild) = &self.phase {
            return self.wait_for_rebuild(shared, rebuild);
        }
        if self.is_newcomer(peer) {
            return self.wait_of_newcomer(shared, peer);
        }
        self.safe
            .has_called(peer)
            .then(|| self.wait_of_members(shared))
            .flatten()
    }

    fn wait_for_rebuild(&self, shared: &Shared, rebuild: &Rebuild) -> Option<Wait> {
        let (heard, missing) = rebuild.turnout()?;
        let members = heard + missing.len();
        Some(Wait::Rebuild {
            heard: count(heard),
            members: count(members),
            missing: self.some(shared, &missing),
            seconds: rebuild
                .until(shared.now)
                .map_or(0, |until| seconds(until - shared.now)),
        })
    }

    fn wait_of_newcomer(&self, shared: &Shared, peer: PeerId) -> Option<Wait> {
        let newcomer = self.newcomers.get(&peer)?;
        if let Some(held) = newcomer.held.filter(|held| held.until > shared.now) {
            return Some(Wait::Backoff {
                cause: held.cause,
                seconds: seconds(held.until - shared.now),
            });
        }
        if let Some(until) = self.leased_until(shared.real_now) {
            let seconds = seconds(until - shared.real_now);
            return Some(Wait::LostView { seconds });
        }
        let founders = self
            .newcomers
            .iter()
            .filter(|(_, newcomer)| newcomer.turn != Turn::Waits);
        let here: Vec<PeerId> = founders.map(|(peer, _)| *peer).collect();
        if self.view.members.is_empty() && here.len() < self.needed() {
            return Some(Wait::FirstView {
                here: self.some(shared, &here),
                needed: count(self.needed()),
                absent: self.absent_ranks(),
            });
        }
        let members = self.view.peers();
        let others = match members.is_empty() {
            true => &here,
            false => &members,
        };
        let missing = others
            .iter()
            .filter(|other| !self.are_linked(peer, **other));
        let missing: Vec<_> = missing.map(|other| (peer, *other)).collect();
        if !missing.is_empty() {
            return Some(self.links(shared, &missing));
        }
        if members.is_empty() {
            // It is linked with all; others are not, as the last check of all of them has shown.
            return self.waits.seen.clone();
        }
        if members.len() >= limits::WORLD_SIZE_MAX {
            let members = count(members.len());
            return Some(Wait::Full { members });
        }
        self.wait_of_members(shared)
    }

    /// The first ranks of a closed group without a newcomer.
    fn absent_ranks(&self) -> Vec<Rank> {
        let places = self
            .newcomers
            .values()
            .filter_map(|newcomer| newcomer.place);
        let here: BTreeSet<Rank> = places.clone().map(|place| place.rank).collect();
        let size = places.map(|place| place.size).next().unwrap_or(0);
        let all = (0..size).map(Rank);
        let absent = all.filter(|rank| !here.contains(rank));
        absent.take(WAIT_NAMES_MAX).collect()
    }

    /// What the safe point waits for that is to admit a newcomer.
    fn wait_of_members(&self, shared: &Shared) -> Option<Wait> {
        if let Some(awaited) = self.phase.awaited() {
            let missing: Vec<PeerId> = awaited.peers().collect();
            let missing = self.some(shared, &missing);
            return (missing.count > 0).then_some(Wait::Change { missing });
        }
        let members = self.view.peers();
        let absent = members.iter().filter(|peer| !self.safe.has_called(**peer));
        let absent: Vec<PeerId> = absent.copied().collect();
        (!absent.is_empty()).then(|| Wait::SafePoint {
            members: count(members.len()),
            missing: self.some(shared, &absent),
        })
    }

    /// What the group as a whole waits for: the first wait of a newcomer that is not about its own
    /// unit, or of its members.
    fn look(&self, shared: &Shared) -> Option<Wait> {
        if let Phase::Rebuild(rebuild) = &self.phase {
            return self.wait_for_rebuild(shared, rebuild);
        }
        if self.view.members.is_empty() && self.newcomers.len() >= self.needed() {
            return self.unlinked_founders(shared);
        }
        match self.newcomers.keys().next() {
            Some(&first) => self.wait_of_newcomer(shared, first),
            None if self.safe.is_called() => self.wait_of_members(shared),
            None => None,
        }
    }

    fn unlinked_founders(&self, shared: &Shared) -> Option<Wait> {
        let here: Vec<PeerId> = self.newcomers.keys().copied().collect();
        // First the links of the peer that misses most, which keep the group from being founded.
        let missing = LinkedSet::of(&here, |one, other| self.are_linked(one, other)).apart;
        (!missing.is_empty()).then(|| self.links(shared, &missing))
    }

    /// Whether both ends report the link; of a link to a member, only the newcomer does.
    fn are_linked(&self, one: PeerId, other: PeerId) -> bool {
        let says = |from: PeerId, to: PeerId| match self.newcomers.get(&from) {
            Some(newcomer) => newcomer
                .linked
                .as_ref()
                .is_some_and(|all| all.contains(&to)),
            None => true,
        };
        one == other || says(one, other) && says(other, one)
    }

    fn links(&self, shared: &Shared, missing: &[(PeerId, PeerId)]) -> Wait {
        let link = |(from, to), error: Option<&String>| MissingLink {
            from: self.called(shared, from),
            to: self.called(shared, to),
            error: error.cloned().unwrap_or_default(),
        };
        // Either may say why.
        let links = missing.iter().flat_map(|&(one, other)| {
            let ways = [(one, other), (other, one)];
            let known = ways.map(|way| Some((way, Some(self.waits.why(way.0, way.1)?))));
            match known {
                [None, None] => [Some(((one, other), None)), None],
                known => known,
            }
        });
        let first = links.flatten().take(WAIT_NAMES_MAX);
        Wait::Links(first.map(|(way, error)| link(way, error)).collect())
    }

    fn some(&self, shared: &Shared, peers: &[PeerId]) -> SomePeers {
        let first = peers.iter().take(WAIT_NAMES_MAX);
        SomePeers {
            count: count(peers.len()),
            first: first.map(|&peer| self.called(shared, peer)).collect(),
        }
    }

    /// The names of all peers of this group.
    pub fn names(&self, shared: &Shared) -> Names {
        let members = self
            .view
            .members
            .iter()
            .map(|member| (member.peer, member.label()));
        let newcomers = self.newcomers.keys().filter_map(|peer| {
            let session = shared.sessions.get(*peer)?;
            Some((*peer, session.registration.label()))
        });
        members.chain(newcomers).collect()
    }

    fn called(&self, shared: &Shared, peer: PeerId) -> NamedPeer {
        let session = shared.sessions.get(peer);
        let member = self.view.members.iter().find(|member| member.peer == peer);
        let name = match (session, member) {
            (Some(session), _) => session.registration.label(),
            (None, Some(member)) => member.label(),
            (None, None) => match &self.phase {
                Phase::Rebuild(rebuild) => rebuild.label(peer),
                _ => String::new(),
            },
        };
        NamedPeer { peer, name }
    }

    /// Whether a peer waits whose wait is reported.
    fn is_waited_in(&self) -> bool {
        matches!(self.phase, Phase::Rebuild(_))
            || !self.newcomers.is_empty()
            || self.safe.is_called()
    }

    /// When to check again.
    pub fn next_look(&self) -> Option<Instant> {
        self.waits.next_look
    }

    /// A peer may wait from now on.
    pub fn begin_wait(&mut self, now: Instant) {
        if self.is_waited_in() {
            self.waits
                .next_look
                .get_or_insert(now + limits::LOOK_INTERVAL);
        }
    }

    /// Checks what the group waits for; a wait that is seen twice is reported to the operator.
    pub fn look_at_waits(&mut self, shared: &mut Shared) {
        if self.waits.next_look.is_none_or(|due| shared.now < due) {
            return;
        }
        self.waits.next_look = None;
        self.begin_wait(shared.now);
        let wait = self.look(shared);
        let before = std::mem::replace(&mut self.waits.seen, wait.clone());
        let gist = wait.as_ref().map(Wait::gist);
        let is_told = gist == self.waits.told;
        match wait {
            None => self.waits.told = None,
            Some(wait) if before.map(|before| before.gist()) == gist && !is_told => {
                self.waits.told = gist;
                let group = self.id;
                shared.outbox.event(Event::Waits { group, wait });
            }
            Some(_) => {}
        }
    }
}

/// Rounded up.
fn seconds(time: Duration) -> u32 {
    let seconds = time.as_millis().div_ceil(1000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn count(peers: usize) -> u32 {
    u32::try_from(peers).expect("at most PEERS_MAX")
}
