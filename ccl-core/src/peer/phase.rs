//! The phases of a session, what each owns, and the table of what it does with each event.
//!
//! Leaving a phase drops what it owns. The table says whether an event is handled; the modules with
//! the handlers say how (docs/protocol.md, Peer).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Members, OpName, OpNumber, Rank, Tag};
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{Birth, GivenBack, Install, MasterToPeer};

use super::io::{Input, SessionEnd, View};

/// The phase of a session.
#[derive(Debug)]
pub(super) enum Phase {
    /// No master has registered it.
    Joining,
    /// Registered, not yet a member of any view.
    Newcomer,
    /// Member of a released view.
    Steady(Membership),
    /// Flushed: the view ends, and nothing is posted until the next.
    Suspended(Membership),
    /// Member of a view that is not released.
    Installed(Membership),
    /// No connection to the master, or one over which it has not asked for `Attach`; what does not
    /// need it continues.
    Detached(Absence),
    /// `Attach` with the full report was sent; the reply has not come.
    Attaching(Absence),
    /// The session is over.
    Ended(SessionEnd),
}

/// The view that a member is in.
#[derive(Debug)]
pub(super) struct Membership {
    /// As callers see it.
    pub view: Arc<View>,
    /// Names of its members in rank order.
    pub members: Members,
    /// The ring order of its members.
    pub ring_order: Arc<[Rank]>,
    /// Whether outcomes decided at the change to it may be reported.
    pub released: bool,
    /// Operations carried into it that are not decided.
    pub carried: BTreeMap<Tag, Birth>,
    /// Tags that other members may not know to have restarted; none once it is released.
    pub given_back: Vec<GivenBack>,
}

/// A membership without a master.
#[derive(Debug)]
pub(super) struct Absence {
    /// The view, and what is carried.
    pub membership: Membership,
    /// Whether it had flushed: then nothing is posted.
    pub flushed: bool,
    /// When the master was lost.
    pub since: Instant,
}

/// Name of a phase, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Joining,
    Newcomer,
    Steady,
    Suspended,
    Installed,
    Detached,
    Attaching,
    Ended,
}

/// Name of an input, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trigger {
    ControlUp,
    ControlDown,
    Welcome,
    Expect,
    Install,
    Commit,
    Elected,
    Summon,
    Suspend,
    Release,
    SafeReleased,
    Recorded,
    RecordsReleased,
    Evicted,
    Refused,
    Pong,
    LinkUp,
    LinkDown,
    NoLink,
    Held,
    Said,
    Mismatch,
    Post,
    Cancel,
    SafePoint,
    Enter,
    Leave,
    Timeout,
}

/// What a phase does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Acts on it.
    Act,
    /// Acts on it, though a correct master or caller never causes it.
    Tolerate,
    /// It means nothing here.
    Ignore,
    /// The master contradicts itself: drop the connection and report everything again.
    Fault,
}

use Reaction::{Act as A, Fault as F, Ignore as I, Tolerate as T};

