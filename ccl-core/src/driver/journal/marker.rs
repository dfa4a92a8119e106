//! The marker: a small file beside the journal that records how much was sealed. It reveals an old
//! copy of the journal.
//!
//! ```text
//! slots at bytes 0 and 4096, written in turn:
//!     "ccl-mark" | number of the write u64 | points u32 | two points | CRC-32 of all that
//! point   length of the journal u64 | checksum of the record that ends there u32
//! stamp   at byte 8192: boot id u128 | machine id u128
//!         | milliseconds since boot u64 | milliseconds since 1970 u64 | CRC-32 of all that
//! ```
//! All numbers are little-endian. The slot with the higher number counts; if a crash cuts one write
//! short, the other slot is intact. The marker is written after the journal is on disk and before
//! any message is sent. So it is never ahead of the journal, and never behind what peers know,
//! except for records that may be journaled lazily: commits that seal no shared state. While the
//! journal is being replaced the marker holds two points, one for each file.
//!
//! The stamp records when a member could last have received anything from the master. It is written
//! lazily: a machine crash may lose it, but then the time of the next boot is used instead.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{Place, sync_directory};
use super::u32_at;
use crate::descriptors::Own;
use crate::driver::clock::Moment;

/// The marker of one journal. No other process opens it while the journal is locked.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    /// `None` until it is written for the first time.
    file: Option<Own<File>>,
    /// Number of the newest write.
    number: u64,
    points: Vec<Point>,
}

/// A place in a journal: all that is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub bytes: u64,
    pub chain: u32,
}

impl Marker {
    /// Reads the marker beside a journal. One that is not there, or of which nothing can be read,
    /// has no points.
    pub fn read(journal: &Path) -> io::Result<Self> {
        let mut path = journal.to_owned().into_os_string();
        path.push(".marker");
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match Own::make(&Arc::default(), || options.open(&path)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut newest = (0, Vec::new());
        for slot in 0..SLOTS {
            if let Some(file) = &file
                && let Some(read) = read_slot(file, slot)?
                && read.0 > newest.0
            {
                newest = read;
            }
        }
        let (number, points) = newest;
        Ok(Self {
            path,
            file,
            number,
            points,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is at its path; [`Place::There`] if it was never written.
    pub fn place(&self) -> Place {
        let file = self.file.as_ref();
        file.map_or(Place::There, |file| Place::of(file, &self.path))
    }

    /// What was sealed: the journal reaches one of these points.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Notes what is sealed, one or two points. With `fsync` it is on the disk when this returns.
    pub fn write(&mut self, points: &[Point], fsync: bool) -> io::Result<()> {
        let is_there = self.file.is_some() && self.place() == Place::There;
        if is_there && self.points == points {
            return Ok(());
        }
        let file = match self.file.take() {
            Some(file) if is_there => file,
            _ => create(&self.path)?,
        };
        let file = self.file.insert(file);
        self.number += 1;
        let slot = self.number % SLOTS;
        file.write_all_at(&slot_of(self.number, points), slot * SLOT_STRIDE_BYTES)?;
        if fsync {
            file.sync_data()?;
        }
        self.points = points.to_vec();
        Ok(())
    }
}

/// Why a journal may not be the newest of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has no marker at this path: it may have been copied from elsewhere.
    NoMarker(PathBuf),
    /// Its marker shows that more was sealed, or something else: it is an older copy, or truncated.
    Older(PathBuf),
    /// Nothing is left of the sealed records.
    Empty(PathBuf),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMarker(marker) => write!(
                f,
                "it has no marker {} beside it, so it may be an older copy",
                marker.display()
            ),
            Self::Older(marker) => write!(
                f,
                "it lacks records that were sealed according to its marker {}: it is an older \
                 copy, or a part of it is missing",
                marker.display()
            ),
            Self::Empty(marker) => write!(
                f,
                "it is empty, but according to its marker {} it held a run: it was deleted or \
                 truncated. If members of that run are alive, keep them running: the master \
                 resumes the run from them, and founds a new one only if none comes back within \
                 rebuild_window. If you have a newer copy of the journal, stop this master first, \
                 then put the copy back",
                marker.display()
            ),
        }
    }
}

/// Looks for the sealed end, according to the marker, while a journal is read.
pub(super) struct Sealed<'a> {
    points: &'a [Point],
    reached: Option<Point>,
}

