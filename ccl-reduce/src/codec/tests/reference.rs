//! The encodings written plainly, block by block, from docs/numerics.md.

use super::*;

/// The bytes of `values`, the first of which starts block `first_block` of its buffer.
pub(super) fn encoded(
    encoding: Encoding,
    rounding: Rounding,
    first_block: u64,
    values: &[f32],
) -> Vec<u8> {
    let blocks = values.chunks(256).enumerate();
    let encoded = blocks.map(|(index, values)| {
        let numbered = values.iter().enumerate();
        let noise = numbered.map(|(at, _)| noise(rounding, first_block + index as u64, at));
        encoded_block(encoding, values, &noise.collect::<Option<Vec<u32>>>())
    });
    encoded.collect::<Vec<_>>().concat()
}

/// 16 random bits of an element, or `None` if values are rounded to nearest.
fn noise(rounding: Rounding, block: u64, at: usize) -> Option<u32> {
    let Rounding::Stochastic { seed, stream } = rounding else {
        return None;
    };
    let number = block * 32 + (at as u64 % 128) / 4;
    let counter = [
        number as u32,
        (number >> 32) as u32,
        stream as u32,
        (stream >> 32) as u32,
    ];
    let word = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32])[at % 4];
    Some(if at < 128 { word & 0xffff } else { word >> 16 })
}

fn encoded_block(encoding: Encoding, values: &[f32], noise: &Option<Vec<u32>>) -> Vec<u8> {
    let noise_at = |at: usize| noise.as_ref().map(|noise| noise[at]);
    let numbered = values.iter().enumerate();
    let top = values.iter().fold(0_f32, |top, value| top.max(value.abs()));
    match encoding {
        Encoding::F32 => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        Encoding::Bf16 => numbered
            .flat_map(|(at, value)| bf16_bits(*value, noise_at(at)).to_le_bytes())
            .collect(),
        Encoding::F16 => numbered
            .flat_map(|(at, value)| f16_bits(*value, noise_at(at)).to_le_bytes())
            .collect(),
        Encoding::Int8 => {
            let scale = (top / 127.0).min(f32::MAX / 128.0);
            let codes = numbered.map(|(at, value)| whole(*value, scale, noise_at(at), 127) as u8);
            scale.to_le_bytes().into_iter().chain(codes).collect()
        }
        Encoding::Int4 => {
            let scale = bf16_scale((top / 7.0).min(BF16_MAX / 8.0), noise.is_some());
            let codes = numbered.map(|(at, value)| whole(*value, scale, noise_at(at), 7));
            with_scale(&scale.to_le_bytes()[2..], 4, &codes.collect::<Vec<_>>())
        }
        Encoding::Int2 if noise.is_some() => {
            let scale = bf16_scale(top.min(BF16_MAX / 2.0), true);
            let codes = numbered.map(|(at, value)| whole(*value, scale, noise_at(at), 1));
            with_scale(&scale.to_le_bytes()[2..], 2, &codes.collect::<Vec<_>>())
        }
        Encoding::Int2 => ternary(values, top),
        Encoding::E3m0 => powers(values, top, noise),
    }
}

const BF16_MAX: f32 = f32::from_bits(0x7f7f_0000);

fn bf16_bits(value: f32, noise: Option<u32>) -> u16 {
    let Some(noise) = noise else {
        return bf16::from_f32(value.clamp(-BF16_MAX, BF16_MAX)).to_bits();
    };
    let (lower, rest) = (value.abs().to_bits() >> 16, value.abs().to_bits() & 0xffff);
    let magnitude = (lower + u32::from(rest + noise >= 0x1_0000)).min(0x7f7f) as u16;
    magnitude | u16::from(value.is_sign_negative()) << 15
}

fn f16_bits(value: f32, noise: Option<u32>) -> u16 {
    let Some(noise) = noise else {
        return f16::from_f32(value.clamp(-65_504.0, 65_504.0)).to_bits();
    };
    let size = value.abs();
    let magnitude = if size < 2_f32.powi(-14) {
        let units = size * 2_f32.powi(24);
        (units + noise as f32 / 65_536.0).floor() as u16
    } else if size >= 65_504.0 {
        0x7bff
    } else {
        let rest = size.to_bits() & 0x1fff;
        let lower = f16::from_f32(f32::from_bits(size.to_bits() - rest)).to_bits();
        lower + u16::from(rest + (noise >> 3) >= 0x2000)
    };
    magnitude.min(0x7bff) | u16::from(value.is_sign_negative()) << 15
}

fn whole(value: f32, scale: f32, noise: Option<u32>, limit: i32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    let exact = value / scale;
    let whole = match noise {
        None => exact.round_ties_even(),
        Some(noise) => (exact + noise as f32 / 65_536.0).floor(),
    };
    (whole as i32).clamp(-limit, limit) as i8
}

fn bf16_scale(scale: f32, is_up: bool) -> f32 {
    let nearest = bf16::from_f32(scale);
    let is_below = nearest.to_f32() < scale;
    if is_up && is_below {
        bf16::from_bits(nearest.to_bits() + 1).to_f32()
    } else {
        nearest.to_f32()
    }
}

