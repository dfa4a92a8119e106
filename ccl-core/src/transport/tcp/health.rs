//! Whether a link works, judged by its lanes, and what to report about it.
//!
//! Pure: time is passed in. A broken lane is repaired silently. The layer above learns when all
//! lanes have ended (evidence that the process is gone), when a repair took too long, and when a
//! link that was reported down works again. Repair continues even after it was given up, since no
//! frame is forgotten.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::HELLO_TIMEOUT;
use crate::wire::control::LinkFault;

/// A report for the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// All lanes are up.
    Up,
    /// The link broke; true: repair is given up.
    Down(LinkFault, bool),
    /// A lane came back.
    Repaired(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneHealth {
    Never,
    /// Added to a link that has others; it does not count before it is up.
    Extra,
    Up,
    Down {
        since: Instant,
        is_ended: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Ended,
    GaveUp,
}

/// The health of one link.
#[derive(Debug)]
pub(super) struct Health {
    lanes: Vec<LaneHealth>,
    told: Told,
    made: Instant,
    link_timeout: Duration,
}

impl Health {
    /// A link with this many connections, none of them up.
    pub(super) fn new(connections: usize, link_timeout: Duration, now: Instant) -> Self {
        Self {
            lanes: vec![LaneHealth::Never; connections],
            told: Told::Nothing,
            made: now,
            link_timeout,
        }
    }

    /// The number of connections is known.
    pub(super) fn set_connections(&mut self, connections: usize) {
        self.lanes.resize(connections, LaneHealth::Never);
    }

    /// The link has more connections than at first.
    pub(super) fn add_connections(&mut self, connections: usize) {
        self.lanes.resize(connections, LaneHealth::Extra);
    }

    pub(super) fn lane_up(&mut self, lane: u16) -> Vec<Report> {
        let before = std::mem::replace(&mut self.lanes[usize::from(lane)], LaneHealth::Up);
        let mut reports = Vec::new();
        if !matches!(before, LaneHealth::Never | LaneHealth::Extra) {
            reports.push(Report::Repaired(lane));
        }
        if self.told != Told::Up && self.is_whole() {
            self.told = Told::Up;
            reports.push(Report::Up);
        }
        reports
    }

    /// A lane broke; `is_ended`: the other side's system has ended it. Only this is evidence about
    /// the other process: on a cut path connections time out.
    pub(super) fn lane_down(&mut self, lane: u16, is_ended: bool, now: Instant) -> Option<Report> {
        self.lanes[usize::from(lane)] = LaneHealth::Down {
            since: now,
            is_ended,
        };
        let ended = |lane: &LaneHealth| {
            matches!(
                lane,
                LaneHealth::Down { is_ended: true, .. } | LaneHealth::Extra
            )
        };
        if self.told != Told::Up || !self.lanes.iter().all(ended) {
            return None;
        }
        self.told = Told::Ended;
        Some(Report::Down(LinkFault::Ended, false))
    }

    /// Every address of the other side refused a connection. As long as another lane works, its
    /// process is alive nevertheless.
    pub(super) fn refused(&mut self) -> Option<Report> {
        if self.is_any_up() {
            return None;
        }
        self.give_up(LinkFault::Refused)
    }

    /// Gives up repair, unless that was reported before.
    pub(super) fn give_up(&mut self, fault: LinkFault) -> Option<Report> {
        let told = std::mem::replace(&mut self.told, Told::GaveUp);
        (told != Told::GaveUp).then_some(Report::Down(fault, true))
    }

    /// Reports a repair that takes too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Report> {
        let is_late = self.lanes.iter().any(|lane| match lane {
            LaneHealth::Never => now >= self.made + HELLO_TIMEOUT + self.link_timeout,
            LaneHealth::Up | LaneHealth::Extra => false,
            LaneHealth::Down { since, .. } => now >= *since + self.link_timeout,
        });
        is_late.then(|| self.give_up(LinkFault::TimedOut)).flatten()
    }

    /// This process did not run for a while: extends the time for repair.
    pub(super) fn postpone(&mut self, pause: Duration, now: Instant) {
        self.made = now.min(self.made + pause);
        for lane in &mut self.lanes {
            if let LaneHealth::Down { since, .. } = lane {
                *since = now.min(*since + pause);
            }
        }
    }

    fn is_whole(&self) -> bool {
        let is_fine = |lane: &LaneHealth| matches!(lane, LaneHealth::Up | LaneHealth::Extra);
        self.lanes.iter().all(is_fine)
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.lanes.contains(&LaneHealth::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn whole(now: Instant) -> Health {
        let mut health = Health::new(2, TIMEOUT, now);
        assert_eq!(health.lane_up(0), []);
        assert_eq!(health.lane_up(1), [Report::Up]);
        health
    }

    #[test]
    fn a_pause_of_this_process_does_not_use_up_the_time_for_repair() {
        let now = Instant::now();
        let mut health = whole(now);
        health.lane_down(0, false, now);
        let woke = now + TIMEOUT * 3;
        health.postpone(TIMEOUT * 3, woke);
        let moment = Duration::from_millis(1);
        assert_eq!(health.handle_timeout(woke + TIMEOUT - moment), None);
        let gave_up = Report::Down(LinkFault::TimedOut, true);
        assert_eq!(health.handle_timeout(woke + TIMEOUT), Some(gave_up));
    }

    #[test]
    fn a_lane_repaired_in_time_is_no_fault_of_the_link() {
        let now = Instant::now();
        let mut health = whole(now);
        assert_eq!(health.lane_down(1, true, now), None);
        assert_eq!(health.handle_timeout(now + TIMEOUT / 2), None);
        assert_eq!(health.lane_up(1), [Report::Repaired(1)]);
        assert_eq!(health.handle_timeout(now + TIMEOUT * 2), None);
    }

    #[test]
    fn the_end_of_all_lanes_is_evidence_and_its_repair_is_news() {
        let now = Instant::now();
        let mut health = whole(now);
        assert_eq!(health.lane_down(0, true, now), None);
        let ended = Report::Down(LinkFault::Ended, false);
        assert_eq!(health.lane_down(1, true, now), Some(ended));
        assert_eq!(health.lane_up(1), [Report::Repaired(1)]);
        assert_eq!(health.lane_up(0), [Report::Repaired(0), Report::Up]);
    }

    #[test]
    fn connections_that_time_out_are_no_evidence_for_the_end_of_a_process() {
        let now = Instant::now();
        let mut health = whole(now);
        assert_eq!(health.lane_down(0, true, now), None);
        assert_eq!(health.lane_down(1, false, now), None);
        let gave_up = Report::Down(LinkFault::TimedOut, true);
        assert_eq!(health.handle_timeout(now + TIMEOUT), Some(gave_up));
    }

    #[test]
    fn repair_is_given_up_once_and_may_still_succeed() {
        let now = Instant::now();
        let mut health = whole(now);
        health.lane_down(1, true, now);
        let gave_up = Report::Down(LinkFault::TimedOut, true);
        assert_eq!(health.handle_timeout(now + TIMEOUT), Some(gave_up));
        assert_eq!(health.handle_timeout(now + TIMEOUT * 2), None);
        assert_eq!(health.lane_up(1), [Report::Repaired(1), Report::Up]);
    }

    #[test]
    fn a_refusal_counts_once_no_lane_is_left() {
        let now = Instant::now();
        let mut health = whole(now);
        health.lane_down(1, true, now);
        assert_eq!(health.refused(), None, "lane 0 works, so the process lives");
        health.lane_down(0, true, now);
        let refused = Report::Down(LinkFault::Refused, true);
        assert_eq!(health.refused(), Some(refused));
        assert_eq!(health.refused(), None);
    }

    #[test]
    fn an_added_lane_counts_from_the_moment_it_is_up() {
        let now = Instant::now();
        let mut health = whole(now);
        health.add_connections(3);
        assert_eq!(health.handle_timeout(now + HELLO_TIMEOUT + TIMEOUT), None);
        assert_eq!(health.lane_down(0, true, now), None);
        let ended = Report::Down(LinkFault::Ended, false);
        assert_eq!(health.lane_down(1, true, now), Some(ended));
        assert_eq!(health.lane_up(0), [Report::Repaired(0)]);
        assert_eq!(health.lane_up(1), [Report::Repaired(1), Report::Up]);
        assert_eq!(health.lane_up(2), [], "a first connection is no repair");
        assert_eq!(health.lane_down(2, true, now), None);
        let gave_up = Report::Down(LinkFault::TimedOut, true);
        assert_eq!(health.handle_timeout(now + TIMEOUT), Some(gave_up));
    }

    #[test]
    fn a_link_that_never_came_up_is_given_up_too() {
        let now = Instant::now();
        let mut health = Health::new(1, TIMEOUT, now);
        assert_eq!(health.handle_timeout(now + TIMEOUT), None);
        health.set_connections(2);
        assert_eq!(health.lane_up(0), []);
        let late = now + HELLO_TIMEOUT + TIMEOUT;
        let gave_up = Report::Down(LinkFault::TimedOut, true);
        assert_eq!(health.handle_timeout(late), Some(gave_up));
    }
}
