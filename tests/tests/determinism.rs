//! One seed, one history.

use ccl_tests::sim::run::{fold_digests, run_seed_traced};
use ccl_tests::sim::run_seed;

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

/// Whether its lines are kept changes nothing in a history.
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

/// Nothing of one process (addresses, hash seeds, threads) leaks into a history.
#[test]
fn two_processes_print_the_same_digest() {
    let [first, second] = ["1", "2"].map(|jobs| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_simulate"))
            .args(["--seeds", "500..510", "--jobs", jobs])
            .output()
            .expect("the simulator is built with the tests");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("it prints text");
        let line = text.lines().find(|line| line.contains("history digest"));
        line.expect("it prints a digest").to_owned()
    });
    assert_eq!(first, second);
}
