//! Saves a checkpoint: writes a temporary file, syncs it, renames it, and syncs the directory.
//!
//! Older checkpoints are removed only after that. A failed save leaves them in place.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::disk::{Disk, Sink};
use super::header::{self, Facts};
use super::{Checkpoints, check_lengths, names};
use crate::error::{Error, Result};
use crate::ids::Revision;
use crate::state::{Blocks, Key, Tree, hash_blocks, keys_digest};
use crate::wire::state::{Digest, StateId};

impl<D: Disk> Checkpoints<D> {
    /// Saves a state, and returns the file once it survives the machine. `entries` are the bytes of
    /// all entries in the order of the keys, `content` their revision and root.
    ///
    /// From then on [`Self::load`] gives this state. If the run went back to an earlier revision,
    /// checkpoints of later ones are set aside under another name. Blocks for about as long as the
    /// disk needs for the bytes, and needs no memory for them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the entries do not hash to the root or do not fit the keys, or
    /// names are not fit for a file; [`Error::Os`] if the disk fails. The checkpoints that were
    /// there are still there; the new one may be, too, if it was the last step that failed.
    pub fn save(&self, content: StateId, keys: &[Key], entries: &[&[u8]]) -> Result<PathBuf> {
        let facts = self.facts(content, keys, entries)?;
        let _lock = self.prepare_directory()?;
        self.remove_left_over();
        let path = self.directory.join(names::of_revision(content.revision));
        let temporary = self.directory.join(names::temporary(random()?));
        let written = self.write(&temporary, &facts, keys, entries);
        let renamed = written.and_then(|()| self.disk.rename(&temporary, &path));
        if let Err(error) = renamed {
            // Should it stay, the next save removes it.
            let _ = self.disk.remove(&temporary);
            return Err(self.os("cannot be written", &path, error));
        }
        let synced = self.disk.sync_directory(&self.directory);
        synced.map_err(|error| self.os("cannot be synced to disk", &path, error))?;
        self.make_newest(content.revision)?;
        Ok(path)
    }

    /// Checks the arguments, and returns the facts for the file.
    fn facts(&self, content: StateId, keys: &[Key], entries: &[&[u8]]) -> Result<Facts> {
        check_lengths(keys, entries.iter().copied())?;
        check_names(keys)?;
        let blocks = Blocks::new(keys)?;
        let digests = hash_blocks(entries, &blocks, self.threads);
        let keys_digest = keys_digest(keys);
        let root = Tree::new(keys_digest, &blocks, digests).root;
        if root != content.root {
            return Err(Error::invalid(format!(
                "the entries hash to {root:?}, not to {:?}: they were changed during the save; \
                 leave the memory alone until save returns",
                content.root
            )));
        }
        let total = entries.iter().map(|entry| entry.len() as u64);
        Ok(Facts {
            content,
            keys: keys_digest,
            unequal: unequal_digest(keys.iter().zip(entries).map(|(key, entry)| {
                let digest = || Digest(*blake3::hash(entry).as_bytes());
                key.allow_inequality.then(digest)
            })),
            bytes: total.sum(),
        })
    }

    /// Creates the directory durably, and locks it against other saves.
    fn prepare_directory(&self) -> Result<D::Lock> {
        let directory = &self.directory;
        let disk = &self.disk;
        let created = disk.create_directory(directory);
        let context = || format!("directory of checkpoints {}", directory.display());
        created.map_err(|error| Error::os(context(), error))?;
        // An earlier process may have created it and died before this sync.
        let parent = directory
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let synced = disk.sync_directory(parent.unwrap_or(Path::new(".")));
        synced.map_err(|error| Error::os(context(), error))?;
        let locked = disk.lock(&directory.join(names::LOCK));
        locked.map_err(|error| Error::os(format!("lock of the {}", context()), error))
    }

    /// Removes temporary files. Under the lock, only processes that died can have left them.
    fn remove_left_over(&self) {
        let names = self.disk.list(&self.directory).unwrap_or_default();
        for name in names.iter().filter(|name| names::is_temporary(name)) {
            self.remove(name);
        }
    }

    fn write(
        &self,
        path: &Path,
        facts: &Facts,
        keys: &[Key],
        entries: &[&[u8]],
    ) -> std::io::Result<()> {
        let file = self.disk.create(path)?;
        let mut file = BufWriter::with_capacity(self.buffer_bytes, file);
        let order = header::file_order(keys);
        header::write(&mut file, facts, keys, &order)?;
        for index in order {
            file.write_all(entries[index])?;
        }
        let mut file = file.into_inner().map_err(|error| error.into_error())?;
        file.sync()
    }

    /// Sets later revisions aside, and removes all but the newest few.
    fn make_newest(&self, revision: Revision) -> Result<()> {
        let listed = self
            .disk
            .list(&self.directory)
            .map_err(|error| self.os("cannot be listed", &self.directory, error))?;
        let mut revisions: Vec<Revision> = listed
            .iter()
            .filter_map(|name| names::revision_of(name))
            .collect();
        revisions.sort_unstable_by(|one, other| other.cmp(one));
        let later = revisions.partition_point(|other| *other > revision);
        for later in revisions.drain(..later) {
            let path = self.directory.join(names::of_revision(later));
            let aside = self.directory.join(names::superseded(later));
            tracing::warn!(
                checkpoint = %path.display(), saved = revision.0,
                "set a checkpoint aside, because the run has gone back to an earlier revision"
            );
            let renamed = self.disk.rename(&path, &aside);
            let synced = renamed.and_then(|()| self.disk.sync_directory(&self.directory));
            synced.map_err(|error| self.os("cannot be set aside", &path, error))?;
        }
        for old in revisions.into_iter().skip(self.keep) {
            self.remove(&names::of_revision(old));
        }
        Ok(())
    }

    /// Removes a file. A failure only costs space, so it does not fail the save.
    fn remove(&self, name: &str) {
        let path = self.directory.join(name);
        if let Err(error) = self.disk.remove(&path) {
            tracing::warn!(file = %path.display(), %error, "an old checkpoint cannot be removed");
        }
    }
}

/// One digest of the entries whose content may differ, from those of each.
pub(super) fn unequal_digest(entries: impl Iterator<Item = Option<Digest>>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("ccl checkpoint unequal 1");
    for digest in entries.flatten() {
        hasher.update(&digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Checks that names are unique and do not collide with the format's own.
fn check_names(keys: &[Key]) -> Result<()> {
    let mut names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("duplicate entry `{}`", twice[0]);
        return Err(Error::invalid(what));
    }
    if names.binary_search(&header::METADATA).is_ok() {
        return Err(Error::invalid(format!(
            "an entry of a checkpoint cannot be named `{}`: the format reserves that name",
            header::METADATA
        )));
    }
    Ok(())
}

/// Two writers, on hosts that know nothing of each other's locks, never share a file.
fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::os("random numbers", std::io::Error::other(error)))
}
