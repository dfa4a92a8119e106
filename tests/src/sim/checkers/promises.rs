//! Promises to single members and newcomers, judged by the messages sent and received, as soon as
//! the master decides: when a newcomer is admitted (R9), when a host may post (R5), that a stale
//! opening has no effect (R10), which sessions a new master takes over (R11).

use std::time::Duration;

use ccl_core::ids::CallId;
use ccl_core::master::{ConnectionId, Output, Record};
use ccl_core::time::Instant;

use super::*;
use crate::sim::liveness::Promise;
use crate::sim::workload::OpenCall;

/// The basis of promises.
#[derive(Debug, Default)]
pub struct Promises {
    /// The newest opening of each host that the present master has heard, and its connection.
    openings: BTreeMap<HostId, (u64, u64)>,
    /// Connections whose opening was not above the newest.
    stale: BTreeSet<u64>,
    /// Whether the master is hearing such an opening.
    hears_stale: bool,
    /// The newest view of each group that was suspended.
    closed: BTreeMap<(usize, GroupId), Vid>,
    /// Members of the newest view of each group, at the moment it was sealed.
    members: BTreeMap<GroupId, BTreeSet<PeerId>>,
    /// Peers that each newcomer reported as linked, over its present connection.
    linked: BTreeMap<HostId, BTreeSet<PeerId>>,
    /// The safe point that each member came to last.
    reached: BTreeMap<HostId, u64>,
    /// Safe points that admitted newcomers, with the resulting view.
    admitted: BTreeMap<(GroupId, u64), Vid>,
    /// Safe points of each group that were released.
    released: BTreeMap<GroupId, u64>,
    /// Safe points from which a member may have withdrawn.
    withdrawn: BTreeSet<(GroupId, u64)>,
    /// When each session was heard last, by run.
    pub(super) heard: BTreeMap<(Option<usize>, Option<PeerId>), Instant>,
    /// Sessions that the present master has ended or refused, by run.
    pub(super) gone: BTreeSet<(Option<usize>, Option<PeerId>)>,
    /// Hosts of which a peer was evicted because others cannot reach it, or for its state: the next
    /// one may have to wait.
    blamed: BTreeSet<std::net::IpAddr>,
}

impl Told {
    /// Whether it may post nothing after it has installed a view. After a flush only a later view
    /// allows posts again, whatever the message itself says.
    pub(super) fn is_barred_by(&self, install: &Install) -> bool {
        install.suspended || self.flushed.is_some_and(|flushed| install.vid <= flushed)
    }
}

impl World {
    /// A message reaches the master, which has not handled it yet.
    pub fn promises_before(&mut self, connection: u64, message: &PeerToMaster) {
        let host = match message {
            PeerToMaster::Hello { key, attach, .. } => {
                self.opens(connection, *attach, |host| host.key == *key)
            }
            PeerToMaster::Attach { .. } if self.is_open(connection) => {
                self.connections[connection as usize].host
            }
            PeerToMaster::Here {
                attach,
                claim,
                run_id,
                ..
            }
            | PeerToMaster::Attach {
                attach,
                claim,
                run_id,
                ..
            } => {
                let run = self.runs.iter().position(|run| run == run_id);
                self.opens(connection, *attach, |host| {
                    host.run == run && host.peer.peer() == Some(claim.peer)
                })
            }
            _ => self.connections[connection as usize].host,
        };
        let promises = &mut self.checkers.promises;
        let Some(host) = host.filter(|host| {
            let newest = promises.openings.get(host);
            newest.is_some_and(|(_, at)| *at == connection)
        }) else {
            return;
        };
        let group = self.hosts[host.0].group;
        match message {
            PeerToMaster::Ready { linked, .. } => {
                let linked = linked.iter().copied().collect();
                promises.linked.insert(host, linked);
            }
            PeerToMaster::LinkDown { peer, .. } => {
                if let Some(linked) = promises.linked.get_mut(&host) {
                    linked.remove(peer);
                }
            }
            PeerToMaster::AtSafePoint { k, .. } => drop(promises.reached.insert(host, *k)),
            PeerToMaster::Withdraw { k } => drop(promises.withdrawn.insert((group, *k))),
            PeerToMaster::Attach { report, .. }
            | PeerToMaster::Flush { report, .. }
            | PeerToMaster::Installed { report, .. } => {
                let reached = promises.reached.get(&host);
                if let Some(k) = reached.filter(|k| report.safe_called <= **k) {
                    promises.withdrawn.insert((group, *k));
                }
                if let Some(k) = report.safe_called.checked_sub(1) {
                    promises.reached.insert(host, k);
                }
            }
            _ => {}
        }
    }