impl<'a> Sealed<'a> {
    pub fn new(points: &'a [Point]) -> Self {
        Self {
            points,
            reached: None,
        }
    }

    pub fn pass(&mut self, point: Point) {
        if self.points.contains(&point) {
            self.reached = Some(point);
        }
    }

    /// What of it was sealed.
    pub fn reached(&self) -> Option<Point> {
        self.reached
    }

    /// Whether the journal that was read may not be the newest.
    pub fn doubt(&self, marker: &Path, is_empty: bool) -> Option<Doubt> {
        match (self.points.is_empty(), self.reached.is_some()) {
            (false, true) => None,
            (false, false) if is_empty => Some(Doubt::Empty(marker.to_owned())),
            (false, false) => Some(Doubt::Older(marker.to_owned())),
            (true, _) => (!is_empty).then(|| Doubt::NoMarker(marker.to_owned())),
        }
    }
}

impl Marker {
    /// When a member could last have heard from a master of this journal.
    pub fn stamp(&self) -> Option<Moment> {
        let mut bytes = [0; STAMP_BYTES];
        let file = self.file.as_ref()?;
        file.read_exact_at(&mut bytes, STAMP_AT).ok()?;
        if crc32fast::hash(&bytes[..STAMP_BYTES - 4]) != u32_at(&bytes, STAMP_BYTES - 4) {
            return None;
        }
        let halves = |at| u128::from(u64_at(&bytes, at)) | u128::from(u64_at(&bytes, at + 8)) << 64;
        Some(Moment {
            boot: halves(0),
            machine: halves(16),
            up_ms: u64_at(&bytes, 32),
            wall_ms: u64_at(&bytes, 40),
        })
    }

    /// Records that a member can hear from the master from now on.
    pub fn write_stamp(&mut self, moment: &Moment) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut bytes = [0; STAMP_BYTES];
        bytes[..16].copy_from_slice(&moment.boot.to_le_bytes());
        bytes[16..32].copy_from_slice(&moment.machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&moment.up_ms.to_le_bytes());
        bytes[40..48].copy_from_slice(&moment.wall_ms.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..STAMP_BYTES - 4]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, STAMP_AT)
    }
}

fn create(path: &Path) -> io::Result<Own<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600);
    let file = Own::make(&Arc::default(), || options.open(path))?;
    sync_directory(path)?;
    Ok(file)
}

fn slot_of(number: u64, points: &[Point]) -> [u8; SLOT_BYTES] {
    assert!((1..=POINTS).contains(&points.len()), "one or two points");
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..16].copy_from_slice(&number.to_le_bytes());
    let count = points.len() as u32;
    slot[16..20].copy_from_slice(&count.to_le_bytes());
    for (index, point) in points.iter().enumerate() {
        let at = &mut slot[20 + index * POINT_BYTES..][..POINT_BYTES];
        at[..8].copy_from_slice(&point.bytes.to_le_bytes());
        at[8..].copy_from_slice(&point.chain.to_le_bytes());
    }
    let crc = crc32fast::hash(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// The number and the points of a slot; `None` if it was never written, or not to its end.
fn read_slot(file: &File, slot: u64) -> io::Result<Option<(u64, Vec<Point>)>> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, slot * SLOT_STRIDE_BYTES) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let count = u32_at(&bytes, 16) as usize;
    let crc = crc32fast::hash(&bytes[..SLOT_BYTES - 4]);
    if bytes[..8] != MAGIC || crc != u32_at(&bytes, SLOT_BYTES - 4) || count > POINTS {
        return Ok(None);
    }
    let points = (0..count)
        .map(|index| 20 + index * POINT_BYTES)
        .map(|at| Point {
            bytes: u64_at(&bytes, at),
            chain: u32_at(&bytes, at + 8),
        });
    Ok(Some((u64_at(&bytes, 8), points.collect())))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..at + 8].try_into();
    u64::from_le_bytes(word.expect("eight bytes were cut out"))
}

const MAGIC: [u8; 8] = *b"ccl-mark";
const SLOTS: u64 = 2;
/// A disk that fails while it writes the one slot does not touch the other.
const SLOT_STRIDE_BYTES: u64 = 4096;
const STAMP_AT: u64 = SLOTS * SLOT_STRIDE_BYTES;
const STAMP_BYTES: usize = 52;
const POINTS: usize = 2;
const POINT_BYTES: usize = 12;
const SLOT_BYTES: usize = 20 + POINTS * POINT_BYTES + 4;
