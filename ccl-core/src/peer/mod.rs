//! A peer's side of the control protocol.
//!
//! Pure: `handle` takes the time and one input, `poll_output` returns what to do, and
//! `poll_timeout` says when to call again with [`Input::Timeout`]. It knows operation names, views
//! and verdicts; `collective` moves the bytes.
//!
//! A call is posted, and `StartOp` emitted, by the very input that allows it: by `Post` itself in a
//! steady or newly installed view and while there is no master; otherwise (flushed, waiting for the
//! answer to `Attach`, or behind a carried operation) by the message that ends the wait.

mod agreement;
mod calls;
mod cancel;
mod check;
mod coverage;
mod install;
mod invariants;
mod io;
mod mesh;
mod notes;
mod opening;
mod phase;
mod pings;
mod records;
mod report;
mod safe_point;
mod safe_said;
mod session;
mod shared_state;
mod tags;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ids::PeerId;
use crate::limits;
use crate::names::Names;
use crate::time::{Instant, Pace, Patience};
use crate::timers::Timers;
use crate::wire::control::{MasterToPeer, Member, OtherGroups, PeerToMaster, Wait};

use coverage::Coverage;
use mesh::Mesh;
use notes::Notes;
use phase::{Phase, Reaction, Trigger};
use records::{Gift, Records};
use safe_point::SafePoints;
use safe_said::{Said, Stride};
use session::{Leaving, Session};
use tags::Tags;

pub use crate::wire::peer_to_peer::{PeerToPeer, SafePointProgress};
pub use io::{End, Input, Neighbour, Output, SessionEnd, Setup, View};

/// A peer of a run. Pure: see the module's documentation.
#[derive(Debug)]
pub struct Peer {
    setup: Setup,
    /// Real time, for deadlines and the time without a master (R20).
    now: Instant,
    /// The clock by which the master is judged (R20).
    patience: Patience,
    phase: Phase,
    session: Session,
    tags: Tags,
    notes: Notes,
    safe_points: SafePoints,
    records: Records,
    said: Said,
    stride: Stride,
    mesh: Mesh,
    leaving: Option<Leaving>,
    /// The newest state sent by the master.
    others: OtherGroups,
    /// What it waits for, as last sent by the master.
    waits: Option<Wait>,
    /// Of all peers that the master has named.
    names: Names,
    outputs: VecDeque<Output>,
    coverage: Coverage,
}

