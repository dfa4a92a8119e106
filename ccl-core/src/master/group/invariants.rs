//! Invariants of a group, checked after every input (docs/protocol.md, Invariants).
//!
//! I6 and I7 are asserted where views and floors advance. The others need more than the master
//! knows; the simulator checks them.

use std::collections::BTreeSet;

use crate::ids::PeerId;
use crate::master::group::Group;
use crate::master::group::admission::Turn;
use crate::master::group::operation::OpenOp;
use crate::master::group::phase::Phase;
use crate::master::shared::Shared;

/// Panics if the group contradicts itself.
pub fn check(group: &Group, shared: &Shared) {
    let members: BTreeSet<_> = group.view.peers().into_iter().collect();
    check_members(group, &members);
    if matches!(group.phase, Phase::Rebuild(_)) {
        return;
    }
    check_phase(group, shared, &members);
    group
        .ledger
        .open()
        .for_each(|open| check_open(group, open, &members));
}

fn check_members(group: &Group, members: &BTreeSet<PeerId>) {
    let view = &group.view;
    let ordered = view
        .members
        .windows(2)
        .all(|pair| pair[0].number < pair[1].number);
    assert!(ordered, "members are in rank order");
    assert_eq!(members.len(), view.members.len(), "a member is listed once");
    assert_eq!(
        view.ring_order.len(),
        view.members.len(),
        "the ring names each rank"
    );
    let both = group.newcomers.keys().find(|peer| members.contains(peer));
    assert_eq!(both, None, "a peer is a newcomer or a member");
}

fn check_phase(group: &Group, shared: &Shared, members: &BTreeSet<PeerId>) {
    let lost = match &group.phase {
        Phase::Suspended(change) => change.lost.keys().copied().collect(),
        _ => BTreeSet::new(),
    };
    if let Some(awaited) = group.phase.awaited() {
        let awaited: BTreeSet<PeerId> = awaited.peers().collect();
        assert!(awaited.is_subset(members), "only members are awaited");
        assert!(awaited.is_disjoint(&lost), "nobody waits for the gone");
        assert!(
            !awaited.is_empty(),
            "a change that waits for nobody goes on at once"
        );
    }
    let founding = matches!(group.phase, Phase::Founding);
    assert_eq!(
        founding,
        members.is_empty(),
        "a group without members waits for its first"
    );
    let turns = group.newcomers.values().map(|newcomer| newcomer.turn);
    let missed = |turn| matches!(turn, Turn::At(point) if point < group.safe.released);
    assert!(
        !turns.into_iter().any(missed),
        "who misses the safe point of its unit is gone (R9)"
    );
    let present = members.difference(&lost).chain(group.newcomers.keys());
    for &peer in present {
        assert!(
            shared.sessions.get(peer).is_some(),
            "who is present has a session"
        );
    }
}

fn check_open(group: &Group, open: &OpenOp, members: &BTreeSet<PeerId>) {
    let floor = group.ledger.floor(open.op().tag);
    assert_eq!(
        open.op().n,
        floor,
        "only the operation at the floor is open"
    );
    assert!(
        open.done.len() <= open.posted.len(),
        "who is done has posted"
    );
    assert!(
        open.posted.len() <= open.members().len(),
        "only its members post an operation (I3)"
    );
    assert!(
        open.offers.is_empty() || open.done.is_empty() || matches!(open.elected, Some(Ok(_))),
        "a sync of shared state is held after its election (R18)"
    );
    let current = open.op().birth == group.view.vid;
    assert!(
        open.carried != current,
        "an operation of an older view is carried (I5)"
    );
    if open.carried {
        let present = open.members().iter().all(|peer| members.contains(peer));
        assert!(present, "an operation that lost a member was decided (I5)");
    }
}
