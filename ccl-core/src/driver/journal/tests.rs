//! Goal: all appended records are read back, or the master learns that they are not.
//!
//! 1. Records are read back across several openings.
//! 2. A file cut at any byte yields the complete records before the cut, and continues from there.
//! 3. A changed byte anywhere is an error, or harmless in an incomplete last record.
//! 4. Two masters on one file, wrong files, failing disks.
//! 5. An older copy, a truncated file and a missing marker are detected; a crash causes none of
//!    these.

use std::fs::OpenOptions;
use std::sync::Arc;

use super::*;

/// A separate directory for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ccl-journal-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("run.journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Entry = (u32, String);

fn entry(index: u32) -> Entry {
    (index * 1000, "x".repeat(index as usize * 7))
}

fn open(path: &Path) -> Result<(Journal, Vec<Entry>)> {
    Journal::open(path, "a run", true)
}

/// Writes `count` entries; returns where each ends.
fn write(path: &Path, count: u32) -> Vec<u64> {
    let (mut journal, _) = open(path).unwrap();
    let mut ends = vec![journal.length().unwrap()];
    for index in 0..count {
        journal.append(&entry(index)).unwrap();
        ends.push(journal.length().unwrap());
    }
    journal.sync().unwrap();
    ends
}

fn entries(count: usize) -> Vec<Entry> {
    (0..count as u32).map(entry).collect()
}

#[test]
fn records_come_back_in_order_over_several_openings() {
    let folder = Folder::new("openings");
    for round in 0..4_u32 {
        let (mut journal, found) = open(&folder.file()).unwrap();
        assert_eq!(found, entries(round as usize));
        journal.append(&entry(round)).unwrap();
    }
}

#[test]
fn a_file_cut_at_any_byte_gives_the_whole_records_before_and_goes_on() {
    let folder = Folder::new("cut");
    let path = folder.file();
    let ends = write(&path, 5);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut journal, found) = open(&path).unwrap();
        let expected = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(found, entries(expected.saturating_sub(1)), "cut at {cut}");
        journal.append(&entry(9)).unwrap();
        drop(journal);
        let (_, found) = open(&path).unwrap();
        assert_eq!(found.last(), Some(&entry(9)), "cut at {cut}");
    }
}

#[test]
fn zeros_where_a_record_was_to_be_are_cut_off() {
    let folder = Folder::new("zeros");
    let path = folder.file();
    let ends = write(&path, 3);
    for zeros in [1, 15, 16, 17, 5000] {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(bytes.len() + zeros, 0);
        std::fs::write(&path, &bytes).unwrap();
        let (journal, found) = open(&path).unwrap();
        assert_eq!(found, entries(3));
        assert_eq!(Some(&journal.length().unwrap()), ends.last());
    }
}

#[test]
fn a_changed_byte_anywhere_is_an_error_that_names_the_place() {
    let folder = Folder::new("flip");
    let path = folder.file();
    let ends = write(&path, 4);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{at}: {error}");
        let record = ends.iter().rfind(|end| **end <= at as u64);
        if let Some(start) = record {
            let words = format!("damaged at byte {start} of {}", whole.len());
            assert!(error.to_string().contains(&words), "{at}: {error}");
        }
        // Nothing was cut or repaired.
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_missing_or_repeated_record_breaks_the_chain() {
    let folder = Folder::new("chain");
    let path = folder.file();
    let ends: Vec<_> = write(&path, 3)
        .into_iter()
        .map(|end| end as usize)
        .collect();
    let whole = std::fs::read(&path).unwrap();
    let missing = [&whole[..ends[1]], &whole[ends[2]..]].concat();
    let alike = Folder::new("alike");
    let mut journal = open(&alike.file()).unwrap().0;
    let twins = (0..2).map(|_| {
        journal.append(&entry(1)).unwrap();
        journal.length().unwrap() as usize
    });
    let twins: Vec<usize> = twins.collect();
    drop(journal);
    let bytes = std::fs::read(alike.file()).unwrap();
    let tripled = [&bytes[..], &bytes[twins[0]..]].concat();
    let repeated = [&whole[..ends[2]], &whole[ends[1]..]].concat();
    for bytes in [missing, repeated, tripled] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("does not follow"), "{error}");
    }
}

#[test]
fn a_replaced_journal_holds_the_new_records_and_goes_on() {
    let folder = Folder::new("replace");
    let path = folder.file();
    write(&path, 5);
    let (mut journal, _) = open(&path).unwrap();
    // What an earlier attempt left behind is in nobody's way.
    std::fs::write(folder.0.join("run.journal.new"), "half").unwrap();
    journal.replace(&[entry(7), entry(8)]).unwrap();
    journal.append(&entry(9)).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.bytes(), std::fs::metadata(&path).unwrap().len());
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("in use by another master"), "{error}");
    drop(journal);
    let (journal, found) = open(&path).unwrap();
    assert_eq!(found, [entry(7), entry(8), entry(9)]);
    assert_eq!(journal.bytes(), std::fs::metadata(&path).unwrap().len());
    assert!(!folder.0.join("run.journal.new").exists());
}