impl Peer {
    /// A peer that has not connected; the first output is `Connect`.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Self {
        let session = Session::new(setup.entropy);
        let timers = Timers::default();
        let pace = Pace::new(timers.heartbeat_interval, timers.peer_timeout);
        Self {
            setup,
            now,
            patience: Patience::new(now, pace),
            phase: Phase::Joining,
            session,
            tags: Tags::default(),
            notes: Notes::default(),
            safe_points: SafePoints::default(),
            records: Records::default(),
            said: Said::default(),
            stride: Stride::default(),
            mesh: Mesh::default(),
            leaving: None,
            others: OtherGroups::default(),
            waits: None,
            names: Names::default(),
            outputs: VecDeque::from([Output::Connect]),
            coverage: Coverage::default(),
        }
    }

    /// Takes one input. `now` never runs backwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = self.now.max(now);
        self.begin_turn();
        if self.detached_until().is_some_and(|until| until <= self.now) {
            // It slept through it.
            self.end_session(SessionEnd::Detached);
        }
        if matches!(input, Input::Control(_)) && !self.session.is_up() {
            // Last frames of a connection that was given up; everything will be sent again.
            return;
        }
        let (state, trigger) = (self.phase.state(), Trigger::of(&input));
        self.coverage.note(state, trigger);
        match phase::reaction(state, trigger) {
            Reaction::Ignore => {}
            Reaction::Fault => {
                self.drop_master(&format!("{} while {}", trigger.name(), state.name()));
            }
            Reaction::Act | Reaction::Tolerate => {
                self.act(input);
                self.announce_safe_point();
            }
        }
    }

    /// After a pause of this process the timeout for the master restarts (R20).
    fn begin_turn(&mut self) {
        if self.first_patience().is_none() {
            self.patience.skip(self.now);
        } else if self.patience.turn(self.now).is_some() {
            self.session.heard(self.patience.now());
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            let done = self.notes.take_done();
            (!done.is_empty()).then_some(Output::Send(PeerToMaster::Done(done)))
        })
    }

    /// When to call `handle` with [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        let patience = self.first_patience();
        let times = [
            patience.map(|at| self.patience.real(at).min(self.patience.next_turn())),
            self.session.next_timeout(),
            self.detached_until(),
            self.tags.next_deadline(),
            self.safe_points.deadline(),
            self.notes.due(),
        ];
        times.into_iter().flatten().min()
    }

    /// What is due first by the clock of patience.
    fn first_patience(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.until);
        let times = [self.session.silent_at(), self.tags.next_verdict(), leaving];
        times.into_iter().flatten().min()
    }

    /// The view in force, once admitted.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.phase.membership().map(|membership| &membership.view)
    }

    /// The session's name, once registered.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        self.session.peer()
    }

    /// The other groups of the run, as of the master's newest sign of life.
    #[must_use]
    pub fn other_groups(&self) -> OtherGroups {
        self.others
    }

    /// What this peer waits for, as of the master's newest sign of life.
    #[must_use]
    pub fn waits(&self) -> Option<&Wait> {
        self.waits.as_ref()
    }

    /// The names of all peers that the master has named.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The (state, event) cells of the transition table that this peer has been through.
    #[must_use]
    pub fn visited(&self) -> &BTreeSet<(&'static str, &'static str)> {
        self.coverage.visited()
    }

    /// The cells that a run without contradictions can reach and that have an effect.
    #[must_use]
    pub fn legal_cells() -> BTreeSet<(&'static str, &'static str)> {
        phase::legal_cells()
            .map(|(state, trigger)| (state.name(), trigger.name()))
            .collect()
    }

    fn act(&mut self, input: Input) {
        match input {
            Input::ControlUp => self.handle_control_up(),
            Input::ControlDown => self.handle_control_down(),
            Input::Control(message) => self.act_on_message(message),
            Input::LinkUp(peer) => self.handle_link_up(peer),
            Input::LinkDown {
                peer,
                fault,
                gave_up,
            } => self.handle_link_down(peer, fault, gave_up),
            Input::NoLink { peer, why } => self.handle_no_link(peer, why),
            Input::Held(op) => self.handle_held(op),
            Input::Said { peer, message } => match message {
                PeerToPeer::Held(op) => self.handle_peer_held(peer, op),
                PeerToPeer::SafePoint(progress) => self.handle_peer_safe_point(peer, progress),
            },
            Input::Mismatch { op, peer, theirs } => self.handle_mismatch(op, peer, &theirs),
            Input::Post {
                call,
                tag,
                fingerprint,
                deadline,
            } => self.handle_post(call, tag, fingerprint, deadline),
            Input::Cancel { call, reason } => self.handle_cancel(call, reason),
            Input::SafePoint { call, deadline } => self.handle_safe_point(call, deadline),
            Input::Enter {
                call,
                stream,
                payload,
                rule,
            } => self.handle_enter(call, stream, Gift { payload, rule }),
            Input::Leave { call } => self.handle_leave(call),
            Input::Timeout => self.handle_timeout(),
        }
    }

    fn act_on_message(&mut self, message: MasterToPeer) {
        self.session.heard(self.patience.now());
        match message {
            MasterToPeer::Welcome {
                run_id,
                session,
                peer,
                term: _,
                timers,
                others,
                waits,
            } => {
                (self.others, self.waits) = (others, waits);
                self.handle_welcome(session::Registration {
                    run_id,
                    session,
                    peer,
                    timers,
                });
            }
            MasterToPeer::Expect {
                vid,
                members,
                newcomers,
            } => {
                self.learn_names(members.iter().chain(&newcomers));
                self.handle_expect(vid, members, newcomers);
            }
            MasterToPeer::Install(install) => {
                self.waits = None;
                self.learn_names(&install.members);
                self.handle_install(install);
            }
            MasterToPeer::Commit(commits) => self.handle_commit(commits),
            MasterToPeer::Elected {
                op,
                content,
                sources,
            } => self.handle_elected(op, content, sources),
            MasterToPeer::Recorded(sealed) => self.handle_recorded(sealed),
            MasterToPeer::RecordsReleased { stream, released } => {
                self.handle_records_released(stream, released);
            }
            MasterToPeer::Summon => self.handle_summon(),
            MasterToPeer::Suspend { vid } => self.handle_suspend(vid),
            MasterToPeer::Release { vid } => self.handle_release(vid),
            MasterToPeer::SafeReleased { k, vid } => self.handle_safe_released(k, vid),
            MasterToPeer::Evicted { reason } => self.handle_evicted(reason),
            MasterToPeer::Refused { reason } => self.end_session(SessionEnd::Refused(reason)),
            MasterToPeer::Pong { others, waits, .. } => {
                (self.others, self.waits) = (others, waits);
                self.session.note_pong(self.now);
                self.agree_on_all();
                self.agree_on_safe_point();
            }
        }
    }

    fn learn_names<'a>(&mut self, members: impl IntoIterator<Item = &'a Member>) {
        let members = members.into_iter();
        self.names
            .learn(members.map(|member| (member.peer, member.label())));
        self.names.forget_old(limits::PEERS_MAX * 2);
    }

    fn handle_timeout(&mut self) {
        self.check_session();
        self.check_calls();
        self.check_safe_point();
        if self.notes.due().is_some_and(|due| due <= self.now) {
            self.send_notes();
        }
    }

    /// Sends at once. Reports and requests follow the notes on which they depend.
    fn send(&mut self, message: PeerToMaster) {
        self.outputs.push_back(Output::Send(message));
    }
}
