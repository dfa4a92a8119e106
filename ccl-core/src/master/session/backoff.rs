//! How long a peer that comes back after broken links has to wait (R10).
//!
//! Without it a link that stays broken would make its ends come and go for ever.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::limits;
use crate::time::Instant;

/// How often addresses were evicted for broken links.
#[derive(Debug, Default)]
pub struct Backoffs {
    accounts: BTreeMap<SocketAddr, Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    strikes: u32,
    not_before: Instant,
}

impl Backoffs {
    /// A peer with these addresses was evicted because others could not reach it.
    pub fn strike(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.accounts
            .retain(|_, account| now <= account.not_before + limits::BACKOFF_MAX);
        for &address in addresses {
            if self.accounts.len() >= limits::BACKOFFS_MAX {
                self.accounts.pop_first();
            }
            let account = self.accounts.entry(address).or_insert(Account {
                strikes: 0,
                not_before: now,
            });
            let doubled = limits::BACKOFF_MIN * 2u32.saturating_pow(account.strikes.min(16));
            account.strikes = account.strikes.saturating_add(1);
            account.not_before = now + doubled.min(limits::BACKOFF_MAX);
        }
    }

    /// When a peer with these addresses may be admitted.
    pub fn not_before(&self, addresses: &[SocketAddr], now: Instant) -> Instant {
        let accounts = addresses
            .iter()
            .filter_map(|address| self.accounts.get(address));
        accounts
            .map(|account| account.not_before)
            .max()
            .unwrap_or(now)
            .max(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn wait_doubles_with_each_eviction_and_ends() {
        let address = "10.0.0.1:4000".parse().unwrap();
        let other = "10.0.0.2:4000".parse().unwrap();
        let mut backoffs = Backoffs::default();
        let now = Instant(0);
        assert_eq!(backoffs.not_before(&[address], now), now);
        backoffs.strike(&[address], now);
        assert_eq!(
            backoffs.not_before(&[address], now),
            now + limits::BACKOFF_MIN
        );
        backoffs.strike(&[address], now);
        assert_eq!(
            backoffs.not_before(&[address], now),
            now + limits::BACKOFF_MIN * 2
        );
        assert_eq!(backoffs.not_before(&[other], now), now);
        for _ in 0..20 {
            backoffs.strike(&[address], now);
        }
        assert_eq!(
            backoffs.not_before(&[address], now),
            now + limits::BACKOFF_MAX
        );
        let later = now + limits::BACKOFF_MAX * 2 + Duration::from_secs(1);
        backoffs.strike(&[address], later);
        assert_eq!(
            backoffs.not_before(&[address], later),
            later + limits::BACKOFF_MIN
        );
    }

    #[test]
    fn table_is_bounded() {
        let mut backoffs = Backoffs::default();
        for port in 0..=u16::MAX {
            backoffs.strike(&[SocketAddr::from(([10, 0, 0, 1], port))], Instant(0));
        }
        assert_eq!(backoffs.accounts.len(), limits::BACKOFFS_MAX);
    }
}
