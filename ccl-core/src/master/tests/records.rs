//! Records as the master seals them (R17).

use super::*;
use crate::ids::{Step, StreamId};
use crate::wire::control::{
    Chain, ChainPlace, Entry, RecordRule, SealedRecord, StepEntry, StepRecord, StreamReport,
};

pub(super) const S: StreamId = StreamId(3);

/// What a member gives for the step after these records.
pub(super) fn entry(place: ChainPlace, byte: u8, rule: RecordRule) -> Entry {
    Entry {
        stream: S,
        step: place.next,
        check: place.hash.into(),
        rule,
        payload: if byte == 0 { Vec::new() } else { vec![byte] },
    }
}

fn enter(stage: &mut Stage, puppet: Puppet, place: ChainPlace, byte: u8) {
    enter_with(stage, puppet, entry(place, byte, RecordRule::default()));
}

fn enter_with(stage: &mut Stage, puppet: Puppet, entry: Entry) {
    stage.say(puppet, PeerToMaster::Entered(entry));
}

/// The records sent to a peer since the last check.
fn recorded(stage: &mut Stage, puppet: Puppet) -> Vec<SealedRecord> {
    let told = stage.told(puppet).into_iter();
    let records = told.filter_map(|message| match message {
        MasterToPeer::Recorded(sealed) => Some(sealed),
        _ => None,
    });
    records.collect()
}

/// Number, age and first byte of each entry.
fn gave(record: &StepRecord) -> Vec<(u64, u32, u8)> {
    let entries = record.entries.iter();
    entries
        .map(|it| (it.number.0, it.age, it.payload[0]))
        .collect()
}

/// The report of a member that has these records.
fn report_with(vid: Vid, chain: &Chain, entries: Vec<Entry>) -> Report {
    let mut report = report(vid);
    report.streams.push(StreamReport {
        stream: S,
        place: chain.place(),
        released: Step(0),
        consumed: chain.place().next,
        entries,
        kept: chain.kept(),
    });
    report
}

fn append(chain: &mut Chain, sealed: &SealedRecord) {
    chain.append(sealed.record.clone()).unwrap();
    assert_eq!(sealed.check, chain.place().hash.into());
}

#[test]
fn a_step_is_sealed_when_all_have_given_something_or_abstained() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    let begin = ChainPlace::default();
    enter(&mut stage, peers[1], begin, 8);
    enter(&mut stage, peers[2], begin, 0);
    assert_eq!(recorded(&mut stage, peers[0]), []);
    enter(&mut stage, peers[0], begin, 7);
    for peer in &peers {
        let sealed = recorded(&mut stage, *peer);
        assert_eq!(gave(&sealed[0].record), [(0, 0, 7), (1, 0, 8)]);
        assert!(sealed[0].is_released, "it is on disk");
    }
    let newest = stage.journal.last();
    assert!(
        matches!(newest, Some(Record::Recorded { .. })),
        "{newest:?}"
    );
}

#[test]
fn deadline_and_quorum_seal_without_the_others_and_a_late_entry_is_in_a_later_record() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 3);
    let mut chain = Chain::default();
    let rule = RecordRule {
        deadline_ms: Some(50),
        age_max: 1,
        ..RecordRule::default()
    };
    enter_with(&mut stage, peers[0], entry(chain.place(), 7, rule));
    stage.pass(Duration::from_millis(49), &peers);
    assert_eq!(recorded(&mut stage, peers[1]), []);
    stage.pass(Duration::from_millis(1), &peers);
    let first = recorded(&mut stage, peers[1]).remove(0);
    assert_eq!(gave(&first.record), [(0, 0, 7)]);
    for _ in 0..2 {
        enter_with(&mut stage, peers[1], entry(chain.place(), 8, rule));
    }
    append(&mut chain, &first);
    let rule = RecordRule {
        quorum: 2,
        grace_ms: 20,
        ..RecordRule::default()
    };
    enter_with(&mut stage, peers[0], entry(chain.place(), 9, rule));
    enter_with(&mut stage, peers[2], entry(chain.place(), 10, rule));
    stage.pass(Duration::from_millis(20), &peers);
    let second = recorded(&mut stage, peers[1]).remove(0);
    assert_eq!(gave(&second.record), [(0, 0, 9), (1, 1, 8), (2, 0, 10)]);
    append(&mut chain, &second);
    for peer in &peers {
        enter(&mut stage, *peer, chain.place(), 1);
    }
    let third = recorded(&mut stage, peers[1]).remove(0);
    assert_eq!(
        gave(&third.record),
        [(0, 0, 1), (1, 0, 1), (2, 0, 1)],
        "once"
    );
}

#[test]
fn without_a_deadline_a_step_waits_for_post_timeout() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    enter(&mut stage, peers[0], ChainPlace::default(), 7);
    let longest = stage.master.setup.timers.post_timeout.unwrap();
    stage.pass(longest + Duration::from_secs(1), &peers);
    assert_eq!(recorded(&mut stage, peers[1]).len(), 1);
}

