//! Shared state on disk: written atomically, and verified before it is used.
//!
//! A checkpoint is one file in safetensors format (docs/checkpoint.md), named by its revision. It
//! gets its name once it is on disk, and older ones are removed after that, so a crash at any
//! moment leaves the last checkpoint that was reported as saved. What roots and revisions mean is
//! decided by `state` and the master.

mod disk;
mod header;
mod load;
mod names;
mod save;

use std::path::{Path, PathBuf};

pub use disk::{Disk, OsDisk, Sink, Source};
pub use load::{Failure, Loaded};

use crate::error::{Error, Result};
use crate::ids::Revision;
use crate::state::Key;
use crate::state::hash::default_threads;

/// The checkpoints in one directory.
///
/// Any number of processes may load at any time. Processes of one host that save wait for each
/// other; a directory belongs to one member of a run, since the last to save wins.
#[derive(Clone, Debug)]
pub struct Checkpoints<D = OsDisk> {
    directory: PathBuf,
    keep: usize,
    threads: usize,
    buffer_bytes: usize,
    disk: D,
}

impl Checkpoints {
    /// Those in a directory. It is created by the first save, if its parent exists.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::on(OsDisk, directory)
    }
}

impl<D: Disk> Checkpoints<D> {
    /// Those in a directory of this disk.
    #[must_use]
    pub fn on(disk: D, directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            keep: KEEP_DEFAULT,
            threads: default_threads(),
            buffer_bytes: BUFFER_BYTES,
            disk,
        }
    }

    /// How many checkpoints stay after a save, the new one among them; at least 1, by default
    /// [`KEEP_DEFAULT`].
    #[must_use]
    pub fn keep(mut self, count: usize) -> Self {
        self.keep = count.max(1);
        self
    }

    /// Sets the number of hashing threads, including the caller's; by default [`default_threads`].
    #[must_use]
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count;
        self
    }

    /// The file of the checkpoint of this revision, whether it is there or not.
    #[must_use]
    pub fn path_of(&self, revision: u64) -> PathBuf {
        self.directory.join(names::of_revision(Revision(revision)))
    }

    fn os(&self, what: &str, path: &Path, error: std::io::Error) -> Error {
        Error::os(format!("checkpoint {} {what}", path.display()), error)
    }
}

/// Checks that each entry has the length of its key.
fn check_lengths<'a>(keys: &[Key], entries: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<()> {
    let (key_count, count) = (keys.len(), entries.len());
    if key_count != count {
        return Err(Error::invalid(format!("{key_count} keys, {count} entries")));
    }
    for (key, entry) in keys.iter().zip(entries) {
        if key.bytes() != Some(entry.len() as u64) {
            return Err(Error::invalid(format!(
                "entry `{}` is {} of shape {:?}, but has {} bytes",
                key.name,
                key.dtype.name(),
                key.shape,
                entry.len()
            )));
        }
    }
    Ok(())
}

/// Checkpoints that stay after a save: should the disk lose the newest, there is one before it.
pub const KEEP_DEFAULT: usize = 2;
/// Small entries are written together in pieces of this length, in bytes; longer ones go to the
/// system as they are.
const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
