//! Sums over the entries of a shared state, by which two members find the entry that they differ in
//! without a list of entries.
//!
//! An entry has a weight, a hash of its type and shape. In the cell of its name it adds the weight,
//! the weight times the hash of its name, that once more with a second hash, and its size, modulo a
//! prime. Where the entries of a cell differ under one name only, the differences of its sums are
//! those of that name, whose hash is the quotient of two of them.

use serde::{Deserialize, Serialize};

use crate::reduce::Dtype;

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
}

/// In what the entries of two members differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDifference {
    /// They are the same, in another order.
    Order,
    /// One of those entries that are not the same.
    Entry(OddEntry),
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
}

/// What is known of an entry that another member has: its type, and its number of elements.
pub type Size = (Dtype, u64);

impl KeySketch {
    /// Adds an entry.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[u64], is_unequal: bool) {
        let (name, weight) = (name_hash(name), weight(dtype, shape, is_unequal));
        let cell = &mut self.0[place(name)];
        cell.weights = plus(cell.weights, weight);
        cell.names = plus(cell.names, times(weight, name));
        cell.checks = plus(cell.checks, times(weight, check(name)));
        cell.sizes = plus(cell.sizes, size(dtype, shape));
    }

    /// What it differs from another in, if these entries tell: where several entries differ, one of
    /// them, or none.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<KeyDifference> {
        if self == other {
            return (*self != Self::default()).then_some(KeyDifference::Order);
        }
        let cells = self.0.iter().zip(&other.0).enumerate();
        let odd = cells.filter_map(|(index, (one, other))| {
            one.difference(other).filter(|odd| place(odd.name) == index)
        });
        odd.map(KeyDifference::Entry).next()
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
        })
    }
}

impl KeyDifference {
    /// The same, seen from the other member.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Order => Self::Order,
            Self::Entry(odd) => Self::Entry(odd.reversed()),
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
        }
    }

    /// What the other member has, if this one's entry is of this type and shape; `None`: it lacks
    /// the entry.
    #[must_use]
    pub fn others(&self, dtype: Dtype, shape: &[u64], is_unequal: bool) -> Option<Size> {
        if weight(dtype, shape, is_unequal) == self.weight % PRIME {
            return None;
        }
        Some(unpack(minus(size(dtype, shape), self.size)))
    }

    /// What the other member has where this one has nothing.
    #[must_use]
    pub fn added(&self) -> Size {
        unpack(minus(0, self.size))
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

fn unpack(size: u64) -> Size {
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
            Some(KeyDifference::Entry(odd)) => odd,
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
        let (_, dtype, shape) = &ours[700];
        assert_eq!(found.others(*dtype, shape, false), Some((Dtype::F64, 15)));
        let (_, dtype, shape) = &theirs[700];
        let seen = found.reversed().others(*dtype, shape, false);
        assert_eq!(seen, Some((Dtype::F32, 4900)));
    }

    #[test]
    fn an_entry_more_is_found_by_both() {
        let ours = layers(100);
        let theirs = &ours[1..];
        let found = odd(&ours, theirs);
        assert_eq!(found.name, name_hash("layer.0.weight"));
        assert_eq!(found.others(Dtype::F32, &[0, 7], false), None);
        assert_eq!(odd(theirs, &ours).added(), (Dtype::F32, 0));
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
                Cell { weights, names, checks, sizes }
            };
            let sketch = |sums: [[u64; 4]; CELLS]| KeySketch(sums.map(cell));
            if let Some(KeyDifference::Entry(odd)) = sketch(ours).difference(&sketch(theirs)) {
                let _anything = (odd.added(), odd.others(Dtype::F32, &[u64::MAX, 2], true));
            }
        }

        /// Of several that differ one is named, or none; never another.
        #[test]
        fn what_is_named_differs(changed in prop::collection::btree_set(0..200_usize, 1..30)) {
            let ours = layers(200);
            let mut theirs = ours.clone();
            changed.iter().for_each(|&index| theirs[index].2.push(2));
            if let Some(KeyDifference::Entry(odd)) = sketch(&ours).difference(&sketch(&theirs)) {
                prop_assert!(changed.iter().any(|&index| name_hash(&ours[index].0) == odd.name));
            } else {
                prop_assert!(changed.len() > 1);
            }
        }
    }
}
