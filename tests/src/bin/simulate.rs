//! `simulate`: seeds under the simulator, or deliberate bugs that it must notice.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ccl_tests::sim::report::Stats;
use ccl_tests::sim::run::{Failure, fold_digests, run_seed};
use ccl_tests::sim::shrink::{Feature, Variant};
use ccl_tests::sim::trace::Trace;
use clap::Parser;

/// Runs the machines of ccl under virtual time and seeded faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to run: `A..B`, B excluded.
    #[arg(long, default_value = "0..1000", value_parser = parse_range)]
    seeds: Range<u64>,
    /// One seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads. Default: one a core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print every event of the seed.
    #[arg(long)]
    verbose: bool,
    /// Switch one deliberate bug on (needs a build with `--cfg ccl_mutations`).
    #[arg(long)]
    mutation: Option<String>,
    /// Switch each deliberate bug on in turn, until a seed notices it.
    #[arg(long)]
    mutations: bool,
    /// Go on after a failure, and count.
    #[arg(long)]
    keep_going: bool,
    /// Do not look for the smallest failing variant of a seed.
    #[arg(long)]
    no_shrink: bool,
    /// With --seed and --verbose: most faults.
    #[arg(long, requires_all = ["seed", "verbose"])]
    faults: Option<usize>,
    /// With --seed and --verbose: leave out the fault of this number, from 1.
    #[arg(long, requires_all = ["seed", "verbose"])]
    skip: Vec<usize>,
    /// With --seed and --verbose: leave out a feature.
    #[arg(long, requires_all = ["seed", "verbose"])]
    without: Vec<Feature>,
    /// Fail unless each situation that has a name came about so often.
    #[arg(long, default_value_t = 0)]
    situations_min: u64,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("write seeds as A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let range = number(first)?..number(last)?;
    if range.is_empty() {
        return Err("the range holds no seed".into());
    }
    Ok(range)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    quiet_panics();
    if arguments.mutations || arguments.mutation.is_some() {
        return hunt::run(&arguments);
    }
    if let Some(seed) = arguments.seed.filter(|_| arguments.verbose) {
        return printed(&Variant {
            seed,
            faults: arguments.faults,
            skipped: arguments.skip.iter().copied().collect(),
            without: arguments.without.iter().copied().collect(),
        });
    }
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |s| s..s + 1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    let (runs, failures) = run_all(&seeds, jobs, arguments.keep_going);
    report(&arguments, &runs, &failures)
}

/// A failed assertion of a machine is caught and reported with its seed, so the default report
/// would only be noise.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

fn printed(variant: &Variant) -> ExitCode {
    let seed = variant.seed;
    match variant.run(Trace::new(true, true)) {
        Ok(outcome) => {
            println!("seed {seed} passed, digest {:016x}", outcome.digest);
            println!("{}", outcome.stats);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed} FAILED: {}", failure.what);
            ExitCode::FAILURE
        }
    }
}

/// One seed's digest and counts.
type Run = (u64, Stats);

#[allow(clippy::vec_box)] // A failure is boxed where it is made: it is rare and large.
fn run_all(seeds: &Range<u64>, jobs: usize, keep_going: bool) -> (Vec<Run>, Vec<Box<Failure>>) {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let count = usize::try_from(seeds.end - seeds.start).unwrap_or(0);
    let runs: Mutex<Vec<Option<Run>>> = Mutex::new(vec![None; count]);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    match run_seed(seed) {
                        Ok(outcome) => {
                            let index = usize::try_from(seed - seeds.start).unwrap_or(0);
                            let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
                            runs[index] = Some((outcome.digest, outcome.stats));
                        }
                        Err(failure) => {
                            let mut list = failures.lock().unwrap_or_else(PoisonError::into_inner);
                            list.push(failure);
                            if !keep_going {
                                end.store(0, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    let runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    (runs.into_iter().flatten().collect(), failures)
}

#[cfg(ccl_mutations)]
mod hunt {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ccl_core::mutation::{Mutation, activate};
    use ccl_tests::sim::mutations::{ALL, by_name, hunt};

    use super::{Arguments, Variant, printed};

    /// Runs the chosen bugs, several at once.
    pub fn run(arguments: &Arguments) -> ExitCode {
        let chosen: Vec<Mutation> = match &arguments.mutation {
            None => ALL.to_vec(),
            Some(name) => by_name(name).into_iter().collect(),
        };
        if chosen.is_empty() {
            println!("there is no such bug; these are: {ALL:?}");
            return ExitCode::FAILURE;
        }
        if let (Some(seed), true) = (arguments.seed, arguments.verbose) {
            activate(chosen.first().copied());
            return printed(&Variant::whole(seed));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let survivors = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..arguments.jobs.unwrap_or(cores).max(1) {
                scope.spawn(|| {
                    while let Some(mutation) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let verdict = hunt(*mutation, arguments.seeds.clone());
                        match verdict.seed {
                            Some(seed) => println!(
                                "{mutation:?}: caught by seed {seed} after {} seeds: {}",
                                verdict.seeds, verdict.what
                            ),
                            None => {
                                survivors.fetch_add(1, Ordering::Relaxed);
                                println!("{mutation:?}: SURVIVED {} seeds", verdict.seeds);
                            }
                        }
                    }
                });
            }
        });
        match survivors.into_inner() {
            0 => ExitCode::SUCCESS,
            count => {
                println!("{count} deliberate bugs survived");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(not(ccl_mutations))]
mod hunt {
    use std::process::ExitCode;

    use super::Arguments;

    /// This build has no deliberate bugs.
    pub fn run(arguments: &Arguments) -> ExitCode {
        println!(
            "{:?}: build with RUSTFLAGS=\"--cfg ccl_mutations\" and a target directory of its own",
            arguments.mutation
        );
        ExitCode::FAILURE
    }
}

fn report(arguments: &Arguments, runs: &[Run], failures: &[Box<Failure>]) -> ExitCode {
    let mut total = Stats::default();
    for (_, stats) in runs {
        total.merge(stats);
    }
    println!("{total}");
    println!("{}", total.coverage());
    println!("situations, the rarest first:");
    let situations = total.rare_situations();
    for ((what, how), times) in &situations {
        println!("  {times:>7} {what}, {how}");
    }
    let digest = fold_digests(runs.iter().map(|(digest, _)| *digest));
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |s| s..s + 1);
    println!(
        "seeds {}..{}: {} passed, {} failed, history digest {digest:016x}",
        seeds.start,
        seeds.end,
        runs.len(),
        failures.len()
    );
    let Some(first) = failures.first() else {
        let least = situations.first().map_or(0, |(_, times)| *times);
        if least < arguments.situations_min {
            println!("a situation came about {least} times only");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    };
    for failure in failures.iter().skip(1) {
        println!("seed {} FAILED: {}", failure.seed, failure.what);
    }
    for line in &first.lines {
        println!("{line}");
    }
    println!("seed {} FAILED: {}", first.seed, first.what);
    let whole = Variant::whole(first.seed);
    println!("replay: {}", whole.command());
    if !arguments.no_shrink {
        let smallest = whole.shrunk(Variant::fails);
        if let Err(failure) = smallest.run(Trace::new(false, false)) {
            println!("smallest that fails: {}", failure.what);
            println!("replay: {}", smallest.command());
        }
    }
    ExitCode::FAILURE
}
