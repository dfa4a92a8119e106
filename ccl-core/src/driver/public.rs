//! What a session shows to whoever asks: the newest of what the machine decided.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::peer::{Session, session_error};
use crate::error::{Error, Result};
use crate::ids::PeerId;
use crate::outcome::Counters;
use crate::peer::{SessionEnd, View};
use crate::wire::control::{MasterToPeer, OtherGroups, Wait};

/// What the machine decided last, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Public {
    /// The view of the newest result (R16).
    pub(super) view: Option<Arc<View>>,
    pub(super) peer: Option<PeerId>,
    pub(super) ended: Option<SessionEnd>,
    /// Why the master cannot be heard, if it cannot.
    pub(super) last_fault: Option<String>,
    /// Whether that is of a connection that ended without a word of a master: the next one, of
    /// which nothing is known yet, says no more.
    is_telling: bool,
    pub(super) counters: Counters,
    pub(super) others: OtherGroups,
    pub(super) waits: Option<Wait>,
}

impl Public {
    /// The master has said something: there is nothing wrong with it.
    pub(super) fn heard(&mut self, message: &MasterToPeer) {
        if matches!(
            message,
            MasterToPeer::Welcome { .. } | MasterToPeer::Pong { .. } | MasterToPeer::Install(_)
        ) {
            self.last_fault = None;
        }
    }

    /// A connection was made: this is what is wrong if nothing comes of it.
    pub(super) fn control_began(&mut self, until_heard: String) {
        if !self.is_telling || self.last_fault.is_none() {
            self.last_fault = Some(until_heard);
        }
    }

    /// A connection ended, or was not made.
    pub(super) fn control_ended(&mut self, was_made: bool, fault: String) {
        self.is_telling = was_made && self.last_fault.is_some();
        self.last_fault = Some(fault);
    }

    /// Shows the view of a result, unless that of a later one is shown already: a large result
    /// arrives at its caller late.
    pub(super) fn show(&mut self, view: &Arc<View>) {
        let is_later = |shown: &Arc<View>| shown.vid > view.vid;
        if !self.view.as_ref().is_some_and(is_later) {
            self.view = Some(Arc::clone(view));
        }
    }

    /// Why there is no master yet.
    fn no_master(&self) -> String {
        let fault = self.last_fault.clone();
        fault.unwrap_or_else(|| "no answer yet".into())
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
        if public.peer.is_some() {
            let waited_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::NotAdmitted {
                waited_ms,
                waits: public.waits.clone().map(Box::new),
                cause: public.last_fault.clone(),
            });
        }
        Err(Error::MasterUnreachable {
            address: self.config.master.clone(),
            cause: public.no_master(),
        })
    }

    /// What is waited for, in words for a user; `None` if nothing is that takes its time.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let public = self.public.lock();
        if public.ended.is_some() {
            return None;
        }
        let master = &self.config.master;
        let lost = public.last_fault.as_ref();
        match (&public.view, public.peer) {
            (None, None) => {
                let cause = public.no_master();
                Some(format!("waiting for the master at {master}: {cause}"))
            }
            (None, Some(_)) => Some(match (lost, &public.waits) {
                (Some(cause), _) => format!("waiting for the master at {master}: {cause}"),
                (None, Some(wait)) => format!("waiting to be admitted: {wait}"),
                (None, None) => "waiting to be admitted".into(),
            }),
            (Some(_), _) => {
                let wait = public.waits.as_ref().filter(|_| lost.is_none());
                wait.map(|wait| format!("waiting at update_topology: {wait}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    /// At any moment of the tries to connect, whoever asks is told the same.
    #[test]
    fn a_service_that_closes_is_not_taken_for_a_silent_one_while_it_is_tried_again() {
        let mut public = Public::default();
        let silent = || String::from("silent");
        public.control_ended(false, "refused".into());
        public.control_began(silent());
        assert_eq!(public.no_master(), "silent", "more is known than before");
        public.control_ended(true, "closed".into());
        public.control_began(silent());
        assert_eq!(public.no_master(), "closed", "no more is known than before");
        public.heard(&MasterToPeer::Pong {
            term: Term(1),
            others: OtherGroups::default(),
            waits: None,
        });
        public.control_ended(true, "lost".into());
        public.control_began(silent());
        assert_eq!(
            public.no_master(),
            "silent",
            "it was a master, and hangs now"
        );
    }
}
