//! Any record of a stream, and what is said of one.

use super::*;

pub(super) fn step() -> impl Strategy<Value = Step> {
    (20..=NUMBER_MAX).prop_map(Step)
}

fn chain_place() -> impl Strategy<Value = ChainPlace> {
    (step(), any::<[u8; 32]>()).prop_map(|(next, hash)| ChainPlace {
        next,
        hash: Digest(hash),
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..12),
        Just(vec![7; RECORD_PAYLOAD_BYTES_MAX]),
    ]
}

pub(super) fn entry() -> impl Strategy<Value = Entry> {
    let rule = (
        option::of(any::<u32>()),
        0..=WORLD_SIZE_MAX as u32,
        any::<u32>(),
        0..=RECORD_AGE_MAX as u32,
    );
    (any::<u64>(), step(), any::<[u8; 32]>(), rule, payload()).prop_map(
        |(stream, step, hash, (deadline_ms, quorum, grace_ms, age_max), payload)| Entry {
            stream: StreamId(stream),
            step,
            check: Digest(hash).into(),
            rule: RecordRule {
                deadline_ms,
                quorum,
                grace_ms,
                age_max,
            },
            payload,
        },
    )
}

pub(super) fn record() -> impl Strategy<Value = StepRecord> {
    let entries = btree_map(any::<u64>(), (0..=RECORD_AGE_MAX as u32, payload()), 0..5);
    (any::<u64>(), step(), entries).prop_map(|(stream, step, entries)| StepRecord {
        stream: StreamId(stream),
        step,
        entries: entries
            .into_iter()
            .map(|(number, (age, payload))| StepEntry {
                number: MemberNumber(number),
                age,
                payload,
            })
            .collect(),
    })
}

pub(super) fn streams() -> impl Strategy<Value = Vec<StreamReport>> {
    let kept = (chain_place(), vec(record(), 0..3));
    let kept = kept.prop_map(|(base, records)| KeptRecords { base, records });
    let stream = (chain_place(), step(), step(), vec(entry(), 0..3), kept);
    btree_map(any::<u64>(), stream, 0..3).prop_map(|map| {
        let one = |(stream, (place, released, consumed, entries, kept))| StreamReport {
            stream: StreamId(stream),
            place,
            released,
            consumed,
            entries,
            kept,
        };
        map.into_iter().map(one).collect()
    })
}

pub(super) fn stream_places() -> impl Strategy<Value = Vec<StreamPlace>> {
    btree_map(any::<u64>(), (chain_place(), step()), 0..3).prop_map(|map| {
        let one = |(stream, (place, released))| StreamPlace {
            stream: StreamId(stream),
            place,
            released,
        };
        map.into_iter().map(one).collect()
    })
}
