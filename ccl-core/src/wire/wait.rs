//! What a peer waits for, as its master sees it, with the text for users and operators.
//!
//! For information only; it may be one heartbeat old.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{PeerId, Rank, UnitId};
use crate::limits::WAIT_NAMES_MAX;
use crate::wire::bounded;

/// A peer, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPeer {
    /// The peer's session id.
    pub peer: PeerId,
    /// Its own name, and its address.
    pub name: String,
}

impl fmt::Display for NamedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "peer {}", self.peer),
            name => write!(f, "peer {} ({name})", self.peer),
        }
    }
}

/// Why a newcomer is not admitted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackoffCause {
    /// The members could not reach it (R10).
    Unreachable,
    /// The shared state of a process with its name and host was too far ahead (R18).
    RevisionAhead,
}

impl BackoffCause {
    fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "the members recently could not reach it",
            Self::RevisionAhead => {
                "a process with its name and host was recently evicted because its shared state \
                 was not the run's"
            }
        }
    }
}

/// How many peers of a newcomer's unit are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCount {
    /// The unit.
    pub unit: UnitId,
    /// Peers of it that are registered.
    pub registered: u32,
    /// Peers of the whole unit.
    pub size: u32,
}

/// A number of peers, of which only the first are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SomePeers {
    /// How many there are in total.
    pub count: u32,
    /// The first, by peer id.
    #[serde(deserialize_with = "bounded::list::<_, _, WAIT_NAMES_MAX>")]
    pub first: Vec<NamedPeer>,
}

impl fmt::Display for SomePeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, called) in self.first.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{called}")?;
        }
        match self.count as usize - self.first.len().min(self.count as usize) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A link that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingLink {
    /// The peer that reported it.
    pub from: NamedPeer,
    /// The peer at the other end.
    pub to: NamedPeer,
    /// The addresses that were tried, and the error of each; empty as long as nothing failed.
    pub error: String,
}

impl fmt::Display for MissingLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, error } = self;
        match error.as_str() {
            "" => write!(f, "{from} and {to} are not connected yet"),
            error => write!(f, "{to} cannot be reached from {from}: {error}"),
        }
    }
}

/// What a peer waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// A master without a history waits for members of an earlier run, before it founds one.
    EarlierRun {
        /// For how long at most, in seconds.
        seconds: u32,
    },
    /// All members of the group's last view were lost at once, and may be at work without the
    /// master.
    LostView {
        /// For how long at most, in seconds.
        seconds: u32,
    },
    /// A restarted master waits for the members of the last view.
    Rebuild {
        /// Members that are back.
        heard: u32,
        /// All of that view.
        members: u32,
        /// Members that are not back.
        missing: SomePeers,
        /// For how long at most, in seconds; 0: until more members are back.
        seconds: u32,
    },
    /// Others of its unit.
    Unit(UnitCount),
    /// More peers for the group's first view.
    FirstView {
        /// Peers that are registered.
        here: SomePeers,
        /// Peers that the first view needs.
        needed: u32,
        /// The first missing ranks of a closed group.
        #[serde(deserialize_with = "bounded::list::<_, _, WAIT_NAMES_MAX>")]
        absent: Vec<Rank>,
    },
    /// Links between registered peers.
    Links(#[serde(deserialize_with = "bounded::list::<_, _, WAIT_NAMES_MAX>")] Vec<MissingLink>),
    /// A pause after an eviction of this peer, or of an earlier process in its place.
    Backoff {
        /// Why it was evicted.
        cause: BackoffCause,
        /// For how long, in seconds.
        seconds: u32,
    },
    /// The group has as many members as it may have.
    Full {
        /// Current number of members.
        members: u32,
    },
    /// Members that have not reached their safe point.
    SafePoint {
        /// Number of members.
        members: u32,
        /// Members that have not reached it.
        missing: SomePeers,
    },
    /// Answers of members in a view change.
    Change {
        /// Members that have not answered.
        missing: SomePeers,
    },
}

impl Wait {
    /// The same without what changes from second to second. Waits that are then equal are one wait.
    #[must_use]
    pub fn gist(&self) -> Self {
        match self {
            Self::EarlierRun { .. } => Self::EarlierRun { seconds: 0 },
            Self::LostView { .. } => Self::LostView { seconds: 0 },
            Self::Backoff { cause, .. } => Self::Backoff {
                cause: *cause,
                seconds: 0,
            },
            // Each attempt may fail with another text; only the first failure is news.
            Self::Links(links) => Self::Links(gists(links)),
            Self::Rebuild {
                heard,
                members,
                missing,
                ..
            } => Self::Rebuild {
                heard: *heard,
                members: *members,
                missing: missing.clone(),
                seconds: 0,
            },
            other => other.clone(),
        }
    }
}

