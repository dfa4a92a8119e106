//! Damaged and forged files: reported, never loaded, never a panic.

use proptest::prelude::*;

use super::model::Model;
use super::{State, key, on_model, path_of};
use crate::error::Error;
use crate::reduce::Dtype;

/// Two checkpoints, and the bytes of the newer one.
fn two() -> (Model, Vec<u8>) {
    let disk = Model::new();
    for revision in [1, 2] {
        State::small(revision)
            .save(&on_model(&disk), revision)
            .unwrap();
    }
    let newest = disk.bytes_of(&path_of(2));
    (disk, newest)
}

/// Loads; `None` if the newest was used, otherwise what is wrong with it.
fn complaint(disk: &Model) -> Option<String> {
    let mut state = State::small(0);
    let loaded = state.load(&on_model(disk)).unwrap().unwrap();
    let revision = loaded.content.revision.0;
    assert_eq!(state, State::small(revision), "as it was saved");
    assert_eq!(loaded.skipped.len() as u64, 2 - revision);
    loaded.skipped.into_iter().next()
}

#[test]
fn a_flipped_bit_anywhere_is_seen_and_the_one_before_is_loaded() {
    let (disk, newest) = two();
    for index in 0..newest.len() {
        let mut bytes = newest.clone();
        bytes[index] ^= 1 << (index % 8);
        disk.damage(&path_of(2), bytes);
        if complaint(&disk).is_none() {
            // One digit of a digest in capitals is the same digit.
            let letter = newest[index];
            assert!(letter.is_ascii_hexdigit() || letter.is_ascii_alphabetic());
            assert_eq!(index % 8, 5, "byte {index} is {letter}");
        }
    }
}

#[test]
fn a_file_cut_at_any_length_or_longer_than_it_was_is_seen() {
    let (disk, newest) = two();
    for length in 0..newest.len() {
        disk.damage(&path_of(2), newest[..length].to_vec());
        assert!(complaint(&disk).is_some(), "cut at {length}");
        let mut bytes = newest[..length].to_vec();
        bytes.resize(newest.len(), 0);
        if bytes != newest {
            disk.damage(&path_of(2), bytes);
            assert!(complaint(&disk).is_some(), "zeros from {length}");
        }
    }
    disk.damage(&path_of(2), [newest, vec![0]].concat());
    assert!(complaint(&disk).unwrap().contains("announces"));
}

#[test]
fn a_first_look_sees_headers_and_lengths_and_leaves_contents_to_the_load() {
    let (disk, newest) = two();
    let mut content = newest.clone();
    *content.last_mut().unwrap() ^= 1;
    disk.damage(&path_of(2), content);
    let look = || on_model(&disk).newest().unwrap().unwrap();
    assert_eq!(look(), State::small(2).id(2));
    assert!(complaint(&disk).is_some());
    disk.damage(&path_of(2), newest[..newest.len() - 1].to_vec());
    assert_eq!(look(), State::small(1).id(1));
    let mut digit = newest;
    let revision = digit
        .windows(14)
        .position(|text| text == b"\"revision\":\"2\"");
    digit[revision.unwrap() + 12] ^= 1;
    disk.damage(&path_of(2), digit);
    assert_eq!(
        look(),
        State::small(1).id(1),
        "the seal is over the revision"
    );
}

#[test]
fn a_file_under_the_name_of_another_revision_is_not_loaded() {
    let (disk, _) = two();
    let older = disk.bytes_of(&path_of(1));
    disk.damage(&path_of(2), older);
    assert!(complaint(&disk).unwrap().contains("its revision is 1"));
}

