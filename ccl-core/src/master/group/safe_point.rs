//! The numbered safe points of a group (R9), at which newcomers may be admitted.
//!
//! Safe point k is open while `released == k`. `admission` decides who may be admitted; the group
//! turns a safe point with newcomers into a view change.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;

/// The safe points of a group's members.
#[derive(Debug, Default)]
pub struct SafePoints {
    /// Safe points released so far, so the number of the open one.
    pub released: u64,
    /// Members that wait, and at which.
    callers: BTreeMap<PeerId, u64>,
    /// Members that wait at later ones, and since when: what they know to be released is yet to be
    /// confirmed.
    beyond: BTreeMap<PeerId, (u64, Instant)>,
    /// The most that each member has said of itself.
    said: BTreeMap<PeerId, Progress>,
    /// Start of the present wait: when the newest of them came, or when an operation ended.
    waits_since: Instant,
    /// A caller gave up: the open one must be released unchanged.
    withdrawn: bool,
    /// How many safe points members have asked to be released by now.
    wished: u64,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Safe points that it has called, or told others to have called.
    pub called: u64,
    /// Safe points that it knows to be released.
    pub released: u64,
}

/// The result of a call of a safe point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It was released before: the caller gets the same as the others.
    Released,
    /// The caller waits at the open one.
    Waits,
}

impl SafePoints {
    /// A member at safe point `k` asks for this many more to be released ahead.
    pub fn wish(&mut self, k: u64, ahead: u32) {
        self.wished = self.wished.max(k + 1 + u64::from(ahead));
    }

    /// Whether members have asked for more than are released.
    pub fn is_wished(&self) -> bool {
        self.wished > self.released
    }

    /// A member says how far it is.
    pub fn note(&mut self, peer: PeerId, progress: Progress) {
        let known = self.said.entry(peer).or_default();
        known.called = known.called.max(progress.called);
        known.released = known.released.max(progress.released);
    }

    /// How many members have released among themselves: as many as one of them knows to be
    /// released, if all have called them, since no other may have told the master yet (R19).
    pub fn agreed(&self, members: impl Iterator<Item = PeerId>) -> u64 {
        let said = members.map(|peer| self.said.get(&peer).copied().unwrap_or_default());
        let said: Vec<Progress> = said.collect();
        let called = said.iter().map(|progress| progress.called).min();
        let released = said.iter().map(|progress| progress.released);
        let confirmed =
            released.filter(|released| called.is_some_and(|called| *released <= called));
        confirmed.max().unwrap_or_default()
    }

    /// More were released (R9).
    pub fn raise(&mut self, released: u64) -> bool {
        let is_news = released > self.released && !is_active(Mutation::UnnumberedSafePoint);
        if is_news {
            self.released = released;
            self.callers.retain(|_, k| *k >= released);
            self.withdrawn = false;
            self.reach();
        }
        is_news
    }

    /// Members that waited beyond the open one may wait at it now.
    fn reach(&mut self) {
        let (open, callers) = (self.released, &mut self.callers);
        let waits_since = &mut self.waits_since;
        self.beyond.retain(|peer, (k, since)| {
            if *k == open {
                callers.insert(*peer, open);
                *waits_since = (*waits_since).max(*since);
            }
            *k > open
        });
    }

    /// A member reached safe point `k`.
    pub fn call(&mut self, peer: PeerId, k: u64, now: Instant) -> Call {
        if k < self.released {
            return Call::Released;
        }
        if k > self.released && !is_active(Mutation::UnnumberedSafePoint) {
            self.callers.remove(&peer);
            self.beyond.insert(peer, (k, now));
            return Call::Waits;
        }
        self.beyond.remove(&peer);
        if self.callers.insert(peer, k).is_none() {
            self.waits_since = now;
        }
        Call::Waits
    }

    /// A member no longer waits at `k`. If no member was released yet, it is then released
    /// unchanged.
    pub fn withdraw(&mut self, peer: PeerId, k: u64) {
        self.beyond.remove(&peer);
        if k == self.released && self.callers.remove(&peer).is_some() {
            self.withdrawn = true;
        }
    }

    /// The first safe point of which nothing is fixed yet.
    pub fn next(&self) -> u64 {
        self.released + u64::from(self.is_called())
    }

    /// A member states how many safe points it has called in all.
    pub fn restate(&mut self, peer: PeerId, called: u64, now: Instant) {
        if called > self.released {
            self.call(peer, called - 1, now);
        } else {
            self.withdraw(peer, self.released);
        }
    }

    /// An operation ended: the wait for its members restarts.
    pub fn wait_anew(&mut self, now: Instant) {
        self.waits_since = now;
    }

    /// Which of so many members wait for the others, and since when.
    pub fn waiting(&self, members: usize) -> Option<(Instant, BTreeSet<PeerId>)> {
        if !self.callers.is_empty() {
            return Some((self.waits_since, self.callers.keys().copied().collect()));
        }
        // If most are further than the others say to be, these do not come, or lie.
        let newest = self.beyond.values().map(|(_, since)| *since).max()?;
        let is_most = 2 * self.beyond.len() > members;
        is_most.then(|| (newest, self.beyond.keys().copied().collect()))
    }

    /// A member is gone.
    pub fn forget(&mut self, peer: PeerId) {
        self.callers.remove(&peer);
        self.beyond.remove(&peer);
        self.said.remove(&peer);
    }

    /// Whether this member waits at the open one.
    pub fn has_called(&self, peer: PeerId) -> bool {
        self.callers.contains_key(&peer)
    }

    /// Whether a member waits, or waited and gave up.
    pub fn is_called(&self) -> bool {
        self.withdrawn || !self.callers.is_empty()
    }

    /// Whether the open one can only be released unchanged.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// Whether all of these wait at the open one.
    pub fn is_reached_by<'a>(&self, mut members: impl Iterator<Item = &'a PeerId>) -> bool {
        !self.withdrawn && members.all(|peer| self.callers.contains_key(peer))
    }

    /// Releases the open one if it is called, and as many after it as members wish.
    pub fn release_ahead(&mut self) -> BTreeMap<PeerId, u64> {
        let waited = match self.is_called() {
            true => self.release(),
            false => BTreeMap::new(),
        };
        self.released = self.released.max(self.wished);
        self.reach();
        waited
    }

    /// Releases the open one: its number is used up. Returns the members that waited, and at which.
    pub fn release(&mut self) -> BTreeMap<PeerId, u64> {
        let newest = self.callers.values().copied().max();
        self.released = newest.unwrap_or(self.released).max(self.released) + 1;
        let waited = self.dismiss();
        self.reach();
        waited
    }

    /// A new first view starts with this count of released safe points, and no member waits.
    pub fn begin(&mut self, released: u64) {
        debug_assert!(released >= self.released, "safe points only go up (I6)");
        self.released = released;
        self.beyond.clear();
        self.said.clear();
        self.dismiss();
    }

    /// Answers the members that wait, without using up a number.
    pub fn dismiss(&mut self) -> BTreeMap<PeerId, u64> {
        self.withdrawn = false;
        std::mem::take(&mut self.callers)
    }
}