    /// Whether a connection began with another message.
    fn is_open(&self, connection: u64) -> bool {
        let mut openings = self.checkers.promises.openings.values();
        openings.any(|(_, at)| *at == connection)
    }

    /// A connection begins. Returns its host if it counts.
    fn opens(
        &mut self,
        connection: u64,
        attach: u64,
        is_it: impl Fn(&Host) -> bool,
    ) -> Option<HostId> {
        let host = HostId(self.hosts.iter().position(is_it)?);
        let promises = &mut self.checkers.promises;
        let newest = promises.openings.get(&host).map(|(newest, _)| *newest);
        if newest.is_some_and(|newest| attach <= newest) {
            promises.stale.insert(connection);
            promises.hears_stale = true;
            return None;
        }
        promises.openings.insert(host, (attach, connection));
        promises.linked.remove(&host);
        Some(host)
    }

    /// The master learns that a connection has ended.
    pub fn promises_closed(&mut self, connection: u64) {
        let promises = &mut self.checkers.promises;
        let openings = &promises.openings;
        promises
            .linked
            .retain(|host, _| openings.get(host).is_none_or(|(_, at)| *at != connection));
    }

    /// The master has handled the message.
    pub fn promises_heard(&mut self) {
        self.checkers.promises.hears_stale = false;
    }

    /// The master has an output.
    pub fn promises_after(&mut self, output: &Output) {
        let checked = match output {
            Output::Journal { record, durable } => self.promises_sealed(record, *durable),
            Output::Send {
                connection: ConnectionId(connection),
                message,
            } => self.promises_said(*connection, message),
            Output::Event(Event::Evicted { peer, reason, .. }) => self.promises_gone(*peer, reason),
            Output::Close {
                connection: ConnectionId(connection),
            } => {
                // A host that is evicted, or leaves, is no longer ready.
                self.promises_closed(*connection);
                Ok(())
            }
            Output::Event(_) => Ok(()),
        };
        self.check(checked);
    }

    /// A host is no longer a member or newcomer.
    fn promises_gone(&mut self, peer: PeerId, reason: &EvictReason) -> Result<(), String> {
        let run = Some(self.checkers.run);
        let promises = &mut self.checkers.promises;
        ensure(!promises.hears_stale, || {
            format!("{peer} was evicted because a stale opening was heard: {reason} (R10)")
        })?;
        promises.gone.insert((run, Some(peer)));
        let mut hosts = self.hosts.iter().enumerate();
        let is_it = |host: &Host| host.run == run && host.peer.peer() == Some(peer);
        if let Some((index, host)) = hosts.find(|(_, host)| is_it(host)) {
            promises.linked.remove(&HostId(index));
            let waits = |reason: &EvictReason| {
                matches!(
                    reason,
                    EvictReason::Unreachable { .. } | EvictReason::RevisionAhead { .. }
                )
            };
            if waits(reason) {
                promises.blamed.insert(host.address.ip());
            }
        }
        Ok(())
    }

    /// The master sends over a connection.
    fn promises_said(&mut self, connection: u64, message: &MasterToPeer) -> Result<(), String> {
        let is_stale = self.checkers.promises.stale.contains(&connection);
        let is_end = matches!(
            message,
            MasterToPeer::Evicted { .. } | MasterToPeer::Refused { .. }
        );
        ensure(!is_stale || is_end, || {
            format!("a stale opening on c{connection} was answered: {message:?} (R10)")
        })?;
        let Some(host) = self.connections[connection as usize].host else {
            return Ok(());
        };
        let host = &self.hosts[host.0];
        if is_end && host.connection == Some(connection) && host.peer.peer().is_some() {
            self.is_no_member(host, message)?;
            let session = (host.run, host.peer.peer());
            self.checkers.promises.gone.insert(session);
        }
        let Some(run) = host.run else {
            return Ok(());
        };
        let key = (run, host.group);
        let closed = &mut self.checkers.promises.closed;
        match message {
            MasterToPeer::Suspend { vid } => {
                let newest = closed.entry(key).or_insert(*vid);
                *newest = (*vid).max(*newest);
                Ok(())
            }
            MasterToPeer::Install(install) => {
                let is_over = closed.get(&key).is_some_and(|vid| install.vid <= *vid);
                let broken = self.checkers.broken.contains(&host.group);
                ensure(!is_over || install.suspended || broken, || {
                    format!(
                        "{} has been ended, and may be posted in again (R5)",
                        install.vid
                    )
                })
            }
            _ => Ok(()),
        }
    }

