//! Frames that mean nothing, or that nobody asked for.

use super::*;

#[test]
fn a_frame_of_another_birth_or_of_a_stranger_changes_nothing() {
    let call = Call::all_reduce(2, Dtype::F32, 300);
    let mut world = World::new(3, LIMITS, 4);
    world.start(0, &call);
    world.start(1, &call);
    let mut stale = call.name();
    stale.birth = Vid::default();
    let credit = |op| FrameHeader {
        op,
        frame: Frame::Credit { first: 0, count: 1 },
        payload_bytes: 0,
    };
    world.inject(0, 1, credit(stale), Bytes::new());
    world.inject(2, 1, credit(call.name()), Bytes::new());
    world.run();
    check(&world, &call);
    assert!(world.peers.iter().all(|peer| peer.faults.is_empty()));
}

#[test]
fn posts_with_data_that_nobody_kept_are_asked_for_again() {
    for kind in [Kind::AllReduce, Kind::AllGather, Kind::Broadcast] {
        let mut world = World::new(3, LIMITS, 2);
        let calls: Vec<Call> = (0..12)
            .map(|tag| {
                let mut call = Call::all_reduce(3, Dtype::F32, 6);
                call.kind = kind;
                call.tag = tag;
                call
            })
            .collect();
        // Peer 0 is stopped and starts anew all the time, so that peer 1 keeps ever more of its
        // data.
        for call in &calls[..10] {
            world.start(0, call);
            world.run();
            world.stop(0, call.name());
        }
        for at in [0, 1, 2] {
            world.start(at, &calls[11]);
        }
        world.run();
        check(&world, &calls[11]);
    }
}

#[test]
fn bulk_frames_without_a_right_are_refused() {
    use crate::collective::step::Place;
    let call = Call::all_reduce(3, Dtype::F32, 300);
    let mut world = World::new(3, LIMITS, 4);
    world.start(0, &call);
    let layout = call.layout();
    let mut refused = |frame, payload_bytes| {
        let header = FrameHeader {
            op: call.name(),
            frame,
            payload_bytes,
        };
        let place = world.peers[0].exchange.place(peer(1), &header);
        assert!(matches!(place, Place::Refuse(_)), "{header:?}: {place:?}");
    };
    let bytes = layout.bytes(0) as u32;
    for segment in [
        layout.owned(Rank(0)).start,
        layout.owned(Rank(1)).start,
        layout.segment_count(),
        u32::MAX,
    ] {
        refused(Frame::Contribution { segment, hop: 0 }, bytes);
    }
    let result = |rank| Frame::Result {
        segment: layout.owned(Rank(rank)).start,
        hop: 0,
    };
    refused(result(2), bytes);
    refused(result(1), 3);
}

#[test]
fn signal_frames_of_nonsense_are_faults_of_their_sender() {
    let call = Call::all_reduce(3, Dtype::F32, 300);
    let empty = Bytes::new();
    let rubbish = Bytes::from(vec![0xFF; 64]);
    let post = |fingerprint_bytes| Frame::Post {
        ahead: 0,
        fingerprint_bytes,
    };
    let credit = |first, count| Frame::Credit { first, count };
    let frames = [
        (post(64), &rubbish),
        (post(65), &rubbish),
        (post(u32::MAX), &empty),
        (credit(u32::MAX, 2), &empty),
        (credit(0, u32::MAX), &empty),
        (credit(0, 0), &empty),
        (Frame::EagerResult { first: 0, count: 1 }, &rubbish),
        (Frame::Contribution { segment: 0, hop: 1 }, &empty),
    ];
    for (frame, payload) in frames {
        let header = FrameHeader {
            op: call.name(),
            frame,
            payload_bytes: payload.len() as u32,
        };
        let payload = payload.clone();
        let mut world = World::new(3, LIMITS, 4);
        world.start(0, &call);
        world.inject(1, 0, header, payload);
        world.run();
        assert_eq!(world.peers[0].faults.len(), 1, "{header:?}");
    }
}
