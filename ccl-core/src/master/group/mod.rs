//! One peer group: its view, its phase, and how it handles each event.
//!
//! Groups are independent: a dead or slow member delays no other group. Messages are handled in
//! `member` and `newcomer`, timeouts in `patience`, view changes in `change`, and the rebuild after
//! a master's restart in `rebuild`.

pub mod admission;
pub mod blame;
pub mod change;
pub mod decision;
pub mod election;
pub mod invariants;
mod late;
pub mod lease;
pub mod ledger;
pub mod member;
pub mod newcomer;
pub mod operation;
pub mod patience;
pub mod phase;
pub mod presence;
pub mod rebuild;
pub mod records;
mod resume;
pub mod returns;
pub mod safe_point;
pub mod shared_state;
pub mod stream;

use std::collections::BTreeMap;

use crate::ids::{Epoch, GroupId, MemberNumber, PeerId, Rank, Term, Vid};
use crate::master::group::admission::Newcomer;
use crate::master::group::blame::Blame;
use crate::master::group::ledger::{Ledger, Violation};
use crate::master::group::newcomer::Announced;
use crate::master::group::phase::{Event, Phase, Rule, rule};
use crate::master::group::records::Records;
use crate::master::group::safe_point::SafePoints;
use crate::master::run::wait::Waits;
use crate::master::shared::Shared;
use crate::time::Instant;
use crate::wire::control::{CostTable, EvictReason, Member, PeerToMaster, StreamPlace};

/// A set of peers that reduce together, as the master sees it.
#[derive(Debug)]
pub struct Group {
    pub id: GroupId,
    pub view: View,
    /// Whether no one may join it after its first view (R21).
    pub is_closed: bool,
    pub phase: Phase,
    pub ledger: Ledger,
    pub safe: SafePoints,
    pub records: Records,
    pub newcomers: BTreeMap<PeerId, Newcomer>,
    pub blame: Blame,
    /// Members that may not have received the view that admitted them.
    pub unconfirmed: BTreeMap<PeerId, Admission>,
    /// Until when members that were lost may go on without this master.
    pub leased: Option<Instant>,
    /// Number of the next admitted peer.
    pub next_number: MemberNumber,
    /// When its last member went; meaningless while it has one.
    pub empty_since: Instant,
    pub announced: Announced,
    pub waits: Waits,
}

/// Where a newcomer starts to count. Its first call of a tag and its first safe point are those
/// that the others make in the view that admitted it, however late it receives that view; so is its
/// first step of each stream.
#[derive(Clone, Debug)]
pub struct Admission {
    pub vid: Vid,
    pub safe_released: u64,
    pub streams: Vec<StreamPlace>,
}

/// The newest sealed view.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub vid: Vid,
    /// In rank order.
    pub members: Vec<Member>,
    pub ring_order: Vec<Rank>,
    pub costs: CostTable,
    /// Whether all old members confirmed it (R6).
    pub released: bool,
    /// Members that left since the view before.
    pub departed: Vec<(PeerId, EvictReason)>,
}

impl View {
    pub fn contains(&self, peer: PeerId) -> bool {
        self.members.iter().any(|member| member.peer == peer)
    }

    pub fn peers(&self) -> Vec<PeerId> {
        self.members.iter().map(|member| member.peer).collect()
    }
}

/// Whether a message kept to the protocol.
pub type Handled = Result<(), Violation>;

impl Group {
    pub fn new(id: GroupId, phase: Phase) -> Self {
        Self {
            id,
            view: View::default(),
            is_closed: false,
            phase,
            ledger: Ledger::default(),
            safe: SafePoints::default(),
            records: Records::default(),
            newcomers: BTreeMap::new(),
            blame: Blame::default(),
            unconfirmed: BTreeMap::new(),
            leased: None,
            next_number: MemberNumber(0),
            empty_since: Instant::default(),
            announced: Announced::default(),
            waits: Waits::default(),
        }
    }

    /// A group that has never had a member. Its views are numbered above those of groups that were
    /// given back, since it may be one of those.
    pub fn unfounded(id: GroupId, epochs: Epoch) -> Self {
        let mut group = Self::new(id, Phase::Founding);
        group.view.vid.epoch = epochs;
        group
    }

    /// Whether a peer of this group waits to be admitted.
    pub fn is_newcomer(&self, peer: PeerId) -> bool {
        self.newcomers.contains_key(&peer)
    }

    /// Whether there is no member, and the next view waits for enough newcomers.
    pub fn is_founding(&self) -> bool {
        matches!(self.phase, Phase::Founding)
    }

