//! The phases of a group, and the table of what each phase does with each event.
//!
//! A phase owns what exists only while it lasts; leaving it drops its reports and its list of
//! awaited members. Every event is looked up in the table; `group` does what it says.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PeerId, Tag};
use crate::master::group::lease::Leases;
use crate::master::group::rebuild::Rebuild;
use crate::master::session::Sessions;
use crate::time::Instant;
use crate::wire::control::EvictReason;

/// The phase of a group (docs/protocol.md, Master).
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a group")]
pub enum Phase {
    /// A restarted master collects the reports of the newest view's members (R11).
    Rebuild(Rebuild),
    /// There is no member; the first view waits for enough newcomers.
    Founding,
    /// Operations run and commit.
    Steady,
    /// The view ends: members report, and post nothing.
    Suspended(Change),
    /// The next view is sealed; its old members have not all confirmed it.
    Installing(Round),
}

/// A view change before its decision.
#[derive(Debug)]
pub struct Change {
    /// Members whose report is missing.
    pub awaited: Awaited,
    /// Members that are gone.
    pub lost: BTreeMap<PeerId, EvictReason>,
    /// Tags that are not at rest at some member, if the others are to be given back.
    pub busy: Option<BTreeSet<Tag>>,
    /// Safe points that members have told each other to be at or past.
    pub said: BTreeMap<PeerId, u64>,
    /// How long those that are gone may go on.
    pub leases: Leases,
}

/// A view change after its decision.
#[derive(Debug)]
pub struct Round {
    /// Members of the view before that have not sent `Installed`.
    pub awaited: Awaited,
}

/// Members whose answer is missing, and when each was asked for it: at once, or when it first had a
/// connection again. Attaching again gives no more time.
#[derive(Debug, Default)]
pub struct Awaited {
    asked: BTreeMap<PeerId, Option<Instant>>,
}

impl Awaited {
    /// Awaits these; those that are attached are asked now.
    pub fn ask(peers: &BTreeSet<PeerId>, sessions: &Sessions, now: Instant) -> Self {
        let asked = |peer: &PeerId| sessions.connection(*peer).map(|_| now);
        Self {
            asked: peers.iter().map(|peer| (*peer, asked(peer))).collect(),
        }
    }

    /// A member is back: the reply to its attach asks it.
    pub fn ask_again(&mut self, peer: PeerId, now: Instant) {
        if let Some(asked) = self.asked.get_mut(&peer) {
            asked.get_or_insert(now);
        }
    }

    /// The member has answered, or is gone.
    pub fn remove(&mut self, peer: PeerId) {
        self.asked.remove(&peer);
    }

    pub fn contains(&self, peer: PeerId) -> bool {
        self.asked.contains_key(&peer)
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.asked.keys().copied()
    }

    /// Members that were asked, and when.
    pub fn asked(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        let asked = self.asked.iter();
        asked.filter_map(|(peer, asked)| Some((*peer, (*asked)?)))
    }
}

impl Phase {
    pub fn state(&self) -> State {
        match self {
            Self::Rebuild(_) => State::Rebuild,
            Self::Founding => State::Founding,
            Self::Steady => State::Steady,
            Self::Suspended(_) => State::Suspended,
            Self::Installing(_) => State::Installing,
        }
    }

