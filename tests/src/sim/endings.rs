//! How calls end: agreement of all outcomes, and the bytes in the caller's buffers.

use ccl_core::ids::{GroupId, OpName, PeerId, Rank};
use ccl_core::peer::End;
use ccl_core::wire::control::{AbortReason, Called, CancelReason, Fingerprint, Kind, Late};

use super::checkers::{Outcome, Started, ensure};
use super::cluster::{HostId, World};
use super::plane::Memory;
use super::reference;
use super::rng::{mix, mix_all};
use super::workload::Operation;

impl World {
    /// Checks how a collective ended, and what its buffers hold.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_ending(
        &mut self,
        host: HostId,
        operation: &Operation,
        end: &End,
        memory: Option<Memory>,
    ) -> Result<(), String> {
        self.stats.ending(end);
        match end {
            End::Committed {
                op, contributors, ..
            } => self.check_committed(host, operation, (*op, contributors), memory),
            End::Aborted { op, reason, view } => {
                self.input_unchanged(host, operation, memory.as_ref())?;
                self.check_aborted(host, operation, (*op, reason))?;
                self.check_released(host, view.vid)
            }
            End::Unknown { .. } => self.input_unchanged(host, operation, memory.as_ref()),
            other => Err(format!("a collective ended as {other:?}")),
        }
    }

    /// I10, P2: after any other end than success the input is unchanged.
    fn input_unchanged(
        &self,
        host: HostId,
        operation: &Operation,
        memory: Option<&Memory>,
    ) -> Result<(), String> {
        let Some(memory) = memory else {
            return Ok(());
        };
        for (index, bytes) in memory.input.iter().enumerate() {
            let part = operation.parts[index];
            let seed = mix_all(&[operation.input_seed, index as u64]);
            let count = bytes.len() / part.dtype.bytes();
            let before = reference::input(seed, part.dtype, count, operation.exact);
            ensure(before == *bytes, || {
                format!(
                    "{host:?} {:?}: its input was changed (P2)",
                    operation.started
                )
            })?;
        }
        Ok(())
    }

    fn outcome(
        &mut self,
        host: HostId,
        op: OpName,
    ) -> Result<(&mut Outcome, GroupId, usize), String> {
        let state = &mut self.hosts[host.0];
        let run = state.run.ok_or("an outcome was told without a session")?;
        let (group, vid) = (state.group, state.vid());
        let newest = state.told.newest.insert(op.tag, op.n);
        let gap_free = newest.is_none_or(|newest| newest.next() == op.n);
        if !gap_free && !self.checkers.broken.contains(&group) {
            return Err(format!("{host:?} was told {op} after {newest:?} (I7)"));
        }
        let key = self.checkers.outcome_key((run, group), op, vid);
        Ok((self.checkers.outcomes.entry(key).or_default(), group, run))
    }

    fn check_committed(
        &mut self,
        host: HostId,
        operation: &Operation,
        (op, contributors): (OpName, &[PeerId]),
        memory: Option<Memory>,
    ) -> Result<(), String> {
        ensure(operation.started == Some(op), || {
            format!("{op} committed, but {:?} was called", operation.started)
        })?;
        let me = self.hosts[host.0].peer.peer();
        let (outcome, group, run) = self.outcome(host, op)?;
        let aborted = outcome.aborted;
        let told = outcome
            .committed
            .get_or_insert_with(|| (op, contributors.to_vec()))
            .clone();
        if self.checkers.broken.contains(&group) {
            return Ok(());
        }
        let fewest = operation.fingerprint.min_world as usize;
        ensure(contributors.len() >= fewest, || {
            format!("{op} committed with {contributors:?}, but needs {fewest}")
        })?;
        ensure(aborted.is_none(), || {
            format!("{op} committed at {host:?} and aborted at {aborted:?} (I1)")
        })?;
        ensure(told.0 == op && told.1 == contributors, || {
            format!("{op} has contributors {told:?} and {contributors:?} (I2)")
        })?;
        let started = self
            .checkers
            .started
            .get(&(run, group, op))
            .cloned()
            .unwrap_or_default();
        if let Some(call) = me.and_then(|me| started.get(&me)) {
            self.check_fork(host, (run, group, op), call.at)?;
        }
        let mine = &operation.fingerprint;
        for peer in contributors {
            let theirs = started
                .get(peer)
                .ok_or_else(|| format!("{peer} contributes to {op} but never called it (H9)"))?;
            ensure(mine.difference(&theirs.fingerprint).is_none(), || {
                format!("{op} committed although calls differ (R12)")
            })?;
        }
        let members = self.checkers.members_of((run, group, op)).len();
        ensure(mine.is_empty() || contributors.len() == members, || {
            format!("{op} commits with {contributors:?} of {members} members")
        })?;
        let rank = me.and_then(|me| contributors.iter().position(|peer| *peer == me));
        let rank = Rank(rank.ok_or("it is no contributor of its own success")? as u32);
        if mine.kind() == Kind::SharedState {
            return self.check_sync_committed(host, (run, group, op));
        }
        let memory = memory.ok_or_else(|| format!("{op} committed but never ran"))?;
        self.check_bytes((run, group, op), operation, (contributors, rank), &memory)
    }

    /// P6: the bytes are those of the reference, over the contributors in rank order.
    fn check_bytes(
        &mut self,
        (run, group, op): (usize, GroupId, OpName),
        operation: &Operation,
        (contributors, rank): (&[PeerId], Rank),
        memory: &Memory,
    ) -> Result<(), String> {
        let by_rank = operation.fingerprint.kind() == Kind::ReduceScatter;
        let slot = if by_rank { rank } else { Rank(0) };
        let result = memory.result.as_ref().unwrap_or(&memory.input);
        let digest = digest(result);
        let key = self.checkers.outcome_key((run, group), op, op.birth);
        let known = self.checkers.outcomes[&key].results.get(&slot).copied();
        let expected = known.unwrap_or_else(|| {
            let started = &self.checkers.started[&(run, group, op)];
            let calls: Vec<&Started> = contributors.iter().map(|peer| &started[peer]).collect();
            let result = expected(operation, &calls, rank);
            super::endings::digest(&result)
        });
        if let Some(outcome) = self.checkers.outcomes.get_mut(&key) {
            outcome.results.insert(slot, expected);
        }
        ensure(digest == expected, || {
            format!("{op}: the result at rank {rank} is not that of the reference (P6)")
        })
    }

    fn check_aborted(
        &mut self,
        host: HostId,
        operation: &Operation,
        (op, reason): (OpName, &AbortReason),
    ) -> Result<(), String> {
        let evicted = self.hosts[host.0].told.evicted;
        let (outcome, group, run) = self.outcome(host, op)?;
        outcome.aborted = Some(host);
        let committed = outcome.committed.clone();
        if self.checkers.broken.contains(&group) {
            return Ok(());
        }
        ensure(committed.is_none(), || {
            format!("{op} aborted at {host:?} and committed as {committed:?} (I1)")
        })?;
        ensure(!evicted, || {
            format!("{op}: {host:?} is evicted and was told aborted (R7)")
        })?;
        match reason {
            AbortReason::Lost { peer, .. } => {
                // A master that crashes may have sealed a loss that no host learned.
                let newest = self.checkers.newest_view(group);
                let is_gone = newest.is_some_and(|view| !view.members.contains(peer));
                let known = is_gone || self.checkers.is_evicted(Some(run), *peer);
                ensure(known, || format!("{op} names {peer} as lost, who is not"))?;
                self.lost_was_member((run, host), op, *peer)
            }
            AbortReason::Cancelled { by, reason } => {
                self.check_cancelled(operation, (op, run, host), (*by, reason))
            }
            AbortReason::State(fault) => self.check_sync_fault(operation, (run, group, op), fault),
        }
    }

    /// A cancel has a cause: a host asked for it, or calls differ.
    fn check_cancelled(
        &self,
        operation: &Operation,
        (op, run, host): (OpName, usize, HostId),
        (by, reason): (PeerId, &CancelReason),
    ) -> Result<(), String> {
        match reason {
            CancelReason::Mismatch { .. } => {
                let host = &self.hosts[host.0];
                let calls = (run, host.group, host.vid());
                let mut calls = self.checkers.calls_of(calls, (op.tag, op.n));
                let first = calls.next();
                let differ = calls
                    .any(|call| first.is_some_and(|f| differs(&f.fingerprint, &call.fingerprint)));
                ensure(differ, || format!("{op}: {reason}, but no calls differ"))
            }
            CancelReason::Crossed(crossed) => {
                let key = (run, self.hosts[host.0].group, op);
                self.check_uncalled(key, &crossed.there.first, reason)
            }
            CancelReason::Local(what) => Err(format!("{op} was cancelled by {by}: {what}")),
            _ => {
                let asked = self.hosts.iter().enumerate().any(|(index, host)| {
                    host.run == Some(run)
                        && host.peer.peer() == Some(by)
                        && self
                            .checkers
                            .has_asked(HostId(index), operation.logical.meeting())
                });
                ensure(asked, || {
                    format!("{op}: peer {by} is said to have asked for the end ({reason})")
                })?;
                self.check_late((run, self.hosts[host.0].group, op), reason)
            }
        }
    }

    /// A host that is named as not having called what timed out never did.
    fn check_late(
        &self,
        key: (usize, GroupId, OpName),
        reason: &CancelReason,
    ) -> Result<(), String> {
        let CancelReason::Deadline {
            late: Some(Late::Uncalled { peers, .. }),
        } = reason
        else {
            return Ok(());
        };
        self.check_uncalled(key, &peers.first, reason)
    }

    fn check_uncalled(
        &self,
        key: (usize, GroupId, OpName),
        peers: &[PeerId],
        reason: &CancelReason,
    ) -> Result<(), String> {
        let Some(started) = self.checkers.started.get(&key) else {
            return Ok(());
        };
        let called = peers.iter().find(|peer| started.contains_key(peer));
        ensure(called.is_none(), || {
            format!("{}: {called:?} had called it, but: {reason}", key.2)
        })
    }

    /// I8: what was decided at a change is told only when all old survivors have the new view.
    pub(super) fn check_released(&self, host: HostId, vid: ccl_core::Vid) -> Result<(), String> {
        let group = self.hosts[host.0].group;
        let run = self.hosts[host.0].run;
        let Some(sealed) = run
            .and_then(|run| self.checkers.sealed.get(&(run, group)))
            .and_then(|list| list.iter().rev().find(|sealed| sealed.vid == vid))
        else {
            return Ok(());
        };
        for peer in &sealed.survivors {
            if self.checkers.is_evicted(run, *peer) {
                continue;
            }
            let behind = self
                .hosts
                .iter()
                .find(|host| host.run == run && host.peer.peer() == Some(*peer))
                .is_some_and(|host| host.vid() < vid);
            ensure(!behind, || {
                format!(
                    "{host:?} was told the end of a call in {vid} before {peer} installed it (I8)"
                )
            })?;
        }
        Ok(())
    }
}

