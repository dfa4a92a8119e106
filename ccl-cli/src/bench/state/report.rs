//! From what the peers saw of each sync to one line, for people and for machines.

use serde::Serialize;

use super::super::floor::{CONNECTIONS, Cost};
use super::super::report::{median, round};
use super::peer::Synced;
use super::{Peers, StateOptions};

/// One sync, and the floor beside it, by [`CONNECTIONS`].
#[derive(Clone, Debug)]
pub struct Repeat {
    /// What the peers saw.
    pub peers: Peers,
    /// Plain sockets moving the bytes of the state.
    pub floor: [Cost; CONNECTIONS.len()],
}

/// What is printed. Times are the joiner's, medians over the repeats.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    bench: &'static str,
    bytes: u64,
    sources: u32,
    repeats: usize,
    flip_bit: bool,
    kill_source: bool,
    time_us: f64,
    time_us_min: f64,
    time_us_max: f64,
    /// What hashing the own state took of it.
    hash_time_us: f64,
    /// From the election to the return.
    transfer_time_us: f64,
    floor_connections: usize,
    floor_time_us: f64,
    floor_time_ratio: f64,
    floor_time_ratio_min: f64,
    floor_time_ratio_max: f64,
    /// The most over the repeats.
    received_bytes: u64,
    /// The most that any source gave in one sync.
    source_sent_bytes: u64,
    /// Of the bytes that the joiner used, the part of each source.
    shares: Vec<f64>,
    share_min: f64,
    share_max: f64,
    /// The part of the source with a limit, and its limit.
    slow_source_share: Option<f64>,
    slow_source_bytes_per_second: Option<u64>,
    joiner_extra_rss_bytes: u64,
    source_extra_rss_bytes: u64,
    digests_equal: bool,
    wrong: u64,
}

/// What the columns of [`Line::to_text`] are.
pub const HEADER: &str = "\
#      bytes sources   time (us)   hash (us)   floor (us)  ratio     received    shares   \
extra (MiB: joiner, source)  wrong";

impl Line {
    /// Puts the repeats together; at least one. `names` are those of the sources in the run.
    pub fn new(
        options: &StateOptions,
        limit: Option<u64>,
        names: &[u64],
        repeats: &[Repeat],
    ) -> Self {
        let joiners = || repeats.iter().map(|repeat| &repeat.peers.joiner);
        let sources = || repeats.iter().flat_map(|repeat| &repeat.peers.sources);
        let of = |value: fn(&Synced) -> u64| median(joiners().map(|it| value(it) as f64));
        let times = || joiners().map(|joiner| joiner.time_ns as f64);
        let shares: Vec<Vec<f64>> = joiners().map(|joiner| shares(joiner, names)).collect();
        let all_shares = || shares.iter().flatten().copied();
        let by_place = |place| median(shares.iter().map(|shares| shares[place]));
        let (place, floor_ns) = best_floor(repeats);
        let ratios: Vec<f64> = times()
            .zip(repeats)
            .map(|(time, repeat)| time / repeat.floor[place].time_ns)
            .collect();
        let microseconds = |value: Option<f64>| round(value.unwrap_or(0.0) / 1e3);
        let plain = |value: Option<f64>| round(value.unwrap_or(0.0));
        Self {
            bench: "shared-state",
            bytes: options.bytes,
            sources: options.sources,
            repeats: repeats.len(),
            flip_bit: options.flip_bit,
            kill_source: options.kill_source,
            time_us: microseconds(median(times())),
            time_us_min: microseconds(times().reduce(f64::min)),
            time_us_max: microseconds(times().reduce(f64::max)),
            hash_time_us: microseconds(of(|joiner| joiner.hash_ns)),
            transfer_time_us: microseconds(of(|joiner| joiner.transfer_ns)),
            floor_connections: CONNECTIONS[place],
            floor_time_us: microseconds(Some(floor_ns)),
            floor_time_ratio: plain(median(ratios.iter().copied())),
            floor_time_ratio_min: plain(ratios.iter().copied().reduce(f64::min)),
            floor_time_ratio_max: plain(ratios.iter().copied().reduce(f64::max)),
            received_bytes: joiners().map(|it| it.received_bytes).max().unwrap_or(0),
            source_sent_bytes: sources().map(|it| it.sent_bytes).max().unwrap_or(0),
            shares: (0..names.len())
                .map(|place| plain(by_place(place)))
                .collect(),
            share_min: plain(all_shares().reduce(f64::min)),
            share_max: plain(all_shares().reduce(f64::max)),
            slow_source_share: limit.map(|_| plain(by_place(0))),
            slow_source_bytes_per_second: limit,
            joiner_extra_rss_bytes: joiners().map(|it| it.extra_rss_bytes).max().unwrap_or(0),
            source_extra_rss_bytes: sources().map(|it| it.extra_rss_bytes).max().unwrap_or(0),
            digests_equal: joiners()
                .chain(sources())
                .all(|it| it.root == repeats[0].root()),
            wrong: joiners().chain(sources()).map(|it| it.wrong).sum(),
        }
    }

