//! Streams of records as a member sees them (R17).
//!
//! A member receives every record in order, whether it gave something or not, and its caller
//! consumes each with one call. What it gave is a fact until a record has it, or is too late to.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::ids::{CallId, MemberNumber, Step, StreamId};
use crate::limits::{RECORD_AGE_MAX, RECORD_PAYLOAD_BYTES_MAX, STREAMS_MAX, WORLD_SIZE_MAX};
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{
    Chain, Entry, Install, KeptRecords, PeerToMaster, RecordRule, SealedRecord, StepRecord,
    StreamPlace, StreamReport,
};

use super::Peer;
use super::io::{End, Output, SessionEnd};

/// The streams that this member knows.
#[derive(Debug, Default)]
pub(super) struct Records {
    streams: BTreeMap<StreamId, Stream>,
}

/// What the caller gives.
pub(super) struct Gift {
    /// The bytes; none: it abstains.
    pub payload: Vec<u8>,
    /// When the step may be sealed without others.
    pub rule: RecordRule,
}

/// One stream.
#[derive(Debug, Default)]
struct Stream {
    /// All records that some member may lack.
    chain: Chain,
    /// Callers may be told of all records below.
    released: Step,
    /// The step of the open call, or of the next one.
    consumed: Step,
    call: Option<CallId>,
    /// What this member gave, and no record has yet, oldest first.
    given: Vec<Entry>,
}

impl Stream {
    /// A newcomer begins here.
    fn begin_at(at: &StreamPlace) -> Self {
        Self {
            chain: Chain::at(at.place),
            released: at.place.next,
            consumed: at.place.next,
            ..Self::default()
        }
    }

    fn report(&self, stream: StreamId, is_attach: bool) -> StreamReport {
        let entries = match is_active(Mutation::EntryNotRestated) {
            true => Vec::new(),
            false => self.given.clone(),
        };
        StreamReport {
            stream,
            place: self.chain.place(),
            released: self.released,
            consumed: self.consumed,
            entries,
            kept: match is_attach {
                true => self.chain.kept(),
                false => KeptRecords::default(),
            },
        }
    }

    /// Forgets what this record has of this member, and what no later one can have.
    fn settle(&mut self, record: &StepRecord, me: Option<MemberNumber>) {
        self.given.retain(|given| {
            let is_in = me.is_some_and(|me| record.entry_of(me, given.step).is_some());
            let next_age = record.step.0.saturating_sub(given.step.0) + 1;
            let is_too_late = next_age > u64::from(given.rule.age_max);
            given.step > record.step || !(is_in || is_too_late || given.payload.is_empty())
        });
    }

    /// The record of the open call, if its caller may be told.
    fn next_told(&self) -> Option<&StepRecord> {
        let is_told = self.consumed < self.released || is_active(Mutation::RecordToldAlone);
        self.chain.get(self.consumed).filter(|_| is_told)
    }
}

impl Records {
    /// All that this member knows of its streams.
    pub fn reports(&self, is_attach: bool) -> Vec<StreamReport> {
        let streams = self.streams.iter();
        streams
            .map(|(id, stream)| stream.report(*id, is_attach))
            .collect()
    }

    /// A view says how far each stream has come, and a member has all records before.
    fn check_places(&self, install: &Install) -> Result<(), String> {
        for theirs in &install.streams {
            let own = self.streams.get(&theirs.stream);
            let place = own.map(|own| own.chain.place()).unwrap_or_default();
            if place != theirs.place {
                return Err(format!(
                    "stream {} is at step {}, and at {} here",
                    theirs.stream, theirs.place.next, place.next
                ));
            }
        }
        Ok(())
    }
}

impl Peer {
    /// The caller gives something for the next step of a stream, or abstains, and waits for the
    /// record.
    pub(super) fn handle_enter(
        &mut self,
        call: CallId,
        stream: StreamId,
        Gift { payload, rule }: Gift,
    ) {
        if let Err(error) = self.check_enter(stream, &payload, rule) {
            return self.outputs.push_back(Output::Rejected { call, error });
        }
        let state = self.records.streams.entry(stream).or_default();
        state.call = Some(call);
        let hash = state.chain.hash_at(state.consumed);
        let mut entry = Entry {
            stream,
            step: state.consumed,
            check: hash.expect("what is not consumed is kept").into(),
            rule,
            payload,
        };
        let is_sealed = state.consumed < state.chain.place().next;
        if is_sealed && rule.age_max == 0 {
            entry.payload.clear();
        }
        if !is_sealed || !entry.payload.is_empty() {
            state.given.push(entry.clone());
        }
        // Sealed or not, it says how far this member has come.
        if self.phase.is_telling() {
            self.send(PeerToMaster::Entered(entry));
        }
        self.tell_record(stream);
    }

