//! Digests of a state: one per block, one root per entry, one root of the state.
//!
//! All are BLAKE3. A block's digest covers its bytes in memory (little-endian on every supported
//! machine), an entry's root its blocks, the state's root its keys and entries.

use blake3::Hasher;

use super::layout::{Blocks, Key};
use crate::wire::state::Digest;

/// Root of an entry.
pub type EntryDigest = Digest;

/// The digests of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Of each block, in order.
    pub blocks: Vec<Digest>,
    /// Digest of each entry.
    pub entries: Vec<EntryDigest>,
    /// Root digest of the state.
    pub root: Digest,
}

/// Digest of a block.
#[must_use]
pub fn block_digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Digest of names, types, shapes and whether contents may differ.
#[must_use]
pub fn keys_digest(keys: &[Key]) -> Digest {
    let mut hasher = Hasher::new_derive_key("ccl shared state keys 1");
    let number = |hasher: &mut Hasher, value: u64| {
        hasher.update(&value.to_le_bytes());
    };
    number(&mut hasher, keys.len() as u64);
    for key in keys {
        number(&mut hasher, key.name.len() as u64);
        hasher.update(key.name.as_bytes());
        hasher.update(&[key.dtype as u8, u8::from(key.allow_inequality)]);
        number(&mut hasher, key.shape.len() as u64);
        for extent in &key.shape {
            number(&mut hasher, *extent);
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

impl Tree {
    /// Puts a tree together from the digests of all blocks.
    ///
    /// # Panics
    /// If their number is not that of the blocks.
    #[must_use]
    pub fn new(keys: Digest, layout: &Blocks, blocks: Vec<Digest>) -> Self {
        assert_eq!(blocks.len(), layout.count() as usize, "one digest a block");
        let mut root = Hasher::new_derive_key("ccl shared state root 1");
        root.update(&keys.0);
        let entries = (0..layout.entries())
            .map(|entry| {
                let mut hasher = Hasher::new_derive_key("ccl shared state entry 1");
                let range = layout.of_entry(entry);
                for digest in &blocks[range.start as usize..range.end as usize] {
                    hasher.update(&digest.0);
                }
                let digest = Digest(*hasher.finalize().as_bytes());
                root.update(&digest.0);
                digest
            })
            .collect();
        Self {
            entries,
            root: Digest(*root.finalize().as_bytes()),
            blocks,
        }
    }
}