    /// Whether everybody ended with the bits of the state.
    pub fn is_right(&self) -> bool {
        self.wrong == 0 && self.digests_equal
    }

    /// The line for people; [`HEADER`] says what its columns are.
    pub fn to_text(&self) -> String {
        let shares: Vec<String> = self
            .shares
            .iter()
            .map(|share| format!("{:.0} %", 100.0 * share))
            .collect();
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{:>12} {:>7} {:>11.1} {:>11.1} {:>12.1} {:>6.2} {:>12}    {}    {:.1}, {:.1}  {}",
            self.bytes,
            self.sources,
            self.time_us,
            self.hash_time_us,
            self.floor_time_us,
            self.floor_time_ratio,
            self.received_bytes,
            shares.join(", "),
            mebibytes(self.joiner_extra_rss_bytes),
            mebibytes(self.source_extra_rss_bytes),
            self.wrong,
        )
    }
}

impl Repeat {
    fn root(&self) -> &str {
        &self.peers.joiner.root
    }
}

/// Which number of connections has the shortest median time, and that time.
fn best_floor(repeats: &[Repeat]) -> (usize, f64) {
    (0..CONNECTIONS.len())
        .filter_map(|place| {
            let times = repeats.iter().map(|repeat| repeat.floor[place].time_ns);
            Some((place, median(times)?))
        })
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, f64::NAN))
}

/// Of the bytes that a joiner used, the part of each source.
fn shares(joiner: &Synced, names: &[u64]) -> Vec<f64> {
    let all: u64 = joiner.sources.iter().map(|(_, bytes)| bytes).sum();
    let of = |name: u64| {
        let named = joiner.sources.iter().filter(|(peer, _)| *peer == name);
        named.map(|(_, bytes)| bytes).sum::<u64>()
    };
    names
        .iter()
        .map(|name| of(*name) as f64 / all.max(1) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(time_ns: u64, root: &str) -> Synced {
        Synced {
            time_ns,
            hash_ns: time_ns / 2,
            transfer_ns: time_ns / 4,
            received_bytes: time_ns,
            sent_bytes: 7,
            sources: vec![(5, 30), (4, 90)],
            root: root.into(),
            wrong: 0,
            extra_rss_bytes: time_ns,
        }
    }

    fn repeat(time_ns: u64, floor: [u32; 3], root: &str) -> Repeat {
        Repeat {
            peers: Peers {
                sources: vec![synced(1, "a"), synced(2, "a")],
                joiner: synced(time_ns, root),
            },
            floor: floor.map(|time_ns| Cost {
                time_ns: time_ns.into(),
                cpu_ns: 0.0,
            }),
        }
    }

    fn line(repeats: &[Repeat]) -> Line {
        let options = StateOptions {
            bytes: 120,
            sources: 2,
            repeat: None,
            slow_source: Some(0.1),
            flip_bit: false,
            kill_source: false,
            json: true,
        };
        Line::new(&options, Some(12), &[4, 5], repeats)
    }

    #[test]
    fn ratios_are_of_pairs_with_the_best_floor() {
        let line = line(&[
            repeat(4_000, [9_000, 1_000, 9_000], "a"),
            repeat(8_000, [9_000, 4_000, 9_000], "a"),
            repeat(9_000, [9_000, 3_000, 9_000], "a"),
        ]);
        assert_eq!((line.floor_connections, line.floor_time_us), (2, 3.0));
        assert_eq!((line.time_us, line.hash_time_us), (8.0, 4.0));
        assert_eq!(line.floor_time_ratio, 3.0, "4, 2 and 3");
        assert_eq!(line.received_bytes, 9_000, "the most");
        assert_eq!(line.source_extra_rss_bytes, 2);
        assert!(line.is_right());
    }

    #[test]
    fn shares_are_in_the_order_of_the_sources() {
        let line = line(&[repeat(1, [1, 1, 1], "a")]);
        assert_eq!(line.shares, [0.75, 0.25]);
        assert_eq!(line.slow_source_share, Some(0.75));
    }

    #[test]
    fn another_digest_is_not_right() {
        let repeats = [repeat(1, [1, 1, 1], "a"), repeat(1, [1, 1, 1], "b")];
        assert!(!line(&repeats).is_right());
    }
}
