//! Telling whoever waits what for: nobody looks at a silent program for a minute.
//!
//! The library logs it as a warning. An edge whose users see no log by default tells it itself.

use std::sync::Weak;
use std::time::Duration;

use crate::driver::peer::Session;

/// When to say again what is waited for.
#[derive(Debug, Default)]
pub struct Notices {
    told: Option<String>,
    /// How long the wait had lasted then.
    at: Duration,
}

impl Notices {
    /// Longest silence at the beginning of a wait, and shortest time between two notices.
    pub const INTERVAL: Duration = Duration::from_secs(2);

    /// What to say now of a wait that has lasted for this long, called at any time: what is waited
    /// for when that is new, and again now and then.
    pub fn next(&mut self, waits_for: Option<String>, waited: Duration) -> Option<String> {
        let Some(words) = waits_for else {
            *self = Self::default();
            return None;
        };
        if waited < self.at + Self::INTERVAL {
            return None;
        }
        let is_new = self.told.as_ref() != Some(&words);
        if !is_new && waited < self.at + REPEATED_AFTER {
            return None;
        }
        self.at = waited;
        self.told = Some(words.clone());
        Some(words)
    }
}

/// Logs what the session waits for, until it is gone.
pub(super) async fn run(session: Weak<Session>) {
    let mut notices = Notices::default();
    let mut waited = Duration::ZERO;
    loop {
        tokio::time::sleep(Notices::INTERVAL).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let waits_for = session.waits_for();
        waited = match waits_for {
            Some(_) => waited + Notices::INTERVAL,
            None => Duration::ZERO,
        };
        if let Some(words) = notices.next(waits_for, waited) {
            tracing::warn!("{words}");
        }
    }
}

/// The same words are said again after this time.
const REPEATED_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_of_after_two_seconds_and_when_it_changes() {
        let at = Duration::from_secs;
        let mut notices = Notices::default();
        let mut next = |words: &str, seconds| notices.next(Some(words.into()), at(seconds));
        assert_eq!(next("one", 1), None);
        assert_eq!(next("one", 2), Some("one".into()));
        assert_eq!(next("two", 3), None, "not before two seconds have passed");
        assert_eq!(next("two", 4), Some("two".into()));
        assert_eq!(next("two", 13), None);
        assert_eq!(next("two", 14), Some("two".into()), "now and then again");
        assert_eq!(notices.next(None, at(15)), None);
        assert_eq!(notices.next(Some("two".into()), at(1)), None, "a new wait");
    }
}
