//! The memory of one sync call: the caller's entries, and what is known about their content.
//!
//! It lives through all attempts of the call, so that a retry does not fetch again what an earlier
//! attempt verified.

use std::sync::Arc;

use crate::lock::Mutex;

use super::digest::Tree;
use super::layout::Blocks;
use super::previous::{Kept, Previous, copy_of};
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
    /// The earlier content, if the entries are a mixture and it was kept.
    previous: Option<Previous>,
    /// Whether it is kept once they become a mixture.
    keeps: bool,
    /// What the caller had, or what was completed last: what an offer names.
    named: StateId,
    account: Account,
}

impl Content {
    /// A block of the content that is offered, if another was written over it.
    fn kept(&self, block: u32) -> Option<&Kept> {
        self.previous.as_ref()?.block(block)
    }
}

/// What the caller's entries hold when a call begins.
#[derive(Debug)]
pub struct Brought {
    /// The digests of their blocks.
    pub tree: Tree,
    /// What an offer names.
    pub named: StateId,
    /// Whether the entries hold that content, and not a mixture left by a failed sync.
    pub is_whole: bool,
}

/// What a call moved, over all its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes sent to other members.
    pub sent_bytes: u64,
    /// Bytes received, including wasted bytes.
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
                previous: None,
                keeps: false,
                named,
                account: Account::default(),
            }),
        }
    }

    /// The content to offer, and whether all of it can be served.
    #[must_use]
    pub fn offered(&self) -> (StateId, bool) {
        let content = self.content.lock();
        let previous = content.previous.as_ref();
        match content.whole.or(previous.map(|previous| previous.content)) {
            Some(whole) => (whole, true),
            None => (content.named, false),
        }
    }

    /// Whether the memory is a mixture of two contents.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.content.lock().whole.is_none()
    }

    /// The call has ended, and no other thread uses the memory. A mixture is replaced by the
    /// earlier content if that was kept, unless `stays`: then verified blocks need not be fetched
    /// again.
    pub fn end(&self, stays: bool) {
        let mut content = self.content.lock();
        let Some(previous) = content.previous.take() else {
            return;
        };
        if stays {
            return;
        }
        let gate = Gate::new();
        let inside = gate.enter().expect("it was made just now");
        content.whole = Some(previous.content);
        for (block, Kept { digest, copy }) in previous.into_blocks() {
            let region = self.region(&gate, block);
            copy.read(|bytes| region.touch(&inside, 0..bytes.len()).copy_from_slice(bytes));
            content.blocks[block as usize] = digest;
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

    /// The digests of some blocks of what is offered, as bytes.
    pub(super) fn encode_digests(&self, first: u32, count: u32) -> Vec<u8> {
        let content = self.content.lock();
        let digest = |block: u32| {
            let kept = content.kept(block).map(|kept| kept.digest);
            kept.unwrap_or(content.blocks[block as usize]).0
        };
        (first..first + count).flat_map(digest).collect()
    }

    /// A block of what is offered: in its place, or as it is kept.
    pub(super) fn offered_region(&self, gate: &Arc<Gate>, block: u32) -> Region {
        let content = self.content.lock();
        let kept = content.kept(block).map(|kept| kept.copy.clone());
        kept.unwrap_or_else(|| self.region(gate, block))
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
            self.keep(block, region.look(inside, 0..head.len()));
            region.touch(inside, 0..head.len()).copy_from_slice(head);
            rest = tail;
            block += 1;
        }
    }

    /// Keeps a block's content before it is overwritten.
    fn keep(&self, block: u32, bytes: &[u8]) {
        let is_kept = |content: &Content| {
            let previous = content.previous.as_ref();
            previous.is_none_or(|previous| previous.block(block).is_some())
        };
        if is_kept(&self.content.lock()) {
            return;
        }
        let copy = copy_of(bytes);
        let mut content = self.content.lock();
        let digest = content.blocks[block as usize];
        match (copy, &mut content.previous) {
            (Some(copy), Some(previous)) => previous.keep(block, Kept { digest, copy }),
            // Unless all of it fits in memory there is nothing consistent to go back to.
            _ => content.previous = None,
        }
    }

    /// Blocks were written: from now on the content is a mixture, until `complete`.
    pub(super) fn stored(&self, first: u32, digests: &[Digest]) {
        let mut content = self.content.lock();
        let range = first as usize..first as usize + digests.len();
        content.blocks[range].copy_from_slice(digests);
    }

    /// Whether content is kept from now on before it is overwritten.
    pub(super) fn keep_previous(&self, keeps: bool) {
        self.content.lock().keeps = keeps;
    }

    /// Blocks are about to be written.
    pub(super) fn mix(&self) {
        let mut content = self.content.lock();
        if let Some(whole) = content.whole.take() {
            content.previous = content.keeps.then(|| Previous::new(whole));
        }
    }

    /// What is offered is the elected content.
    pub(super) fn win(&self, elected: StateId) {
        let mut content = self.content.lock();
        content.named = elected;
        match &mut content.previous {
            Some(previous) => previous.content = elected,
            None => content.whole = Some(elected),
        }
    }

    /// All blocks are those of this content.
    pub(super) fn complete(&self, elected: StateId) {
        let mut content = self.content.lock();
        content.whole = Some(elected);
        content.named = elected;
        content.previous = None;
    }
}
