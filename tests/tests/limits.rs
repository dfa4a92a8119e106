//! docs/limits.md names every limit of the library with its value.

use std::time::Duration;

use ccl_core::limits;

/// A constant as it is written on the page.
trait Value {
    fn written(self, name: &str) -> String;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Value for $number {
            fn written(self, name: &str) -> String {
                written(self as u64, name.contains("BYTES"))
            }
        })*
    };
}

numbers!(u16, u32, u64, usize);

impl Value for Duration {
    fn written(self, _name: &str) -> String {
        match self.as_millis() {
            millis if millis < 1000 => format!("{millis} ms"),
            millis => format!("{} s", with_commas(millis as u64 / 1000)),
        }
    }
}

macro_rules! limits {
    ($($name:ident)*) => {
        vec![$((stringify!($name), Value::written(limits::$name, stringify!($name)))),*]
    };
}

fn all() -> Vec<(&'static str, String)> {
    limits! {
        WORLD_SIZE_MAX PEERS_MAX GROUPS_MAX TAGS_MAX TAGS_KEPT OPEN_OPS_MAX PARTS_MAX COUNT_MAX
        SAFE_POINTS_AHEAD_MAX STATE_ENTRIES_MAX STATE_ASKS_MAX ADDRESSES_MAX TEXT_BYTES_MAX
        NUMBER_MAX GENERATION_MAX
        TIMER_MAX ABORT_REASONS_MAX ABORT_REASONS_BYTES_MAX ENDED_SESSIONS_KEPT
        ENDED_SESSIONS_MAX BACKOFFS_MAX USED_GROUPS_MAX
        BACKOFF_MIN BACKOFF_MAX PEER_ID_GAP EXPECT_INTERVAL CONTROL_FRAME_BYTES_MAX
        CONTROL_QUEUE_BYTES_MAX JOURNAL_RECORD_BYTES_MAX HELLO_TIMEOUT UNIDENTIFIED_MAX
        UNIDENTIFIED_BYTES_MAX EAGER_BYTES_MAX EAGER_OPS_MAX SEGMENT_BYTES_MIN SEGMENT_BYTES_MAX
        SCRATCH_BYTES_DEFAULT SCRATCH_BYTES_MIN SCRATCH_BYTES_MAX RESERVE_BYTES_DEFAULT
        RESERVE_BYTES_MAX RESERVE_POOL_BYTES IO_THREADS_MAX LANES_MAX LANES_DEFAULT LANES_AUTO_MAX
        LANES_SAME_HOST UNACKED_FRAMES_MAX ACK_INTERVAL_FRAMES SIGNAL_QUEUE_BYTES_MAX
        SIGNAL_PAYLOAD_BYTES_MAX MASTER_PORT_DEFAULT NAME_BYTES_MAX WAIT_NAMES_MAX LABEL_BYTES_MAX
        LOOK_INTERVAL CALLER_BYTES_MAX PINGS_TIMED_MAX STREAMS_MAX RECORD_PAYLOAD_BYTES_MAX
        RECORD_ENTRIES_MAX
        RECORD_AGE_MAX RECORDS_BEHIND_MAX RECORDS_KEPT_MAX RECORDS_BEHIND_BYTES_MAX
        RECORD_LOG_BYTES_MAX
    }
}

fn written(value: u64, is_bytes: bool) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |(shift, _): &(u32, &str)| value.is_multiple_of(1 << shift) && value > 0;
    match units.into_iter().find(whole) {
        Some((shift, unit)) if is_bytes => format!("{} {unit}", with_commas(value >> shift)),
        _ if value.is_power_of_two() && value > 1 << 20 => format!("2^{}", value.ilog2()),
        _ => with_commas(value),
    }
}

fn with_commas(value: u64) -> String {
    let digits = value.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups = groups.map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

fn read(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read_to_string(format!("{root}/{path}")).expect("it is part of the repository")
}

/// Names of the constants in the source.
fn names() -> Vec<String> {
    let source = read("ccl-core/src/limits.rs");
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "));
    constants
        .filter_map(|rest| Some(rest.split_once(':')?.0.to_owned()))
        .collect()
}

#[test]
fn the_page_of_limits_is_complete_and_true() {
    let page = read("docs/limits.md");
    let all = all();
    for name in names() {
        assert!(
            all.iter().any(|(known, _)| *known == name),
            "{name} is to be added to this test and to docs/limits.md"
        );
    }
    for (name, value) in all {
        let row = format!("| `{name}` | {value} |");
        assert!(
            page.contains(&row),
            "docs/limits.md does not say \"{row} …\""
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), names().len(), "a row for each limit");
}
