//! Sums over the entries of a shared state. From two members' sums, the entry in which they differ
//! can be found without a list of entries.
//!
//! An entry has a weight, a hash of its type and shape. In the cell of its name it adds the weight,
//! the weight times the hash of its name, the weight times a second hash of it, and its size,
//! modulo a prime. If the entries of a cell differ under one name only, the differences of its sums
//! belong to that name, and its hash is the quotient of two of them. Each entry also adds its
//! description (`entry`), so that a member that lacks the entry learns its name and shape.

use serde::{Deserialize, Serialize};

use crate::reduce::Dtype;
use crate::wire::entry::Description;

/// The sums of one member's entries.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct KeySketch([Cell; CELLS]);

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
struct Cell {
    weights: u64,
    names: u64,
    checks: u64,
    sizes: u64,
    descriptions: Description,
}

/// In what the entries of two members differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDifference {
    /// They are the same, in another order.
    Order,
    /// One of those entries that are not the same.
    Entry {
        /// The entry.
        odd: OddEntry,
        /// How many others differ, at least.
        others: u32,
    },
    /// At least this many, none of which can be named.
    Several(u32),
}

/// An entry that two members have differently, or that one of them lacks. Sums are the one's less
/// the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OddEntry {
    /// The hash of its name.
    pub name: u64,
    /// What the weights differ by.
    pub weight: u64,
    /// What the sizes differ by.
    pub size: u64,
    /// What the descriptions differ by.
    pub description: Description,
}

/// What is known of an entry that another member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name, if known; of a long name an ellipsis and the end.
    pub name: Option<String>,
    /// Element type.
    pub dtype: Dtype,
    /// Its number of elements.
    pub count: u64,
    /// Its extents and whether its content may differ, if they were told.
    pub shape: Option<(Vec<u64>, bool)>,
}

impl KeySketch {
    /// Adds an entry to the sums.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[u64], is_unequal: bool) {
        let description = Description::of(name, dtype, shape, is_unequal);
        let (name, weight) = (name_hash(name), weight(dtype, shape, is_unequal));
        let cell = &mut self.0[place(name)];
        cell.weights = plus(cell.weights, weight);
        cell.names = plus(cell.names, times(weight, name));
        cell.checks = plus(cell.checks, times(weight, check(name)));
        cell.sizes = plus(cell.sizes, size(dtype, shape));
        cell.descriptions = cell.descriptions.with(description);
    }

    /// What it differs from another in; `None` if nothing is known of both. Where several entries
    /// differ, one of them is named, if it is alone in its cell.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<KeyDifference> {
        if self == other {
            return (*self != Self::default()).then_some(KeyDifference::Order);
        }
        let cells = self.0.iter().zip(&other.0).enumerate();
        let differ = cells.filter(|(_, (one, other))| one != other);
        let found = differ.map(|(index, (one, other))| {
            one.difference(other).filter(|odd| place(odd.name) == index)
        });
        let found: Vec<Option<OddEntry>> = found.collect();
        // Where no single entry accounts for a cell there are two or more.
        let least: u32 = found
            .iter()
            .map(|odd| if odd.is_some() { 1 } else { 2 })
            .sum();
        Some(match found.into_iter().flatten().next() {
            Some(odd) => KeyDifference::Entry {
                odd,
                others: least - 1,
            },
            None => KeyDifference::Several(least),
        })
    }
}

impl Cell {
    fn difference(&self, other: &Self) -> Option<OddEntry> {
        let weight = minus(self.weights, other.weights);
        let name = times(minus(self.names, other.names), inverse(weight));
        let is_one = times(weight, check(name)) == minus(self.checks, other.checks);
        (weight != 0 && is_one).then(|| OddEntry {
            name,
            weight,
            size: minus(self.sizes, other.sizes),
            description: self.descriptions.with(other.descriptions),
        })
    }
}

impl KeyDifference {
    /// The same, seen from the other member.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Entry { odd, others } => Self::Entry {
                odd: odd.reversed(),
                others,
            },
            same => same,
        }
    }
}

