//! What a master assumes of the paths between members, since it does not measure them.

use std::time::Duration;

use crate::limits;

/// Rate and latency of the paths between members, and the memory that fits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Time from one member to another and back. `None`: 50 ms, unless all members share a host.
    pub round_trip: Option<Duration>,
    /// Bytes per second that a member sends, and receives. `None`: 125 MB/s, unless all members
    /// share a host.
    pub bytes_per_second: Option<u64>,
    /// Receive memory of each member for data that is sent with a call, before it is asked for,
    /// over all its links: at most 64 MiB, and as much of it is used as a member receives in one
    /// round trip. Less than 64 KiB turns it off. Default 16 MiB.
    pub reserve_bytes: usize,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            round_trip: None,
            bytes_per_second: None,
            reserve_bytes: limits::RESERVE_BYTES_DEFAULT,
        }
    }
}

impl Paths {
    /// Bytes on the way in one round trip, as far as they are known.
    #[must_use]
    pub fn round_trip_bytes(&self) -> Option<u64> {
        if self.round_trip.is_none() && self.bytes_per_second.is_none() {
            return None;
        }
        let round_trip = self.round_trip.unwrap_or(ROUND_TRIP_DEFAULT);
        let rate = self.bytes_per_second.unwrap_or(BYTES_PER_SECOND_DEFAULT);
        let bytes = u128::from(rate) * round_trip.as_micros() / 1_000_000;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// Which field is out of its range.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.round_trip == Some(Duration::ZERO) {
            return Err("round_trip must be longer than 0");
        }
        if self.bytes_per_second == Some(0) {
            return Err("bytes_per_second must be at least 1");
        }
        if self.reserve_bytes > limits::RESERVE_BYTES_MAX {
            return Err("reserve_bytes must be at most 64 MiB");
        }
        Ok(())
    }
}

/// Between two sites of a continent.
const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(50);
/// 1 Gbit/s.
const BYTES_PER_SECOND_DEFAULT: u64 = 125_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_rate_and_latency_is_enough() {
        assert_eq!(Paths::default().round_trip_bytes(), None);
        let paths = Paths {
            round_trip: Some(Duration::from_millis(100)),
            ..Paths::default()
        };
        assert_eq!(paths.round_trip_bytes(), Some(12_500_000));
        let paths = Paths {
            bytes_per_second: Some(1_250_000_000),
            ..Paths::default()
        };
        assert_eq!(paths.round_trip_bytes(), Some(62_500_000));
    }
}