/// The transition table. Columns are the states in the order of [`STATES`].
#[rustfmt::skip]
const TABLE: [(Trigger, [Reaction; 8]); 28] = [
    //                      joining newcomer steady suspended installed detached attaching ended
    (Trigger::ControlUp,    [A,     A,       I,     I,        I,        A,       I,        I]),
    (Trigger::ControlDown,  [A,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::Welcome,      [A,     T,       F,     F,        F,        I,       F,        I]),
    (Trigger::Expect,       [F,     A,       A,     A,        A,        I,       T,        I]),
    (Trigger::Install,      [F,     A,       F,     A,        F,        I,       A,        I]),
    (Trigger::Commit,       [F,     F,       A,     T,        A,        I,       F,        I]),
    (Trigger::Elected,      [F,     F,       A,     A,        A,        I,       F,        I]),
    (Trigger::Summon,       [F,     F,       F,     F,        F,        A,       F,        I]),
    (Trigger::Suspend,      [F,     F,       A,     T,        A,        I,       F,        I]),
    (Trigger::Release,      [F,     F,       T,     T,        A,        I,       F,        I]),
    (Trigger::SafeReleased, [F,     F,       A,     T,        T,        I,       F,        I]),
    (Trigger::Recorded,     [F,     F,       A,     A,        A,        I,       A,        I]),
    (Trigger::RecordsReleased,
                            [F,     F,       A,     A,        T,        I,       F,        I]),
    (Trigger::Evicted,      [T,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::Refused,      [A,     A,       T,     T,        T,        T,       T,        I]),
    (Trigger::Pong,         [T,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::LinkUp,       [I,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::LinkDown,     [I,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::NoLink,       [I,     A,       A,     A,        A,        A,       A,        I]),
    (Trigger::Held,         [I,     I,       A,     A,        A,        A,       A,        I]),
    (Trigger::Said,         [I,     I,       A,     A,        A,        A,       A,        I]),
    (Trigger::Mismatch,     [I,     I,       A,     T,        T,        T,       T,        I]),
    (Trigger::Post,         [T,     T,       A,     A,        A,        A,       A,        A]),
    (Trigger::Cancel,       [T,     T,       A,     A,        A,        A,       A,        I]),
    (Trigger::SafePoint,    [T,     T,       A,     A,        A,        A,       A,        A]),
    (Trigger::Enter,        [T,     T,       A,     A,        A,        A,       A,        A]),
    (Trigger::Leave,        [A,     A,       A,     A,        A,        A,       A,        A]),
    (Trigger::Timeout,      [A,     A,       A,     A,        A,        A,       A,        I]),
];

/// All states, in the order of the table's columns.
pub(super) const STATES: [State; 8] = [
    State::Joining,
    State::Newcomer,
    State::Steady,
    State::Suspended,
    State::Installed,
    State::Detached,
    State::Attaching,
    State::Ended,
];

/// All events, in the order of the table's rows.
#[cfg(test)]
pub(super) const TRIGGERS: [Trigger; 28] = {
    let mut triggers = [Trigger::ControlUp; 28];
    let mut row = 0;
    while row < TABLE.len() {
        triggers[row] = TABLE[row].0;
        row += 1;
    }
    triggers
};

/// What this state does with this event.
pub(super) fn reaction(state: State, trigger: Trigger) -> Reaction {
    TABLE[trigger as usize].1[state as usize]
}

/// Every (state, event) that a run without contradictions can reach and that has an effect.
pub(super) fn legal_cells() -> impl Iterator<Item = (State, Trigger)> {
    TABLE.iter().flat_map(|(trigger, _)| {
        STATES
            .into_iter()
            .filter(|state| reaction(*state, *trigger) == Reaction::Act)
            .map(|state| (state, *trigger))
    })
}

impl Phase {
    /// The phase without its data, for the table.
    pub fn state(&self) -> State {
        match self {
            Self::Joining => State::Joining,
            Self::Newcomer => State::Newcomer,
            Self::Steady(_) => State::Steady,
            Self::Suspended(_) => State::Suspended,
            Self::Installed(_) => State::Installed,
            Self::Detached(_) => State::Detached,
            Self::Attaching(_) => State::Attaching,
            Self::Ended(_) => State::Ended,
        }
    }

    /// The view it is in, if it is a member.
    pub fn membership(&self) -> Option<&Membership> {
        match self {
            Self::Steady(membership)
            | Self::Suspended(membership)
            | Self::Installed(membership) => Some(membership),
            Self::Detached(absence) | Self::Attaching(absence) => Some(&absence.membership),
            Self::Joining | Self::Newcomer | Self::Ended(_) => None,
        }
    }

    /// The view it is in, to change it.
    pub fn membership_mut(&mut self) -> Option<&mut Membership> {
        match self {
            Self::Steady(membership)
            | Self::Suspended(membership)
            | Self::Installed(membership) => Some(membership),
            Self::Detached(absence) | Self::Attaching(absence) => Some(&mut absence.membership),
            Self::Joining | Self::Newcomer | Self::Ended(_) => None,
        }
    }

    /// Whether operations may be posted (R5): not from Flush or Attach to the next `Install`.
    pub fn is_posting(&self) -> bool {
        match self {
            Self::Steady(_) | Self::Installed(_) => true,
            Self::Detached(absence) => !absence.flushed,
            Self::Suspended(_) => is_active(Mutation::PostAfterFlush),
            _ => false,
        }
    }

    /// Whether single facts go to the master at once. While it has not answered an `Attach` they
    /// wait: `Installed` restates all of them after the reply.
    pub fn is_telling(&self) -> bool {
        matches!(
            self,
            Self::Steady(_) | Self::Suspended(_) | Self::Installed(_)
        )
    }
}

impl Membership {
    /// The view that `install` describes. The caller has checked it.
    pub fn new(install: &Install) -> Self {
        let members = install.members.iter().map(|member| member.peer).collect();
        let view = View {
            vid: install.vid,
            members: install.members.clone(),
            ring_order: install.ring_order.clone(),
            costs: install.costs,
        };
        Self {
            view: Arc::new(view),
            members,
            ring_order: install.ring_order.clone().into(),
            released: install.released,
            carried: install
                .carried
                .iter()
                .map(|carried| (carried.op.tag, carried.clone()))
                .collect(),
            given_back: install.given_back.clone(),
        }
    }

    /// An operation that is born in it.
    pub fn birth(&self, tag: Tag, n: OpNumber) -> Birth {
        let birth = self.view.vid;
        Birth {
            op: OpName { tag, n, birth },
            members: self.members.clone(),
            ring_order: Arc::clone(&self.ring_order),
            costs: self.view.costs,
        }
    }

    /// All old members have the view.
    pub fn release(&mut self) {
        self.released = true;
        self.given_back.clear();
    }

    /// Forgets a carried operation that is decided.
    pub fn forget_carried(&mut self, op: OpName) {
        if self
            .carried
            .get(&op.tag)
            .is_some_and(|carried| carried.op == op)
        {
            self.carried.remove(&op.tag);
        }
    }
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "Joining",
            Self::Newcomer => "Newcomer",
            Self::Steady => "Steady",
            Self::Suspended => "Suspended",
            Self::Installed => "Installed",
            Self::Detached => "Detached",
            Self::Attaching => "Attaching",
            Self::Ended => "Ended",
        }
    }
}

impl Trigger {
    /// The event that an input is.
    pub fn of(input: &Input) -> Self {
        match input {
            Input::ControlUp => Self::ControlUp,
            Input::ControlDown => Self::ControlDown,
            Input::Control(message) => Self::of_message(message),
            Input::LinkUp(_) => Self::LinkUp,
            Input::NoLink { .. } => Self::NoLink,
            Input::LinkDown { .. } => Self::LinkDown,
            Input::Held(_) => Self::Held,
            Input::Said { .. } => Self::Said,
            Input::Mismatch { .. } => Self::Mismatch,
            Input::Post { .. } => Self::Post,
            Input::Cancel { .. } => Self::Cancel,
            Input::SafePoint { .. } => Self::SafePoint,
            Input::Enter { .. } => Self::Enter,
            Input::Leave { .. } => Self::Leave,
            Input::Timeout => Self::Timeout,
        }
    }

    fn of_message(message: &MasterToPeer) -> Self {
        match message {
            MasterToPeer::Welcome { .. } => Self::Welcome,
            MasterToPeer::Expect { .. } => Self::Expect,
            MasterToPeer::Install(_) => Self::Install,
            MasterToPeer::Commit(_) => Self::Commit,
            MasterToPeer::Elected { .. } => Self::Elected,
            MasterToPeer::Summon => Self::Summon,
            MasterToPeer::Suspend { .. } => Self::Suspend,
            MasterToPeer::Release { .. } => Self::Release,
            MasterToPeer::SafeReleased { .. } => Self::SafeReleased,
            MasterToPeer::Recorded(_) => Self::Recorded,
            MasterToPeer::RecordsReleased { .. } => Self::RecordsReleased,
            MasterToPeer::Evicted { .. } => Self::Evicted,
            MasterToPeer::Refused { .. } => Self::Refused,
            MasterToPeer::Pong { .. } => Self::Pong,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlUp => "ControlUp",
            Self::ControlDown => "ControlDown",
            Self::Welcome => "Welcome",
            Self::Expect => "Expect",
            Self::Install => "Install",
            Self::Commit => "Commit",
            Self::Elected => "Elected",
            Self::Summon => "Summon",
            Self::Suspend => "Suspend",
            Self::Release => "Release",
            Self::SafeReleased => "SafeReleased",
            Self::Recorded => "Recorded",
            Self::RecordsReleased => "RecordsReleased",
            Self::Evicted => "Evicted",
            Self::Refused => "Refused",
            Self::Pong => "Pong",
            Self::LinkUp => "LinkUp",
            Self::LinkDown => "LinkDown",
            Self::NoLink => "NoLink",
            Self::Held => "Held",
            Self::Said => "Said",
            Self::Mismatch => "Mismatch",
            Self::Post => "Post",
            Self::Cancel => "Cancel",
            Self::SafePoint => "SafePoint",
            Self::Enter => "Enter",
            Self::Leave => "Leave",
            Self::Timeout => "Timeout",
        }
    }
}
