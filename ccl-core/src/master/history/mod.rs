//! What an earlier master's journal says, read once at startup.

pub mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{Epoch, GroupId, MemberNumber, PeerId, RunId, StreamId, Tag, Term};
use crate::limits::{ENDED_SESSIONS_KEPT, RECORD_LOG_BYTES_MAX};
use crate::master::history::record::{EndedSession, KeptStream, Record, Registration, SealedView};
use crate::master::used::UsedGroups;
use crate::timers::Timers;
use crate::wire::control::{Chain, CommitRecord, EvictReason, StepRecord, TagFloor};

/// The state that the sealed history adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    run: String,
    pub run_id: Option<RunId>,
    /// Whether the run may have groups that are not named here.
    pub taken_over: bool,
    pub term: Term,
    /// Groups of which the journal is older than the run.
    pub doubted: BTreeSet<GroupId>,
    /// Sessions that had not ended.
    pub sessions: BTreeMap<PeerId, Registration>,
    /// Sessions that ended last and why, newest last.
    pub ended: VecDeque<EndedSession>,
    /// The newest view of each group, with what happened since.
    pub groups: BTreeMap<GroupId, SealedView>,
    /// Number of the next admitted peer of each group.
    pub next_numbers: BTreeMap<GroupId, MemberNumber>,
    /// Greater than every peer id given so far.
    pub next_peer: PeerId,
    /// The greatest epoch of a group that was given back.
    pub epochs: Epoch,
    /// Ids of closed groups that have ended.
    pub used: UsedGroups,
    /// The streams of records of each group.
    pub streams: BTreeMap<GroupId, BTreeMap<StreamId, Chain>>,
}

impl History {
    /// Adds the records up, oldest first.
    #[must_use]
    pub fn read(records: &[Record]) -> Self {
        let mut history = Self::default();
        records.iter().for_each(|record| history.add(record));
        history
    }

