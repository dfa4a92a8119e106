//! Replaces connections that wait for nothing.
//!
//! When a path is cut, the system sends again after ever longer pauses, and goes on waiting after
//! the path works again: several seconds after a cut of some seconds. So as soon as a connection
//! has missed two answers, the dialling side tries to make new ones, at short intervals. Once one
//! succeeds, the path works, and what is still stuck is replaced: the new connection serves one
//! lane, the others dial. What was not acknowledged is sent again, as after any repair.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::dial;
use super::lane::Lane;
use super::link::Link;
use super::pacer::look_at;

/// The lanes of one link as they were when one got stuck.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    /// Bytes received on each lane.
    received_bytes: Option<Vec<u64>>,
}

impl Rescue {
    /// If a lane is stuck, tries once whether the path works, and then replaces what is stuck.
    /// Returns whether one still is.
    pub(super) async fn look(&mut self, link: &Link) -> bool {
        let looks: Vec<_> = link
            .lanes()
            .iter()
            .filter_map(|lane| look_at(lane))
            .collect();
        let is_stuck = |timeouts: u8| timeouts >= TIMEOUTS_MAX;
        if !link.dials || !looks.iter().any(|look| is_stuck(look.condition.timeouts)) {
            self.received_bytes = None;
            return false;
        }
        let before = self.received_bytes.get_or_insert_with(|| received(link));
        let rtt = looks.iter().map(|look| look.condition.min_rtt).min();
        let patience = (rtt.unwrap_or_default() * 3).clamp(ATTEMPT_MIN, ATTEMPT_MAX);
        let Ok(Ok(offered)) = timeout(patience, dial::connect_any(link)).await else {
            return true;
        };
        link.offers.put(offered);
        let now = received(link);
        for lane in link.lanes() {
            let index = usize::from(lane.index);
            let is_silent = before.get(index) == now.get(index);
            let is_stuck = look_at(lane).is_some_and(|look| is_stuck(look.condition.timeouts));
            if is_stuck || is_silent {
                replace(lane);
            }
        }
        tracing::debug!(peer = %link.peer, "the path works again");
        self.received_bytes = None;
        false
    }
}

/// What is under way on a bulk lane is dropped with it. The signal lane is not reset: the end of
/// all lanes would tell the other side that this process has ended.
fn replace(lane: &Lane) {
    lane.kill(lane.index > 0);
}

fn received(link: &Link) -> Vec<u64> {
    let received = |lane: &std::sync::Arc<Lane>| lane.received_bytes.load(Ordering::Relaxed);
    link.lanes().iter().map(received).collect()
}

/// Missed answers in a row that make a connection count as stuck: the second comes after 0.6 s on
/// short paths, long after what is lost by chance was sent again.
const TIMEOUTS_MAX: u8 = 2;
/// Bounds of how long an attempt may take: some round trips, but less than the system's pause
/// before it asks again.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
