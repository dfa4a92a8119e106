//! `ccl bench compare`: this library beside gloo, Open MPI and plain sockets.
//!
//! Everybody does the same all-reduces, one after the other in each round, so that a slow phase of
//! the machine hits all of them. The processes of all contestants stay there from the first round
//! to the last. This side starts them and gives the orders; what they said is put together here.

mod contestant;
mod crew;
mod foreign;
mod markdown;
mod options;
mod ours;
mod plan;
mod plot;
mod results;
mod summary;
mod table;
mod units;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::child::send_line;
use crate::failure::{Context, Result};
use contestant::Contestant;
use crew::Crew;
use plan::{Cell, Effort, Share, order};
use results::{CellResults, Results, Row};

pub use options::Options;

/// Measures, or reads what was measured, and shows it; exit status 1 if an element was wrong.
pub fn run(options: &Options) -> Result<ExitCode> {
    let all = match options.from.is_empty() {
        true => vec![measure(options)?],
        false => options
            .from
            .iter()
            .map(|path| {
                let name = path.to_string_lossy();
                let text = fs::read_to_string(path).context(&name)?;
                serde_json::from_str(&text).context(&name)
            })
            .collect::<Result<_>>()?,
    };
    if let (Some(path), [results]) = (&options.save, all.as_slice()) {
        let text = serde_json::to_string(results).context("saving")?;
        fs::write(path, text + "\n").context(&path.to_string_lossy())?;
    }
    if let Some(path) = &options.svg {
        fs::write(path, plot::plot(&all)).context(&path.to_string_lossy())?;
    }
    if options.json {
        for results in &all {
            send_line(&mut std::io::stdout(), results)?;
        }
    } else if options.markdown {
        println!("{}", markdown::markdown(&all));
    } else {
        println!("{}", table::table(&all));
    }
    let cells = all.iter().flat_map(|results| &results.cells);
    let wrong: u64 = cells.flat_map(|cell| &cell.rows).map(|row| row.wrong).sum();
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn measure(options: &Options) -> Result<Results> {
    options.validate()?;
    let mut results = Results {
        network: options.network.clone(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        versions: Vec::new(),
        missing: Vec::new(),
        cells: Vec::new(),
    };
    let start = Instant::now();
    let worlds = options.worlds();
    for (place, &world_size) in worlds.iter().enumerate() {
        let share = Share::new(options.budget, place, worlds.len(), start.elapsed());
        let mut crew = Crew::start(options, world_size)?;
        let cells = options.cells(world_size);
        let mut world = World {
            rounds: Rounds::new(&cells, &crew.contestants),
            crew: &mut crew,
            start,
        };
        world.measure(share)?;
        results.cells.extend(world.rounds.finish());
        results.versions.extend(crew.versions());
        let missing = crew.missing.iter();
        results
            .missing
            .extend(missing.map(|text| format!("{world_size} peers, {text}")));
        crew.finish()?;
    }
    results.versions.sort();
    results.versions.dedup();
    Ok(results)
}

/// One world, round by round.
struct World<'a> {
    crew: &'a mut Crew,
    rounds: Rounds,
    start: Instant,
}

impl World<'_> {
    /// A round to find out how long calls take, and then as many as the time allows.
    fn measure(&mut self, share: Share) -> Result<()> {
        let cells = self.rounds.cells.len();
        let world_size = self.rounds.cells.first().map_or(0, |it| it.cell.world_size);
        let contestants = self.rounds.contestants.len();
        eprintln!("# {world_size} peers: {cells} cells, {contestants} contestants");
        let mut spent = vec![Duration::ZERO; cells];
        for (index, spent) in spent.iter_mut().enumerate() {
            *spent = self.measure_cell(0, index, Duration::ZERO)?;
        }
        let share = share.divided(self.start.elapsed(), cells * contestants);
        for round in 1.. {
            for (index, spent) in spent.iter_mut().enumerate() {
                if !share.has_time_for(*spent, self.start.elapsed()) {
                    eprintln!("# {world_size} peers: {} rounds", round - 1);
                    return Ok(());
                }
                *spent = self.measure_cell(round, index, share.slice)?;
            }
        }
        Ok(())
    }

    /// All contestants once; how long that took.
    fn measure_cell(&mut self, round: usize, index: usize, slice: Duration) -> Result<Duration> {
        let start = Instant::now();
        let cell = self.rounds.cells[index].cell;
        if cell.is_small() {
            let ping_pong_ns = self.crew.ping_pong(PING_PONGS)?;
            self.rounds.cells[index]
                .ping_pong_us
                .push(ping_pong_ns / 1e3);
        }
        for place in order(round, self.rounds.contestants.len()) {
            let contestant = self.rounds.contestants[place];
            let row = &mut self.rounds.cells[index].rows[place];
            let effort = effort(row, slice);
            let spent = match self.crew.contestants.contains(&contestant) {
                true => self.crew.measure(contestant, &cell, effort)?,
                false => None,
            };
            row.add(cell.bytes, spent);
        }
        Ok(start.elapsed())
    }
}

/// As many calls as fit the slice, by the last time that one was measured.
fn effort(row: &Row, slice: Duration) -> Effort {
    match row.time_us.iter().rev().flatten().next() {
        Some(&call_us) => Effort::for_calls(Duration::from_secs_f64(call_us / 1e6), slice),
        None => Effort::FIRST,
    }
}

/// What was measured in a world so far.
struct Rounds {
    contestants: Vec<Contestant>,
    cells: Vec<CellResults>,
}

impl Rounds {
    fn new(cells: &[Cell], contestants: &[Contestant]) -> Self {
        let rows = || contestants.iter().copied().map(Row::new).collect();
        let empty = |&cell: &Cell| CellResults {
            cell,
            ping_pong_us: Vec::new(),
            rows: rows(),
        };
        Self {
            contestants: contestants.to_vec(),
            cells: cells.iter().map(empty).collect(),
        }
    }

    fn finish(mut self) -> Vec<CellResults> {
        self.cells.iter_mut().for_each(CellResults::settle);
        // As people read them: one form after the other.
        self.cells.sort_unstable_by_key(|results| results.cell);
        self.cells
    }
}

/// Round trips of 4 bytes in one round, after as many that are not timed.
const PING_PONGS: u32 = 20;
