//! Padding over the bulk lanes of a link that was not used yet.
//!
//! The links here never leave the host, so no pacer of theirs probes. The tests have a pacer of
//! their own, and tell it of a long path.

use super::raw::{Raw, frame, hello, stranger};
use super::*;
use crate::limits::SEGMENT_BYTES_MAX;
use crate::net::Condition;
use crate::transport::tcp::link::Link;
use crate::transport::tcp::pacer::Pacer;
use crate::transport::tcp::probe::BYTES_MAX;
use crate::transport::tcp::tuner::LaneSample;
use crate::wire::data::{Content, HEADER_BYTES, Header};

/// A lane over a long path, with room for so many bytes.
fn lane(lane: u16, window_bytes: u64) -> LaneSample {
    let rtt = Duration::from_millis(100);
    LaneSample {
        lane,
        connection: 1,
        condition: Condition {
            window_bytes,
            rtt,
            min_rtt: rtt,
            ..Condition::default()
        },
    }
}

fn link(node: &Node, to: PeerId) -> Arc<Link> {
    node.links.0.link(to).expect("the link is wanted")
}

fn header_of_padding(bytes: u32) -> [u8; HEADER_BYTES] {
    let header = Header {
        content: Content::Padding(bytes),
        sequence: 0,
        ack: 0,
    };
    header.encode()
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while !is_so() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Goal: padding stops at its budget and leaves no trace. 1. A link with 2 lanes; one side probes
/// as if its windows were unlimited. 2. All of the budget arrives. 3. The handlers saw nothing, no
/// frame waits to be settled, and the first segments of both sides have numbers of their own.
#[tokio::test]
async fn padding_stops_at_its_budget_and_is_discarded() {
    let (mut first, mut second) = pair(2, PATIENCE).await;
    let (sending, receiving) = (link(&second, first.id), link(&first, second.id));
    let mut pacer = Pacer::new(Arc::clone(&sending));
    let is_taken = || {
        let mut bulk = sending.lanes()[1..].iter();
        bulk.all(|lane| lane.padding.load(std::sync::atomic::Ordering::Relaxed) == 0)
    };
    while pacer.probe(&[lane(1, u64::MAX), lane(2, u64::MAX)], false) {
        wait_until(is_taken).await;
    }
    let bulk_bytes = |counters: &crate::transport::LinkCounters| -> u64 {
        counters.lane_sent_bytes[1..].iter().sum()
    };
    let headers = BYTES_MAX / SEGMENT_BYTES_MAX as u64 * HEADER_BYTES as u64;
    wait_until(|| bulk_bytes(&sending.counters()) == BYTES_MAX + headers).await;
    wait_until(|| receiving.received_bytes() >= BYTES_MAX + headers).await;
    assert!(!sending.has_unsettled());
    assert_eq!((first.drain(), second.drain()), (vec![], vec![]));
    let segments = Segments::patterned(1, 1000);
    for (from, to) in [(&second, &first), (&first, &second)] {
        let received = Segments::new(1, 1000);
        received.place_into(&to.recorder);
        segments.send(&from.links, to.id, 0);
    }
    first.next_is(Seen::Arrived(0)).await;
    second.next_is(Seen::Arrived(0)).await;
}

/// Goal: padding is behind everything else. 1. The other side reads nothing, so padding fills the
/// lane's buffers. 2. A post arrives all the same. 3. A segment is queued: the probe ends, and no
/// padding comes after what was begun.
#[tokio::test]
async fn padding_delays_no_post_and_ends_with_the_first_segment() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (mut signal, mut bulk) = Raw::link(&mut node, id).await;
    let link = link(&node, id);
    let mut pacer = Pacer::new(Arc::clone(&link));
    let padding = || {
        link.lanes()[1]
            .padding
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let mut begun = 0;
    while padding() == 0 && pacer.probe(&[lane(1, u64::MAX)], false) {
        begun += 1;
        let sent = || link.counters().lane_sent_bytes[1];
        let before = sent();
        // The lane is stuck if it takes none within a tick.
        let is_taken = async { wait_until(|| padding() == 0 && sent() > before).await };
        let _ = tokio::time::timeout(Duration::from_millis(50), is_taken).await;
    }
    assert!(padding() > 0, "the socket is full");
    let payload = Bytes::from_static(b"first");
    node.links.signal(id, signal_header(7, &payload), payload);
    let (header, _) = signal.read_header().await;
    assert!(matches!(header.content, Content::Frame(frame) if frame.frame.first() == 7));
    Segments::patterned(1, 1000).send(&node.links, id, 0);
    assert!(!pacer.probe(&[lane(1, u64::MAX)], link.await_traffic()));
    let mut padded = 0;
    let (header, encoded) = loop {
        let bytes = bulk.read().await;
        let (header, _) = Header::decode(&bytes).unwrap();
        match header.content {
            Content::Padding(padding) => bulk.discard(padding as usize).await,
            Content::Frame(_) => break (header, bytes),
            _ => continue,
        }
        padded += 1;
    };
    assert!((1..=begun).contains(&padded), "{padded} of {begun}");
    assert_eq!(header.sequence, 0);
    let read = bulk.read_payload(&encoded, 1000).await;
    assert_eq!(read, Some(pattern(0, 1000)));
}

/// What is received around padding arrives; too much of it costs the connection, and padding on the
/// signal lane the link.
#[tokio::test]
async fn padding_that_is_too_long_or_misplaced_is_refused() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (mut signal, mut bulk) = Raw::link(&mut node, id).await;
    Segments::new(1, 1000).place_into(&node.recorder);
    let most = SEGMENT_BYTES_MAX as u32;
    bulk.write(&header_of_padding(most)).await;
    bulk.write(&vec![0x55; SEGMENT_BYTES_MAX]).await;
    bulk.write(&frame(0, bulk_header(0, 1000), &pattern(0, 1000)))
        .await;
    node.next_is(Seen::Arrived(0)).await;
    bulk.write(&header_of_padding(most + 1)).await;
    assert!(bulk.is_closed().await);
    let mut again = hello(&node, id, 1);
    again.attempt = 2;
    let (_bulk, welcome) = Raw::greet(&node, &again).await;
    assert_eq!(welcome.next_expected, 1, "what came before has arrived");
    node.next_is(Seen::Repaired(1)).await;
    signal.write(&header_of_padding(1)).await;
    node.next_is(Seen::Down(LinkFault::Protocol, true)).await;
}
