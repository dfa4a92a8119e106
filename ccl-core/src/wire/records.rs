//! Records: what the members of a group give for one step of a stream, sealed in one order (R17).
//!
//! Each record is chained to the one before by a BLAKE3 hash. What master, members and journal keep
//! of a stream is a [`Chain`].

use std::collections::VecDeque;
use std::time::Duration;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::ids::{MemberNumber, Step, StreamId};
use crate::limits::{
    RECORD_AGE_MAX, RECORD_ENTRIES_MAX, RECORD_PAYLOAD_BYTES_MAX, RECORDS_KEPT_MAX,
};
use crate::wire::bounded;

use super::state::Digest;

/// What one member gave for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEntry {
    /// The member; its number is never reused.
    pub number: MemberNumber,
    /// How many steps before the record's it was given for; 0: for this one.
    pub age: u32,
    /// The bytes.
    #[serde(deserialize_with = "bounded::list::<_, _, RECORD_PAYLOAD_BYTES_MAX>")]
    pub payload: Vec<u8>,
}

/// The sealed record of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The stream.
    pub stream: StreamId,
    /// Its step.
    pub step: Step,
    /// By member number, then the oldest first. Whoever is not listed gave nothing in time.
    #[serde(deserialize_with = "bounded::list::<_, _, RECORD_ENTRIES_MAX>")]
    pub entries: Vec<StepEntry>,
}

impl StepRecord {
    /// The hash of the stream once this record follows `previous`.
    #[must_use]
    pub fn hash(&self, previous: &Digest) -> Digest {
        let mut hasher = Hasher::new_derive_key("ccl record chain 1");
        hasher.update(&self.stream.0.to_le_bytes());
        hasher.update(&self.step.0.to_le_bytes());
        hasher.update(&previous.0);
        hasher.update(&(self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            hasher.update(&entry.number.0.to_le_bytes());
            hasher.update(&entry.age.to_le_bytes());
            hasher.update(&(entry.payload.len() as u64).to_le_bytes());
            hasher.update(&entry.payload);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// What this member gave for a step, if it is here.
    #[must_use]
    pub fn entry_of(&self, number: MemberNumber, step: Step) -> Option<&StepEntry> {
        let mut entries = self.entries.iter();
        entries.find(|it| it.number == number && it.age_at(self.step) == step)
    }

    /// What it counts against the limits, in bytes: about what it takes in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let payloads = self.entries.iter().map(|entry| 32 + entry.payload.len());
        64 + payloads.sum::<usize>()
    }
}

impl StepEntry {
    fn age_at(&self, sealed: Step) -> Step {
        Step(sealed.0.saturating_sub(self.age.into()))
    }
}

/// The first bytes of a hash: enough to notice that two chains differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainCheck([u8; 8]);

impl From<Digest> for ChainCheck {
    fn from(hash: Digest) -> Self {
        let mut check = [0; 8];
        check.copy_from_slice(&hash.0[..8]);
        Self(check)
    }
}

/// When a step is sealed without the members that have given nothing, as one member wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRule {
    /// At the latest this long after this member's entry, in milliseconds; `None`: `post_timeout`.
    pub deadline_ms: Option<u32>,
    /// Once so many have given something; 0: all are waited for.
    pub quorum: u32,
    /// How long after that the others may still come, in milliseconds.
    pub grace_ms: u32,
    /// Steps by which the entry may be late and still be in a record; 0: it is dropped.
    pub age_max: u32,
}

impl RecordRule {
    /// How long after the entry the step is sealed at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline_ms
            .map(|ms| Duration::from_millis(u64::from(ms)))
    }

    /// How long after the quorum others may come.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(u64::from(self.grace_ms))
    }
}

/// What a member gives for a step, on its way to the master. It also says that the member has
/// consumed all records before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// The step it is for.
    pub step: Step,
    /// The hash of the records before it.
    pub check: ChainCheck,
    /// When the step may be sealed without others.
    pub rule: RecordRule,
    /// The bytes; none: it abstains.
    #[serde(deserialize_with = "bounded::list::<_, _, RECORD_PAYLOAD_BYTES_MAX>")]
    pub payload: Vec<u8>,
}

/// A sealed record, on its way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRecord {
    /// The record.
    pub record: StepRecord,
    /// The hash of the stream with it.
    pub check: ChainCheck,
    /// How many steps before it the oldest is that some member has not consumed.
    pub behind: u32,
    /// Whether callers may be told. Else it waits for a majority to have it.
    pub is_released: bool,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPlace {
    /// The step of the next record.
    pub next: Step,
    /// The hash of all before.
    pub hash: Digest,
}

