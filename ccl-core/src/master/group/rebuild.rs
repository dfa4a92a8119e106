//! Rebuilds a group after the master has restarted (R11).
//!
//! The newest view known to the journal or to any peer decides which peers belong; its members'
//! reports tell what had happened. Members that did not come back are lost, and one decision (R4)
//! leads directly to the next view. Messages that arrive meanwhile are added to their senders'
//! reports, so no fact is lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{OpName, PeerId, SessionId, Term, Vid};
use crate::limits;
use crate::master::group::View;
use crate::master::group::lease::Leases;
use crate::master::group::patience::answer_timeout;
use crate::master::history::record::SealedView;
use crate::master::shared::Shared;
use crate::time::Instant;
use crate::topology;
use crate::wire::control::{
    Birth, CancelReason, Claim, EvictReason, GivenBack, Member, Report, TagReport,
};

/// What has been received so far.
#[derive(Debug)]
pub struct Rebuild {
    /// The newest view in the journal.
    pub sealed: Option<SealedView>,
    /// Whether the journal is complete, so that no majority is needed; `doubt` decides when it is
    /// not.
    pub trusted: bool,
    /// Until when members are waited for; extended if the first one attaches later.
    pub window: Instant,
    /// When no session of an earlier master can be alive any more. If no member attaches, a view in
    /// the journal is not given up before then.
    pub last_resort: Instant,
    pub heard: BTreeMap<PeerId, (Claim, Report)>,
    /// Members that are back and have not attached.
    here: BTreeSet<PeerId>,
    /// Those of them that were asked to.
    asked: BTreeSet<PeerId>,
    /// Until when they are waited for, once any was asked.
    summoned: Option<Instant>,
    /// The newest view that any peer claimed, even if its session has ended since.
    claimed: Option<Newest>,
    /// Whether the operator was informed that the window has passed and more members are needed.
    stalled: bool,
    pub struck: BTreeMap<PeerId, EvictReason>,
    /// Peers whose sessions no journal names: they were taken over on their own claim.
    pub adopted: BTreeSet<PeerId>,
}

/// The view from which the run is resumed.
#[derive(Clone, Debug)]
pub struct Newest {
    pub view: View,
    pub is_closed: bool,
    pub carried: Vec<Birth>,
    /// Tags that some of its members may not know to have restarted.
    pub given_back: Vec<GivenBack>,
    /// How operations ended, according to the peer that claims it.
    pub tags: Vec<TagReport>,
    /// Whether a trusted journal names it, so that no majority is needed.
    pub sealed: bool,
    /// Whether a member of it has reported what it knows, and not only its name.
    pub is_reported: bool,
}

impl Rebuild {
    pub fn new(sealed: Option<SealedView>, window: Instant, last_resort: Instant) -> Self {
        Self {
            sealed,
            trusted: true,
            window,
            last_resort,
            heard: BTreeMap::new(),
            here: BTreeSet::new(),
            asked: BTreeSet::new(),
            summoned: None,
            claimed: None,
            stalled: false,
            struck: BTreeMap::new(),
            adopted: BTreeSet::new(),
        }
    }

    /// A session was taken over on its own claim.
    pub fn adopt(&mut self, peer: PeerId) {
        self.adopted.insert(peer);
    }

    /// Whether a peer is a member of the view in the journal.
    pub fn awaits(&self, peer: PeerId) -> bool {
        let sealed = self.sealed.as_ref();
        sealed.is_some_and(|view| view.members.iter().any(|known| known.member.peer == peer))
    }

    /// Whether a peer is back.
    pub fn has_heard(&self, peer: PeerId) -> bool {
        self.heard.contains_key(&peer) || self.here.contains(&peer)
    }

    /// Whether a doubted journal names this session as one of a member.
    pub fn knows(&self, session: SessionId) -> bool {
        let sealed = self.sealed.iter().filter(|_| !self.trusted);
        let mut members = sealed.flat_map(|view| &view.members);
        members.any(|known| known.session == session)
    }

    /// Whether a report names a view that a complete journal would contain.
    pub fn is_outdated_by(&self, report: &Report) -> bool {
        let Some(sealed) = &self.sealed else {
            return false;
        };
        report.vid > sealed.vid
    }

    /// A peer attached; its newest report counts.
    pub fn hear(&mut self, peer: PeerId, claim: Claim, report: Report) {
        let claimed = self.claimed.as_ref();
        let known = claimed.map(|newest| (newest.view.vid, newest.is_reported));
        if !claim.members.is_empty() && Some((report.vid, true)) > known {
            self.claimed = Some(Newest {
                is_reported: true,
                ..Newest::claimed(&claim, &report)
            });
        }
        self.here.remove(&peer);
        self.heard.insert(peer, (claim, report));
    }

