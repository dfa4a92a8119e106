//! The path of the journal: opens the file, and checks that the path still leads to it.
//!
//! The file may be deleted or replaced while the master has it open. The master would then write to
//! a file that disappears when it ends; [`Place`] detects this.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::descriptors::Own;
use crate::error::{Error, Result};

/// What is where an open file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path leads to the open file.
    There,
    /// Nothing, or nothing that can be reached.
    Gone,
    /// Another file is at the path.
    Taken,
}

impl Place {
    /// Where a path leads, seen from an open file.
    pub(super) fn of(file: &File, path: &Path) -> Self {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let there = std::fs::metadata(path).map(identity);
        let here = file.metadata().map(identity);
        match (here, there) {
            (Ok(here), Ok(there)) if here == there => Self::There,
            (_, Ok(_)) => Self::Taken,
            (_, Err(_)) => Self::Gone,
        }
    }
}

pub(super) fn open_locked(path: &Path) -> Result<Own<File>> {
    let named = |what: &str| format!("journal {} {what}", path.display());
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // It holds the secrets of all sessions.
        .mode(0o600);
    let file = Own::make(&Arc::default(), || options.open(path))
        .map_err(|error| Error::os(named("cannot be opened"), error))?;
    let in_use = "is in use by another master; stop that one first: a run has only one";
    match file.try_lock() {
        Ok(()) if Place::of(&file, path) == Place::There => Ok(file),
        // Another master has replaced the file between the two steps.
        Ok(()) | Err(TryLockError::WouldBlock) => Err(Error::invalid(named(in_use))),
        Err(TryLockError::Error(error)) => Err(Error::os(named("cannot be locked"), error)),
    }
}

/// The entry of a new file is data of its directory.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
