//! How far encoded sums are from exact ones.

use super::*;

/// Standard normal numbers, by Box and Muller.
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let stream = crate::philox::Stream {
        key: seed,
        high: [1, 2],
    };
    let one = |index: u64| {
        let [a, b, ..] = stream.block(index);
        let unit = |word: u32| (f64::from(word) + 0.5) / f64::from(u32::MAX);
        let length = (-2.0 * unit(a).ln()).sqrt();
        (length * (unit(b) * std::f64::consts::TAU).cos()) as f32
    };
    (0..count as u64).map(one).collect()
}

struct MeanError {
    /// L2 norm of the error over that of the exact mean.
    relative: f64,
    /// Mean of the error over the standard deviation of the exact mean.
    bias: f64,
}

/// Each of `world` members encodes once; the owner adds in f32 in their order, divides, and encodes
/// the mean once more.
fn mean_error(encoding: Encoding, rounding: Rounding, world: usize) -> MeanError {
    let count = 1 << 14;
    let (mut exact, mut sum) = (vec![0.0; count], vec![0; count * 4]);
    for member in 0..world {
        let values = normal(count, member as u64);
        let pairs = exact.iter_mut().zip(&values);
        pairs.for_each(|(sum, value)| *sum += f64::from(*value) / world as f64);
        let rounding = of_member(rounding, member as u64);
        let encoded = encode(encoding, &values, rounding);
        let done = encoding.decode_add(&encoded, 1.0, &mut sum);
        done.expect("just encoded");
    }
    let sums = sum
        .as_chunks()
        .0
        .iter()
        .map(|cell| f32::from_ne_bytes(*cell));
    let means: Vec<f32> = sums.map(|sum| sum / world as f32).collect();
    let sent = encode(encoding, &means, of_member(rounding, world as u64));
    let found = decode(encoding, &sent, count);
    let errors = found
        .iter()
        .zip(&exact)
        .map(|(found, exact)| f64::from(*found) - exact);
    let norm: f64 = exact.iter().map(|exact| exact * exact).sum::<f64>().sqrt();
    MeanError {
        relative: errors
            .clone()
            .map(|error| error * error)
            .sum::<f64>()
            .sqrt()
            / norm,
        bias: errors.sum::<f64>() / count as f64 / (norm / (count as f64).sqrt()),
    }
}

fn of_member(rounding: Rounding, member: u64) -> Rounding {
    match rounding {
        Rounding::Nearest => Rounding::Nearest,
        Rounding::Stochastic { seed, .. } => Rounding::Stochastic {
            seed,
            stream: member,
        },
    }
}

/// Requantised at every hop of a ring, the error at 32 members would be 2.8 % and 64 %; truncated,
/// the bias would be near -0.02.
#[test]
fn the_mean_of_32_members_is_off_by_no_more_than_one_encoding() {
    let limits = [
        (Encoding::F32, 1e-6),
        (Encoding::Bf16, 0.003),
        (Encoding::F16, 0.0004),
        (Encoding::Int8, 0.012),
        (Encoding::E3m0, 0.30),
        (Encoding::Int4, 0.19),
        (Encoding::Int2, 0.60),
    ];
    for (encoding, limit) in limits {
        let MeanError { relative, bias } = mean_error(encoding, Rounding::Nearest, 32);
        assert!(relative <= limit, "{encoding:?}: {relative}");
        assert!(bias.abs() < 0.005, "{encoding:?}: bias {bias}");
    }
}

/// The mean of many roundings of one number is that number.
#[test]
fn stochastic_rounding_balances() {
    for encoding in Encoding::ALL {
        for value in [0.3_f32, 0.011, -0.7, 1.0, 3e-6] {
            let mut given = vec![value; 1 << 14];
            given.chunks_mut(256).for_each(|block| block[0] = 1.0);
            let encoded = encode(encoding, &given, ROUNDINGS[1]);
            let found = decode(encoding, &encoded, given.len());
            let rest = found
                .iter()
                .enumerate()
                .filter(|(index, _)| index % 256 != 0);
            let (sum, count) = rest.fold((0.0, 0), |(sum, count), (_, value)| {
                (sum + f64::from(*value), count + 1)
            });
            let mean = sum / f64::from(count);
            let error = (mean - f64::from(value)).abs();
            // Six deviations of a mean of numbers that differ by at most 1 from the lower one.
            let step = f64::from(value.abs()).sqrt().min(0.5) * 6.0 / f64::from(count).sqrt();
            assert!(error <= step, "{encoding:?} {value}: {mean}");
        }
    }
}

/// What one call loses, a later one sends: over many calls nothing is lost.
#[test]
fn error_feedback_sends_in_the_end_what_was_given() {
    for encoding in Encoding::ALL {
        let given = normal(1000, 5);
        let bytes = elements_of(Dtype::F32, &given).0;
        let (mut residual, mut sum) = (vec![0.0; 1000], vec![0; 4000]);
        let calls = 256;
        for _ in 0..calls {
            let mut out = vec![0; encoding.encoded_bytes(1000)];
            let input = Input {
                residual: Some(&mut residual),
                ..input(Dtype::F32, &bytes, Rounding::Nearest)
            };
            encoding.encode(input, &mut out).expect("finite");
            let done = encoding.decode_add(&out, 1.0, &mut sum);
            done.expect("just encoded");
        }
        let sums = sum
            .as_chunks()
            .0
            .iter()
            .map(|cell| f32::from_ne_bytes(*cell));
        for ((sum, value), residual) in sums.zip(&given).zip(&residual) {
            let error = value * calls as f32 - sum;
            assert!(
                (error - residual).abs() < 0.01,
                "{encoding:?} {error} {residual}"
            );
            assert!(residual.abs() < 16.0, "{encoding:?} {residual}");
        }
    }
}