    /// A session learns that it is not a member. A master that has just started takes over all
    /// members of the newest view, whether or not its journal names them (R11).
    fn is_no_member(&self, host: &Host, message: &MasterToPeer) -> Result<(), String> {
        let reason = EvictReason::NotAMember;
        let is_told = *message == MasterToPeer::Evicted { reason };
        let (run, peer) = (Some(self.checkers.run), host.peer.peer());
        let Some(peer) = peer.filter(|_| is_told && host.run == run) else {
            return Ok(());
        };
        let newest = self.checkers.newest_view(host.group);
        let found = self.master.found.get(&host.group);
        let is_newest = found.is_none_or(|(vid, _)| *vid <= host.vid());
        let newest = newest.filter(|view| view.vid == host.vid() && is_newest);
        let is_member = newest.is_some_and(|view| view.members.contains(&peer));
        let is_gone = self.checkers.promises.gone.contains(&(run, Some(peer)));
        let window = self.master.started + self.swarm.timers.rebuild_window;
        let is_late = self.now >= window || self.checkers.broken.contains(&host.group);
        ensure(!is_member || is_gone || is_late, || {
            let vid = host.vid();
            format!("{peer} of the newest view {vid} was turned away by a new master (R11)")
        })
    }

    /// The master seals a record. A newcomer that is ready at a safe point is admitted there,
    /// unless a member does not wait for it.
    fn promises_sealed(&mut self, record: &Record, durable: bool) -> Result<(), String> {
        let (group, k) = match record {
            Record::ViewSealed(view) => {
                self.check_closed_view(view)?;
                let members = view.members.iter().map(|sealed| sealed.member.peer);
                let members: BTreeSet<PeerId> = members.collect();
                if view.members.is_empty() {
                    // No member learns of it, and so none learns which tags begin anew.
                    let run = self.checkers.run;
                    for given in &view.given_back {
                        let key = (run, view.group, given.tag);
                        let begun = self.checkers.given_back.entry(key);
                        begun.or_default().insert(given.vid);
                    }
                }
                let promises = &mut self.checkers.promises;
                let known = promises.members.insert(view.group, members.clone());
                // Otherwise members had agreed on it before.
                let is_admission = known.is_none_or(|known| !members.is_subset(&known));
                let before = promises.released.insert(view.group, view.safe_released);
                let is_later = before.is_some_and(|before| before < view.safe_released);
                if is_later && is_admission {
                    let k = view.safe_released - 1;
                    promises.admitted.insert((view.group, k), view.vid);
                }
                return Ok(());
            }
            Record::SafePoint { group, k, .. } => {
                let promises = &mut self.checkers.promises;
                promises.released.insert(*group, k + 1);
                // A group that begins anew counts from 0 again, and may admit no newcomer this
                // time.
                promises.admitted.remove(&(*group, *k));
                (*group, *k)
            }
            _ => return Ok(()),
        };
        let promises = &self.checkers.promises;
        let Some(members) = promises.members.get(&group) else {
            return Ok(());
        };
        // What members agreed on is written lazily.
        if !durable || self.has_sites() || promises.withdrawn.contains(&(group, k)) {
            return Ok(());
        }
        let ready = promises.linked.iter().find(|(host, linked)| {
            let host = &self.hosts[host.0];
            let peer = host.peer.peer();
            host.group == group
                && host.run == Some(self.checkers.run)
                && peer.is_some_and(|peer| !members.contains(&peer))
                && members.is_subset(linked)
                && !promises.blamed.contains(&host.address.ip())
        });
        ensure(ready.is_none(), || {
            format!(
                "safe point {k} of {group} changes nothing although {:?} is ready (R9)",
                ready.map(|(host, _)| host)
            )
        })
    }

