//! How many payload bytes an operation moves at one peer, for its progress.

use super::operation::Common;
use crate::ids::Rank;
use crate::wire::control::Called;

/// Payload bytes that a rank sends and receives in all.
pub(super) fn of_direct(common: &Common) -> u64 {
    let layout = &common.layout;
    let total = layout.total_wire_bytes();
    let own = layout.owned_wire_bytes(common.rank);
    let others = common.world_size() - 1;
    let rest = total - own;
    // Whose contributions come, and to how many this peer's goes.
    let givers = common.others().filter(|&rank| common.contributes(rank));
    let (givers, gives) = (givers.count(), usize::from(common.contributes(common.rank)));
    let bytes = match common.fingerprint.called {
        Called::AllReduce { .. } if layout.is_one_shot() => total * (others * gives + givers),
        Called::AllReduce { .. } => rest * (gives + 1) + own * (givers + others),
        Called::ReduceScatter { .. } => rest * gives + own * givers,
        // An own chunk that came from the root goes to all but the root and this peer.
        Called::Broadcast { root, .. } if root != common.rank => {
            total + own * others.saturating_sub(1)
        }
        // A barrier moves nothing: it has no elements.
        _ => rest + own * others,
    };
    bytes as u64
}

/// Payload bytes that the member at a position sends and receives in all.
pub(super) fn of_ring(common: &Common, ring_order: &[Rank]) -> u64 {
    let n = ring_order.len();
    let layout = &common.layout;
    let position = ring_order
        .iter()
        .position(|&rank| rank == common.rank)
        .expect("the ring order names every member");
    let total = layout.total_wire_bytes();
    let own = layout.chunk_wire_bytes(position);
    let first = layout.chunk_wire_bytes((position + n - 1) % n);
    let last = layout.chunk_wire_bytes((position + 1) % n);
    let sent = (total - own) + (total - last);
    let received = (total - first) + (total - own);
    (sent + received) as u64
}
