//! The timer of a peer's state machines: wakes each when its timeout is due.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::lock::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::driver::clock::Clock;
use crate::driver::peer::session::Session;
use crate::time::Instant;

/// When the machine's next timeout is due. A thread of its own does that: signs of life must not
/// wait for a turn behind the bytes that the I/O threads move.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    setting: Mutex<Setting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Setting {
    at: Option<Instant>,
    /// What the thread waits for at the moment, if it waits.
    sleeps_until: Option<Instant>,
    is_over: bool,
}

/// How long the thread waits at most where no time is set.
const IDLE: Duration = Duration::from_secs(3600);

impl Alarm {
    /// Sets the time. True: the thread sleeps for longer, and is to be woken by `wake`, which need
    /// not be under the lock that orders the settings. Where an operation sets a time and its end
    /// takes it back, a thread that looks once in vain is cheaper than one that is woken each time.
    #[must_use]
    pub(super) fn set(&self, next: Option<Instant>) -> bool {
        let mut setting = self.setting.lock();
        setting.at = next;
        let sleeps_until = setting.sleeps_until;
        next.is_some_and(|next| sleeps_until.is_some_and(|until| next < until))
    }

    /// Has the thread look at the time.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        self.setting.lock().is_over = true;
        self.wake();
    }

    /// Blocks until the time has come; false at the end.
    fn wait(&self, clock: Clock) -> bool {
        let mut setting = self.setting.lock();
        while !setting.is_over {
            let now = clock.now();
            let until = setting.at.unwrap_or(now + IDLE);
            if until <= now {
                setting.at = None;
                return true;
            }
            setting.sleeps_until = Some(until);
            // Whether it was woken shows in the setting.
            (setting, _) = self.changed.wait_for(setting, until - now);
            setting.sleeps_until = None;
        }
        false
    }
}

/// The thread that rings the machine's alarm until the session ends.
pub(super) fn run_clock(session: &Weak<Session>, alarm: &Alarm, clock: Clock) {
    while alarm.wait(clock) {
        let Some(session) = session.upgrade() else {
            return;
        };
        session.ring();
    }
}

/// When the engine of shared state wants to be called, and the task that does it.
#[derive(Debug, Default)]
pub(super) struct StateAlarm {
    at: Mutex<Option<Instant>>,
    earlier: Notify,
}

impl StateAlarm {
    /// Sets the time. Only an earlier one wakes the task: a later one lets it ring in vain, once.
    pub(super) fn set(&self, next: Option<Instant>) {
        let mut at = self.at.lock();
        let is_earlier = is_earlier(next, *at);
        *at = next;
        if is_earlier {
            self.earlier.notify_one();
        }
    }
}

/// Rings until the session ends.
pub(super) async fn run_state_alarm(session: Weak<Session>, alarm: Arc<StateAlarm>) {
    loop {
        let at = *alarm.at.lock();
        let Some(clock) = session.upgrade().map(|session| session.clock) else {
            return;
        };
        match at {
            None => alarm.earlier.notified().await,
            Some(at) if at > clock.now() => {
                let time = tokio::time::sleep_until(clock.to_std(at).into());
                tokio::select! {
                    () = time => {}
                    () = alarm.earlier.notified() => {}
                }
            }
            Some(_) => {
                *alarm.at.lock() = None;
                let Some(session) = session.upgrade() else {
                    return;
                };
                session.state.handle_timeout();
            }
        }
    }
}

fn is_earlier(next: Option<Instant>, at: Option<Instant>) -> bool {
    match (next, at) {
        (Some(next), Some(at)) => next < at,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_before_the_thread_looks_again_wakes_it_and_the_end_ends_it() {
        let (alarm, clock) = (Arc::new(Alarm::default()), Clock::start());
        let far = clock.now() + Duration::from_secs(3600);
        assert!(!alarm.set(Some(far)), "nobody sleeps yet");
        let thread = {
            let alarm = Arc::clone(&alarm);
            std::thread::spawn(move || (alarm.wait(clock), clock.now(), alarm.wait(clock)))
        };
        let sleeps_until = || alarm.setting.lock().sleeps_until;
        let until = |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                std::thread::yield_now();
            }
        };
        until(&|| sleeps_until() == Some(far));
        assert!(!alarm.set(Some(far + Duration::from_secs(1))), "later");
        assert!(!alarm.set(Some(far)), "as early as it looks anyway");
        assert!(!alarm.set(None), "never");
        let soon = clock.now() + Duration::from_millis(20);
        assert!(alarm.set(Some(soon)));
        alarm.wake();
        until(&|| alarm.setting.lock().at.is_none());
        alarm.end();
        let (rang, at, rang_again) = thread.join().unwrap();
        assert!(rang && at >= soon && !rang_again);
    }
}
