//! The clocks of a peer's machines: call them when their time has come.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::driver::peer::Session;
use crate::peer::Input;
use crate::time::Instant;

/// When the machine wants to be called for time's sake, and the task that does it.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Mutex<Option<Instant>>,
    earlier: Notify,
}

impl Alarm {
    /// Sets the time. Only an earlier one wakes the task: a later one lets it ring in vain, once.
    pub(super) fn set(&self, next: Option<Instant>) {
        let mut at = self.at.lock();
        let is_earlier = match (next, *at) {
            (Some(next), Some(at)) => next < at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        *at = next;
        if is_earlier {
            self.earlier.notify_one();
        }
    }
}

/// Rings until the session is gone: calls `ring` whenever the time has come.
pub(super) async fn run_alarm(
    session: Weak<Session>,
    alarm: Arc<Alarm>,
    mut ring: impl FnMut(&Session),
) {
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
                ring(&session);
            }
        }
    }
}

/// The machine's time has come; now and then idle memory goes back to the system.
pub(super) fn ring_machine() -> impl FnMut(&Session) {
    let mut rings = 0_u32;
    move |session| {
        session.submit(Input::Timeout);
        rings = rings.wrapping_add(1);
        if rings.is_multiple_of(RINGS_A_TRIM) {
            session.engine.trim();
        }
    }
}

/// Heartbeats ring at least a few times a second: memory idle for some seconds goes back to the
/// system.
const RINGS_A_TRIM: u32 = 32;
