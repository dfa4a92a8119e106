//! Packets through a network in virtual time.

use super::*;
use crate::wan::packet::{self, DEVICE_HEADER_BYTES};

/// A UDP packet of this many bytes on the wire.
fn packet(source: usize, target: usize, wire_bytes: usize) -> Packet {
    let mut bytes = vec![0; DEVICE_HEADER_BYTES + wire_bytes - 38];
    let ip = &mut bytes[DEVICE_HEADER_BYTES..];
    ip[0] = 0x45;
    ip[12..16].copy_from_slice(&packet::address(source).octets());
    ip[16..20].copy_from_slice(&packet::address(target).octets());
    let length = bytes.len();
    Packet::parse(bytes, length).expect("a packet for a host")
}

fn router(hosts: usize, commands: &[&str]) -> Router {
    let mut router = Router::new(hosts, 1);
    for line in commands {
        apply(&mut router, line);
    }
    router
}

fn apply(router: &mut Router, line: &str) {
    let command = line.parse().unwrap_or_else(|error| panic!("{error}"));
    let result = router.apply(&command);
    result.unwrap_or_else(|error| panic!("{line}: {error}"));
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// When and where everything in flight arrives, in milliseconds.
fn arrivals(router: &mut Router) -> Vec<(u128, usize)> {
    let mut found = Vec::new();
    while let Some(due) = router.next_due() {
        while let Some(delivery) = router.poll_delivery(due) {
            assert_eq!(delivery.due, due, "delivered when it is due");
            found.push((delivery.due.as_millis(), delivery.packet.target()));
        }
    }
    found
}

#[test]
fn a_packet_takes_its_links_delay() {
    let mut router = router(3, &["set 0 1 delay 50ms", "set 0 2 delay 20ms"]);
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    router.handle_packet(ms(5), 0, packet(0, 2, 1000));
    router.handle_packet(ms(6), 1, packet(1, 0, 1000));
    assert_eq!(arrivals(&mut router), [(6, 0), (25, 2), (50, 1)]);
}

#[test]
fn a_rate_spaces_packets() {
    // 1 MB/s: 1,000 bytes a millisecond.
    let mut router = router(2, &["set 0 1 delay 10ms rate 8m queue 1s"]);
    for _ in 0..3 {
        router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    }
    assert_eq!(arrivals(&mut router), [(11, 1), (12, 1), (13, 1)]);
}

#[test]
fn an_access_is_shared_by_its_links() {
    let commands = ["access 0 up rate 8m queue 1s", "set * * delay 10ms"];
    let mut router = router(3, &commands);
    for target in [1, 2, 1, 2] {
        router.handle_packet(ms(0), 0, packet(0, target, 1000));
    }
    let expected = [(11, 1), (12, 2), (13, 1), (14, 2)];
    assert_eq!(arrivals(&mut router), expected);
}

#[test]
fn senders_share_the_access_of_a_receiver_in_order_of_arrival() {
    let commands = [
        "access 2 down rate 8m queue 1s",
        "set 0 2 delay 10ms",
        "set 1 2 delay 4ms",
    ];
    let mut router = router(3, &commands);
    // The later one arrives first.
    router.handle_packet(ms(0), 0, packet(0, 2, 5000));
    router.handle_packet(ms(5), 1, packet(1, 2, 2000));
    assert_eq!(arrivals(&mut router), [(11, 2), (16, 2)]);
}

#[test]
fn an_uplink_is_shared_by_a_site_and_free_inside() {
    let commands = [
        "site 1 2,3",
        "uplink 0 up rate 8m queue 1s",
        "uplink 1 down rate 4m queue 1s",
        "set * * delay 1ms",
    ];
    let mut router = router(4, &commands);
    router.handle_packet(ms(0), 0, packet(0, 2, 1000));
    router.handle_packet(ms(0), 1, packet(1, 3, 1000));
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    router.handle_packet(ms(0), 2, packet(2, 0, 1000));
    // Up 1 ms each, one after the other; down 2 ms each.
    let expected = [(1, 1), (1, 0), (4, 2), (6, 3)];
    assert_eq!(arrivals(&mut router), expected);
    let names: Vec<String> = router
        .stats()
        .bottlenecks
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["uplink of site 0, up", "uplink of site 1, down"]);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut router = router(2, &["set 0 1 rate 8m queue 5000"]);
    for _ in 0..7 {
        router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    }
    assert_eq!(arrivals(&mut router).len(), 5);
    let stats = *router.stats().link(0, 1).expect("it had traffic");
    assert_eq!((stats.segments, stats.overflow_segments), (7, 2));
    assert_eq!(stats.queue_bytes_max, 5000);
}

