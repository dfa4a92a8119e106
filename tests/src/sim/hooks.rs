//! Scripted reactions: when the n-th message of a kind passes a point, something breaks.

use std::time::Duration;

use super::cluster::{HostId, World};
use super::network::Break;
use super::peer_host::Host;

/// Where a message is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The master has just sent it.
    MasterSends,
    /// The master has just handled it.
    AtMaster,
    /// A host has just sent it.
    HostSends,
    /// A host has just handled it.
    AtHost,
}

/// The scripted fault.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Act {
    /// A host's process dies; `words` of 1,000 parts of its last messages arrive.
    Crash { host: HostId, words: u64 },
    /// The master's process dies; `words` of 1,000 parts of its last messages arrive. It starts
    /// again.
    CrashMaster { words: u64, restart: Duration },
    /// A host's control connection breaks.
    Break { host: HostId, how: Break },
    /// A host pauses.
    Freeze { host: HostId, length: Duration },
    /// Messages between the master and a host are held back.
    Block { host: HostId, up: bool, down: bool },
    /// The host of the message leaves the run.
    Leave { host: HostId },
    /// A host's oldest open call is cancelled.
    Cancel { host: HostId },
}

impl Act {
    /// The host.
    #[must_use]
    pub fn host(&self) -> Option<HostId> {
        match self {
            Self::CrashMaster { .. } => None,
            Self::Crash { host, .. }
            | Self::Break { host, .. }
            | Self::Freeze { host, .. }
            | Self::Block { host, .. }
            | Self::Leave { host }
            | Self::Cancel { host } => Some(*host),
        }
    }
}

/// A scripted reaction.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The point.
    pub point: Point,
    /// The kind of message (`messages`).
    pub kind: u64,
    /// The host that sends or receives it; `None`: any.
    pub host: Option<HostId>,
    /// How many to let pass first.
    pub skip: u32,
    /// What to do.
    pub act: Act,
    /// Whether it was done.
    pub done: bool,
}

impl World {
    /// Carries out the reactions that wait for this message.
    pub fn run_hooks(&mut self, point: Point, kind: u64, host: Option<HostId>) {
        self.run_aims(point, kind, host);
        let mut due = Vec::new();
        for hook in &mut self.hooks {
            let fits = hook.point == point
                && hook.kind == kind
                && (hook.host.is_none() || hook.host == host)
                && !hook.done;
            if !fits {
                continue;
            }
            if hook.skip > 0 {
                hook.skip -= 1;
                continue;
            }
            hook.done = true;
            due.push(hook.act.clone());
        }
        for act in due {
            self.act(act);
        }
    }

    fn is_alive(&self, host: HostId) -> bool {
        self.hosts.get(host.0).is_some_and(Host::is_live)
    }

    /// Injects the fault.
    pub fn act(&mut self, act: Act) {
        let now = self.now;
        self.trace.line(now, format_args!("script: {act:?}"));
        if act.host().is_some_and(|host| !self.is_alive(host)) {
            return;
        }
        match act {
            Act::Crash { host, words } => self.crash(host, Some(words)),
            Act::CrashMaster { words, restart } => {
                self.master_crash(false, Some(words));
                self.schedule(restart, super::cluster::Event::MasterStart);
            }
            Act::Break { host, how } => {
                if how.host_notices.is_none() {
                    // It goes on unheard: the master may miss it first.
                    self.hosts[host.0].trouble_ended = Some(now);
                }
                if let Some(connection) = self.hosts[host.0].connection {
                    self.break_connection(connection, how);
                }
            }
            Act::Freeze { host, length } => self.freeze(host, length),
            Act::Block { host, up, down } => self.block_control(host, Some(up), Some(down)),
            Act::Leave { host } => self.app_leave(host),
            Act::Cancel { host } => self.app_cancel(host),
        }
    }
}
