//! Bytes to messages and back: round trips, limits from both sides, and damaged bytes.

mod any;

use proptest::collection::vec;
use proptest::prelude::*;

use any::{ring, to_master, to_peer};

use super::*;
use crate::ids::*;
use crate::limits::*;
use crate::wire::control::*;

fn frame_of<M: Message>(message: &M) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    frame
}

fn pop_all<M: Message>(deframer: &mut Deframer) -> Vec<M> {
    std::iter::from_fn(|| deframer.pop().unwrap()).collect()
}

fn sample() -> PeerToMaster {
    PeerToMaster::AtSafePoint { k: 300, ahead: 0 }
}

proptest! {
    #[test]
    fn messages_to_the_master_come_back_whole_split_anywhere(
        messages in vec(to_master(), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check_round_trip(&messages, &cuts)?;
    }

    #[test]
    fn messages_to_a_peer_come_back_whole_split_anywhere(
        messages in vec(to_peer(), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check_round_trip(&messages, &cuts)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(chunks in vec(vec(any::<u8>(), 0..200), 0..6)) {
        let mut deframer = Deframer::new(1 << 16);
        for chunk in chunks {
            deframer.push(&chunk);
            while let Ok(Some(_)) = deframer.pop::<PeerToMaster>() {}
        }
    }

    #[test]
    fn arbitrary_bodies_with_a_right_checksum_never_panic(body in vec(any::<u8>(), 0..300)) {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend(&body);
        seal(&mut frame, MasterToPeer::MARKER).unwrap();
        let mut deframer = Deframer::new(1 << 16);
        deframer.push(&frame);
        let _: Result<Option<MasterToPeer>, _> = deframer.pop();
        frame[4] = PeerToMaster::MARKER;
        let mut deframer = Deframer::new(1 << 16);
        deframer.push(&frame);
        let _: Result<Option<PeerToMaster>, _> = deframer.pop();
    }

    #[test]
    fn no_damaged_frame_is_taken_for_the_message(
        message in to_master(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut frame = frame_of(&message);
        let at = at.index(frame.len());
        frame[at] ^= flip;
        let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
        deframer.push(&frame);
        // A length that grew waits for more; everything else is an error.
        let popped = deframer.pop::<PeerToMaster>();
        prop_assert!(matches!(popped, Err(_) | Ok(None)), "{popped:?}");
        prop_assert!(at < 4 || popped.is_err());
    }
}

fn check_round_trip<M>(messages: &[M], cuts: &[prop::sample::Index]) -> Result<(), TestCaseError>
where
    M: Message + PartialEq + std::fmt::Debug,
{
    let mut stream = Vec::new();
    for message in messages {
        encode(message, &mut stream).unwrap();
    }
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    let mut popped: Vec<M> = Vec::new();
    for pair in cuts.windows(2) {
        deframer.push(&stream[pair[0]..pair[1]]);
        popped.extend(pop_all(&mut deframer));
    }
    prop_assert_eq!(popped.as_slice(), messages);
    prop_assert_eq!(deframer.buffered_bytes(), 0);
    Ok(())
}

#[test]
fn one_byte_at_a_time_gives_the_same_messages() {
    let stream = [frame_of(&sample()), frame_of(&PeerToMaster::Ping)].concat();
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    let mut popped = Vec::new();
    for byte in stream {
        deframer.push(&[byte]);
        popped.extend(pop_all::<PeerToMaster>(&mut deframer));
    }
    assert_eq!(popped, [sample(), PeerToMaster::Ping]);
}

#[test]
fn the_layout_is_fixed() {
    let frame = frame_of(&sample());
    assert_eq!(frame[..5], [4, 0, 0, 0, 1]);
    assert_eq!(frame[5..9], crc32fast::hash(&frame[9..]).to_le_bytes());
    assert_eq!(frame[9..], [8, 0xac, 0x02, 0]);
    let pong = MasterToPeer::Pong {
        term: Term(7),
        others: OtherGroups::default(),
        waits: None,
    };
    assert_eq!(frame_of(&pong)[4], 0x81);
}

/// The fields after the version in a `Hello` of another version are unknown: the sender must get an
/// error about the version, not about the decoding.
#[test]
fn a_hello_of_another_version_is_understood_as_far_as_its_version() {
    for version in [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, u32::MAX] {
        let mut body = postcard::to_allocvec(&(0_u32, version)).unwrap();
        body.extend([0xff; 40]);
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend(&body);
        seal(&mut frame, PeerToMaster::MARKER).unwrap();
        let mut deframer = Deframer::new(16 << 10);
        deframer.push(&frame);
        let hello = deframer.pop::<PeerToMaster>().unwrap();
        let Some(PeerToMaster::Hello { protocol, .. }) = hello else {
            panic!("{hello:?}");
        };
        assert_eq!(protocol, version);
    }
}

/// Refusals must be readable across versions.
#[test]
fn a_refusal_looks_the_same_in_each_version() {
    let refusal = MasterToPeer::Refused {
        reason: "no".into(),
    };
    assert_eq!(frame_of(&refusal)[FRAME_HEADER_BYTES..], [9, 2, b'n', b'o']);
}

#[test]
fn an_announced_length_is_refused_at_the_header_and_costs_no_memory() {
    let mut deframer = Deframer::new(16 << 10);
    deframer.push(&u32::MAX.to_le_bytes());
    let error = deframer.pop::<PeerToMaster>().unwrap_err();
    let bytes = u64::from(u32::MAX) + FRAME_HEADER_BYTES as u64;
    assert_eq!(
        error,
        FrameError::TooLong {
            bytes,
            max: 16 << 10
        }
    );
    assert_eq!(deframer.bytes.capacity(), 0);

    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    deframer.push(&[0, 0, 0x1f, 0, FRAME_VERSION, 0, 0, 0, 0, 1]);
    assert_eq!(deframer.pop::<PeerToMaster>(), Ok(None));
    assert!(deframer.bytes.capacity() < 64);
}

#[test]
fn the_limit_holds_on_both_sides_of_its_edge() {
    let frame = frame_of(&sample());
    let max = frame.len() as u32;
    for (max, fits) in [(max, true), (max - 1, false)] {
        let mut deframer = Deframer::new(max);
        deframer.push(&frame);
        assert_eq!(deframer.pop::<PeerToMaster>().is_ok(), fits);
    }
}

#[test]
fn a_long_frame_gives_its_memory_back() {
    let reason = "x".repeat(TEXT_BYTES_MAX);
    let mut frames = Vec::new();
    for _ in 0..20 {
        encode(
            &MasterToPeer::Refused {
                reason: reason.clone(),
            },
            &mut frames,
        )
        .unwrap();
    }
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    deframer.push(&frames);
    assert_eq!(pop_all::<MasterToPeer>(&mut deframer).len(), 20);
    assert_eq!(deframer.bytes.capacity(), 0);
}

#[test]
fn every_refusal_says_what_is_wrong_and_stays() {
    let good = frame_of(&sample());
    let damaged = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let trailing = {
        let mut frame = good.clone();
        frame.push(0);
        seal(&mut frame, PeerToMaster::MARKER).unwrap();
        frame
    };
    let unknown = {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.push(99);
        seal(&mut frame, PeerToMaster::MARKER).unwrap();
        frame
    };
    let cases = [
        (damaged(4, 9), "control frame version 9, this side speaks 1"),
        (damaged(4, 0x81), "wrong side"),
        (damaged(9, 0), "checksum is"),
        (trailing, "1 bytes left after its end"),
        (unknown, "cannot decode the control message"),
        (
            b"GET / HTTP/1.1\r\n".to_vec(),
            "a control frame of 542393680 bytes",
        ),
    ];
    for (bytes, words) in cases {
        let mut deframer = Deframer::new(1 << 14);
        deframer.push(&bytes);
        let error = deframer.pop::<PeerToMaster>().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        deframer.push(&good);
        assert_eq!(deframer.pop::<PeerToMaster>(), Err(error));
    }
}

#[test]
fn a_list_over_its_limit_is_named_and_never_kept_whole() {
    let linked: Vec<_> = (0..20_000).map(PeerId).collect();
    let vid = Vid::default();
    let ready = PeerToMaster::Ready { vid, linked };
    let mut untouched = vec![7];
    assert!(encode(&ready, &mut untouched).is_err());
    assert_eq!(untouched, [7]);

    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend(postcard::to_stdvec(&ready).unwrap());
    seal(&mut frame, PeerToMaster::MARKER).unwrap();
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    deframer.push(&frame);
    let error = deframer.pop::<PeerToMaster>().unwrap_err();
    let violation = Violation::OverLimit {
        what: "linked",
        found: PEERS_MAX as u64 + 1,
        max: PEERS_MAX as u64,
    };
    assert_eq!(error, FrameError::OutOfBounds(violation));

    let body = &frame[FRAME_HEADER_BYTES..];
    let Ok(PeerToMaster::Ready { linked, .. }) = postcard::from_bytes(body) else {
        panic!("the body decodes");
    };
    assert_eq!(linked.len(), PEERS_MAX + 1);
}

#[test]
fn a_message_longer_than_a_frame_is_not_encoded() {
    let members: Vec<_> = (0..WORLD_SIZE_MAX as u64)
        .map(|i| PeerId(u64::MAX - i))
        .collect();
    let carried = (0..TAGS_MAX as u64)
        .map(|tag| Birth {
            op: OpName {
                tag: Tag(tag),
                ..OpName::default()
            },
            ring_order: ring(members.len()).into(),
            members: members.clone().into(),
            costs: CostTable::default(),
        })
        .collect();
    let report = Report {
        carried,
        ..Report::default()
    };
    let vid = Vid::default();
    let mut frames = Vec::new();
    let error = encode(&PeerToMaster::Flush { vid, report }, &mut frames).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    assert!(frames.is_empty());
}
