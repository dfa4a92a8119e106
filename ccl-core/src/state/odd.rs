//! Describes the entry in which a member's state differs from the others'.

use super::layout::Key;
use crate::wire::state::{Foreign, KeyDifference, KeySketch, OddEntry, name_hash};

/// The sums of all entries, for an offer.
#[must_use]
pub fn sketch(keys: &[Key]) -> KeySketch {
    let mut sketch = KeySketch::default();
    for key in keys {
        sketch.add(&key.name, key.dtype, &key.shape, key.allow_inequality);
    }
    sketch
}

/// Describes a difference for a member with these entries. `difference` is its own entries less the
/// others', and `others` is how the text names the other members.
#[must_use]
pub fn describe(keys: &[Key], difference: KeyDifference, others: &str) -> String {
    match difference {
        KeyDifference::Order => {
            format!("the entries here and on {others} are the same, but in a different order")
        }
        KeyDifference::Several(least) => {
            format!("at least {least} entries differ between this member and {others}")
        }
        KeyDifference::Entry { odd, others: more } => {
            let words = match keys.iter().find(|key| name_hash(&key.name) == odd.name) {
                Some(key) => describe_own(key, odd, others),
                None => one_sided(&odd.added(), others, "here"),
            };
            words + &and_more(more)
        }
    }
}

/// Describes a difference between two other members; `None` if it is unknown which has what.
#[must_use]
pub fn describe_strange(difference: KeyDifference, odd: &str, others: &str) -> Option<String> {
    let (entry, more) = match difference {
        KeyDifference::Order => {
            return Some(format!(
                "the entries on {odd} and on {others} are the same, but in a different order"
            ));
        }
        KeyDifference::Several(least) => {
            return Some(format!(
                "at least {least} entries differ between {odd} and {others}"
            ));
        }
        KeyDifference::Entry { odd, others } => (odd, others),
    };
    let is_told = |it: &Foreign| it.shape.is_some();
    let (added, lacked) = (entry.reversed().added(), entry.added());
    let words = match (is_told(&added), is_told(&lacked)) {
        (true, _) => one_sided(&added, odd, others),
        (_, true) => one_sided(&lacked, others, odd),
        _ => return None,
    };
    Some(words + &and_more(more))
}

/// Counts the entries that differ besides the named one.
fn and_more(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => "; at least one more entry differs".into(),
        more => format!("; at least {more} more entries differ"),
    }
}

fn describe_own(key: &Key, odd: OddEntry, others: &str) -> String {
    let kind = (key.dtype, &key.shape[..]);
    let flag = key.allow_inequality;
    let own = format!(
        "{:?} is {} of shape {:?}",
        key.name,
        key.dtype.name(),
        key.shape
    );
    let Some(theirs) = odd.others(&key.name, key.dtype, &key.shape, flag) else {
        return format!("{own} here, but is missing on {others}");
    };
    let unequal = |is_unequal| if is_unequal { "may" } else { "must not" };
    match &theirs.shape {
        Some((shape, other)) if *other != flag && (theirs.dtype, &shape[..]) == kind => format!(
            "the contents of {:?} {} differ between members here, but {} on {others}: \
             allow_inequality must be the same",
            key.name,
            unequal(flag),
            unequal(*other)
        ),
        _ => format!("{own} here, but {} on {others}", in_words(&theirs)),
    }
}

/// An entry that exists in one place and is missing in another. Places are "here" or members.
fn one_sided(entry: &Foreign, there: &str, missing: &str) -> String {
    let name = entry
        .name
        .as_ref()
        .map_or("an entry".into(), |name| format!("{name:?}"));
    let missing = match missing {
        "here" => "here".into(),
        members => format!("on {members}"),
    };
    format!(
        "{name} is {} on {there}, but is missing {missing}",
        in_words(entry)
    )
}

fn in_words(entry: &Foreign) -> String {
    let dtype = entry.dtype.name();
    match (&entry.shape, entry.count) {
        (Some((shape, _)), _) => format!("{dtype} of shape {shape:?}"),
        (None, 1) => format!("{dtype} of 1 element"),
        (None, count) => format!("{dtype} of {count} elements"),
    }
}