    /// A safe point ends at a host. One that admitted newcomers is an outcome of a view change.
    ///
    /// # Errors It is reported before that view was released (R6).
    pub fn safe_point_ended(&self, host: HostId) -> Result<(), String> {
        let state = &self.hosts[host.0];
        let Some(k) = state.app.round else {
            return Ok(());
        };
        match self.checkers.promises.admitted.get(&(state.group, k)) {
            Some(vid) => self.check_released(host, *vid),
            None => Ok(()),
        }
    }

    /// A master starts: it has heard no host.
    pub fn promises_restart(&mut self) {
        let promises = &mut self.checkers.promises;
        promises.openings.clear();
        promises.stale.clear();
        self.promises_outdated();
    }

    /// The master has forgotten its sessions, but not over which connections it heard them.
    pub fn promises_outdated(&mut self) {
        let promises = &mut self.checkers.promises;
        promises.gone.clear();
        promises.linked.clear();
        promises.released.clear();
    }

    /// A peer that an abort names as lost was a member of the operation.
    ///
    /// # Errors
    /// It was not.
    pub fn lost_was_member(
        &self,
        (run, host): (usize, HostId),
        op: OpName,
        lost: PeerId,
    ) -> Result<(), String> {
        let host = &self.hosts[host.0];
        let checkers = &self.checkers;
        let births = checkers.numbering((run, host.group, op.tag), host.vid());
        let names = checkers.names_of((run, host.group), (op.tag, op.n));
        let mut names = names
            .into_iter()
            .filter(|name| births.contains(&name.birth))
            .peekable();
        let is_known = names.peek().is_some();
        let is_member = names.any(|name| {
            let members = checkers.members_of((run, host.group, name));
            members.contains(&lost)
        });
        ensure(is_member || !is_known, || {
            format!("{op} was aborted for the loss of {lost}, who is no member of it (R4)")
        })
    }

    /// When a call that asks now for its end has ended at the latest.
    pub fn promise_end(&mut self, host: HostId, call: CallId, asked: Instant) {
        let timers = self.swarm.timers;
        let soon = timers.peer_timeout + self.slack(host) * 3;
        // The time for a verdict stands still for a heartbeat after this process has (R20).
        let late = timers.verdict_timeout + timers.heartbeat_interval;
        for (bound, is_plain) in [(soon, true), (late, false)] {
            let promise = Promise::CallEnded {
                host,
                call,
                asked,
                freeze: self.hosts[host.0].freezes,
                master: is_plain.then_some((self.master.incarnation, self.master.freezes)),
            };
            let at = asked + bound + Duration::from_millis(1);
            self.schedule_at(at, crate::sim::cluster::Event::Check(promise));
        }
    }

    /// R8: a call ends in time after it was cancelled or its deadline has passed. `master`: the one
    /// that must have decided it, all members being well; `None`: whatever has happened.
    pub fn check_call_ended(
        &self,
        (host, call): (HostId, CallId),
        (asked, freeze): (Instant, u64),
        master: Option<(u32, u64)>,
    ) -> Result<(), String> {
        let state = &self.hosts[host.0];
        let Some(OpenCall {
            kind: CallKind::Operation(operation),
            ..
        }) = state.app.calls.get(&call)
        else {
            return Ok(());
        };
        if state.freezes != freeze || !state.is_running() || !state.is_live() {
            return Ok(());
        }
        if let Some(master) = master {
            let awake = (self.master.incarnation, self.master.freezes);
            let is_same = master == awake && self.master.is_awake();
            let members = self.members_of(state.group);
            let since = Instant(asked.0.saturating_sub(QUIET.as_nanos() as u64));
            let well = |id: &HostId| self.is_well_since(&self.hosts[id.0], since);
            let plain = is_same
                && operation.started.is_some()
                && members.contains(&host)
                && members.iter().all(well)
                && self.newest_link_trouble < since
                && self.master.started.max(self.master.thawed) < since;
            if !plain {
                return Ok(());
            }
        }
        Err(format!(
            "{host:?} call {call} ({:?}) is open long after it was asked to end (R8)",
            operation.started
        ))
    }
}

/// Time without faults after which decisions must come in time.
const QUIET: Duration = Duration::from_secs(1);