#[test]
fn a_journal_that_cannot_be_replaced_goes_on_as_it_was() {
    let folder = Folder::new("keep");
    let path = folder.file();
    write(&path, 2);
    let (mut journal, _) = open(&path).unwrap();
    std::fs::create_dir(folder.0.join("run.journal.new")).unwrap();
    assert!(journal.replace(&[entry(7)]).is_err());
    assert!(!journal.is_broken());
    journal.append(&entry(2)).unwrap();
    drop(journal);
    assert_eq!(open(&path).unwrap().1, entries(3));
}

#[test]
fn two_masters_never_share_a_journal() {
    let folder = Folder::new("lock");
    let (first, _) = open(&folder.file()).unwrap();
    let error = open(&folder.file()).unwrap_err().to_string();
    assert!(error.contains("in use by another master"), "{error}");
    drop(first);
    open(&folder.file()).unwrap();
}

#[test]
fn a_journal_of_another_run_and_a_file_that_is_none_are_refused_untouched() {
    let folder = Folder::new("other");
    let path = folder.file();
    write(&path, 1);
    let error = Journal::open::<Entry>(&path, "another", true).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("belongs to run `a run`, not `another`"),
        "{error}"
    );
    for text in [
        "short",
        "a text of more than sixteen bytes, and no journal at all",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("is not a ccl journal"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_record_of_another_program_is_named() {
    let folder = Folder::new("foreign");
    write(&folder.file(), 2);
    let error = Journal::open::<(u32, bool)>(&folder.file(), "a run", true).unwrap_err();
    assert!(error.to_string().contains("does not understand"), "{error}");
}

#[test]
fn a_failed_write_is_an_error_now_and_for_ever() {
    let folder = Folder::new("full");
    let (mut journal, _) = open(&folder.file()).unwrap();
    journal.fill_disk();
    let error = journal.append(&entry(1)).unwrap_err().to_string();
    assert!(error.contains("the master stops"), "{error}");
    let null = || OpenOptions::new().write(true).open("/dev/null");
    journal.file = Own::make(&Arc::default(), null).unwrap();
    assert!(journal.append(&entry(1)).is_err());
    assert!(journal.sync().is_err());
}

#[test]
fn a_disk_without_room_refuses_the_journal_at_the_start() {
    let error = open(Path::new("/dev/full")).unwrap_err().to_string();
    assert!(error.contains("cannot be created"), "{error}");
    let error = open(Path::new("/nonexistent/run.journal"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be opened"), "{error}");
}

#[test]
fn only_its_owner_reads_the_secrets_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    write(&folder.file(), 1);
    let mode = std::fs::metadata(folder.file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_journal_of_another_version_is_refused_in_words_and_left_alone() {
    let folder = Folder::new("version");
    let path = folder.file();
    for version in [0, 1, JOURNAL_VERSION + 1, u32::MAX] {
        // All else is as it should be, so that the version alone is what is refused.
        let mut file = header_of("a run");
        file[8..12].copy_from_slice(&version.to_le_bytes());
        let end = file.len() - 4;
        let crc = crc32fast::hash(&file[..end]);
        file[end..].copy_from_slice(&crc.to_le_bytes());
        file.extend([7; 40]);
        std::fs::write(&path, &file).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        let words = error.to_string();
        let expected =
            format!("has version {version}, but this program writes version {JOURNAL_VERSION}");
        assert!(words.contains(&expected), "{words}");
        assert!(words.contains("or another file"), "{words}");
        assert_eq!(std::fs::read(&path).unwrap(), file);
    }
}

/// The doubt at the next opening.
fn doubt(path: &Path) -> Option<Doubt> {
    open(path).unwrap().0.doubt().cloned()
}

fn marker_of(path: &Path) -> PathBuf {
    path.with_extension("journal.marker")
}

/// A journal of five sealed entries, and where each ends.
fn sealed(folder: &Folder) -> (PathBuf, Vec<u64>) {
    let path = folder.file();
    let ends = write(&path, 5);
    assert_eq!(doubt(&path), None);
    (path, ends)
}

#[test]
fn an_older_copy_in_the_place_of_the_journal_is_doubted_until_something_is_sealed() {
    let folder = Folder::new("older");
    let path = folder.file();
    write(&path, 3);
    let copy = std::fs::read(&path).unwrap();
    write(&path, 1);
    std::fs::write(&path, &copy).unwrap();
    // A look at it makes it no newer, nor does a stop.
    for _ in 0..3 {
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found, entries(3));
        assert_eq!(journal.doubt(), Some(&Doubt::Older(marker_of(&path))));
        journal.sync().unwrap();
    }
    let (mut journal, _) = open(&path).unwrap();
    journal.append(&entry(9)).unwrap();
    drop(journal);
    assert!(doubt(&path).is_some(), "nothing was sealed yet");
    let (mut journal, _) = open(&path).unwrap();
    journal.append(&entry(9)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    assert_eq!(doubt(&path), None);
}

#[test]
fn a_journal_cut_where_a_record_ends_is_doubted_and_so_is_one_that_is_gone() {
    let folder = Folder::new("shortened");
    let (path, ends) = sealed(&folder);
    let whole = std::fs::read(&path).unwrap();
    for &end in &ends[1..5] {
        std::fs::write(&path, &whole[..end as usize]).unwrap();
        assert_eq!(doubt(&path), Some(Doubt::Older(marker_of(&path))), "{end}");
    }
    std::fs::write(&path, &whole[..ends[0] as usize]).unwrap();
    assert_eq!(doubt(&path), Some(Doubt::Empty(marker_of(&path))));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(doubt(&path), Some(Doubt::Empty(marker_of(&path))));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(doubt(&path), None);
}

#[test]
fn an_emptied_journal_is_told_from_an_older_copy_with_what_to_do() {
    let folder = Folder::new("emptied");
    let (path, _) = sealed(&folder);
    std::fs::write(&path, "").unwrap();
    let words = doubt(&path).unwrap().to_string();
    for expected in [
        "it is empty",
        "deleted or truncated",
        "members",
        "rebuild_window",
    ] {
        assert!(words.contains(expected), "{expected:?} is not in: {words}");
    }
}

#[test]
fn a_journal_of_the_same_length_that_was_written_by_another_master_is_doubted() {
    let (folder, other) = (Folder::new("mine"), Folder::new("theirs"));
    let path = folder.file();
    write(&path, 2);
    let mut journal = open(&other.file()).unwrap().0;
    for index in [0, 1] {
        let mut theirs = entry(index);
        theirs.0 += 1;
        journal.append(&theirs).unwrap();
    }
    journal.sync().unwrap();
    drop(journal);
    std::fs::copy(other.file(), &path).unwrap();
    assert_eq!(doubt(&path), Some(Doubt::Older(marker_of(&path))));
}

#[test]
fn a_journal_without_its_marker_is_doubted_unless_nothing_is_in_it() {
    let folder = Folder::new("moved");
    let (path, ends) = sealed(&folder);
    for marker in [None, Some("rubbish".repeat(2000))] {
        std::fs::remove_file(marker_of(&path)).unwrap();
        if let Some(text) = marker {
            std::fs::write(marker_of(&path), text).unwrap();
            assert_eq!(doubt(&path), Some(Doubt::NoMarker(marker_of(&path))));
        } else {
            assert_eq!(doubt(&path), Some(Doubt::NoMarker(marker_of(&path))));
            std::fs::write(marker_of(&path), "").unwrap();
        }
    }
    std::fs::remove_file(marker_of(&path)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..ends[0] as usize]).unwrap();
    assert_eq!(
        doubt(&path),
        None,
        "a crash may come before the first marker"
    );
}

/// Commits are written lazily: a crash may lose them, and the rest is still trusted.
#[test]
fn a_lost_tail_that_was_never_sealed_casts_no_doubt() {
    let folder = Folder::new("tail");
    let (path, ends) = sealed(&folder);
    let (mut journal, _) = open(&path).unwrap();
    journal.append(&entry(7)).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for cut in ends[5] as usize..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (journal, found) = open(&path).unwrap();
        assert_eq!((journal.doubt(), found), (None, entries(5)), "cut at {cut}");
    }
}

/// The marker is written to two places in turn: a crash during a write leaves the other one intact.
#[test]
fn a_marker_whose_last_write_was_cut_short_says_what_was_sealed_before() {
    let folder = Folder::new("torn");
    let path = folder.file();
    let mut journal = open(&path).unwrap().0;
    let mut markers = Vec::new();
    for index in 0..4 {
        journal.append(&entry(index)).unwrap();
        journal.sync().unwrap();
        markers.push(std::fs::read(marker_of(&path)).unwrap());
    }
    drop(journal);
    let newest = markers.last().unwrap();
    for at in 0..newest.len() {
        let mut torn = newest.clone();
        torn[at] ^= 0x40;
        std::fs::write(marker_of(&path), &torn).unwrap();
        assert_eq!(doubt(&path), None, "{at}");
    }
}

/// While the journal is being replaced, the marker matches both the old file and the new one.
#[test]
fn a_crash_while_a_journal_is_replaced_casts_no_doubt() {
    let folder = Folder::new("replaced");
    let (path, _) = sealed(&folder);
    let old = std::fs::read(&path).unwrap();
    let (mut journal, _) = open(&path).unwrap();
    let points = [journal.point(), Point { bytes: 7, chain: 8 }];
    journal.mark(&points).unwrap();
    drop(journal);
    assert_eq!(
        doubt(&path),
        None,
        "the crash came before the new file was in place"
    );
    let (mut journal, _) = open(&path).unwrap();
    journal.replace(&[entry(7), entry(8)]).unwrap();
    drop(journal);
    assert_eq!(doubt(&path), None);
    std::fs::write(&path, old).unwrap();
    assert!(
        doubt(&path).is_some(),
        "the file before is an older copy now"
    );
}
