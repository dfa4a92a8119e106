//! Streams of records (R17): seals the open step of each, and tells the members.
//!
//! A record is on disk before it is sent, and callers may be told at once; without a journal they
//! are told when a majority of a released view has it. No view change aborts a step: who is lost
//! gives nothing. Before a member receives a view it receives all records sealed before that view.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{PeerId, Step, StreamId};
use crate::limits::{RECORDS_BEHIND_BYTES_MAX, RECORDS_BEHIND_MAX, STREAMS_MAX};
use crate::master::group::phase::{Event, Phase};
use crate::master::group::stream::Stream;
use crate::master::group::{Group, Handled};
use crate::master::history::record::{KeptStream, Record};
use crate::master::shared::Shared;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    Chain, Claim, Entry, EvictReason, MasterToPeer, Member, Report, SealedRecord, StreamPlace,
};

/// The records of a stream before a step.
#[derive(Clone, Copy, Debug)]
pub struct StreamStep {
    pub stream: StreamId,
    pub next: Step,
}

/// The streams of a group.
#[derive(Debug, Default)]
pub struct Records {
    pub streams: BTreeMap<StreamId, Stream>,
}

impl Records {
    /// What a journal says.
    pub fn restored(chains: BTreeMap<StreamId, Chain>) -> Self {
        let streams = chains
            .into_iter()
            .map(|(id, chain)| (id, Stream::of(chain)));
        Self {
            streams: streams
                .filter(|_| !is_active(Mutation::ChainForgotten))
                .collect(),
        }
    }

    /// A member is gone.
    pub fn forget(&mut self, peer: PeerId) {
        self.streams
            .values_mut()
            .for_each(|stream| stream.forget(peer));
    }

    /// A newcomer begins where each stream stands.
    pub fn admit(&mut self, peer: PeerId) {
        for stream in self.streams.values_mut() {
            let next = stream.chain.place().next;
            stream.note(peer, next, Step(0));
        }
    }

    /// How far each stream has come.
    pub fn places(&self) -> Vec<StreamPlace> {
        let streams = self.streams.iter();
        streams.map(|(id, stream)| stream.place(*id)).collect()
    }

    /// Whether a report names a record that does not exist here.
    pub fn is_behind(&self, report: &Report) -> bool {
        report.streams.iter().any(|theirs| {
            let own = self.streams.get(&theirs.stream);
            let next = own.map(|own| own.chain.place().next).unwrap_or_default();
            theirs.place.next > next
        })
    }

    /// The streams with all that is kept of them.
    fn kept(&self) -> Vec<KeptStream> {
        let streams = self.streams.iter();
        KeptStream::of(streams.map(|(id, stream)| (id, &stream.chain)))
    }

    fn enter(&mut self, member: &Member, entry: Entry, now: Instant) -> Handled {
        let is_new = !self.streams.contains_key(&entry.stream);
        if is_new && self.streams.len() >= STREAMS_MAX {
            return Err(format!("it uses more than {STREAMS_MAX} streams"));
        }
        let stream = self.streams.entry(entry.stream).or_default();
        stream.enter(member, entry, now)
    }

    /// All that a member knows of records.
    fn absorb(&mut self, member: &Member, report: &Report, now: Instant) -> Handled {
        report.streams.iter().try_for_each(|theirs| {
            if !self.streams.contains_key(&theirs.stream) && self.streams.len() >= STREAMS_MAX {
                return Err(format!("it uses more than {STREAMS_MAX} streams"));
            }
            let stream = self.streams.entry(theirs.stream).or_default();
            stream.absorb(member, theirs, now)
        })
    }
}

impl Group {
    pub fn handle_entered(&mut self, shared: &mut Shared, peer: PeerId, entry: Entry) -> Handled {
        if !self.accepts(shared, Event::Entered, peer) {
            return Ok(());
        }
        match self.member(peer).cloned() {
            Some(member) => self.records.enter(&member, entry, shared.now),
            None => Ok(()),
        }
    }

