//! All processes of one world, and who of the contestants is there.

use super::contestant::{Contestant, Family};
use super::foreign::{Foreign, Place};
use super::options::Options;
use super::ours::{Ours, case_of};
use super::plan::{Cell, Effort};
use super::results::Spent;
use crate::bench::floor::{Cost, Floor};
use crate::bench::options::AlgorithmChoice;
use crate::failure::{Failure, Result};

/// The processes of a world.
#[derive(Debug)]
pub struct Crew {
    /// Who is there.
    pub contestants: Vec<Contestant>,
    ours: Option<Ours>,
    gloo: Option<Foreign>,
    mpi: Option<Foreign>,
    floor: Floor,
    /// Who is not, and why.
    pub missing: Vec<String>,
}

impl Crew {
    /// Starts the processes. Only this library must be there.
    pub fn start(options: &Options, world_size: u32) -> Result<Self> {
        let hosts = options.hosts(world_size)?;
        let congestion_control = options.congestion_control.as_deref();
        let families = &options.contestants;
        let place = Place {
            hosts: &hosts,
            folder: &options.peers,
            is_verbose: options.verbose,
        };
        let wants = |family| families.contains(&family);
        let ours = wants(Family::Ccl).then(|| Ours::start(&hosts, congestion_control));
        let mut crew = Self {
            contestants: Contestant::of(families),
            ours: ours.transpose()?,
            gloo: None,
            mpi: None,
            floor: Floor::start_on(&hosts, congestion_control)?,
            missing: Vec::new(),
        };
        if wants(Family::Gloo) {
            crew.gloo = crew.present(Contestant::Gloo, Foreign::start_gloo(place));
        }
        if wants(Family::Mpi) {
            crew.mpi = crew.present(Contestant::Mpi, Foreign::start_mpi(place));
        }
        Ok(crew)
    }

    fn present<T>(&mut self, contestant: Contestant, started: Result<T>) -> Option<T> {
        started
            .map_err(|failure| self.dismiss(contestant, &failure))
            .ok()
    }

    /// Goes on without this one.
    fn dismiss(&mut self, contestant: Contestant, failure: &Failure) {
        let words = format!("{}: {failure}", contestant.name());
        self.missing.push(words);
        self.contestants.retain(|&other| other != contestant);
        match contestant {
            Contestant::Gloo => self.gloo = None,
            Contestant::Mpi => self.mpi = None,
            Contestant::Ccl(_) | Contestant::Sockets(_) => {}
        }
    }

    /// What the other libraries are, with their versions.
    pub fn versions(&self) -> Vec<String> {
        let all = self.gloo.iter().chain(&self.mpi);
        all.map(|foreign| foreign.version.clone()).collect()
    }

    /// One contestant, one cell. `None`: not there, failed, or nothing to do. Only a failure of
    /// this library is one of the comparison.
    pub fn measure(
        &mut self,
        contestant: Contestant,
        cell: &Cell,
        effort: Effort,
    ) -> Result<Option<Spent>> {
        let spent = match contestant {
            Contestant::Ccl(choice) => {
                let ours = self.ours.as_mut();
                return ours
                    .map(|ours| ours.measure(choice, cell, effort))
                    .transpose();
            }
            Contestant::Sockets(connections) => {
                let case = case_of(cell, AlgorithmChoice::Auto, effort);
                let cost = self.floor.measure(&case, connections)?;
                return Ok(cost.map(as_spent));
            }
            Contestant::Gloo => self.gloo.as_mut().map(|it| it.measure(cell, effort)),
            Contestant::Mpi => self.mpi.as_mut().map(|it| it.measure(cell, effort)),
        };
        Ok(spent.and_then(|spent| self.present(contestant, spent)))
    }

    /// 4 bytes from the first process to the last and back, in nanoseconds.
    pub fn ping_pong(&mut self, iterations: u32) -> Result<f64> {
        self.floor.ping_pong(iterations).map(|cost| cost.time_ns)
    }

    /// Ends all processes.
    pub fn finish(self) -> Result<()> {
        for foreign in self.gloo.into_iter().chain(self.mpi) {
            foreign.finish()?;
        }
        self.ours.map_or(Ok(()), Ours::finish)
    }
}

fn as_spent(cost: Cost) -> Spent {
    Spent {
        time_ns: cost.time_ns,
        cpu_ns: Some(cost.cpu_ns),
        extra_bytes: None,
        wrong: 0,
        algorithm: None,
    }
}
