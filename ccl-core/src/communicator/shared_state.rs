//! Shared state as callers see it: named entries in the callers' memory.
//!
//! `sync` makes it equal on all members.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use crate::buffer::Lent;
use crate::checkpoint::{Checkpoints, Loaded};
use crate::communicator::SyncOptions;
use crate::error::{Error, Result};
use crate::ids::Revision;
use crate::reduce::Element;
use crate::state::hash::{Wanted, default_threads, hash_blocks, rehash_entries};
use crate::state::holding::{Brought, Holding};
use crate::state::{Blocks, Key, Tree, keys_digest};
use crate::wire::control::{Digest, StateId};

/// Named buffers that are to have the same bits on all members, and their revision.
///
/// The buffers stay the caller's memory, borrowed for `'a`; between syncs they are reached through
/// [`SharedState::slice_mut`]. All members add the same names, types and shapes in the same order.
#[derive(Debug)]
pub struct SharedState<'a> {
    keys: Vec<Key>,
    /// Index of each name.
    names: BTreeMap<String, usize>,
    memory: Vec<Lent>,
    revision: Revision,
    /// False after a sync that failed half-way, if the earlier content could not be restored.
    is_usable: bool,
    /// Digests of the blocks at the last sync, for callers that pass what they have touched since.
    digests: Option<Vec<Digest>>,
    lives: PhantomData<&'a mut [u8]>,
}

impl<'a> SharedState<'a> {
    /// Creates a state without entries.
    #[must_use]
    pub fn new(revision: u64) -> Self {
        Self {
            keys: Vec::new(),
            names: BTreeMap::new(),
            memory: Vec::new(),
            revision: Revision(revision),
            is_usable: true,
            digests: None,
            lives: PhantomData,
        }
    }

    /// Adds a buffer that must be equal on all members. `memory` has as many elements as `shape`
    /// says. At most 100,000 entries.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a duplicate name, or a shape that does not fit.
    pub fn add<T: Element>(
        &mut self,
        name: &str,
        shape: &[u64],
        memory: &'a mut [T],
    ) -> Result<()> {
        self.add_slice(name, shape, memory, false)
    }

    /// Adds a buffer that may differ between members: its name, type and shape must agree, but its
    /// content is neither compared nor moved.
    ///
    /// # Errors
    /// As [`SharedState::add`].
    pub fn add_unequal<T: Element>(
        &mut self,
        name: &str,
        shape: &[u64],
        memory: &'a mut [T],
    ) -> Result<()> {
        self.add_slice(name, shape, memory, true)
    }

    fn add_slice<T: Element>(
        &mut self,
        name: &str,
        shape: &[u64],
        memory: &'a mut [T],
        allow_inequality: bool,
    ) -> Result<()> {
        let key = key::<T>(name, shape, allow_inequality);
        if key.count() != Some(memory.len() as u64) {
            return Err(Error::invalid(format!(
                "entry {name:?}: shape {shape:?} does not fit its memory of {} elements",
                memory.len()
            )));
        }
        // SAFETY: the slice is borrowed for as long as this state may be used.
        unsafe { self.add_raw(key, memory.as_mut_ptr().cast()) }
    }

