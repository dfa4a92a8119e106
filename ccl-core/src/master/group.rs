//! One peer group: its view, its phase, and what it does with each event.
//!
//! A group never looks at another: its members' death or slowness stalls nobody else. View changes
//! are in `change`, rebuilding after a master's restart in `rebuild`.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::{self, Newcomer};
use super::blame::{self, Blame};
use super::ledger::{self, Ledger, Violation};
use super::phase::{Event, Phase, Rule, rule};
use super::presence;
use super::safe_point::{Call, SafePoints};
use super::shared::Shared;
use crate::ids::{GroupId, MemberNumber, PeerId, Rank, Vid};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    Claim, CostTable, EvictReason, LinkFault, MasterToPeer, Member, OpNote, PeerToMaster, Report,
};

/// A set of peers that reduce together, as the master sees it.
#[derive(Debug)]
pub(super) struct Group {
    pub id: GroupId,
    pub view: View,
    pub phase: Phase,
    pub ledger: Ledger,
    pub safe: SafePoints,
    pub newcomers: BTreeMap<PeerId, Newcomer>,
    pub blame: Blame,
    /// What the next admitted peer is numbered.
    pub next_number: MemberNumber,
    /// What the last `Expect` named: the view and the newcomers.
    announced: (Vid, Vec<PeerId>),
}

/// The newest sealed view.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub vid: Vid,
    /// In rank order.
    pub members: Vec<Member>,
    pub ring_order: Vec<Rank>,
    pub costs: CostTable,
    /// Whether all old members confirmed it (R6).
    pub released: bool,
    /// Who left since the view before.
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

type Handled = Result<(), Violation>;

impl Group {
    pub fn new(id: GroupId, phase: Phase) -> Self {
        Self {
            id,
            view: View::default(),
            phase,
            ledger: Ledger::default(),
            safe: SafePoints::default(),
            newcomers: BTreeMap::new(),
            blame: Blame::default(),
            next_number: MemberNumber(0),
            announced: (Vid::default(), Vec::new()),
        }
    }

    /// Whether it never had a member and nobody waits: nothing is lost with it.
    pub fn is_blank(&self) -> bool {
        matches!(self.phase, Phase::Founding)
            && self.newcomers.is_empty()
            && self.view.vid == Vid::default()
    }

    /// A peer said hello to this group.
    pub fn handle_registered(&mut self, shared: &mut Shared, peer: PeerId) {
        if !self.accepts(shared, Event::Registered, peer) {
            return;
        }
        let session = shared
            .sessions
            .get(peer)
            .expect("it was registered just now");
        let registration = &session.registration;
        let newcomer = Newcomer {
            min_world: registration.min_world,
            linked: BTreeSet::new(),
            not_before: shared
                .backoffs
                .not_before(&registration.addresses, shared.now),
        };
        self.newcomers.insert(peer, newcomer);
    }

    /// A newcomer was welcomed again, over a new connection.
    pub fn greet(&self, shared: &mut Shared, peer: PeerId) {
        if self.announced.1.contains(&peer) {
            self.send_expect(shared, &[peer]);
        }
    }

    /// Whether a peer is a member of the view that is being rebuilt.
    pub fn awaits(&self, peer: PeerId) -> bool {
        match &self.phase {
            Phase::Rebuild(rebuild) => rebuild.awaits(peer),
            _ => false,
        }
    }

    /// A session of this group goes on over a new connection (R5).
    pub fn handle_attach(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        (claim, report): (Claim, Report),
    ) {
        if matches!(self.phase, Phase::Rebuild(_)) && !claim.members.is_empty() {
            // It was admitted after the journal ended.
            self.newcomers.remove(&peer);
        }
        if self.newcomers.contains_key(&peer) {
            if self.accepts(shared, Event::NewcomerAttach, peer) {
                self.greet(shared, peer);
            }
            return;
        }
        if !self.accepts(shared, Event::MemberAttach, peer) {
            return;
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            rebuild.hear(peer, claim, report);
            return;
        }
        if let Err(violation) = self.absorb(shared.now, peer, &report) {
            return shared.condemn(peer, EvictReason::Protocol(violation));
        }
        self.confirm_attach(peer, report.vid);
        let reply = self.attach_reply();
        shared.send(peer, reply);
        if !self.newcomers.is_empty() {
            self.send_expect(shared, &[peer]);
        }
    }

    fn confirm_attach(&mut self, peer: PeerId, installed: Vid) {
        match &mut self.phase {
            Phase::Suspended(change) => {
                change.awaited.remove(&peer);
            }
            Phase::Installing(round) if installed == self.view.vid => {
                round.awaited.remove(&peer);
            }
            _ => {}
        }
    }