#[test]
fn a_step_does_not_wait_for_the_lost_and_no_view_change_aborts_it() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 3);
    let begin = ChainPlace::default();
    enter(&mut stage, peers[2], begin, 9);
    enter(&mut stage, peers[0], begin, 7);
    stage.say(peers[2], PeerToMaster::Leave);
    assert_eq!(stage.state(0), "Suspended");
    enter(&mut stage, peers[1], begin, 8);
    let sealed = recorded(&mut stage, peers[0]).remove(0);
    assert_eq!(
        gave(&sealed.record),
        [(0, 0, 7), (1, 0, 8)],
        "its entry is gone with it"
    );
    let mut chain = Chain::default();
    append(&mut chain, &sealed);
    for peer in &peers[..2] {
        stage.flush(*peer, vid, report_with(vid, &chain, Vec::new()));
    }
    let install = stage.installed(peers[1]);
    assert_eq!(install.streams[0].place, chain.place());
}

#[test]
fn without_a_journal_callers_wait_for_a_majority_of_a_released_view() {
    let setup = Setup {
        journaled: false,
        ..setup()
    };
    let mut stage = Stage::with(setup, &[]);
    let (peers, _) = stage.founded(0, 3);
    for peer in &peers {
        enter(&mut stage, *peer, ChainPlace::default(), 7);
    }
    assert!(!recorded(&mut stage, peers[0])[0].is_released);
    let (stream, next) = (S, Step(1));
    let released = MasterToPeer::RecordsReleased {
        stream,
        released: next,
    };
    stage.told(peers[1]);
    stage.say(peers[0], PeerToMaster::RecordsHeld { stream, next });
    assert_eq!(stage.told(peers[1]), []);
    stage.say(peers[2], PeerToMaster::RecordsHeld { stream, next });
    assert_eq!(stage.told(peers[1]), [released]);
}

#[test]
fn a_restarted_master_seals_nothing_twice_and_sends_what_members_lack() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 2);
    let begin = ChainPlace::default();
    enter(&mut stage, peers[0], begin, 7);
    enter(&mut stage, peers[1], begin, 8);
    let sealed = recorded(&mut stage, peers[0]).remove(0);
    let mut chain = Chain::default();
    append(&mut chain, &sealed);
    let mut stage = stage.restart(setup());
    let given = entry(begin, 8, RecordRule::default());
    let reports = [
        report_with(vid, &chain, Vec::new()),
        report_with(vid, &Chain::default(), vec![given]),
    ];
    for (peer, report) in peers.iter_mut().zip(reports) {
        stage.attach(peer, report);
    }
    let told = stage.told(peers[1]);
    assert!(
        matches!(&told[..], [.., MasterToPeer::Recorded(it), MasterToPeer::Install(_)]
            if it.record == sealed.record),
        "{told:?}"
    );
    let (install, told) = (stage.installed(peers[0]), stage.told(peers[0]));
    assert_eq!((install.streams[0].place, told), (chain.place(), vec![]));
}

#[test]
fn a_master_without_a_journal_takes_the_longest_chain_and_refuses_another() {
    let mut stage = Stage::new();
    let (mut peers, vid) = stage.founded(0, 3);
    let mut chain = Chain::default();
    let record = |step, byte| StepRecord {
        stream: S,
        step: Step(step),
        entries: vec![StepEntry {
            number: crate::ids::MemberNumber(0),
            age: 0,
            payload: vec![byte],
        }],
    };
    chain.append(record(0, 7)).unwrap();
    let short = chain.clone();
    chain.append(record(1, 8)).unwrap();
    let mut strange = Chain::default();
    strange.append(record(0, 9)).unwrap();
    let blank = Setup {
        journaled: false,
        new_run: false,
        ..setup()
    };
    let claims: Vec<_> = peers.iter().map(|peer| stage.claim(*peer)).collect();
    let mut next = Stage::with(blank, &[]);
    next.next_connection = stage.next_connection;
    let chains = [&short, &chain, &strange];
    for ((peer, claim), chain) in peers.iter_mut().zip(claims).zip(chains) {
        peer.connection = next.connection();
        peer.attach += 1;
        let attach = PeerToMaster::Attach {
            run_id: peer.run_id,
            session: peer.session,
            attach: peer.attach,
            claim,
            report: report_with(vid, chain, Vec::new()),
        };
        next.say_at(peer.connection, attach);
    }
    let told = next.told(peers[0]);
    let records = told.iter().filter_map(|message| match message {
        MasterToPeer::Recorded(sealed) => Some(sealed.record.step),
        _ => None,
    });
    assert_eq!(records.collect::<Vec<_>>(), [Step(1)]);
    let refused = next.told(peers[2]);
    assert!(
        matches!(
            refused.last(),
            Some(MasterToPeer::Evicted {
                reason: EvictReason::Protocol(_)
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn a_member_that_consumes_nothing_is_evicted_when_it_is_too_far_behind() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 2);
    let rule = RecordRule {
        quorum: 1,
        ..RecordRule::default()
    };
    let mut chain = Chain::default();
    for step in 0..=crate::limits::RECORDS_BEHIND_MAX {
        assert!(
            stage
                .told(peers[1])
                .iter()
                .all(|message| { !matches!(message, MasterToPeer::Evicted { .. }) || step == 0 })
        );
        enter_with(&mut stage, peers[0], entry(chain.place(), 7, rule));
        let sealed = recorded(&mut stage, peers[0]).remove(0);
        append(&mut chain, &sealed);
    }
    let told = stage.told(peers[1]);
    let reason = EvictReason::RecordsBehind {
        stream: S,
        steps: crate::limits::RECORDS_BEHIND_MAX + 1,
    };
    assert_eq!(told.last(), Some(&MasterToPeer::Evicted { reason }));
}