    /// Adds raw memory, for the C and Python bindings.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a duplicate name, a shape beyond the address space, or a null
    /// pointer.
    ///
    /// # Safety
    /// `memory` must be valid for the bytes of `key` for as long as the state is used, and must not
    /// be accessed during a sync.
    pub unsafe fn add_raw(&mut self, key: Key, memory: *mut u8) -> Result<()> {
        if key.name.len() > crate::limits::TEXT_BYTES_MAX {
            return Err(Error::invalid(
                "the name of an entry is longer than 512 bytes",
            ));
        }
        if self.names.contains_key(&key.name) {
            return Err(Error::invalid(format!("duplicate entry {:?}", key.name)));
        }
        let bytes = key.bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
            return Err(Error::invalid(format!(
                "entry {:?} is longer than the address space",
                key.name
            )));
        };
        if memory.is_null() && bytes > 0 {
            return Err(Error::invalid(format!(
                "entry {:?} has a null pointer",
                key.name
            )));
        }
        // SAFETY: passed on from the caller.
        self.memory.push(unsafe { Lent::new(memory, bytes) });
        self.names.insert(key.name.clone(), self.keys.len());
        self.keys.push(key);
        self.digests = None;
        Ok(())
    }

    /// The revision: how often the state was advanced.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.0
    }

    /// Sets the revision: how often the state was advanced. At each sync it may be at most one
    /// higher than at the last.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = Revision(revision);
    }

    /// Whether the content is consistent. False after a sync that failed half-way and left a
    /// mixture of two contents, until a sync succeeds. If the sync lost its only source, and was
    /// not cancelled, the earlier content is restored, and this stays true.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Marks the content as a mixture, for example because a sync of another state with the same
    /// memory failed half-way. The next sync then only receives.
    pub fn mark_mixed(&mut self) {
        self.is_usable = false;
    }

    /// Declares that the program itself has filled the memory with a consistent content of this
    /// revision, or will have before the next use of the state. Use it to continue a run whose
    /// members have all lost their contents ([`crate::SyncFault::NoSource`]). The next sync hashes
    /// everything.
    pub fn begin_anew(&mut self, revision: u64) {
        self.revision = Revision(revision);
        self.is_usable = true;
        self.digests = None;
    }

    /// Takes the hashes of the last sync, for a new state with the same entries. `None` if there
    /// was no sync, or if entries were added or a checkpoint was loaded since.
    pub fn take_hashes(&mut self) -> Option<Hashes> {
        let blocks = self.digests.take()?;
        Some(Hashes {
            keys: keys_digest(&self.keys),
            blocks,
        })
    }

    /// Restores hashes that were taken from an earlier state. Only entries listed in the next
    /// sync's [`SyncOptions::touched`] may have changed since. Does nothing if the entries differ.
    pub fn resume(&mut self, hashes: Hashes) {
        if hashes.keys == keys_digest(&self.keys) {
            self.digests = Some(hashes.blocks);
        }
    }

    /// What all members must agree on for each entry: name, type and shape.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The buffer of an entry.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such entry of this type,
    /// [`Error::InvalidUsage`] if the content is a mixture ([`SharedState::is_usable`]).
    pub fn slice<T: Element>(&self, name: &str) -> Result<&[T]> {
        let memory = self.find::<T>(name)?;
        let count = memory.bytes() / size_of::<T>();
        // SAFETY: `add` borrowed memory of this type, or `add_raw`'s caller vouched for it; syncs
        // borrow the state mutably.
        Ok(unsafe { memory.as_slice(count) })
    }

    /// The buffer of an entry, mutable.
    ///
    /// # Errors
    /// As [`SharedState::slice`].
    pub fn slice_mut<T: Element>(&mut self, name: &str) -> Result<&mut [T]> {
        let memory = self.find::<T>(name)?;
        let count = memory.bytes() / size_of::<T>();
        // SAFETY: as in `slice`, and the state is borrowed mutably.
        Ok(unsafe { memory.as_mut_slice(count) })
    }

    /// The root digest over all entries as they are now. Hashes everything.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the state has more than 2^32 blocks.
    pub fn root(&self) -> Result<Digest> {
        let layout = Blocks::new(&self.keys)?;
        let digests = hash_blocks(&self.bytes(), &layout, default_threads());
        Ok(Tree::new(keys_digest(&self.keys), &layout, digests).root)
    }

    /// Saves the state with its revision, and returns the file's path once the file survives a
    /// power loss. Other members need not take part. Blocks for two hashes and one write; the
    /// memory must not be written meanwhile. See docs/checkpoint.md.
    ///
    /// # Errors
    /// [`Error::InvalidUsage`] if the content is a mixture ([`SharedState::is_usable`]), otherwise
    /// as [`Checkpoints::save`].
    pub fn save(&self, checkpoints: &Checkpoints) -> Result<PathBuf> {
        self.check_usable()?;
        let content = StateId {
            revision: self.revision,
            root: self.root()?,
        };
        checkpoints.save(content, &self.keys, &self.bytes())
    }

    /// Loads the newest intact checkpoint, with its revision; `None` if there is none at all.
    /// [`Loaded::skipped`] names newer checkpoints that cannot be used. Every peer of a restarted
    /// run loads first and then synchronises: the highest revision of any member wins.
    ///
    /// # Errors
    /// As [`Checkpoints::load`]. If the disk failed half-way, [`SharedState::is_usable`] is then
    /// false.
    pub fn load(&mut self, checkpoints: &Checkpoints) -> Result<Option<Loaded>> {
        self.check_overlap()?;
        self.digests = None;
        let memory = self.memory.iter();
        // SAFETY: as in `slice_mut`; no two entries share memory.
        let mut entries: Vec<&mut [u8]> = memory
            .map(|memory| unsafe { memory.as_mut_slice(memory.bytes()) })
            .collect();
        match checkpoints.load(&self.keys, &mut entries) {
            Ok(None) => Ok(None),
            Ok(Some(loaded)) => {
                self.revision = loaded.content.revision;
                self.is_usable = true;
                Ok(Some(loaded))
            }
            Err(failure) => {
                self.is_usable &= !failure.is_mixed;
                Err(failure.into())
            }
        }
    }

    fn check_usable(&self) -> Result<()> {
        if self.is_usable {
            return Ok(());
        }
        Err(Error::usage(
            "the content of this state is a mixture, left by a sync or load that failed half-way; \
             synchronise it first",
        ))
    }

    fn find<T: Element>(&self, name: &str) -> Result<&Lent> {
        let index = self.names.get(name).copied();
        let Some(index) = index.filter(|&index| self.keys[index].dtype == T::DTYPE) else {
            return Err(Error::invalid(format!(
                "there is no entry {name:?} of type {}",
                T::DTYPE.name()
            )));
        };
        self.check_usable()?;
        Ok(&self.memory[index])
    }

    /// Checks that no two entries overlap, since several threads write blocks at once.
    fn check_overlap(&self) -> Result<()> {
        let memory = self.memory.iter().map(Lent::addresses).enumerate();
        let mut ranges: Vec<_> = memory.filter(|(_, range)| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|(_, range)| range.start);
        let clash = ranges
            .windows(2)
            .find(|pair| pair[1].1.start < pair[0].1.end);
        let Some([(one, _), (other, _)]) = clash else {
            return Ok(());
        };
        Err(Error::invalid(format!(
            "entries {:?} and {:?} share memory",
            self.keys[*one].name, self.keys[*other].name
        )))
    }

    fn bytes(&self) -> Vec<&[u8]> {
        let memory = self.memory.iter();
        // SAFETY: as in `slice`.
        memory
            .map(|memory| unsafe { memory.as_slice(memory.bytes()) })
            .collect()
    }

    /// Hashes what may have changed, and returns what this peer offers to a sync.
    pub(super) fn hold(&mut self, options: &SyncOptions) -> Result<Holding> {
        self.check_overlap()?;
        let layout = Blocks::new(&self.keys)?;
        let threads = options.hash_threads.unwrap_or_else(default_threads);
        let digests = match (&options.touched, self.digests.take()) {
            (Some(touched), Some(mut digests)) => {
                if let Some(entry) = touched.iter().find(|entry| **entry >= self.keys.len()) {
                    return Err(Error::invalid(format!(
                        "touched: there is no entry with index {entry}"
                    )));
                }
                let wanted = Wanted {
                    blocks: &layout,
                    digests: &mut digests,
                    threads,
                };
                rehash_entries(&self.bytes(), wanted, touched);
                digests
            }
            _ => hash_blocks(&self.bytes(), &layout, threads),
        };
        let keys = keys_digest(&self.keys);
        let tree = Tree::new(keys, &layout, digests);
        let content = StateId {
            revision: self.revision,
            root: tree.root,
        };
        Ok(Holding::new(
            self.memory.clone(),
            Arc::new(layout),
            keys,
            Brought {
                tree,
                named: content,
                is_whole: self.is_usable,
            },
        ))
    }

    /// Updates the state after a sync. With `stays`, a mixture is kept instead of the earlier
    /// content.
    pub(super) fn settle(&mut self, holding: &Holding, stays: bool) {
        holding.end(stays);
        let (content, is_whole) = holding.offered();
        self.is_usable = is_whole;
        if is_whole {
            self.revision = content.revision;
        }
        self.digests = Some(holding.digests());
    }
}

/// Hashes of a [`SharedState`]'s content, which outlive the state.
#[derive(Clone, Debug)]
pub struct Hashes {
    /// The digest of names, types and shapes.
    keys: Digest,
    blocks: Vec<Digest>,
}

fn key<T: Element>(name: &str, shape: &[u64], allow_inequality: bool) -> Key {
    Key {
        name: name.into(),
        dtype: T::DTYPE,
        shape: shape.to_vec(),
        allow_inequality,
    }
}
