//! Loads the newest checkpoint whose content matches its root hash, or the one before it.
//!
//! A file is read twice: first to verify it, block by block; then into the caller's memory, which
//! is verified again.

use std::io::ErrorKind;
use std::path::Path;

use crate::lock::Mutex;
use blake3::Hasher;

use super::disk::{Disk, Source};
use super::header::{self, Facts};
use super::save::unequal_digest;
use super::{Checkpoints, check_lengths, names};
use crate::error::{Error, Result};
use crate::ids::Revision;
use crate::state::hash::{Wanted, share_out};
use crate::state::{BLOCK_BYTES, Blocks, Key, Tree, block_digest, hash_blocks, keys_digest};
use crate::wire::state::{Digest, StateId};

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Revision and root of the entries now.
    pub content: StateId,
    /// Newer checkpoints that could not be used, newest first: file, and what is wrong with it.
    pub skipped: Vec<String>,
}

/// Why nothing was loaded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What is wrong, with each file that there is.
    pub error: Error,
    /// Whether entries hold a mixture now: only if a file changed, or the disk failed, after it had
    /// been verified. Else they are as they were.
    pub is_mixed: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl<D: Disk> Checkpoints<D> {
    /// Loads the newest checkpoint that is whole into the caller's memory: `entries` are all
    /// entries in the order of the keys. `None` if there are none.
    ///
    /// Reads the file twice, and needs no memory for it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are checkpoints and none is whole, or the newest that is
    /// has other keys: then older ones are not tried. [`Error::Os`] if the directory cannot be
    /// read.
    pub fn load(&self, keys: &[Key], entries: &mut [&mut [u8]]) -> Result<Option<Loaded>, Failure> {
        let mut is_mixed = false;
        let loaded = self.load_into(keys, entries, &mut is_mixed);
        loaded.map_err(|error| Failure { error, is_mixed })
    }

    fn load_into(
        &self,
        keys: &[Key],
        entries: &mut [&mut [u8]],
        is_mixed: &mut bool,
    ) -> Result<Option<Loaded>> {
        check_lengths(keys, entries.iter().map(|entry| &**entry))?;
        let expected = Expected {
            keys,
            digest: keys_digest(keys),
            blocks: Blocks::new(keys)?,
            threads: self.threads,
        };
        self.first_usable(|path, revision| {
            let file = self.disk.open(path)?;
            let found = expected.examine(&file, revision)?;
            found.verify(&file, &expected)?;
            *is_mixed = true;
            found.fill(&file, &expected, entries)?;
            *is_mixed = false;
            Ok(found.facts.content)
        })
    }

    /// What the newest checkpoint is, without reading more than its first 4 KiB: by name, header
    /// and length it is complete, but its content is not hashed. `None` if there are none.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn newest(&self) -> Result<Option<StateId>> {
        let found = self.first_usable(|path, revision| {
            let file = self.disk.open(path)?;
            let (facts, _) = read_facts(&file, revision)?;
            Ok(facts.content)
        });
        Ok(found?.map(|loaded| loaded.content))
    }

    /// Tries checkpoints, the newest first, until one can be used.
    fn first_usable(
        &self,
        mut attempt: impl FnMut(&Path, Revision) -> Result<StateId, Fault>,
    ) -> Result<Option<Loaded>> {
        let mut listings = 1;
        'listing: loop {
            let mut skipped = Vec::new();
            for revision in self.revisions()? {
                let path = self.directory.join(names::of_revision(revision));
                let what = match attempt(&path, revision) {
                    Ok(content) => return Ok(Some(Loaded { content, skipped })),
                    // A save has removed this one meanwhile: there are newer ones.
                    Err(Fault::Gone) if listings < LISTINGS_MAX => {
                        listings += 1;
                        continue 'listing;
                    }
                    Err(Fault::Gone) => "it no longer exists".into(),
                    Err(Fault::OtherKeys) => return Err(other_keys(&path)),
                    Err(Fault::Unusable(what)) => what,
                };
                tracing::warn!(checkpoint = %path.display(), what, "skipped a checkpoint that cannot be used");
                skipped.push(format!("{}: {what}", path.display()));
            }
            if skipped.is_empty() {
                return Ok(None);
            }
            return Err(Error::invalid(format!(
                "no checkpoint in {} can be used. {}",
                self.directory.display(),
                skipped.join(". ")
            )));
        }
    }

    /// Of all files that are named as checkpoints, newest first.
    fn revisions(&self) -> Result<Vec<Revision>> {
        let listed = match self.disk.list(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|error| {
                let what = format!("directory of checkpoints {}", self.directory.display());
                Error::os(what, error)
            })?,
        };
        let revisions = listed.iter().filter_map(|name| names::revision_of(name));
        let mut revisions: Vec<Revision> = revisions.collect();
        revisions.sort_unstable_by(|one, other| other.cmp(one));
        Ok(revisions)
    }
}

/// Why one file cannot be used.
enum Fault {
    /// It was removed after it was listed.
    Gone,
    /// It is intact, but of another state.
    OtherKeys,
    /// It is damaged or cannot be read: the reason, as text.
    Unusable(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Gone,
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Unusable(what)
    }
}