    /// Adds the next record.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::RunFounded {
                run,
                run_id,
                taken_over,
            } => {
                self.run.clone_from(run);
                self.run_id = Some(*run_id);
                self.taken_over = *taken_over;
            }
            Record::TermBegan { term } => self.term = self.term.max(*term),
            Record::SessionRegistered(registration) => {
                self.see(registration.peer);
                self.sessions
                    .insert(registration.peer, registration.clone());
            }
            Record::SessionEnded { peer, reason } => self.end(*peer, reason),
            Record::ViewSealed(sealed) => self.add_view(sealed),
            Record::Committed { group, commits } => self.add_commits(*group, commits),
            Record::SafePoint { group, k, .. } => {
                if let Some(view) = self.groups.get_mut(group) {
                    view.safe_released = view.safe_released.max(k + 1);
                }
            }
            Record::Counters {
                next_peer,
                next_numbers,
                epochs,
                used,
            } => {
                self.epochs = self.epochs.max(*epochs);
                used.iter().for_each(|group| self.used.add(*group));
                self.next_peer = self.next_peer.max(*next_peer);
                for (group, number) in next_numbers {
                    let next = self.next_numbers.entry(*group).or_default();
                    *next = (*next).max(*number);
                }
            }
            Record::GroupGivenBack { group, epochs } => {
                self.epochs = self.epochs.max(*epochs);
                let gone = self.groups.remove(group);
                if gone.is_some_and(|view| view.is_closed) {
                    self.used.add(*group);
                }
                self.doubted.remove(group);
                self.next_numbers.remove(group);
                self.streams.remove(group);
            }
            Record::Outdated => {
                self.taken_over = true;
                self.doubted = self.groups.keys().copied().collect();
                self.sessions.clear();
                // A session that had ended in an older copy may have continued in what was lost of
                // the newest.
                self.ended.clear();
            }
            Record::Remembered(ended) => self.remember(ended.clone()),
            Record::Recorded { group, record } => self.add_step(*group, record),
            Record::Streams { group, streams } => {
                let streams = streams.iter().filter_map(|stream| {
                    let chain = Chain::of(stream.kept.clone()).ok()?;
                    Some((stream.stream, chain))
                });
                self.streams.insert(*group, streams.collect());
            }
        }
    }

    /// The longest timeouts sent to any session that may be alive: those that had not ended, and
    /// members of the newest views in any case. `None` if there is no such session.
    #[must_use]
    pub fn told(&self) -> Option<Timers> {
        let sessions = self.sessions.values().map(|session| session.timers);
        let views = self.groups.values().filter(|view| !view.members.is_empty());
        let told = sessions.chain(views.map(|view| view.timers));
        told.reduce(|one, other| one.longer(&other))
    }

    /// The fewest records that add up to the same, for a shortened journal.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(run_id) = self.run_id {
            records.push(Record::RunFounded {
                run: self.run.clone(),
                run_id,
                taken_over: self.taken_over,
            });
        }
        records.push(Record::TermBegan { term: self.term });
        let next_numbers = self.next_numbers.iter();
        records.push(Record::Counters {
            next_peer: self.next_peer,
            next_numbers: next_numbers.map(|(id, next)| (*id, *next)).collect(),
            epochs: self.epochs,
            used: self.used.iter().collect(),
        });
        let (doubted, others): (Vec<_>, Vec<_>) = self
            .groups
            .values()
            .partition(|view| self.doubted.contains(&view.group));
        if !doubted.is_empty() {
            let doubted = doubted.into_iter().cloned();
            records.extend(doubted.map(Record::ViewSealed));
            records.push(Record::Outdated);
        }
        records.extend(self.ended.iter().cloned().map(Record::Remembered));
        let sessions = self.sessions.values().cloned();
        records.extend(sessions.map(Record::SessionRegistered));
        for view in others {
            records.push(Record::ViewSealed(view.clone()));
            let members = view.members.iter().map(|sealed| sealed.member.peer);
            let ended = members.filter(|peer| !self.sessions.contains_key(peer));
            // The real reason is in `ended`, unless it was forgotten.
            let reason = EvictReason::NotAMember;
            records.extend(ended.map(|peer| Record::SessionEnded {
                peer,
                reason: reason.clone(),
            }));
        }
        let streams = self.streams.iter();
        records.extend(streams.map(|(group, streams)| Record::Streams {
            group: *group,
            streams: KeptStream::of(streams.iter()),
        }));
        records
    }

    /// Adds a record to its stream. One that does not follow is of a journal that was tampered
    /// with: what was before it counts.
    fn add_step(&mut self, group: GroupId, record: &StepRecord) {
        let streams = self.streams.entry(group).or_default();
        let chain = streams.entry(record.stream).or_default();
        if chain.append(record.clone()).is_ok() {
            chain.shorten(RECORD_LOG_BYTES_MAX);
        }
    }

    fn end(&mut self, peer: PeerId, reason: &EvictReason) {
        let session = self.sessions.remove(&peer);
        if let Some(registration) = session.filter(|_| *reason != EvictReason::NotAMember) {
            self.remember(EndedSession {
                session: registration.session,
                reason: reason.clone(),
                key: registration.key,
                attach: registration.attach,
            });
        }
    }

    fn remember(&mut self, ended: EndedSession) {
        if self.ended.len() == ENDED_SESSIONS_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    fn add_commits(&mut self, group: GroupId, commits: &[CommitRecord]) {
        let Some(view) = self.groups.get_mut(&group) else {
            return;
        };
        for commit in commits {
            view.state = commit.sealed.state().or(view.state);
            let floor = floor_of(view, commit.op.tag);
            if commit.op.n >= floor.floor {
                floor.floor = commit.op.n.next();
                floor.last_committed = Some(commit.op.n);
            }
        }
    }

    fn add_view(&mut self, sealed: &SealedView) {
        for (peer, reason) in &sealed.departed {
            self.end(*peer, reason);
        }
        let next = self.next_numbers.entry(sealed.group).or_default();
        for known in &sealed.members {
            next.0 = next.0.max(known.member.number.0 + 1);
        }
        for known in &sealed.members {
            self.see(known.member.peer);
            let session = self
                .sessions
                .entry(known.member.peer)
                .or_insert_with(|| Registration {
                    peer: known.member.peer,
                    session: known.session,
                    group: sealed.group,
                    unit: known.member.unit,
                    unit_size: None,
                    place: None,
                    generation: known.member.peer,
                    addresses: known.member.addresses.clone(),
                    key: known.member.key,
                    min_world: 1,
                    attach: known.attach,
                    name: known.member.name.clone(),
                    timers: sealed.timers,
                });
            session.attach = session.attach.max(known.attach);
        }
        self.doubted.remove(&sealed.group);
        self.groups.insert(sealed.group, sealed.clone());
    }

    fn see(&mut self, peer: PeerId) {
        self.next_peer = self.next_peer.max(PeerId(peer.0 + 1));
    }
}

