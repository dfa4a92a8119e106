//! What was measured, as it is saved, and the figures that tables and plots are made of.

use serde::{Deserialize, Serialize};

use super::contestant::{AUTO, Contestant, Family};
use super::plan::Cell;
use crate::bench::report::{median, round, seconds_per_gib};

/// A comparison on one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Which network.
    pub network: String,
    /// Processors of the machine.
    pub processors: usize,
    /// The other libraries, with their versions.
    pub versions: Vec<String>,
    /// Who was not measured, and why.
    pub missing: Vec<String>,
    /// In the order of worlds and sizes.
    pub cells: Vec<CellResults>,
}

/// All contestants in one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResults {
    /// What was measured.
    #[serde(flatten)]
    pub cell: Cell,
    /// Round trips of 4 bytes over TCP beside it, by round; empty for large buffers.
    pub ping_pong_us: Vec<f64>,
    /// Everybody who was there.
    pub rows: Vec<Row>,
}

/// One contestant in one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub contestant: String,
    /// Whose it is.
    pub family: Family,
    /// The algorithm that the library used.
    pub algorithm: Option<String>,
    /// Time of a call, by round; null where it was not measured.
    pub time_us: Vec<Option<f64>>,
    /// Processor time of all its processes, by round.
    pub cpu_s_per_gib: Vec<Option<f64>>,
    /// Most memory that a process used in the first round, beyond the buffers and what it had
    /// before the first call.
    pub extra_rss_bytes: Option<u64>,
    /// Wrong elements.
    pub wrong: u64,
}

/// What one contestant needed in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// Time of a call, of the slowest process, in nanoseconds.
    pub time_ns: f64,
    /// Processor time of a call, of all processes.
    pub cpu_ns: Option<f64>,
    /// Memory beyond buffers and process, of the worst process.
    pub extra_bytes: Option<u64>,
    /// Wrong elements.
    pub wrong: u64,
    /// The algorithm that was used.
    pub algorithm: Option<String>,
}

/// The middle half of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Half of the distance between the quartiles, as a part of the median.
    pub half_width: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = median(values.iter().copied())?;
        let half = values.len().div_ceil(2);
        let lower = median(values.iter().take(half).copied())?;
        let upper = median(values.iter().rev().take(half).copied())?;
        Some(Self {
            median: middle,
            min: *values.first()?,
            max: *values.last()?,
            half_width: (upper - lower) / 2.0 / middle,
        })
    }
}

impl Row {
    /// Nothing yet.
    pub fn new(contestant: Contestant) -> Self {
        Self {
            contestant: contestant.name(),
            family: contestant.family(),
            algorithm: None,
            time_us: Vec::new(),
            cpu_s_per_gib: Vec::new(),
            extra_rss_bytes: None,
            wrong: 0,
        }
    }

    /// The next round.
    pub fn add(&mut self, bytes: u64, spent: Option<Spent>) {
        self.time_us
            .push(spent.as_ref().map(|spent| round(spent.time_ns / 1e3)));
        let cpu_ns = spent.as_ref().and_then(|spent| spent.cpu_ns);
        self.cpu_s_per_gib
            .push(cpu_ns.and_then(|ns| seconds_per_gib(ns, bytes)));
        if let Some(spent) = spent {
            // Later rounds have what the library keeps from larger buffers.
            self.extra_rss_bytes = self.extra_rss_bytes.or(spent.extra_bytes);
            self.wrong += spent.wrong;
            self.algorithm = spent.algorithm.or(self.algorithm.take());
        }
    }

    /// Time of a call, in microseconds.
    pub fn time(&self) -> Option<Spread> {
        Spread::of(self.time_us.iter().flatten().copied())
    }

    /// Processor seconds for each GiB.
    pub fn cpu(&self) -> Option<f64> {
        median(self.cpu_s_per_gib.iter().flatten().copied())
    }

    /// How often it was measured.
    pub fn rounds(&self) -> usize {
        self.time_us.iter().flatten().count()
    }

    /// Its time as a multiple of the other's, round by round.
    pub fn ratio_to(&self, other: &Self) -> Option<Spread> {
        let pairs = self.time_us.iter().zip(&other.time_us);
        let ratios = pairs.filter_map(|(own, other)| Some((*own)? / (*other)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()))
    }
}

