//! Records: what applications give, and what must hold of what they are told (R17).
//!
//! In some rounds all members give something for the next steps of some streams. How often is part
//! of the program, so a newcomer that begins where the others are gives as often as they do. Each
//! stream has a rule of its own: a *strict* one waits for all members.

use std::collections::{BTreeMap, BTreeSet};

use ccl_core::ids::{CallId, GroupId, MemberNumber, PeerId, Step, StreamId};
use ccl_core::master::{Master, Record};
use ccl_core::peer::Input;
use ccl_core::time::Instant;
use ccl_core::wire::control::{
    ChainPlace, Digest, Install, RecordRule, StepEntry, StepRecord, StreamPlace,
};

use super::checkers::ensure;
use super::cluster::{HostId, World};
use super::rng::{Rng, mix_all};
use super::swarm::Swarm;
use super::workload::{AppStep, CallKind};

/// Streams of a group.
const STREAMS: u64 = 3;

/// The streams of one application.
#[derive(Debug, Default)]
pub struct AppRecords {
    /// Where it began each stream that had begun before.
    begun: BTreeMap<StreamId, ChainPlace>,
    streams: BTreeMap<StreamId, AppStream>,
}

/// One stream.
#[derive(Debug, Default)]
struct AppStream {
    /// Calls that it has yet to make in this round.
    left: u64,
    current: Option<CallId>,
    /// Where it is.
    at: ChainPlace,
    /// What it gave for each step, and when.
    given: BTreeMap<Step, (Vec<u8>, Instant)>,
}

impl AppRecords {
    /// A host receives its first view.
    pub fn begin(&mut self, places: &[StreamPlace]) {
        let begun = places.iter().map(|it| (it.stream, it.place));
        self.begun = begun.collect();
    }

    /// Whether no call is left in this round.
    #[must_use]
    pub fn is_round_over(&self) -> bool {
        let mut streams = self.streams.values();
        streams.all(|stream| stream.left == 0 && stream.current.is_none())
    }

    /// Its session is over.
    pub fn end(&mut self) {
        for stream in self.streams.values_mut() {
            (stream.left, stream.current) = (0, None);
        }
    }

    fn stream(&mut self, id: StreamId) -> &mut AppStream {
        let begun = &self.begun;
        self.streams.entry(id).or_insert_with(|| AppStream {
            at: begun.get(&id).copied().unwrap_or_default(),
            ..AppStream::default()
        })
    }

    /// What it gave for a step, if it called it.
    #[must_use]
    pub fn given(&self, stream: StreamId, step: Step) -> Option<&[u8]> {
        let given = &self.streams.get(&stream)?.given;
        given.get(&step).map(|(payload, _)| payload.as_slice())
    }
}

/// The step whose record has an entry, by its member and the step it was given for.
type Entered = BTreeMap<(MemberNumber, u64), Step>;

/// What callers were told of a stream, over all members.
#[derive(Debug, Default)]
pub struct ToldRecords {
    records: BTreeMap<(usize, GroupId, StreamId, Step), (StepRecord, Digest)>,
    /// In which step each entry was sealed.
    entries: BTreeMap<(usize, GroupId, StreamId), Entered>,
    numbers: BTreeMap<(usize, GroupId, MemberNumber), PeerId>,
    /// Members of the newest view of each group, without those that are lost.
    present: BTreeMap<GroupId, BTreeSet<PeerId>>,
    /// Steps of strict streams that were sealed after `post_timeout`.
    overdue: BTreeSet<(GroupId, StreamId, Step)>,
    /// A journal was lost or put back, and with it what was told on its word alone.
    pub is_spoiled: bool,
}

/// The rule of a stream: the same for all members and rounds.
#[must_use]
pub fn rule(swarm: &Swarm, group: GroupId, stream: StreamId) -> RecordRule {
    let mut rng = Rng::new(mix_all(&[swarm.seed, group.0, stream.0, 0x0001_7000]));
    let age_max = [0, 0, 1, 3][rng.index(4)];
    let rule = RecordRule {
        age_max,
        ..RecordRule::default()
    };
    match rng.below(4) {
        0 | 1 => rule,
        2 => RecordRule {
            deadline_ms: Some(rng.between(5, 3000) as u32),
            ..rule
        },
        _ => RecordRule {
            quorum: rng.between(1, 3) as u32,
            grace_ms: rng.between(0, 500) as u32,
            ..rule
        },
    }
}

/// Whether a stream waits for all members.
fn is_strict(rule: RecordRule) -> bool {
    rule.deadline_ms.is_none() && rule.quorum == 0
}

