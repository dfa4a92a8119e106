//! A link that gets more lanes than it began with.

use super::*;

/// Goal: lanes that the dialling side adds come up at both sides, carry frames, and count as no
/// repair. 1. A link with 2 lanes. 2. The dialling side adds 3. 3. Both sides know of 5, and frames
/// that are sent in both directions arrive.
#[tokio::test]
async fn added_lanes_come_up_at_both_sides() {
    let (mut first, mut second) = pair(2, PATIENCE).await;
    assert!(second.links.add_lanes(first.id, 5).await);
    assert!(!second.links.add_lanes(first.id, 4).await, "it has more");
    let segments = Segments::patterned(64, 10_000);
    let received = [Segments::new(64, 10_000), Segments::new(64, 10_000)];
    received[0].place_into(&first.recorder);
    received[1].place_into(&second.recorder);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let is_spread = |node: &Node, to| {
        let counters = &node.links.counters()[&to];
        counters.lane_sent_bytes.len() == 6 && counters.lane_sent_bytes.iter().all(|sent| *sent > 0)
    };
    while !is_spread(&first, second.id) || !is_spread(&second, first.id) {
        ticks.tick().await;
        for segment in 0..64 {
            segments.send(&first.links, second.id, segment);
            segments.send(&second.links, first.id, segment);
        }
        first.next_is(Seen::Arrived(63)).await;
        second.next_is(Seen::Arrived(63)).await;
    }
    received
        .iter()
        .for_each(|received| received.assert_patterned(63));
    for (node, to) in [(&mut first, PeerId(2)), (&mut second, PeerId(1))] {
        assert_eq!(node.links.counters()[&to].repairs, 0);
        let seen = node.drain();
        assert!(
            !seen.iter().any(|seen| matches!(seen, Seen::Down(..))),
            "{seen:?}"
        );
    }
}
