//! What is lost is lost segment by segment, and what arrives is intact.

use std::collections::BTreeSet;
use std::fs;

use ccl_stress::wan::Network;
use nix::sys::socket::{setsockopt, sockopt};

use crate::traffic::{Transfer, datagrams};
use crate::{start, turn};

const TRANSFER_BYTES: usize = 30_000_000;

/// The counter of a host in `/proc/net/snmp`.
fn counter(network: &Network, host: usize, protocol: &str, name: &str) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let text = network.spawn(host, read).unwrap().join().unwrap();
    let prefix = format!("{protocol}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = lines.next().unwrap().split(' ');
    let values = lines.next().unwrap().split(' ');
    let mut both = names.zip(values);
    let (_, value) = both.find(|(known, _)| *known == name).unwrap();
    value.parse().unwrap()
}

fn assert_no_broken_packets(network: &Network) {
    for host in 0..network.hosts() {
        assert_eq!(counter(network, host, "Ip", "InHdrErrors"), 0);
        assert_eq!(counter(network, host, "Tcp", "InErrs"), 0);
        assert_eq!(counter(network, host, "Udp", "InErrors"), 0);
    }
}

/// 30 MB pass a link that loses 2 % of the segments. They arrive intact, and about 2 % were
/// lost out of the middle of large packets.
#[test]
fn bytes_survive_random_loss() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &["set 0 1 loss 2%"]);
    Transfer::start(&network, 0, 1, TRANSFER_BYTES).finish();
    let stats = network.stats().unwrap();
    let link = stats.link(0, 1).unwrap();
    let share = link.lost_segments as f64 / link.segments as f64;
    assert!((0.015..0.025).contains(&share), "{link:?}");
    assert!(link.segments > 2 * link.packets, "large packets: {link:?}");
    assert_no_broken_packets(&network);
}

/// 30 MB pass a bottleneck with a short queue. They arrive intact, and the queue has
/// overflowed.
#[test]
fn bytes_survive_a_short_queue() {
    let Some(_turn) = turn() else { return };
    let network = start(
        2,
        &["set 0 1 delay 2ms rate 500m queue 40k", "set 1 0 delay 2ms"],
    );
    Transfer::start(&network, 0, 1, TRANSFER_BYTES).finish();
    let stats = network.stats().unwrap();
    let link = stats.link(0, 1).unwrap();
    assert!(link.overflow_segments > 0, "{link:?}");
    assert!(link.queue_bytes_max <= 40_000, "{link:?}");
    assert_no_broken_packets(&network);
}

/// The same over IPv6, with loss, jitter and another order.
#[test]
fn bytes_survive_disorder_over_ipv6() {
    let Some(_turn) = turn() else { return };
    let line = "set * * delay 1ms jitter 1ms reorder on loss 0.5%";
    let network = start(2, &[line]);
    if network.notes().iter().any(|note| note.contains("IPv6")) {
        eprintln!("skipped: {:?}", network.notes());
        return;
    }
    Transfer::start_v6(&network, 0, 1, 5_000_000).finish();
    let stats = network.stats().unwrap();
    assert!(stats.link(0, 1).unwrap().lost_segments > 0, "{stats}");
    assert_no_broken_packets(&network);
}

/// Datagrams are handed to the system in bursts of 20. The link loses a tenth. Those that
/// arrive are whole, and with those lost they are all.
#[test]
fn datagrams_are_lost_one_by_one() {
    let Some(_turn) = turn() else { return };
    let network = start(2, &["set 0 1 loss 10%"]);
    let (sender, receiver) = (datagrams(&network, 0), datagrams(&network, 1));
    setsockopt(&sender, sockopt::UdpGsoSegment, &DATAGRAM_BYTES).unwrap();
    setsockopt(&receiver, sockopt::RcvBuf, &(1 << 22)).unwrap();
    let address = receiver.local_addr().unwrap();
    for burst in 0..BURSTS {
        let datagrams = (0..20).map(|index| burst * 20 + index);
        let bytes: Vec<u8> = datagrams.flat_map(datagram).collect();
        sender.send_to(&bytes, address).unwrap();
    }
    // The link keeps the order: behind this one nothing is left.
    network.control("set 0 1 loss 0").unwrap();
    sender.send_to(&datagram(LAST), address).unwrap();
    let mut received = BTreeSet::new();
    let mut bytes = [0; 2000];
    loop {
        let length = receiver.recv(&mut bytes).unwrap();
        let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(bytes[..length], datagram(number), "datagram {number}");
        if number == LAST {
            break;
        }
        assert!(received.insert(number), "datagram {number} came twice");
    }
    let stats = network.stats().unwrap();
    let link = stats.link(0, 1).unwrap();
    let sent = u64::from(BURSTS) * 20;
    assert_eq!(link.segments, sent + 1);
    assert_eq!(received.len() as u64 + link.lost_segments, sent, "{link:?}");
    assert!((50..200).contains(&link.lost_segments), "{link:?}");
    if network.notes().is_empty() {
        assert_eq!(link.packets, u64::from(BURSTS) + 1, "bursts stay together");
    }
    assert_no_broken_packets(&network);
}

const DATAGRAM_BYTES: i32 = 1200;
const BURSTS: u32 = 60;
const LAST: u32 = u32::MAX;

/// A datagram that shows if any of its bytes has changed.
fn datagram(number: u32) -> Vec<u8> {
    let mut bytes = vec![0; DATAGRAM_BYTES as usize];
    fastrand::Rng::with_seed(number.into()).fill(&mut bytes);
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}
