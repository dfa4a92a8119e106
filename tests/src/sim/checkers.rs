//! What must hold, seen from outside: nothing here asks the machines.
//!
//! Agreement (P1, I1 to I8) over everything that any caller was ever told, those of dead and
//! evicted peers included. Endings of calls with their bytes are checked in `endings`, time in
//! `liveness`.

mod blame;
mod history;
mod promises;
mod returns;
mod silence;

use std::collections::{BTreeMap, BTreeSet};

use ccl_core::event::Event;
use ccl_core::ids::{Epoch, GroupId, OpName, OpNumber, PeerId, Rank, Tag, Term, Vid};
use ccl_core::peer::SessionEnd;
use ccl_core::time::Instant;
use ccl_core::wire::control::{
    EvictReason, Fingerprint, Install, MasterToPeer, PeerToMaster, Start, StateId, TagFloor,
};
use ccl_core::{Eviction, View};

use super::cluster::{HostId, World};
use super::peer_host::Host;
use super::workload::{CallKind, Operation};

/// What one host has sent and received, as far as rules depend on it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// It has flushed or attached and may post nothing.
    barred: bool,
    /// The newest view that it has flushed.
    flushed: Option<Vid>,
    /// It learned that its session is over.
    pub evicted: bool,
    /// Operations whose result it has.
    pub held: BTreeSet<OpName>,
    floors: BTreeMap<Tag, (OpNumber, Option<OpNumber>)>,
    safe_released: u64,
    /// The number of the newest call of each tag that ended.
    pub newest: BTreeMap<Tag, OpNumber>,
}

impl Told {
    /// It sends a message to the master.
    pub fn says(&mut self, message: &PeerToMaster) {
        match message {
            PeerToMaster::Flush { vid, .. } => {
                self.barred = true;
                self.flushed = Some(*vid);
            }
            PeerToMaster::Attach { .. } => self.barred = true,
            _ => {}
        }
    }

    /// It receives a message from the master.
    pub fn hears(&mut self, message: &MasterToPeer, from: Vid) {
        match message {
            MasterToPeer::Install(install) => {
                self.barred = self.is_barred_by(install);
                self.safe_released = self.safe_released.max(install.safe_released);
                for tag in returns::new_tags(install, from) {
                    self.floors.remove(&tag);
                    self.newest.remove(&tag);
                }
                for floor in &install.floors {
                    let entry = (floor.floor, floor.last_committed);
                    self.floors.insert(floor.tag, entry);
                }
            }
            MasterToPeer::Evicted { .. } => self.evicted = true,
            MasterToPeer::Welcome { .. } => self.evicted = false,
            _ => {}
        }
    }

    /// It has the result of an operation.
    pub fn holds(&mut self, op: OpName) {
        self.held.insert(op);
    }
}

/// Run, group, tag with the view from which on it is numbered so, and number: what an outcome
/// belongs to.
pub type OutcomeKey = (usize, GroupId, (Tag, Vid), OpNumber);

/// What callers were told of one operation.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its name and contributors, if a caller was told that it succeeded.
    pub committed: Option<(OpName, Vec<PeerId>)>,
    /// Hosts that were told that it was aborted.
    pub aborted: Option<HostId>,
    /// What it sealed, if it is a sync of shared state.
    pub state: Option<StateId>,
    /// The result, by rank where it differs.
    pub results: BTreeMap<Rank, u64>,
}

/// How one member called an operation.
#[derive(Clone, Debug)]
pub struct Started {
    /// The host.
    pub host: HostId,
    /// The call of the program.
    pub logical: u64,
    /// The call that it made.
    pub fingerprint: Fingerprint,
    /// Seed of its input.
    pub input_seed: u64,
    /// Whether sums are exact.
    pub exact: bool,
    /// When.
    pub at: Instant,
}

/// A view that a master sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its name.
    pub vid: Vid,
    /// Its members in rank order.
    pub members: Vec<PeerId>,
    /// Members of the view before that are in it.
    pub survivors: Vec<PeerId>,
}

/// The members of a view in rank order, and its ring.
type Order = (Vec<PeerId>, Vec<Rank>);