impl OddEntry {
    /// The same, seen from the other member.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            name: self.name,
            weight: minus(0, self.weight),
            size: minus(0, self.size),
            description: self.description,
        }
    }

    /// What the other member has, if this one's entry is this; `None`: it lacks the entry.
    #[must_use]
    pub fn others(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        is_unequal: bool,
    ) -> Option<Foreign> {
        let own = weight(dtype, shape, is_unequal);
        if own == self.weight % PRIME {
            return None;
        }
        let description = Description::of(name, dtype, shape, is_unequal);
        let size = minus(size(dtype, shape), self.size);
        Some(self.foreign(
            self.description.with(description),
            minus(own, self.weight),
            size,
        ))
    }

    /// What the other member has where this one has nothing.
    #[must_use]
    pub fn added(&self) -> Foreign {
        self.foreign(self.description, minus(0, self.weight), minus(0, self.size))
    }

    /// A description counts only if it is that of these sums.
    fn foreign(&self, description: Description, own: u64, size: u64) -> Foreign {
        let read = description.read().filter(|it| {
            let is_name = it.is_cut || name_hash(&it.name) == self.name;
            is_name && weight(it.dtype, &it.shape, it.is_unequal) == own
        });
        let (dtype, count) = unpack(size);
        let Some(read) = read else {
            return Foreign {
                name: None,
                dtype,
                count,
                shape: None,
            };
        };
        let cut = if read.is_cut { "…" } else { "" };
        Foreign {
            name: Some(format!("{cut}{}", read.name)),
            dtype: read.dtype,
            count,
            shape: Some((read.shape, read.is_unequal)),
        }
    }
}

/// The hash of an entry's name.
#[must_use]
pub fn name_hash(name: &str) -> u64 {
    hash(name.bytes()) % PRIME
}

fn place(name: u64) -> usize {
    (name % CELLS as u64) as usize
}

fn check(name: u64) -> u64 {
    hash(name.to_le_bytes().into_iter()) % PRIME
}

/// Never 0: each entry counts.
fn weight(dtype: Dtype, shape: &[u64], is_unequal: bool) -> u64 {
    let extents = shape.iter().flat_map(|extent| extent.to_le_bytes());
    let kind = [dtype as u8, u8::from(is_unequal)];
    1 + hash(kind.into_iter().chain(extents)) % (PRIME - 1)
}

fn size(dtype: Dtype, shape: &[u64]) -> u64 {
    let count = shape
        .iter()
        .fold(1_u64, |count, &it| count.saturating_mul(it));
    count.min(ELEMENTS_MAX) * TYPES + dtype as u64
}

fn unpack(size: u64) -> (Dtype, u64) {
    let index = usize::try_from(size % TYPES).unwrap_or(usize::MAX);
    let dtype = Dtype::ALL.get(index).copied().unwrap_or(Dtype::U8);
    (dtype, size / TYPES)
}

/// FNV-1a, with its bits mixed.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn plus(one: u64, other: u64) -> u64 {
    (one % PRIME + other % PRIME) % PRIME
}

fn minus(one: u64, other: u64) -> u64 {
    plus(one, PRIME - other % PRIME)
}

fn times(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other) % u128::from(PRIME);
    u64::try_from(product).expect("below the prime")
}

/// By Fermat: the power to the prime less 2.
fn inverse(number: u64) -> u64 {
    let (mut power, mut result) = (number, 1);
    for bit in 0..u64::BITS {
        if (PRIME - 2) >> bit & 1 == 1 {
            result = times(result, power);
        }
        power = times(power, power);
    }
    result
}

/// A Mersenne prime: two numbers below it can be added without overflow.
const PRIME: u64 = (1 << 61) - 1;
/// Names that differ fall into cells by their hash; each cell tells of one.
const CELLS: usize = 8;
/// A size is a number of elements times this, and the number of a type.
const TYPES: u64 = 16;
/// So that sizes stay below the prime.
const ELEMENTS_MAX: u64 = (1 << 56) - 1;

