//! Acknowledgements that nobody waited for.

use super::*;
use crate::transport::{Frame, FrameHeader};

fn header() -> FrameHeader {
    FrameHeader {
        op: crate::ids::OpName::default(),
        frame: Frame::Post {
            ahead: 0,
            fingerprint_bytes: 0,
        },
        payload_bytes: 0,
    }
}

/// A signal lane that has sent this many frames.
fn lane_after(count: u64) -> Arc<Lane> {
    let lane = Lane::new(0);
    let mut out = lane.out.lock();
    for _ in 0..count {
        out.window.push(small(header(), Bytes::new()));
        out.window.next();
    }
    drop(out);
    lane
}

#[test]
fn a_reader_does_not_wait_for_a_writer_and_what_it_missed_is_covered_later() {
    let lane = lane_after(3);
    let out = lane.out.lock();
    assert_eq!(lane.handle_ack(2), Ok(()), "without the lock");
    assert_eq!(out.window.len(), 3);
    drop(out);
    assert_eq!(lane.handle_ack(3), Ok(()));
    assert!(!lane.has_unsettled());
    assert_eq!(
        lane.handle_ack(2),
        Err(DataFault::Field("ack")),
        "backwards"
    );
}

#[test]
fn nothing_is_unsettled_that_an_acknowledgement_covers_which_nobody_waited_for() {
    let lane = lane_after(1);
    let out = lane.out.lock();
    assert_eq!(lane.handle_ack(1), Ok(()), "without the lock");
    drop(out);
    assert!(!lane.has_unsettled());
}

#[test]
fn a_full_queue_lets_go_of_what_a_missed_acknowledgement_covers() {
    let lane = lane_after(1);
    let full = Bytes::from(vec![0; crate::limits::SIGNAL_QUEUE_BYTES_MAX + 1]);
    let mut out = lane.out.lock();
    out.window.push(small(header(), full));
    out.window.next();
    lane.handle_ack(2).unwrap();
    drop(out);
    assert_eq!(lane.send_signal(header(), Bytes::new()), signal::Sent::Kept);
    assert_eq!(lane.out.lock().window.len(), 1, "the new one alone");
}
