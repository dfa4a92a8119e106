//! One stream of records of a group: its chain, the open step, and how far each member has come
//! (R17).
//!
//! It records and computes. When to seal, and whom to tell, is decided in `records`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{MemberNumber, PeerId, Step, StreamId};
use crate::limits::RECORD_LOG_BYTES_MAX;
use crate::master::group::ledger::Violation;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    Chain, ChainPlace, Entry, Member, RecordRule, StepEntry, StepRecord, StreamPlace, StreamReport,
};

/// A stream of records.
#[derive(Debug, Default)]
pub struct Stream {
    pub chain: Chain,
    /// Callers may be told of all records below.
    pub released: Step,
    /// What members gave for the open step.
    entries: BTreeMap<PeerId, Given>,
    /// What they gave for earlier steps, and is in no record yet.
    late: BTreeMap<(PeerId, Step), Given>,
    /// Of members that have named a step; the others are at step 0.
    standings: BTreeMap<PeerId, Standing>,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// It has consumed all records below.
    consumed: Step,
    /// It has all records below.
    held: Step,
}

#[derive(Debug)]
struct Given {
    payload: Vec<u8>,
    rule: RecordRule,
    at: Instant,
}

impl Given {
    /// Whether it may be in the record of a later step.
    fn is_worth_keeping(&self) -> bool {
        !self.payload.is_empty() && self.rule.age_max > 0
    }
}

impl Stream {
    pub fn of(chain: Chain) -> Self {
        Self {
            released: chain.oldest(),
            chain,
            ..Self::default()
        }
    }

    /// A member gave something for a step, and has consumed all records before it.
    pub fn enter(&mut self, member: &Member, entry: Entry, now: Instant) -> Result<(), Violation> {
        let next = self.chain.place().next;
        self.check(&entry)?;
        self.note(member.peer, entry.step, entry.step);
        let given = Given {
            payload: entry.payload,
            rule: entry.rule,
            at: now,
        };
        if entry.step == next {
            self.entries.entry(member.peer).or_insert(given);
        } else if given.is_worth_keeping() && !self.is_sealed(member.number, entry.step) {
            let key = (member.peer, entry.step);
            self.late.entry(key).or_insert(given);
        }
        Ok(())
    }

