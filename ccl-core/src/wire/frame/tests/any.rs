//! Any message within its limits.

mod records;
mod to_peer;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::ids::*;
use crate::limits::*;
use crate::reduce::{Dtype, Encoding, ReduceOp};
use crate::timers::Timers;
use crate::wire::control::*;

use records::{entry, record, step, stream_places, streams};
pub(super) use to_peer::to_peer;

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

fn elements() -> impl Strategy<Value = Elements> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let numbers = (0..=COUNT_MAX, 0..=PARTS_MAX as u32, any::<u64>());
    (dtype, numbers).prop_map(|(dtype, (count, parts, parts_digest))| Elements {
        dtype,
        count,
        parts,
        parts_digest,
    })
}

fn any_called() -> impl Strategy<Value = Called> {
    let reduce_op = || prop::sample::select(ReduceOp::ALL.to_vec());
    let reduction = || (reduce_op(), elements());
    let root = (0..WORLD_SIZE_MAX as u32).prop_map(Rank);
    prop_oneof![
        reduction().prop_map(|(reduce_op, elements)| Called::AllReduce {
            reduce_op,
            elements
        }),
        reduction().prop_map(|(reduce_op, elements)| Called::ReduceScatter {
            reduce_op,
            elements
        }),
        elements().prop_map(|elements| Called::AllGather { elements }),
        (root, elements()).prop_map(|(root, elements)| Called::Broadcast { root, elements }),
        Just(Called::Barrier),
    ]
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    let algorithm = prop::sample::select(vec![
        Algorithm::Auto,
        Algorithm::TwoShot,
        Algorithm::Ring,
        Algorithm::OneShot,
    ]);
    let numbers = (any::<u32>(), 0..=WORLD_SIZE_MAX as u32);
    let caller = "[a-z_ 0-9]{0,128}";
    let mixture = (
        option::of(prop::sample::select(Encoding::ALL.to_vec())),
        any::<bool>(),
    );
    (any_called(), algorithm, numbers, mixture, caller).prop_map(
        |(called, algorithm, (attempts, min_world), (encoding, is_weighted), caller)| Fingerprint {
            called,
            algorithm,
            attempts,
            min_world,
            encoding,
            is_weighted,
            caller,
        },
    )
}

