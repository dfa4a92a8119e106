//! Cuts are silent, one-sided or not, and end when they are healed.

use ccl_stress::wan::Network;

use crate::traffic::{Transfer, datagrams};
use crate::{start, turn, wait_until};

fn cut_segments(network: &Network, source: usize, target: usize) -> u64 {
    let stats = network.stats().unwrap();
    stats
        .link(source, target)
        .map_or(0, |link| link.cut_segments)
}

/// A datagram is sent before, during and after a cut. The one sent meanwhile never arrives.
/// The other direction is open all the time.
#[test]
fn a_cut_has_one_direction() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &[]);
    let (ours, theirs) = (datagrams(&network, 0), datagrams(&network, 1));
    let (our_address, their_address) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
    let mut byte = [0];
    network.control("cut 0 1").unwrap();
    ours.send_to(&[1], their_address).unwrap();
    theirs.send_to(&[2], our_address).unwrap();
    ours.recv(&mut byte).unwrap();
    assert_eq!(byte, [2]);
    wait_until("the datagram is dropped", || {
        cut_segments(&network, 0, 1) == 1
    });
    network.control("heal 0 1").unwrap();
    ours.send_to(&[3], their_address).unwrap();
    theirs.recv(&mut byte).unwrap();
    assert_eq!(byte, [3]);
}

/// A transfer is split in the middle. Once it is joined again it completes, intact.
#[test]
fn a_connection_survives_a_split() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &["set * * delay 2ms rate 100m"]);
    let transfer = Transfer::start(&network, 0, 1, 5_000_000);
    let has_begun = || {
        let stats = network.stats().unwrap();
        stats.link(0, 1).is_some_and(|link| link.bytes > 1_000_000)
    };
    wait_until("a part has been sent", has_begun);
    network.control("split 0 1").unwrap();
    // Retransmissions too.
    wait_until("segments are dropped", || cut_segments(&network, 0, 1) > 10);
    network.control("join 0 1").unwrap();
    transfer.finish();
}

#[test]
fn a_wrong_command_is_refused() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &[]);
    let refused = |line: &str| network.control(line).unwrap_err().to_string();
    assert!(refused("cut 0 2").contains("no host 2"));
    assert!(refused("burn 0").contains("no command"));
}
