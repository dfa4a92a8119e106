//! The timeouts that all peers of a run agree on.
//!
//! They are sent in control messages and set in the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Timeouts of the protocol. The master sends its own to every peer, so all peers of a run agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Interval between heartbeats, in both directions of a control connection. Default 250 ms.
    pub heartbeat_interval: Duration,
    /// Silence after which a peer, or the master, counts as dead. Default 5 s.
    pub peer_timeout: Duration,
    /// How long a member may take to restore a lost control connection, as long as no peer sees its
    /// data connections end too. Default 2 s.
    pub reattach_grace: Duration,
    /// How long reports of broken links are collected before a peer is blamed. Default 500 ms.
    pub blame_window: Duration,
    /// How long the repair of a lane may take before the link counts as down. Default 3 s.
    pub link_timeout: Duration,
    /// How long a restarted master waits for the members of its last view. Default 5 s.
    pub rebuild_window: Duration,
    /// How long a peer keeps running without a master before its session ends. Default 60 s.
    pub detach_timeout: Duration,
    /// How long a cancelled call waits for its verdict before it ends as unknown. Default 10 s.
    pub verdict_timeout: Duration,
    /// How late a member may join an operation that the others have called (R15). `None`: no limit.
    /// Keep it shorter than the deadlines of calls: else these pass first, again and again, and a
    /// member that hangs is never evicted. Default 5 min.
    pub post_timeout: Option<Duration>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(250),
            peer_timeout: Duration::from_secs(5),
            reattach_grace: Duration::from_secs(2),
            blame_window: Duration::from_millis(500),
            link_timeout: Duration::from_secs(3),
            rebuild_window: Duration::from_secs(5),
            detach_timeout: Duration::from_secs(60),
            verdict_timeout: Duration::from_secs(10),
            post_timeout: Some(Duration::from_secs(300)),
        }
    }
}

impl Timers {
    /// The longer of the two, for each time.
    #[must_use]
    pub fn longer(&self, other: &Self) -> Self {
        let posts = self.post_timeout.zip(other.post_timeout);
        Self {
            heartbeat_interval: self.heartbeat_interval.max(other.heartbeat_interval),
            peer_timeout: self.peer_timeout.max(other.peer_timeout),
            reattach_grace: self.reattach_grace.max(other.reattach_grace),
            blame_window: self.blame_window.max(other.blame_window),
            link_timeout: self.link_timeout.max(other.link_timeout),
            rebuild_window: self.rebuild_window.max(other.rebuild_window),
            detach_timeout: self.detach_timeout.max(other.detach_timeout),
            verdict_timeout: self.verdict_timeout.max(other.verdict_timeout),
            post_timeout: posts.map(|(ours, theirs)| ours.max(theirs)),
        }
    }

    /// Checks that the times make sense together.
    ///
    /// # Errors
    /// A text that names the timeouts that do not.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.heartbeat_interval < Duration::from_millis(1) {
            return Err("heartbeat_interval must be at least 1 ms");
        }
        if self.peer_timeout < self.heartbeat_interval.saturating_mul(2) {
            return Err("peer_timeout must be at least two heartbeat intervals");
        }
        Ok(())
    }
}