/// The streams of a round, and how often members call each.
#[must_use]
pub fn round(swarm: &Swarm, group: GroupId, round: u64) -> Vec<(StreamId, u64)> {
    let mut rng = Rng::new(mix_all(&[swarm.seed, group.0, round, 0x0002_7000]));
    let mut calls = Vec::new();
    for stream in 0..STREAMS {
        if rng.chance(swarm.record_permille) {
            calls.push((StreamId(stream), rng.between(1, 4)));
        }
    }
    calls
}

impl World {
    /// Plans the records of a round.
    pub fn app_queue_records(&mut self, host: HostId, round: u64) {
        let group = self.hosts[host.0].group;
        for (id, calls) in self::round(&self.swarm, group, round) {
            self.hosts[host.0].app.records.stream(id).left += calls;
            self.app_soon(host, AppStep::Enter(id));
        }
    }

    /// Makes the next call of a stream.
    pub fn app_enter_next(&mut self, host: HostId, id: StreamId) {
        let stream = self.hosts[host.0].app.records.stream(id);
        if stream.current.is_some() || stream.left == 0 {
            return;
        }
        stream.left -= 1;
        let step = stream.at.next;
        let rule = rule(&self.swarm, self.hosts[host.0].group, id);
        let mut rng = Rng::new(mix_all(&[host.0 as u64, id.0, step.0]));
        let length = match rng.below(20) {
            0 | 1 => 0,
            2 => 4096,
            _ => rng.between(1, 12),
        };
        let payload = (0..length).map(|_| rng.bits() as u8).collect();
        self.app_enter(host, id, (payload, rule));
    }

    /// Gives something for the next step of a stream. Returns the call's name.
    pub fn app_enter(
        &mut self,
        host: HostId,
        id: StreamId,
        (payload, rule): (Vec<u8>, RecordRule),
    ) -> CallId {
        let now = self.now;
        let call = self.hosts[host.0].app.open(CallKind::Record(id), now, None);
        let stream = self.hosts[host.0].app.records.stream(id);
        stream.current = Some(call);
        let given = (payload.clone(), now);
        stream.given.entry(stream.at.next).or_insert(given);
        self.trace.fold(now, &[36, host.0 as u64, id.0]);
        let stream = id;
        self.host_input(
            host,
            Input::Enter {
                call,
                stream,
                payload,
                rule,
            },
        );
        call
    }

    /// A host is in a view, whose members have these numbers.
    pub fn note_numbers(&mut self, host: HostId, install: &Install) {
        let (run, group) = (self.hosts[host.0].run, self.hosts[host.0].group);
        let Some(run) = run else { return };
        for member in &install.members {
            let key = (run, group, member.number);
            self.records.numbers.insert(key, member.peer);
        }
    }

    /// A caller is told of a record.
    pub fn app_recorded(&mut self, host: HostId, (record, hash): (StepRecord, Digest)) {
        let checked = self.check_told(host, &record, hash);
        self.check(checked);
        let id = record.stream;
        let stream = self.hosts[host.0].app.records.stream(id);
        stream.current = None;
        stream.at = ChainPlace {
            next: record.step.next(),
            hash,
        };
        self.stats.records += 1;
        if !self.hosts[host.0].app.scripted {
            self.app_soon(host, AppStep::Enter(id));
            self.app_maybe_safe_point(host);
        }
    }

    fn check_told(
        &mut self,
        host: HostId,
        record: &StepRecord,
        hash: Digest,
    ) -> Result<(), String> {
        let (id, step) = (record.stream, record.step);
        let group = self.hosts[host.0].group;
        let Some(run) = self.hosts[host.0].run else {
            return Err("a record without a run".into());
        };
        let at = self.hosts[host.0].app.records.stream(id).at;
        ensure(at.next == step, || {
            format!(
                "{host:?} is told step {step} of stream {id} after {}",
                at.next
            )
        })?;
        ensure(record.hash(&at.hash) == hash, || {
            format!("step {step} of stream {id}: the chain is broken at {host:?}")
        })?;
        if self.checkers.broken.contains(&group) || self.records.is_spoiled {
            return Ok(());
        }
        for entry in &record.entries {
            self.check_record_entry((run, group), record, entry)?;
        }
        self.check_own(host, record)?;
        let told = &mut self.records.records;
        let fresh = (record.clone(), hash);
        let known = told
            .entry((run, group, id, step))
            .or_insert_with(|| fresh.clone());
        ensure(*known == fresh, || {
            format!("step {step} of stream {id} is {known:?} here and {fresh:?} there (R17)")
        })
    }

