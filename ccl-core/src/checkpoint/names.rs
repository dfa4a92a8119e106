//! The file names in a checkpoint directory.
//!
//! ```text
//! checkpoint-00000000000000000042.safetensors             revision 42
//! checkpoint-00000000000000000042.safetensors.superseded  set aside: the run went back before it
//! .checkpoint-5ad1f00d0c0ffee0.tmp                        being written, or its writer died
//! .checkpoint-lock                                        locked during a save
//! ```

use crate::ids::Revision;

/// The file that is locked during a save.
pub const LOCK: &str = ".checkpoint-lock";

/// Of a checkpoint. Sorted as text they are sorted by revision.
pub fn of_revision(revision: Revision) -> String {
    format!("{PREFIX}{:020}{SUFFIX}", revision.0)
}

/// The revision of a checkpoint; `None` for all other files.
pub fn revision_of(name: &str) -> Option<Revision> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let revision = Revision(digits.parse().ok()?);
    // The number has one name only: no sign, no fewer zeros.
    (of_revision(revision) == name).then_some(revision)
}

/// Of a checkpoint that a later save put out of use.
pub fn superseded(revision: Revision) -> String {
    of_revision(revision) + ".superseded"
}

/// Of a file that is being written.
pub fn temporary(random: u64) -> String {
    format!(".{PREFIX}{random:016x}{TEMPORARY_SUFFIX}")
}

/// Whether a file is being written, or was when its writer died.
pub fn is_temporary(name: &str) -> bool {
    let rest = name
        .strip_prefix('.')
        .and_then(|rest| rest.strip_prefix(PREFIX));
    let middle = rest.and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    middle.is_some_and(|middle| middle.len() == 16 && u64::from_str_radix(middle, 16).is_ok())
}

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";
const TEMPORARY_SUFFIX: &str = ".tmp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_one_name_and_no_other_file_is_taken_for_it() {
        for revision in [0, 1, 42, u64::MAX].map(Revision) {
            assert_eq!(revision_of(&of_revision(revision)), Some(revision));
            assert_eq!(revision_of(&superseded(revision)), None);
        }
        for name in [
            "checkpoint-42.safetensors",
            "checkpoint-+0000000000000000042.safetensors",
            "checkpoint-99999999999999999999.safetensors",
            "checkpoint-.safetensors",
            &temporary(42),
            LOCK,
        ] {
            assert_eq!(revision_of(name), None, "{name}");
        }
        assert!(of_revision(Revision(9)) < of_revision(Revision(10)));
    }

    #[test]
    fn only_what_a_writer_leaves_is_temporary() {
        assert!(is_temporary(&temporary(0)) && is_temporary(&temporary(u64::MAX)));
        for name in [LOCK, ".checkpoint-.tmp", "x.tmp", &of_revision(Revision(1))] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
