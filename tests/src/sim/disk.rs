//! The master's disk: its journal, the marker beside it, and what befalls the two.
//!
//! The journal is a list of records here. What its driver makes of the two at a start is modelled:
//! whether the journal holds all that the marker says was sealed (`driver::journal`).

use std::collections::{BTreeMap, BTreeSet};

use ccl_core::ids::{GroupId, PeerId, Vid};
use ccl_core::master::{History, Record};

use super::cluster::World;
use super::swarm::{Disk, FaultKind};

/// A journal and its marker.
#[derive(Debug, Default)]
pub struct JournalDisk {
    records: Vec<Record>,
    /// Records that are certainly on the disk.
    synced: usize,
    /// Which file it is: another one each time that the journal is begun or shortened.
    file: u64,
    /// Files so far.
    files: u64,
    /// How much of which file was sealed.
    marker: Option<(u64, usize)>,
    copy: Option<(u64, Vec<Record>)>,
}

impl JournalDisk {
    /// The records, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Writes a record, which a loss of power may take back.
    pub fn append(&mut self, record: Record) {
        if self.records.is_empty() && self.marker.is_none() {
            self.marker = Some((self.file, 0));
        }
        self.records.push(record);
    }

    /// All that was written is on the disk, and the marker says so.
    pub fn sync(&mut self) {
        self.synced = self.records.len();
        self.marker = Some((self.file, self.synced));
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
        self.synced = self.synced.min(left);
    }

    /// Loses everything, the marker included: no journal is kept.
    pub fn forget(&mut self) {
        *self = Self {
            file: self.files + 1,
            files: self.files + 1,
            ..Self::default()
        };
    }

    /// Replaces the file by the fewest records that add up to the same.
    pub fn shorten(&mut self) {
        if self.records.is_empty() {
            return;
        }
        self.records = History::read(&self.records).records();
        self.files += 1;
        self.file = self.files;
        self.sync();
    }

    /// Somebody copies the file, and not the marker.
    pub fn copy(&mut self) {
        self.copy = Some((self.file, self.records.clone()));
    }

    /// The copy is put in the place of the journal. Whether there is one that differs.
    pub fn restore(&mut self) -> bool {
        let Some((file, records)) = self.copy.clone() else {
            return false;
        };
        let differs = records != self.records;
        (self.file, self.records) = (file, records);
        self.synced = self.records.len();
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
            Some((file, sealed)) => file == self.file && self.records.len() >= sealed,
            None => self.records.is_empty(),
        }
    }

    /// A master reads it.
    #[must_use]
    pub fn read(&mut self) -> Vec<Record> {
        self.synced = self.records.len();
        self.records.clone()
    }
}

impl World {
    /// The master's process has ended.
    pub(super) fn lose_disk(&mut self, power_loss: bool) {
        let master = &mut self.master;
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

    /// The master is down, and somebody or something meddles with its journal. A run without a
    /// journal has one from the next start on.
    pub(super) fn spoil_journal(&mut self, kind: FaultKind) {
        let master = &mut self.master;
        match kind {
            FaultKind::JournalOlder if !master.disk.restore() => return master.disk.copy(),
            FaultKind::JournalOlder if master.rng.chance(300) => master.disk.lose_marker(),
            FaultKind::JournalOlder => {}
            FaultKind::JournalCut => {
                let all = master.disk.records().len() as u64;
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
    }
}

/// Groups whose newest view a journal names for certain.
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