fn cancel() -> impl Strategy<Value = CancelReason> {
    prop_oneof![
        Just(CancelReason::User),
        proptest::option::of(late()).prop_map(|late| CancelReason::Deadline { late }),
        Just(CancelReason::Leave),
        text().prop_map(CancelReason::Local),
        crossed().prop_map(CancelReason::Crossed),
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

fn crossed() -> impl Strategy<Value = Crossed> {
    (late_peers(), late_peers(), wait_point()).prop_map(|(here, there, other)| Crossed {
        here,
        there,
        other,
    })
}

fn wait_point() -> impl Strategy<Value = WaitPoint> {
    prop_oneof![
        op().prop_map(|op| WaitPoint::Call(Kind::Barrier.call(op))),
        (0..=NUMBER_MAX).prop_map(|k| WaitPoint::SafePoint { k }),
    ]
}

fn late_peers() -> impl Strategy<Value = LatePeers> {
    (any::<u32>(), vec(any::<u64>(), 0..=WAIT_NAMES_MAX)).prop_map(|(count, first)| LatePeers {
        count,
        first: first.into_iter().map(PeerId).collect(),
    })
}

fn late() -> impl Strategy<Value = Late> {
    let elsewhere = (any::<u64>(), op()).prop_map(|(peer, op)| Elsewhere {
        peer: PeerId(peer),
        call: Kind::SharedState.call(op),
    });
    prop_oneof![
        (late_peers(), vec(elsewhere, 0..=WAIT_NAMES_MAX))
            .prop_map(|(peers, elsewhere)| Late::Uncalled { peers, elsewhere }),
        late_peers().prop_map(Late::Unfinished),
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
        any::<(u64, u64)>().prop_map(|(stream, steps)| EvictReason::RecordsBehind {
            stream: StreamId(stream),
            steps,
        }),
        (wait_point(), wait_point()).prop_map(|(own, others)| EvictReason::Crossed {
            own: Box::new(own),
            others: Box::new(others),
        }),
        any::<(u64, u64)>().prop_map(|(theirs, sealed)| EvictReason::RevisionAhead {
            theirs: Revision(theirs),
            sealed: Revision(sealed),
        }),
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

pub(super) fn ring(members: usize) -> Vec<Rank> {
    (0..members as u32).rev().map(Rank).collect()
}

fn carried() -> impl Strategy<Value = Vec<Birth>> {
    btree_map(any::<u64>(), (number(), vid(), peers()), 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(tag, (n, birth, members))| Birth {
                op: OpName {
                    tag: Tag(tag),
                    n,
                    birth,
                },
                ring_order: ring(members.len()).into(),
                members: members.into(),
                costs: CostTable::default(),
            })
            .collect()
    })
}

fn report() -> impl Strategy<Value = Report> {
    let tag = (floor(), option::of(abort()), option::of(open()));
    let tags = btree_map(any::<u64>(), tag, 0..5);
    (
        vid(),
        any::<bool>(),
        tags,
        carried(),
        0..=NUMBER_MAX,
        0..=NUMBER_MAX,
        streams(),
    )
        .prop_map(
            |(vid, released, tags, carried, safe_called, safe_released, streams)| Report {
                vid,
                released,
                tags: tags
                    .into_iter()
                    .map(
                        |(tag, ((floor, last_committed), aborted, open))| TagReport {
                            tag: Tag(tag),
                            floor,
                            last_committed,
                            sealed: Sealed::Nothing,
                            aborted,
                            next: open.is_none().then_some(floor),
                            open,
                        },
                    )
                    .collect(),
                carried,
                safe_called,
                safe_released,
                safe_said: safe_called,
                given_back: vec![GivenBack { tag: Tag(9), vid }],
                streams,
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

pub(super) fn to_master() -> impl Strategy<Value = PeerToMaster> {
    prop_oneof![
        (
            (
                Just(PROTOCOL_VERSION),
                text(),
                text(),
                any::<u64>(),
                (
                    option::of((any::<u64>(), option::of(any::<u32>()))),
                    place()
                )
            ),
            vec(address(), 0..=ADDRESSES_MAX),
            any::<u128>(),
            0..=WORLD_SIZE_MAX as u32,
            0..=NUMBER_MAX,
        )
            .prop_map(|(names, addresses, key, min_world, attach)| {
                let (protocol, library, run, group, (unit, place)) = names;
                PeerToMaster::Hello {
                    protocol,
                    library,
                    run,
                    group: GroupId(group),
                    unit: unit.map(|(unit, _)| UnitId(unit)),
                    unit_size: unit.and_then(|(_, size)| size),
                    place,
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
        (0..=NUMBER_MAX, 0..=64_u32).prop_map(|(k, ahead)| PeerToMaster::AtSafePoint { k, ahead }),
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
        entry().prop_map(PeerToMaster::Entered),
        (any::<u64>(), step()).prop_map(|(stream, next)| PeerToMaster::RecordsHeld {
            stream: StreamId(stream),
            next,
        }),
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

fn place() -> impl Strategy<Value = Option<Place>> {
    let place = (any::<u128>(), 0..WORLD_SIZE_MAX as u32).prop_flat_map(|(roster, rank)| {
        (rank + 1..=WORLD_SIZE_MAX as u32).prop_map(move |size| Place {
            roster,
            size,
            rank: Rank(rank),
        })
    });
    option::of(place)
}

fn claim() -> impl Strategy<Value = Claim> {
    let unit_size = option::of(1..=PEERS_MAX as u32);
    let names = (any::<u64>(), any::<u64>(), unit_size, place());
    (names, members()).prop_map(|((peer, group, unit_size, place), members)| Claim {
        peer: PeerId(peer),
        group: GroupId(group),
        unit_size,
        place,
        ring_order: ring(members.len()),
        members,
        costs: CostTable::default(),
    })
}