const _: () = assert!(ELEMENTS_MAX * TYPES + TYPES < PRIME);
const _: () = assert!(Dtype::ALL.len() <= TYPES as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entry = (String, Dtype, Vec<u64>);

    fn sketch(entries: &[Entry]) -> KeySketch {
        let mut sketch = KeySketch::default();
        for (name, dtype, shape) in entries {
            sketch.add(name, *dtype, shape, false);
        }
        sketch
    }

    fn layers(count: usize) -> Vec<Entry> {
        let name = |index| format!("layer.{index}.weight");
        (0..count)
            .map(|index| (name(index), Dtype::F32, vec![index as u64, 7]))
            .collect()
    }

    fn odd(one: &[Entry], other: &[Entry]) -> OddEntry {
        match sketch(one).difference(&sketch(other)) {
            Some(KeyDifference::Entry { odd, .. }) => odd,
            difference => panic!("{difference:?}"),
        }
    }

    #[test]
    fn a_changed_entry_is_found_with_the_others_type_and_size() {
        let ours = layers(1000);
        let mut theirs = ours.clone();
        theirs[700].1 = Dtype::F64;
        theirs[700].2 = vec![3, 5];
        let found = odd(&ours, &theirs);
        assert_eq!(found.name, name_hash("layer.700.weight"));
        let other = |(name, dtype, shape): &Entry, found: OddEntry| {
            let other = found.others(name, *dtype, shape, false).unwrap();
            (other.dtype, other.count, other.shape)
        };
        let seen = other(&ours[700], found);
        assert_eq!(seen, (Dtype::F64, 15, Some((vec![3, 5], false))));
        let seen = other(&theirs[700], found.reversed());
        assert_eq!(seen, (Dtype::F32, 4900, Some((vec![700, 7], false))));
    }

    #[test]
    fn an_entry_more_is_found_by_both() {
        let ours = layers(100);
        let theirs = &ours[1..];
        let found = odd(&ours, theirs);
        assert_eq!(found.name, name_hash("layer.0.weight"));
        let name = "layer.0.weight";
        assert_eq!(found.others(name, Dtype::F32, &[0, 7], false), None);
        let added = Foreign {
            name: Some(name.into()),
            dtype: Dtype::F32,
            count: 0,
            shape: Some((vec![0, 7], false)),
        };
        assert_eq!(odd(theirs, &ours).added(), added);
    }

    #[test]
    fn another_order_is_told_from_nothing_known() {
        let ours = layers(3);
        let mut theirs = ours.clone();
        theirs.reverse();
        let order = Some(KeyDifference::Order);
        assert_eq!(sketch(&ours).difference(&sketch(&theirs)), order);
        let none = KeySketch::default();
        assert_eq!(none.difference(&none), None);
    }

    proptest! {
        /// A stranger's sums, whatever they are, name nothing that is not in them.
        #[test]
        fn any_sums_have_a_difference(ours: [[u64; 4]; CELLS], theirs: [[u64; 4]; CELLS]) {
            let cell = |[weights, names, checks, sizes]: [u64; 4]| {
                let descriptions = Description::of("w", Dtype::F32, &[checks], false);
                Cell { weights, names, checks, sizes, descriptions }
            };
            let sketch = |sums: [[u64; 4]; CELLS]| KeySketch(sums.map(cell));
            let difference = sketch(ours).difference(&sketch(theirs));
            if let Some(KeyDifference::Entry { odd, .. }) = difference {
                let shape: &[u64] = &[u64::MAX, 2];
                let others = odd.others("w", Dtype::F32, shape, true);
                let known = others.iter().chain([&odd.added()]).any(|it| it.shape.is_some());
                prop_assert!(!known, "made up, and believed");
            }
        }

        /// Of several that differ one is named, or none; never another, nor more than are.
        #[test]
        fn what_is_named_differs(changed in prop::collection::btree_set(0..200_usize, 1..30)) {
            let ours = layers(200);
            let mut theirs = ours.clone();
            changed.iter().for_each(|&index| theirs[index].2.push(2));
            let least = match sketch(&ours).difference(&sketch(&theirs)) {
                Some(KeyDifference::Entry { odd, others }) => {
                    let mut names = changed.iter().map(|&index| name_hash(&ours[index].0));
                    prop_assert!(names.any(|name| name == odd.name));
                    1 + others
                }
                Some(KeyDifference::Several(least)) => least,
                difference => panic!("{difference:?}"),
            };
            prop_assert!(least as usize <= changed.len());
            prop_assert!(least > 1 || changed.len() == 1);
        }
    }
}
