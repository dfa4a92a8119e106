//! The entry in which a member's state differs from the others', in words.

use super::layout::Key;
use crate::wire::state::{KeyDifference, KeySketch, OddEntry, Size, name_hash};

/// The sums of all entries, for an offer.
#[must_use]
pub fn sketch(keys: &[Key]) -> KeySketch {
    let mut sketch = KeySketch::default();
    for key in keys {
        sketch.add(&key.name, key.dtype, &key.shape, key.allow_inequality);
    }
    sketch
}

/// What a member with these entries can say of a difference, which is its own less the others'.
/// `others` is what they are called.
#[must_use]
pub fn describe(keys: &[Key], difference: KeyDifference, others: &str) -> String {
    let odd = match difference {
        KeyDifference::Order => {
            return format!("the entries here and at {others} are the same, in another order");
        }
        KeyDifference::Entry(odd) => odd,
    };
    match keys.iter().find(|key| name_hash(&key.name) == odd.name) {
        Some(key) => describe_own(key, odd, others),
        None => {
            let size = in_words(odd.added());
            format!("{others} has an entry that is not here, of {size}")
        }
    }
}

fn describe_own(key: &Key, odd: OddEntry, others: &str) -> String {
    let Key {
        name, dtype, shape, ..
    } = key;
    let own = format!("{name:?} is {} of shape {shape:?} here", dtype.name());
    match odd.others(*dtype, shape, key.allow_inequality) {
        None => format!("{own}, and not at {others}"),
        Some(size) => format!("{own}, and {} at {others}", in_words(size)),
    }
}

fn in_words((dtype, count): Size) -> String {
    let noun = if count == 1 { "element" } else { "elements" };
    format!("{count} {noun} of {}", dtype.name())
}