impl CellResults {
    /// Forgets the first round, which only found out how long calls take, once there is another.
    pub fn settle(&mut self) {
        for row in &mut self.rows {
            if row.time_us.len() > 1 {
                row.time_us.remove(0);
                row.cpu_s_per_gib.remove(0);
            }
        }
        if self.ping_pong_us.len() > 1 {
            self.ping_pong_us.remove(0);
        }
    }

    /// The contestant of this name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contestant == name)
    }

    fn fastest(&self, is_meant: impl Fn(&Row) -> bool) -> Option<&Row> {
        let timed = self.rows.iter().filter(|row| is_meant(row));
        timed
            .filter_map(|row| Some((row, row.time()?.median)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(row, _)| row)
    }

    /// The fastest of this library's algorithms.
    pub fn best_of_ours(&self) -> Option<&Row> {
        self.fastest(|row| row.family == Family::Ccl && row.contestant != AUTO)
    }

    /// The fastest of this family.
    pub fn best_of(&self, family: Family) -> Option<&Row> {
        self.fastest(|row| row.family == family)
    }

    /// What `auto` chose, beside what would have been best.
    pub fn choice(&self) -> Option<Choice<'_>> {
        let (auto, best) = (self.row(AUTO)?, self.best_of_ours()?);
        Some(Choice {
            chosen: auto.algorithm.as_deref()?,
            best: best.algorithm.as_deref()?,
            ratio: auto.ratio_to(best)?.median,
        })
    }

    /// Time of a contestant in round trips of 4 bytes.
    pub fn round_trips(&self, row: &Row) -> Option<Spread> {
        let pairs = row.time_us.iter().zip(&self.ping_pong_us);
        Spread::of(pairs.filter_map(|(time, ping_pong)| Some((*time)? / ping_pong)))
    }

    /// Bus bandwidth in GB/s of a call that takes so many microseconds.
    pub fn busbw(&self, time_us: f64) -> f64 {
        let world_size = f64::from(self.cell.world_size);
        self.cell.bytes as f64 / time_us / 1e3 * 2.0 * (world_size - 1.0) / world_size
    }
}

/// What `auto` chose in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The algorithm it chose.
    pub chosen: &'a str,
    /// The fastest.
    pub best: &'a str,
    /// Its time as a multiple of the fastest's.
    pub ratio: f64,
}

impl Choice<'_> {
    /// Whether the choice was good enough. Two measurements of the same algorithm differ by chance
    /// only.
    pub fn is_good(&self) -> bool {
        self.chosen == self.best || self.ratio <= GOOD_RATIO
    }
}

