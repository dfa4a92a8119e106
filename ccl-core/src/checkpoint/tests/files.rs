//! Checkpoints as real files, and as other programs see them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use safetensors::{Dtype as TensorType, SafeTensors};

use super::{State, key, names};
use crate::checkpoint::Checkpoints;
use crate::error::Error;
use crate::ids::Revision;
use crate::reduce::Dtype;
use crate::state::BLOCK_BYTES;

/// A directory that does not exist yet, in one that is removed when the value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ccl-checkpoint-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.directory())
    }

    fn directory(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != names::LOCK).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_over = std::fs::remove_dir_all(&self.0);
    }
}

/// A state large enough for several threads: entries of many blocks, and one that may differ.
fn large(seed: u64) -> State {
    let blocks = |count: usize| (count * BLOCK_BYTES) as u64;
    let keys = vec![
        key("bytes", Dtype::U8, &[blocks(9) + 3], false),
        key("free", Dtype::U8, &[blocks(2) + 1], true),
        key("numbers", Dtype::F64, &[blocks(3) / 8, 2], false),
        key("one", Dtype::I16, &[1], false),
    ];
    State::filled(keys, seed)
}

#[test]
fn what_is_saved_is_loaded_with_any_number_of_threads() {
    let scratch = Scratch::new();
    let saved = large(1);
    assert_eq!(scratch.checkpoints().newest().unwrap(), None);
    assert!(large(0).load(&scratch.checkpoints()).unwrap().is_none());
    let path = saved.save(&scratch.checkpoints(), 42).unwrap();
    assert_eq!(path, scratch.checkpoints().path_of(42));
    assert_eq!(path.parent(), Some(scratch.directory().as_path()));
    for threads in [1, 3] {
        let mut state = large(0);
        let checkpoints = scratch.checkpoints().threads(threads);
        let loaded = state.load(&checkpoints).unwrap().unwrap();
        assert_eq!((loaded.content, &state), (saved.id(42), &saved));
    }
    assert_eq!(scratch.checkpoints().newest().unwrap(), Some(saved.id(42)));
}

#[test]
fn a_state_of_nothing_and_one_of_thousands_of_entries_are_saved_and_loaded() {
    let numbered = |index: u64| {
        key(
            &format!("{index}"),
            Dtype::I16,
            &[index % 3],
            index.is_multiple_of(5),
        )
    };
    for count in [0, 5000] {
        let scratch = Scratch::new();
        let keys: Vec<_> = (0..count).map(numbered).collect();
        let saved = State::filled(keys.clone(), 1);
        saved.save(&scratch.checkpoints(), 1).unwrap();
        let mut state = State::filled(keys, 2);
        state.load(&scratch.checkpoints()).unwrap().unwrap();
        assert_eq!(state, saved);
    }
}

#[test]
fn the_format_is_safetensors_as_its_own_library_reads_it() {
    let scratch = Scratch::new();
    let saved = State::small(5);
    let path = saved.save(&scratch.checkpoints(), 7).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert!(header_bytes.is_multiple_of(8));
    let facts = metadata.metadata().as_ref().unwrap();
    assert_eq!(facts["revision"], "7");
    assert_eq!(facts["root"], saved.id(7).root.to_string());
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), saved.keys.len());
    for (key, entry) in saved.keys.iter().zip(&saved.entries) {
        let tensor = tensors.tensor(&key.name).unwrap();
        assert_eq!(tensor.data(), entry, "{}", key.name);
        let shape: Vec<usize> = key.shape.iter().map(|extent| *extent as usize).collect();
        assert_eq!(tensor.shape(), shape);
        let place = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert!(place.is_multiple_of(key.dtype.bytes()), "{}", key.name);
    }
    let weights = tensors.tensor("weights").unwrap();
    assert_eq!(weights.dtype(), TensorType::F32);
}

#[test]
fn every_element_type_has_its_name_in_the_format() {
    let scratch = Scratch::new();
    let keys = Dtype::ALL.map(|dtype| key(dtype.name(), dtype, &[2], false));
    let saved = State::filled(keys.to_vec(), 1);
    let path = saved.save(&scratch.checkpoints(), 1).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for dtype in Dtype::ALL {
        let tensor = tensors.tensor(dtype.name()).unwrap();
        assert_eq!(tensor.dtype().bitsize(), dtype.bytes() * 8);
        let name = format!("{:?}", tensor.dtype()).to_lowercase();
        assert_eq!(name, dtype.name());
    }
}

#[test]
fn a_file_that_the_formats_library_wrote_anew_is_loaded() {
    let scratch = Scratch::new();
    let saved = State::small(5);
    let path = saved.save(&scratch.checkpoints(), 7).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let facts = metadata.metadata().clone();
    let written = safetensors::serialize(tensors.iter(), facts).unwrap();
    assert_ne!(written, bytes, "it has an order of its own");
    std::fs::write(&path, written).unwrap();
    let mut state = State::small(0);
    state.load(&scratch.checkpoints()).unwrap().unwrap();
    assert_eq!(state, saved);
}