    fn check(&self, entry: &Entry) -> Result<(), Violation> {
        let (stream, step, next) = (entry.stream, entry.step, self.chain.place().next);
        if step > next {
            return Err(format!(
                "it is at step {step} of stream {stream} before {next}"
            ));
        }
        match self.chain.hash_at(step) {
            Some(hash) if entry.check != hash.into() => Err(format!(
                "its records of stream {stream} before step {step} are not those of the run"
            )),
            // A record this old is in no report that counts.
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a record has what this member gave for a step.
    fn is_sealed(&self, number: MemberNumber, step: Step) -> bool {
        let mut records = self.chain.since(step);
        records.any(|(record, _)| record.entry_of(number, step).is_some())
            && !is_active(Mutation::LateEntryTwice)
    }

    /// All that a member knows of the stream.
    pub fn absorb(
        &mut self,
        member: &Member,
        report: &StreamReport,
        now: Instant,
    ) -> Result<(), Violation> {
        self.compare(report.stream, report.place)?;
        self.note(member.peer, report.consumed, report.place.next);
        let entries = report.entries.iter().cloned();
        entries
            .into_iter()
            .try_for_each(|entry| self.enter(member, entry, now))
    }

    /// Whether the records that a member has are the first ones of the chain.
    pub fn compare(&self, stream: StreamId, theirs: ChainPlace) -> Result<(), Violation> {
        if self.chain.hash_at(theirs.next) == Some(theirs.hash) {
            return Ok(());
        }
        let step = theirs.next;
        Err(format!(
            "its records of stream {stream} before step {step} are not those of the run"
        ))
    }

    /// A member has consumed and received so much.
    pub fn note(&mut self, peer: PeerId, consumed: Step, held: Step) {
        let held = held.min(self.chain.place().next);
        let standing = self.standings.entry(peer).or_default();
        standing.consumed = standing.consumed.max(consumed);
        standing.held = standing.held.max(held);
    }

    /// A member is gone. What it gave and is not sealed is dropped.
    pub fn forget(&mut self, peer: PeerId) {
        if !is_active(Mutation::EntryOfLostKept) {
            self.entries.remove(&peer);
        }
        self.late.retain(|(from, _), _| *from != peer);
        self.standings.remove(&peer);
    }

    /// Everything that members told is void; the chain stays.
    pub fn forget_all(&mut self) {
        self.entries.clear();
        self.late.clear();
        self.standings.clear();
    }

    pub fn place(&self, stream: StreamId) -> StreamPlace {
        StreamPlace {
            stream,
            place: self.chain.place(),
            released: self.released,
        }
    }

    /// When the open step is sealed with what there is; `None`: not before more is given.
    pub fn due(&self, members: &BTreeSet<PeerId>, longest: Option<Duration>) -> Option<Instant> {
        let newest = self.entries.values().map(|given| given.at).max()?;
        let short = usize::from(is_active(Mutation::RecordSealedShort) && members.len() > 2);
        if self.entries.len() + short >= members.len() {
            return Some(newest);
        }
        let wishes = self.entries.values();
        let own = wishes.clone().filter_map(|given| {
            let deadline = given.rule.deadline()?;
            (!is_active(Mutation::RecordDeadlineIgnored)).then_some(given.at + deadline)
        });
        let waited = longest.map(|longest| newest + longest);
        let mut gave: Vec<Instant> = wishes
            .clone()
            .filter(|given| !given.payload.is_empty())
            .map(|given| given.at)
            .collect();
        gave.sort_unstable();
        let met = wishes.filter_map(|given| {
            let last = (given.rule.quorum as usize).checked_sub(1)?;
            Some(*gave.get(last)? + given.rule.grace())
        });
        own.chain(waited).chain(met).min()
    }

    /// The record of the open step, and what is left for later ones.
    pub fn seal(&mut self, stream: StreamId, members: &[Member]) -> StepRecord {
        let step = self.chain.place().next;
        let mut entries = Vec::new();
        for member in members {
            entries.extend(self.take_late(member, step));
            let fresh = self.entries.remove(&member.peer);
            entries.extend(
                fresh
                    .filter(|given| !given.payload.is_empty())
                    .map(|given| StepEntry {
                        number: member.number,
                        age: 0,
                        payload: given.payload,
                    }),
            );
        }
        self.entries.clear();
        let record = StepRecord {
            stream,
            step,
            entries,
        };
        let appended = self.chain.append(record.clone());
        assert_eq!(appended, Ok(()), "the open step is the next one");
        self.chain.shorten(RECORD_LOG_BYTES_MAX);
        record
    }

    /// The oldest late entry of a member that may still be in the record of this step.
    fn take_late(&mut self, member: &Member, step: Step) -> Option<StepEntry> {
        let first = (member.peer, Step(0));
        let last = (member.peer, step);
        let age = |of: Step| step.0 - of.0;
        self.late.retain(|(peer, of), given| {
            *peer != member.peer || age(*of) <= u64::from(given.rule.age_max)
        });
        let oldest = self.late.range(first..last).next().map(|(key, _)| *key)?;
        let given = match is_active(Mutation::LateEntryTwice) {
            true => self.late.get(&oldest).map(|given| given.payload.clone()),
            false => self.late.remove(&oldest).map(|given| given.payload),
        };
        Some(StepEntry {
            number: member.number,
            age: u32::try_from(age(oldest.1)).expect("it is at most age_max"),
            payload: given?,
        })
    }

    /// The oldest step that some of these have not consumed, and who is there.
    pub fn floor(&self, members: &BTreeSet<PeerId>) -> (Step, Vec<PeerId>) {
        let at = |peer: &PeerId| self.standing(*peer).consumed;
        let oldest = members.iter().map(at).min();
        let floor = oldest.unwrap_or_else(|| self.chain.place().next);
        let last = members.iter().copied().filter(|peer| at(peer) == floor);
        (floor, last.collect())
    }

    /// Records that a majority of a view of so many members has.
    pub fn held_by_majority(&self, present: &BTreeSet<PeerId>, world_size: usize) -> Step {
        let standings = present.iter().map(|peer| self.standing(*peer).held);
        let mut held: Vec<Step> = standings.collect();
        held.sort_unstable_by(|one, other| other.cmp(one));
        let majority = match is_active(Mutation::RecordReleasedByOne) {
            true => 1,
            false => world_size / 2 + 1,
        };
        held.get(majority - 1).copied().unwrap_or_default()
    }

    fn standing(&self, peer: PeerId) -> Standing {
        self.standings.get(&peer).copied().unwrap_or_default()
    }
}
