//! Checks what messages say of streams of records.

use super::{Checked, Violation, distinct_by, length, number};
use crate::limits::{
    RECORD_AGE_MAX, RECORD_ENTRIES_MAX, RECORD_PAYLOAD_BYTES_MAX, RECORDS_KEPT_MAX, STREAMS_MAX,
    WORLD_SIZE_MAX,
};
use crate::wire::control::{Entry, StepEntry, StepRecord, StreamPlace, StreamReport};

pub(super) fn check_entry(entry: &Entry) -> Checked {
    number("step", entry.step.0)?;
    length("quorum", entry.rule.quorum as usize, WORLD_SIZE_MAX)?;
    length("age", entry.rule.age_max as usize, RECORD_AGE_MAX)?;
    length("payload", entry.payload.len(), RECORD_PAYLOAD_BYTES_MAX)
}

pub(super) fn check_record(record: &StepRecord) -> Checked {
    number("step", record.step.0)?;
    length("entries", record.entries.len(), RECORD_ENTRIES_MAX)?;
    for entry in &record.entries {
        length("payload", entry.payload.len(), RECORD_PAYLOAD_BYTES_MAX)?;
        length("age", entry.age as usize, RECORD_AGE_MAX)?;
        number("step", record.step.0.wrapping_sub(entry.age.into()))?;
    }
    let order = |pair: &[StepEntry]| {
        (pair[0].number, u32::MAX - pair[0].age) < (pair[1].number, u32::MAX - pair[1].age)
    };
    match record.entries.windows(2).all(order) {
        true => Ok(()),
        false => Err(Violation::Disordered { what: "entries" }),
    }
}

pub(super) fn check_streams(streams: &[StreamReport]) -> Checked {
    length("streams", streams.len(), STREAMS_MAX)?;
    distinct_by("streams", streams.iter().map(|one| one.stream))?;
    streams.iter().try_for_each(|one| {
        number("step", one.place.next.0)?;
        number("step", one.released.0)?;
        number("step", one.consumed.0)?;
        number("step", one.kept.base.next.0)?;
        length("entries of a report", one.entries.len(), RECORD_AGE_MAX + 1)?;
        one.entries.iter().try_for_each(check_entry)?;
        length("kept records", one.kept.records.len(), RECORDS_KEPT_MAX)?;
        one.kept.records.iter().try_for_each(check_record)
    })
}

pub(super) fn check_stream_places(streams: &[StreamPlace]) -> Checked {
    length("streams", streams.len(), STREAMS_MAX)?;
    distinct_by("streams", streams.iter().map(|one| one.stream))?;
    streams.iter().try_for_each(|one| {
        number("step", one.place.next.0)?;
        number("step", one.released.0)
    })
}
