//! Bytes to messages and back: round trips, limits from both sides, and bytes that were damaged.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::ids::*;
use crate::limits::*;
use crate::reduce::{Dtype, ReduceOp};
use crate::timers::Timers;
use crate::wire::control::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(u32, u16)>().prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into()),
        any::<(u128, u16)>().prop_map(|(ip, port)| (Ipv6Addr::from(ip), port).into()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,100}"
}

fn vid() -> impl Strategy<Value = Vid> {
    (0..=GENERATION_MAX, 0..=GENERATION_MAX).prop_map(|(term, epoch)| Vid {
        term: Term(term),
        epoch: Epoch(epoch),
    })
}

fn number() -> impl Strategy<Value = OpNumber> {
    prop_oneof![0..20_u64, 0..=NUMBER_MAX].prop_map(OpNumber)
}

fn op() -> impl Strategy<Value = OpName> {
    (any::<u64>(), number(), vid()).prop_map(|(tag, n, birth)| OpName {
        tag: Tag(tag),
        n,
        birth,
    })
}

fn peers() -> impl Strategy<Value = Vec<PeerId>> {
    btree_set(any::<u64>().prop_map(PeerId), 0..6).prop_map(|set| set.into_iter().collect())
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    let names = (
        prop::sample::select(vec![
            Kind::AllReduce,
            Kind::ReduceScatter,
            Kind::AllGather,
            Kind::Broadcast,
            Kind::Barrier,
        ]),
        prop::sample::select(vec![Algorithm::Auto, Algorithm::Direct, Algorithm::Ring]),
        prop::sample::select(ReduceOp::ALL.to_vec()),
        prop::sample::select(Dtype::ALL.to_vec()),
    );
    let numbers = (
        0..=COUNT_MAX,
        0..=PARTS_MAX as u32,
        any::<u64>(),
        0..WORLD_SIZE_MAX as u32,
        any::<(u8, bool, u32)>(),
        0..=WORLD_SIZE_MAX as u32,
    );
    let caller = "[a-z_ 0-9]{0,128}";
    (names, numbers, caller).prop_map(|((kind, algorithm, op, dtype), numbers, caller)| {
        let (count, parts, parts_digest, root, (quantization, retry, attempts), min_world) =
            numbers;
        Fingerprint {
            kind,
            algorithm,
            op,
            dtype,
            count,
            parts,
            parts_digest,
            root: Rank(root),
            quantization,
            retry,
            attempts,
            min_world,
            caller,
            offer: None,
        }
    })
}

fn cancel() -> impl Strategy<Value = CancelReason> {
    prop_oneof![
        Just(CancelReason::User),
        Just(CancelReason::Deadline),
        Just(CancelReason::Leave),
        text().prop_map(CancelReason::Local),
        (any::<u64>(), text(), text(), text()).prop_map(|(peer, field, mine, theirs)| {
            CancelReason::Mismatch {
                peer: PeerId(peer),
                field,
                mine,
                theirs,
            }
        }),
    ]
}

fn evict() -> impl Strategy<Value = EvictReason> {
    prop_oneof![
        Just(EvictReason::Left),
        Just(EvictReason::Died),
        Just(EvictReason::Detached),
        Just(EvictReason::NotHeard),
        Just(EvictReason::NotAMember),
        any::<u64>().prop_map(|silent_ms| EvictReason::Silent { silent_ms }),
        peers().prop_map(|by| EvictReason::Unreachable { by }),
        (any::<u64>(), number()).prop_map(|(tag, n)| EvictReason::NotPosted { tag: Tag(tag), n }),
        text().prop_map(EvictReason::Protocol),
        (0..=NUMBER_MAX).prop_map(|k| EvictReason::NotAtSafePoint { k }),
        any::<u64>().prop_map(|peer| EvictReason::Unit(PeerId(peer))),
        Just(EvictReason::UnitTorn),
        Just(EvictReason::Unaware),
        any::<u64>().prop_map(|peer| EvictReason::UnitLeft(PeerId(peer))),
        any::<(u64, u32)>().prop_map(|(unit, size)| EvictReason::UnitFull {
            unit: UnitId(unit),
            size,
        }),
    ]
}