#[test]
fn a_cut_drops_one_direction_and_what_is_in_flight() {
    let mut router = router(2, &["set * * delay 10ms"]);
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    router.handle_packet(ms(0), 1, packet(1, 0, 1000));
    apply(&mut router, "cut 0 1");
    router.handle_packet(ms(1), 0, packet(0, 1, 1000));
    apply(&mut router, "heal 0 1");
    router.handle_packet(ms(2), 0, packet(0, 1, 1000));
    assert_eq!(arrivals(&mut router), [(10, 0), (12, 1)]);
    let stats = router.stats();
    assert_eq!(stats.link(0, 1).expect("it had traffic").cut_segments, 2);
    assert_eq!(stats.link(1, 0).expect("it had traffic").cut_segments, 0);
}

#[test]
fn a_split_has_two_directions_and_is_joined_again() {
    let mut router = router(3, &["split 0,1 2"]);
    let send_all = |router: &mut Router| {
        for (source, target) in [(0, 1), (0, 2), (1, 2), (2, 0), (2, 1)] {
            router.handle_packet(ms(0), source, packet(source, target, 1000));
        }
        arrivals(router).len()
    };
    assert_eq!(send_all(&mut router), 1);
    apply(&mut router, "join 2 0");
    assert_eq!(send_all(&mut router), 3);
    apply(&mut router, "heal");
    assert_eq!(send_all(&mut router), 5);
}

#[test]
fn a_dead_host_neither_sends_nor_receives() {
    let mut router = router(2, &["set * * delay 10ms"]);
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    apply(&mut router, "kill 1");
    router.handle_packet(ms(1), 1, packet(1, 0, 1000));
    assert_eq!(arrivals(&mut router), []);
    apply(&mut router, "revive 1");
    router.handle_packet(ms(20), 1, packet(1, 0, 1000));
    assert_eq!(arrivals(&mut router), [(30, 0)]);
}

#[test]
fn jitter_keeps_the_order_unless_it_may_not() {
    let sent = 200;
    let order = |reorder: &str| {
        let line = format!("set 0 1 delay 10ms jitter 5ms reorder {reorder}");
        let mut router = router(2, &[&line]);
        for index in 0..sent {
            router.handle_packet(
                Duration::from_micros(index),
                0,
                packet(0, 1, 100 + index as usize),
            );
        }
        let mut lengths = Vec::new();
        while let Some(due) = router.next_due() {
            assert!((ms(10)..ms(16)).contains(&due), "{due:?}");
            lengths.extend(router.poll_delivery(due).map(|it| it.packet.bytes().len()));
        }
        assert_eq!(lengths.len(), sent as usize);
        lengths.is_sorted()
    };
    assert!(order("off"));
    assert!(!order("on"));
}

#[test]
fn lateness_is_judged_by_the_delay_of_the_link() {
    let mut router = router(2, &["set 0 1 delay 10ms", "set 1 0 delay 100ms"]);
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    router.handle_packet(ms(0), 1, packet(1, 0, 1000));
    let too_late: Vec<u64> = [ms(10), ms(100)]
        .map(|due| {
            let delivery = router.poll_delivery(due).expect("due now");
            router.record(&delivery, due + ms(2));
            router.stats().lateness.too_late
        })
        .to_vec();
    assert_eq!(too_late, [1, 1]);
    assert!(router.stats().is_void());
    apply(&mut router, "reset");
    assert_eq!(router.stats(), Stats::default());
}

#[test]
fn a_wrong_host_changes_nothing() {
    let mut router = router(2, &[]);
    let refused = router.apply(&"set 0 0,1,5 delay 1s".parse().unwrap());
    assert_eq!(refused, Err("there is no host 5, only 0 to 1".into()));
    router.handle_packet(ms(0), 0, packet(0, 1, 1000));
    router.handle_packet(ms(0), 0, packet(0, 7, 1000));
    router.handle_packet(ms(0), 0, packet(0, 0, 1000));
    assert_eq!(arrivals(&mut router), [(0, 1)]);
}
