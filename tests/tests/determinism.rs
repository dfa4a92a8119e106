//! One seed, one history.

use std::process::Command;

use ccl_tests::process;
use ccl_tests::sim::report::Stats;
use ccl_tests::sim::run::{fold_digests, run_seed_traced};
use ccl_tests::sim::run_seed;
use ccl_tests::sim::shrink::Variant;
use ccl_tests::sim::swarm::FaultKind;
use ccl_tests::sim::trace::Trace;

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1000..1020 {
        let digest = |_| run_seed(seed).map(|outcome| outcome.digest);
        let [first, second] = [0, 1].map(digest);
        assert_eq!(
            first.expect("the seed passes"),
            second.expect("the seed passes"),
            "seed {seed}"
        );
    }
}

/// Keeping the lines of a history does not change it.
#[test]
fn watching_a_seed_does_not_change_it() {
    let watched = run_seed_traced(1000, true).expect("the seed passes");
    let unwatched = run_seed_traced(1000, false).expect("the seed passes");
    assert_eq!(watched.digest, unwatched.digest);
}

#[test]
fn another_seed_gives_another_history() {
    let digests: Vec<u64> = (1000..1010)
        .map(|seed| run_seed(seed).expect("the seed passes").digest)
        .collect();
    let mut distinct = digests.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), digests.len());
    assert_ne!(
        fold_digests(digests.clone()),
        fold_digests(digests.into_iter().rev())
    );
}

/// Nothing specific to one process (addresses, hash seeds, threads) leaks into a history.
#[test]
fn two_processes_print_the_same_digest() {
    let [first, second] = ["1", "2"].map(|jobs| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
        let text = process::run(command.args(["--seeds", "500..510", "--jobs", jobs]));
        let line = text.lines().find(|line| line.contains("history digest"));
        line.expect("it prints a digest").to_owned()
    });
    assert_eq!(first, second);
}

fn stats(variant: &Variant) -> Stats {
    let outcome = variant.run(Trace::new(false, false));
    outcome.expect("the seed passes").stats
}

/// A seed with nothing left out is the seed itself.
#[test]
fn a_whole_variant_is_its_seed() {
    let whole = Variant::whole(1000).run(Trace::new(false, false));
    let seed = run_seed(1000).expect("the seed passes");
    assert_eq!(whole.expect("the seed passes").digest, seed.digest);
}

/// A seed is reduced to what a failure needs. A crash of the master stands in for a failure here.
#[test]
fn a_shrunk_seed_still_fails_and_has_little_else() {
    let crashes = |variant: &Variant| stats(variant).faults.contains_key(&FaultKind::MasterCrash);
    let planned = |variant: &Variant| {
        let faults = stats(variant).faults;
        let injected = faults.iter().filter(|(kind, _)| !kind.is_planned());
        injected.map(|(_, times)| times).sum::<u64>()
    };
    let is_rich = |variant: &Variant| planned(variant) >= 6 && crashes(variant);
    let mut seeds = (1000..1100).map(Variant::whole);
    let whole = seeds.find(is_rich).expect("some seed crashes the master");
    let smallest = whole.shrunk(crashes);
    assert!(crashes(&smallest), "{}", smallest.command());
    assert!(
        planned(&smallest) < planned(&whole),
        "{}",
        smallest.command()
    );
    assert!(!smallest.without.is_empty(), "{}", smallest.command());
}
