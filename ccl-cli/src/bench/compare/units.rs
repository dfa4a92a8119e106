//! Numbers as people read them.

/// `4 B`, `64 KiB`, `1 MiB`.
pub fn size_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} B")
}

/// Microseconds with three digits and the unit that fits.
pub fn time_text(us: f64) -> String {
    match us {
        us if us >= 999_500.0 => format!("{} s", digits(us / 1e6)),
        us if us >= 999.5 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} µs", digits(us)),
    }
}

/// Three digits.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_whole_unit() {
        let texts = [4, 1024, 1025, 64 << 20, 3 << 30].map(size_text);
        assert_eq!(texts, ["4 B", "1 KiB", "1025 B", "64 MiB", "3 GiB"]);
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [0.5, 12.34, 999.4, 999.6, 123_456.0, 2e6].map(time_text);
        let expected = [
            "0.50 µs", "12.3 µs", "999 µs", "1.00 ms", "123 ms", "2.00 s",
        ];
        assert_eq!(texts, expected);
        assert_eq!([99.94, 99.96].map(digits), ["99.9", "100"]);
    }
}
