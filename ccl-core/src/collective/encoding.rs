//! How the elements of a segment become bytes on the wire, and back.
//!
//! Frames, slots, credits and byte counts are in wire bytes; kernels and callers see elements.
//! Where the two are the same, nothing is encoded: frames are sent from the caller's memory and
//! received into the result. Eager data, and data that is copied but not combined, travels as it is
//! in memory, whatever the operation's encoding.
//!
//! All members must encode alike, so the choice depends only on what their fingerprints share
//! (R12), and the length only on element type and count. The owner of a finished segment decodes
//! what it sends, so that its bits are those of all others.

use crate::reduce::Dtype;
use crate::wire::control::Fingerprint;

/// A form of elements on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The wire form is the memory form.
    #[default]
    Raw,
    /// The upper half of an f32, other types as in memory. Callers cannot choose it; it keeps the
    /// code paths of encoded operations tested.
    #[cfg(test)]
    Halved,
}

/// The caller's name of operations that are `Encoding::Halved`.
#[cfg(test)]
pub const HALVED: &str = "halved";

impl Encoding {
    /// How an operation's elements travel.
    #[must_use]
    pub fn of(called: &Fingerprint) -> Self {
        match called.caller.as_str() {
            #[cfg(test)]
            HALVED => Self::Halved,
            _ => Self::Raw,
        }
    }

    /// Whether the bytes on the wire are those in memory.
    #[must_use]
    pub fn is_raw(self) -> bool {
        match self {
            Self::Raw => true,
            #[cfg(test)]
            Self::Halved => false,
        }
    }

    /// Bytes of so many elements on the wire: never more than in memory, for slots and frames are
    /// bounded by that.
    #[must_use]
    pub fn wire_bytes(self, dtype: Dtype, count: usize) -> usize {
        let bytes = count * dtype.bytes();
        let wire_bytes = match self {
            Self::Raw => bytes,
            #[cfg(test)]
            Self::Halved if dtype == Dtype::F32 => bytes / 2,
            #[cfg(test)]
            Self::Halved => bytes,
        };
        assert!(wire_bytes <= bytes, "an encoding makes nothing longer");
        wire_bytes
    }

    /// Turns the elements of a segment into their wire form.
    ///
    /// # Panics
    /// If `wire` is not as long as `wire_bytes` says.
    pub fn encode(self, dtype: Dtype, elements: &[u8], wire: &mut [u8]) {
        self.check(dtype, elements, wire);
        match self {
            Self::Raw => wire.copy_from_slice(elements),
            #[cfg(test)]
            Self::Halved if dtype == Dtype::F32 => {
                for (half, element) in wire.chunks_exact_mut(2).zip(elements.chunks_exact(4)) {
                    half.copy_from_slice(&element[2..]);
                }
            }
            #[cfg(test)]
            Self::Halved => wire.copy_from_slice(elements),
        }
    }

    /// Turns the wire form of a segment into its elements. Any bytes are the wire form of
    /// something: they come from outside.
    ///
    /// # Panics
    /// If `wire` is not as long as `wire_bytes` says.
    pub fn decode(self, dtype: Dtype, wire: &[u8], elements: &mut [u8]) {
        self.check(dtype, elements, wire);
        match self {
            Self::Raw => elements.copy_from_slice(wire),
            #[cfg(test)]
            Self::Halved if dtype == Dtype::F32 => {
                for (element, half) in elements.chunks_exact_mut(4).zip(wire.chunks_exact(2)) {
                    element[..2].fill(0);
                    element[2..].copy_from_slice(half);
                }
            }
            #[cfg(test)]
            Self::Halved => elements.copy_from_slice(wire),
        }
    }

    fn check(self, dtype: Dtype, elements: &[u8], wire: &[u8]) {
        let count = elements.len() / dtype.bytes();
        let wire_bytes = self.wire_bytes(dtype, count);
        assert_eq!(wire.len(), wire_bytes, "both sides count the same bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_elements_travel_as_they_are() {
        for dtype in Dtype::ALL {
            let elements: Vec<u8> = (0..3 * dtype.bytes() as u8).collect();
            let bytes = Encoding::Raw.wire_bytes(dtype, 3);
            let (mut wire, mut back) = (vec![0; bytes], vec![0; elements.len()]);
            Encoding::Raw.encode(dtype, &elements, &mut wire);
            assert_eq!(wire, elements);
            Encoding::Raw.decode(dtype, &wire, &mut back);
            assert_eq!(back, elements);
        }
    }
}
