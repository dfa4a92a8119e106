//! A compact description of one entry of a shared state. Descriptions are added by exclusive or: if
//! two sums differ in one entry, their difference is that entry's description.
//!
//! A description is not trusted: `sketch` compares it with the sums it knows.

use serde::{Deserialize, Serialize};

use crate::reduce::Dtype;

/// What is known of an entry: all but, if it is long, the beginning of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Element type.
    pub dtype: Dtype,
    /// Shape: the extent of each dimension.
    pub shape: Vec<u64>,
    /// Whether its content may differ between members.
    pub is_unequal: bool,
    /// The end of its name.
    pub name: String,
    /// Whether its name is longer.
    pub is_cut: bool,
}

/// Descriptions of any number of entries, added up.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Description([u64; WORDS]);

impl Description {
    /// Of one entry; empty if it has more extents than there is room for.
    pub fn of(name: &str, dtype: Dtype, shape: &[u64], is_unequal: bool) -> Self {
        let mut bytes = vec![dtype as u8, u8::from(is_unequal)];
        bytes.push(u8::try_from(shape.len()).unwrap_or(u8::MAX));
        for &extent in shape {
            put_number(&mut bytes, extent);
        }
        if bytes.len() > SHAPE_BYTES_MAX {
            return Self::default();
        }
        let room = BYTES - bytes.len() - 2;
        let start = name.len().saturating_sub(room);
        let start = (start..=name.len()).find(|&at| name.is_char_boundary(at));
        let tail = &name[start.unwrap_or_default()..];
        bytes.push(u8::from(tail.len() < name.len()));
        bytes.push(u8::try_from(tail.len()).expect("there is room for less"));
        bytes.extend(tail.bytes());
        bytes.resize(BYTES, 0);
        let mut words = bytes.chunks_exact(8);
        Self([(); WORDS].map(|()| {
            let word = words.next().and_then(|word| word.first_chunk());
            u64::from_le_bytes(*word.expect("there are as many words"))
        }))
    }

    /// The sum of two, which is also their difference.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let mut others = other.0.into_iter();
        Self(
            self.0
                .map(|word| word ^ others.next().expect("both are as long")),
        )
    }

    /// The entry, if it is the description of one.
    pub fn read(self) -> Option<Described> {
        let bytes: Vec<u8> = self.0.into_iter().flat_map(u64::to_le_bytes).collect();
        let [dtype, is_unequal @ 0..=1, rank, tail @ ..] = &bytes[..] else {
            return None;
        };
        let dtype = Dtype::ALL.into_iter().find(|it| *it as u8 == *dtype)?;
        let (mut shape, mut left) = (Vec::new(), tail);
        for _ in 0..*rank {
            shape.push(take_number(&mut left)?);
        }
        let [is_cut @ 0..=1, length, rest @ ..] = left else {
            return None;
        };
        let (name, padding) = rest.split_at_checked(usize::from(*length))?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        padding.iter().all(|byte| *byte == 0).then_some(Described {
            dtype,
            shape,
            is_unequal: *is_unequal == 1,
            name,
            is_cut: *is_cut == 1,
        })
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Room for a usual shape and a name of eighty bytes, in each of eight cells.
const WORDS: usize = 12;
const BYTES: usize = WORDS * 8;
/// Longest type and shape: half of it is left for a name.
const SHAPE_BYTES_MAX: usize = BYTES / 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_keeps_its_end_and_a_shape_without_room_nothing() {
        let name = "ä".repeat(200);
        let read = Description::of(&name, Dtype::F32, &[], false)
            .read()
            .unwrap();
        assert!(read.is_cut && read.name.len() > 80 && name.ends_with(&read.name));
        let none = Description::of("w", Dtype::F32, &[u64::MAX; 5], false);
        assert_eq!(none, Description::default());
        assert!(
            Description::of("w", Dtype::F32, &[u64::MAX; 4], false)
                .read()
                .is_some()
        );
    }

    proptest! {
        #[test]
        fn an_entry_is_what_is_left_of_two_sums(
            name in "\\PC{0,20}",
            shape in prop::collection::vec(any::<u64>(), 0..4),
            others in prop::collection::vec("[a-z]{1,30}", 0..5),
            is_unequal: bool,
        ) {
            let others = others.iter().map(|it| Description::of(it, Dtype::I8, &[7], false));
            let sum = others.fold(Description::default(), Description::with);
            let one = Description::of(&name, Dtype::F64, &shape, is_unequal);
            let read = sum.with(one).with(sum).read().unwrap();
            let is_cut = false;
            prop_assert_eq!(read, Described { dtype: Dtype::F64, shape, is_unequal, name, is_cut });
        }

        #[test]
        fn any_words_are_read_or_refused(words: [u64; WORDS]) {
            // Any words must be read or refused without a panic.
            let _ = Description(words).read();
        }
    }
}
