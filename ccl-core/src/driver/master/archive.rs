//! The journal of a running master, and its compaction.
//!
//! Commits come by the thousand, but only the newest commit of a tag counts. The archive keeps the
//! sum of all records, and replaces the file when it has grown well beyond that sum.

use std::fmt::Debug;
use std::path::Path;

use crate::driver::clock::Moment;
use crate::driver::journal::{Journal, Place};
use crate::error::Result;
use crate::master::{History, Record};

/// What records are written to: a journal, or its replacement in tests.
pub(super) trait Disk: Debug {
    fn append(&mut self, record: &Record) -> Result<()>;
    fn stamp(&mut self, moment: &Moment) -> Result<()>;
    fn sync(&mut self) -> Result<()>;
    fn replace(&mut self, records: &[Record]) -> Result<()>;
    fn bytes(&self) -> u64;
    fn is_broken(&self) -> bool;

    /// Whether it is still where it should be.
    fn place(&self) -> Place {
        Place::There
    }

    /// Whether another process has truncated it or written to it.
    fn is_changed(&mut self) -> bool {
        false
    }

    /// Path of the journal.
    fn path(&self) -> &Path {
        Path::new("")
    }
}

impl Disk for Journal {
    fn append(&mut self, record: &Record) -> Result<()> {
        Self::append(self, record)
    }

    fn stamp(&mut self, moment: &Moment) -> Result<()> {
        Self::stamp(self, moment)
    }

    fn sync(&mut self) -> Result<()> {
        Self::sync(self)
    }

    fn replace(&mut self, records: &[Record]) -> Result<()> {
        Self::replace(self, records)
    }

    fn bytes(&self) -> u64 {
        Self::bytes(self)
    }

    fn is_broken(&self) -> bool {
        Self::is_broken(self)
    }

    fn place(&self) -> Place {
        Self::place(self)
    }

    fn is_changed(&mut self) -> bool {
        Self::is_changed(self)
    }

    fn path(&self) -> &Path {
        Self::path(self)
    }
}

/// A journal, and what its records add up to.
#[derive(Debug)]
pub(super) struct Archive {
    journal: Box<dyn Disk>,
    history: History,
    /// Length up to which the file is left alone, in bytes.
    kept_bytes: u64,
    /// Length from which on it is replaced.
    replace_at_bytes: u64,
    /// Whether what this master wrote first is on the disk. A file that takes the place of another
    /// counts as the newest of its run: one that is in doubt must hold that first.
    is_begun: bool,
    /// Consecutive looks that missed the file; every [`LOOKS_A_WARNING`]th is logged.
    looks: u32,
}

impl Archive {
    pub fn new(journal: impl Disk + 'static, records: &[Record]) -> Self {
        Self {
            journal: Box::new(journal),
            history: History::read(records),
            kept_bytes: JOURNAL_KEPT_BYTES,
            replace_at_bytes: JOURNAL_KEPT_BYTES,
            is_begun: false,
            looks: 0,
        }
    }

    /// Checks whether the file was deleted, changed, or replaced by another. A deleted or changed
    /// file is rewritten; another file is not touched, since it may belong to another master.
    ///
    /// # Errors
    /// The journal's: the master must stop.
    pub fn watch(&mut self) -> Result<()> {
        let (place, is_changed) = (self.journal.place(), self.journal.is_changed());
        match place {
            Place::Gone if self.is_begun => self.write_anew("or its marker was deleted"),
            Place::There if self.is_begun && is_changed => self.write_anew(CHANGED),
            Place::Taken if self.is_begun => {
                if self.is_told() {
                    self.warn("another file is in the journal's place");
                }
                Ok(())
            }
            Place::There | Place::Gone | Place::Taken => {
                self.looks = 0;
                Ok(())
            }
        }
    }

    /// Whether this check's failure should be logged.
    fn is_told(&mut self) -> bool {
        let is_told = self.looks.is_multiple_of(LOOKS_A_WARNING);
        self.looks += 1;
        is_told
    }

    fn write_anew(&mut self, damage: &str) -> Result<()> {
        let is_told = self.is_told();
        match self.journal.replace(&self.history.records()) {
            Ok(()) => {
                self.looks = 0;
                let journal = self.journal.path().display();
                tracing::error!(
                    %journal,
                    "the journal {damage} while the master was running. The master rewrote it and \
                     nothing is lost; find out what damaged it"
                );
            }
            Err(error) if self.journal.is_broken() => return Err(error),
            Err(error) if is_told => self.warn(&format!(
                "the journal {damage}, and cannot be rewritten: {error}"
            )),
            Err(_) => {}
        }
        Ok(())
    }

