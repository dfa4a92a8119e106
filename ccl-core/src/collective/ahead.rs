//! The owner's part in what comes ahead of credits: which segments are awaited, and where they go.
//!
//! The reserve has the bytes (`reserve`), and whether a segment is complete is known to
//! `contributions`.

use super::contributions::Contribution;
use super::direct::Direct;
use super::exchange::room;
use super::operation::{Common, Shared};
use super::reserve::{Ahead, Reserve};
use super::step::Place;
use crate::ids::Rank;

/// What a post says about segments that come ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    pub(super) from: Rank,
    /// How many.
    pub(super) count: u32,
}

/// A segment that is in the reserve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) from: Rank,
    pub(super) segment: u32,
    /// Its first byte in the scratch memory.
    pub(super) start: usize,
}

impl Direct {
    /// A member says of how many segments its contribution comes ahead.
    pub(super) fn take_announced(
        &mut self,
        common: &Common,
        Announced { from, count }: Announced,
        shared: &mut Shared,
    ) -> Result<(), &'static str> {
        if count == 0 {
            return Ok(());
        }
        let layout = &common.layout;
        if layout.is_eager() || count > self.owned.end - self.owned.start {
            return Err("data ahead of an operation that has none");
        }
        let bytes: usize = (self.owned.start..self.owned.start + count)
            .map(|segment| Reserve::bytes_for(layout.wire_bytes(segment)))
            .sum();
        if bytes > common.ahead_bytes_max {
            return Err("more data ahead than the reserve is long");
        }
        self.announced[from.index()] = count;
        let peer = common.members[from.index()];
        if shared.reserve.open(peer, common.name, bytes)? {
            self.contributions.expect_ahead(from, count);
        }
        Ok(())
    }

    /// Where a segment goes that a member sends ahead, after an agreeing post.
    pub(super) fn place_ahead(
        &self,
        common: &Common,
        from: Rank,
        ahead: Ahead,
        reserve: &mut Reserve,
    ) -> Place {
        let segment = ahead.segment;
        let end = self.owned.start + self.announced[from.index()];
        if !(self.owned.start..end).contains(&segment) {
            return Place::Refuse("data ahead that was not announced");
        }
        if ahead.bytes != common.layout.wire_bytes(segment) {
            return Place::Refuse("a segment of the wrong length");
        }
        let is_over =
            self.has_begun && self.contributions.get(segment, from) != Contribution::Ahead;
        if is_over || !self.contributions.is_ahead(segment, from) {
            return Place::Discard;
        }
        let peer = common.members[from.index()];
        room(reserve.place(peer, common.name, ahead), ahead.bytes)
    }

    /// A segment that came ahead is in the reserve.
    pub(super) fn take_ahead(&mut self, common: &mut Common, came: Came, shared: &mut Shared) {
        if !self.has_begun {
            return;
        }
        let Some(is_last) = self.contributions.take_ahead(came) else {
            return;
        };
        common.moved_bytes += common.layout.wire_bytes(came.segment) as u64;
        if is_last {
            self.reduce(common, came.segment, shared);
        }
    }
}
