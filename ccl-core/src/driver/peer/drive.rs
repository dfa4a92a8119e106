//! Drives a peer's state machine: feeds it the queued inputs, then carries out what it decided.
//!
//! A thread with an input drives the machine itself, unless another thread is already driving; that
//! thread then handles this input too. Decisions are queued under the lock (`deferred`) and carried
//! out after it is released. Messages to the master are sent right after that.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use crate::driver::peer::control::Control;
use crate::driver::peer::copier::Job;
use crate::driver::peer::core::{ControlItem, Item, Soon};
use crate::driver::peer::session::Session;
use crate::peer::{Input, SessionEnd};
use crate::wire::control::MasterToPeer;

impl Session {
    /// Handles all queued input, unless another thread is doing so; that thread then handles it
    /// too.
    pub(crate) fn drive(&self) {
        let _guard = EndCallsOnPanic::new(self);
        loop {
            let is_mine = self.decide();
            self.carry_out_deferred();
            if !is_mine || self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    /// The machine's timeout is due. The calling thread does not carry out the side effects.
    pub(super) fn ring(&self) {
        let _guard = EndCallsOnPanic::new(self);
        self.inbox.lock().push_back(Item::Input(Input::Timeout));
        self.decide();
        if self.has_deferred() {
            let session = self.weak.clone();
            let work = async move {
                if let Some(session) = session.upgrade() {
                    session.drive();
                }
            };
            drop(self.threads.spawn(work));
        }
        let rings = self.rings.fetch_add(1, Ordering::Relaxed);
        if rings.is_multiple_of(RINGS_A_TRIM) {
            self.hand_to_copier(Job::Trim);
        }
    }

    /// Feeds all queued input to the machine; false if another thread is doing so, and takes the
    /// rest along.
    fn decide(&self) -> bool {
        loop {
            let Some(mut core) = self.core.try_lock() else {
                return false;
            };
            loop {
                let item = self.inbox.lock().pop_front();
                let Some(item) = item else { break };
                if !self.is_outdated(&item) {
                    core.handle(self.clock.now(), item);
                }
            }
            self.defer(core.decided());
            let is_due_sooner = self.alarm.set(core.due());
            self.note_pending(core.pending_peers());
            core.note_others();
            let soon = core.take_soon();
            drop(core);
            self.follow_up(soon, is_due_sooner);
            if self.inbox.lock().is_empty() {
                return true;
            }
        }
    }

    /// Whether a later link has replaced the one that reports.
    fn is_outdated(&self, item: &Item) -> bool {
        matches!(item, Item::Link(link, _) if !self.links.is_current(*link))
    }

    /// Cheap work that must not wait for the deferred work of other threads.
    fn follow_up(&self, soon: Soon, is_due_sooner: bool) {
        if let Some(control) = soon.flush {
            control.flush();
        }
        if is_due_sooner {
            self.alarm.wake();
        }
        if soon.is_changed {
            self.changed.notify_all();
        }
        for (duty, end) in soon.refused {
            duty.finish(end);
        }
    }

    fn note_pending(&self, peers: usize) {
        let peers = u32::try_from(peers).expect("a master serves at most PEERS_MAX");
        self.pending_peers.store(peers, Ordering::Relaxed);
    }

    /// Ends what a session that was closed from outside leaves open.
    pub(super) fn end_calls(&self, end: &SessionEnd) {
        let mut core = self.core.lock();
        core.end(end);
        self.defer(core.decided());
        let soon = core.take_soon();
        drop(core);
        self.follow_up(soon, false);
        self.carry_out_deferred();
    }

    /// A connection to the master was made.
    pub(super) fn control_began(&self, generation: u64, control: Control, address: SocketAddr) {
        let item = ControlItem::Began(control, address);
        self.take(Item::Control(generation, item));
    }

    /// A message from the master; the caller drives once it has read all that is available.
    pub(super) fn control_said(&self, generation: u64, message: MasterToPeer) {
        let item = Item::Control(generation, ControlItem::Said(message));
        self.inbox.lock().push_back(item);
    }

    /// A connection to the master ended, or could not be made.
    pub(super) fn control_ended(&self, generation: u64, fault: Option<String>) {
        self.take(Item::Control(generation, ControlItem::Ended(fault)));
    }
}

/// A broken internal promise panics; no call may wait forever for a broken machine.
pub(super) struct EndCallsOnPanic<'a> {
    session: &'a Session,
    /// A caller that panicked drops its handles through here; that is not a panic of the machine.
    is_unwinding: bool,
}

impl<'a> EndCallsOnPanic<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self {
            session,
            is_unwinding: std::thread::panicking(),
        }
    }
}

impl Drop for EndCallsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_unwinding {
            self.session.end_calls(&SessionEnd::Internal);
        }
    }
}

/// Heartbeats ring at least a few times a second: memory idle for some seconds goes back to the
/// system.
const RINGS_A_TRIM: u32 = 32;