/// A stream in an `Install`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPlace {
    /// The stream.
    pub stream: StreamId,
    /// How far it has come.
    pub place: ChainPlace,
    /// Callers may be told of all records below.
    pub released: Step,
}

/// A stream in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The stream.
    pub stream: StreamId,
    /// The records that this member has.
    pub place: ChainPlace,
    /// Those of which callers may be told.
    pub released: Step,
    /// The step of the next call, or of the one under way.
    pub consumed: Step,
    /// What it gave, and has seen in no record yet.
    #[serde(deserialize_with = "bounded::list::<_, _, { RECORD_AGE_MAX + 1 }>")]
    pub entries: Vec<Entry>,
    /// The newest records, for a master that has lost them; only in an `Attach`.
    pub kept: KeptRecords,
}

/// The newest records of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRecords {
    /// Where the stream stood before them.
    pub base: ChainPlace,
    /// The records, oldest first.
    #[serde(deserialize_with = "bounded::list::<_, _, RECORDS_KEPT_MAX>")]
    pub records: Vec<StepRecord>,
}

/// The newest records of a stream, and how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the stream stood before the oldest that is kept.
    base: ChainPlace,
    /// Each with the hash of the stream after it.
    kept: VecDeque<(StepRecord, Digest)>,
    kept_bytes: usize,
}

impl Chain {
    /// A stream that has come so far, of which no record is kept.
    #[must_use]
    pub fn at(base: ChainPlace) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// A stream of these records.
    ///
    /// # Errors
    /// They do not follow each other.
    pub fn of(kept: KeptRecords) -> Result<Self, String> {
        let mut chain = Self::at(kept.base);
        kept.records
            .into_iter()
            .try_for_each(|record| chain.append(record))?;
        Ok(chain)
    }

    /// Adds the next record.
    ///
    /// # Errors
    /// It is not the next one.
    pub fn append(&mut self, record: StepRecord) -> Result<(), String> {
        let place = self.place();
        if record.step != place.next {
            let (stream, step) = (record.stream, record.step);
            return Err(format!(
                "stream {stream}: record {step} where {} is next",
                place.next
            ));
        }
        let hash = record.hash(&place.hash);
        self.kept_bytes += record.weight_bytes();
        self.kept.push_back((record, hash));
        Ok(())
    }

    /// How far it has come.
    #[must_use]
    pub fn place(&self) -> ChainPlace {
        match self.kept.back() {
            None => self.base,
            Some((record, hash)) => ChainPlace {
                next: record.step.next(),
                hash: *hash,
            },
        }
    }

    /// The hash of all records before a step, if that is known.
    #[must_use]
    pub fn hash_at(&self, step: Step) -> Option<Digest> {
        if step == self.base.next {
            return Some(self.base.hash);
        }
        let before = Step(step.0.checked_sub(1)?);
        self.index(before).map(|index| self.kept[index].1)
    }

    /// The record of a step, if it is kept.
    #[must_use]
    pub fn get(&self, step: Step) -> Option<&StepRecord> {
        self.index(step).map(|index| &self.kept[index].0)
    }

    /// The records from a step on, oldest first, as far as they are kept, each with the hash of the
    /// stream after it.
    pub fn since(&self, step: Step) -> impl Iterator<Item = (&StepRecord, Digest)> {
        let skipped = step.0.saturating_sub(self.base.next.0) as usize;
        let records = self.kept.iter().skip(skipped);
        records.map(|(record, hash)| (record, *hash))
    }

    /// The oldest step whose record is kept, or the next one.
    #[must_use]
    pub fn oldest(&self) -> Step {
        self.base.next
    }

    /// Bytes of the records from a step on.
    #[must_use]
    pub fn bytes_since(&self, step: Step) -> usize {
        self.since(step)
            .map(|(record, _)| record.weight_bytes())
            .sum()
    }

    /// Keeps no record before this step.
    pub fn forget_before(&mut self, step: Step) {
        while self.oldest() < step && self.forget_oldest() {}
    }

    /// Keeps the newest records, of at most so many bytes together.
    pub fn shorten(&mut self, bytes_max: usize) {
        while self.kept_bytes > bytes_max && self.forget_oldest() {}
    }

    /// The records that are kept.
    #[must_use]
    pub fn kept(&self) -> KeptRecords {
        KeptRecords {
            base: self.base,
            records: self.kept.iter().map(|(record, _)| record.clone()).collect(),
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((record, hash)) = self.kept.pop_front() else {
            return false;
        };
        self.kept_bytes -= record.weight_bytes();
        self.base = ChainPlace {
            next: record.step.next(),
            hash,
        };
        true
    }

    fn index(&self, step: Step) -> Option<usize> {
        let index = step.0.checked_sub(self.base.next.0)? as usize;
        (index < self.kept.len()).then_some(index)
    }
}