    /// A peer is back, and goes on by itself.
    pub fn note_here(&mut self, peer: PeerId, claim: &Claim, vid: Vid) {
        let known = self.claimed.as_ref().map(|newest| newest.view.vid);
        if !claim.members.is_empty() && Some(vid) > known {
            let report = Report {
                vid,
                ..Report::default()
            };
            self.claimed = Some(Newest::claimed(claim, &report));
        }
        self.asked.remove(&peer);
        self.here.insert(peer);
    }

    /// A peer's connection ended. If it has attached, its report counts.
    pub fn note_gone(&mut self, peer: PeerId) {
        self.here.remove(&peer);
    }

    /// Those of members that have not attached. All members of the view have, or cannot be alive.
    pub fn leases(&self, shared: &Shared) -> Leases {
        let left = self.last_resort.saturating_since(shared.now);
        Leases {
            end: Some(shared.real_now + left),
            is_halted: true,
        }
    }

    /// The peers to ask to attach now: those that are back, once they are enough.
    pub fn take_summons(&mut self, now: Instant, shared: &Shared) -> Vec<PeerId> {
        if !self.is_promising(now, shared.force_rebuild) {
            return Vec::new();
        }
        let asked = std::mem::take(&mut self.asked);
        let new = self.here.difference(&asked).copied().collect();
        self.asked.clone_from(&self.here);
        self.summoned.get_or_insert(now + answer_timeout(shared));
        new
    }

    /// Whether the window has passed in vain, and this peer attaches only now. An operator's
    /// override replaces the others' window.
    pub fn is_in_vain(&self, peer: PeerId, shared: &Shared) -> bool {
        let has_passed = self.window <= shared.now && !self.is_promising(shared.now, false);
        has_passed && !shared.force_rebuild && !self.has_heard(peer)
    }

    /// What cut off a member that is late may have cut off the others too: they get a new window
    /// from now on, as long as a session of theirs may be alive.
    pub fn wait_for_others(&mut self, peer: PeerId, shared: &Shared) {
        let is_member = self.newest().is_some_and(|it| it.view.contains(peer));
        let window = shared.now + shared.timers.rebuild_window;
        if is_member {
            self.window = self.window.max(window.min(self.last_resort));
        }
    }

    /// A peer's session ended.
    pub fn strike(&mut self, peer: PeerId, reason: &EvictReason) {
        self.heard.remove(&peer);
        self.here.remove(&peer);
        self.struck.insert(peer, reason.clone());
    }

    /// A peer that attached now holds a result.
    pub fn amend_done(&mut self, peer: PeerId, op: OpName) {
        if let Some(open) = self.open(peer, op) {
            open.held = true;
        }
    }

    /// A peer that attached now wants an operation aborted.
    pub fn amend_cancel(&mut self, peer: PeerId, op: OpName, reason: CancelReason) {
        if let Some(open) = self.open(peer, op) {
            open.cancel.get_or_insert(reason);
        }
    }

    /// A peer that attached has now called so many safe points.
    pub fn amend_safe_called(&mut self, peer: PeerId, called: u64) {
        if let Some((_, report)) = self.heard.get_mut(&peer) {
            report.safe_called = called;
        }
    }

    fn open(&mut self, peer: PeerId, op: OpName) -> Option<&mut crate::wire::control::OpenReport> {
        let (_, report) = self.heard.get_mut(&peer)?;
        let mut tags = report.tags.iter_mut().filter(|tag| tag.tag == op.tag);
        let open = tags.find_map(|tag| tag.open.as_mut())?;
        (open.n == op.n && open.birth == op.birth).then_some(open)
    }

    /// The highest term seen.
    pub fn newest_term(&self) -> Term {
        let newest = self.claimed.as_ref();
        newest
            .map(|newest| newest.view.vid.term)
            .unwrap_or_default()
    }

    /// The highest peer id seen.
    pub fn newest_peer(&self) -> Option<PeerId> {
        let claims = self.heard.values().flat_map(|(claim, _)| &claim.members);
        let newest = self.claimed.iter().flat_map(|newest| &newest.view.members);
        claims.chain(newest).map(|member| member.peer).max()
    }

    /// Whether the run can be resumed: enough have attached, and no other member that is back is
    /// waited for.
    pub fn is_ready(&self, now: Instant, force: bool) -> bool {
        let is_late = self.summoned.is_some_and(|until| until <= now);
        let attached = |peer| self.heard.contains_key(&peer);
        (self.here.is_empty() || is_late) && self.is_enough(now, force, attached)
    }

    /// Whether the run can be resumed once all that are back have attached.
    fn is_promising(&self, now: Instant, force: bool) -> bool {
        self.is_enough(now, force, |peer| self.has_heard(peer))
    }

