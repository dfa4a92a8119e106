//! How fast codecs, perturbations and updates are, compared with how fast the same f32 are copied.
//!
//! One thread; kernel and copy run back to back, so that a slow phase of the machine affects both.
//! The copy reads as much as a kernel does, and writes as much as one that writes f32.

use std::process::ExitCode;

use ccl_core::reduce::codec::{BLOCK_ELEMENTS, Encoding, Input, Rounding};
use ccl_core::reduce::outer::{Momentum, Outer, OuterState};
use ccl_core::reduce::perturbation::{
    Contribution, Direction, Divisor, Perturbation, Probe, Update, replay,
};
use ccl_core::{Dtype, reduce::Level};
use clap::Args;
use serde_json::json;

use super::report::{median, round};
use super::sizes::parse_size;
use crate::child::send_line;
use crate::failure::{Failure, Result};
use crate::measure::monotonic_ns;

/// Options of `ccl bench kernels`.
#[derive(Args, Debug)]
pub struct KernelsOptions {
    /// Bytes of f32 that each kernel works on.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    bytes: u64,
    /// Only kernels whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Repeats, of which medians are printed.
    #[arg(long, value_name = "N", default_value_t = 9)]
    repeat: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds that kernel and copy took.
struct Pair {
    kernel_ns: f64,
    copy_ns: f64,
}

/// One line of the table.
struct Case<'a> {
    name: String,
    /// Directions that each weight is moved along.
    entries: usize,
    call: Box<dyn FnMut(&mut Buffers) + 'a>,
}

/// What all kernels work on. They are timed, not checked: the tests of the library do that.
struct Buffers {
    weights: Vec<f32>,
    /// The same as bytes.
    source: Vec<u8>,
    target: Vec<u8>,
    out: Vec<f32>,
    velocity: Vec<f32>,
    encoded: Vec<u8>,
}

/// Measures and prints one line for each kernel.
pub fn run(options: &KernelsOptions) -> Result<ExitCode> {
    if options.repeat == 0 || options.bytes < BLOCK_BYTES {
        return Err(Failure::new(
            "--repeat must be at least 1, --bytes at least 1KiB",
        ));
    }
    let mut buffers = Buffers::new(options.bytes);
    let contributions = contributions();
    let updates: Vec<Update<'_>> = Direction::ALL
        .into_iter()
        .flat_map(|direction| updates(direction, &contributions))
        .collect();
    let mut cases = update_cases(&updates);
    cases.extend(perturb_cases());
    cases.extend(outer_cases());
    cases.extend(codec_cases());
    if !options.json {
        println!("# {:?}, {} bytes of f32", Level::best(), options.bytes);
        println!(
            "# kernel                 f32 (GB/s)  memcpy (GB/s)  ratio  weights x entries (G/s)"
        );
    }
    for case in cases
        .iter_mut()
        .filter(|case| case.name.contains(&options.only))
    {
        let pairs = (0..options.repeat).map(|_| buffers.measure(case));
        let pairs: Vec<Pair> = pairs.collect::<Result<_>>()?;
        options.print(case, &pairs)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Buffers {
    fn new(bytes: u64) -> Self {
        let count = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
        let weights: Vec<f32> = (0..count)
            .map(|index| (index as u32).wrapping_mul(0x9e37_79b9) as i32 as f32 / 1e9)
            .collect();
        let source: Vec<u8> = weights
            .iter()
            .flat_map(|weight| weight.to_ne_bytes())
            .collect();
        Self {
            target: vec![0; source.len()],
            out: vec![0.0; count],
            velocity: vec![0.0; count],
            encoded: vec![0; source.len()],
            weights,
            source,
        }
    }

    fn measure(&mut self, case: &mut Case<'_>) -> Result<Pair> {
        let start_ns = monotonic_ns()?;
        (case.call)(self);
        let kernel_ns = (monotonic_ns()? - start_ns) as f64;
        let start_ns = monotonic_ns()?;
        self.target.copy_from_slice(&self.source);
        std::hint::black_box(&self.target);
        let copy_ns = (monotonic_ns()? - start_ns) as f64;
        Ok(Pair { kernel_ns, copy_ns })
    }
}

fn probe(sample: u32) -> Probe {
    Probe {
        run_key: 1,
        step: 2,
        slot: 3,
        sample,
    }
}

fn perturb_cases() -> Vec<Case<'static>> {
    let case = |direction: Direction| Case {
        name: format!("perturb {}", direction.name()),
        entries: 1,
        call: Box::new(move |buffers: &mut Buffers| {
            let perturbation = Perturbation {
                direction,
                probe: probe(0),
                epsilon: 1e-3,
            };
            perturbation.write(0, &buffers.weights, &mut buffers.out);
        }),
    };
    Direction::ALL.into_iter().map(case).collect()
}

/// Coefficients of the size that `log8` gives.
fn contributions() -> Vec<Contribution> {
    let one = |sample: u32| Contribution {
        probe: probe(sample),
        coefficient: 16_384 + i64::from(sample),
    };
    (0..STEP_ENTRIES as u32).map(one).collect()
}

/// An update of one contribution, and those of a suffix of the log.
fn updates(direction: Direction, contributions: &[Contribution]) -> Vec<Update<'_>> {
    let update = |count: usize| Update {
        contributions: &contributions[..count],
        direction,
        learning_rate: 1e-6,
        weight_decay: 0.1,
        exponent: -14,
        divisor: Divisor::Count(count as u32),
    };
    let mut all = vec![update(1)];
    all.resize(1 + REPLAY_STEPS, update(STEP_ENTRIES));
    all
}

