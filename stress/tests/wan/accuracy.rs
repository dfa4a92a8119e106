//! Delays and rates are what was set.

use std::time::{Duration, Instant};

use crate::traffic::{Transfer, datagrams};
use crate::{start, turn};

/// Two hosts, 10 ms to the one and 15 ms back. A datagram goes there and back, 20 times.
/// None is faster than 25 ms, and the fastest is not much slower.
#[test]
fn a_round_trip_takes_both_delays() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &["set 0 1 delay 10ms", "set 1 0 delay 15ms"]);
    let (ours, theirs) = (datagrams(&network, 0), datagrams(&network, 1));
    let address = theirs.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        for _ in 0..20 {
            let (_, source) = theirs.recv_from(&mut byte).unwrap();
            theirs.send_to(&byte, source).unwrap();
        }
    });
    let trips = (0..20).map(|_| {
        let start = Instant::now();
        ours.send_to(&[7], address).unwrap();
        ours.recv(&mut [0]).unwrap();
        start.elapsed()
    });
    let fastest = trips.min().unwrap();
    echo.join().unwrap();
    assert!(fastest >= Duration::from_millis(25), "{fastest:?}");
    assert!(fastest < Duration::from_millis(27), "{fastest:?}");
    let lateness = network.stats().unwrap().lateness;
    assert!(lateness.packets >= 40, "{lateness:?}");
}

/// A link of 200 Mbit/s carries 10 MB. That takes as long as the segments with their framing
/// take at this rate, and not much longer.
#[test]
fn a_transfer_takes_what_its_link_needs() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &["set * * delay 2ms rate 200m queue 4bdp"]);
    let bytes = 10_000_000;
    let taken = Transfer::start(&network, 0, 1, bytes)
        .finish()
        .as_secs_f64();
    let ideal = bytes as f64 * 8.0 / 200e6 * 1538.0 / 1448.0;
    assert!(taken > ideal, "{taken} s; the link needs {ideal} s");
    assert!(taken < ideal * 1.5, "{taken} s; the link needs {ideal} s");
    let stats = network.stats().unwrap();
    let link = stats.link(0, 1).unwrap();
    assert!(link.segments > 3 * link.packets, "large packets: {link:?}");
}