fn ternary(values: &[f32], top: f32) -> Vec<u8> {
    let size = |value: &f32| {
        let share = if top == 0.0 { 0.0 } else { value.abs() / top };
        (share * 32_768.0).floor() as i64
    };
    let sent_above = |threshold: i64| {
        let sent = values.iter().map(size).filter(|size| *size > threshold);
        sent.fold((0, 0), |(sum, count), size| (sum + size, count + 1))
    };
    let mut best = (2048, sent_above(2048));
    for sixteenths in [2, 3, 4, 6, 8, 10, 12] {
        let (sum, count) = sent_above(sixteenths * 2048);
        let (best_sum, best_count) = best.1;
        if sum * sum * best_count > best_sum * best_sum * count {
            best = (sixteenths * 2048, (sum, count));
        }
    }
    let (threshold, (sum, count)) = best;
    let is_sent = |value: &f32| size(value) > threshold;
    let share = if count == 0 {
        0.0
    } else {
        sum as f32 / (count * 32_768) as f32
    };
    let scale = bf16_scale((top * share).min(BF16_MAX / 2.0), false);
    let code = |value: &f32| match () {
        () if scale == 0.0 || !is_sent(value) => 0,
        () if *value < 0.0 => -1,
        () => 1,
    };
    let codes: Vec<i8> = values.iter().map(code).collect();
    with_scale(&scale.to_le_bytes()[2..], 2, &codes)
}

/// The exponent of an f32 with its bias, at least 1, and the power of two with it.
fn power(exponent: i32) -> f64 {
    2_f64.powi(exponent - 127)
}

fn powers(values: &[f32], top: f32, noise: &Option<Vec<u32>>) -> Vec<u8> {
    let at_or_below = |size: f64| (1..=254).rev().find(|e| power(*e) <= size).unwrap_or(0);
    let nearest = |size: f64| {
        let below = at_or_below(size);
        let half = if below == 0 {
            power(1) / 2.0
        } else {
            power(below) * 1.5
        };
        (below + i32::from(size >= half)).min(254)
    };
    let top = f64::from(top);
    let top = match noise {
        None => nearest(top),
        Some(_) => {
            let below = at_or_below(top);
            let is_exact = top == 0.0 || below > 0 && top == power(below);
            (below + i32::from(!is_exact)).min(254)
        }
    };
    let least = (top - 6).max(1);
    let code = |(at, value): (usize, &f32)| {
        let size = f64::from(value.abs());
        let exponent = match noise {
            None => nearest(size),
            Some(noise) if size < power(least) => {
                let share = (size / power(least) * 65_536.0).floor() as u32;
                if noise[at] < share { least } else { 0 }
            }
            Some(noise) => {
                let below = at_or_below(size);
                let share = ((size / power(below) - 1.0) * 8_388_608.0) as u32;
                (below + i32::from(share + noise[at] * 128 >= 0x80_0000)).min(254)
            }
        };
        let level = if exponent < least {
            0
        } else {
            exponent - top + 7
        };
        let sign = if level > 0 && *value < 0.0 { 8 } else { 0 };
        level as i8 | sign
    };
    let codes: Vec<i8> = values.iter().enumerate().map(code).collect();
    with_scale(&[top as u8], 4, &codes)
}

/// The scale, and after it the codes, of `bits` bits.
fn with_scale(scale: &[u8], bits: usize, codes: &[i8]) -> Vec<u8> {
    let byte_count = (codes.len() * bits).div_ceil(8);
    let mut packed = vec![0; byte_count];
    for (at, code) in codes.iter().enumerate() {
        let code = *code as u8 & ((1 << bits) - 1);
        packed[at % byte_count] |= code << (at / byte_count * bits);
    }
    [scale, &packed].concat()
}

/// The values of well-formed bytes.
pub(super) fn decoded(encoding: Encoding, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = Vec::new();
    let mut rest = bytes;
    while values.len() < count {
        let block_count = (count - values.len()).min(256);
        let (block, after) = rest.split_at(encoding.encoded_bytes(block_count));
        values.extend((0..block_count).map(|at| decoded_one(encoding, block, block_count, at)));
        rest = after;
    }
    values
}

fn decoded_one(encoding: Encoding, block: &[u8], count: usize, at: usize) -> f32 {
    let f32_at = |at: usize| f32::from_le_bytes(block[at..at + 4].try_into().expect("four"));
    let u16_at = |at: usize| u16::from_le_bytes(block[at..at + 2].try_into().expect("two"));
    let code = |bits: usize, codes: &[u8]| {
        let byte_count = (count * bits).div_ceil(8);
        let code = codes[at % byte_count] >> (at / byte_count * bits) & ((1 << bits) - 1);
        let sign = 1 << (bits - 1);
        (code, i32::from(code & !sign) - i32::from(code & sign))
    };
    match encoding {
        Encoding::F32 => f32_at(4 * at),
        Encoding::Bf16 => bf16::from_bits(u16_at(2 * at)).to_f32(),
        Encoding::F16 => f16::from_bits(u16_at(2 * at)).to_f32(),
        Encoding::Int8 => f32::from(block[4 + at] as i8) * f32_at(0),
        Encoding::Int4 => code(4, &block[2..]).1 as f32 * bf16::from_bits(u16_at(0)).to_f32(),
        Encoding::Int2 => code(2, &block[2..]).1 as f32 * bf16::from_bits(u16_at(0)).to_f32(),
        Encoding::E3m0 => {
            let code = code(4, &block[1..]).0;
            let exponent = i32::from(block[0]) - 7 + i32::from(code & 7);
            match code & 7 {
                0 => 0.0,
                _ if exponent <= 0 => 0.0,
                _ if code & 8 == 0 => power(exponent) as f32,
                _ => -power(exponent) as f32,
            }
        }
    }
}