    fn warn(&self, what: &str) {
        let journal = self.journal.path().display();
        tracing::error!(
            %journal,
            "{what}. The master keeps serving, but what it seals is lost when it ends. If another \
             master uses this path, stop one of the two. Otherwise make the directory writable and \
             move away what is in the journal's place: this master then rewrites its journal \
             within seconds"
        );
    }

    /// Appends a record; see [`Journal::append`].
    ///
    /// # Errors
    /// The journal's: the master must stop.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        // If it cannot be rewritten, a later check retries.
        if self.journal.is_changed() && self.is_begun && self.looks == 0 {
            self.write_anew(CHANGED)?;
        }
        self.journal.append(record)?;
        self.history.add(record);
        if !self.is_begun || self.journal.bytes() < self.replace_at_bytes {
            return Ok(());
        }
        let from_bytes = self.journal.bytes();
        if let Err(error) = self.journal.replace(&self.history.records()) {
            if self.journal.is_broken() {
                return Err(error);
            }
            tracing::warn!(%error, "the journal could not be compacted; it keeps growing");
        } else {
            let to_bytes = self.journal.bytes();
            tracing::info!(from_bytes, to_bytes, "the journal was compacted");
        }
        self.replace_at_bytes = self.kept_bytes.max(self.journal.bytes() * 4);
        Ok(())
    }

    /// Records that a member can hear from the master now; see [`Journal::stamp`].
    ///
    /// # Errors
    /// The journal's: the master must stop.
    pub fn stamp(&mut self, moment: &Moment) -> Result<()> {
        self.journal.stamp(moment)
    }

    /// Returns once everything is on the disk; see [`Journal::sync`].
    ///
    /// # Errors
    /// The journal's: the master must stop.
    pub fn sync(&mut self) -> Result<()> {
        self.journal.sync()?;
        self.is_begun = true;
        Ok(())
    }
}

/// Length up to which a journal is left alone, in bytes: half a million commits, read in a second.
const JOURNAL_KEPT_BYTES: u64 = 32 << 20;

const CHANGED: &str = "was cut or overwritten";

