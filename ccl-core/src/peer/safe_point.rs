//! Safe points (R9): numbered from 0, with the same answer for every member.
//!
//! Operations called before a safe point are posted before the master learns of it. Otherwise the
//! newcomers admitted there would be members of those operations, and their first call would get
//! the number of one.
//!
//! A withdrawn safe point is not used up: the next call has the same k, and at once gets the result
//! that the others got.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::ids::{CallId, Vid};
use crate::limits;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::PeerToMaster;

use super::Peer;
use super::io::{End, Output, SessionEnd};

/// What a peer knows of its group's safe points.
#[derive(Debug, Default)]
pub(super) struct SafePoints {
    consumed: u64,
    released: u64,
    /// As the master has told.
    sealed: u64,
    open: Option<Open>,
}

/// The safe point that the caller has reached.
#[derive(Debug)]
struct Open {
    call: CallId,
    deadline: Option<Instant>,
    /// Calls made before it that have no number yet. While there are any, it is not reported.
    behind: BTreeSet<CallId>,
}

impl SafePoints {
    /// Safe points called, including the open one if the master may learn of it.
    pub fn called(&self) -> u64 {
        let open = self.open.as_ref();
        let said = open.is_some_and(|open| open.behind.is_empty());
        self.consumed.saturating_add(u64::from(said))
    }

    /// Safe points known to be released.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// When the open one is withdrawn. A released one only waits for its view.
    pub fn deadline(&self) -> Option<Instant> {
        let open = self
            .open
            .as_ref()
            .filter(|_| self.released <= self.consumed);
        open.and_then(|open| open.deadline)
    }

    /// Safe points that the master has released.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// How many are called if the open one waits to be released.
    pub fn waiting(&self) -> Option<u64> {
        let open = self.open.as_ref().filter(|open| open.behind.is_empty());
        let waits = open.filter(|_| self.released <= self.consumed);
        waits.map(|_| self.consumed.saturating_add(1))
    }

    /// More are released.
    pub fn raise(&mut self, released: u64) {
        self.released = self.released.max(released);
    }

    /// How many are left that were released ahead.
    fn left(&self) -> u64 {
        self.released.saturating_sub(self.consumed)
    }

    /// A view says how many were released. A newcomer starts counting there.
    pub fn install(&mut self, released: u64, is_first: bool) {
        self.sealed = released;
        self.raise(released);
        if is_first {
            self.released = released;
            self.consumed = released;
        }
    }

    fn take_released(&mut self) -> Option<CallId> {
        if self.released <= self.consumed {
            return None;
        }
        let open = self.open.take()?;
        self.consumed = self.consumed.saturating_add(1);
        Some(open.call)
    }
}

impl Peer {
    pub(super) fn handle_safe_point(&mut self, call: CallId, deadline: Option<Instant>) {
        if let Err(error) = self.check_safe_point_call() {
            return self.outputs.push_back(Output::Rejected { call, error });
        }
        let behind = self.tags.waiting_calls();
        let is_first = behind.is_empty();
        self.safe_points.open = Some(Open {
            call,
            deadline,
            behind,
        });
        self.stride.note(self.now);
        let k = self.safe_points.consumed;
        if k < self.safe_points.released {
            self.tell_safe_point();
            return self.ask_for_more(k);
        }
        if is_first {
            self.ask_master(k);
            self.say_safe_point();
        }
    }

    /// Asks for more before those that were released ahead are used up.
    fn ask_for_more(&mut self, k: u64) {
        let ahead = self.safe_points_ahead();
        let is_low = self.safe_points.left() <= u64::from(ahead / 2);
        if ahead > 0 && is_low && self.phase.is_telling() {
            self.send(PeerToMaster::AtSafePoint { k, ahead });
        }
    }

    fn ask_master(&mut self, k: u64) {
        if self.phase.is_telling() {
            let ahead = self.safe_points_ahead();
            self.send(PeerToMaster::AtSafePoint { k, ahead });
        }
    }

    /// Reports the open safe point once all earlier calls have their numbers.
    pub(super) fn announce_safe_point(&mut self) {
        let Some(open) = &mut self.safe_points.open else {
            return;
        };
        if open.behind.is_empty() {
            return;
        }
        let waiting = self.tags.waiting_calls();
        open.behind.retain(|call| waiting.contains(call));
        if open.behind.is_empty() {
            self.ask_master(self.safe_points.consumed);
            self.say_safe_point();
        }
    }

    pub(super) fn handle_safe_released(&mut self, k: u64, vid: Vid) {
        if self.view().is_none_or(|view| view.vid != vid) {
            return self.drop_master(&format!("SafeReleased in view {vid}"));
        }
        let most = self.safe_points.consumed + 2 * limits::SAFE_POINTS_AHEAD_MAX as u64;
        if k > most.max(self.safe_points.released) {
            return self.drop_master(&format!("SafeReleased of safe point {k}, far ahead"));
        }
        let released = k.saturating_add(1);
        self.safe_points.sealed = self.safe_points.sealed.max(released);
        self.safe_points.raise(released);
        self.tell_safe_point();
        self.answer_safe_points();
    }

    /// Ends the open safe point if it was released. One released by a view change waits for the
    /// view's release, like every outcome decided there (R6), even if the caller withdrew and
    /// called again. Which were released by a view change is not known here, so all wait.
    pub(super) fn tell_safe_point(&mut self) {
        let Some(view) = self.view().cloned() else {
            return;
        };
        if !self.is_released() && !is_active(Mutation::SafePointToldEarly) {
            return;
        }
        if let Some(call) = self.safe_points.take_released() {
            let end = End::SafePoint { view };
            self.outputs.push_back(Output::Finish { call, end });
        }
    }

    /// Withdraws the open safe point when its deadline has passed.
    pub(super) fn check_safe_point(&mut self) {
        if self
            .safe_points
            .deadline()
            .is_none_or(|deadline| deadline > self.now)
        {
            return;
        }
        if let Some(call) = self.safe_points.open.as_ref().map(|open| open.call) {
            self.withdraw_safe_point(call);
        }
    }

    /// The caller waits no longer. If it has been released by now, the call returns the view.
    pub(super) fn withdraw_safe_point(&mut self, call: CallId) {
        let open = self.safe_points.open.as_ref();
        let Some(open) = open.filter(|open| open.call == call) else {
            return;
        };
        let was_said = open.behind.is_empty();
        let k = self.safe_points.consumed;
        if k < self.safe_points.released {
            return;
        }
        self.safe_points.open = None;
        if was_said && self.phase.is_telling() {
            self.send(PeerToMaster::Withdraw { k });
        }
        let end = End::Withdrawn;
        self.outputs.push_back(Output::Finish { call, end });
    }

    /// Ends the open safe point with the session.
    pub(super) fn finish_safe_point(&mut self, cause: &SessionEnd) {
        if let Some(open) = self.safe_points.open.take() {
            self.outputs.push_back(Output::Rejected {
                call: open.call,
                error: cause.error(),
            });
        }
    }

    fn check_safe_point_call(&self) -> Result<(), Error> {
        self.check_open()?;
        if self.phase.membership().is_none() {
            return Err(Error::usage("this peer is not admitted yet"));
        }
        if self.safe_points.open.is_some() {
            return Err(Error::usage("update_topology is in progress; wait for it"));
        }
        Ok(())
    }
}