    fn attach_reply(&self) -> MasterToPeer {
        let mut install = self.install_message();
        install.suspended = matches!(self.phase, Phase::Suspended(_));
        if is_active(Mutation::AttachReplyWithoutFloors) {
            install.floors.clear();
        }
        MasterToPeer::Install(install)
    }

    /// Everything else that a session of this group says.
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

    fn handle_newcomer(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        message: PeerToMaster,
    ) -> Handled {
        match message {
            PeerToMaster::Ready { linked, .. } => {
                if self.accepts(shared, Event::Ready, peer)
                    && let Some(newcomer) = self.newcomers.get_mut(&peer)
                {
                    newcomer.linked = linked.into_iter().collect();
                }
                Ok(())
            }
            PeerToMaster::LinkDown { peer: target, .. } => {
                if let Some(newcomer) = self.newcomers.get_mut(&peer) {
                    newcomer.linked.remove(&target);
                }
                Ok(())
            }
            PeerToMaster::LinkUp { .. } => Ok(()),
            _ => Err("only members may say that".into()),
        }
    }

    fn handle_member(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        message: PeerToMaster,
    ) -> Handled {
        match message {
            PeerToMaster::Posted(notes) => self.handle_posted(shared, peer, &notes),
            PeerToMaster::Done(notes) => self.handle_done(shared, peer, &notes),
            PeerToMaster::Cancel { op, reason } => {
                if self.accepts(shared, Event::Cancel, peer) {
                    match &mut self.phase {
                        Phase::Rebuild(rebuild) => rebuild.amend_cancel(peer, op, reason),
                        _ => self.ledger.cancel(peer, op, reason),
                    }
                }
                Ok(())
            }
            PeerToMaster::Flush { vid, report } => self.handle_flush(shared, peer, (vid, &report)),
            PeerToMaster::Installed { vid, report } => {
                self.handle_installed(shared, peer, (vid, &report))
            }
            PeerToMaster::AtSafePoint { k } => self.handle_safe_point(shared, peer, k),
            PeerToMaster::Withdraw { k } => {
                if self.accepts(shared, Event::Withdraw, peer) {
                    match &mut self.phase {
                        Phase::Rebuild(rebuild) => rebuild.amend_safe_called(peer, k),
                        _ => self.safe.withdraw(peer, k),
                    }
                }
                Ok(())
            }
            PeerToMaster::LinkDown {
                peer: target,
                fault,
                gave_up,
                ..
            } => {
                self.handle_link_down(shared, (peer, target), (fault, gave_up));
                Ok(())
            }
            PeerToMaster::LinkUp { peer: target } => {
                if self.accepts(shared, Event::LinkUp, peer) {
                    self.blame.clear(peer, target);
                }
                Ok(())
            }
            // Said before it heard that it was admitted.
            PeerToMaster::Ready { .. } => Ok(()),
            PeerToMaster::Hello { .. }
            | PeerToMaster::Attach { .. }
            | PeerToMaster::Leave
            | PeerToMaster::Ping => unreachable!("the master deals with these itself"),
        }
    }

    fn handle_posted(&mut self, shared: &mut Shared, peer: PeerId, notes: &[OpNote]) -> Handled {
        if !self.accepts(shared, Event::Posted, peer) {
            return Ok(());
        }
        if let Phase::Suspended(change) = &self.phase
            && !change.awaited.contains(&peer)
        {
            return Err("it posted after its Flush".into());
        }
        let at = (&self.view, shared.now);
        notes
            .iter()
            .try_for_each(|note| self.ledger.post(peer, note, at))
    }

    fn handle_done(&mut self, shared: &mut Shared, peer: PeerId, notes: &[OpNote]) -> Handled {
        if !self.accepts(shared, Event::Done, peer) {
            return Ok(());
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            notes
                .iter()
                .for_each(|note| rebuild.amend_done(peer, note.op));
            return Ok(());
        }
        let at = (&self.view, shared.now);
        notes
            .iter()
            .try_for_each(|note| self.ledger.done(peer, note, at))
    }

    fn handle_flush(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        (vid, report): (Vid, &Report),
    ) -> Handled {
        if vid != self.view.vid || !self.accepts(shared, Event::Flush, peer) {
            return Ok(());
        }
        self.absorb(shared.now, peer, report)?;
        if let Phase::Suspended(change) = &mut self.phase {
            change.awaited.remove(&peer);
        }
        Ok(())
    }

    fn handle_installed(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        (vid, report): (Vid, &Report),
    ) -> Handled {
        if vid != self.view.vid || !self.accepts(shared, Event::Installed, peer) {
            return Ok(());
        }
        self.absorb(shared.now, peer, report)?;
        if let Phase::Installing(round) = &mut self.phase {
            round.awaited.remove(&peer);
        }
        Ok(())
    }

