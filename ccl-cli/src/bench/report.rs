//! Turns the peers' measurements into a line of the table, as text or JSON.

use ccl_core::{Encoding, Kind};
use serde::Serialize;

use super::case::{Case, LinkSeen, Measured, kind_name};
use super::floor::{CONNECTIONS, Cost};

/// One line of a bench. What was not measured is null.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    collective: &'static str,
    algorithm: &'static str,
    transport: &'static str,
    lanes: u16,
    checksum: bool,
    dtype: &'static str,
    op: &'static str,
    in_place: bool,
    world_size: u32,
    count: usize,
    bytes: u64,
    iterations: u32,
    repeats: usize,
    /// Time of a call: all timed calls together, divided by their number; the slowest peer's, and
    /// the median over the repeats.
    time_us: f64,
    time_us_min: f64,
    time_us_median: f64,
    time_us_max: f64,
    /// The first call, the slowest peer's; at the first size over links that moved nothing before.
    first_time_us: f64,
    algbw_gb_s: f64,
    busbw_gb_s: f64,
    wrong: Option<u64>,
    encoding: &'static str,
    /// Error of an encoded result relative to the exact one, as the root of mean squares; the worst
    /// peer's.
    relative_error: Option<f64>,
    aborts: u64,
    repairs: u64,
    cpu_s_per_gib: Option<f64>,
    extra_rss_bytes: u64,
    floor_connections: Option<usize>,
    floor_time_us: Option<f64>,
    floor_cpu_s_per_gib: Option<f64>,
    floor_time_ratio: Option<f64>,
    floor_time_ratio_min: Option<f64>,
    floor_time_ratio_max: Option<f64>,
    floor_cpu_ratio: Option<f64>,
    /// What the links of this host's peers had in force after the last repeat.
    links: Vec<LinkSeen>,
}

/// What the whole session has in common.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Whether data carries a checksum.
    pub checksum: bool,
}

/// One repeat of a case: what every peer measured, and the floor beside it, by [`CONNECTIONS`].
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The peers of this host.
    pub peers: Vec<Measured>,
    /// The exchanges of plain sockets.
    pub floor: Option<[Cost; CONNECTIONS.len()]>,
}

impl Repeat {
    /// Timed calls; at least 1.
    fn iterations(&self) -> usize {
        self.peers
            .iter()
            .map(|peer| peer.iteration_ns.len())
            .min()
            .unwrap_or(0)
            .max(1)
    }

    /// Time of a call: all timed calls of the slowest peer, divided by their number.
    pub fn time_ns(&self) -> f64 {
        let slowest = self
            .peers
            .iter()
            .map(|peer| peer.batch_ns)
            .max()
            .unwrap_or(0);
        slowest as f64 / self.iterations() as f64
    }

    fn first_ns(&self) -> f64 {
        let peers = self.peers.iter();
        peers.map(|peer| peer.first_ns).max().unwrap_or(0) as f64
    }

    /// User and system time of all peers and the master in one call.
    pub fn cpu_ns(&self) -> Option<f64> {
        let master = self.peers.iter().find_map(|peer| peer.master_cpu_ns)?;
        let peers: u64 = self.peers.iter().map(|peer| peer.cpu_ns).sum();
        Some((peers + master) as f64 / self.iterations() as f64)
    }

    fn links(&self) -> Vec<LinkSeen> {
        let links = self.peers.iter().flat_map(|peer| &peer.links);
        links.cloned().collect()
    }

    /// Time of each call until the last peer had it.
    fn calls_ns(&self) -> impl Iterator<Item = u64> {
        (0..self.iterations()).filter_map(|index| {
            self.peers
                .iter()
                .filter_map(|peer| peer.iteration_ns.get(index).copied())
                .max()
        })
    }
}

