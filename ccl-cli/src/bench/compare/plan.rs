//! What is measured, in which order, how often, and within which time. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One all-reduce: all contestants do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Processes.
    pub world_size: u32,
    /// Whether the result replaces the input.
    pub in_place: bool,
    /// Bytes of the buffer, of f32.
    pub bytes: u64,
}

impl Cell {
    /// Elements of the buffer.
    pub fn count(&self) -> usize {
        usize::try_from(self.bytes / 4).unwrap_or(usize::MAX)
    }

    /// Whether latency is what counts, so that a ping-pong is measured beside it.
    pub const fn is_small(&self) -> bool {
        self.bytes <= SMALL_BYTES_MAX
    }
}

/// How much one contestant does in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Calls before the clock starts.
    pub warmup: u32,
    /// Timed calls.
    pub iterations: u32,
    /// Whether the result of the first call is checked.
    pub check: bool,
}

impl Effort {
    /// The first round, which finds out how long a call takes, and whether its result is right.
    pub const FIRST: Self = Self {
        warmup: 1,
        iterations: 1,
        check: true,
    };

    /// As many calls as fit into `slice`, after one took `call`.
    pub fn for_calls(call: Duration, slice: Duration) -> Self {
        let fitting = slice.as_nanos() / call.as_nanos().max(1);
        let iterations = u32::try_from(fitting)
            .unwrap_or(ITERATIONS_MAX)
            .clamp(1, ITERATIONS_MAX);
        Self {
            warmup: if iterations == 1 { 1 } else { 2 },
            iterations,
            check: false,
        }
    }
}

/// The time of one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// When it ends, counted from the start of the comparison.
    pub end: Duration,
    /// What a contestant may take in one round of one cell.
    pub slice: Duration,
}

impl Share {
    /// For the world at `place` of `worlds`, from `now` on. What a world leaves, the next ones get.
    pub fn new(budget: Duration, place: usize, worlds: usize, now: Duration) -> Self {
        let left = u32::try_from(worlds - place).unwrap_or(u32::MAX);
        let time = budget.saturating_sub(now) / left;
        Self {
            end: now + time,
            slice: Duration::ZERO,
        }
    }

    /// With so many measurements in a round.
    pub fn divided(self, now: Duration, measurements: usize) -> Self {
        let parts = u32::try_from(measurements).unwrap_or(u32::MAX).max(1);
        let time = self.end.saturating_sub(now);
        Self {
            slice: time / parts / ROUNDS,
            ..self
        }
    }

    /// Whether something that took `before` can be done once more.
    pub fn has_time_for(&self, before: Duration, now: Duration) -> bool {
        now + before <= self.end
    }
}

/// The contestants of a round, by place: each round another begins, and every second goes
/// backwards, so that nobody always follows the same one.
pub fn order(round: usize, contestants: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..contestants).collect();
    if contestants > 0 {
        places.rotate_left(round / 2 % contestants);
    }
    if round % 2 == 1 {
        places.reverse();
    }
    places
}

/// Rounds that the budget is divided into. A slice does not count warm-up calls and filling, so
/// there will be fewer.
const ROUNDS: u32 = 12;
/// Most timed calls of one contestant in one round.
const ITERATIONS_MAX: u32 = 500;
/// Buffers whose time is that of messages, not of bytes.
const SMALL_BYTES_MAX: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_slice_is_filled_with_calls() {
        let effort = |call, slice| Effort::for_calls(call, slice);
        assert_eq!(effort(ms(10), ms(100)).iterations, 10);
        assert_eq!(effort(ms(10), ms(100)).warmup, 2);
        assert_eq!(effort(ms(1000), ms(100)).iterations, 1);
        assert_eq!(effort(ms(1000), ms(100)).warmup, 1);
        assert_eq!(
            effort(Duration::ZERO, ms(100)).iterations,
            ITERATIONS_MAX,
            "a call takes some time, whatever the clock says"
        );
    }

    #[test]
    fn worlds_share_the_time_and_leave_the_rest_to_others() {
        let first = Share::new(ms(900), 0, 3, ms(0));
        assert_eq!(first.end, ms(300));
        let second = Share::new(ms(900), 1, 3, ms(100));
        assert_eq!(second.end, ms(500));
        let late = Share::new(ms(900), 2, 3, ms(1000));
        assert_eq!(late.end, ms(1000), "nothing is left");
        assert!(!late.has_time_for(ms(1), ms(1000)));
    }

    #[test]
    fn the_slices_of_all_rounds_fit_the_share() {
        let share = Share::new(ms(24_000), 0, 1, ms(0)).divided(ms(12_000), 10);
        assert_eq!(share.slice * 10 * ROUNDS, ms(12_000));
        assert!(share.has_time_for(ms(1000), ms(23_000)));
        assert!(!share.has_time_for(ms(1000), ms(23_001)));
    }

    #[test]
    fn everybody_runs_once_a_round_and_begins_one() {
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [2, 1, 0]);
        assert_eq!(order(2, 3), [1, 2, 0]);
        assert!(order(7, 0).is_empty());
        for contestants in 1..8 {
            let mut first = vec![false; contestants];
            for round in 0..2 * contestants {
                let mut places = order(round, contestants);
                first[places[0]] = true;
                places.sort_unstable();
                assert_eq!(places, (0..contestants).collect::<Vec<_>>());
            }
            assert!(first.iter().all(|&was_first| was_first));
        }
    }
}