/// Everything that callers were ever told.
#[derive(Debug, Default)]
pub struct Checkers {
    /// What was told of each operation.
    pub outcomes: BTreeMap<OutcomeKey, Outcome>,
    views: BTreeMap<(usize, GroupId, Vid), Order>,
    /// Members of each operation.
    pub(super) births: BTreeMap<(usize, GroupId, OpName), Vec<PeerId>>,
    /// Views in which tags began anew.
    given_back: BTreeMap<(usize, GroupId, Tag), BTreeSet<Vid>>,
    /// Tags given back in views without members, which no member learns.
    emptied: BTreeMap<(GroupId, Vid), Vec<Tag>>,
    /// When each group lost its last member, and the views in which it was founded anew.
    pub(super) lost: BTreeMap<(usize, GroupId), Instant>,
    pub(super) foundings: BTreeMap<(usize, GroupId), BTreeMap<Vid, Instant>>,
    /// Hosts that started each operation.
    pub started: BTreeMap<(usize, GroupId, OpName), BTreeMap<PeerId, Started>>,
    /// The election of each sync of shared state.
    pub elections: BTreeMap<(usize, GroupId, OpName), StateId>,
    asked: BTreeSet<(HostId, u64)>,
    /// Sessions that the master ended, in the surviving run.
    pub evicted: BTreeMap<(usize, PeerId), EvictReason>,
    /// Views that masters sealed, by group, oldest first.
    pub sealed: BTreeMap<(usize, GroupId), Vec<Sealed>>,
    sealed_by: BTreeMap<(GroupId, Vid), u32>,
    terms: BTreeMap<(usize, GroupId), (u32, Term)>,
    incarnation: u32,
    /// The run that the master serves.
    pub run: usize,
    /// Groups in which a minority continued, so that a lost disk may lose its decisions.
    minority: BTreeSet<GroupId>,
    /// Groups for which the assumption of P1 does not hold (R11).
    pub broken: BTreeSet<GroupId>,
    /// When any host was heard last.
    pub heard: Instant,
    /// When a member was heard last.
    pub member_heard: Instant,
    /// Views sealed since the calm began.
    pub views_in_calm: u64,
    /// The basis of promises to single hosts.
    pub promises: promises::Promises,
}

impl Checkers {
    /// A master starts.
    pub fn master_started(&mut self, incarnation: u32) {
        self.incarnation = incarnation;
    }

    /// A master dies, and with it all that it knew if it has no disk.
    pub fn master_crashed(&mut self, diskless: bool) {
        if diskless {
            self.broken.extend(self.minority.iter().copied());
        }
    }

    /// An application asked to end a call.
    pub fn asked(&mut self, host: HostId, meeting: u64) {
        self.asked.insert((host, meeting));
    }

    /// Whether the application asked to end a call.
    #[must_use]
    pub fn has_asked(&self, host: HostId, meeting: u64) -> bool {
        self.asked.contains(&(host, meeting))
    }

    /// The master sends a message.
    ///
    /// # Errors
    /// A term that does not rise.
    pub fn master_sends(
        &mut self,
        host: Option<HostId>,
        message: &MasterToPeer,
        (hosts, journaled): (&[Host], bool),
    ) -> Result<(), String> {
        let (Some(host), MasterToPeer::Install(install)) = (host, message) else {
            return Ok(());
        };
        let Some(run) = hosts[host.0].run else {
            return Ok(());
        };
        for (peer, reason) in &install.departed {
            self.evicted.insert((run, *peer), reason.clone());
        }
        let (term, group) = (install.vid.term, hosts[host.0].group);
        let before = self.terms.insert((run, group), (self.incarnation, term));
        let (incarnation, newest) = before.unwrap_or_default();
        let fine = term > newest || (incarnation == self.incarnation && term == newest);
        ensure(fine || !journaled || self.broken.contains(&group), || {
            format!("a master began with term {term} after {newest}")
        })
    }

    /// A host receives a message.
    ///
    /// # Errors
    /// A commit that the host does not hold (I4), or a view that goes back (I6), forgets an open
    /// operation (I5), or differs from what others learned.
    pub fn host_hears(&mut self, host: &Host, message: &MasterToPeer) -> Result<(), String> {
        match message {
            MasterToPeer::Commit(records) => records.iter().try_for_each(|record| {
                let open = open_operations(host).any(|o| o.started == Some(record.op));
                ensure(!open || host.told.held.contains(&record.op), || {
                    format!(
                        "{} committed at a member that does not hold it (I4)",
                        record.op
                    )
                })
            }),
            MasterToPeer::Install(install) => self.host_hears_install(host, install),
            MasterToPeer::Elected {
                op,
                content,
                sources,
            } => self.host_hears_election(host, *op, (*content, sources)),
            _ => Ok(()),
        }
    }

