//! Records as a member gives and receives them (R17).

use super::*;
use crate::ids::{Step, StreamId};
use crate::wire::control::{
    Chain, Entry, RecordRule, SealedRecord, StepEntry, StepRecord, StreamPlace, StreamReport,
};

pub(super) const S: StreamId = StreamId(3);

/// A stream as the master knows it.
#[derive(Default)]
struct Script(Chain);

impl Script {
    /// Seals what these members gave for the next step.
    fn seal(&mut self, gave: &[(u64, u32, u8)]) -> SealedRecord {
        let entries = gave.iter().map(|&(number, age, byte)| StepEntry {
            number: MemberNumber(number),
            age,
            payload: vec![byte],
        });
        let record = StepRecord {
            stream: S,
            step: self.0.place().next,
            entries: entries.collect(),
        };
        self.0.append(record.clone()).unwrap();
        SealedRecord {
            record,
            check: self.0.place().hash.into(),
            behind: 0,
            is_released: true,
        }
    }
}

fn enter(fixture: &mut Fixture, call: u64, byte: u8, age_max: u32) {
    fixture.tell(Input::Enter {
        call: CallId(call),
        stream: S,
        payload: vec![byte],
        rule: RecordRule {
            age_max,
            ..RecordRule::default()
        },
    });
}

fn entered(outputs: Vec<Output>) -> Vec<Entry> {
    let entry = |message| match message {
        PeerToMaster::Entered(entry) => Some(entry),
        _ => None,
    };
    sent(outputs).into_iter().filter_map(entry).collect()
}

/// How far a peer's streams have come, all of it released.
pub(super) fn places(peer: &Peer) -> Vec<StreamPlace> {
    let reports = peer.records.reports(false).into_iter();
    let place = |report: StreamReport| StreamPlace {
        stream: report.stream,
        place: report.place,
        released: report.place.next,
    };
    reports.map(place).collect()
}

/// The record that follows those that a peer has, or the release of them.
pub(super) fn next(peer: &Peer, dice: u16) -> MasterToPeer {
    let place = places(peer).first().map(|it| it.place).unwrap_or_default();
    if dice.is_multiple_of(3) {
        return MasterToPeer::RecordsReleased {
            stream: S,
            released: place.next,
        };
    }
    let mut script = Script(Chain::at(place));
    let mut sealed = script.seal(&[(1, 0, 5)]);
    sealed.is_released = dice.is_multiple_of(2);
    MasterToPeer::Recorded(sealed)
}

/// The calls that were told of a record, and of which.
fn told(outputs: &[Output]) -> Vec<(u64, u64)> {
    let step = |(call, end): (CallId, End)| match end {
        End::Recorded { record, .. } => (call.0, record.step.0),
        other => panic!("a step ends as {other:?}"),
    };
    ends(outputs).into_iter().map(step).collect()
}

#[test]
fn a_caller_is_told_of_each_record_in_order_whether_it_gave_something_or_not() {
    let (mut fixture, mut script) = (Fixture::steady(), Script::default());
    enter(&mut fixture, 1, 7, 0);
    let entries = entered(fixture.drain());
    assert_eq!(
        (entries[0].step, &entries[0].payload[..]),
        (Step(0), &[7][..])
    );
    for gave in [&[(1, 0, 5), (2, 0, 7)][..], &[(1, 0, 6)], &[(1, 0, 8)]] {
        fixture.hear(MasterToPeer::Recorded(script.seal(gave)));
    }
    assert_eq!(told(&fixture.drain()), [(1, 0)]);
    enter(&mut fixture, 2, 9, 0);
    let outputs = fixture.drain();
    assert_eq!(told(&outputs), [(2, 1)]);
    let late = entered(outputs);
    assert_eq!(
        (late[0].step, late[0].payload.len()),
        (Step(1), 0),
        "it only says how far it is"
    );
    enter(&mut fixture, 3, 9, 0);
    assert_eq!(told(&fixture.drain()), [(3, 2)]);
}

#[test]
fn without_a_journal_a_record_waits_for_its_release() {
    let (mut fixture, mut script) = (Fixture::steady(), Script::default());
    enter(&mut fixture, 1, 7, 0);
    fixture.drain();
    let mut sealed = script.seal(&[(2, 0, 7)]);
    sealed.is_released = false;
    fixture.hear(MasterToPeer::Recorded(sealed));
    assert_eq!(words(&fixture.drain()), ["RecordsHeld"]);
    let (stream, released) = (S, Step(1));
    fixture.hear(MasterToPeer::RecordsReleased { stream, released });
    assert_eq!(told(&fixture.drain()), [(1, 0)]);
    let released = Step(2);
    fixture.hear(MasterToPeer::RecordsReleased { stream, released });
    assert!(
        words(&fixture.drain()).contains(&"Ended".to_owned()),
        "it lacks step 1"
    );
}

