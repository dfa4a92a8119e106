//! The journal: the master's sealed history on disk, append-only and checksummed.
//!
//! ```text
//! file    "ccl-log\n" | version u32 | bytes of the run's name u32 | name | CRC-32 of all that
//! record  bytes of the body u32 | checksum of the record before u32 | checksum u32
//!         | CRC-32 of these twelve bytes u32 | body: the record in postcard's format
//! ```
//! All numbers are little-endian. A record's checksum is the CRC-32 of the previous record's
//! checksum (for the first record: the header's) and of its own body. A crash can only truncate the
//! last record or leave zeros in its place. Such a tail is cut off: nothing that depends on it was
//! sent. Any other mismatch is damage, and the master refuses to start.
//!
//! An intact file may still be an old copy. The marker beside it (`marker`) records how much was
//! sealed; a journal that is shorter, or has no marker, is in doubt. What records mean is in
//! `master::history::record`.

mod frame;
mod marker;
mod place;

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use frame::{Found, RecordHeader, body_crc, read_record};
pub use marker::Doubt;
use marker::{Marker, Point, Sealed};
pub use place::Place;
use place::{open_locked, sync_directory};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::descriptors::Own;
use crate::driver::clock::Moment;
use crate::error::{Error, Result};
use crate::limits::JOURNAL_RECORD_BYTES_MAX;

/// An open journal, locked against every other process.
///
/// After a failed write or sync the content of the disk is unknown, so every later call fails too:
/// the master must stop.
#[derive(Debug)]
pub struct Journal {
    /// Its lock is not for forked children to keep.
    file: Own<File>,
    path: PathBuf,
    run: String,
    /// Length of the file.
    bytes: u64,
    /// Checksum of the newest record, or of the file's header.
    chain: u32,
    /// Whether `sync` asks the disk. Without, records survive the process but not the machine.
    fsync: bool,
    is_broken: bool,
    /// Whether another process has truncated it or written to it.
    is_changed: bool,
    /// Whether anything was appended since it was opened.
    is_appended: bool,
    frame: Vec<u8>,
    /// `None` for a file that is yet to replace another.
    marker: Option<Marker>,
    doubt: Option<Doubt>,
    /// The sealed end of this file, according to its marker.
    sealed: Option<Point>,
}

impl Journal {
    /// Opens the journal of a run, or creates it, and reads what it holds, oldest first.
    ///
    /// # Errors
    /// [`Error::Os`] if the file cannot be opened, read or written; [`Error::InvalidArgument`] if
    /// another master uses it, it belongs to another run, or it is damaged.
    pub fn open<R: DeserializeOwned>(
        path: &Path,
        run: &str,
        fsync: bool,
    ) -> Result<(Self, Vec<R>)> {
        let file = open_locked(path)?;
        let header = header_of(run);
        let mut journal = Self::around(file, path, run, fsync);
        let length = journal.length()?;
        let marker = Marker::read(path);
        let marker =
            marker.map_err(|error| journal.os("has a marker that cannot be read", error))?;
        let mut sealed = Sealed::new(marker.points());
        let records = if journal.is_new(&header, length)? {
            journal.create(&header)?;
            sealed.pass(journal.point());
            Vec::new()
        } else {
            journal.check_header(&header, run)?;
            journal.read_records(header.len() as u64, length, &mut sealed)?
        };
        journal.doubt = sealed.doubt(marker.path(), records.is_empty());
        journal.sealed = sealed.reached();
        journal.marker = Some(marker);
        if records.is_empty() && journal.doubt.is_none() {
            journal.mark(&[journal.point()])?;
        }
        Ok((journal, records))
    }

    /// Why it may not be the newest of its run. What it holds is then to be treated as lost, which
    /// is to be sealed in it first: it counts as the newest again after the next `sync`.
    #[must_use]
    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// When a member could last have heard from a master of this journal, if known. Unknown for a
    /// doubtful journal, since other masters may have served the run since.
    #[must_use]
    pub fn last_heard(&self) -> Option<Moment> {
        let marker = self.marker.as_ref().filter(|_| self.doubt.is_none());
        marker.and_then(Marker::stamp)
    }

