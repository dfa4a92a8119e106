//! The other side ends, hangs, sends wrong data, or takes its memory back.

use tokio::io::AsyncWriteExt;

use super::raw::{Raw, frame, hello, stranger};
use super::*;
use crate::limits::SIGNAL_PAYLOAD_BYTES_MAX;
use crate::wire::data::{Answer, Content, Header};

const BRIEF: Duration = Duration::from_millis(400);

#[tokio::test]
async fn the_end_of_the_other_process_is_reported_at_once_by_the_side_that_dials() {
    let (first, mut second) = pair(2, PATIENCE).await;
    first.links.shutdown();
    drop(first);
    second.next_is(Seen::Down(LinkFault::Ended, false)).await;
    second.next_is(Seen::Down(LinkFault::Refused, true)).await;
}

#[tokio::test]
async fn the_end_of_the_other_process_is_evidence_and_then_given_up_by_the_dialled_side() {
    let (mut first, second) = pair(2, BRIEF).await;
    second.links.shutdown();
    first.next_is(Seen::Down(LinkFault::Ended, false)).await;
    first.next_is(Seen::Down(LinkFault::TimedOut, true)).await;
}

#[tokio::test]
async fn a_silent_link_is_given_up_and_comes_back_when_the_other_side_does() {
    let mut node = Node::new(1, 1, BRIEF);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let _silent = Raw::link(&mut node, id).await;
    node.next_is(Seen::Down(LinkFault::TimedOut, true)).await;
    let mut lanes = Vec::new();
    for lane in [0, 1] {
        let mut again = hello(&node, id, lane);
        again.attempt = 2;
        lanes.push(Raw::greet(&node, &again).await);
    }
    node.next_is(Seen::Up).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_bounded_memory_and_its_link() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let _deaf = Raw::link(&mut node, id).await;
    let payload = Bytes::from(vec![7; SIGNAL_PAYLOAD_BYTES_MAX]);
    for index in 0..1000 {
        node.links
            .signal(id, signal_header(index, &payload), payload.clone());
    }
    node.next_is(Seen::Down(LinkFault::TimedOut, true)).await;
}

/// 1. The bulk lane fills its socket and stops within a frame. 2. The memory is taken back. 3. The
/// started frame arrives as void, the rest as skips, and the lane goes on.
#[tokio::test]
async fn memory_taken_back_by_the_sender_leaves_a_void_frame_and_skips() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let bytes = 256 << 10;
    let sent = Segments::patterned(100, bytes);
    for segment in 0..100 {
        sent.send(&node.links, id, segment);
    }
    let before = wait_until_stuck(&node, id).await;
    assert!(before < 100 * bytes as u64, "the socket is full");
    sent.gate.close();
    let last = Segments::patterned(1, 10);
    let header = FrameHeader {
        op: op(2),
        ..bulk_header(0, 10)
    };
    node.links.bulk(id, header, Payload::Lent(last.get(0)));
    let (mut valid, mut void, mut skipped) = (0, 0, 0);
    for sequence in 0..100 {
        let (header, encoded) = bulk.read_header().await;
        assert_eq!(header.sequence, sequence);
        match header.content {
            Content::Skip => skipped += 1,
            _ if bulk.read_payload(&encoded, bytes).await.is_some() => {
                assert_eq!(void, 0, "nothing whole comes after the memory is gone");
                valid += 1;
            }
            _ => void += 1,
        }
    }
    assert!(void <= 1 && skipped > 0, "{valid} {void} {skipped}");
    assert!(
        void == 1,
        "the socket filled up within a frame: {valid} {skipped}"
    );
    let (header, encoded) = bulk.read_header().await;
    assert_eq!(header.sequence, 100);
    assert_eq!(bulk.read_payload(&encoded, 10).await, Some(pattern(0, 10)));
}

/// Waits until a bulk lane sends no more bytes; returns how many it has sent.
async fn wait_until_stuck(node: &Node, to: PeerId) -> u64 {
    let sent = || node.links.counters()[&to].lane_sent_bytes[1];
    let mut last = sent();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..2 {
        ticks.tick().await;
    }
    while sent() != last || last == 0 {
        last = sent();
        ticks.tick().await;
    }
    last
}

#[tokio::test]
async fn memory_taken_back_by_the_receiver_swallows_the_rest_of_the_frame() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let revoked = Segments::new(1, 100_000);
    let kept = Segments::new(2, 100_000);
    let (first, second) = (revoked.get(0), kept.get(1));
    node.recorder
        .place_by(move |header| match header.frame.first() {
            0 => Placement::Memory(first.clone()),
            _ => Placement::Memory(second.clone()),
        });
    let whole = frame(0, bulk_header(0, 100_000), &pattern(0, 100_000));
    bulk.write(&whole[..30_000]).await;
    node.next_is(Seen::Placed(0)).await;
    revoked.gate.close();
    bulk.write(&whole[30_000..]).await;
    bulk.write(&frame(1, bulk_header(1, 100_000), &pattern(1, 100_000)))
        .await;
    node.next_is(Seen::Placed(1)).await;
    let seen = node.next(|seen| Some(seen.clone())).await;
    assert_eq!(seen, Seen::Arrived(1), "the revoked frame is not handed up");
    kept.assert_patterned(1);
}