#[test]
fn the_newest_few_are_kept_and_others_files_are_left_alone() {
    let scratch = Scratch::new();
    let checkpoints = scratch.checkpoints().keep(3);
    State::small(0).save(&checkpoints, 1).unwrap();
    let left_over = names::temporary(1);
    for other in ["notes.txt", "checkpoint-1.safetensors", left_over.as_str()] {
        std::fs::write(scratch.directory().join(other), "x").unwrap();
    }
    for revision in 2..=6 {
        State::small(revision).save(&checkpoints, revision).unwrap();
    }
    let mut expected: Vec<String> = (4..=6).map(Revision).map(names::of_revision).collect();
    expected.extend(["checkpoint-1.safetensors".into(), "notes.txt".into()]);
    expected.sort();
    assert_eq!(scratch.names(), expected);
}

#[test]
fn a_run_that_goes_back_is_loaded_as_it_is_and_what_was_ahead_is_set_aside() {
    let scratch = Scratch::new();
    let checkpoints = scratch.checkpoints();
    for revision in [1, 100, 101] {
        State::small(revision).save(&checkpoints, revision).unwrap();
    }
    State::small(51).save(&checkpoints, 51).unwrap();
    let mut state = State::small(0);
    let loaded = state.load(&checkpoints).unwrap().unwrap();
    assert_eq!(loaded.content, State::small(51).id(51));
    let expected = [
        names::of_revision(Revision(51)),
        names::superseded(Revision(100)),
        names::superseded(Revision(101)),
    ];
    assert_eq!(scratch.names(), expected);
}

#[test]
fn what_does_not_hash_to_its_root_or_cannot_be_named_is_not_saved() {
    let scratch = Scratch::new();
    let checkpoints = scratch.checkpoints();
    let state = State::small(1);
    let is_refused = |result: crate::Result<PathBuf>, words: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let other = State::small(2);
    let result = checkpoints.save(state.id(1), &state.keys, &other.slices());
    is_refused(result, "they were changed during the save");
    let result = checkpoints.save(state.id(1), &state.keys, &state.slices()[1..]);
    is_refused(result, "5 keys, 4 entries");
    let mut short = state.slices();
    short[1] = &short[1][1..];
    let result = checkpoints.save(state.id(1), &state.keys, &short);
    is_refused(result, "has 5 bytes");
    for (name, words) in [
        ("free", "duplicate entry"),
        ("__metadata__", "the format reserves"),
    ] {
        let mut named = state.clone();
        named.keys[1].name = name.into();
        is_refused(named.save(&checkpoints, 1), words);
    }
    assert!(!scratch.directory().exists(), "nothing was begun");
}

#[test]
fn a_directory_without_a_parent_is_an_error_that_names_it() {
    let scratch = Scratch::new();
    let checkpoints = Checkpoints::new(scratch.0.join("a").join("b"));
    let error = State::small(1).save(&checkpoints, 1).unwrap_err();
    assert!(matches!(error, Error::Os { .. }), "{error}");
    assert!(error.to_string().contains("/a/b"), "{error}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let scratch = Scratch::new();
    State::small(1).save(&scratch.checkpoints(), 1).unwrap();
    let name = names::of_revision(Revision(2));
    std::fs::create_dir(scratch.directory().join(&name)).unwrap();
    let mut state = State::small(0);
    let loaded = state.load(&scratch.checkpoints()).unwrap().unwrap();
    assert_eq!(state, State::small(1));
    assert!(loaded.skipped[0].contains("not a regular file"));
    std::fs::remove_dir(scratch.directory().join(&name)).unwrap();
    make_pipe(&scratch.directory().join(&name));
    let loaded = state.load(&scratch.checkpoints()).unwrap().unwrap();
    assert!(loaded.skipped[0].contains("not a regular file"));
}

fn make_pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn threads_that_save_at_once_and_others_that_load_meanwhile_do_not_meet() {
    let scratch = Scratch::new();
    State::small(1).save(&scratch.checkpoints(), 1).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let checkpoints = scratch.checkpoints();
            scope.spawn(move || {
                for round in 1..20 {
                    let revision = 2 * round + writer;
                    State::small(revision).save(&checkpoints, revision).unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let checkpoints = scratch.checkpoints();
                for _ in 0..50 {
                    let mut state = State::small(0);
                    let loaded = state.load(&checkpoints).unwrap().unwrap();
                    assert_eq!(loaded.skipped, Vec::<String>::new());
                    assert_eq!(state, State::small(loaded.content.revision.0));
                }
            });
        }
    });
}