    pub fn handle_records_held(&mut self, shared: &mut Shared, peer: PeerId, held: StreamStep) {
        if !self.accepts(shared, Event::RecordsHeld, peer) {
            return;
        }
        if let Some(stream) = self.records.streams.get_mut(&held.stream) {
            stream.note(peer, Step(0), held.next);
        }
    }

    /// Adds what a member reports of records.
    pub fn absorb_records(&mut self, peer: PeerId, report: &Report, now: Instant) -> Handled {
        match self.member(peer).cloned() {
            Some(member) => self.records.absorb(&member, report, now),
            None => Ok(()),
        }
    }

    fn member(&self, peer: PeerId) -> Option<&Member> {
        self.view.members.iter().find(|member| member.peer == peer)
    }

    /// Members that are not lost.
    fn present(&self, shared: &Shared) -> BTreeSet<PeerId> {
        let members = self.view.peers().into_iter();
        members
            .filter(|peer| self.is_member(shared, *peer))
            .collect()
    }

    /// Seals what is due, tells members, and evicts those that are too far behind.
    pub fn seal_records(&mut self, shared: &mut Shared) {
        if matches!(self.phase, Phase::Rebuild(_) | Phase::Founding) {
            return;
        }
        if self.records.streams.is_empty() {
            return;
        }
        let present = self.present(shared);
        let longest = shared.timers.post_timeout;
        let ids: Vec<StreamId> = self.records.streams.keys().copied().collect();
        for id in ids {
            let due = self.records.streams[&id].due(&present, longest);
            if due.is_some_and(|due| due <= shared.now) {
                self.seal_record(shared, id, &present);
            }
        }
        self.release_records(shared, &present);
    }

    /// Seals the open step of a stream.
    fn seal_record(&mut self, shared: &mut Shared, id: StreamId, present: &BTreeSet<PeerId>) {
        let mut members = self.view.members.clone();
        members.retain(|member| present.contains(&member.peer));
        let Some(stream) = self.records.streams.get_mut(&id) else {
            return;
        };
        let record = stream.seal(id, &members);
        let next = stream.chain.place().next;
        let (floor, _) = stream.floor(present);
        if shared.is_journaled {
            stream.released = next;
        }
        let sealed = SealedRecord {
            check: stream.chain.place().hash.into(),
            behind: u32::try_from(record.step.0.saturating_sub(floor.0)).unwrap_or(u32::MAX),
            is_released: stream.released == next,
            record: record.clone(),
        };
        let group = self.id;
        match is_active(Mutation::RecordSealedLazily) {
            true => shared
                .outbox
                .seal_lazily(Record::Recorded { group, record }),
            false => shared.outbox.seal(Record::Recorded { group, record }),
        }
        shared.send_all(present, &MasterToPeer::Recorded(sealed));
        self.evict_behind(shared, present);
    }

    /// Members keep what others have not consumed, so nobody may be too far behind.
    fn evict_behind(&self, shared: &mut Shared, present: &BTreeSet<PeerId>) {
        let mut bytes_behind = 0;
        let mut heaviest: Option<(usize, Laggards)> = None;
        for (&id, stream) in &self.records.streams {
            let (floor, last) = stream.floor(present);
            let laggards = Laggards {
                stream: id,
                steps: stream.chain.place().next.0 - floor.0,
                last,
            };
            if laggards.steps > RECORDS_BEHIND_MAX {
                laggards.evict(shared);
            }
            let bytes = stream.chain.bytes_since(floor);
            bytes_behind += bytes;
            // The newest record alone may be longer than the limit.
            let is_heavier = heaviest.as_ref().is_none_or(|(most, _)| bytes > *most);
            if laggards.steps > 1 && is_heavier {
                heaviest = Some((bytes, laggards));
            }
        }
        if let Some((_, laggards)) = heaviest.filter(|_| bytes_behind > RECORDS_BEHIND_BYTES_MAX) {
            laggards.evict(shared);
        }
    }

