//! Measures the delay of heartbeats under load.
//!
//! `heartbeats [PEERS [TAGS [MIB [ROUNDS [INTERVAL_MS]]]]]`, by default `2 8 256 3 50`: all peers
//! reduce this many buffers at once, in place. Build it with optimisation, and run it beside other
//! load.

use std::time::Duration;

use ccl_tests::heartbeats::{Load, measure};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| {
        text.parse::<u64>()
            .unwrap_or_else(|_| panic!("{text:?} is no number"))
    });
    let mut next = |default| numbers.next().unwrap_or(default);
    let load = Load {
        peers: u32::try_from(next(2)).expect("a world size"),
        tags: next(8),
        bytes: usize::try_from(next(256)).expect("a length") << 20,
        rounds: u32::try_from(next(3)).expect("a number of rounds"),
        interval: Duration::from_millis(next(50)),
    };
    let lateness = measure(load);
    println!(
        "{load:?}: {} signs of life in {:.1?}, the latest {:.1?} after its time",
        lateness.count, lateness.total, lateness.most
    );
}
