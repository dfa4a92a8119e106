//! Bottlenecks of several links are shared by them.

use crate::traffic::Transfer;
use crate::{start, turn};

/// Sends 2.5 MB from each of two hosts at once; both together take what a bottleneck of 50 Mbit/s
/// needs, and not much longer.
fn check_shared(commands: &[&str], pairs: [(usize, usize); 2], name: &str) {
    let Some(_turn) = turn() else { return };
    let network = start(4, commands);
    let bytes = 2_500_000;
    let transfers = pairs.map(|(source, target)| Transfer::start(&network, source, target, bytes));
    let taken = transfers.map(|transfer| transfer.finish().as_secs_f64());
    let last = taken[0].max(taken[1]);
    let ideal = 2.0 * bytes as f64 * 8.0 / 50e6 * 1538.0 / 1448.0;
    // The second was started a moment after the first.
    assert!(
        last > ideal * 0.95,
        "{taken:?}; the bottleneck needs {ideal} s"
    );
    assert!(
        last < ideal * 1.5,
        "{taken:?}; the bottleneck needs {ideal} s"
    );
    let stats = network.stats().unwrap();
    let names: Vec<&str> = stats
        .bottlenecks
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, [name]);
}

#[test]
fn the_uplink_of_a_site_is_shared_by_its_hosts() {
    let commands = [
        "set * * delay 2ms",
        "site 1 2,3",
        "uplink 0 up rate 50m queue 100ms",
    ];
    check_shared(&commands, [(0, 2), (1, 3)], "uplink of site 0, up");
}

#[test]
fn the_access_of_a_host_is_shared_by_those_that_send_to_it() {
    let commands = ["set * * delay 2ms", "access 3 down rate 50m queue 100ms"];
    check_shared(&commands, [(0, 3), (1, 3)], "access of host 3, down");
}