    /// Records that a member can hear from the master from now on.
    ///
    /// # Errors
    /// [`Error::Os`]: the master must stop.
    pub fn stamp(&mut self, moment: &Moment) -> Result<()> {
        self.check_alive()?;
        let Some(marker) = &mut self.marker else {
            return Ok(());
        };
        let written = marker.write_stamp(moment);
        written.map_err(|error| self.broken(error))
    }

    fn point(&self) -> Point {
        Point {
            bytes: self.bytes,
            chain: self.chain,
        }
    }

    /// Notes what is sealed. What was in doubt stays so until something is.
    fn mark(&mut self, points: &[Point]) -> Result<()> {
        let fsync = self.fsync;
        let Some(marker) = &mut self.marker else {
            return Ok(());
        };
        let written = marker.write(points, fsync);
        written.map_err(|error| self.broken(error))?;
        if let [point] = points {
            self.sealed = Some(*point);
        }
        Ok(())
    }

    /// What is at the journal's path; [`Place::Gone`] also if its marker was deleted.
    #[must_use]
    pub fn place(&self) -> Place {
        let marker = self.marker.as_ref().map(Marker::place);
        match Place::of(&self.file, &self.path) {
            Place::There if marker == Some(Place::Gone) => Place::Gone,
            place => place,
        }
    }

    /// Whether the file is longer or shorter than what was written to it: another process has
    /// truncated it or written to it. Writing after a truncation would hide that, so check first; a
    /// positive answer stays until the file is replaced.
    pub fn is_changed(&mut self) -> bool {
        let found = self.file.metadata().ok().filter(std::fs::Metadata::is_file);
        self.is_changed |= found.is_some_and(|found| found.len() != self.bytes);
        self.is_changed
    }

    /// The journal's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn around(file: Own<File>, path: &Path, run: &str, fsync: bool) -> Self {
        Self {
            file,
            path: path.to_owned(),
            run: run.to_owned(),
            bytes: 0,
            chain: crc32fast::hash(&header_of(run)),
            fsync,
            is_broken: false,
            is_changed: false,
            is_appended: false,
            frame: Vec::new(),
            marker: None,
            doubt: None,
            sealed: None,
        }
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a record. It survives the process from now on, the machine after the next `sync`.
    ///
    /// # Errors
    /// [`Error::Os`]: the master must stop.
    pub fn append<R: Serialize>(&mut self, record: &R) -> Result<()> {
        self.check_alive()?;
        self.frame.clear();
        self.frame.resize(RECORD_HEADER_BYTES, 0);
        let encoded = postcard::to_io(record, &mut self.frame).map(|_| ());
        encoded.map_err(|error| self.broken(std::io::Error::other(error)))?;
        let body_bytes = self.frame.len() - RECORD_HEADER_BYTES;
        if body_bytes > JOURNAL_RECORD_BYTES_MAX {
            let what = format!("a record of {body_bytes} bytes");
            return Err(self.broken(std::io::Error::new(ErrorKind::FileTooLarge, what)));
        }
        let (header, body) = self.frame.split_at_mut(RECORD_HEADER_BYTES);
        let body_crc = body_crc(self.chain, body);
        let parsed = RecordHeader {
            body_bytes: u32::try_from(body_bytes).expect("compared with a limit below 2^32"),
            chain: self.chain,
            body_crc,
        };
        header.copy_from_slice(&parsed.to_bytes());
        let written = self.file.write_all(&self.frame);
        written.map_err(|error| self.broken(error))?;
        self.chain = body_crc;
        self.is_appended = true;
        self.bytes += self.frame.len() as u64;
        self.frame.shrink_to(FRAME_KEPT_BYTES);
        Ok(())
    }

    /// Returns once all that was appended is on the disk, if the journal was opened with `fsync`.
    ///
    /// # Errors
    /// [`Error::Os`]: the master must stop.
    pub fn sync(&mut self) -> Result<()> {
        self.check_alive()?;
        if self.fsync {
            let synced = self.file.sync_data();
            synced.map_err(|error| self.broken(error))?;
        }
        if self.is_appended {
            self.mark(&[self.point()])?;
        }
        Ok(())
    }