#[tokio::test]
async fn a_damaged_payload_is_never_handed_up_and_comes_again() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let received = Segments::new(1, 1000);
    received.place_into(&node.recorder);
    let good = frame(0, bulk_header(0, 1000), &pattern(0, 1000));
    let mut damaged = good.clone();
    damaged[500] ^= 4;
    bulk.write(&damaged).await;
    assert!(bulk.is_closed().await, "the lane is closed");
    let mut again = hello(&node, id, 1);
    again.attempt = 2;
    let (mut bulk, welcome) = Raw::greet(&node, &again).await;
    assert_eq!(welcome.next_expected, 0, "the damaged frame did not count");
    node.next_is(Seen::Repaired(1)).await;
    bulk.write(&good).await;
    let seen = node
        .next(|seen| (!matches!(seen, Seen::Placed(_))).then(|| seen.clone()))
        .await;
    assert_eq!(seen, Seen::Arrived(0));
    received.assert_patterned(0);
}

#[tokio::test]
async fn a_frame_that_is_damaged_every_time_ends_the_link() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let mut damaged = frame(0, bulk_header(0, 1000), &pattern(0, 1000));
    damaged[70] ^= 1;
    Segments::new(1, 1000).place_into(&node.recorder);
    for attempt in 2..=8 {
        bulk.write(&damaged).await;
        assert!(bulk.is_closed().await);
        let mut again = hello(&node, id, 1);
        again.attempt = attempt;
        bulk = Raw::greet(&node, &again).await.0;
    }
    bulk.write(&damaged).await;
    node.next_is(Seen::Down(LinkFault::Protocol, true)).await;
}

#[tokio::test]
async fn what_the_protocol_forbids_ends_the_link() {
    let wrong_lane = (1, frame(0, signal_header(0, &Bytes::new()), b""));
    let refused = (1, frame(0, bulk_header(0, 4), b"abcd"));
    let long = SIGNAL_PAYLOAD_BYTES_MAX + 1;
    let too_long = (0, frame(0, bulk_header(0, long), &vec![0; long]));
    for (lane, bytes) in [wrong_lane, refused, too_long] {
        let mut node = Node::new(1, 1, PATIENCE);
        let (id, neighbour) = stranger(5);
        node.want(&[(id, neighbour)]);
        node.recorder
            .place_by(|_| Placement::Refuse("nobody asked for it"));
        let (mut signal, mut bulk) = Raw::link(&mut node, id).await;
        let raw = if lane == 0 { &mut signal } else { &mut bulk };
        raw.stream.write_all(&bytes).await.ok();
        node.next_is(Seen::Down(LinkFault::Protocol, true)).await;
        assert!(signal.is_closed().await && bulk.is_closed().await);
    }
}

#[tokio::test]
async fn acknowledging_what_was_never_sent_costs_the_lane() {
    let mut node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let (_signal, mut bulk) = Raw::link(&mut node, id).await;
    let ack = Header {
        content: Content::Ack,
        sequence: 0,
        ack: 1,
    };
    bulk.write(&ack.encode()).await;
    assert!(bulk.is_closed().await);
}

/// One side drops the link and wants it again, while the other keeps it all the time.
#[tokio::test]
async fn a_link_that_one_side_forgot_begins_anew() {
    let (mut first, mut second) = pair(2, PATIENCE).await;
    for is_dialler in [true, false] {
        let (forgetful, other) = if is_dialler {
            (&mut second, &mut first)
        } else {
            (&mut first, &mut second)
        };
        forgetful.want(&[]);
        other.next_is(Seen::Down(LinkFault::Ended, false)).await;
        forgetful.want(&[(other.id, other.as_neighbour(is_dialler))]);
        forgetful.next_is(Seen::Up).await;
        other.next_is(Seen::Up).await;
        let payload = Bytes::from_static(b"hello again");
        let header = signal_header(3, &payload);
        other.links.signal(forgetful.id, header, payload.clone());
        forgetful.links.signal(other.id, header, payload.clone());
        let wanted = Seen::Signal(header, payload);
        other.next_is(wanted.clone()).await;
        forgetful.next_is(wanted).await;
    }
}

#[tokio::test]
async fn a_hello_that_knows_another_link_is_told_so() {
    let node = Node::new(1, 1, PATIENCE);
    let (id, neighbour) = stranger(5);
    node.want(&[(id, neighbour)]);
    let mut stale = hello(&node, id, 0);
    stale.known = 99;
    let (mut raw, welcome) = Raw::greet(&node, &stale).await;
    assert_eq!(welcome.answer, Answer::Stale);
    assert!(raw.is_closed().await);
}
