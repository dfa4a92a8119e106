//! Lists with a limit, enforced while they are decoded.
//!
//! A few bytes on the wire can stand for hundreds in memory, so the length of a frame alone is no
//! limit. What limits mean for a message is checked by `wire::validate`, not here.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::ids::Members;
use crate::limits::WORLD_SIZE_MAX;

/// Decodes a list, but keeps at most one element more than `MAX`.
///
/// The one too many lets `validate` name the list that is too long; what follows it is decoded and
/// dropped, since the end of the list must be found.
///
/// # Errors
/// Those of the decoder.
pub fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
}

/// The same for the members of an operation.
///
/// # Errors
/// Those of the decoder.
pub fn members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
    list::<_, _, WORLD_SIZE_MAX>(deserializer).map(Members::from)
}

/// The same for a list that has one element a member and is shared.
///
/// # Errors
/// Those of the decoder.
pub fn shared<'de, D, T>(deserializer: D) -> Result<Arc<[T]>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list::<_, _, WORLD_SIZE_MAX>(deserializer).map(Arc::from)
}

/// Encodes such a list.
///
/// # Errors
/// Those of the encoder.
pub fn write_shared<S: Serializer, T: Serialize>(
    list: &Arc<[T]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter())
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if kept.len() <= MAX {
                kept.push(element);
            }
        }
        Ok(kept)
    }
}