    fn host_hears_install(&mut self, host: &Host, install: &Install) -> Result<(), String> {
        let vid = install.vid;
        let members: Vec<PeerId> = install.members.iter().map(|member| member.peer).collect();
        let sorted = install.members.is_sorted_by(|a, b| a.number < b.number);
        ensure(sorted, || format!("members of {vid} not in rank order"))?;
        self.view_agrees(host, vid, &members, &install.ring_order)?;
        self.hears_given_back(host, install)?;
        if self.broken.contains(&host.group) {
            return Ok(());
        }
        ensure(vid >= host.vid(), || {
            format!("view {vid} after {} (I6)", host.vid())
        })?;
        ensure(install.safe_released >= host.told.safe_released, || {
            format!("safe points fell to {} (I6)", install.safe_released)
        })?;
        install
            .floors
            .iter()
            .filter(|floor| !returns::new_tags(install, host.vid()).any(|tag| tag == floor.tag))
            .try_for_each(|floor| floor_is_monotone(host, floor))?;
        if vid > host.vid() {
            carried_is_complete(host, install)?;
        }
        Ok(())
    }

    fn view_agrees(
        &mut self,
        host: &Host,
        vid: Vid,
        members: &[PeerId],
        ring_order: &[Rank],
    ) -> Result<(), String> {
        let Some(run) = host.run else {
            return Ok(());
        };
        let mut ranks: Vec<usize> = ring_order.iter().map(|rank| rank.index()).collect();
        ranks.sort_unstable();
        ensure(ranks.iter().copied().eq(0..members.len()), || {
            format!("the ring of {vid} is {ring_order:?}")
        })?;
        let fresh = (members.to_vec(), ring_order.to_vec());
        let known = self
            .views
            .entry((run, host.group, vid))
            .or_insert_with(|| fresh.clone());
        ensure(*known == fresh, || {
            format!("view {vid} is {known:?} here and {fresh:?} there")
        })
    }

    /// A host's machine has a new view.
    ///
    /// # Errors
    /// It differs from what others learned, or goes back.
    pub fn host_learns_view(&mut self, host: &Host, view: &View) -> Result<(), String> {
        let members: Vec<PeerId> = view.members.iter().map(|member| member.peer).collect();
        self.view_agrees(host, view.vid, &members, &view.ring_order)?;
        ensure(view.vid > host.vid(), || {
            format!("view {} installed after {} (I6)", view.vid, host.vid())
        })
    }

    /// A host starts an operation.
    ///
    /// # Errors It may not post (R5), or others know other members (I3).
    pub fn operation_starts(
        &mut self,
        host: &Host,
        id: HostId,
        (start, at): (&Start, Instant),
        operation: &Operation,
    ) -> Result<(), String> {
        let (op, group) = (start.birth.op, host.group);
        let Some((run, peer)) = host.run.zip(host.peer.peer()) else {
            return Err(format!("{op} starts without a session"));
        };
        ensure(!host.told.barred, || {
            format!("{op} posted after a flush or an attach (R5)")
        })?;
        let members = start.birth.members.to_vec();
        ensure(members.get(start.rank.index()) == Some(&peer), || {
            format!("{op}: rank {} is not {peer} in {members:?}", start.rank)
        })?;
        let key = (run, group, op);
        let known = self.births.entry(key).or_insert_with(|| members.clone());
        ensure(*known == members, || {
            format!("{op} has members {known:?} and {members:?} (I3)")
        })?;
        let started = Started {
            host: id,
            logical: operation.logical.id,
            fingerprint: operation.fingerprint.clone(),
            input_seed: operation.input_seed,
            exact: operation.exact,
            at,
        };
        let calls = self.started.get(&key).into_iter().flatten();
        let apart = calls
            .map(|(_, call)| call)
            .find(|call| call.logical != started.logical && !host.app.scripted)
            .map(|call| call.host);
        let broken = self.broken.contains(&group) || operation.logical.late > 0;
        ensure(apart.is_none() || broken, || {
            format!("{op}: {id:?} and {apart:?} mean different calls")
        })?;
        let twice = self.started.entry(key).or_default().insert(peer, started);
        ensure(twice.is_none(), || format!("{op} started twice by {peer}"))
    }