    /// Without a journal: callers are told what a majority of a released view has.
    fn release_records(&mut self, shared: &mut Shared, present: &BTreeSet<PeerId>) {
        if shared.is_journaled || !self.view.released {
            return;
        }
        let world_size = self.view.members.len();
        for (&id, stream) in &mut self.records.streams {
            let released = stream.held_by_majority(present, world_size);
            if released > stream.released {
                stream.released = released;
                let stream = id;
                shared.send_all(present, &MasterToPeer::RecordsReleased { stream, released });
            }
        }
    }

    /// When `seal_records` next has something to do if no message arrives.
    pub fn records_due(&self, shared: &Shared) -> Option<Instant> {
        if self.records.streams.is_empty() {
            return None;
        }
        let present = self.present(shared);
        let longest: Option<Duration> = shared.timers.post_timeout;
        let streams = self.records.streams.values();
        streams
            .filter_map(|stream| stream.due(&present, longest))
            .min()
    }

    /// Sends a member the records that were sealed since it had this many, before the view or the
    /// reply that counts on them.
    pub fn send_records(
        &self,
        shared: &mut Shared,
        peer: PeerId,
        since: impl Fn(StreamId) -> Step,
    ) {
        if is_active(Mutation::RecordsNotSentAgain) {
            return;
        }
        let present = self.present(shared);
        for (&id, stream) in &self.records.streams {
            let (floor, _) = stream.floor(&present);
            for (record, hash) in stream.chain.since(since(id)) {
                let sealed = SealedRecord {
                    check: hash.into(),
                    behind: u32::try_from(record.step.0.saturating_sub(floor.0))
                        .unwrap_or(u32::MAX),
                    is_released: record.step < stream.released,
                    record: record.clone(),
                };
                shared.send(peer, MasterToPeer::Recorded(sealed));
            }
        }
    }

    /// While a group is resumed: takes the longest chain of each stream, and drops what members
    /// told an earlier master. Returns members whose records cannot be those of the run.
    pub fn resume_records(
        &mut self,
        shared: &mut Shared,
        members: &[(&PeerId, &(Claim, Report))],
        is_journal_newest: bool,
    ) -> BTreeMap<PeerId, EvictReason> {
        let before = self.records.kept();
        if !is_journal_newest {
            self.records = Records::default();
        }
        let mut refused = BTreeMap::new();
        for (peer, (_, report)) in members {
            for theirs in &report.streams {
                let own = self.records.streams.entry(theirs.stream).or_default();
                let next = own.chain.place().next;
                own.released = own.released.max(theirs.released);
                let is_longer = theirs.place.next > next;
                if !is_longer || is_active(Mutation::ShorterChainTaken) && next > Step(0) {
                    continue;
                }
                match Chain::of(theirs.kept.clone()) {
                    Ok(chain) if chain.place() == theirs.place => own.chain = chain,
                    _ => {
                        let what = "its records do not follow each other";
                        refused.insert(**peer, EvictReason::Protocol(what.into()));
                    }
                }
            }
        }
        for stream in self.records.streams.values_mut() {
            stream.forget_all();
            if shared.is_journaled {
                stream.released = stream.chain.place().next;
            }
        }
        let after = self.records.kept();
        if before != after {
            let group = self.id;
            let streams = after;
            shared.outbox.seal(Record::Streams { group, streams });
        }
        refused
    }
}

/// The members that have consumed least of a stream.
struct Laggards {
    stream: StreamId,
    steps: u64,
    last: Vec<PeerId>,
}

impl Laggards {
    fn evict(&self, shared: &mut Shared) {
        let (stream, steps) = (self.stream, self.steps);
        for &peer in &self.last {
            shared.condemn(peer, EvictReason::RecordsBehind { stream, steps });
        }
    }
}
