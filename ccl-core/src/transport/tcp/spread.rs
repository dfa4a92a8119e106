//! Over how many lanes a link spreads its bytes.
//!
//! Pure. A lane has about as many bytes under way as its send buffer holds, so a fast link over a
//! long path needs several. Where segments get lost without a queue, twice as many: each lost
//! segment then holds up fewer bytes. More lanes than needed only cost processor time, since each
//! is paced in smaller packets.

use std::time::Duration;

/// What a busy window has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// What all lanes together may send, if that is known, in bytes per second.
    pub(super) limit: Option<u64>,
    pub(super) rtt: Duration,
    /// Bytes under way on all lanes.
    pub(super) in_flight_bytes: u64,
    /// A queue stood on the way.
    pub(super) is_queued: bool,
    /// Some segments got lost, fewer than when a queue overflows.
    pub(super) is_lossy: bool,
    /// Segments got lost, however many.
    pub(super) has_losses: bool,
}

/// The number of lanes in use.
#[derive(Debug)]
pub(super) struct Spread {
    lanes: u16,
    most: u16,
    /// Most bytes that a lane may have under way.
    window_bytes: u64,
    /// Windows in a row that fewer would have done for.
    ample: u32,
    /// Windows with losses, less those without.
    lossy: u32,
}

impl Spread {
    pub(super) fn new(lanes: u16, most: u16, window_bytes: u64) -> Self {
        Self {
            lanes,
            most,
            window_bytes: window_bytes.max(1),
            ample: 0,
            lossy: 0,
        }
    }

    pub(super) fn lanes(&self) -> u16 {
        self.lanes
    }

    /// A busy window is over.
    pub(super) fn judge(&mut self, shown: Shown) {
        self.lossy = match shown.is_lossy && !shown.is_queued && shown.limit.is_some() {
            true => (self.lossy + 1).min(LOSSY_MOST),
            // Full queues overflow: that is what the limit is for.
            false if shown.is_queued => 0,
            false => self.lossy.saturating_sub(1),
        };
        let wanted = self.wanted(shown);
        // A new lane is slow at first, so one more is not worth it.
        if wanted >= self.lanes {
            if wanted >= self.lanes + self.lanes / 2 || wanted == self.most {
                self.lanes = wanted;
            }
            self.ample = 0;
            return;
        }
        self.ample += 1;
        if self.ample >= AMPLE_MAX {
            self.lanes = wanted;
            self.ample = 0;
        }
    }

    fn wanted(&self, shown: Shown) -> u16 {
        let held = self.window_bytes * u64::from(self.lanes);
        let needed = match shown.limit {
            Some(limit) => {
                let under_way = limit as f64 * shown.rtt.as_secs_f64() * MARGIN;
                (under_way / self.window_bytes as f64).ceil() as u16
            }
            // As far as is known, only the windows hold it back.
            None if !shown.is_queued && shown.in_flight_bytes > held / 8 * 7 => self.lanes * 2,
            None => self.lanes,
        };
        let least = needed.clamp(LANES_MIN, self.most);
        match self.lossy >= LOSSY_MIN {
            true => least.max((least * 2).min(LANES_LOSSY_MAX)),
            false => least,
        }
    }
}

/// Lanes per bandwidth-delay product: an idle lane takes over from one that waits for a lost
/// segment.
const MARGIN: f64 = 1.5;
/// Fewest lanes: if one breaks, the other goes on.
const LANES_MIN: u16 = 2;
/// Most lanes because of losses.
const LANES_LOSSY_MAX: u16 = 8;
/// Excess of windows with losses that shows a lossy path, and how much of it is remembered.
const LOSSY_MIN: u32 = 24;
const LOSSY_MOST: u32 = 48;
/// Busy windows before lanes are given up.
const AMPLE_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: u64 = 1_000_000;

    fn ocean(limit: Option<u64>) -> Shown {
        Shown {
            limit,
            rtt: Duration::from_millis(100),
            ..Shown::default()
        }
    }

    #[test]
    fn lanes_follow_rate_and_round_trip() {
        let mut spread = Spread::new(4, 16, 5 * MEGABYTE);
        spread.judge(ocean(Some(125 * MEGABYTE)));
        assert_eq!(spread.lanes(), 4);
        spread.judge(ocean(Some(400 * MEGABYTE)));
        assert_eq!(spread.lanes(), 12);
        spread.judge(ocean(Some(4000 * MEGABYTE)));
        assert_eq!(spread.lanes(), 16, "at most");
    }

    #[test]
    fn lanes_are_given_up_only_after_a_while() {
        let mut spread = Spread::new(4, 16, 5 * MEGABYTE);
        for _ in 0..AMPLE_MAX {
            assert_eq!(spread.lanes(), 4);
            spread.judge(ocean(Some(MEGABYTE)));
        }
        assert_eq!(spread.lanes(), LANES_MIN);
        spread.judge(ocean(Some(125 * MEGABYTE)));
        assert_eq!(spread.lanes(), 4, "and come back at once");
    }

    #[test]
    fn losses_without_a_queue_double_the_lanes() {
        let mut spread = Spread::new(4, 16, 5 * MEGABYTE);
        let lossy = Shown {
            is_lossy: true,
            ..ocean(Some(125 * MEGABYTE))
        };
        for _ in 0..LOSSY_MIN {
            assert_eq!(spread.lanes(), 4);
            spread.judge(lossy);
        }
        assert_eq!(spread.lanes(), 8);
        let mut spread = Spread::new(4, 16, MEGABYTE);
        for _ in 0..LOSSY_MIN {
            spread.judge(Shown {
                limit: Some(100 * MEGABYTE),
                ..lossy
            });
        }
        assert_eq!(spread.lanes(), 15, "as many as it needs anyway");
    }

    #[test]
    fn full_windows_ask_for_more_lanes_while_no_limit_is_known() {
        let mut spread = Spread::new(4, 16, MEGABYTE);
        let shown = |in_flight_bytes| Shown {
            in_flight_bytes,
            ..ocean(None)
        };
        spread.judge(shown(2 * MEGABYTE));
        assert_eq!(spread.lanes(), 4);
        spread.judge(shown(4 * MEGABYTE));
        assert_eq!(spread.lanes(), 8);
    }
}
