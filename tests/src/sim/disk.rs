//! The master's disk: its journal, the marker beside it, and the faults of both.
//!
//! The journal is a list of records here. The driver's judgement at a start is modelled: whether
//! the journal holds all that the marker records as sealed (`driver::journal`). It is as strict as
//! the real one: a journal that lost its end and has grown again is a different one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ccl_core::ids::{GroupId, PeerId, Vid};
use ccl_core::master::{History, Record};
use ccl_core::time::Instant;

use super::cluster::World;
use super::swarm::{Disk, FaultKind};

/// A journal and its marker.
#[derive(Debug, Default)]
pub struct JournalDisk {
    records: Vec<Written>,
    /// Records that are certainly on the disk.
    synced: usize,
    /// How many there are once a write has reached the disk, by the time when it has.
    pending: VecDeque<(Instant, usize)>,
    /// Writes so far.
    writes: u64,
    marker: Option<Point>,
    copy: Option<(Vec<Written>, Option<Point>)>,
}

/// A record, and which write it is from. Where equal writes stand, all that is before them is
/// equal: so a checksum over a record and all before it is modelled.
#[derive(Clone, Debug)]
struct Written {
    write: u64,
    record: Record,
}

/// A place in a journal: the write that ends there, `None` at its beginning.
type Point = Option<(usize, u64)>;

impl JournalDisk {
    /// The records, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let records = self.records.iter();
        records.map(|written| written.record.clone()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.records.len()
    }

    /// Writes a record, which a loss of power may take back.
    pub fn append(&mut self, record: Record) {
        if self.records.is_empty() && self.marker.is_none() {
            self.marker = Some(None);
        }
        self.writes += 1;
        self.records.push(Written {
            write: self.writes,
            record,
        });
    }

    /// What was written so far reaches the disk at this time, before anything of it is sent.
    pub fn sync_at(&mut self, at: Instant) {
        self.pending.push_back((at, self.records.len()));
    }

    /// Everything that has reached the disk by now is there, and the marker records it.
    pub fn settle(&mut self, now: Instant) {
        while let Some((_, length)) = self.pending.pop_front_if(|(at, _)| *at <= now) {
            self.mark(length);
        }
    }

    /// All pending writes reach the disk now.
    pub fn hurry(&mut self, now: Instant) {
        self.pending
            .iter_mut()
            .for_each(|(at, _)| *at = now.min(*at));
        self.settle(now);
    }

    fn mark(&mut self, length: usize) {
        self.synced = length;
        let newest = length.checked_sub(1).map(|newest| &self.records[newest]);
        self.marker = Some(newest.map(|newest| (length, newest.write)));
    }

    /// Records that were written and may be lost.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.records.len() - self.synced
    }

    /// Loses the newest records.
    pub fn lose(&mut self, records: usize) {
        let left = self.records.len().saturating_sub(records);
        self.records.truncate(left);
        self.pending.clear();
        self.synced = self.synced.min(left);
    }

    /// Loses everything, the marker included: no journal is kept.
    pub fn forget(&mut self) {
        *self = Self {
            writes: self.writes,
            ..Self::default()
        };
    }

    /// A running master replaces the file by the fewest records that add up to the same. A doubted
    /// journal is not shortened before the doubt is sealed.
    pub fn shorten(&mut self) {
        if self.records.is_empty() || !self.is_whole() {
            return;
        }
        let short = History::read(&self.records()).records();
        self.records.clear();
        self.pending.clear();
        short.into_iter().for_each(|record| self.append(record));
        self.mark(self.records.len());
    }

    /// Copies the file and the marker.
    pub fn copy(&mut self) {
        self.copy = Some((self.records.clone(), self.marker));
    }

    /// The copy of the marker, too, is put in its place: the two fit, though they are old.
    pub fn restore_marker(&mut self) {
        if let Some((_, marker)) = &self.copy {
            self.marker = *marker;
        }
    }

    /// The copy is put in the place of the journal. Returns whether there is one that differs.
    pub fn restore(&mut self) -> bool {
        let Some((records, _)) = self.copy.clone() else {
            return false;
        };
        let writes = |records: &[Written]| records.iter().map(|it| it.write).collect::<Vec<_>>();
        let differs = writes(&records) != writes(&self.records);
        self.synced = records.len();
        self.records = records;
        self.pending.clear();
        differs
    }

    /// The marker is lost, as when only the journal is moved to another machine.
    pub fn lose_marker(&mut self) {
        self.marker = None;
    }

    /// Whether the journal is known to hold all that was sealed: what the driver finds at a start.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self.marker {
            None => self.records.is_empty(),
            Some(None) => true,
            Some(Some((length, write))) => {
                let reached = length
                    .checked_sub(1)
                    .and_then(|last| self.records.get(last));
                reached.is_some_and(|reached| reached.write == write)
            }
        }
    }

    /// A master reads it.
    #[must_use]
    pub fn read(&mut self) -> Vec<Record> {
        self.synced = self.records.len();
        self.pending.clear();
        self.records()
    }
}

impl World {
    /// The master's process has ended.
    pub(super) fn lose_disk(&mut self, power_loss: bool) {
        let now = self.now;
        let master = &mut self.master;
        master.disk.settle(now);
        match self.swarm.disk {
            Disk::None => {
                master.disk.forget();
                master.lost_disk = true;
            }
            Disk::Full => {}
            Disk::LazyLost if power_loss => {
                let unsynced = master.disk.unsynced() as u64;
                let kept = master.rng.between(0, unsynced);
                master.lost_tail |= kept < unsynced;
                master.disk.lose((unsynced - kept) as usize);
            }
            Disk::LazyLost => {}
        }
    }

    /// Whether every master has had the journal of the one before.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.swarm.disk != Disk::None && !self.master.lost_disk
    }

    /// The master is down, and its journal is tampered with. A run without a journal has one from
    /// the next start on.
    pub(super) fn spoil_journal(&mut self, kind: FaultKind) {
        let master = &mut self.master;
        match kind {
            FaultKind::JournalOlder if !master.disk.restore() => return master.disk.copy(),
            FaultKind::JournalOlder if master.rng.chance(300) => master.disk.lose_marker(),
            FaultKind::JournalOlder => {}
            FaultKind::JournalCut => {
                let all = master.disk.length() as u64;
                let lost = master.rng.between(0, all / 2) as usize;
                master.disk.lose(lost);
            }
            _ if self.swarm.disk == Disk::None => {
                self.swarm.disk = Disk::Full;
                return;
            }
            _ => {
                master.disk.forget();
                master.lost_disk = true;
            }
        }
        self.checkers.master_crashed(true);
        self.records.is_spoiled = true;
    }
}

/// Groups whose newest view is certainly in a journal.
#[must_use]
pub fn covered(history: &[Record], is_whole: bool) -> BTreeSet<GroupId> {
    let mut covered = BTreeSet::new();
    for record in history.iter().filter(|_| is_whole) {
        match record {
            Record::ViewSealed(view) => drop(covered.insert(view.group)),
            Record::Outdated => covered.clear(),
            _ => {}
        }
    }
    covered
}

/// The newest view of each group in a journal.
#[must_use]
pub fn views(history: &[Record]) -> BTreeMap<GroupId, (Vid, Vec<PeerId>)> {
    let views = history.iter().filter_map(|record| match record {
        Record::ViewSealed(view) => {
            let members = view.members.iter().map(|known| known.member.peer);
            Some((view.group, (view.vid, members.collect())))
        }
        _ => None,
    });
    views.collect()
}
