//! Frames sent at one end arrive at the other: once, complete, and on all lanes.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::recorder::{Seen, Segments, bulk_header, op, pattern, signal_header};
use super::{Network, Stage};
use crate::transport::{FrameHeader, LinkSender, Links, Payload, Placement};
use crate::wire::control::LinkFault;

const SEGMENT_BYTES: usize = 64 << 10;

/// Waits until each of `count` segments has arrived, once.
fn all_arrive<N: Network>(stage: &mut Stage<N>, at: usize, count: u32) {
    let mut missing: BTreeSet<u32> = (0..count).collect();
    while !missing.is_empty() {
        match stage.next(at) {
            Seen::Arrived(segment) => assert!(missing.remove(&segment), "{segment} came twice"),
            Seen::Down(fault, gave_up) => panic!("link down: {fault:?} {gave_up}"),
            _ => {}
        }
    }
}

pub(super) fn segments_cross_in_both_directions_over_all_lanes<N: Network>() {
    let mut stage = Stage::<N>::pair(8);
    let count = 512;
    let sent = Segments::patterned(count, SEGMENT_BYTES);
    let received = [0, 1].map(|_| Segments::new(count as usize, SEGMENT_BYTES));
    for (received, node) in received.iter().zip(&stage.nodes) {
        received.place_into(&node.recorder);
    }
    for at in [0, 1] {
        for segment in 0..count {
            sent.send(stage.links(at), stage.id(1 - at), segment);
        }
    }
    all_arrive(&mut stage, 0, count);
    all_arrive(&mut stage, 1, count);
    for segment in 0..count {
        received[0].assert_patterned(segment);
        received[1].assert_patterned(segment);
    }
}

pub(super) fn every_lane_carries_its_share_of_one_call<N: Network>() {
    let mut stage = Stage::<N>::pair(8);
    let (count, bytes) = (1024, 256 << 10);
    let sent = Segments::new(1, bytes);
    for segment in 0..count {
        let payload = Payload::Lent(sent.get(0));
        let (links, to) = (stage.links(0), stage.id(1));
        links.bulk(to, bulk_header(segment, bytes), payload);
    }
    for _ in 0..count {
        stage.find(1, |seen| matches!(seen, Seen::Placed(_)).then_some(()));
    }
    let counters = stage.links(0).counters().remove(&stage.id(1)).unwrap();
    let total: u64 = counters.lane_sent_bytes.iter().sum();
    for bytes in &counters.lane_sent_bytes[1..] {
        assert!(bytes * 20 > total, "a lane is idle: {counters:?}");
    }
    assert_eq!(counters.repairs, 0);
}

pub(super) fn signals_of_any_length_arrive_in_order<N: Network>() {
    let mut stage = Stage::<N>::pair(1);
    let lengths = [0, 1, 63, 64, 65, 4096, 16 << 10, 65_536, 69_632];
    let payloads: Vec<Bytes> = (0..200)
        .map(|index| pattern(index, lengths[index as usize % lengths.len()]).into())
        .collect();
    for (index, payload) in (0..).zip(&payloads) {
        let header = signal_header(index, payload);
        stage.links(0).signal(stage.id(1), header, payload.clone());
    }
    for (index, payload) in (0..).zip(&payloads) {
        let wanted = Seen::Signal(signal_header(index, payload), payload.clone());
        assert!(stage.next(1) == wanted, "signal {index} is another");
    }
}

pub(super) fn frames_sent_before_the_link_is_up_are_kept_unless_forgotten<N: Network>() {
    let mut stage = Stage::<N>::strangers(2);
    stage.want(1, 0);
    let sent = Segments::patterned(2, SEGMENT_BYTES);
    let received = Segments::new(2, SEGMENT_BYTES);
    received.place_into(&stage.nodes[0].recorder);
    let (links, to) = (stage.links(1), stage.id(0));
    sent.send(links, to, 0);
    links.forget(op(1));
    sent.send(links, to, 1);
    links.signal(to, signal_header(9, &Bytes::new()), Bytes::new());
    stage.want(0, 1);
    stage.next_is(1, Seen::Up);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(stage.find(0, |seen| match seen {
            Seen::Signal(header, _) => Some(header.frame.first()),
            Seen::Arrived(segment) => Some(*segment),
            _ => None,
        }));
    }
    assert_eq!(seen, BTreeSet::from([1, 9]));
    received.assert_patterned(1);
}

