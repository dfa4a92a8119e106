//! Checks who a peer says it is. The master lists the ranks below the size of a closed group.

use super::{Checked, check_members, check_ring, length};
use crate::limits::{PEERS_MAX, WORLD_SIZE_MAX};
use crate::wire::control::{Claim, Place};

pub(super) fn check_place(place: Option<Place>) -> Checked {
    let Some(Place { size, rank, .. }) = place else {
        return Ok(());
    };
    length("members of a closed group", size as usize, WORLD_SIZE_MAX)?;
    let place = (rank.0 as usize).saturating_add(1);
    length("place in a closed group", place, size as usize)
}

pub(super) fn check_claim(claim: &Claim) -> Checked {
    let unit_size = claim.unit_size.unwrap_or(1) as usize;
    length("unit_size", unit_size, PEERS_MAX)?;
    check_place(claim.place)?;
    check_members(&claim.members)?;
    check_ring(&claim.ring_order, claim.members.len())
}
