//! The content that a member had before a sync began to overwrite it.
//!
//! It is kept block by block while the new content has only one source: if that source is lost, the
//! survivors go on from the old content. It is served to others from here, and restored after the
//! call.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::buffer::{Gate, Region, Storage};
use crate::wire::state::{Digest, StateId};

/// The overwritten blocks of one content.
#[derive(Debug)]
pub(super) struct Previous {
    pub content: StateId,
    blocks: BTreeMap<u32, Kept>,
}

/// One block as it was.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub digest: Digest,
    pub copy: Region,
}

impl Previous {
    /// Without overwritten blocks.
    pub fn new(content: StateId) -> Self {
        Self {
            content,
            blocks: BTreeMap::new(),
        }
    }

    /// The old content of a block, if it was overwritten.
    pub fn block(&self, block: u32) -> Option<&Kept> {
        self.blocks.get(&block)
    }

    /// Records a block that is about to be overwritten.
    pub fn keep(&mut self, block: u32, kept: Kept) {
        let known = self.blocks.insert(block, kept);
        assert!(known.is_none(), "what was written since is not the content");
    }

    /// All overwritten blocks.
    pub fn into_blocks(self) -> BTreeMap<u32, Kept> {
        self.blocks
    }
}

/// A copy of these bytes in the library's memory; `None` if it cannot be allocated.
pub(super) fn copy_of(bytes: &[u8]) -> Option<Region> {
    let storage = Storage::try_new(bytes.len()).ok()?;
    let copy = storage.open(&Gate::keeping(vec![Arc::clone(&storage)]));
    copy.write(|place| place.copy_from_slice(bytes))?;
    Some(copy)
}