impl Line {
    /// Puts the repeats of one case together; at least one.
    pub fn new(session: Session, case: &Case, repeats: &[Repeat]) -> Self {
        let peers = || repeats.iter().flat_map(|repeat| &repeat.peers);
        let world_size = peers().map(|peer| peer.world_size).max().unwrap_or(1);
        let time_ns = median(repeats.iter().map(Repeat::time_ns)).unwrap_or(0.0);
        let cpu_ns = median(repeats.iter().filter_map(Repeat::cpu_ns));
        let calls: Vec<f64> = repeats
            .iter()
            .flat_map(Repeat::calls_ns)
            .map(|ns| ns as f64)
            .collect();
        let first_ns = median(repeats.iter().map(Repeat::first_ns)).unwrap_or(0.0);
        let bytes = case.bytes();
        let algbw_gb_s = if time_ns > 0.0 {
            bytes as f64 / time_ns
        } else {
            0.0
        };
        let floor = FloorRatios::new(repeats);
        let wrong: Vec<u64> = peers().filter_map(|peer| peer.wrong).collect();
        Self {
            collective: kind_name(case.kind),
            algorithm: peers().next().map_or("", |peer| peer.algorithm.name()),
            transport: "tcp",
            lanes: peers().map(|peer| peer.lanes).max().unwrap_or(0),
            checksum: session.checksum,
            dtype: case.dtype.name(),
            op: case.op.name(),
            in_place: case.in_place,
            world_size,
            count: case.count,
            bytes,
            iterations: case.iterations,
            repeats: repeats.len(),
            time_us: round(time_ns / 1e3),
            time_us_min: round(calls.iter().copied().reduce(f64::min).unwrap_or(0.0) / 1e3),
            time_us_median: round(median(calls.iter().copied()).unwrap_or(0.0) / 1e3),
            time_us_max: round(calls.iter().copied().reduce(f64::max).unwrap_or(0.0) / 1e3),
            first_time_us: round(first_ns / 1e3),
            algbw_gb_s: round(algbw_gb_s),
            busbw_gb_s: round(algbw_gb_s * case.bus_factor(world_size)),
            wrong: (!wrong.is_empty()).then(|| wrong.iter().sum()),
            encoding: case.encoding.map_or("none", Encoding::name),
            relative_error: peers().filter_map(|peer| peer.error).reduce(f64::max),
            aborts: peers().map(|peer| peer.aborts).sum(),
            repairs: peers().map(|peer| peer.repairs).sum(),
            cpu_s_per_gib: cpu_ns.and_then(|ns| seconds_per_gib(ns, bytes)),
            extra_rss_bytes: peers().map(|peer| peer.extra_rss_bytes).max().unwrap_or(0),
            floor_connections: floor.as_ref().map(|floor| floor.connections),
            floor_time_us: floor.as_ref().map(|floor| round(floor.time_ns / 1e3)),
            floor_cpu_s_per_gib: floor
                .as_ref()
                .and_then(|floor| seconds_per_gib(floor.cpu_ns, bytes)),
            floor_time_ratio: floor.as_ref().map(|floor| round(floor.time_ratio)),
            floor_time_ratio_min: floor.as_ref().map(|floor| round(floor.time_ratio_min)),
            floor_time_ratio_max: floor.as_ref().map(|floor| round(floor.time_ratio_max)),
            floor_cpu_ratio: floor.and_then(|floor| floor.cpu_ratio.map(round)),
            links: repeats.last().map_or_else(Vec::new, Repeat::links),
        }
    }

    /// Elements that differ from the reference.
    pub fn wrong(&self) -> u64 {
        self.wrong.unwrap_or(0)
    }

    /// The line for people; [`HEADER`] says what its columns are.
    pub fn to_text(&self) -> String {
        let optional =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        format!(
            "{:>12} {:>12} {:>5} {:>5} {:>7} {:>11.1} {:>11.1} {:>11.1} {:>7.3} {:>7.3} {:>6} {:>8} \
             {:>8.1} {:>6} {:>6}{}",
            self.bytes,
            self.count,
            self.dtype,
            self.op,
            self.algorithm,
            self.time_us,
            self.time_us_min,
            self.time_us_max,
            self.algbw_gb_s,
            self.busbw_gb_s,
            self.wrong.map_or("-".to_owned(), |wrong| wrong.to_string()),
            optional(self.cpu_s_per_gib),
            self.extra_rss_bytes as f64 / f64::from(1 << 20),
            optional(self.floor_time_ratio),
            optional(self.floor_cpu_ratio),
            self.relative_error
                .map_or(String::new(), |error| format!("  error {error:.2e}")),
        )
    }
}

/// What the columns of [`Line::to_text`] are.
pub const HEADER: &str = "\
#      bytes        count  type    op    algo        time         min         max   algbw   busbw  \
wrong      cpu    extra    floor ratio
#                                                    (us)        (us)        (us)  (GB/s)  (GB/s)  \
       (s/GiB)    (MiB)   time    cpu";

/// The collective beside the floor, repeat by repeat.
#[derive(Clone, Copy, Debug)]
struct FloorRatios {
    connections: usize,
    time_ns: f64,
    cpu_ns: f64,
    time_ratio: f64,
    time_ratio_min: f64,
    time_ratio_max: f64,
    cpu_ratio: Option<f64>,
}

impl FloorRatios {
    /// The number of connections with the shortest median time stands for the floor; the ratios are
    /// medians over pairs measured back to back, so that a slow phase of the machine hits both.
    fn new(repeats: &[Repeat]) -> Option<Self> {
        let pairs: Vec<(&Repeat, [Cost; CONNECTIONS.len()])> = repeats
            .iter()
            .filter_map(|repeat| Some((repeat, repeat.floor?)))
            .collect();
        let (best, time_ns) = (0..CONNECTIONS.len())
            .filter_map(|place| {
                Some((
                    place,
                    median(pairs.iter().map(|(_, floor)| floor[place].time_ns))?,
                ))
            })
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|(repeat, floor)| repeat.time_ns() / floor[best].time_ns)
            .collect();
        Some(Self {
            connections: CONNECTIONS[best],
            time_ns,
            cpu_ns: median(pairs.iter().map(|(_, floor)| floor[best].cpu_ns))?,
            time_ratio: median(ratios.iter().copied())?,
            time_ratio_min: ratios.iter().copied().reduce(f64::min)?,
            time_ratio_max: ratios.iter().copied().reduce(f64::max)?,
            cpu_ratio: median(
                pairs
                    .iter()
                    .filter_map(|(repeat, floor)| Some(repeat.cpu_ns()? / floor[best].cpu_ns)),
            ),
        })
    }
}