/// Looks, about one a second, between two warnings of a journal that is not in its place.
const LOOKS_A_WARNING: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, GroupId, OpName, OpNumber, RunId, Tag, Term, Vid};
    use crate::master::SealedView;
    use crate::wire::control::{CommitRecord, Sealed};

    fn commit(n: u64) -> Record {
        let vid = Vid {
            term: Term(1),
            epoch: Epoch(1),
        };
        let commit = CommitRecord {
            op: OpName {
                tag: Tag(1),
                n: OpNumber(n),
                birth: vid,
            },
            contributors: Vec::new(),
            sealed: Sealed::Nothing,
        };
        Record::Committed {
            group: GroupId(0),
            commits: vec![commit],
        }
    }

    #[test]
    fn a_long_run_keeps_a_short_journal_that_adds_up_to_the_same() {
        let name = format!("ccl-archive-{}.journal", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _not_there = std::fs::remove_file(&path);
        let _not_there = std::fs::remove_file(path.with_extension("journal.marker"));
        let (journal, none) = Journal::open(&path, "run", false).unwrap();
        let mut archive = Archive::new(journal, &none);
        archive.sync().unwrap();
        (archive.kept_bytes, archive.replace_at_bytes) = (2000, 2000);
        let mut records = vec![
            Record::RunFounded {
                run: "run".into(),
                run_id: RunId(3),
                taken_over: false,
            },
            Record::ViewSealed(SealedView::default()),
        ];
        records.extend((0..300).map(commit));
        let mut longest = 0;
        for record in &records {
            archive.append(record).unwrap();
            longest = longest.max(archive.journal.bytes());
        }
        assert!(longest < 2100, "{longest} bytes");
        drop(archive);
        let (_, found) = Journal::open::<Record>(&path, "run", false).unwrap();
        assert!(found.len() < records.len() / 2, "{} records", found.len());
        assert_eq!(History::read(&found), History::read(&records));
        std::fs::remove_file(path.with_extension("journal.marker")).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_journal_is_left_alone_until_it_is_moved_away() {
        let name = format!("ccl-archive-taken-{}.journal", std::process::id());
        let path = std::env::temp_dir().join(name);
        let other = path.with_extension("other");
        let marker = path.with_extension("journal.marker");
        let (journal, none) = Journal::open(&path, "run", false).unwrap();
        let mut archive = Archive::new(journal, &none);
        let records = [
            Record::TermBegan { term: Term(2) },
            Record::ViewSealed(SealedView::default()),
        ];
        archive.append(&records[0]).unwrap();
        archive.sync().unwrap();
        std::fs::write(&other, "of somebody else").unwrap();
        std::fs::rename(&other, &path).unwrap();
        for _ in 0..3 {
            archive.watch().unwrap();
            archive.append(&records[1]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"of somebody else");
        }
        std::fs::rename(&path, &other).unwrap();
        archive.watch().unwrap();
        assert!(path.exists() && archive.looks == 0);
        drop(archive);
        let (journal, found) = Journal::open::<Record>(&path, "run", false).unwrap();
        assert!(journal.doubt().is_none());
        assert_eq!(History::read(&found), History::read(&records));
        for file in [path, other, marker] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn a_journal_whose_folder_is_gone_is_written_once_there_is_one() {
        let name = format!("ccl-archive-folder-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("run.journal");
        let (journal, none) = Journal::open(&path, "run", false).unwrap();
        let mut archive = Archive::new(journal, &none);
        archive
            .append(&Record::TermBegan { term: Term(2) })
            .unwrap();
        archive.sync().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        archive.watch().unwrap();
        assert_eq!((path.exists(), archive.looks), (false, 1));
        std::fs::create_dir_all(&folder).unwrap();
        archive.watch().unwrap();
        drop(archive);
        let (journal, found) = Journal::open::<Record>(&path, "run", false).unwrap();
        assert!(journal.doubt().is_none());
        assert_eq!(History::read(&found).term, Term(2));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A record written behind the cut would leave a hole, of the right length.
    #[test]
    fn a_journal_cut_or_overwritten_under_its_master_is_written_anew_with_the_next_record() {
        let name = format!("ccl-archive-cut-{}.journal", std::process::id());
        let path = std::env::temp_dir().join(name);
        let (journal, none) = Journal::open(&path, "run", false).unwrap();
        let mut archive = Archive::new(journal, &none);
        let mut records = vec![
            Record::TermBegan { term: Term(2) },
            Record::ViewSealed(SealedView::default()),
        ];
        records
            .iter()
            .for_each(|record| archive.append(record).unwrap());
        archive.sync().unwrap();
        let damages: [fn(&Path); 3] = [
            |path| std::fs::write(path, "").unwrap(),
            |path| std::fs::write(path, "of somebody else").unwrap(),
            |path| {
                let longer = [std::fs::read(path).unwrap(), vec![7; 100]].concat();
                std::fs::write(path, longer).unwrap();
            },
        ];
        for (n, damage) in damages.iter().enumerate() {
            damage(&path);
            records.push(commit(n as u64));
            archive.append(&records[2 + n]).unwrap();
            archive.sync().unwrap();
        }
        drop(archive);
        let (journal, found) = Journal::open::<Record>(&path, "run", false).unwrap();
        assert!(journal.doubt().is_none());
        assert_eq!(History::read(&found), History::read(&records));
        std::fs::remove_file(path.with_extension("journal.marker")).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_long_journal_in_doubt_is_not_shortened_before_the_doubt_is_sealed() {
        let name = format!("ccl-archive-doubt-{}.journal", std::process::id());
        let path = std::env::temp_dir().join(name);
        let marker = path.with_extension("journal.marker");
        let open = || Journal::open::<Record>(&path, "run", false).unwrap();
        let (mut journal, _) = open();
        (0..300).for_each(|n| journal.append(&commit(n)).unwrap());
        journal.sync().unwrap();
        drop(journal);
        std::fs::remove_file(&marker).unwrap();

        let (journal, found) = open();
        assert!(journal.doubt().is_some(), "there is no marker");
        let mut archive = Archive::new(journal, &found);
        (archive.kept_bytes, archive.replace_at_bytes) = (2000, 2000);
        archive
            .append(&Record::TermBegan { term: Term(2) })
            .unwrap();
        drop(archive);
        let (journal, found) = open();
        assert!(journal.doubt().is_some(), "the doubt was not sealed yet");

        let mut archive = Archive::new(journal, &found);
        (archive.kept_bytes, archive.replace_at_bytes) = (2000, 2000);
        archive.append(&Record::Outdated).unwrap();
        archive.sync().unwrap();
        archive
            .append(&Record::TermBegan { term: Term(3) })
            .unwrap();
        assert!(archive.journal.bytes() < 2000, "it is short now");
        drop(archive);
        assert!(open().0.doubt().is_none());
        std::fs::remove_file(marker).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