    fn check_enter(&self, stream: StreamId, payload: &[u8], rule: RecordRule) -> Result<(), Error> {
        self.check_open()?;
        if self.phase.membership().is_none() {
            return Err(Error::usage("this peer is not admitted yet"));
        }
        if payload.len() > RECORD_PAYLOAD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the entry has {} bytes; at most {RECORD_PAYLOAD_BYTES_MAX} fit a record",
                payload.len()
            )));
        }
        if rule.age_max as usize > RECORD_AGE_MAX || rule.quorum as usize > WORLD_SIZE_MAX {
            return Err(Error::invalid(format!(
                "an entry may be at most {RECORD_AGE_MAX} steps late, and the quorum at most \
                 {WORLD_SIZE_MAX}"
            )));
        }
        match self.records.streams.get(&stream) {
            Some(state) if state.call.is_some() => Err(Error::usage(format!(
                "stream {stream} has a call in progress; wait for it or use another stream"
            ))),
            None if self.records.streams.len() >= STREAMS_MAX => Err(Error::usage(format!(
                "{STREAMS_MAX} streams are in use, which is the maximum"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn handle_recorded(&mut self, sealed: SealedRecord) {
        let (id, step) = (sealed.record.stream, sealed.record.step);
        let me = self.member_number();
        let state = self.records.streams.entry(id).or_default();
        if step < state.chain.place().next {
            // It was under way when this member reported that it has it.
            return;
        }
        let appended = state.chain.append(sealed.record);
        let place = state.chain.place();
        if let Err(what) = appended {
            return self.end_contradicted(what);
        }
        if sealed.check != place.hash.into() {
            return self.end_contradicted(format!("record {step} of stream {id} has another past"));
        }
        if let Some(record) = state.chain.get(step).cloned() {
            state.settle(&record, me);
        }
        let floor = Step(step.0.saturating_sub(sealed.behind.into()));
        state.chain.forget_before(floor.min(state.consumed));
        if sealed.is_released {
            state.released = state.released.max(place.next);
        } else if self.phase.is_telling() {
            let (stream, next) = (id, place.next);
            self.send(PeerToMaster::RecordsHeld { stream, next });
        }
        self.tell_record(id);
    }

    pub(super) fn handle_records_released(&mut self, stream: StreamId, released: Step) {
        let known = self.records.streams.get_mut(&stream);
        let Some(state) = known.filter(|state| released <= state.chain.place().next) else {
            return self.end_contradicted(format!(
                "records of stream {stream} are released that this peer lacks"
            ));
        };
        state.released = state.released.max(released);
        self.tell_record(stream);
    }

    pub(super) fn check_streams(&self, install: &Install) -> Result<(), String> {
        match self.view() {
            Some(_) => self.records.check_places(install),
            None => Ok(()),
        }
    }

    /// A view is in force: a newcomer begins each stream where the others are.
    pub(super) fn install_streams(&mut self, install: &Install, is_first: bool) {
        for theirs in &install.streams {
            if is_first {
                let stream = Stream::begin_at(theirs);
                self.records.streams.insert(theirs.stream, stream);
            } else if let Some(state) = self.records.streams.get_mut(&theirs.stream) {
                state.released = state.released.max(theirs.released);
            }
        }
        let streams: Vec<StreamId> = self.records.streams.keys().copied().collect();
        streams.into_iter().for_each(|id| self.tell_record(id));
    }

    /// Ends the open call of a stream if its record may be told.
    fn tell_record(&mut self, id: StreamId) {
        let view = self.view().cloned();
        let (Some(state), Some(view)) = (self.records.streams.get_mut(&id), view) else {
            return;
        };
        let (Some(call), Some(record)) = (state.call, state.next_told().cloned()) else {
            return;
        };
        state.call = None;
        state.consumed = record.step.next();
        let hash = state.chain.hash_at(state.consumed).unwrap_or_default();
        let end = End::Recorded { record, hash, view };
        self.outputs.push_back(Output::Finish { call, end });
    }

    /// Ends every open call with the session: what was given may be in a record.
    pub(super) fn finish_records(&mut self, cause: &SessionEnd) {
        for state in self.records.streams.values_mut() {
            if let Some(call) = state.call.take() {
                let cause = cause.clone();
                let end = End::Unknown { cause };
                self.outputs.push_back(Output::Finish { call, end });
            }
        }
    }

    fn member_number(&self) -> Option<MemberNumber> {
        let me = self.session.peer()?;
        let members = &self.view()?.members;
        let mut members = members.iter().filter(|member| member.peer == me);
        members.next().map(|member| member.number)
    }
}