fn differs(one: &Fingerprint, other: &Fingerprint) -> bool {
    one.difference(other).is_some()
}

/// The right result at this rank.
fn expected(operation: &Operation, calls: &[&Started], rank: Rank) -> Vec<Vec<u8>> {
    let fingerprint = &operation.fingerprint;
    let world = calls.len();
    operation
        .parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let shares = if fingerprint.kind() == Kind::ReduceScatter {
                world
            } else {
                1
            };
            let count = part.count as usize * shares;
            let inputs: Vec<Vec<u8>> = calls
                .iter()
                .map(|call| {
                    let seed = mix_all(&[call.input_seed, index as u64]);
                    reference::input(seed, part.dtype, count, call.exact)
                })
                .collect();
            let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            match fingerprint.called {
                Called::AllReduce { reduce_op, .. } => {
                    reference::reduce(part.dtype, reduce_op, &slices)
                }
                Called::ReduceScatter { reduce_op, .. } => {
                    let all = reference::reduce(part.dtype, reduce_op, &slices);
                    let share = all.len() / world;
                    all[rank.index() * share..(rank.index() + 1) * share].to_vec()
                }
                Called::AllGather { .. } => slices.concat(),
                Called::Broadcast { .. } => inputs[0].clone(),
                Called::Barrier | Called::Sync(_) => Vec::new(),
            }
        })
        .collect()
}

/// A number for buffers of any length.
#[must_use]
pub fn digest(buffers: &[Vec<u8>]) -> u64 {
    let mut sum = buffers.len() as u64;
    for buffer in buffers {
        sum = mix(sum ^ buffer.len() as u64);
        for chunk in buffer.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = mix(sum ^ u64::from_le_bytes(word));
        }
    }
    sum
}
