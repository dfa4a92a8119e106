//! Seeds of the simulator that run with every build; `simulate` runs any number of them.

use ccl_tests::sim::report::Stats;
use ccl_tests::sim::run_seed;

/// Each seed has enough operations and faults, and no checker finds a violation.
#[test]
fn two_hundred_seeds_find_nothing() {
    let mut total = Stats::default();
    for seed in 0..200 {
        match run_seed(seed) {
            Ok(outcome) => {
                let (operations, faults) = outcome.stats.totals();
                assert!(
                    operations >= 20 && faults >= 3,
                    "seed {seed} did too little"
                );
                total.merge(&outcome.stats);
            }
            Err(failure) => {
                for line in &failure.lines {
                    println!("{line}");
                }
                panic!(
                    "seed {seed}: {}\nreplay: cargo run --release -p ccl-tests --bin simulate -- \
                     --seed {seed} --verbose",
                    failure.what
                );
            }
        }
    }
    println!("{total}\n{}", total.coverage());
    assert!(
        total.committed > 10_000,
        "a run in which little succeeds shows little"
    );
    assert!(total.aborted > 100 && total.unknown > 10);
    assert!(
        total.units > 100,
        "{} hosts with several processes admitted",
        total.units
    );
    assert!(
        total.returns > 10_000,
        "{} tags begun anew, by host",
        total.returns
    );
    let ends = [
        "committed",
        "restored",
        "keys",
        "strategies",
        "no source",
        "ahead",
        "lost",
        "sender",
    ];
    for end in ends {
        let told = total.syncs.get(end).copied().unwrap_or_default();
        assert!(told > 100, "syncs ended as {end} {told} times only");
    }
    let unchecked = total.syncs.get("unchecked").copied().unwrap_or_default();
    assert!(
        unchecked * 50 < total.syncs["committed"],
        "{unchecked} elections could not be checked"
    );
}
