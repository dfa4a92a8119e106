//! One peer of a benchmark: a process that runs the given cases and reports its measurements.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use ccl_core::{Communicator, CommunicatorConfig, Kind, Options, Rank};
use serde::{Deserialize, Serialize};

use super::case::{Case, Measured};
use super::inputs::{Sample, Seed, fill, with_type};
use super::reference::Reference;
use crate::child::{Answer, orders, receive_line, send_line};
use crate::failure::{Context, Failure, Result};
use crate::measure::{cpu_ns_of, own_cpu_ns, peak_rss_bytes, reset_peak_rss, resident_bytes};

/// What a peer is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The master's `host:port`.
    pub master: String,
    /// Name of the run.
    pub run: String,
    /// Members that the run is to have.
    pub world_size: u32,
    /// Data connections of each link; as the library chooses if nothing is said.
    pub lanes: Option<u16>,
    /// Whether data carries a checksum.
    pub checksum: bool,
    /// Congestion control of the lanes.
    pub congestion_control: Option<String>,
    /// Threads that move bytes.
    pub io_threads: Option<usize>,
    /// Where to listen for other peers.
    pub listen: Option<std::net::SocketAddr>,
    /// What to tell the others instead.
    pub advertise: Option<String>,
    /// Process number of the master, for the one peer that is to measure it.
    pub master_process: Option<u32>,
}

impl Setup {
    fn config(&self) -> CommunicatorConfig {
        CommunicatorConfig {
            master: self.master.clone(),
            run: self.run.clone(),
            listen: self.listen,
            advertise: self.advertise.clone(),
            lanes: self.lanes,
            min_world_size: self.world_size,
            checksum: self.checksum,
            io_threads: self.io_threads,
            congestion_control: self.congestion_control.clone(),
            ..CommunicatorConfig::default()
        }
    }
}

/// What a peer is told then.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Measure this case.
    Run(Case),
    /// Leave the run and end.
    Leave,
}

/// What a peer says when it is in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Where other peers reach it.
    pub address: std::net::SocketAddr,
    /// Resident memory before the first call, in bytes.
    pub resident_bytes: u64,
}

/// Serves the parent's orders until it is told to leave the run.
pub fn run() -> Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let setup: Setup =
        receive_line(&mut std::io::stdin().lock())?.ok_or_else(|| Failure::new("no setup"))?;
    let orders = orders();
    let communicator = match Communicator::connect(setup.config()) {
        Ok(communicator) => communicator,
        Err(error) => {
            send_line(&mut output, &Answer::<()>::Err(error.to_string()))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let address = communicator.listen_address();
    let joined = Joined {
        address,
        resident_bytes: resident_bytes()?,
    };
    send_line(&mut output, &Answer::Ok(joined))?;
    for order in orders {
        let case = match order? {
            Order::Run(case) => case,
            Order::Leave => break,
        };
        let answer: Answer<Measured> =
            with_type!(case.dtype, T => measure::<T>(&communicator, &setup, &case))
                .map_err(|failure| failure.to_string());
        send_line(&mut output, &answer)?;
    }
    communicator.leave()?;
    Ok(ExitCode::SUCCESS)
}

fn measure<T: Sample>(communicator: &Communicator, setup: &Setup, case: &Case) -> Result<Measured> {
    let mut bench = Bench::<T>::new(communicator, case)?;
    let counters = communicator.counters();
    reset_peak_rss()?;
    bench.fill(FIRST);
    bench.wait()?;
    let start = Instant::now();
    bench.call()?;
    let first_ns = nanoseconds_since(start)?;
    let first_peak_bytes = peak_rss_bytes()?;
    let first_wrong = bench.count_wrong();
    for _ in 1..case.warmup {
        bench.call()?;
    }
    bench.fill(TIMED);
    reset_peak_rss()?;
    communicator.barrier(&Options::default())?;
    let (iteration_ns, spent) = bench.time(setup)?;
    let peak_bytes = peak_rss_bytes()?.max(first_peak_bytes);
    let last_wrong = bench.check_last()?;
    let error = bench.error();
    let counters_at_end = communicator.counters();
    Ok(Measured {
        world_size: bench.reference.world_size(),
        algorithm: bench.reference.algorithm(),
        batch_ns: iteration_ns.iter().sum(),
        first_ns,
        iteration_ns,
        cpu_ns: spent.own_ns,
        master_cpu_ns: spent.master_ns,
        extra_rss_bytes: peak_bytes.saturating_sub(bench.buffer_bytes()),
        wrong: case.check.then_some(first_wrong + last_wrong),
        error,
        aborts: counters_at_end.aborts - counters.aborts,
        repairs: counters_at_end.repairs - counters.repairs,
        lanes: counters_at_end.lanes,
        links: communicator.links().into_iter().map(Into::into).collect(),
    })
}

/// Processor time.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    own_ns: u64,
    master_ns: Option<u64>,
}

impl Cpu {
    fn read(setup: &Setup) -> Result<Self> {
        let master_ns = setup.master_process.map(cpu_ns_of).transpose()?;
        Ok(Self {
            own_ns: own_cpu_ns()?,
            master_ns,
        })
    }

    fn since(self, start: Self) -> Self {
        Self {
            own_ns: self.own_ns.saturating_sub(start.own_ns),
            master_ns: self
                .master_ns
                .zip(start.master_ns)
                .map(|(end, start)| end.saturating_sub(start)),
        }
    }
}