#[test]
fn what_was_given_is_restated_until_a_record_has_it() {
    let (mut fixture, mut script) = (Fixture::steady(), Script::default());
    enter(&mut fixture, 1, 7, 2);
    let report = fixture.reattach();
    assert_eq!(report.streams[0].entries.len(), 1);
    fixture.hear(MasterToPeer::Recorded(script.seal(&[(1, 0, 5)])));
    assert_eq!(told(&fixture.drain()), [(1, 0)], "also before the reply");
    let mut reply = install(1, &[1, 2, 3]);
    reply.released = true;
    reply.streams = vec![StreamPlace {
        stream: S,
        place: script.0.place(),
        released: Step(1),
    }];
    fixture.hear(MasterToPeer::Install(reply));
    let restated = |fixture: &mut Fixture| fixture.reattach().streams[0].clone();
    let report = restated(&mut fixture);
    assert_eq!(
        (report.consumed, report.entries.len()),
        (Step(1), 1),
        "late, and allowed to be"
    );
    assert_eq!(report.kept.records.len(), 1, "somebody may lack it");
    fixture.hear(MasterToPeer::Recorded(script.seal(&[(2, 1, 7)])));
    assert_eq!(restated(&mut fixture).entries, []);
}

#[test]
fn an_entry_that_is_too_late_for_every_record_is_forgotten() {
    let (mut fixture, mut script) = (Fixture::steady(), Script::default());
    enter(&mut fixture, 1, 7, 1);
    for _ in 0..2 {
        fixture.hear(MasterToPeer::Recorded(script.seal(&[(1, 0, 5)])));
    }
    fixture.drain();
    assert_eq!(fixture.suspend(1).streams[0].entries, []);
}

#[test]
fn a_record_with_another_past_or_a_gap_ends_the_session() {
    let mut other = Script::default();
    other.seal(&[(1, 0, 1)]);
    for skipped in [1, 2] {
        let (mut fixture, mut script) = (Fixture::steady(), Script::default());
        fixture.hear(MasterToPeer::Recorded(script.seal(&[(1, 0, 5)])));
        let mut sealed = other.seal(&[(1, 0, 2)]);
        sealed.record.step = Step(skipped);
        fixture.hear(MasterToPeer::Recorded(sealed));
        assert!(words(&fixture.drain()).contains(&"Ended".to_owned()));
    }
}

#[test]
fn a_newcomer_begins_where_its_first_view_says() {
    let (mut fixture, mut script) = (Fixture::newcomer(), Script::default());
    script.seal(&[(1, 0, 5)]);
    let mut first = install(1, &[1, 2, 3]);
    first.streams = vec![StreamPlace {
        stream: S,
        place: script.0.place(),
        released: Step(1),
    }];
    fixture.hear(MasterToPeer::Install(first));
    fixture.drain();
    enter(&mut fixture, 1, 7, 0);
    let entry = entered(fixture.drain()).remove(0);
    assert_eq!(
        (entry.step, entry.check),
        (Step(1), script.0.place().hash.into())
    );
    fixture.hear(MasterToPeer::Recorded(script.seal(&[(2, 0, 7)])));
    assert_eq!(told(&fixture.drain()), [(1, 1)]);
}

#[test]
fn a_stream_has_one_call_at_a_time_and_entries_have_limits() {
    let mut fixture = Fixture::steady();
    enter(&mut fixture, 1, 7, 17);
    enter(&mut fixture, 2, 7, 16);
    enter(&mut fixture, 3, 7, 0);
    let rejected = |output: &Output| match output {
        Output::Rejected { call, .. } => Some(call.0),
        _ => None,
    };
    let outputs = fixture.drain();
    assert_eq!(
        outputs.iter().filter_map(rejected).collect::<Vec<_>>(),
        [1, 3]
    );
    fixture.hear(MasterToPeer::Evicted {
        reason: EvictReason::Died,
    });
    let outputs = fixture.drain();
    let ends = ends(&outputs);
    assert!(
        matches!(ends[..], [(CallId(2), End::Unknown { .. })]),
        "{ends:?}"
    );
}
