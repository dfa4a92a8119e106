//! The memory of one call of a sync: the caller's entries, and what is known of their content.
//!
//! It lives through all attempts of the call, so that what one attempt verified is not fetched
//! again by the next.

use std::sync::Arc;

use crate::lock::Mutex;

use super::digest::Tree;
use super::layout::Blocks;
use crate::buffer::{Gate, Inside, Lent, Region};
use crate::ids::PeerId;
use crate::wire::state::{Digest, StateId};

/// The caller's state for one call.
#[derive(Debug)]
pub struct Holding {
    /// Memory of each entry.
    entries: Vec<Lent>,
    /// How it is cut.
    pub layout: Arc<Blocks>,
    /// Digest of the keys.
    pub keys: Digest,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    /// Digests of the blocks as they are now.
    blocks: Vec<Digest>,
    /// What the blocks are together; `None`: a mixture.
    whole: Option<StateId>,
    /// What the caller had, or what was completed last: what an offer names.
    named: StateId,
    account: Account,
}

/// What the caller's entries hold when a call begins.
#[derive(Debug)]
pub struct Brought {
    /// The digests of their blocks.
    pub tree: Tree,
    /// What an offer names.
    pub named: StateId,
    /// Whether they are that content, and not what a sync that failed left.
    pub is_whole: bool,
}

/// What a call moved, over all its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes given to other members.
    pub sent_bytes: u64,
    /// Bytes received, the useless included.
    pub received_bytes: u64,
    /// Bytes used of each source.
    pub sources: Vec<(PeerId, u64)>,
    /// What the newest attempt elected.
    pub elected: Option<StateId>,
}

impl Holding {
    /// The caller's entries, with the digest of their keys.
    #[must_use]
    pub fn new(entries: Vec<Lent>, layout: Arc<Blocks>, keys: Digest, brought: Brought) -> Self {
        let Brought {
            tree,
            named,
            is_whole,
        } = brought;
        Self {
            entries,
            layout,
            keys,
            content: Mutex::new(Content {
                blocks: tree.blocks,
                whole: is_whole.then_some(named),
                named,
                account: Account::default(),
            }),
        }
    }

    /// What an offer says: the content, and whether it is whole.
    #[must_use]
    pub fn offered(&self) -> (StateId, bool) {
        let content = self.content.lock();
        match content.whole {
            Some(whole) => (whole, true),
            None => (content.named, false),
        }
    }

    /// Digests of all blocks as they are now.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.content.lock().blocks.clone()
    }

    /// What the call moved.
    #[must_use]
    pub fn account(&self) -> Account {
        self.content.lock().account.clone()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Account)) {
        change(&mut self.content.lock().account);
    }

    /// The digests of some blocks, as bytes.
    pub(super) fn encode_digests(&self, first: u32, count: u32) -> Vec<u8> {
        let content = self.content.lock();
        let blocks = &content.blocks[first as usize..(first + count) as usize];
        blocks.iter().flat_map(|digest| digest.0).collect()
    }

    /// The memory of a block behind a gate.
    pub(super) fn region(&self, gate: &Arc<Gate>, block: u32) -> Region {
        let span = self.layout.span(block);
        let range = span.bytes.start as usize..span.bytes.end as usize;
        self.entries[span.entry].open(gate).slice(range)
    }

    /// Copies blocks that lie one after the other in `bytes` to their places.
    pub(super) fn store(&self, inside: &Inside<'_>, gate: &Arc<Gate>, first: u32, bytes: &[u8]) {
        let mut rest = bytes;
        let mut block = first;
        while !rest.is_empty() {
            let region = self.region(gate, block);
            let (head, tail) = rest.split_at(region.bytes());
            region.touch(inside, 0..head.len()).copy_from_slice(head);
            rest = tail;
            block += 1;
        }
    }

    /// Blocks were written: from now on the content is a mixture, until `complete`.
    pub(super) fn stored(&self, first: u32, digests: &[Digest]) {
        let mut content = self.content.lock();
        let range = first as usize..first as usize + digests.len();
        content.blocks[range].copy_from_slice(digests);
    }

    /// Blocks are about to be written.
    pub(super) fn mix(&self) {
        self.content.lock().whole = None;
    }

    /// All blocks are those of this content.
    pub(super) fn complete(&self, elected: StateId) {
        let mut content = self.content.lock();
        content.whole = Some(elected);
        content.named = elected;
    }
}