/// A case with its memory.
struct Bench<'a, T> {
    communicator: &'a Communicator,
    case: &'a Case,
    options: Options,
    reference: Reference,
    /// What the buffers were filled with last.
    seed: Seed,
    /// What this peer contributes; in place, the result as well.
    send: Vec<T>,
    /// The result out of place, else empty.
    receive: Vec<T>,
}

impl<'a, T: Sample> Bench<'a, T> {
    fn new(communicator: &'a Communicator, case: &'a Case) -> Result<Self> {
        let reference = Reference::new(case, &communicator.view(), communicator.rank())?;
        let share = case.count / reference.world_size() as usize;
        let (send, receive) = match case.kind {
            Kind::AllReduce if case.in_place => (case.count, 0),
            Kind::AllReduce => (case.count, case.count),
            Kind::AllGather => (share, case.count),
            Kind::ReduceScatter => (case.count, share),
            Kind::Broadcast => (case.count, 0),
            Kind::Barrier | Kind::SharedState => (0, 0),
        };
        Ok(Self {
            communicator,
            case,
            options: Options {
                algorithm: case.algorithm,
                encoding: case.encoding,
                ..Options::default()
            },
            reference,
            seed: POISON,
            send: touched(send),
            receive: touched(receive),
        })
    }

    fn buffer_bytes(&self) -> u64 {
        ((self.send.len() + self.receive.len()) * size_of::<T>()) as u64
    }

    fn is_in_place(&self) -> bool {
        self.receive.is_empty()
    }

    /// Writes this rank's input, and something else where the result goes.
    fn fill(&mut self, seed: Seed) {
        self.seed = seed.finite(self.case.encoding.is_some());
        fill(&mut self.send, self.seed, self.reference.rank(), 0);
        fill(&mut self.receive, POISON, self.reference.rank(), 0);
    }

    fn call(&mut self) -> Result<()> {
        let (communicator, options, op) = (self.communicator, &self.options, self.case.op);
        let (send, receive) = (&mut self.send, &mut self.receive);
        let outcome = match self.case.kind {
            Kind::AllReduce if self.case.in_place => communicator.all_reduce(send, op, options),
            Kind::AllReduce => communicator.all_reduce_into(send, receive, op, options),
            Kind::AllGather => communicator.all_gather(send, receive, options),
            Kind::ReduceScatter => communicator.reduce_scatter(send, receive, op, options),
            Kind::Broadcast => communicator.broadcast(send, Rank(0), options),
            Kind::Barrier | Kind::SharedState => communicator.barrier(options),
        }?;
        let contributors = outcome.contributors.len();
        if contributors == self.reference.world_size() as usize {
            Ok(())
        } else {
            Err(Failure::new(format!(
                "the result has contributions from only {contributors} peers"
            )))
        }
    }

    /// The silence before a call.
    fn wait(&self) -> Result<()> {
        thread::sleep(self.case.step.pause);
        self.communicator.barrier(&Options::default())?;
        Ok(())
    }

    /// The timed calls, one after the other.
    fn time(&mut self, setup: &Setup) -> Result<(Vec<u64>, Cpu)> {
        let mut iteration_ns = Vec::with_capacity(self.case.iterations as usize);
        let before = Cpu::read(setup)?;
        let step = self.case.step;
        for _ in 0..self.case.iterations {
            if !step.pause.is_zero() {
                self.wait()?;
            }
            let start = Instant::now();
            self.call()?;
            if step.is_safe_point {
                self.communicator.update_topology()?;
            }
            iteration_ns.push(nanoseconds_since(start)?);
        }
        Ok((iteration_ns, Cpu::read(setup)?.since(before)))
    }

    fn result(&self) -> &[T] {
        if self.is_in_place() {
            &self.send
        } else {
            &self.receive
        }
    }

    fn count_wrong(&self) -> u64 {
        if !self.case.check {
            return 0;
        }
        self.reference.count_wrong(self.result(), self.seed)
    }

    /// Relative error of the result that was checked last, if it was encoded.
    fn error(&self) -> Option<f64> {
        let is_encoded = self.case.check && self.case.encoding.is_some();
        is_encoded.then(|| self.reference.error(self.result(), self.seed))
    }

    /// Compares the last timed call with the reference. In place its input is the result of the
    /// call before, so one more call is made with a fresh one.
    fn check_last(&mut self) -> Result<u64> {
        if self.is_in_place() && self.case.check {
            self.fill(LAST);
            self.call()?;
        }
        Ok(self.count_wrong())
    }
}

fn nanoseconds_since(start: Instant) -> Result<u64> {
    u64::try_from(start.elapsed().as_nanos()).context("time")
}

/// Memory that the system has given for real.
fn touched<T: Sample>(length: usize) -> Vec<T> {
    let mut buffer = vec![T::default(); length];
    fill(&mut buffer, POISON, 0, 0);
    buffer
}

/// Inputs of the first call, which is not timed.
const FIRST: Seed = Seed::new(1);
/// Inputs of the timed calls.
const TIMED: Seed = Seed::new(2);
/// Inputs of the last call in place.
const LAST: Seed = Seed::new(3);
/// What is where a result is to come; a result that was not written is wrong.
const POISON: Seed = Seed::new(4);