    /// An entry is what its member gave, in time, and in no other record.
    fn check_record_entry(
        &mut self,
        (run, group): (usize, GroupId),
        record: &StepRecord,
        entry: &StepEntry,
    ) -> Result<(), String> {
        let (id, number) = (record.stream, entry.number);
        let given_for = record.step.0.checked_sub(entry.age.into()).map(Step);
        let what = format!("step {} of stream {id}: entry {number}", record.step);
        let numbers = &self.records.numbers;
        let Some(&peer) = numbers.get(&(run, group, number)) else {
            return Err(format!("{what} is of nobody"));
        };
        let mut hosts = self.hosts.iter();
        let host = hosts.find(|host| host.run == Some(run) && host.peer.peer() == Some(peer));
        let given = host.zip(given_for);
        let given = given.and_then(|(host, step)| host.app.records.given(id, step));
        ensure(given == Some(&entry.payload), || {
            format!("{what}, {} steps old, was not given so (R17)", entry.age)
        })?;
        let rule = rule(&self.swarm, group, id);
        let is_scripted = host.is_some_and(|host| host.app.scripted);
        ensure(is_scripted || entry.age <= rule.age_max, || {
            format!("{what} is {} steps old", entry.age)
        })?;
        let step = given_for.unwrap_or_default();
        let entries = &mut self.records.entries;
        let entries = entries.entry((run, group, id)).or_default();
        let sealed = *entries.entry((number, step.0)).or_insert(record.step);
        ensure(sealed == record.step, || {
            format!("{what} of step {step} is in the record of step {sealed} too (R17)")
        })
    }

    /// What this member gave is in the record of a strict stream, as long as it is a member.
    fn check_own(&mut self, host: HostId, record: &StepRecord) -> Result<(), String> {
        let state = &self.hosts[host.0];
        let rule = rule(&self.swarm, state.group, record.stream);
        let given = state.app.records.given(record.stream, record.step);
        let key = (state.group, record.stream, record.step);
        let is_overdue = self.records.overdue.contains(&key);
        if state.app.scripted || !is_strict(rule) || is_overdue {
            return Ok(());
        }
        let me = state.peer.peer();
        let view = state.view.as_ref();
        let member = view.and_then(|view| view.members.iter().find(|it| Some(it.peer) == me));
        let (Some(given), Some(member)) = (given, member) else {
            return Ok(());
        };
        let is_in = record.entry_of(member.number, record.step).is_some();
        ensure(is_in || given.is_empty(), || {
            let (id, step) = (record.stream, record.step);
            format!("step {step} of stream {id} was sealed without {host:?} (R17)")
        })
    }

    /// The master seals something. A strict stream has waited for all members of the newest view.
    pub fn check_sealed_record(&mut self, record: &Record) {
        let (group, record) = match record {
            Record::Recorded { group, record } => (group, record),
            Record::ViewSealed(view) => {
                let members = view.members.iter().map(|known| known.member.peer);
                let present = &mut self.records.present;
                present.insert(view.group, members.collect());
                return;
            }
            Record::SessionEnded { peer, .. } => {
                for members in self.records.present.values_mut() {
                    members.remove(peer);
                }
                return;
            }
            _ => return,
        };
        let (id, group) = (record.stream, *group);
        let is_free = !is_strict(rule(&self.swarm, group, id))
            || self.checkers.broken.contains(&group)
            || self.records.is_spoiled;
        let present = self.records.present.get(&group);
        let Some(present) = present.filter(|_| !is_free) else {
            return;
        };
        let mut absent = BTreeSet::new();
        let mut newest = Instant::default();
        let run = self.master.machine.as_ref().and_then(Master::run_id);
        let run = self.runs.iter().position(|known| Some(*known) == run);
        for peer in present {
            let mut hosts = self.hosts.iter().enumerate();
            let host = hosts.find(|(_, it)| it.run == run && it.peer.peer() == Some(*peer));
            let Some((index, host)) = host else { continue };
            if host.app.scripted {
                return;
            }
            let stream = host.app.records.streams.get(&id);
            match stream.and_then(|stream| stream.given.get(&record.step)) {
                Some((_, at)) => newest = newest.max(*at),
                None => {
                    absent.insert(index);
                }
            }
        }
        let longest = self.swarm.timers.post_timeout;
        let was_long = longest.is_some_and(|longest| newest + longest <= self.now);
        if was_long {
            let overdue = &mut self.records.overdue;
            overdue.insert((group, id, record.step));
        }
        if !absent.is_empty() && !was_long {
            let step = record.step;
            self.fail(format!(
                "step {step} of stream {id} was sealed before hosts {absent:?} called it (R17)"
            ));
        }
    }
}
