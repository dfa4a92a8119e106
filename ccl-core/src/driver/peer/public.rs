//! The session's published state: what any thread may read without the machine's lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::peer::dial;
use crate::driver::peer::notice::Waiting;
use crate::driver::peer::session::{Session, session_error};
use crate::error::{Error, Result};
use crate::ids::PeerId;
use crate::outcome::Counters;
use crate::peer::{SessionEnd, View};
use crate::time::Instant;
use crate::wire::control::{MasterToPeer, OtherGroups, Wait};

/// What the machine decided last, for all readers.
#[derive(Debug, Default)]
pub(super) struct Public {
    /// The view of the newest result (R16).
    pub(super) view: Option<Arc<View>>,
    pub(super) peer: Option<PeerId>,
    pub(super) ended: Option<SessionEnd>,
    /// Why the master cannot be reached, if known.
    last_fault: Option<String>,
    /// The master's address, and since when it has not answered over the connection there.
    unanswered: Option<(SocketAddr, Instant)>,
    /// Whether `last_fault` is of a connection that ended without a message from a master. It
    /// remains the best information while nothing is known of the next connection.
    is_telling: bool,
    pub(super) counters: Counters,
    pub(super) others: OtherGroups,
    pub(super) waits: Option<Wait>,
}

impl Public {
    /// Forgets earlier faults: the master has answered.
    pub(super) fn heard(&mut self, message: &MasterToPeer) {
        if matches!(
            message,
            MasterToPeer::Welcome { .. } | MasterToPeer::Pong { .. } | MasterToPeer::Install(_)
        ) {
            self.last_fault = None;
            self.unanswered = None;
        }
    }

    /// A connection was established, but nothing was received yet.
    pub(super) fn control_began(&mut self, address: SocketAddr, now: Instant) {
        if !self.is_telling || self.last_fault.is_none() {
            self.unanswered = Some((address, now));
        }
    }

    /// A connection ended, or could not be established.
    pub(super) fn control_ended(&mut self, was_made: bool, fault: String) {
        let is_heard = self.last_fault.is_none() && self.unanswered.is_none();
        self.is_telling = was_made && !is_heard;
        self.unanswered = None;
        self.last_fault = Some(fault);
    }

    /// Why the master cannot be reached, if it cannot.
    pub(super) fn fault(&self, now: Instant) -> Option<String> {
        match self.unanswered {
            Some((address, since)) if now - since < SILENT_AFTER => Some(dial::unanswered(address)),
            Some((address, _)) => Some(dial::silent(address)),
            None => self.last_fault.clone(),
        }
    }

    /// Shows the view of a result, unless that of a later one is shown already: a large result
    /// arrives at its caller late.
    pub(super) fn show(&mut self, view: &Arc<View>) {
        let is_later = |shown: &Arc<View>| shown.vid > view.vid;
        if !self.view.as_ref().is_some_and(is_later) {
            self.view = Some(Arc::clone(view));
        }
    }

    /// Why this peer is not registered yet, and what it waits for without what changes from second
    /// to second. A master may report what it waits for before it registers any peer.
    fn no_master(&self, now: Instant) -> (String, String) {
        match (self.fault(now), &self.waits) {
            (Some(fault), _) => (fault.clone(), fault),
            (None, Some(wait)) => (wait.to_string(), wait.gist().to_string()),
            (None, None) => ("no answer yet".into(), String::new()),
        }
    }
}

impl Session {
    /// Blocks until the first view that this peer is in.
    pub(crate) fn wait_admitted(&self, timeout: Duration) -> Result<()> {
        let is_waiting = |public: &mut Public| public.view.is_none() && public.ended.is_none();
        let public = self.public.lock();
        let public = self.changed.wait_while_for(public, is_waiting, timeout);
        if let Some(end) = &public.ended {
            return Err(session_error(end));
        }
        if public.view.is_some() {
            return Ok(());
        }
        let fault = public.fault(self.clock.now());
        if public.peer.is_some() || public.waits.is_some() && fault.is_none() {
            let waited_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::NotAdmitted {
                waited_ms,
                waits: public.waits.clone().map(Box::new),
                cause: fault,
            });
        }
        Err(Error::MasterUnreachable {
            address: self.config.master.clone(),
            cause: public.no_master(self.clock.now()).0,
        })
    }

    /// What is waited for; `None` if nothing is that takes its time.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let public = self.public.lock();
        if public.ended.is_some() {
            return None;
        }
        let now = self.clock.now();
        let (words, gist) = public.no_master(now);
        let what = match (&public.view, public.peer) {
            (None, Some(_)) if public.fault(now).is_none() => match &public.waits {
                Some(_) => "waiting to be admitted: ",
                None => return Some(Waiting::new("waiting to be admitted", "", "")),
            },
            (None, _) => &format!("waiting for the master at {}: ", self.config.master),
            (Some(_), _) if public.waits.is_some() && public.fault(now).is_none() => {
                "waiting at update_topology: "
            }
            (Some(_), _) => return None,
        };
        Some(Waiting::new(what, &words, &gist))
    }

    /// The same as text for users.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.waiting().map(|waiting| waiting.words)
    }
}

/// A master that lives answers at once, or with the first sign of life: one that does not for so
/// long is no master, or hangs.
const SILENT_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    /// What is known of it this many seconds after its beginning.
    fn told(public: &Public, (began, seconds): (Instant, f64)) -> String {
        let now = began + Duration::from_secs_f64(seconds);
        public.no_master(now).0
    }

    fn began() -> (SocketAddr, Instant) {
        (SocketAddr::from(([127, 0, 0, 1], 7)), Instant(1 << 40))
    }

    /// The answer is the same at any moment of the connection attempts.
    #[test]
    fn a_service_that_closes_is_not_taken_for_a_silent_one_while_it_is_tried_again() {
        let mut public = Public::default();
        let (address, now) = began();
        let silent = dial::silent(address);
        public.control_ended(false, "refused".into());
        public.control_began(address, now);
        assert_eq!(
            told(&public, (now, 2.0)),
            silent,
            "more is known than before"
        );
        public.control_ended(true, "closed".into());
        public.control_began(address, now);
        assert_eq!(
            told(&public, (now, 2.0)),
            "closed",
            "no more is known than before"
        );
        public.heard(&pong(None));
        public.control_ended(true, "lost".into());
        public.control_began(address, now);
        assert_eq!(
            told(&public, (now, 2.0)),
            silent,
            "it was a master, and hangs now"
        );
    }

    #[test]
    fn a_master_is_not_called_silent_before_it_has_had_time_to_answer() {
        let mut public = Public::default();
        let (address, now) = began();
        public.control_began(address, now);
        for seconds in [0.0, 0.6, 1.9] {
            assert_eq!(told(&public, (now, seconds)), dial::unanswered(address));
        }
        assert_eq!(told(&public, (now, 2.0)), dial::silent(address));
        public.heard(&pong(None));
        assert_eq!(told(&public, (now, 3.0)), "no answer yet");
    }

    #[test]
    fn a_master_that_registers_nobody_yet_is_told_with_what_it_waits_for() {
        let mut public = Public::default();
        let (address, now) = began();
        public.control_began(address, now);
        let wait = Wait::EarlierRun { seconds: 5 };
        public.heard(&pong(Some(wait.clone())));
        public.waits = Some(wait.clone());
        assert_eq!(told(&public, (now, 1.0)), wait.to_string());
    }

    fn pong(waits: Option<Wait>) -> MasterToPeer {
        MasterToPeer::Pong {
            term: Term(1),
            others: OtherGroups::default(),
            waits,
        }
    }
}
