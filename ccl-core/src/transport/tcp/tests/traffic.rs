//! What goes in at one end comes out at the other: once, whole, and on all lanes.

use super::*;

const SEGMENT_BYTES: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_cross_in_both_directions_over_all_lanes() {
    let (mut first, mut second) = pair(8, PATIENCE).await;
    let count = 512;
    let sent = Segments::patterned(count, SEGMENT_BYTES);
    let received = [0, 1].map(|_| Segments::new(count, SEGMENT_BYTES));
    received[0].place_into(&first);
    received[1].place_into(&second);
    for segment in 0..512 {
        sent.send(&first, second.id, segment);
        sent.send(&second, first.id, segment);
    }
    all_arrive(&mut first, 512).await;
    all_arrive(&mut second, 512).await;
    for segment in 0..512 {
        received[0].assert_patterned(segment);
        received[1].assert_patterned(segment);
    }
}

#[tokio::test]
async fn every_lane_carries_its_share_of_one_call() {
    let (first, mut second) = pair(8, PATIENCE).await;
    let (count, bytes) = (1024, 256 << 10);
    let sent = Segments::new(1, bytes);
    for segment in 0..count {
        let payload = Payload::Lent(sent.get(0));
        first
            .links
            .bulk(second.id, bulk_header(segment, bytes), payload);
    }
    let mut placed = 0;
    while placed < count {
        let one = |seen: &Seen| matches!(seen, Seen::Placed(_)).then_some(());
        second.next(one).await;
        placed += 1;
    }
    let counters = first.links.counters().remove(&second.id).unwrap();
    let total: u64 = counters.lane_sent_bytes.iter().sum();
    for bytes in &counters.lane_sent_bytes[1..] {
        assert!(bytes * 20 > total, "a lane is idle: {counters:?}");
    }
    assert_eq!(counters.repairs, 0);
}

#[tokio::test]
async fn signals_of_any_length_arrive_in_order() {
    let (first, mut second) = pair(1, PATIENCE).await;
    let lengths = [0, 1, 63, 64, 65, 4096, 16 << 10, 65_536, 69_632];
    let payloads: Vec<Bytes> = (0..200)
        .map(|index| pattern(index, lengths[index as usize % lengths.len()]).into())
        .collect();
    for (index, payload) in (0..).zip(&payloads) {
        let header = signal_header(index, payload);
        first.links.signal(second.id, header, payload.clone());
    }
    for (index, payload) in (0..).zip(&payloads) {
        let wanted = Seen::Signal(signal_header(index, payload), payload.clone());
        let seen = second.next(|seen| Some(seen.clone())).await;
        assert!(seen == wanted, "signal {index} is another");
    }
}

#[tokio::test]
async fn frames_sent_before_the_link_is_up_are_kept_unless_forgotten() {
    let mut first = Node::new(1, 2, PATIENCE);
    let mut second = Node::new(2, 2, PATIENCE);
    second.want(&[(first.id, first.as_neighbour(true))]);
    let sent = Segments::patterned(2, SEGMENT_BYTES);
    let received = Segments::new(2, SEGMENT_BYTES);
    received.place_into(&first);
    sent.send(&second, first.id, 0);
    second.links.forget(op(1));
    sent.send(&second, first.id, 1);
    second
        .links
        .signal(first.id, signal_header(9, &Bytes::new()), Bytes::new());
    first.want(&[(second.id, second.as_neighbour(false))]);
    second.next_is(Seen::Up).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(
            first
                .next(|seen| match seen {
                    Seen::Signal(header, _) => Some(header.segment),
                    Seen::Arrived(segment) => Some(*segment),
                    _ => None,
                })
                .await,
        );
    }
    assert_eq!(seen, BTreeSet::from([1, 9]));
    received.assert_patterned(1);
}

#[tokio::test]
async fn an_empty_segment_and_owned_bytes_travel_like_others() {
    let (first, mut second) = pair(1, PATIENCE).await;
    let received = Segments::new(3, 5);
    received.place_into(&second);
    let payload = |bytes: &'static [u8]| Payload::Small(Bytes::from_static(bytes));
    first.links.bulk(second.id, bulk_header(0, 0), payload(b""));
    first
        .links
        .bulk(second.id, bulk_header(1, 5), payload(b"abcde"));
    second.next_is(Seen::Arrived(0)).await;
    second.next_is(Seen::Arrived(1)).await;
    assert_eq!(received.get(1).read(<[u8]>::to_vec).unwrap(), b"abcde");
}

