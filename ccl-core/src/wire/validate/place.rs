//! Checks a place in a closed group. The master lists the ranks below its size.

use super::{Checked, length};
use crate::limits::WORLD_SIZE_MAX;
use crate::wire::control::Place;

pub(super) fn check_place(place: Option<Place>) -> Checked {
    let Some(Place { size, rank, .. }) = place else {
        return Ok(());
    };
    length("members of a closed group", size as usize, WORLD_SIZE_MAX)?;
    let place = (rank.0 as usize).saturating_add(1);
    length("place in a closed group", place, size as usize)
}