fn floor_of(view: &mut SealedView, tag: Tag) -> &mut TagFloor {
    let index = match view.floors.binary_search_by_key(&tag, |floor| floor.tag) {
        Ok(index) => index,
        Err(index) => {
            view.floors.insert(
                index,
                TagFloor {
                    tag,
                    floor: Default::default(),
                    last_committed: None,
                    reasons: Vec::new(),
                },
            );
            index
        }
    };
    &mut view.floors[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, LinkKey, OpName, OpNumber, Revision, SessionId, UnitId, Vid};
    use crate::master::SealedMember;
    use crate::wire::control::{Member, Sealed, StateId};

    fn registration(peer: u64) -> Registration {
        Registration {
            peer: PeerId(peer),
            session: SessionId(peer.into()),
            group: GroupId(0),
            unit: UnitId(peer),
            unit_size: None,
            place: None,
            generation: PeerId(peer),
            addresses: Vec::new(),
            key: LinkKey(peer.into()),
            min_world: 2,
            attach: 1,
            name: String::new(),
            timers: Timers::default(),
        }
    }

    fn view(group: u64, epoch: u32, members: &[u64], departed: &[u64]) -> Record {
        let members = members.iter().map(|&peer| SealedMember {
            member: Member {
                peer: PeerId(peer),
                number: MemberNumber(peer * 10),
                unit: UnitId(peer),
                addresses: Vec::new(),
                key: LinkKey(peer.into()),
                name: String::new(),
            },
            session: SessionId(peer.into()),
            attach: 1,
        });
        let departed = departed
            .iter()
            .map(|&peer| (PeerId(peer), EvictReason::Died));
        Record::ViewSealed(SealedView {
            is_leased: false,
            group: GroupId(group),
            vid: Vid {
                term: Term(1),
                epoch: Epoch(epoch),
            },
            members: members.collect(),
            departed: departed.collect(),
            ..SealedView::default()
        })
    }

    fn committed(group: u64, tag: u64, n: u64) -> Record {
        Record::Committed {
            group: GroupId(group),
            commits: vec![CommitRecord {
                op: OpName {
                    tag: Tag(tag),
                    n: OpNumber(n),
                    birth: Vid::default(),
                },
                contributors: vec![PeerId(1)],
                sealed: Sealed::Nothing,
            }],
        }
    }

    /// A sync of shared state that sealed this revision.
    fn synced(group: u64, n: u64, revision: u64) -> Record {
        let mut record = committed(group, Tag::SHARED_STATE.0, n);
        if let Record::Committed { commits, .. } = &mut record {
            commits[0].sealed = Sealed::State(StateId {
                revision: Revision(revision),
                ..StateId::default()
            });
        }
        record
    }

    fn eventful() -> Vec<Record> {
        let ended = |peer| Record::SessionEnded {
            peer: PeerId(peer),
            reason: EvictReason::Left,
        };
        let given_back = |group, epoch| Record::GroupGivenBack {
            group: GroupId(group),
            epochs: Epoch(epoch),
        };
        let safe = |k| Record::SafePoint {
            group: GroupId(0),
            k,
            vid: Vid::default(),
        };
        vec![
            Record::RunFounded {
                run: "a run".into(),
                run_id: RunId(7),
                taken_over: true,
            },
            Record::TermBegan { term: Term(1) },
            Record::SessionRegistered(registration(1)),
            Record::SessionRegistered(registration(2)),
            Record::SessionRegistered(registration(9)),
            view(0, 1, &[1, 2, 9], &[]),
            committed(0, 5, 0),
            committed(0, 5, 1),
            synced(0, 0, 5),
            committed(0, 3, 0),
            safe(0),
            ended(9),
            view(0, 2, &[1, 2], &[9]),
            committed(0, 5, 2),
            Record::TermBegan { term: Term(2) },
            Record::SessionRegistered(registration(4)),
            view(1, 1, &[3, 4], &[]),
            committed(1, 0, 0),
            synced(1, 0, 1),
            synced(1, 1, 0),
            ended(2),
            safe(1),
            view(2, 1, &[5], &[]),
            view(2, 2, &[], &[5]),
            given_back(2, 2),
            view(3, 3, &[6], &[]),
            Record::Outdated,
            view(0, 3, &[1], &[]),
            given_back(3, 4),
        ]
    }

    #[test]
    fn a_shortened_history_adds_up_to_the_same_at_every_point() {
        let records = eventful();
        for end in 0..=records.len() {
            let history = History::read(&records[..end]);
            let mut short = History::read(&history.records());
            assert_eq!(short, history, "after {end} records");
            // Later records have the same effect on it.
            let mut long = history;
            for record in &records[end..] {
                short.add(record);
                long.add(record);
            }
            assert_eq!(short, long, "cut after {end} records");
        }
    }

    #[test]
    fn why_the_newest_sessions_ended_is_remembered() {
        let founded = [registration(1), registration(2)].map(Record::SessionRegistered);
        let mut history = History::read(&founded);
        history.add(&view(0, 1, &[1, 2], &[]));
        history.add(&view(0, 2, &[1], &[2]));
        let why = |history: &History| {
            let ended = history
                .ended
                .iter()
                .map(|ended| (ended.session.0, ended.reason.clone()));
            ended.collect::<Vec<_>>()
        };
        assert_eq!(why(&history), [(2, EvictReason::Died)]);
        for peer in 3..600 {
            history.add(&Record::SessionRegistered(registration(peer)));
            history.add(&Record::SessionEnded {
                peer: PeerId(peer),
                reason: EvictReason::Left,
            });
        }
        let newest = (344..600).map(|peer| (peer, EvictReason::Left));
        assert_eq!(why(&history), newest.collect::<Vec<_>>());
        assert_eq!(History::read(&history.records()), history);
        history.add(&Record::Outdated);
        assert_eq!(why(&history), []);
    }

    #[test]
    fn the_longest_times_count_of_those_who_may_be_alive() {
        let patient = |seconds| Timers {
            detach_timeout: std::time::Duration::from_secs(seconds),
            ..Timers::default()
        };
        let told = |history: &History| history.told().map(|told| told.detach_timeout.as_secs());
        let mut history = History::default();
        assert_eq!(told(&history), None);
        for (peer, seconds) in [(1, 90), (2, 70)] {
            history.add(&Record::SessionRegistered(Registration {
                timers: patient(seconds),
                ..registration(peer)
            }));
        }
        let Record::ViewSealed(mut sealed) = view(0, 1, &[1, 2], &[]) else {
            unreachable!("it is a view");
        };
        sealed.timers = patient(90);
        history.add(&Record::ViewSealed(sealed.clone()));
        history.add(&Record::SessionEnded {
            peer: PeerId(1),
            reason: EvictReason::Died,
        });
        assert_eq!(told(&history), Some(90), "it may not have heard of that");
        assert_eq!(told(&History::read(&history.records())), Some(90));
        sealed.members.remove(0);
        sealed.timers = patient(70);
        history.add(&Record::ViewSealed(sealed.clone()));
        assert_eq!(told(&history), Some(70));
        sealed.members.clear();
        sealed.departed = vec![(PeerId(2), EvictReason::Left)];
        history.add(&Record::ViewSealed(sealed));
        assert_eq!(told(&history), None);
    }

    #[test]
    fn the_newest_sync_says_what_is_sealed_even_if_it_went_back() {
        let revision = |records: &[Record], group: u64| {
            let history = History::read(records);
            let state = history.groups[&GroupId(group)].state;
            state.map(|state| state.revision.0)
        };
        let records = [view(0, 1, &[1], &[]), synced(0, 0, 7), committed(0, 3, 0)];
        assert_eq!(revision(&records[..1], 0), None);
        assert_eq!(revision(&records, 0), Some(7));
        assert_eq!(revision(&eventful(), 1), Some(0));
        let restored = History::read(&History::read(&eventful()).records());
        assert_eq!(restored, History::read(&eventful()));
    }

    #[test]
    fn commits_do_not_lengthen_a_shortened_history() {
        let mut history = History::read(&eventful());
        let before = history.records().len();
        for n in 3..1000 {
            history.add(&committed(0, 5, n));
        }
        assert_eq!(history.records().len(), before);
    }
}