    /// Whether it never had a member and no newcomer waits, so that nothing is lost with it.
    pub fn is_blank(&self) -> bool {
        matches!(self.phase, Phase::Founding)
            && self.newcomers.is_empty()
            && self.view.vid.term == Term(0)
    }

    /// Whether it was closed and has lost its last member.
    pub fn is_used_up(&self) -> bool {
        self.is_closed && self.is_founding() && self.newcomers.is_empty()
    }

    /// Members known so far while a run is rebuilt.
    pub fn population(&self) -> usize {
        match &self.phase {
            Phase::Rebuild(rebuild) => rebuild.population(),
            _ => self.view.members.len(),
        }
    }

    /// Whether a peer is a member of the view that is being rebuilt.
    pub fn awaits(&self, peer: PeerId) -> bool {
        match &self.phase {
            Phase::Rebuild(rebuild) => rebuild.awaits(peer),
            _ => false,
        }
    }

    /// Handles every other message of a session of this group.
    pub fn handle_message(&mut self, shared: &mut Shared, peer: PeerId, message: PeerToMaster) {
        let handled = if self.newcomers.contains_key(&peer) {
            self.handle_newcomer(shared, peer, message)
        } else {
            self.handle_member(shared, peer, message)
        };
        if let Err(violation) = handled {
            shared.condemn(peer, EvictReason::Protocol(violation));
        }
    }

    /// A session of this group has ended.
    pub fn handle_evicted(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        reason: &EvictReason,
        lease_end: Instant,
    ) {
        if self.newcomers.contains_key(&peer) {
            self.accepts(shared, Event::NewcomerLost, peer);
            self.newcomers.remove(&peer);
            self.waits.forget(peer);
            return;
        }
        self.waits.forget(peer);
        self.blame.forget(peer);
        self.safe.forget(peer);
        self.records.forget(peer);
        self.unconfirmed.remove(&peer);
        let rebuilding = matches!(self.phase, Phase::Rebuild(_));
        let member = rebuilding || self.view.contains(peer);
        if member && self.accepts(shared, Event::MemberLost, peer) {
            self.lose(shared, peer, reason);
            self.note_lease(reason, lease_end);
        }
    }

    /// Acts on the facts until nothing more follows from them.
    pub fn settle(&mut self, shared: &mut Shared) {
        self.begin_wait(shared.now);
        self.refuse_outsiders(shared);
        self.commit_learned(shared);
        self.seal_records(shared);
        loop {
            let before = self.phase.state();
            match &self.phase {
                Phase::Rebuild(_) => return,
                Phase::Founding => self.found(shared),
                Phase::Steady => {
                    self.commit(shared);
                    self.elect(shared);
                    self.leave_steady(shared);
                }
                Phase::Suspended(change) if change.awaited.is_empty() => self.decide(shared),
                Phase::Suspended(_) => {}
                Phase::Installing(round) => {
                    let confirmed = round.awaited.is_empty();
                    self.commit(shared);
                    self.elect(shared);
                    if confirmed {
                        self.release(shared);
                    }
                }
            }
            if self.phase.state() == before {
                break;
            }
        }
        // The view may have lost a member for which a step waited, or have been released.
        self.seal_records(shared);
        self.give_up_late(shared);
        self.announce(shared);
    }

    /// Whether a peer counts as a member; while a run is rebuilt, as far as is known.
    pub fn is_member(&self, shared: &Shared, peer: PeerId) -> bool {
        match &self.phase {
            Phase::Rebuild(_) => {
                let session = shared.sessions.get(peer);
                session.is_some_and(|session| session.registration.group == self.id)
                    && !self.newcomers.contains_key(&peer)
            }
            // A lost member may still be in the ending view.
            _ => self.view.contains(peer) && shared.sessions.get(peer).is_some(),
        }
    }

    /// Looks an event up in the transition table. A refused event costs its sender the session.
    pub fn accepts(&self, shared: &mut Shared, event: Event, peer: PeerId) -> bool {
        let state = self.phase.state();
        match rule(state, event) {
            Rule::Tolerate(_) => true,
            Rule::Do(_) => {
                shared.visited.insert((state.name(), event.name()));
                true
            }
            Rule::Ignore(_) => false,
            Rule::Refuse(why) => {
                shared.condemn(peer, EvictReason::Protocol(why.into()));
                false
            }
            Rule::Never => unreachable!("{} in {}", event.name(), state.name()),
        }
    }
}