pub(super) fn an_empty_segment_and_owned_bytes_travel_like_others<N: Network>() {
    let mut stage = Stage::<N>::pair(1);
    let received = Segments::new(3, 5);
    received.place_into(&stage.nodes[1].recorder);
    let payload = |bytes: &'static [u8]| Payload::Small(Bytes::from_static(bytes));
    let (links, to) = (stage.links(0), stage.id(1));
    links.bulk(to, bulk_header(0, 0), payload(b""));
    links.bulk(to, bulk_header(1, 5), payload(b"abcde"));
    stage.next_is(1, Seen::Arrived(0));
    stage.next_is(1, Seen::Arrived(1));
    assert_eq!(received.get(1).read(<[u8]>::to_vec).unwrap(), b"abcde");
}

/// Lanes are reset at both ends, a few dozen times, while segments and signals cross.
pub(super) fn nothing_is_lost_or_doubled_when_lanes_are_reset_again_and_again<N: Network>() {
    let mut stage = Stage::<N>::pair(3);
    let count = 400;
    let sent = Segments::patterned(count, SEGMENT_BYTES);
    let received = Segments::new(count as usize, SEGMENT_BYTES);
    received.place_into(&stage.nodes[1].recorder);
    for segment in 0..count {
        let (links, to) = (stage.links(0), stage.id(1));
        sent.send(links, to, segment);
        let payload = Bytes::from(pattern(segment, 100 * (segment as usize % 60)));
        links.signal(to, signal_header(segment, &payload), payload);
    }
    let mut next_signal = 0;
    let mut missing: BTreeSet<u32> = (0..count).collect();
    let mut arrivals = 0_u16;
    while !missing.is_empty() || next_signal < count {
        match stage.next(1) {
            Seen::Arrived(segment) => {
                assert!(missing.remove(&segment), "segment {segment} came twice");
                arrivals += 1;
                if arrivals.is_multiple_of(7) {
                    stage.reset_lane(usize::from(arrivals % 2), (arrivals / 7) % 4);
                }
            }
            Seen::Signal(header, payload) => {
                assert_eq!(
                    header.frame.first(),
                    next_signal,
                    "signals keep their order"
                );
                assert_eq!(payload.len(), 100 * (next_signal as usize % 60));
                next_signal += 1;
            }
            Seen::Down(fault, gave_up) => assert!(!gave_up, "given up: {fault:?}"),
            Seen::Up | Seen::Placed(_) | Seen::Repaired(_) | Seen::NoLink(_) => {}
        }
    }
    for segment in 0..count {
        received.assert_patterned(segment);
    }
    let repairs = stage.links(0).counters()[&stage.id(1)].repairs;
    assert!(repairs > 0, "lanes were repaired");
    let seen = stage.log.seen.lock();
    let gave_up = |seen: &Seen| matches!(seen, Seen::Down(_, true));
    assert!(!seen[&stage.id(0)].iter().any(gave_up));
}

pub(super) fn a_repaired_lane_is_reported_and_the_link_is_not<N: Network>() {
    let mut stage = Stage::<N>::pair(2);
    for lane in [0, 1, 2] {
        stage.reset_lane(0, lane);
        for at in [0, 1] {
            assert_eq!(stage.next(at), Seen::Repaired(lane));
        }
    }
}

/// Operations end at the sender, with their memory taken back, while others go on and lanes break.
///
/// 1. Twenty operations of twenty segments are queued. 2. At every fifth arrival a lane is reset;
///    at every eleventh an odd operation ends. 3. All segments of even operations arrive, once;
///    those of odd ones arrive at most once, and complete.
pub(super) fn operations_that_end_do_not_disturb_those_that_go_on_while_lanes_break<N: Network>() {
    let mut stage = Stage::<N>::pair(3);
    let sources: Vec<Segments> = (0..20).map(|_| Segments::patterned(400, 20_000)).collect();
    let received = Segments::new(400, 20_000);
    received.place_into(&stage.nodes[1].recorder);
    for segment in 0..400_u32 {
        let number = segment % 20;
        let header = FrameHeader {
            op: op(number.into()),
            ..bulk_header(segment, 20_000)
        };
        let payload = Payload::Lent(sources[number as usize].get(segment));
        stage.links(0).bulk(stage.id(1), header, payload);
    }
    let mut missing: BTreeSet<u32> = (0..400).filter(|segment| segment % 2 == 0).collect();
    let mut arrived = BTreeSet::new();
    let mut ending = (1..20).step_by(2);
    while !missing.is_empty() {
        let segment = stage.find(1, |seen| match seen {
            Seen::Arrived(segment) => Some(*segment),
            Seen::Down(fault, true) => panic!("given up: {fault:?}"),
            _ => None,
        });
        assert!(arrived.insert(segment), "segment {segment} came twice");
        missing.remove(&segment);
        received.assert_patterned(segment);
        let count = arrived.len();
        if count.is_multiple_of(5) {
            stage.reset_lane(0, u16::try_from(count / 5 % 4).unwrap());
        }
        if count.is_multiple_of(11)
            && let Some(number) = ending.next()
        {
            sources[number].gate.close();
            stage.links(0).forget(op(number as u64));
        }
    }
    assert!(stage.links(0).counters()[&stage.id(1)].repairs > 0);
}