/// Each pair once, and whether an error is known for it.
fn gists(links: &[MissingLink]) -> Vec<MissingLink> {
    let mut pairs: Vec<MissingLink> = Vec::new();
    for MissingLink { from, to, error } in links {
        let (from, to) = match from.peer <= to.peer {
            true => (from, to),
            false => (to, from),
        };
        let error = if error.is_empty() { "" } else { "known" };
        match pairs.last_mut() {
            Some(last) if (&last.from, &last.to) == (from, to) => last.error.push_str(error),
            _ => pairs.push(MissingLink {
                from: from.clone(),
                to: to.clone(),
                error: error.into(),
            }),
        }
    }
    for pair in &mut pairs {
        pair.error.truncate("known".len());
    }
    pairs
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EarlierRun { seconds } => write!(
                f,
                "the master has no history and waits up to {seconds} s for members of an earlier \
                 run; start it with new_run to skip the wait"
            ),
            Self::LostView { seconds } => write!(
                f,
                "the master lost all members of the group at once; they may be at work without it, so \
                 it waits up to {seconds} s for their sessions to end"
            ),
            Self::Rebuild {
                heard,
                members,
                missing,
                seconds,
            } => {
                write!(
                    f,
                    "the master was restarted and waits for the members of the last view: {heard} \
                     of {members} are back; still missing: {missing}"
                )?;
                fmt_rebuild_end(f, *heard, *seconds)
            }
            Self::Unit(UnitCount {
                unit,
                registered,
                size,
            }) if registered < size => write!(
                f,
                "{registered} of the {size} peers of unit {unit} are registered; the unit is \
                 admitted when all are: start the others, or correct unit and unit_size"
            ),
            Self::Unit(UnitCount { unit, size, .. }) => write!(
                f,
                "all {size} peers of unit {unit} are registered and wait to be admitted to their \
                 groups together"
            ),
            Self::FirstView {
                here,
                needed,
                absent,
            } => fmt_first_view(f, here, *needed, absent),
            Self::Links(missing) => fmt_links(f, missing),
            Self::Backoff { cause, seconds } => {
                write!(f, "{}; it may rejoin in {seconds} s", cause.words())
            }
            Self::Full { members } => {
                write!(
                    f,
                    "the group is full: it has {members} members and cannot have more"
                )
            }
            Self::SafePoint { members, missing } => write!(
                f,
                "{} of {members} members have called update_topology, which admits newcomers; \
                 still missing: {missing}",
                members - missing.count.min(*members)
            ),
            Self::Change { missing } => write!(
                f,
                "a membership change is in progress and waits for {missing}"
            ),
        }
    }
}

fn fmt_first_view(
    f: &mut fmt::Formatter<'_>,
    here: &SomePeers,
    needed: u32,
    absent: &[Rank],
) -> fmt::Result {
    let count = here.count;
    if absent.is_empty() {
        return write!(
            f,
            "{count} of the {needed} peers that the group's first view needs are registered \
             ({here}); start the others, or lower initial_world_size or min_world_size"
        );
    }
    write!(
        f,
        "{count} of the {needed} members of the closed group have joined ({here}); still missing: rank "
    )?;
    for (index, rank) in absent.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{rank}")?;
    }
    match (needed.saturating_sub(count) as usize).saturating_sub(absent.len()) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// Writes what is missing and, if an attempt has failed, what to do.
fn fmt_links(f: &mut fmt::Formatter<'_>, missing: &[MissingLink]) -> fmt::Result {
    for (index, link) in missing.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        write!(f, "{separator}{link}")?;
    }
    match missing.iter().all(|link| link.error.is_empty()) {
        true => Ok(()),
        false => f.write_str(
            "; one of the two must be able to reach the other: open its port, or correct its \
             listen and advertise",
        ),
    }
}

/// Writes how long a restarted master waits at most.
fn fmt_rebuild_end(f: &mut fmt::Formatter<'_>, heard: u32, seconds: u32) -> fmt::Result {
    match (heard, seconds) {
        (_, 0) => Ok(()),
        (0, _) => write!(
            f,
            "; it waits up to {seconds} s, because they may still be running; if none is, restart \
             the master with members_gone"
        ),
        (_, _) => write!(f, "; it waits at most {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_peers_the_first_are_named_and_the_others_counted() {
        let called = |peer| NamedPeer {
            peer: PeerId(peer),
            name: format!("node{peer}:1"),
        };
        let missing = SomePeers {
            count: 3,
            first: vec![called(1), called(2)],
        };
        let wait = Wait::SafePoint {
            members: 5,
            missing,
        };
        let words = wait.to_string();
        let expected = "2 of 5 members have called update_topology, which admits newcomers; still \
                        missing: peer 1 (node1:1), peer 2 (node2:1) and 1 more";
        assert_eq!(words, expected);
    }

    #[test]
    fn a_missing_link_is_told_with_its_error_and_a_remedy() {
        let called = |peer, name: &str| NamedPeer {
            peer: PeerId(peer),
            name: name.into(),
        };
        let link = MissingLink {
            from: called(1, "a:1, 10.0.0.1:7"),
            to: called(2, "b:1, 10.0.0.2:7"),
            error: "10.0.0.2:7: no answer".into(),
        };
        let words = Wait::Links(vec![link]).to_string();
        assert!(words.contains(
            "peer 2 (b:1, 10.0.0.2:7) cannot be reached from peer 1 (a:1, 10.0.0.1:7): 10.0.0.2:7: \
             no answer; "
        ));
        assert!(words.contains("open its port"), "{words}");
        let link = MissingLink {
            from: called(1, "a"),
            to: called(2, "b"),
            error: String::new(),
        };
        let words = Wait::Links(vec![link]).to_string();
        let healthy = "peer 1 (a) and peer 2 (b) are not connected yet";
        assert_eq!(words, healthy, "nothing has failed");
    }
}