    /// Puts a file that holds `records` alone in the place of this one. A crash leaves the one or
    /// the other, whole.
    ///
    /// # Errors
    /// [`Error::Os`]. The journal remains usable, unless [`Journal::is_broken`].
    pub fn replace<R: Serialize>(&mut self, records: &[R]) -> Result<()> {
        self.check_alive()?;
        let mut path = self.path.clone().into_os_string();
        path.push(".new");
        let path = PathBuf::from(path);
        let mut fresh = Self::around(open_locked(&path)?, &path, &self.run, true);
        let emptied = fresh.file.set_len(0);
        emptied.map_err(|error| fresh.os("cannot be emptied", error))?;
        fresh.create(&header_of(&self.run))?;
        records.iter().try_for_each(|record| fresh.append(record))?;
        fresh.sync()?;
        let points: Vec<_> = self.sealed.into_iter().chain([fresh.point()]).collect();
        self.mark(&points)?;
        let renamed = std::fs::rename(&path, &self.path);
        renamed.map_err(|error| fresh.os("cannot be renamed", error))?;
        // From here on the old file has no name: nothing may be written to it any more.
        let synced = sync_directory(&self.path);
        synced.map_err(|error| self.broken(error))?;
        fresh.path.clone_from(&self.path);
        fresh.fsync = self.fsync;
        fresh.marker = self.marker.take();
        *self = fresh;
        self.mark(&[self.point()])
    }

