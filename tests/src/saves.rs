//! A state whose content is a function of its revision, for processes that save and load it.

use ccl_core::Dtype;
use ccl_core::ids::Revision;
use ccl_core::state::{Blocks, Key, Tree, hash_blocks, keys_digest};
use ccl_core::wire::state::StateId;

/// Keys and contents: some MiB in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Of all entries.
    pub keys: Vec<Key>,
    /// The bytes of each.
    pub entries: Vec<Vec<u8>>,
    /// Revision and root.
    pub content: StateId,
}

impl Saved {
    /// The state of this revision.
    ///
    /// # Panics
    /// Never: the layout fits all limits.
    #[must_use]
    pub fn of(revision: u64) -> Self {
        let keys = keys();
        let entries: Vec<Vec<u8>> = keys.iter().map(|key| filled(key, revision)).collect();
        let blocks = Blocks::new(&keys).expect("a few blocks");
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let digests = hash_blocks(&slices, &blocks, 2);
        let root = Tree::new(keys_digest(&keys), &blocks, digests).root;
        Self {
            content: StateId {
                revision: Revision(revision),
                root,
            },
            keys,
            entries,
        }
    }

    /// All entries, to be saved.
    #[must_use]
    pub fn slices(&self) -> Vec<&[u8]> {
        self.entries.iter().map(Vec::as_slice).collect()
    }

    /// All entries, to be loaded into.
    #[must_use]
    pub fn slices_mut(&mut self) -> Vec<&mut [u8]> {
        self.entries.iter_mut().map(Vec::as_mut_slice).collect()
    }
}

fn keys() -> Vec<Key> {
    let key = |name: &str, dtype, count, allow_inequality| Key {
        name: name.into(),
        dtype,
        shape: vec![count],
        allow_inequality,
    };
    vec![
        key("weights", Dtype::F32, 400_000, false),
        key("position", Dtype::U64, 1, true),
        key("momentum", Dtype::Bf16, 300_001, false),
        key("seen", Dtype::U8, 100_003, true),
    ]
}

/// The revision, and then bytes that differ from one revision to the next.
fn filled(key: &Key, revision: u64) -> Vec<u8> {
    let bytes = key.bytes().expect("small");
    let mut content = vec![revision as u8; usize::try_from(bytes).expect("small")];
    content[..8].copy_from_slice(&revision.to_le_bytes());
    content
}