/// The middle value; the mean of the two in the middle if their number is even.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Processor seconds for each GiB of buffer.
pub fn seconds_per_gib(cpu_ns: f64, bytes: u64) -> Option<f64> {
    let gib = bytes as f64 / f64::from(1 << 30);
    (bytes > 0).then(|| round(cpu_ns / 1e9 / gib))
}

/// Four digits behind the point say more than the measurement does.
pub fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Whether a floor can be put beside this collective.
pub const fn has_floor(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter
    )
}

#[cfg(test)]
mod tests {
    use ccl_core::{Algorithm, Dtype, ReduceOp};

    use super::*;
    use crate::bench::case::Step;

    const CASE: Case = Case {
        kind: Kind::AllReduce,
        algorithm: Algorithm::TwoShot,
        dtype: Dtype::F32,
        op: ReduceOp::Sum,
        encoding: None,
        count: 1 << 18,
        in_place: false,
        warmup: 1,
        step: Step::PLAIN,
        iterations: 2,
        check: true,
    };
    const SESSION: Session = Session { checksum: true };

    fn peer(iteration_ns: [u64; 2], cpu_ns: u64, master_cpu_ns: Option<u64>) -> Measured {
        Measured {
            algorithm: Algorithm::TwoShot,
            world_size: 2,
            iteration_ns: iteration_ns.to_vec(),
            first_ns: 5_000,
            batch_ns: iteration_ns.iter().sum(),
            cpu_ns,
            master_cpu_ns,
            extra_rss_bytes: cpu_ns,
            wrong: Some(1),
            error: None,
            aborts: 0,
            repairs: 3,
            lanes: 4,
            links: Vec::new(),
        }
    }

    fn cost(time_ns: f64) -> Cost {
        Cost {
            time_ns,
            cpu_ns: 2.0 * time_ns,
        }
    }

    #[test]
    fn the_slowest_peer_makes_the_time_and_all_processes_the_cpu() {
        let peers = vec![
            peer([1_000_000, 3_000_000], 500, Some(500)),
            peer([2_000_000, 1_000_000], 1_000, None),
        ];
        let line = Line::new(SESSION, &CASE, &[Repeat { peers, floor: None }]);
        assert_eq!(line.time_us, 2_000.0, "(1 + 3) ms over two calls");
        assert_eq!((line.time_us_min, line.time_us_max), (2_000.0, 3_000.0));
        assert_eq!(
            line.cpu_s_per_gib,
            Some(round(2_000.0 / 2.0 / 1e9 * 1024.0))
        );
        assert_eq!((line.wrong, line.extra_rss_bytes), (Some(2), 1_000));
        assert_eq!((line.aborts, line.repairs), (0, 6), "of all peers");
        assert_eq!(
            line.busbw_gb_s, line.algbw_gb_s,
            "the factor of two peers is 1"
        );
        assert_eq!(line.floor_time_ratio, None);
    }

    #[test]
    fn ratios_are_medians_of_neighbours_over_the_best_number_of_connections() {
        let repeat = |time_ns: u64, floor: [f64; 3]| Repeat {
            peers: vec![peer([time_ns, time_ns], 4 * time_ns, Some(0))],
            floor: Some(floor.map(cost)),
        };
        let repeats = [
            repeat(100, [90.0, 80.0, 100.0]),
            repeat(110, [90.0, 100.0, 100.0]),
            repeat(400, [300.0, 200.0, 400.0]),
        ];
        let line = Line::new(SESSION, &CASE, &repeats);
        assert_eq!(line.floor_connections, Some(1), "medians 90, 100 and 100");
        assert_eq!(line.floor_time_ratio, Some(round(110.0 / 90.0)));
        assert_eq!(line.floor_cpu_ratio, Some(round(110.0 / 90.0)));
    }

    #[test]
    fn cpu_is_unknown_where_the_master_is_elsewhere() {
        let peers = vec![peer([1, 1], 500, None)];
        let line = Line::new(SESSION, &CASE, &[Repeat { peers, floor: None }]);
        assert_eq!(line.cpu_s_per_gib, None);
    }

    #[test]
    fn a_line_has_every_field_that_machines_are_promised() {
        let line = Line::new(
            SESSION,
            &CASE,
            &[Repeat {
                peers: vec![peer([1, 1], 1, None)],
                floor: None,
            }],
        );
        let json = serde_json::to_value(&line).unwrap();
        for field in
            "collective algorithm transport lanes dtype op world_size bytes time_us time_us_min \
                      time_us_max first_time_us algbw_gb_s busbw_gb_s wrong cpu_s_per_gib extra_rss_bytes \
                      floor_time_ratio floor_cpu_ratio links"
                .split_whitespace()
        {
            assert!(json.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