    fn handle_safe_point(&mut self, shared: &mut Shared, peer: PeerId, k: u64) -> Handled {
        if !self.accepts(shared, Event::AtSafePoint, peer) {
            return Ok(());
        }
        if let Phase::Rebuild(rebuild) = &mut self.phase {
            rebuild.amend_safe_called(peer, k.saturating_add(1));
            return Ok(());
        }
        if self.safe.call(peer, k)? == Call::Released {
            let vid = self.view.vid;
            shared.send(peer, MasterToPeer::SafeReleased { k, vid });
        }
        Ok(())
    }

    fn handle_link_down(
        &mut self,
        shared: &mut Shared,
        (peer, target): (PeerId, PeerId),
        (fault, gave_up): (LinkFault, bool),
    ) {
        if peer == target || !self.is_member(shared, target) {
            return;
        }
        if !self.accepts(shared, Event::LinkDown, peer) {
            return;
        }
        let due = shared.now + shared.timers.blame_window;
        self.blame.report((peer, target), (fault, gave_up), due);
        if gave_up && is_active(Mutation::BlameFirstTarget) {
            shared.condemn(target, EvictReason::Unreachable { by: vec![peer] });
        }
        if shared.sessions.is_detached(target) {
            self.condemn_dead(shared, target);
        }
    }

    /// A control connection of this group ended and was not closed by the master.
    pub fn handle_connection_ended(&mut self, shared: &mut Shared, peer: PeerId) {
        if self.is_member(shared, peer) && self.accepts(shared, Event::ConnectionEnded, peer) {
            self.condemn_dead(shared, peer);
        }
    }

    /// Evicts at once who has lost its control connection and, as a member saw, its data connections
    /// (R10). While a run is rebuilt, everybody's connections have just ended.
    fn condemn_dead(&self, shared: &mut Shared, peer: PeerId) {
        if self.blame.saw_end_of(peer) && !matches!(self.phase, Phase::Rebuild(_)) {
            shared.condemn(peer, EvictReason::Died);
        }
    }

    /// A session of this group has ended.
    pub fn handle_evicted(&mut self, shared: &mut Shared, peer: PeerId, reason: &EvictReason) {
        if self.newcomers.contains_key(&peer) {
            self.accepts(shared, Event::NewcomerLost, peer);
            self.newcomers.remove(&peer);
            return;
        }
        self.blame.forget(peer);
        self.safe.forget(peer);
        let rebuilding = matches!(self.phase, Phase::Rebuild(_));
        let member = rebuilding || self.view.contains(peer);
        if member && self.accepts(shared, Event::MemberLost, peer) {
            self.lose(shared, peer, reason);
        }
    }

    /// Takes in all that a member knows (R5). Facts only grow, so a report may come twice.
    pub fn absorb(&mut self, now: Instant, peer: PeerId, report: &Report) -> Handled {
        if report.vid > self.view.vid {
            return Err(format!("view {} does not exist", report.vid));
        }
        for tag in &report.tags {
            if tag.floor > self.ledger.floor(tag.tag) {
                return Err(format!(
                    "operation {} of tag {} is not decided",
                    tag.floor, tag.tag
                ));
            }
            let Some((note, held, cancel)) = ledger::open_note(tag) else {
                continue;
            };
            let at = (&self.view, now);
            match held {
                true => self.ledger.done(peer, &note, at)?,
                false => self.ledger.post(peer, &note, at)?,
            }
            if let Some(reason) = cancel {
                self.ledger.cancel(peer, note.op, reason);
            }
        }
        self.safe.restate(peer, report.safe_called)
    }

    /// Does what the facts now allow, until they allow nothing more.
    pub fn settle(&mut self, shared: &mut Shared) {
        loop {
            let before = self.phase.state();
            match &self.phase {
                Phase::Rebuild(_) => return,
                Phase::Founding => self.found(shared),
                Phase::Steady => {
                    self.commit(shared);
                    self.leave_steady(shared);
                }
                Phase::Suspended(change) if change.awaited.is_empty() => self.decide(shared),
                Phase::Suspended(_) => {}
                Phase::Installing(round) => {
                    let confirmed = round.awaited.is_empty();
                    self.commit(shared);
                    if confirmed {
                        self.release(shared);
                    }
                }
            }
            if self.phase.state() == before {
                break;
            }
        }
        self.announce(shared);
    }

    /// Deals with what has been waited for too long.
    pub fn expire(&mut self, shared: &mut Shared) {
        if matches!(self.phase, Phase::Rebuild(_)) {
            return;
        }
        for peer in self.unanswered(shared) {
            let silent_ms = answer_timeout(shared).as_millis() as u64;
            shared.condemn(peer, EvictReason::Silent { silent_ms });
        }
        if self.blame.due().is_some_and(|due| due <= shared.now) {
            self.judge(shared);
        }
        if let Some(timeout) = shared.timers.post_timeout {
            for (peer, reason) in presence::overdue(&self.ledger, timeout, shared.now) {
                shared.condemn(peer, reason);
            }
        }
    }

