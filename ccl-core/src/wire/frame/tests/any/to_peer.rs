//! Any message to a peer.

use super::*;

fn install() -> impl Strategy<Value = Install> {
    let reasons = vec((number(), abort()), 0..4);
    let floors = btree_map(any::<u64>(), (floor(), reasons), 0..4);
    let departed = vec((any::<u64>().prop_map(PeerId), evict()), 0..4);
    (
        vid(),
        members(),
        floors,
        carried(),
        0..=NUMBER_MAX,
        any::<(u32, bool, bool)>(),
        (departed, stream_places()),
    )
        .prop_map(
            |(vid, members, floors, carried, safe_released, rest, (departed, streams))| {
                let ring_order = ring(members.len());
                let floors = floors
                    .into_iter()
                    .map(|(tag, ((floor, last_committed), reasons))| TagFloor {
                        tag: Tag(tag),
                        floor,
                        last_committed,
                        reasons,
                    })
                    .collect();
                let costs = CostTable {
                    direct_world_max: rest.0,
                    held_world_max: rest.0,
                    round_trip_bytes: u64::from(rest.0) << 20,
                    ..CostTable::default()
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
                    streams,
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

fn named_peer() -> impl Strategy<Value = NamedPeer> {
    (any::<u64>(), "[ -~]{0,64}").prop_map(|(peer, name)| NamedPeer {
        peer: PeerId(peer),
        name,
    })
}

fn some_peers() -> impl Strategy<Value = SomePeers> {
    (any::<u32>(), vec(named_peer(), 0..=WAIT_NAMES_MAX))
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
    let link = (named_peer(), named_peer(), "[ -~]{0,64}")
        .prop_map(|(from, to, error)| MissingLink { from, to, error });
    let absent = vec(any::<u32>().prop_map(Rank), 0..=WAIT_NAMES_MAX);
    prop_oneof![
        unit.prop_map(Wait::Unit),
        (some_peers(), any::<u32>(), absent).prop_map(|(here, needed, absent)| Wait::FirstView {
            here,
            needed,
            absent,
        }),
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
        (any::<bool>(), 0..1000_u32).prop_map(|(is_stray, seconds)| Wait::Backoff {
            cause: match is_stray {
                true => BackoffCause::RevisionAhead,
                false => BackoffCause::Unreachable,
            },
            seconds,
        }),
    ]
}

fn sealed_record() -> impl Strategy<Value = MasterToPeer> {
    (record(), any::<[u8; 32]>(), any::<u32>(), any::<bool>()).prop_map(
        |(record, hash, behind, is_released)| {
            MasterToPeer::Recorded(SealedRecord {
                record,
                check: Digest(hash).into(),
                behind,
                is_released,
            })
        },
    )
}

pub(in crate::wire::frame::tests) fn to_peer() -> impl Strategy<Value = MasterToPeer> {
    let sealed = prop_oneof![
        Just(Sealed::Nothing),
        (0..=NUMBER_MAX, any::<[u8; 32]>()).prop_map(|(revision, root)| {
            let (revision, root) = (Revision(revision), Digest(root));
            Sealed::State(StateId { revision, root })
        }),
    ];
    let commit = (op(), peers(), sealed).prop_map(|(op, contributors, sealed)| CommitRecord {
        op,
        contributors,
        sealed,
    });
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
        sealed_record(),
        (any::<u64>(), step()).prop_map(|(stream, released)| MasterToPeer::RecordsReleased {
            stream: StreamId(stream),
            released,
        }),
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