/// How much slower than the best `auto` may be.
pub const GOOD_RATIO: f64 = 1.15;

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(name: &str, family: Family, algorithm: Option<&str>, time_us: &[f64]) -> Row {
        Row {
            contestant: name.into(),
            family,
            algorithm: algorithm.map(Into::into),
            time_us: time_us.iter().copied().map(Some).collect(),
            cpu_s_per_gib: vec![Some(0.5); time_us.len()],
            extra_rss_bytes: Some(3 << 20),
            wrong: 0,
        }
    }

    /// Two cells of a world of 4: in the small one `auto` chose badly.
    pub fn results() -> Results {
        let cell = |bytes, ping_pong_us: &[f64], rows| CellResults {
            cell: Cell {
                world_size: 4,
                in_place: false,
                bytes,
            },
            ping_pong_us: ping_pong_us.to_vec(),
            rows,
        };
        let small = vec![
            row(AUTO, Family::Ccl, Some("ring"), &[40.0, 44.0, 60.0]),
            row(
                "ccl two_shot",
                Family::Ccl,
                Some("two_shot"),
                &[20.0, 22.0, 20.0],
            ),
            row("ccl ring", Family::Ccl, Some("ring"), &[41.0, 44.0, 50.0]),
            row("gloo", Family::Gloo, None, &[80.0, 88.0, 60.0]),
        ];
        let large = vec![
            row(AUTO, Family::Ccl, Some("two_shot"), &[2e3, 2.2e3, 2e3]),
            row(
                "ccl two_shot",
                Family::Ccl,
                Some("two_shot"),
                &[2e3, 2e3, 2e3],
            ),
            row("gloo", Family::Gloo, None, &[1e3, 1.1e3, 1e3]),
            row("1 socket", Family::Sockets, None, &[1e3, 1e3, 1e3]),
            row("4 sockets", Family::Sockets, None, &[2e3, 2e3, 2e3]),
        ];
        Results {
            network: "loopback".into(),
            processors: 2,
            versions: vec!["gloo of torch 2".into()],
            missing: vec!["Open MPI: not installed".into()],
            cells: vec![
                cell(4, &[10.0, 11.0, 10.0], small),
                cell(1 << 20, &[], large),
            ],
        }
    }

    #[test]
    fn a_spread_has_its_middle_half() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 5.0));
        assert_eq!(spread.half_width, 1.0 / 3.0, "from 2 to 4");
        let one = Spread::of([7.0].into_iter()).unwrap();
        assert_eq!((one.median, one.half_width), (7.0, 0.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn contestants_are_compared_within_rounds() {
        let results = results();
        let small = &results.cells[0];
        let (auto, gloo) = (small.row(AUTO).unwrap(), small.row("gloo").unwrap());
        assert_eq!(auto.ratio_to(gloo).unwrap().median, 0.5, "0.5, 0.5, 1");
        assert_eq!(small.round_trips(auto).unwrap().median, 4.0, "4, 4, 6");
    }

    #[test]
    fn a_round_in_which_somebody_is_missing_counts_for_nobody() {
        let mut late = row("a", Family::Gloo, None, &[1.0, 8.0]);
        late.time_us[0] = None;
        let other = row("b", Family::Mpi, None, &[2.0, 2.0]);
        assert_eq!(late.ratio_to(&other).unwrap().median, 4.0);
        assert_eq!((late.rounds(), other.rounds()), (1, 2));
    }

    #[test]
    fn a_choice_is_good_if_it_is_near_the_best() {
        let results = results();
        let choice = results.cells[0].choice().unwrap();
        assert_eq!((choice.chosen, choice.best), ("ring", "two_shot"));
        assert_eq!(choice.ratio, 2.0);
        assert!(!choice.is_good());
        assert!(results.cells[1].choice().unwrap().is_good());
        let near = Choice {
            ratio: 1.14,
            ..choice
        };
        assert!(near.is_good());
        let noise = Choice {
            chosen: "two_shot",
            ..choice
        };
        assert!(noise.is_good(), "the same algorithm");
    }

    #[test]
    fn the_floor_is_the_best_number_of_connections() {
        let large = &results().cells[1];
        assert_eq!(
            large.best_of(Family::Sockets).unwrap().contestant,
            "1 socket"
        );
        assert_eq!(
            large.busbw(1048.576),
            1.5,
            "a MiB in 1,048.576 us, times 3/2"
        );
    }

    #[test]
    fn the_first_round_is_forgotten_once_there_is_another() {
        let mut cell = results().cells[0].clone();
        cell.settle();
        assert_eq!(cell.rows[0].time_us, [Some(44.0), Some(60.0)]);
        assert_eq!(cell.ping_pong_us, [11.0, 10.0]);
        cell.settle();
        cell.settle();
        assert_eq!(cell.rows[0].rounds(), 1, "the last one stays");
    }

    #[test]
    fn rounds_are_added_with_the_memory_of_the_first() {
        let mut row = Row::new(Contestant::Gloo);
        let spent = |extra, algorithm: Option<&str>| Spent {
            time_ns: 2000.0,
            cpu_ns: Some(1e9),
            extra_bytes: Some(extra),
            wrong: 1,
            algorithm: algorithm.map(Into::into),
        };
        row.add(1 << 30, Some(spent(5, Some("ring"))));
        row.add(1 << 30, None);
        row.add(1 << 30, Some(spent(9, None)));
        assert_eq!(row.time_us, [Some(2.0), None, Some(2.0)]);
        assert_eq!(
            (row.cpu(), row.extra_rss_bytes, row.wrong),
            (Some(1.0), Some(5), 2)
        );
        assert_eq!(row.algorithm.as_deref(), Some("ring"));
    }

    #[test]
    fn saved_results_are_read_back() {
        let results = results();
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        assert!(
            text.contains(r#""world_size":4,"in_place":false,"bytes":4"#),
            "{text}"
        );
    }
}
