//! Quantities as users write them: `50ms`, `1g`, `64k`, `0.1%`.
//!
//! Rates and bytes count in powers of ten, as networks do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How fast bits leave a sender, Ethernet's framing included. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    bits_per_second: u64,
}

impl Rate {
    /// This rate; `None` if it is 0.
    pub const fn new(bits_per_second: u64) -> Option<Self> {
        match bits_per_second {
            0 => None,
            bits_per_second => Some(Self { bits_per_second }),
        }
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.bits_per_second
    }

    /// How many bytes leave in `time`, rounded down.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bits = u128::from(self.bits_per_second) * time.as_nanos() / NANOS_PER_SECOND;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// A part of this rate; at least 1 bit per second.
    #[must_use]
    pub const fn divided_by(self, divisor: u64) -> Self {
        let bits_per_second = self.bits_per_second / divisor;
        Self {
            bits_per_second: if bits_per_second == 0 {
                1
            } else {
                bits_per_second
            },
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits_per_second {
            bits if bits.is_multiple_of(1_000_000_000) => write!(f, "{}g", bits / 1_000_000_000),
            bits if bits.is_multiple_of(1_000_000) => write!(f, "{}m", bits / 1_000_000),
            bits if bits.is_multiple_of(1_000) => write!(f, "{}k", bits / 1_000),
            bits => write!(f, "{bits}"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Bits per second: `1g`, `250m`, `64k`, `9600`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bits = scaled(text, &[("g", 1e9), ("m", 1e6), ("k", 1e3), ("", 1.0)])
            .and_then(|bits| Self::new(bits as u64));
        bits.ok_or_else(|| format!("`{text}` is no rate in bits per second, such as 1g or 250m"))
    }
}

/// A length of time, such as `50ms`, `200us` or `1.5s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("s", 1.0)];
    scaled(text, &units)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| *time <= DURATION_MAX)
        .ok_or_else(|| format!("`{text}` is no time up to an hour, such as 50ms or 1.5s"))
}

/// A number of bytes, such as `64k`, `10m` or `1500`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    scaled(text, &[("g", 1e9), ("m", 1e6), ("k", 1e3), ("", 1.0)])
        .map(|bytes| bytes as u64)
        .ok_or_else(|| format!("`{text}` is no number of bytes, such as 64k"))
}

/// A probability, such as `0.1%` or `0.001`.
pub fn parse_probability(text: &str) -> Result<f64, String> {
    scaled(text, &[("%", 0.01), ("", 1.0)])
        .filter(|probability| *probability <= 1.0)
        .ok_or_else(|| format!("`{text}` is no probability, such as 0.1% or 0.001"))
}

/// The number before the first unit that fits, times what the unit stands for.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor).filter(|value| value.is_finite() && *value >= 0.0)
    })
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Longest delay or jitter; anything longer is a slip of the pen.
const DURATION_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        let rate = |text: &str| text.parse().map(Rate::bits_per_second);
        assert_eq!(rate("1g"), Ok(1_000_000_000));
        assert_eq!(rate("2.5g"), Ok(2_500_000_000));
        assert_eq!(rate("9600"), Ok(9600));
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("0.2ms"), Ok(Duration::from_micros(200)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_bytes("64k"), Ok(64_000));
        assert_eq!(parse_probability("1%"), Ok(0.01));
        assert_eq!(parse_probability("1"), Ok(1.0));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "g", "-1g", "1x", "nan", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["50", "-1ms", "3601s", "infs"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_probability("101%").is_err());
        assert!(parse_bytes("-1").is_err());
    }

    #[test]
    fn a_rate_is_written_as_it_is_read() {
        for text in ["1g", "2500m", "64k", "9601"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }
}
