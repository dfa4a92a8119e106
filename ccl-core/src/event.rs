//! Events for operators: typed, and sent once per change. `tracing` and the CLI subscribe.

use std::collections::BTreeSet;
use std::fmt;

use crate::ids::{GroupId, OpName, PeerId, Term, Vid};
use crate::names::Names;
use crate::wire::control::{AbortReason, EvictReason, StateId, Wait};

/// A change of state worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A master started a run, or resumed an earlier one.
    MasterStarted {
        /// The master's term; each start adds 1.
        term: Term,
        /// Whether it found an earlier run to rebuild.
        rebuilt: bool,
    },
    /// A master without a history waits before it founds a run: members of an earlier one, whose
    /// history is lost, may still come back (R11).
    EarlierRunAwaited {
        /// For how long at most, in seconds.
        seconds: u32,
    },
    /// A newcomer registered.
    Registered {
        /// The peer's session.
        peer: PeerId,
        /// The group concerned.
        group: GroupId,
        /// Its name and its address.
        name: String,
    },
    /// A session ended.
    Evicted {
        /// The peer's session.
        peer: PeerId,
        /// The group concerned.
        group: GroupId,
        /// Why its session ended.
        reason: EvictReason,
        /// Its name, and those of the others in its group.
        names: Names,
    },
    /// A view was sealed.
    ViewInstalled {
        /// The group concerned.
        group: GroupId,
        /// Id of the new view.
        vid: Vid,
        /// Its members in rank order.
        members: Vec<PeerId>,
        /// The members' names.
        names: Names,
    },
    /// A group, or its newcomers, have been waiting for a while.
    Waits {
        /// The group concerned.
        group: GroupId,
        /// What it waits for.
        wait: Wait,
    },
    /// A restarted master has waited for members of a group, and must not go on without more of
    /// them. Restart it with its journal, or with an operator's permission (R11).
    RebuildStalled {
        /// The group concerned.
        group: GroupId,
        /// Members of its newest view that were heard.
        heard: usize,
        /// Members of that view.
        members: usize,
    },
    /// The master itself did not run for a while (stopped, asleep, swapped out, or waiting for its
    /// disk). No peer is evicted for that (R20).
    MasterPaused {
        /// For how long, in milliseconds.
        paused_ms: u64,
    },
    /// The master receives nothing from any member or, if there are none, from any newcomer. It
    /// considers itself cut off, and evicts no peer until it receives something or `detach_timeout`
    /// has passed (R20).
    MasterHearsNobody,
    /// The journal is older than the run: an older copy, or truncated. It is treated as lost (R11).
    JournalOutdated,
    /// An operation committed.
    Committed {
        /// The group concerned.
        group: GroupId,
        /// The operation.
        op: OpName,
    },
    /// An operation was aborted for all.
    Aborted {
        /// The group concerned.
        group: GroupId,
        /// The operation.
        op: OpName,
        /// Why it was aborted.
        reason: AbortReason,
        /// The names of the group's peers.
        names: Names,
    },
    /// A sync of shared state committed: its members have this content from now on.
    StateSealed {
        /// The group concerned.
        group: GroupId,
        /// What was sealed.
        content: StateId,
    },
    /// A peer lost its master, or found it again.
    Attached(bool),
    /// The other side of a control connection broke the protocol; the connection was dropped.
    ProtocolFault {
        /// Which rule of the protocol it broke.
        what: String,
    },
    /// A lane broke and was repaired without an abort.
    LaneRepaired {
        /// The other end.
        peer: PeerId,
        /// The lane's index in its link.
        lane: u16,
    },
}

/// Which events of a master are news to its operator. The others are routine and belong in a more
/// detailed log.
#[derive(Debug, Default)]
pub struct News {
    /// Groups whose first sync since a change of members was reported.
    synced: BTreeSet<GroupId>,
}

impl News {
    /// Whether this is news: all but commits, and syncs of shared state after the first of a view.
    /// Ask once about each event, in order.
    #[must_use]
    pub fn is(&mut self, event: &Event) -> bool {
        match event {
            Event::Committed { .. } => false,
            Event::StateSealed { group, .. } => self.synced.insert(*group),
            Event::ViewInstalled { group, .. } => {
                self.synced.remove(group);
                true
            }
            _ => true,
        }
    }
}

