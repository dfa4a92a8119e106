//! Invariants of a peer's own state, whatever it receives (docs/protocol.md, I5–I8).
//!
//! A violation is a bug and panics; the master's side is checked in `check`, without panics. I5,
//! that an open operation keeps its name across an `Install`, needs no assertion: nothing here
//! renames one, and `check` rejects an `Install` that would.

use crate::ids::OpNumber;
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{Fingerprint, TagFloor};

use super::phase::Membership;
use super::tags::{Posted, TagState};

/// I6: floors never fall. `check` has refused an `Install` that lowers one.
pub(super) fn floor_never_falls(state: &TagState, sealed: &TagFloor) {
    assert!(
        sealed.floor >= state.floor,
        "a checked Install never lowers a floor (I6)"
    );
    assert!(
        sealed.last_committed >= state.last_committed,
        "a checked Install never takes a commit back (I6)"
    );
}

/// I7: outcomes of a tag are reported in the order of its numbers, without a gap.
pub(super) fn told_without_gap(state: &TagState, n: OpNumber) {
    assert!(
        n == state.told || is_active(Mutation::InvalidCallTakesNumber),
        "each number of a tag is told once, in order (I7)"
    );
}

/// R18: the content of a sync is not known before its election, so no member can hold it.
pub(super) fn held_after_election(posted: &Posted, fingerprint: &Fingerprint) {
    assert!(
        posted.elected.is_some() || fingerprint.called.offer().is_none(),
        "a sync of shared state is held after its election"
    );
}

/// I8: what a view change decided is reported only after its release.
pub(super) fn told_after_release(membership: Option<&Membership>) {
    assert!(
        membership.is_some_and(|membership| membership.released)
            || is_active(Mutation::TellAtInstall),
        "outcomes decided at a view change wait for its release (I8)"
    );
}