fn abort() -> impl Strategy<Value = AbortReason> {
    prop_oneof![
        (any::<u64>(), evict()).prop_map(|(peer, reason)| AbortReason::Lost {
            peer: PeerId(peer),
            reason,
        }),
        (any::<u64>(), cancel()).prop_map(|(by, reason)| AbortReason::Cancelled {
            by: PeerId(by),
            reason,
        }),
    ]
}

fn floor() -> impl Strategy<Value = (OpNumber, Option<OpNumber>)> {
    (number(), any::<u64>(), any::<bool>()).prop_map(|(floor, n, some)| {
        let last = (some && floor.0 > 0).then(|| OpNumber(n % floor.0.max(1)));
        (floor, last)
    })
}

fn open() -> impl Strategy<Value = OpenReport> {
    (
        number(),
        vid(),
        fingerprint(),
        any::<bool>(),
        option::of(cancel()),
    )
        .prop_map(|(n, birth, fingerprint, held, cancel)| OpenReport {
            n,
            birth,
            fingerprint,
            held,
            cancel,
            elected: None,
        })
}

fn ring(members: usize) -> Vec<Rank> {
    (0..members as u32).rev().map(Rank).collect()
}

fn carried() -> impl Strategy<Value = Vec<Carried>> {
    btree_map(any::<u64>(), (number(), vid(), peers()), 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(tag, (n, birth, members))| Carried {
                op: OpName {
                    tag: Tag(tag),
                    n,
                    birth,
                },
                ring_order: ring(members.len()),
                members,
                costs: CostTable::default(),
            })
            .collect()
    })
}

fn report() -> impl Strategy<Value = Report> {
    let tag = (floor(), peers(), option::of(abort()), option::of(open()));
    let tags = btree_map(any::<u64>(), tag, 0..5);
    (
        vid(),
        any::<bool>(),
        tags,
        carried(),
        0..=NUMBER_MAX,
        0..=NUMBER_MAX,
    )
        .prop_map(
            |(vid, released, tags, carried, safe_called, safe_released)| Report {
                vid,
                released,
                tags: tags
                    .into_iter()
                    .map(
                        |(tag, ((floor, last_committed), absent, aborted, open))| TagReport {
                            tag: Tag(tag),
                            floor,
                            last_committed,
                            absent,
                            aborted,
                            next: open.is_none().then_some(floor),
                            open,
                        },
                    )
                    .collect(),
                carried,
                safe_called,
                safe_released,
                state: None,
                given_back: vec![GivenBack { tag: Tag(9), vid }],
            },
        )
}

fn notes() -> impl Strategy<Value = Vec<OpNote>> {
    vec(
        (op(), fingerprint()).prop_map(|(op, fingerprint)| OpNote { op, fingerprint }),
        0..5,
    )
}

fn no_link() -> impl Strategy<Value = PeerToMaster> {
    (any::<u64>(), "[ -~]{0,512}").prop_map(|(peer, why)| PeerToMaster::NoLink {
        peer: PeerId(peer),
        why,
    })
}

fn attach() -> impl Strategy<Value = PeerToMaster> {
    let names = (any::<u128>(), any::<u128>());
    (names, 0..=NUMBER_MAX, claim(), report()).prop_map(
        |((run_id, session), attach, claim, report)| PeerToMaster::Attach {
            run_id: RunId(run_id),
            session: SessionId(session),
            attach,
            claim,
            report,
        },
    )
}

