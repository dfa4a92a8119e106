//! How fast shared state is hashed, compared with how fast the same bytes are copied.
//!
//! Both run with the same number of threads, back to back, so that a slow phase of the machine
//! affects both. The copy reads as much as the hash and writes as much again.

use std::process::ExitCode;

use ccl_core::Dtype;
use ccl_core::state::{Blocks, Key, hash_blocks};
use clap::Args;
use serde_json::json;

use super::inputs::{Seed, fill};
use super::report::{median, round};
use super::sizes::parse_size;
use crate::child::send_line;
use crate::failure::{Failure, Result};
use crate::measure::monotonic_ns;

/// Options of `ccl bench hash`.
#[derive(Args, Debug)]
pub struct HashOptions {
    /// Bytes of the state.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    bytes: u64,
    /// Entries that they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    entries: u64,
    /// Threads that work at once; several numbers with commas between.
    #[arg(long, value_name = "N", default_value = "1,2", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Repeats, of which medians are printed.
    #[arg(long, value_name = "N", default_value_t = 9)]
    repeat: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds that hash and copy took.
struct Pair {
    hash_ns: f64,
    copy_ns: f64,
}

/// Measures and prints one line for each number of threads.
pub fn run(options: &HashOptions) -> Result<ExitCode> {
    options.validate()?;
    let (blocks, contents) = options.state()?;
    let entries: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let mut target: Vec<Vec<u8>> = contents.iter().map(|entry| vec![1; entry.len()]).collect();
    let digests = hash_blocks(&entries, &blocks, 1);
    let mut pairs: Vec<Vec<Pair>> = options.threads.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.repeat {
        for (&threads, pairs) in options.threads.iter().zip(&mut pairs) {
            let start_ns = monotonic_ns()?;
            let found = hash_blocks(&entries, &blocks, threads);
            let hash_ns = (monotonic_ns()? - start_ns) as f64;
            if found != digests {
                return Err(Failure::new("two hashes of the same bytes differ"));
            }
            let start_ns = monotonic_ns()?;
            copy(&entries, &mut target, threads);
            std::hint::black_box(&target);
            let copy_ns = (monotonic_ns()? - start_ns) as f64;
            pairs.push(Pair { hash_ns, copy_ns });
        }
    }
    if !options.json {
        println!("#      bytes    entries threads   hash (GB/s)  memcpy (GB/s)  ratio");
    }
    for (&threads, pairs) in options.threads.iter().zip(&pairs) {
        options.print(blocks.bytes(), threads, pairs)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies all entries, cut into as many equal parts as there are threads.
fn copy(entries: &[&[u8]], target: &mut [Vec<u8>], threads: usize) {
    std::thread::scope(|scope| {
        let mut shares: Vec<Vec<(&[u8], &mut [u8])>> = (0..threads).map(|_| Vec::new()).collect();
        for (from, to) in entries.iter().zip(target) {
            let share_bytes = from.len().div_ceil(threads).max(1);
            let parts = from.chunks(share_bytes).zip(to.chunks_mut(share_bytes));
            for (part, share) in parts.zip(&mut shares) {
                share.push(part);
            }
        }
        let run = |share: Vec<(&[u8], &mut [u8])>| {
            for (from, to) in share {
                to.copy_from_slice(from);
            }
        };
        let own = shares.pop();
        for share in shares {
            scope.spawn(move || run(share));
        }
        own.into_iter().for_each(run);
    });
}

impl HashOptions {
    fn validate(&self) -> Result<()> {
        if self.repeat == 0 || self.entries == 0 || self.bytes < self.entries {
            return Err(Failure::new(
                "--repeat and --entries must be at least 1, --bytes at least --entries",
            ));
        }
        if !self
            .threads
            .iter()
            .all(|threads| (1..=64).contains(threads))
        {
            return Err(Failure::new("--threads must be from 1 to 64"));
        }
        Ok(())
    }

    fn state(&self) -> Result<(Blocks, Vec<Vec<u8>>)> {
        let entry_bytes = self.bytes / self.entries;
        let keys: Vec<Key> = (0..self.entries)
            .map(|index| Key {
                name: index.to_string(),
                dtype: Dtype::U8,
                shape: vec![entry_bytes],
                allow_inequality: false,
            })
            .collect();
        let blocks = Blocks::new(&keys)?;
        let contents = keys.iter().enumerate().map(|(index, _)| {
            let mut content = vec![0_u8; usize::try_from(entry_bytes).unwrap_or(usize::MAX)];
            fill(&mut content, Seed::new(1), index, 0);
            content
        });
        Ok((blocks, contents.collect()))
    }

    fn print(&self, bytes: u64, threads: usize, pairs: &[Pair]) -> Result<()> {
        let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value)).unwrap_or(f64::NAN);
        let hash = bytes as f64 / of(|pair| pair.hash_ns);
        let memcpy = bytes as f64 / of(|pair| pair.copy_ns);
        let ratio = of(|pair| pair.copy_ns / pair.hash_ns);
        let entries = self.entries;
        if self.json {
            let line = json!({
                "bench": "hash", "bytes": bytes, "entries": entries, "threads": threads,
                "hash_gb_s": round(hash), "memcpy_gb_s": round(memcpy), "ratio": round(ratio),
                "hash_us": round(of(|pair| pair.hash_ns) / 1e3), "repeats": self.repeat,
            });
            return send_line(&mut std::io::stdout(), &line);
        }
        println!("{bytes:>12} {entries:>10} {threads:>7} {hash:>13.3} {memcpy:>14.3} {ratio:>6.2}");
        Ok(())
    }
}
