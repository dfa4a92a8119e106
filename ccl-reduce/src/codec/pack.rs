//! Codes of 4 and 2 bits in bytes.
//!
//! Byte j of n elements holds elements j, h + j and so on, lowest bits first, where h is the number
//! of bytes: a vector of bytes is unpacked without a shuffle.

use super::BLOCK_ELEMENTS;

/// One code a byte; the bits above are zero when unpacked, and ignored when packed.
pub(super) type Codes = [u8; BLOCK_ELEMENTS];

/// Packs `count` codes into all of `out`. The codes after them are zero.
#[inline(always)]
pub(super) fn pack<const BITS: usize>(codes: &Codes, count: usize, out: &mut [u8]) {
    if count == BLOCK_ELEMENTS {
        pack_parts::<BITS>(codes, BLOCK_ELEMENTS * BITS / 8, out);
    } else {
        pack_parts::<BITS>(codes, (count * BITS).div_ceil(8), out);
    }
}

#[inline(always)]
fn pack_parts<const BITS: usize>(codes: &Codes, bytes: usize, out: &mut [u8]) {
    let out = &mut out[..bytes];
    let mask = (1 << BITS) - 1;
    for (part, codes) in codes.chunks(bytes).take(8 / BITS).enumerate() {
        for (byte, code) in out.iter_mut().zip(codes) {
            let kept = if part == 0 { 0 } else { *byte };
            *byte = kept | (code & mask) << (part * BITS);
        }
    }
}

/// The reverse. Unused bits give codes after the first `count`.
#[inline(always)]
pub(super) fn unpack<const BITS: usize>(encoded: &[u8], count: usize, codes: &mut Codes) {
    if count == BLOCK_ELEMENTS {
        unpack_parts::<BITS>(&encoded[..BLOCK_ELEMENTS * BITS / 8], codes);
    } else {
        unpack_parts::<BITS>(encoded, codes);
    }
}

#[inline(always)]
fn unpack_parts<const BITS: usize>(encoded: &[u8], codes: &mut Codes) {
    let mask = (1 << BITS) - 1;
    let parts = codes.chunks_mut(encoded.len()).take(8 / BITS);
    for (part, codes) in parts.enumerate() {
        for (code, byte) in codes.iter_mut().zip(encoded) {
            *code = byte >> (part * BITS) & mask;
        }
    }
}

/// Whether unused bits of a short block are zero.
#[inline(always)]
pub(super) fn is_padded_with_zeros<const BITS: usize>(encoded: &[u8], count: usize) -> bool {
    let mut codes = [0; BLOCK_ELEMENTS];
    unpack::<BITS>(encoded, count, &mut codes);
    codes[count..].iter().all(|code| *code == 0)
}