fn other_keys(path: &Path) -> Error {
    Error::invalid(format!(
        "checkpoint {} belongs to another state: its names, types, shapes or allow_inequality \
         differ; use another directory, or move it away",
        path.display()
    ))
}

fn read_facts(file: &impl Source, revision: Revision) -> Result<(Facts, u64), String> {
    let (facts, text_bytes) = header::read_facts(file)?;
    if facts.content.revision != revision {
        let other = facts.content.revision;
        return Err(format!("its revision is {other}, not the one in its name"));
    }
    Ok((facts, text_bytes))
}

/// The state that is to be loaded.
struct Expected<'a> {
    keys: &'a [Key],
    digest: Digest,
    blocks: Blocks,
    threads: usize,
}

/// A file whose header fits.
struct Found {
    facts: Facts,
    /// Where each entry begins in the file.
    places: Vec<u64>,
}

impl Expected<'_> {
    fn examine(&self, file: &impl Source, revision: Revision) -> Result<Found, Fault> {
        let (facts, text_bytes) = read_facts(file, revision)?;
        if facts.keys != self.digest {
            return Err(Fault::OtherKeys);
        }
        let places = header::read_places(file, &facts, text_bytes, self.keys)?;
        Ok(Found { facts, places })
    }

    /// Checks digests of blocks, and of entries that may differ, against the file's facts.
    fn check(&self, facts: &Facts, blocks: Vec<Digest>, unequal: Digest) -> Result<(), String> {
        let root = Tree::new(self.digest, &self.blocks, blocks).root;
        if root != facts.content.root {
            let should = facts.content.root;
            return Err(format!("its content hashes to {root:?}, not to {should:?}"));
        }
        if unequal != facts.unequal {
            return Err("its entries named in allow_inequality are damaged".into());
        }
        Ok(())
    }
}

impl Found {
    /// Hashes the file's content.
    fn verify(&self, file: &impl Source, expected: &Expected<'_>) -> Result<(), Fault> {
        let blocks = &expected.blocks;
        let mut digests = vec![Digest::default(); blocks.count() as usize];
        let failure = Mutex::new(None);
        let all = std::iter::once(0..blocks.count());
        let wanted = Wanted {
            blocks,
            digests: &mut digests,
            threads: expected.threads,
        };
        share_out(wanted, all, || {
            let mut buffer = vec![0; BLOCK_BYTES];
            let (failure, places) = (&failure, &self.places);
            move |first: u32, digests: &mut [Digest]| {
                for (span, digest) in blocks.spans_from(first).zip(digests) {
                    let bytes = (span.bytes.end - span.bytes.start) as usize;
                    let offset = places[span.entry] + span.bytes.start;
                    if let Err(error) = file.read_exact_at(&mut buffer[..bytes], offset) {
                        *failure.lock() = Some(error);
                        return false;
                    }
                    *digest = block_digest(&buffer[..bytes]);
                }
                true
            }
        });
        if let Some(error) = failure.into_inner() {
            return Err(error.into());
        }
        let unequal = self.read_unequal(file, expected.keys)?;
        Ok(expected.check(&self.facts, digests, unequal)?)
    }

    /// Digest of the entries that may differ, as they are in the file.
    fn read_unequal(&self, file: &impl Source, keys: &[Key]) -> std::io::Result<Digest> {
        let mut buffer = Vec::new();
        let mut digests = Vec::new();
        let entries = keys.iter().zip(&self.places);
        for (key, &place) in entries.filter(|(key, _)| key.allow_inequality) {
            let mut hasher = Hasher::new();
            let end = place + key.bytes().unwrap_or(0);
            for offset in (place..end).step_by(BLOCK_BYTES) {
                buffer.resize((end - offset).min(BLOCK_BYTES as u64) as usize, 0);
                file.read_exact_at(&mut buffer, offset)?;
                hasher.update(&buffer);
            }
            digests.push(Some(Digest(*hasher.finalize().as_bytes())));
        }
        Ok(unequal_digest(digests.into_iter()))
    }

    /// Reads the file into the caller's memory, and hashes what is there then.
    fn fill(
        &self,
        file: &impl Source,
        expected: &Expected<'_>,
        entries: &mut [&mut [u8]],
    ) -> Result<(), Fault> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|&index| self.places[index]);
        for index in order {
            file.read_exact_at(entries[index], self.places[index])?;
        }
        let entries: Vec<&[u8]> = entries.iter().map(|entry| &**entry).collect();
        let digests = hash_blocks(&entries, &expected.blocks, expected.threads);
        let unequal = unequal_digest(expected.keys.iter().zip(entries).map(|(key, entry)| {
            let digest = || Digest(*blake3::hash(entry).as_bytes());
            key.allow_inequality.then(digest)
        }));
        Ok(expected.check(&self.facts, digests, unequal)?)
    }
}

/// How often a directory is listed again because of concurrent saves.
const LISTINGS_MAX: usize = 8;