    /// Whether a write or a sync has failed: the master must stop.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Every write from now on fails, as on a full disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        let mut full = std::fs::OpenOptions::new();
        let full = Own::make(&std::sync::Arc::default(), || {
            full.write(true).open("/dev/full")
        });
        self.file = full.expect("every Linux has it");
    }

    fn check_alive(&self) -> Result<()> {
        if self.is_broken {
            let what = std::io::Error::other("an earlier write failed");
            return Err(self.os("cannot be trusted", what));
        }
        Ok(())
    }

    fn broken(&mut self, error: std::io::Error) -> Error {
        self.is_broken = true;
        self.os("cannot be written; the master stops", error)
    }

    fn os(&self, what: &str, error: std::io::Error) -> Error {
        Error::os(format!("journal {} {what}", self.path.display()), error)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::invalid(format!("journal {} {what}", self.path.display()))
    }

    fn length(&self) -> Result<u64> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.os("cannot be examined", error))?;
        Ok(metadata.len())
    }

    /// Whether the file is empty, or a crash cut its creation short: no record was ever in it.
    fn is_new(&mut self, header: &[u8], length: u64) -> Result<bool> {
        if length >= header.len() as u64 {
            return Ok(false);
        }
        let mut found = Vec::new();
        let read = (&*self.file).take(length).read_to_end(&mut found);
        read.map_err(|error| self.os("cannot be read", error))?;
        self.rewind(0)?;
        Ok(header.starts_with(&found))
    }

    fn create(&mut self, header: &[u8]) -> Result<()> {
        self.rewind(0)?;
        self.bytes = header.len() as u64;
        let written = self.file.write_all(header);
        written
            .and_then(|()| self.file.sync_all())
            .and_then(|()| sync_directory(&self.path))
            .map_err(|error| self.os("cannot be created", error))
    }

    fn rewind(&mut self, to: u64) -> Result<()> {
        let sought = self.file.seek(SeekFrom::Start(to));
        sought.map_err(|error| self.os("cannot be read", error))?;
        Ok(())
    }

    /// Reads the file's header and compares it with the one that this run's journal has.
    fn check_header(&mut self, expected: &[u8], run: &str) -> Result<()> {
        let mut fixed = [0; FIXED_HEADER_BYTES];
        let read = self.file.read_exact(&mut fixed);
        if read.is_err() || fixed[..8] != MAGIC {
            return Err(self.damaged("is not a ccl journal; use another file"));
        }
        let [version, name_bytes] = [8, 12].map(|at| u32_at(&fixed, at));
        if version != JOURNAL_VERSION {
            let what = format!(
                "has version {version}, but this program writes version {JOURNAL_VERSION}; use the \
                 program that wrote it, or another file"
            );
            return Err(self.damaged(&what));
        }
        let mut rest = Vec::new();
        let rest_bytes = u64::from(name_bytes) + 4;
        let read = (&*self.file).take(rest_bytes).read_to_end(&mut rest);
        read.map_err(|error| self.os("cannot be read", error))?;
        let found = [&fixed, rest.as_slice()].concat();
        if found == expected {
            return Ok(());
        }
        let name = rest.get(..name_bytes as usize).unwrap_or_default();
        if header_of(&String::from_utf8_lossy(name)) != found {
            return Err(self.damaged(
                "is damaged in its header; move it away, or use another file: the master then \
                 rebuilds the run from the members that are still running",
            ));
        }
        let name = String::from_utf8_lossy(name);
        let what = format!("belongs to run `{name}`, not `{run}`; use another file or run name");
        Err(self.damaged(&what))
    }

    /// Reads records from `start`, where the file now stands, and leaves it at the end of the last.
    fn read_records<R: DeserializeOwned>(
        &mut self,
        start: u64,
        length: u64,
        sealed: &mut Sealed<'_>,
    ) -> Result<Vec<R>> {
        let mut records = Vec::new();
        let mut offset = start;
        let mut reader = BufReader::new(&*self.file);
        let mut body = Vec::new();
        let chain = self.chain;
        sealed.pass(Point {
            bytes: offset,
            chain,
        });
        while offset < length {
            let found = read_record(&mut reader, length - offset, self.chain, &mut body);
            match found.map_err(|error| self.os("cannot be read", error))? {
                Found::Whole(chain) => {
                    self.chain = chain;
                    offset += (RECORD_HEADER_BYTES + body.len()) as u64;
                    let record = postcard::from_bytes(&body);
                    records.push(record.map_err(|error| self.undecodable(records.len(), &error))?);
                    sealed.pass(Point {
                        bytes: offset,
                        chain,
                    });
                }
                Found::Torn => break,
                Found::Damaged(what) => return Err(self.damaged_at(offset, length, what)),
            }
        }
        self.rewind(offset)?;
        self.bytes = offset;
        if offset < length {
            self.cut(offset, length)?;
        }
        Ok(records)
    }

    fn cut(&mut self, offset: u64, length: u64) -> Result<()> {
        tracing::warn!(
            journal = %self.path.display(), offset, bytes = length - offset,
            "the journal's last record is incomplete, because its master ended while writing it; \
             it is cut off"
        );
        let cut = self.file.set_len(offset);
        cut.and_then(|()| self.file.sync_all())
            .map_err(|error| self.os("cannot be cut to its last complete record", error))
    }

    fn damaged_at(&self, offset: u64, length: u64, what: &str) -> Error {
        self.damaged(&format!(
            "is damaged at byte {offset} of {length}: {what}. Move it away, or cut it to {offset} \
             bytes. The master will then trust neither it nor an older copy in its place: it \
             rebuilds the run from the members that are still running, once a majority of their \
             view is back, or with `force_rebuild` if no other members are running"
        ))
    }

    fn undecodable(&self, index: usize, error: &postcard::Error) -> Error {
        self.damaged(&format!(
            "holds a record (number {index}) that this program does not understand ({error}); use \
             the program that wrote it"
        ))
    }
}

fn header_of(run: &str) -> Vec<u8> {
    let name_bytes = u32::try_from(run.len()).expect("a run's name is at most 512 bytes");
    let mut header = MAGIC.to_vec();
    header.extend(JOURNAL_VERSION.to_le_bytes());
    header.extend(name_bytes.to_le_bytes());
    header.extend(run.as_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].try_into();
    u32::from_le_bytes(word.expect("four bytes were cut out"))
}

const MAGIC: [u8; 8] = *b"ccl-log\n";
/// Older versions lack: shared state and units (1); generations of a unit (2); whether a run was
/// taken over, names of peers, and returned tags (3); the timeouts sent to peers, and why sessions
/// ended (4); what hops and bytes cost (5). Their records would be misread.
const JOURNAL_VERSION: u32 = 6;
const FIXED_HEADER_BYTES: usize = 16;
const RECORD_HEADER_BYTES: usize = 16;
/// Memory kept between records, in bytes; all but views of large worlds fit.
const FRAME_KEPT_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
