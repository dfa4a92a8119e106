//! The master's disk: its journal, the marker beside it, and what befalls the two.
//!
//! The journal is a list of records here. What its driver makes of the two at a start is modelled:
//! whether the journal holds all that the marker says was sealed (`driver::journal`).

use ccl_core::master::{History, Record};

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