pub(super) fn a_frame_that_nobody_asked_for_ends_the_link<N: Network>() {
    let mut stage = Stage::<N>::pair(1);
    let recorder = &stage.nodes[1].recorder;
    recorder.place_by(|_| Placement::Refuse("nobody asked for it"));
    Segments::new(1, 4).send(stage.links(0), stage.id(1), 0);
    stage.next_is(1, Seen::Down(LinkFault::Protocol, true));
    stage.next_is(0, Seen::Down(LinkFault::Ended, false));
}

pub(super) fn memory_taken_back_by_the_receiver_takes_the_frame_with_it<N: Network>() {
    let mut stage = Stage::<N>::pair(1);
    let sent = Segments::patterned(2, SEGMENT_BYTES);
    let (revoked, kept) = (
        Segments::new(1, SEGMENT_BYTES),
        Segments::new(2, SEGMENT_BYTES),
    );
    let (first, second) = (revoked.get(0), kept.get(1));
    stage.nodes[1].recorder.place_by(move |header| {
        let is_first = header.frame.first() == 0;
        Placement::Memory(if is_first { &first } else { &second }.clone())
    });
    revoked.gate.close();
    for segment in [0, 1] {
        sent.send(stage.links(0), stage.id(1), segment);
    }
    let arrived = |seen: &Seen| matches!(seen, Seen::Arrived(_)).then(|| seen.clone());
    assert_eq!(stage.find(1, arrived), Seen::Arrived(1));
    kept.assert_patterned(1);
}

pub(super) fn the_end_of_the_other_side_is_reported_and_given_up<N: Network>() {
    let mut stage = Stage::<N>::pair(2);
    stage.links(0).shutdown();
    assert!(stage.links(0).wait_closed(super::PATIENCE));
    stage.next_is(1, Seen::Down(LinkFault::Ended, false));
    stage.next_is(1, Seen::Down(LinkFault::Refused, true));
}

/// One side drops the link and wants it again, while the other keeps it all the time.
pub(super) fn a_link_that_one_side_forgot_begins_anew<N: Network>() {
    let mut stage = Stage::<N>::pair(2);
    for (forgetful, other) in [(0, 1), (1, 0)] {
        stage.links(forgetful).set_wanted(&Default::default());
        stage.next_is(other, Seen::Down(LinkFault::Ended, false));
        stage.want(forgetful, other);
        stage.next_is(forgetful, Seen::Up);
        stage.next_is(other, Seen::Up);
        let payload = Bytes::from_static(b"hello again");
        let header = signal_header(3, &payload);
        for (from, to) in [(forgetful, other), (other, forgetful)] {
            let to = stage.id(to);
            stage.links(from).signal(to, header, payload.clone());
        }
        let wanted = Seen::Signal(header, payload);
        stage.next_is(other, wanted.clone());
        stage.next_is(forgetful, wanted);
    }
}

/// Link names increase, so that late reports of an earlier link can be recognised.
pub(super) fn an_earlier_link_is_not_the_current_one<N: Network>() {
    let mut stage = Stage::<N>::pair(1);
    let names = |stage: &Stage<N>| {
        let peer = stage.id(1);
        let name = |incarnation| crate::transport::LinkName { peer, incarnation };
        let current = |it: &u64| stage.links(0).is_current(name(*it));
        (0..100).filter(current).collect::<Vec<u64>>()
    };
    let before = names(&stage);
    stage.links(0).set_wanted(&Default::default());
    assert_eq!(names(&stage), [0; 0], "no link, no name");
    stage.want(0, 1);
    stage.next_is(0, Seen::Up);
    let after = names(&stage);
    assert!(
        before.len() == 1 && after.len() == 1 && after > before,
        "{before:?} {after:?}"
    );
}
