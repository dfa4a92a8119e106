//! Decides when to warn about a long wait: once it has lasted a while, then at doubling intervals.
//!
//! The library logs the warning. Front ends whose users see no log by default print it themselves.

use std::sync::Weak;
use std::time::Duration;

use crate::driver::peer::session::Session;

/// What a peer is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Text for users.
    pub words: String,
    /// The same without what changes from second to second. Waits with an equal gist are one wait.
    pub gist: String,
}

impl Waiting {
    pub(super) fn new(what: &str, words: &str, gist: &str) -> Self {
        Self {
            words: format!("{what}{words}"),
            gist: format!("{what}{gist}"),
        }
    }
}

/// Decides when to report a wait: first when it has lasted a while, then at doubling intervals.
#[derive(Debug, Default)]
pub struct Notices {
    wait: Option<Seen>,
    /// How long the wait had lasted at the last report.
    told_at: Duration,
}

#[derive(Debug)]
struct Seen {
    gist: String,
    /// When it may be reported next.
    due: Duration,
    /// The pause after that report.
    pause: Duration,
}

impl Notices {
    /// How long a wait must last before it is reported: longer than waits that go well.
    pub const INTERVAL: Duration = Duration::from_secs(2);

    /// The text to report now, if any, of a wait that has lasted this long. Call it at any time.
    pub fn next(&mut self, waiting: Option<Waiting>, waited: Duration) -> Option<String> {
        let Some(Waiting { words, gist }) = waiting else {
            *self = Self::default();
            return None;
        };
        let since = self.wait.as_ref().map_or(Duration::ZERO, |_| waited);
        let wait = match &mut self.wait {
            Some(wait) if wait.gist == gist => wait,
            wait => wait.insert(Seen {
                gist,
                due: (since + Self::INTERVAL).min(self.told_at + SILENCE_MAX),
                pause: Self::INTERVAL,
            }),
        };
        if waited < wait.due {
            return None;
        }
        wait.pause *= 2;
        wait.due = waited + wait.pause;
        self.told_at = waited;
        Some(words)
    }
}

/// Logs what the session waits for, until it ends.
pub(super) async fn run(session: Weak<Session>) {
    let mut notices = Notices::default();
    let mut began = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let waiting = session.waiting();
        let now = session.clock.now();
        let since = *began.get_or_insert(now);
        began = waiting.as_ref().map(|_| since);
        if let Some(words) = notices.next(waiting, now - since) {
            tracing::warn!("{words}");
        }
    }
}

/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Longest time without a report, even if the wait keeps changing.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait for something, of which so many seconds are left.
    fn waiting(gist: &str, left: u64) -> Option<Waiting> {
        let (words, gist) = (format!("{gist} for {left} s"), gist.into());
        Some(Waiting { words, gist })
    }

    /// The reports and their times in seconds during this wait, checked every half second.
    fn told(last: u64, at: impl Fn(f64) -> Option<Waiting>) -> Vec<(f64, String)> {
        let mut notices = Notices::default();
        let looks = (1..=last * 2).map(|half| half as f64 / 2.0);
        let told = looks.filter_map(|now| {
            let words = notices.next(at(now), Duration::from_secs_f64(now))?;
            Some((now, words))
        });
        told.collect()
    }

    #[test]
    fn a_countdown_is_told_once_and_then_at_doubling_intervals() {
        let told = told(70, |now| waiting("members", 90 - now as u64));
        let times: Vec<_> = told.iter().map(|(now, _)| *now).collect();
        assert_eq!(times, [2.0, 6.0, 14.0, 30.0, 62.0]);
        assert_eq!(told[1].1, "members for 84 s", "with what is left then");
    }

    #[test]
    fn what_does_not_last_two_seconds_is_not_told() {
        let none = told(10, |now| waiting("links", 0).filter(|_| now < 2.0));
        assert_eq!(none, []);
        // It begins after a wait that was reported, and is over soon.
        let healthy = told(10, |now| match now {
            ..5.0 => waiting("an earlier run", 0),
            ..6.5 => waiting("links", 0),
            _ => None,
        });
        assert_eq!(healthy, [(2.0, "an earlier run for 0 s".into())]);
        let lasting = told(10, |now| match now {
            ..5.0 => waiting("an earlier run", 0),
            _ => waiting("links", 0),
        });
        assert_eq!(lasting[1], (7.0, "links for 0 s".into()));
    }

    #[test]
    fn a_wait_that_changes_all_the_time_is_told_now_and_then() {
        let told = told(21, |now| waiting(&format!("peer {now}"), 0));
        let times: Vec<_> = told.iter().map(|(now, _)| *now).collect();
        assert_eq!(times, [10.0, 20.0]);
    }
}
