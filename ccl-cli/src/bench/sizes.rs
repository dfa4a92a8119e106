//! Ranges of buffer sizes, `from:to:factor` as in `4:256MiB:x4`, and of counts; times.

use std::str::FromStr;
use std::time::Duration;

use crate::failure::{Failure, Result};

/// Sizes to measure, smallest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<u64>);

impl FromStr for Sizes {
    type Err = Failure;

    /// `SIZE`, `FROM:TO` (each twice the last), `FROM:TO:xFACTOR`, `FROM:TO:+STEP`, or several of
    /// these with commas between.
    fn from_str(text: &str) -> Result<Self> {
        let mut sizes = Vec::new();
        for range in text.split(',') {
            sizes.extend(parse_range(range)?);
        }
        if sizes.len() > SIZES_MAX {
            return Err(Failure::new(format!(
                "`{text}` names more than {SIZES_MAX} sizes"
            )));
        }
        Ok(Self(sizes))
    }
}

/// One size in bytes: a number with an optional unit (K, KiB, kB, M, MiB, MB, G, GiB, GB; K, M and
/// G alone are powers of 1024).
pub fn parse_size(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || {
        Failure::new(format!(
            "`{text}` is not a size; write for instance 64, 4KiB or 256MiB"
        ))
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let scale = match unit.trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(scale)
        .filter(|&bytes| bytes <= SIZE_BYTES_MAX)
        .ok_or_else(|| {
            Failure::new(format!(
                "`{text}` is larger than {} GiB",
                SIZE_BYTES_MAX >> 30
            ))
        })
}

fn parse_range(text: &str) -> Result<Vec<u64>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, step) = match parts[..] {
        [one] => return Ok(vec![parse_size(one)?]),
        [from, to] => (from, to, Step::Factor(2)),
        [from, to, step] => (from, to, step.parse()?),
        _ => return Err(Failure::new(format!("`{text}` is not FROM:TO:xFACTOR"))),
    };
    let (from, to) = (parse_size(from)?, parse_size(to)?);
    if from == 0 || from > to {
        return Err(Failure::new(format!(
            "`{text}` does not go from a size above 0 to a larger one"
        )));
    }
    let sizes: Vec<u64> = std::iter::successors(Some(from), |&size| {
        step.after(size).filter(|&next| next <= to)
    })
    .take(SIZES_MAX + 1)
    .collect();
    Ok(sizes)
}

/// How a range goes on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Factor(u64),
    Add(u64),
}

impl Step {
    fn after(self, size: u64) -> Option<u64> {
        match self {
            Self::Factor(factor) => size.checked_mul(factor),
            Self::Add(bytes) => size.checked_add(bytes),
        }
    }
}

impl FromStr for Step {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(bytes) = text.strip_prefix('+') {
            let bytes = parse_size(bytes)?;
            if bytes > 0 {
                return Ok(Self::Add(bytes));
            }
        }
        match text.trim_start_matches('x').parse() {
            Ok(factor) if factor >= 2 => Ok(Self::Factor(factor)),
            _ => Err(Failure::new(format!(
                "`{text}` is not a step; write x2, x4 or +1MiB"
            ))),
        }
    }
}

/// Largest buffer, in bytes: each of several peers on one host keeps two of them.
const SIZE_BYTES_MAX: u64 = 64 << 30;
/// Most sizes of one run: nobody reads a longer table.
const SIZES_MAX: usize = 1024;

/// A time: a number with an optional unit (s, m).
pub fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time; write for instance 90s or 10m");
    let (number, seconds) = match text.strip_suffix('m') {
        Some(number) => (number, 60.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    match time <= TIME_MAX {
        true => Ok(time),
        false => Err("a time is at most a day".into()),
    }
}

/// A day.
const TIME_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Vec<u64> {
        text.parse::<Sizes>().unwrap().0
    }

    #[test]
    fn a_range_goes_from_the_first_to_at_most_the_last_size() {
        assert_eq!(sizes("4:1KiB:x4"), [4, 16, 64, 256, 1024]);
        assert_eq!(sizes("4:1000:x4"), [4, 16, 64, 256]);
        assert_eq!(sizes("1:8"), [1, 2, 4, 8]);
        assert_eq!(sizes("1MiB:3MiB:+1MiB"), [1 << 20, 2 << 20, 3 << 20]);
    }

    #[test]
    fn the_largest_size_of_the_documented_range_is_met() {
        let all = sizes("4:256MiB:x4");
        assert_eq!((all.len(), all.last()), (14, Some(&(256 << 20))));
    }

    #[test]
    fn single_sizes_and_lists_are_kept_as_written() {
        assert_eq!(sizes("0"), [0]);
        assert_eq!(sizes("64MiB"), [64 << 20]);
        assert_eq!(sizes("1,1kB,4:16:x4"), [1, 1000, 4, 16]);
    }

    #[test]
    fn what_is_no_size_is_refused_with_words() {
        for text in [
            "",
            "MiB",
            "4:2",
            "0:4",
            "4:8:x1",
            "4:8:+0",
            "4:8:16:x2",
            "9999999GiB",
            "-1",
            "1X",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_without_end_is_refused() {
        assert!("1:1GiB:+1".parse::<Sizes>().is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(parse_time("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_time("7").unwrap(), Duration::from_secs(7));
        for text in ["", "m", "-1s", "1h", "1e9m", "NaN"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