    /// A session ends.
    ///
    /// # Errors
    /// The master was contradicted: that is always a fault of one of the machines.
    pub fn session_ended(&self, host: &Host, end: &SessionEnd) -> Result<(), String> {
        let broken = self.broken.contains(&host.group);
        if host.app.stranger {
            let fine = matches!(end, SessionEnd::Refused(_) | SessionEnd::Left);
            let fine = fine && host.run.is_none();
            return ensure(fine, || format!("a peer of another run ended as {end:?}"));
        }
        match end {
            SessionEnd::Refused(why)
                if host.view.is_none()
                    && host.run.is_none()
                    && !World::is_closed_group(host.group) =>
            {
                Err(format!("a newcomer was refused: {why}"))
            }
            SessionEnd::Protocol(what) if !broken => Err(format!("a session ended: {what}")),
            SessionEnd::Evicted(Eviction {
                reason: EvictReason::Protocol(what),
                ..
            }) if !broken => Err(format!("a peer was evicted: {what}")),
            _ => Ok(()),
        }
    }

    /// How its members called an operation, under any birth: a member that learns of the abort
    /// before it calls may not know the birth.
    pub fn calls_of(
        &self,
        (run, group, at): (usize, GroupId, Vid),
        (tag, n): (Tag, OpNumber),
    ) -> impl Iterator<Item = &Started> {
        let births = self.numbering((run, group, tag), at);
        self.births_of((run, group), (tag, n))
            .filter(move |((_, _, op), _)| births.contains(&op.birth))
            .flat_map(|(_, started)| started.values())
    }

    /// Names under which an operation was called.
    #[must_use]
    pub fn names_of(&self, at: (usize, GroupId), operation: (Tag, OpNumber)) -> Vec<OpName> {
        let births = self.births_of(at, operation);
        births.map(|((_, _, op), _)| *op).collect()
    }

    fn births_of(
        &self,
        (run, group): (usize, GroupId),
        (tag, n): (Tag, OpNumber),
    ) -> impl Iterator<Item = (&(usize, GroupId, OpName), &BTreeMap<PeerId, Started>)> {
        let birth = |term| Vid {
            term: Term(term),
            epoch: Epoch(term),
        };
        let name = |birth| (run, group, OpName { tag, n, birth });
        let all = name(birth(0))..=name(birth(u32::MAX));
        self.started.range(all)
    }

    /// Drops what a master without a journal sealed and no host learned.
    fn forget_unheard_view(&mut self, group: GroupId, term: Term) {
        let run = self.run;
        if let Some(list) = self.sealed.get_mut(&(run, group))
            && self.incarnation > 1
            && let Some(last) = list.last()
            && last.vid.term <= term
            && !self.views.contains_key(&(run, group, last.vid))
            && self.sealed_by.get(&(group, last.vid)) != Some(&self.incarnation)
        {
            list.pop();
        }
    }

    /// Members of an operation, in rank order.
    #[must_use]
    pub fn members_of(&self, key: (usize, GroupId, OpName)) -> &[PeerId] {
        self.births.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether the master ended this session.
    #[must_use]
    pub fn is_evicted(&self, run: Option<usize>, peer: PeerId) -> bool {
        run.is_some_and(|run| self.evicted.contains_key(&(run, peer)))
    }
}

/// Operations of a host that have not ended.
pub fn open_operations(host: &Host) -> impl Iterator<Item = &Operation> {
    host.app.calls.values().filter_map(|open| match &open.kind {
        CallKind::Operation(operation) => Some(operation),
        _ => None,
    })
}

fn floor_is_monotone(host: &Host, floor: &TagFloor) -> Result<(), String> {
    let Some((before, committed)) = host.told.floors.get(&floor.tag) else {
        return Ok(());
    };
    let fine = floor.floor >= *before && floor.last_committed >= *committed;
    ensure(fine, || {
        format!(
            "tag {} fell from {before} {committed:?} to {} {:?} (I6)",
            floor.tag, floor.floor, floor.last_committed
        )
    })
}

/// I5: at a new view each open operation that is not decided is carried under its birth.
fn carried_is_complete(host: &Host, install: &Install) -> Result<(), String> {
    for operation in open_operations(host) {
        let Some(op) = operation.started else {
            continue;
        };
        let floor = install.floors.iter().find(|floor| floor.tag == op.tag);
        let decided = floor.is_some_and(|floor| op.n < floor.floor);
        let carried = install.carried.iter().any(|carried| carried.op == op);
        ensure(decided || carried, || {
            format!(
                "{op} is open, not decided and not carried to {} (I5)",
                install.vid
            )
        })?;
    }
    Ok(())
}

/// Fails with these words unless a condition holds.
///
/// # Errors
/// The words.
pub fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}