    /// Whether these are all members of the newest view, or its window has passed and they are
    /// enough of them.
    fn is_enough(&self, now: Instant, force: bool, is_back: impl Fn(PeerId) -> bool) -> bool {
        let Some(newest) = self.newest() else {
            return now >= self.window;
        };
        let members = newest.view.peers();
        let back = members.iter().filter(|peer| is_back(**peer)).count();
        if back == members.len() {
            return true;
        }
        if back == 0 {
            return now >= self.last_resort;
        }
        if now < self.window {
            return false;
        }
        newest.sealed || force || back * 2 > members.len()
    }

    pub fn count_heard(&self, view: &View) -> usize {
        let members = view.members.iter();
        members.filter(|member| self.has_heard(member.peer)).count()
    }

    /// The name of a member of the newest view.
    pub fn label(&self, peer: PeerId) -> String {
        let members = self.newest().map(|newest| newest.view.members);
        let member = members.iter().flatten().find(|known| known.peer == peer);
        member.map(Member::label).unwrap_or_default()
    }

    /// How many members of the newest view have attached, and which have not.
    pub fn turnout(&self) -> Option<(usize, Vec<PeerId>)> {
        let view = self.newest()?.view;
        let missing = view
            .peers()
            .into_iter()
            .filter(|peer| !self.has_heard(*peer));
        Some((self.count_heard(&view), missing.collect()))
    }

    /// Once, if the window has passed in vain: how many members of how many have attached.
    pub fn has_stalled(&mut self, now: Instant, force: bool) -> Option<(usize, usize)> {
        if self.stalled || now < self.window || self.is_promising(now, force) {
            return None;
        }
        self.stalled = true;
        let view = self.newest()?.view;
        Some((self.count_heard(&view), view.members.len()))
    }

    /// Until when members are waited for, as far as is known; `None`: until more of them attach.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        let is_anybody_heard = self.turnout().is_some_and(|(heard, _)| heard > 0);
        let until = match is_anybody_heard {
            true => self.window,
            false => self.last_resort,
        };
        (until > now).then_some(until)
    }

    /// When `is_ready` may change without a message.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let summoned = self.summoned.unwrap_or(self.window);
        [self.window, self.last_resort, summoned]
            .into_iter()
            .filter(|&due| due > now)
            .min()
    }

    /// Members of the newest view.
    pub fn population(&self) -> usize {
        let sealed = self
            .sealed
            .as_ref()
            .map(|view| (view.vid, view.members.len()));
        let claimed = self
            .claimed
            .as_ref()
            .map(|newest| &newest.view)
            .map(|view| (view.vid, view.members.len()));
        sealed.max(claimed).map_or(0, |(_, members)| members)
    }

    pub fn newest(&self) -> Option<Newest> {
        let sealed = self.sealed.as_ref().map(|sealed| Newest {
            view: View {
                vid: sealed.vid,
                members: sealed
                    .members
                    .iter()
                    .map(|known| known.member.clone())
                    .collect(),
                ring_order: sealed.ring_order.clone(),
                costs: sealed.costs,
                released: false,
                departed: Vec::new(),
            },
            is_closed: sealed.is_closed,
            carried: sealed.carried.clone(),
            given_back: sealed.given_back.clone(),
            tags: Vec::new(),
            sealed: self.trusted,
            is_reported: true,
        });
        match (sealed, &self.claimed) {
            (Some(sealed), Some(claimed)) if sealed.view.vid < claimed.view.vid => {
                Some(claimed.clone())
            }
            (None, claimed) => claimed.clone(),
            (sealed, _) => sealed,
        }
    }
}

impl Newest {
    fn claimed(claim: &Claim, report: &Report) -> Self {
        let ring_order = match claim.ring_order.len() == claim.members.len() {
            true => claim.ring_order.clone(),
            false => topology::ring_order(&claim.members),
        };
        Self {
            view: View {
                vid: report.vid,
                members: claim.members.clone(),
                ring_order,
                costs: claim.costs,
                released: false,
                departed: Vec::new(),
            },
            is_closed: claim.place.is_some(),
            carried: report.carried.clone(),
            given_back: report.given_back.clone(),
            tags: report.tags.clone(),
            sealed: false,
            is_reported: false,
        }
    }
}

/// Whether a claim can be true: its sender is among the members that it names, in rank order.
pub fn is_plausible(claim: &Claim) -> bool {
    let members = &claim.members;
    let ordered = members
        .windows(2)
        .all(|pair| pair[0].number < pair[1].number);
    let distinct: BTreeSet<_> = members.iter().map(|member| member.peer).collect();
    ordered
        && distinct.len() == members.len()
        && members.len() <= limits::WORLD_SIZE_MAX
        && distinct.contains(&claim.peer)
        && distinct.iter().all(|peer| peer.0 < u64::MAX / 2)
}