    /// When `expire` or `settle` has something to do even if nobody says anything.
    pub fn deadline(&self, shared: &Shared) -> Option<Instant> {
        if let Phase::Rebuild(rebuild) = &self.phase {
            return rebuild.deadline(shared.now);
        }
        let answers = self.answers_due(shared).map(|(_, due)| due).min();
        let presence = shared
            .timers
            .post_timeout
            .and_then(|t| presence::next(&self.ledger, t));
        let waits = self.newcomers.values().map(|newcomer| newcomer.not_before);
        let wait = waits.filter(|&until| until > shared.now).min();
        [answers, presence, wait, self.blame.due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn unanswered(&self, shared: &Shared) -> Vec<PeerId> {
        let late = self
            .answers_due(shared)
            .filter(|(_, due)| *due <= shared.now);
        late.map(|(peer, _)| peer).collect()
    }

    /// When each awaited member counts as silent although its heartbeats go on. A detached one has
    /// its own term.
    fn answers_due(&self, shared: &Shared) -> impl Iterator<Item = (PeerId, Instant)> {
        let (since, awaited) = match self.phase.awaited() {
            Some((since, awaited)) => (since, awaited.clone()),
            None => (shared.now, BTreeSet::new()),
        };
        let due = move |peer: PeerId| {
            let attached = shared.sessions.attached_since(peer)?;
            Some((peer, since.max(attached) + answer_timeout(shared)))
        };
        awaited.into_iter().filter_map(due)
    }

    fn judge(&mut self, shared: &mut Shared) {
        let links = self.blame.judge();
        let members = self.view.peers();
        let quiet = shared.timers.heartbeat_interval * 4;
        let silent = |peer: &PeerId| {
            shared.sessions.is_detached(*peer) || shared.sessions.silence(*peer, shared.now) > quiet
        };
        let suspects = members.iter().copied().filter(silent).collect();
        for (peer, by) in blame::culprits(links, &members, &suspects) {
            shared.condemn(peer, EvictReason::Unreachable { by });
        }
    }

    /// Tells members and newcomers whom to be linked with, whenever that has changed.
    fn announce(&mut self, shared: &mut Shared) {
        let newcomers: Vec<_> = self.newcomers.keys().copied().collect();
        let current = (self.view.vid, newcomers);
        if current == self.announced {
            return;
        }
        let both_empty = current.1.is_empty() && self.announced.1.is_empty();
        self.announced = current;
        if !both_empty {
            let mut all = self.view.peers();
            all.extend(self.newcomers.keys());
            self.send_expect(shared, &all);
        }
    }

    fn send_expect(&self, shared: &mut Shared, to: &[PeerId]) {
        if matches!(self.phase, Phase::Rebuild(_)) {
            return;
        }
        let sessions = self
            .newcomers
            .keys()
            .filter_map(|peer| shared.sessions.get(*peer));
        let expect = MasterToPeer::Expect {
            vid: self.view.vid,
            members: self.view.members.clone(),
            newcomers: sessions
                .map(|session| session.member(MemberNumber(0)))
                .collect(),
        };
        shared.send_all(to, &expect);
    }

    /// Installs a group's first members, or its first after all had gone, once enough are ready.
    fn found(&mut self, shared: &mut Shared) {
        let chosen = admission::choose(&BTreeSet::new(), &self.newcomers, shared.now);
        let wishes = self
            .newcomers
            .values()
            .map(|newcomer| newcomer.min_world as usize);
        let needed = wishes.max().unwrap_or(0).max(1);
        if chosen.len() >= needed {
            self.install(shared, (&BTreeSet::new(), &BTreeMap::new()), &chosen);
        }
    }

    /// Whether a peer counts as a member, as far as is known while a run is rebuilt.
    fn is_member(&self, shared: &Shared, peer: PeerId) -> bool {
        match &self.phase {
            Phase::Rebuild(_) => {
                let session = shared.sessions.get(peer);
                session.is_some_and(|session| session.registration.group == self.id)
                    && !self.newcomers.contains_key(&peer)
            }
            _ => self.view.contains(peer),
        }
    }

    /// Looks an event up in the transition table. Refused ones cost their sender the session.
    fn accepts(&self, shared: &mut Shared, event: Event, peer: PeerId) -> bool {
        let state = self.phase.state();
        match rule(state, event) {
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

/// How long a member may take to answer `Suspend` or `Install` while its heartbeats go on: a whole
/// round trip of the slowest link that is not silent.
fn answer_timeout(shared: &Shared) -> std::time::Duration {
    shared.timers.peer_timeout * 2
}