/// One line for an operator.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MasterStarted { term, rebuilt } => match rebuilt {
                true => write!(f, "resuming an earlier run in term {term}"),
                false => write!(f, "started in term {term}"),
            },
            Self::EarlierRunAwaited { seconds } => earlier_run(f, *seconds),
            Self::Registered { peer, group, name } => {
                write!(
                    f,
                    "peer {peer} ({name}) registered as a newcomer of group {group}"
                )
            }
            Self::Evicted {
                peer,
                group,
                reason,
                names,
            } => {
                let (peer, reason) = (names.of(*peer), reason.words(names));
                write!(f, "the session of {peer} in group {group} ended: {reason}")
            }
            Self::ViewInstalled {
                group,
                vid,
                members,
                names,
            } => {
                write!(f, "group {group} is in view {vid}")?;
                match members.as_slice() {
                    [] => f.write_str(" and has no members left"),
                    all => write!(f, ", world size {}: {}", all.len(), names.list(all)),
                }
            }
            Self::Waits { group, wait } => write!(f, "group {group} is waiting: {wait}"),
            Self::RebuildStalled {
                group,
                heard,
                members,
            } => stalled(f, *group, *heard, *members),
            Self::MasterPaused { paused_ms } => paused(f, *paused_ms),
            Self::MasterHearsNobody => f.write_str(HEARS_NOBODY),
            Self::JournalOutdated => f.write_str(JOURNAL_OUTDATED),
            Self::Committed { group, op } => write!(f, "{op} of group {group} committed"),
            Self::Aborted {
                group,
                op,
                reason,
                names,
            } => {
                let reason = reason.words(names);
                write!(f, "{op} of group {group} was aborted for all: {reason}")
            }
            Self::StateSealed { group, content } => {
                write!(f, "the shared state of group {group} was sealed: {content}")
            }
            Self::Attached(true) => f.write_str("attached to the master"),
            Self::Attached(false) => f.write_str("lost the master"),
            Self::ProtocolFault { what } => {
                write!(f, "dropped a connection that broke the protocol: {what}")
            }
            Self::LaneRepaired { peer, lane } => {
                write!(f, "lane {lane} to peer {peer} was repaired")
            }
        }
    }
}

fn earlier_run(f: &mut fmt::Formatter<'_>, seconds: u32) -> fmt::Result {
    write!(
        f,
        "no history: the master waits up to {seconds} s for members of an earlier run before it \
         founds a new one; if there was no earlier run, --new-run (new_run) skips the wait"
    )
}

fn stalled(
    f: &mut fmt::Formatter<'_>,
    group: GroupId,
    heard: usize,
    members: usize,
) -> fmt::Result {
    write!(
        f,
        "group {group} is not rebuilt yet: {heard} of its {members} members are back; if no member \
         is alive, restart the master with members_gone; without the journal it needs a majority \
         of the members, or force_rebuild"
    )
}

fn paused(f: &mut fmt::Formatter<'_>, paused_ms: u64) -> fmt::Result {
    write!(
        f,
        "the master did not run for {paused_ms} ms (stopped, asleep, swapped out, or waiting for \
         the disk of its journal); no peer is evicted for that"
    )
}

const HEARS_NOBODY: &str = "the master receives nothing from its peers and may be cut off from the \
                            network; it evicts no peer until one is heard again or detach_timeout \
                            has passed";

const JOURNAL_OUTDATED: &str = "the journal is older than the run and is not trusted: the master \
                                rebuilds the run from its members, and needs a majority of each \
                                view, or force_rebuild";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::StateId;

    #[test]
    fn the_first_sync_after_a_change_of_the_members_is_news_and_commits_are_not() {
        let sealed = |group| Event::StateSealed {
            group: GroupId(group),
            content: StateId::default(),
        };
        let installed = Event::ViewInstalled {
            group: GroupId(1),
            vid: Vid::default(),
            members: Vec::new(),
            names: Names::default(),
        };
        let mut news = News::default();
        let events = [
            sealed(1),
            sealed(1),
            sealed(2),
            installed,
            sealed(2),
            sealed(1),
        ];
        let are_news = events.map(|event| news.is(&event));
        assert_eq!(are_news, [true, false, true, true, false, true]);
        let committed = Event::Committed {
            group: GroupId(1),
            op: OpName::default(),
        };
        assert!(!news.is(&committed));
    }
}
