//! Checkpoints on a disk that fails at every step, on damaged files, and on the real disk.

mod faults;
mod files;
mod hostile;
mod model;

use std::path::{Path, PathBuf};

use super::{Checkpoints, Disk, Loaded, names};
use crate::ids::Revision;
use crate::reduce::Dtype;
use crate::state::{Blocks, Key, Tree, hash_blocks, keys_digest};
use crate::wire::state::StateId;

/// The directory of checkpoints on a [`model::Model`].
const DIRECTORY: &str = "/checkpoints";

/// Keys and contents.
#[derive(Clone, Debug, PartialEq)]
struct State {
    keys: Vec<Key>,
    entries: Vec<Vec<u8>>,
}

impl State {
    /// Entries of several element lengths, an empty one, a scalar, and one that may differ, with
    /// contents from `seed`.
    fn small(seed: u64) -> Self {
        let keys = vec![
            key("free", Dtype::U8, &[5], true),
            key("bias \"\u{e9}\"", Dtype::Bf16, &[3], false),
            key("none", Dtype::F32, &[0, 7], false),
            key("weights", Dtype::F32, &[5, 9], false),
            key("step", Dtype::U64, &[], false),
        ];
        Self::filled(keys, seed)
    }

    fn filled(keys: Vec<Key>, seed: u64) -> Self {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let entries = keys.iter().map(|key| {
            let bytes = key.bytes().unwrap();
            (0..bytes).map(|_| byte()).collect()
        });
        let entries = entries.collect();
        Self { keys, entries }
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.entries.iter().map(Vec::as_slice).collect()
    }

    fn id(&self, revision: u64) -> StateId {
        let blocks = Blocks::new(&self.keys).unwrap();
        let digests = hash_blocks(&self.slices(), &blocks, 1);
        StateId {
            revision: Revision(revision),
            root: Tree::new(keys_digest(&self.keys), &blocks, digests).root,
        }
    }

    fn save<D: Disk>(&self, to: &Checkpoints<D>, revision: u64) -> crate::Result<PathBuf> {
        to.save(self.id(revision), &self.keys, &self.slices())
    }

    /// Loads into the memory of this state.
    fn load<D: Disk>(&mut self, from: &Checkpoints<D>) -> Result<Option<Loaded>, super::Failure> {
        let mut slices: Vec<&mut [u8]> = self.entries.iter_mut().map(Vec::as_mut_slice).collect();
        from.load(&self.keys, &mut slices)
    }
}

fn key(name: &str, dtype: Dtype, shape: &[u64], allow_inequality: bool) -> Key {
    Key {
        name: name.into(),
        dtype,
        shape: shape.into(),
        allow_inequality,
    }
}

/// Checkpoints that are written in many small writes.
fn on_model(disk: &model::Model) -> Checkpoints<model::Model> {
    let mut checkpoints = Checkpoints::on(disk.clone(), DIRECTORY);
    checkpoints.buffer_bytes = 200;
    checkpoints
}

fn path_of(revision: u64) -> PathBuf {
    Path::new(DIRECTORY).join(names::of_revision(Revision(revision)))
}
