//! View changes as a member sees them: Suspend → Flush, Install → Installed, Release (R3–R6).
//!
//! An `Install` is checked as a whole before any of it is applied. If it contradicts what this peer
//! knows for certain, the session ends, because such a master's verdicts cannot be trusted.

use std::sync::Arc;

use crate::event::Event;
use crate::ids::{PeerId, Vid};
use crate::mutation::{Mutation, is_active};
use crate::wire::control::{EvictReason, Install, PeerToMaster};

use super::Peer;
use super::check::Known;
use super::io::Output;
use super::phase::{Membership, Phase};

impl Peer {
    pub(super) fn handle_suspend(&mut self, vid: Vid) {
        if self.view().is_none_or(|view| view.vid != vid) {
            return self.drop_master(&format!("Suspend of view {vid}"));
        }
        self.phase = match std::mem::replace(&mut self.phase, Phase::Joining) {
            Phase::Steady(membership) | Phase::Installed(membership) => {
                Phase::Suspended(membership)
            }
            other => other,
        };
        self.notes.clear();
        let report = self.report(false);
        self.send(PeerToMaster::Flush { vid, report });
    }

    pub(super) fn handle_release(&mut self, vid: Vid) {
        match self.phase.membership_mut() {
            Some(membership) if membership.view.vid == vid => membership.release(),
            Some(membership) if membership.view.vid > vid => return,
            _ => return self.drop_master(&format!("Release of view {vid}")),
        }
        self.phase = match std::mem::replace(&mut self.phase, Phase::Joining) {
            Phase::Installed(membership) => Phase::Steady(membership),
            other => other,
        };
        self.tell_held_back();
        self.tell_safe_point();
        self.advance_all();
    }

    pub(super) fn handle_install(&mut self, install: Install) {
        if let Err(what) = self.check_install(&install) {
            return self.end_contradicted(format!("view {}: {what}", install.vid));
        }
        let before = self.view().map(|view| view.vid);
        let is_reply = matches!(self.phase, Phase::Attaching(_));
        self.take_back(&install, before);
        self.take_floors(&install, before.is_none());
        self.safe_points
            .install(install.safe_released, before.is_none());
        self.enter(&install);
        self.install_streams(&install, before.is_none());
        if is_reply {
            self.note_attached();
        }
        let is_same_master = before.is_none_or(|before| before.term == install.vid.term);
        self.settle_expected(&install, is_same_master);
        self.refresh_links();
        self.forget_earlier();
        if before != Some(install.vid) {
            self.show_view(install.departed);
        }
        self.decide_below_floors();
        self.answer_install(install.vid);
        self.say_all_held();
        if before != Some(install.vid) {
            self.said.enter(install.vid);
        }
        let is_released = self
            .phase
            .membership()
            .is_some_and(|membership| membership.released);
        if is_released || is_active(Mutation::TellAtInstall) {
            self.tell_held_back();
            self.tell_safe_point();
        }
        self.advance_all();
        self.say_safe_point();
        self.agree_on_safe_point();
        self.answer_safe_points();
    }

    fn show_view(&mut self, departed: Vec<(PeerId, EvictReason)>) {
        let Some(membership) = self.phase.membership() else {
            return;
        };
        let (group, names) = (self.setup.group, &self.names);
        let installed = Event::ViewInstalled {
            group,
            vid: membership.view.vid,
            members: membership.members.to_vec(),
            names: names.clone(),
        };
        self.outputs
            .push_back(Output::View(Arc::clone(&membership.view)));
        self.outputs.push_back(Output::Event(installed));
        self.outputs
            .extend(departed.into_iter().map(|(peer, reason)| {
                Output::Event(Event::Evicted {
                    peer,
                    group,
                    reason,
                    names: names.clone(),
                })
            }));
    }

    /// The view is in force; carried operations that are decided by now are left out. A view that
    /// was released stays so.
    fn enter(&mut self, install: &Install) {
        let before = self.phase.membership();
        let was_released =
            before.is_some_and(|before| before.released && before.view.vid == install.vid);
        let mut membership = Membership::new(install);
        if membership.released || was_released {
            membership.release();
        }
        membership.carried.retain(|tag, carried| {
            self.tags
                .get(*tag)
                .is_none_or(|state| carried.op.n >= state.floor)
        });
        self.phase = if install.suspended {
            Phase::Suspended(membership)
        } else if membership.released {
            Phase::Steady(membership)
        } else {
            Phase::Installed(membership)
        };
    }

    /// Forgets the tags that were given back since the view that this peer comes from.
    fn take_back(&mut self, install: &Install, before: Option<Vid>) {
        let Some(before) = before else {
            return;
        };
        for given in &install.given_back {
            if given.vid > before {
                self.tags.give_back(given.tag);
            }
        }
    }

    /// Frames of decided operations no longer count.
    fn forget_earlier(&mut self) {
        if let Some(membership) = self.phase.membership() {
            let carried = membership.carried.values().map(|carried| carried.op);
            let forget = Output::Forget {
                before: membership.view.vid,
                carried: carried.collect(),
            };
            self.outputs.push_back(forget);
        }
    }

    fn take_floors(&mut self, install: &Install, is_first: bool) {
        for sealed in &install.floors {
            let state = self.tags.entry(sealed.tag);
            state.raise(sealed);
            if is_first {
                state.begin_at(sealed.floor);
            }
        }
        if !is_first {
            return;
        }
        // A newcomer starts to count a tag after the operation that is carried without it.
        for carried in &install.carried {
            let state = self.tags.entry(carried.op.tag);
            if carried.op.n == state.floor {
                state.begin_at(carried.op.n.next());
            }
        }
    }

    /// Restates all facts, since the master may have missed some while it decided: also those that
    /// waited for links, to be sent, or for the connection.
    fn answer_install(&mut self, vid: Vid) {
        self.notes.clear();
        let mut report = self.report(false);
        if is_active(Mutation::InstalledWithoutFacts) {
            report.tags.iter_mut().for_each(|tag| tag.open = None);
        }
        self.send(PeerToMaster::Installed { vid, report });
        self.restate_links();
        if self.leaving.is_some() {
            self.send(PeerToMaster::Leave);
        }
    }

    fn check_install(&self, install: &Install) -> Result<(), String> {
        let known = Known {
            me: self.session.peer().unwrap_or_default(),
            view: self.view().map(|view| &**view),
            is_reply: matches!(self.phase, Phase::Attaching(_)),
            safe_released: self.safe_points.sealed(),
            tags: &self.tags,
        };
        known.check(install)?;
        self.check_streams(install)
    }
}