#[test]
fn when_nothing_can_be_used_each_file_and_its_fault_are_named_and_memory_is_untouched() {
    let (disk, newest) = two();
    disk.damage(&path_of(2), newest[..newest.len() - 1].to_vec());
    let mut older = disk.bytes_of(&path_of(1));
    *older.last_mut().unwrap() ^= 1;
    disk.damage(&path_of(1), older);
    let mut state = State::small(7);
    let failure = state.load(&on_model(&disk)).unwrap_err();
    assert!(!failure.is_mixed);
    assert_eq!(state, State::small(7));
    let text = failure.to_string();
    for part in [
        "0002.safetensors: it has",
        "0001.safetensors: its entries named in allow_inequality",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_whole_checkpoint_of_another_state_ends_the_search() {
    let disk = Model::new();
    State::small(1).save(&on_model(&disk), 1).unwrap();
    let mut other = State::filled(vec![key("weights", Dtype::F32, &[45], false)], 1);
    other.save(&on_model(&disk), 2).unwrap();
    let mut state = State::small(0);
    let failure = state.load(&on_model(&disk)).unwrap_err();
    let is_told = matches!(&failure.error, Error::InvalidArgument(what) if what.contains("0002"));
    assert!(is_told && !failure.is_mixed, "{failure}");
    other.load(&on_model(&disk)).unwrap().unwrap();
}

/// The newest file with another header of the right length and padding.
fn with_header(newest: &[u8], header: &str) -> Vec<u8> {
    let text_bytes = u64::from_le_bytes(newest[..8].try_into().unwrap()) as usize;
    let mut text = header.to_owned();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let length = (text.len() as u64).to_le_bytes();
    [&length, text.as_bytes(), &newest[8 + text_bytes..]].concat()
}

fn header_of(newest: &[u8]) -> String {
    let text_bytes = u64::from_le_bytes(newest[..8].try_into().unwrap()) as usize;
    String::from_utf8(newest[8..8 + text_bytes].to_vec()).unwrap()
}

#[test]
fn a_header_that_lies_about_entries_is_refused_with_words() {
    let (disk, newest) = two();
    let header = header_of(&newest);
    let lies = [
        ("\"step\"", "\"pets\"", "its entry `pets` is unknown"),
        ("\"step\"", "\"none\"", "entry `none`"),
        ("[5,9]", "[9,5]", "another type or shape"),
        ("\"BF16\"", "\"F16\"", "another type or shape"),
        ("[0,8]", "[0,9]", "another length"),
        ("[0,8]", "[180,188]", "overlap or leave gaps"),
        ("[0,8]", "[18446744073709551615,7]", "another length"),
        ("[0,8]", "[-1,7]", "damaged"),
        ("[0,8]", "[0,8],\"x\":1", "damaged"),
        ("[5,9]", "[[[[[[", "damaged"),
    ];
    for (from, to, expected) in lies {
        assert!(header.contains(from), "{from} in {header}");
        disk.damage(&path_of(2), with_header(&newest, &header.replace(from, to)));
        let complaint = complaint(&disk).unwrap();
        assert!(complaint.contains(expected), "{to}: {complaint}");
    }
    let long = format!("[0,8],\"{}\":1", "x".repeat(1000));
    disk.damage(
        &path_of(2),
        with_header(&newest, &header.replace("[0,8]", &long)),
    );
    assert!(
        complaint(&disk).unwrap().len() < 500,
        "whatever the file says"
    );
    let entry = header.find(",\"step\"").unwrap();
    let end = header[entry..].find('}').unwrap();
    let without = [&header[..entry], &header[entry + end + 1..]].concat();
    disk.damage(&path_of(2), with_header(&newest, &without));
    let complaint = complaint(&disk).unwrap();
    assert!(complaint.contains("entry `step` is missing"), "{complaint}");
}

#[test]
fn a_header_far_longer_than_the_entries_need_is_not_read() {
    let (disk, newest) = two();
    let mut header = header_of(&newest);
    header.push_str(&" ".repeat(2000));
    disk.damage(&path_of(2), with_header(&newest, &header));
    assert_eq!(complaint(&disk), None, "spaces are no harm");
    header.push_str(&" ".repeat(10_000));
    disk.damage(&path_of(2), with_header(&newest, &header));
    assert!(complaint(&disk).unwrap().contains("these entries need"));
    let endless = [&u64::MAX.to_le_bytes(), &newest[8..]].concat();
    disk.damage(&path_of(2), endless);
    assert!(complaint(&disk).unwrap().contains("its header length of"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_made_up_file_is_loaded_or_panics(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..40, "\\PC{0,12}"), 1..4,
        ),
    ) {
        let (disk, newest) = two();
        let mut header = header_of(&newest).into_bytes();
        for (at, removed, added) in edits {
            let start = at.index(header.len());
            let end = (start + removed).min(header.len());
            header.splice(start..end, added.bytes());
        }
        let header = String::from_utf8_lossy(&header).into_owned();
        disk.damage(&path_of(2), with_header(&newest, &header));
        // Checks that what is loaded was saved.
        let _either_way = complaint(&disk);
    }

    #[test]
    fn no_noise_is_loaded_or_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let (disk, _) = two();
        disk.damage(&path_of(2), noise);
        prop_assert!(complaint(&disk).is_some());
    }
}
