//! How long a peer must wait before it may rejoin after broken links (R10) or with a state that is
//! not the run's (R18).
//!
//! Otherwise a link that stays broken would make its ends leave and rejoin forever, and so would a
//! process that reconnects with the same checkpoint each time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::ids::GroupId;
use crate::limits;
use crate::master::Registration;
use crate::time::Instant;
use crate::wire::control::{BackoffCause, EvictReason};

/// How often a peer was evicted for such a reason.
#[derive(Debug, Default)]
pub struct Backoffs {
    accounts: BTreeMap<Key, Account>,
}

/// The key by which peers count as the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// For links, which are between ports.
    Address(SocketAddr),
    /// For states, which come from a host's disk: its next process has the same one, and another
    /// port. Peers with other names on that host need not have it.
    Source(GroupId, IpAddr, String),
}

#[derive(Clone, Copy, Debug)]
struct Account {
    strikes: u32,
    not_before: Instant,
}

/// What keeps a newcomer waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub until: Instant,
    pub cause: BackoffCause,
}

impl Backoffs {
    /// A peer was evicted. If for one of these reasons, a peer that comes in its place must wait.
    pub fn strike(&mut self, peer: &Registration, reason: &EvictReason, now: Instant) {
        let keys = match reason {
            EvictReason::Unreachable { .. } => addresses(peer),
            EvictReason::RevisionAhead { .. } => sources(peer),
            _ => return,
        };
        self.accounts
            .retain(|_, account| now <= account.not_before + limits::BACKOFF_MAX);
        for key in keys {
            if self.accounts.len() >= limits::BACKOFFS_MAX {
                self.accounts.pop_first();
            }
            let account = self.accounts.entry(key).or_insert(Account {
                strikes: 0,
                not_before: now,
            });
            let doubled = limits::BACKOFF_MIN * 2u32.saturating_pow(account.strikes.min(16));
            account.strikes = account.strikes.saturating_add(1);
            account.not_before = now + doubled.min(limits::BACKOFF_MAX);
        }
    }

    /// Until when a peer may not be admitted, if it has to wait.
    pub fn held(&self, peer: &Registration, now: Instant) -> Option<Held> {
        let keys = addresses(peer).into_iter().chain(sources(peer));
        let held = keys.filter_map(|key| {
            let until = self.accounts.get(&key)?.not_before;
            let cause = key.cause();
            (until > now).then_some(Held { until, cause })
        });
        held.max_by_key(|held| held.until)
    }
}

impl Key {
    fn cause(&self) -> BackoffCause {
        match self {
            Self::Address(_) => BackoffCause::Unreachable,
            Self::Source(..) => BackoffCause::RevisionAhead,
        }
    }
}

fn addresses(peer: &Registration) -> Vec<Key> {
    peer.addresses.iter().copied().map(Key::Address).collect()
}

fn sources(peer: &Registration) -> Vec<Key> {
    let name = lasting(&peer.name);
    let hosts = peer.addresses.iter().map(SocketAddr::ip);
    let keys = hosts.map(|host| Key::Source(peer.group, host, name.to_owned()));
    keys.collect()
}

/// A name without the process id that the default name ends with.
fn lasting(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, process)) if process.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => name,
    }
}

#[cfg(test)]
#[path = "backoff_tests.rs"]
mod tests;
