//! The disk operations that checkpoints need, and their real implementation.
//!
//! They are a trait so that a test can be a disk that fails at any step and loses unsynced data.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A disk with directories.
pub trait Disk {
    /// A file that is being written.
    type Sink: Sink;
    /// A file that is read.
    type Source: Source;
    /// Ends with its value.
    type Lock;

    /// Creates a directory in one that exists; it may be there already.
    fn create_directory(&self, path: &Path) -> Result<()>;
    /// Names of all files in a directory. Those that are not UTF-8 may be left out.
    fn list(&self, directory: &Path) -> Result<Vec<String>>;
    /// Takes the lock of this name; waits until no other process holds it.
    fn lock(&self, path: &Path) -> Result<Self::Lock>;
    /// Creates a file that must not be there yet.
    fn create(&self, path: &Path) -> Result<Self::Sink>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> Result<Self::Source>;
    /// Renames a file; one that has the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Returns once the names in a directory survive the machine.
    fn sync_directory(&self, path: &Path) -> Result<()>;
}

/// A file that is being written from its start.
pub trait Sink: Write {
    /// Returns once all that was written survives the machine.
    fn sync(&mut self) -> Result<()>;
}

/// A file that is read, by several threads at once.
pub trait Source: Sync {
    /// Its length in bytes.
    fn bytes(&self) -> Result<u64>;
    /// Fills the buffer from this place on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// The files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    type Sink = File;
    type Source = File;
    type Lock = Option<File>;

    fn create_directory(&self, path: &Path) -> Result<()> {
        match std::fs::create_dir(path) {
            Err(_) if path.is_dir() => Ok(()),
            created => created,
        }
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// `None` if the file system has no locks: then saves do not wait for each other.
    fn lock(&self, path: &Path) -> Result<Option<File>> {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Some(file)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn create(&self, path: &Path) -> Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// A pipe or a device of that name is not waited for.
    fn open(&self, path: &Path) -> Result<File> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            let what = "not a regular file";
            return Err(std::io::Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }
}

impl Sink for File {
    fn sync(&mut self) -> Result<()> {
        self.sync_all()
    }
}

impl Source for File {
    fn bytes(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}
