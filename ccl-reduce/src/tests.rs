//! What the tests of several kernels share: inputs from a seed, levels, digests.

use crate::{Dtype, Level};

/// Difficult bits: zeros, subnormals, extremes, infinities, NaNs of both signs.
pub(crate) fn awkward_bits(dtype: Dtype) -> Vec<u64> {
    let (bits, infinity) = match dtype {
        Dtype::F16 => (16, 0x7c00),
        Dtype::Bf16 => (16, 0x7f80),
        Dtype::F32 => (32, 0x7f80_0000),
        Dtype::F64 => (64, 0x7ff0_0000_0000_0000),
        _ => (dtype.bytes() * 8, 0),
    };
    let sign = 1_u64 << (bits - 1);
    let mut found = vec![
        0,
        1,
        2,
        3,
        sign - 1,
        sign - 2,
        infinity,
        infinity + 1,
        infinity / 2,
    ];
    if infinity > 0 {
        let least_normal = infinity & infinity.wrapping_neg();
        found.extend([
            infinity - 1,
            least_normal,
            least_normal - 1,
            infinity | infinity >> 1,
        ]);
    }
    let negative: Vec<u64> = found.iter().map(|value| value | sign).collect();
    found.extend(negative);
    found
}

/// `count` elements from a seed; every `awkward_every`-th from the awkward ones.
pub(crate) fn elements(dtype: Dtype, count: usize, seed: u64, awkward_every: u64) -> Vec<u8> {
    let awkward = awkward_bits(dtype);
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut bytes = Vec::new();
    for _ in 0..count {
        let word = match next() % awkward_every {
            0 => awkward[(next() % awkward.len() as u64) as usize],
            _ => next(),
        };
        bytes.extend_from_slice(&word.to_le_bytes()[..dtype.bytes()]);
    }
    bytes
}

/// `count` finite f32, their absolute values below 2^60; every `awkward_every`-th is a zero or
/// subnormal.
pub(crate) fn weights(count: usize, seed: u64, awkward_every: u64) -> Vec<f32> {
    let bytes = elements(Dtype::F32, count, seed, awkward_every);
    let cells = bytes.as_chunks().0.iter();
    cells
        .map(|cell| {
            let bits = u32::from_le_bytes(*cell);
            let exponent = (bits >> 23 & 0xff) % 187;
            f32::from_bits(bits & 0x807f_ffff | exponent << 23)
        })
        .collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

pub(crate) fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_available())
}

/// FNV-1a.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

pub(crate) fn digest_of(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    digest(&bytes.collect::<Vec<_>>())
}