/// Lanes are reset at both ends, a few dozen times, while segments and signals cross.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_lanes_are_reset_again_and_again() {
    let (mut first, mut second) = pair(3, PATIENCE).await;
    let count = 400;
    let sent = Segments::patterned(count, SEGMENT_BYTES);
    let received = Segments::new(count, SEGMENT_BYTES);
    received.place_into(&second);
    let mut next_signal = 0;
    let mut missing: BTreeSet<u32> = (0..400).collect();
    for segment in 0..400 {
        sent.send(&first, second.id, segment);
        let payload = Bytes::from(pattern(segment, 100 * (segment as usize % 60)));
        first
            .links
            .signal(second.id, signal_header(segment, &payload), payload);
    }
    let mut arrivals = 0_u16;
    while !missing.is_empty() || next_signal < 400 {
        let seen = second.next(|seen| Some(seen.clone())).await;
        match seen {
            Seen::Arrived(segment) => {
                assert!(missing.remove(&segment), "segment {segment} came twice");
                arrivals += 1;
                let (breaker, other) = match arrivals % 2 {
                    0 => (&first, &second),
                    _ => (&second, &first),
                };
                if arrivals.is_multiple_of(7) {
                    breaker.links.reset_lane(other.id, (arrivals / 7) % 4);
                }
            }
            Seen::Signal(header, payload) => {
                assert_eq!(header.segment, next_signal, "signals keep their order");
                assert_eq!(payload.len(), 100 * (next_signal as usize % 60));
                next_signal += 1;
            }
            Seen::Down(fault, gave_up) => assert!(!gave_up, "given up: {fault:?}"),
            Seen::Up | Seen::Placed(_) | Seen::Repaired(_) | Seen::NoLink(_) => {}
        }
    }
    for segment in 0..400 {
        received.assert_patterned(segment);
    }
    let repairs = first.links.counters()[&second.id].repairs;
    assert!(repairs > 0, "lanes were repaired");
    assert!(
        !first
            .drain()
            .iter()
            .any(|seen| matches!(seen, Seen::Down(_, true)))
    );
}

#[tokio::test]
async fn a_repaired_lane_is_reported_and_the_link_is_not() {
    let (mut first, mut second) = pair(2, PATIENCE).await;
    for lane in [0, 1, 2] {
        first.links.reset_lane(second.id, lane);
        for node in [&mut first, &mut second] {
            let seen = node.next(|seen| Some(seen.clone())).await;
            assert_eq!(seen, Seen::Repaired(lane));
        }
    }
}

/// Operations end at the sender, with their memory taken back, while others go on and lanes break.
///
/// 1. Twenty operations of twenty segments are queued. 2. At every fifth arrival a lane is reset;
///    at every eleventh an odd operation ends. 3. All segments of even operations arrive, once;
///    those of odd ones once at most, and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_end_do_not_disturb_those_that_go_on_while_lanes_break() {
    let (first, mut second) = pair(3, PATIENCE).await;
    let sources: Vec<Segments> = (0..20).map(|_| Segments::patterned(400, 20_000)).collect();
    let received = Segments::new(400, 20_000);
    received.place_into(&second);
    for segment in 0..400_u32 {
        let number = segment % 20;
        let header = FrameHeader {
            op: op(number.into()),
            ..bulk_header(segment, 20_000)
        };
        let payload = Payload::Lent(sources[number as usize].get(segment));
        first.links.bulk(second.id, header, payload);
    }
    let mut missing: BTreeSet<u32> = (0..400).filter(|segment| segment % 2 == 0).collect();
    let mut arrived = BTreeSet::new();
    let mut ending = (1..20).step_by(2);
    while !missing.is_empty() {
        let segment = second
            .next(|seen| match seen {
                Seen::Arrived(segment) => Some(*segment),
                Seen::Down(fault, true) => panic!("given up: {fault:?}"),
                _ => None,
            })
            .await;
        assert!(arrived.insert(segment), "segment {segment} came twice");
        missing.remove(&segment);
        received.assert_patterned(segment);
        let count = arrived.len();
        if count.is_multiple_of(5) {
            first
                .links
                .reset_lane(second.id, u16::try_from(count / 5 % 4).unwrap());
        }
        if count.is_multiple_of(11)
            && let Some(number) = ending.next()
        {
            sources[number].gate.close();
            first.links.forget(op(number as u64));
        }
    }
    assert!(first.links.counters()[&second.id].repairs > 0);
}