    /// Members whose answer the phase waits for.
    pub fn awaited(&self) -> Option<&Awaited> {
        match self {
            Self::Suspended(change) => Some(&change.awaited),
            Self::Installing(round) => Some(&round.awaited),
            Self::Rebuild(_) | Self::Founding | Self::Steady => None,
        }
    }
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($variant),* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

names! {
    /// Names of the phases.
    State { Rebuild, Founding, Steady, Suspended, Installing }
}

names! {
    /// What can happen to a group. The first four concern newcomers, the others members.
    Event {
        Registered,
        NewcomerAttach,
        Ready,
        NewcomerLost,
        MemberHere,
        MemberAttach,
        Posted,
        Done,
        Cancel,
        Flush,
        Installed,
        AtSafePoint,
        Withdraw,
        Entered,
        RecordsHeld,
        LinkDown,
        LinkUp,
        ConnectionEnded,
        MemberLost,
    }
}

/// What a group does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is part of the protocol.
    Do(&'static str),
    /// It is acted on, though this library's peers never cause it.
    Tolerate(&'static str),
    /// A correct peer may send it, but it no longer matters.
    Ignore(&'static str),
    /// No correct peer sends it: the sender is evicted.
    Refuse(&'static str),
    /// It cannot happen, whatever is sent.
    Never,
}

/// The transition table.
pub fn rule(state: State, event: Event) -> Rule {
    use Event as E;
    use Rule::{Do, Ignore, Never, Refuse, Tolerate};
    use State as S;
    match (state, event) {
        (S::Rebuild, E::Registered | E::NewcomerAttach) => Do("keep waiting"),
        (S::Rebuild, E::Ready) => Do("note"),
        (S::Rebuild, E::NewcomerLost) => Do("forget"),
        (_, E::Registered) => Do("tell whom to expect"),
        (_, E::NewcomerAttach) => Do("tell whom to expect"),
        (S::Founding, E::NewcomerLost) => Do("forget"),
        (S::Founding, E::Ready) => Do("note; enough: seal, Install, Release -> Steady"),
        (_, E::Ready) => Do("note"),
        (S::Suspended | S::Installing, E::NewcomerLost) => Do("forget"),
        (S::Steady, E::NewcomerLost) => Do("forget; nobody left: safe point unchanged"),

        (S::Founding, _) => Never,

        (S::Rebuild, E::MemberHere) => Do("note; all in: Summon"),
        (_, E::MemberHere) => Do("Summon"),
        (S::Rebuild, E::MemberAttach) => Do("keep report; all in: decide, Install -> Installing"),
        (S::Steady, E::MemberAttach) => Do("absorb, reply"),
        (S::Suspended, E::MemberAttach) => Do("absorb as Flush, reply; last: -> Installing"),
        (S::Installing, E::MemberAttach) => Do("absorb, reply; has the view: as Installed"),

        (S::Rebuild, E::Posted) => Refuse("posted between Attach and its reply"),
        (S::Steady | S::Installing, E::Posted) => Do("absorb; differs: -> Suspended"),
        (S::Suspended, E::Posted) => Do("absorb; refuse if flushed"),

        (S::Steady | S::Installing, E::Done) => Do("absorb; all: seal, Commit"),
        (S::Suspended, E::Done) => Do("absorb"),
        (S::Rebuild, E::Done) => Tolerate("add to its report"),

        (S::Steady, E::Cancel) => Do("absorb, Suspend -> Suspended"),
        (S::Suspended | S::Installing, E::Cancel) => Do("absorb"),
        (S::Rebuild, E::Cancel) => Tolerate("add to its report"),

        (S::Suspended, E::Flush) => Do("absorb; last: decide, seal, Install -> Installing"),
        (S::Rebuild, E::Flush) => Ignore("of a view before the restart"),
        (S::Steady | S::Installing, E::Flush) => Ignore("of a view that has ended"),

        (S::Installing, E::Installed) => Do("absorb; last: Release -> Steady"),
        (S::Steady | S::Suspended, E::Installed) => Do("absorb"),
        (S::Rebuild, E::Installed) => Ignore("of a view before the restart"),

        (S::Steady, E::AtSafePoint) => Do("nobody Ready: release; all: -> Suspended; else wait"),
        (S::Suspended | S::Installing, E::AtSafePoint) => Do("absorb"),
        (S::Steady, E::Withdraw) => Do("release unchanged"),
        (S::Suspended | S::Installing, E::Withdraw) => Do("absorb"),
        (S::Rebuild, E::AtSafePoint | E::Withdraw) => Tolerate("add to its report"),

        (S::Rebuild, E::Entered | E::RecordsHeld) => Refuse("sent between Attach and its reply"),
        (_, E::Entered) => Do("absorb; all, quorum or deadline: seal, Recorded"),
        (_, E::RecordsHeld) => Do("absorb; a majority: RecordsReleased"),

        (S::Rebuild, E::LinkDown | E::LinkUp) => Tolerate("note"),
        (S::Rebuild, E::ConnectionEnded) => Do("keep its report"),
        (_, E::LinkDown) => Do("note; its connection ended too: evict; gave up: blame"),
        (_, E::LinkUp) => Do("forget"),
        (_, E::ConnectionEnded) => Do("a member saw its data end: evict; else grace"),

        (S::Rebuild, E::MemberLost) => Tolerate("strike from heard"),
        (S::Steady, E::MemberLost) => Do("Suspend -> Suspended; nobody left: -> Founding"),
        (S::Suspended, E::MemberLost) => Do("strike from awaited; last: -> Installing"),
        (S::Installing, E::MemberLost) => Do("Suspend the new view -> Suspended"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn transition_table() {
        let mut table = String::new();
        for &state in State::ALL {
            for &event in Event::ALL {
                let (mark, what) = match rule(state, event) {
                    Rule::Do(what) => ("do      ", what),
                    Rule::Tolerate(what) => ("tolerate", what),
                    Rule::Ignore(what) => ("ignore  ", what),
                    Rule::Refuse(what) => ("refuse  ", what),
                    Rule::Never => ("never   ", ""),
                };
                let row = format!("{:10} {:15} {mark} {what}", state.name(), event.name());
                writeln!(table, "{}", row.trim_end()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }
}