fn to_master() -> impl Strategy<Value = PeerToMaster> {
    prop_oneof![
        (
            (
                Just(PROTOCOL_VERSION),
                text(),
                text(),
                any::<u32>(),
                option::of((any::<u64>(), option::of(any::<u32>())))
            ),
            vec(address(), 0..=ADDRESSES_MAX),
            any::<u128>(),
            0..=WORLD_SIZE_MAX as u32,
            0..=NUMBER_MAX,
        )
            .prop_map(|(names, addresses, key, min_world, attach)| {
                let (protocol, library, run, group, unit) = names;
                PeerToMaster::Hello {
                    protocol,
                    library,
                    run,
                    group: GroupId(group),
                    unit: unit.map(|(unit, _)| UnitId(unit)),
                    unit_size: unit.and_then(|(_, size)| size),
                    addresses,
                    key: LinkKey(key),
                    min_world,
                    attach,
                    name: "node7:4242".into(),
                }
            }),
        attach(),
        (vid(), peers()).prop_map(|(vid, linked)| PeerToMaster::Ready { vid, linked }),
        notes().prop_map(PeerToMaster::Posted),
        notes().prop_map(PeerToMaster::Done),
        (op(), cancel()).prop_map(|(op, reason)| PeerToMaster::Cancel { op, reason }),
        (vid(), report()).prop_map(|(vid, report)| PeerToMaster::Flush { vid, report }),
        (vid(), report()).prop_map(|(vid, report)| PeerToMaster::Installed { vid, report }),
        (0..=NUMBER_MAX).prop_map(|k| PeerToMaster::AtSafePoint { k }),
        (0..=NUMBER_MAX).prop_map(|k| PeerToMaster::Withdraw { k }),
        (vid(), any::<u64>(), any::<bool>()).prop_map(|(vid, peer, gave_up)| {
            PeerToMaster::LinkDown {
                vid,
                peer: PeerId(peer),
                fault: LinkFault::TimedOut,
                gave_up,
            }
        }),
        any::<u64>().prop_map(|peer| PeerToMaster::LinkUp { peer: PeerId(peer) }),
        Just(PeerToMaster::Leave),
        Just(PeerToMaster::Ping),
        no_link(),
    ]
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let rest = (
        any::<u64>(),
        vec(address(), 0..=ADDRESSES_MAX),
        any::<u128>(),
    );
    (btree_map(any::<u64>(), rest, 0..6), any::<u64>()).prop_map(|(map, salt)| {
        map.into_iter()
            .map(|(number, (unit, addresses, key))| Member {
                peer: PeerId(number ^ salt),
                number: MemberNumber(number),
                unit: UnitId(unit),
                addresses,
                key: LinkKey(key),
                name: format!("node{number}"),
            })
            .collect()
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    let names = (any::<u64>(), any::<u32>(), option::of(1..=PEERS_MAX as u32));
    (names, members()).prop_map(|((peer, group, unit_size), members)| Claim {
        peer: PeerId(peer),
        group: GroupId(group),
        unit_size,
        ring_order: ring(members.len()),
        members,
        costs: CostTable::default(),
    })
}

fn install() -> impl Strategy<Value = Install> {
    let reasons = vec((number(), abort()), 0..4);
    let floors = btree_map(any::<u64>(), (floor(), peers(), reasons), 0..4);
    let departed = vec((any::<u64>().prop_map(PeerId), evict()), 0..4);
    (
        vid(),
        members(),
        floors,
        carried(),
        0..=NUMBER_MAX,
        any::<(u32, bool, bool)>(),
        departed,
    )
        .prop_map(
            |(vid, members, floors, carried, safe_released, rest, departed)| {
                let ring_order = ring(members.len());
                let floors = floors
                    .into_iter()
                    .map(
                        |(tag, ((floor, last_committed), absent, reasons))| TagFloor {
                            tag: Tag(tag),
                            floor,
                            last_committed,
                            absent,
                            reasons,
                        },
                    )
                    .collect();
                let costs = CostTable {
                    direct_world_max: rest.0,
                };
                Install {
                    vid,
                    members,
                    ring_order,
                    floors,
                    given_back: vec![GivenBack { tag: Tag(9), vid }],
                    carried,
                    safe_released,
                    costs,
                    released: rest.1,
                    suspended: rest.2,
                    departed,
                }
            },
        )
}

fn others() -> impl Strategy<Value = OtherGroups> {
    (0..=4_u32, 1..=256_u32).prop_map(|(groups, largest)| OtherGroups {
        members: groups * largest,
        groups,
        largest: if groups == 0 { 0 } else { largest },
    })
}

fn called() -> impl Strategy<Value = Called> {
    (any::<u64>(), "[ -~]{0,64}").prop_map(|(peer, name)| Called {
        peer: PeerId(peer),
        name,
    })
}

fn some_peers() -> impl Strategy<Value = SomePeers> {
    (any::<u32>(), vec(called(), 0..=WAIT_NAMES_MAX))
        .prop_map(|(count, first)| SomePeers { count, first })
}

fn wait() -> impl Strategy<Value = Wait> {
    let unit = (any::<u64>(), 0..=PEERS_MAX as u32, 0..=PEERS_MAX as u32).prop_map(
        |(unit, registered, size)| UnitCount {
            unit: UnitId(unit),
            registered,
            size,
        },
    );
    let link = (called(), called(), "[ -~]{0,64}");
    let link = link.prop_map(|(from, to, error)| MissingLink { from, to, error });
    prop_oneof![
        unit.prop_map(Wait::Unit),
        (some_peers(), any::<u32>()).prop_map(|(here, needed)| Wait::FirstView { here, needed }),
        vec(link, 0..=WAIT_NAMES_MAX).prop_map(Wait::Links),
        (any::<(u32, u32, u32)>(), some_peers()).prop_map(
            |((heard, members, seconds), missing)| {
                Wait::Rebuild {
                    heard,
                    members,
                    missing,
                    seconds,
                }
            }
        ),
        (any::<u32>(), some_peers())
            .prop_map(|(members, missing)| Wait::SafePoint { members, missing }),
        some_peers().prop_map(|missing| Wait::Change { missing }),
        (0..1000_u32).prop_map(|seconds| Wait::Backoff { seconds }),
    ]
}

fn to_peer() -> impl Strategy<Value = MasterToPeer> {
    let commit = (op(), peers()).prop_map(|(op, contributors)| CommitRecord { op, contributors });
    prop_oneof![
        (
            any::<(u128, u128, u64)>(),
            0..=GENERATION_MAX,
            1..1000_u64,
            (others(), option::of(wait()))
        )
            .prop_map(|((run_id, session, peer), term, ms, (others, waits))| {
                MasterToPeer::Welcome {
                    run_id: RunId(run_id),
                    session: SessionId(session),
                    peer: PeerId(peer),
                    term: Term(term),
                    timers: Timers {
                        heartbeat_interval: Duration::from_millis(ms),
                        ..Timers::default()
                    },
                    others,
                    waits,
                }
            }),
        (vid(), members()).prop_map(|(vid, mut members)| {
            let newcomers = members.split_off(members.len() / 2);
            MasterToPeer::Expect {
                vid,
                members,
                newcomers,
            }
        }),
        install().prop_map(MasterToPeer::Install),
        vec(commit, 0..4).prop_map(MasterToPeer::Commit),
        vid().prop_map(|vid| MasterToPeer::Suspend { vid }),
        vid().prop_map(|vid| MasterToPeer::Release { vid }),
        (0..=NUMBER_MAX, vid()).prop_map(|(k, vid)| MasterToPeer::SafeReleased { k, vid }),
        evict().prop_map(|reason| MasterToPeer::Evicted { reason }),
        text().prop_map(|reason| MasterToPeer::Refused { reason }),
        (0..=GENERATION_MAX, others(), option::of(wait())).prop_map(|(term, others, waits)| {
            MasterToPeer::Pong {
                term: Term(term),
                others,
                waits,
            }
        }),
    ]
}

fn frame_of<M: Message>(message: &M) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    frame
}

fn pop_all<M: Message>(deframer: &mut Deframer) -> Vec<M> {
    std::iter::from_fn(|| deframer.pop().unwrap()).collect()
}

fn sample() -> PeerToMaster {
    PeerToMaster::AtSafePoint { k: 300 }
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
    assert_eq!(frame[..5], [3, 0, 0, 0, 1]);
    assert_eq!(frame[5..9], crc32fast::hash(&frame[9..]).to_le_bytes());
    assert_eq!(frame[9..], [8, 0xac, 0x02]);
    let pong = MasterToPeer::Pong {
        term: Term(7),
        others: OtherGroups::default(),
        waits: None,
    };
    assert_eq!(frame_of(&pong)[4], 0x81);
}

/// What follows the version in a `Hello` of another version is anybody's guess: its sender is to be
/// told that, not that it cannot be understood.
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

/// A refusal is what sides of different versions have to say to each other.
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
        (trailing, "1 bytes after its end"),
        (unknown, "undecodable control message"),
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
        .map(|tag| Carried {
            op: OpName {
                tag: Tag(tag),
                ..OpName::default()
            },
            ring_order: ring(members.len()),
            members: members.clone(),
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