fn update_cases<'a>(updates: &'a [Update<'a>]) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for updates in updates.chunks(1 + REPLAY_STEPS) {
        let direction = updates[0].direction.name();
        let steps = [
            ("apply", 0..1),
            ("apply", 1..2),
            ("replay", 1..updates.len()),
        ];
        for (name, range) in steps {
            let steps = &updates[range];
            let entries = steps.iter().map(|step| step.contributions.len()).sum();
            cases.push(Case {
                name: format!("{name} {direction} {entries}"),
                entries,
                call: Box::new(move |buffers| replay(0, &mut buffers.out, steps)),
            });
        }
    }
    cases
}

fn outer_cases() -> Vec<Case<'static>> {
    let case = |(name, momentum): (&str, Momentum)| Case {
        name: format!("outer {name}"),
        entries: 1,
        call: Box::new(move |buffers: &mut Buffers| {
            let outer = Outer {
                learning_rate: 0.4,
                momentum,
            };
            let velocity = match momentum {
                Momentum::None => &mut [][..],
                Momentum::Plain(_) | Momentum::Nesterov(_) => &mut buffers.velocity,
            };
            let weights = &mut buffers.out;
            outer.step(&buffers.weights, OuterState { weights, velocity });
        }),
    };
    let kinds = [
        ("sgd", Momentum::None),
        ("nesterov", Momentum::Nesterov(0.9)),
    ];
    kinds.into_iter().map(case).collect()
}

fn codec_cases() -> Vec<Case<'static>> {
    let stochastic = Rounding::Stochastic { seed: 1, stream: 2 };
    let roundings = [
        ("encode", Rounding::Nearest),
        ("encode-stochastic", stochastic),
    ];
    let mut cases = Vec::new();
    for encoding in Encoding::ALL {
        for (name, rounding) in roundings {
            cases.push(Case {
                name: format!("{name} {}", encoding.name()),
                entries: 1,
                call: Box::new(move |buffers| encode(encoding, rounding, buffers)),
            });
        }
        cases.push(Case {
            name: format!("decode-add {}", encoding.name()),
            entries: 1,
            call: Box::new(move |buffers| {
                let encoded = &buffers.encoded[..encoding.encoded_bytes(buffers.weights.len())];
                let added = encoding.decode_add(encoded, 1.0, &mut buffers.target);
                added.expect("the case before has encoded them");
            }),
        });
    }
    cases
}

fn encode(encoding: Encoding, rounding: Rounding, buffers: &mut Buffers) {
    let input = Input {
        dtype: Dtype::F32,
        bytes: &buffers.source,
        first_index: 0,
        rounding,
        residual: None,
    };
    let out = &mut buffers.encoded[..encoding.encoded_bytes(buffers.weights.len())];
    encoding.encode(input, out).expect("all weights are finite");
}

impl KernelsOptions {
    fn print(&self, case: &Case<'_>, pairs: &[Pair]) -> Result<()> {
        let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value)).unwrap_or(f64::NAN);
        let kernel = self.bytes as f64 / of(|pair| pair.kernel_ns);
        let memcpy = self.bytes as f64 / of(|pair| pair.copy_ns);
        let ratio = of(|pair| pair.copy_ns / pair.kernel_ns);
        let moved = kernel / 4.0 * case.entries as f64;
        let name = &case.name;
        if self.json {
            let line = json!({
                "bench": "kernels", "kernel": name, "bytes": self.bytes, "entries": case.entries,
                "f32_gb_s": round(kernel), "memcpy_gb_s": round(memcpy), "ratio": round(ratio),
                "weight_entries_g_s": round(moved), "repeats": self.repeat,
            });
            return send_line(&mut std::io::stdout(), &line);
        }
        println!("{name:<24} {kernel:>11.2} {memcpy:>14.2} {ratio:>6.2} {moved:>24.2}");
        Ok(())
    }
}

/// Contributions of a step.
const STEP_ENTRIES: usize = 8;
/// Steps that are replayed at once.
const REPLAY_STEPS: usize = 16;
/// Bytes of a block of f32.
const BLOCK_BYTES: u64 = 4 * BLOCK_ELEMENTS as u64;
