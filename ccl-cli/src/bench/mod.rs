//! `ccl bench`: measures and checks collectives the way nccl-tests does, kernels, hashing, and
//! syncs of shared state.
//!
//! This side parses the command, starts the processes, gives the same orders to all of them and
//! prints what they measured. The peers know each other only through the library.

mod case;
mod compare;
pub mod floor;
mod hash;
mod hosts;
mod inputs;
mod kernels;
mod options;
pub mod peer;
mod reference;
mod report;
mod sizes;
pub mod state;

use std::net::SocketAddr;
use std::process::ExitCode;

use ccl_core::Kind;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::child::{Child, send_line};
use crate::failure::{Failure, Result};
use case::{Case, Measured};
use floor::{CONNECTIONS, Cost, Floor, receive_all};
use hosts::Host;
use options::{CollectiveOptions, FloorOptions};
use peer::{Joined, Order};
use report::{HEADER, Line, Repeat, has_floor, seconds_per_gib};

pub use report::{median, round};

/// Options of `ccl bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every peer gets the reduction of all buffers.
    AllReduce(CollectiveOptions),
    /// Every peer gets the shares of all peers.
    AllGather(CollectiveOptions),
    /// Every peer gets its share of the reduction.
    ReduceScatter(CollectiveOptions),
    /// Every peer gets the buffer of rank 0.
    Broadcast(CollectiveOptions),
    /// Every peer waits for all others.
    Barrier(CollectiveOptions),
    /// Plain blocking sockets moving the bytes of an all-reduce, with one addition each.
    Floor(FloorOptions),
    /// All algorithms of the library beside gloo, Open MPI and plain sockets, round by round.
    Compare(compare::Options),
    /// Digests of shared state, compared with copies of the same bytes.
    Hash(hash::HashOptions),
    /// Codecs, perturbations and updates, compared with copies of the same numbers.
    Kernels(kernels::KernelsOptions),
    /// A newcomer that gets shared state from several sources.
    SharedState(state::StateOptions),
}

/// Runs a bench; exit status 1 if an element was wrong.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.what {
        What::AllReduce(options) => run_collective(Kind::AllReduce, &options),
        What::AllGather(options) => run_collective(Kind::AllGather, &options),
        What::ReduceScatter(options) => run_collective(Kind::ReduceScatter, &options),
        What::Broadcast(options) => run_collective(Kind::Broadcast, &options),
        What::Barrier(options) => run_collective(Kind::Barrier, &options),
        What::Floor(options) => run_floor(&options),
        What::Compare(options) => compare::run(&options),
        What::Hash(options) => hash::run(&options),
        What::Kernels(options) => kernels::run(&options),
        What::SharedState(options) => state::run(&options),
    }
}

fn run_collective(kind: Kind, options: &CollectiveOptions) -> Result<ExitCode> {
    options.validate()?;
    let cases = options.cases(kind);
    let mut processes = Processes::start(kind, options)?;
    if !options.json {
        println!("# {}", options.describe(kind));
        println!("{HEADER}");
    }
    let mut wrong = 0;
    for case in &cases {
        let last = options.repeats() - 1;
        let repeats: Vec<Repeat> = (0..=last)
            .map(|repeat| {
                // A check takes longer than the call; those between the first and last are spared.
                let check = case.check && (repeat == 0 || repeat == last);
                processes.repeat(&Case { check, ..*case })
            })
            .collect::<Result<_>>()?;
        let line = Line::new(options.session(), case, &repeats);
        wrong += line.wrong();
        if options.json {
            send_line(&mut std::io::stdout(), &line)?;
        } else {
            println!("{}", line.to_text());
        }
    }
    if !options.json {
        println!("# {} lines, {wrong} elements wrong", cases.len());
    }
    processes.finish()?;
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything that a bench has started.
struct Processes {
    peers: Vec<Child>,
    floor: Option<Floor>,
    /// Ended last: without it the peers could not leave.
    master: Option<Child>,
}

impl Processes {
    fn start(kind: Kind, options: &CollectiveOptions) -> Result<Self> {
        let (master, address) = match &options.master {
            Some(address) => (None, address.clone()),
            None => start_master(&options.run)
                .map(|(child, address)| (Some(child), address.to_string()))?,
        };
        let mut peers = Vec::new();
        for index in 0..options.local_peers() {
            let mut child = Child::spawn(format!("bench peer {index}"), &["bench-peer".into()])?;
            let master_process = master.as_ref().filter(|_| index == 0).map(Child::pid);
            child.send(&options.setup(&address, master_process))?;
            peers.push(child);
        }
        let joined: Vec<Joined> = receive_all(&mut peers)?;
        if options.verbose {
            eprintln!(
                "# master: {address}{}",
                master.as_ref().map_or(String::new(), |master| format!(
                    ", process {}",
                    master.pid()
                ))
            );
            for (index, (peer, Joined { address, .. })) in peers.iter().zip(&joined).enumerate() {
                eprintln!("# peer {index}: {address}, process {}", peer.pid());
            }
        }
        let wants_floor = options.floor && has_floor(kind) && options.world > 1;
        let floor = wants_floor
            .then(|| Floor::start(options.world, options.congestion_control.as_deref()))
            .transpose()?;
        Ok(Self {
            peers,
            floor,
            master,
        })
    }

    /// The collective, then the floor with each number of connections.
    fn repeat(&mut self, case: &Case) -> Result<Repeat> {
        for peer in &mut self.peers {
            peer.send(&Order::Run(*case))?;
        }
        let peers: Vec<Measured> = receive_all(&mut self.peers)?;
        let floor = match &mut self.floor {
            Some(floor) => measure_floor(floor, case)?,
            None => None,
        };
        Ok(Repeat { peers, floor })
    }

    /// Lets the peers leave one after the other, then stops the master.
    fn finish(self) -> Result<()> {
        drop(self.floor);
        for mut peer in self.peers {
            peer.send(&Order::Leave)?;
            match peer.wait_for(LEAVE_LIMIT)? {
                Some(status) if status.success() => {}
                Some(status) => {
                    return Err(Failure::new(format!("a bench peer ended with {status}")));
                }
                None => return Err(Failure::new("a bench peer did not leave the run")),
            }
        }
        drop(self.master);
        Ok(())
    }
}

fn measure_floor(floor: &mut Floor, case: &Case) -> Result<Option<[Cost; CONNECTIONS.len()]>> {
    let mut costs = [Cost {
        time_ns: 0.0,
        cpu_ns: 0.0,
    }; CONNECTIONS.len()];
    for (cost, connections) in costs.iter_mut().zip(CONNECTIONS) {
        match floor.measure(case, connections)? {
            Some(measured) => *cost = measured,
            None => return Ok(None),
        }
    }
    Ok(Some(costs))
}

/// A master of a run of its own on a free port of this host.
pub fn start_master(run: &str) -> Result<(Child, SocketAddr)> {
    let (child, listening) = start_master_on(&Host::here(), run)?;
    Ok((child, listening.address))
}

/// A master of a run of its own on a free port of a host.
pub fn start_master_on(host: &Host, run: &str) -> Result<(Child, Listening)> {
    let listen = SocketAddr::new(host.address, 0).to_string();
    let mut arguments = vec!["master".to_owned()];
    for text in [
        "--listen",
        &listen,
        "--json",
        "--new-run",
        "--exit-with-parent",
        "--run",
        run,
    ] {
        arguments.push(text.to_owned());
    }
    let mut child = Child::spawn_by(&host.launcher, "the master", &arguments)?;
    let listening = child.receive()?;
    Ok((child, listening))
}

/// The master's first line.
#[derive(Debug, serde::Deserialize)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process number.
    pub process: u32,
}

fn run_floor(options: &FloorOptions) -> Result<ExitCode> {
    options.validate()?;
    let mut floor = Floor::start(options.world, options.congestion_control.as_deref())?;
    if !options.json {
        println!("#      bytes connections    time (us)   busbw (GB/s)   cpu (s/GiB)");
    }
    for case in options.cases() {
        let mut repeats = Vec::new();
        for _ in 0..options.repeat {
            repeats.extend(measure_floor(&mut floor, &case)?);
        }
        for (place, connections) in CONNECTIONS.into_iter().enumerate() {
            let time_ns = median(repeats.iter().map(|costs| costs[place].time_ns));
            let cpu_ns = median(repeats.iter().map(|costs| costs[place].cpu_ns));
            let (Some(time_ns), Some(cpu_ns)) = (time_ns, cpu_ns) else {
                continue;
            };
            print_floor(options, &case, connections, Cost { time_ns, cpu_ns })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_floor(options: &FloorOptions, case: &Case, connections: usize, cost: Cost) -> Result<()> {
    let bytes = case.bytes();
    let busbw = bytes as f64 / cost.time_ns * case.bus_factor(options.world);
    let cpu = seconds_per_gib(cost.cpu_ns, bytes).unwrap_or(0.0);
    if options.json {
        let line = json!({
            "collective": "floor", "connections": connections, "transport": "tcp",
            "world_size": options.world, "bytes": bytes, "time_us": round(cost.time_ns / 1e3),
            "busbw_gb_s": round(busbw), "cpu_s_per_gib": cpu, "repeats": options.repeat,
        });
        return send_line(&mut std::io::stdout(), &line);
    }
    let time_us = cost.time_ns / 1e3;
    println!("{bytes:>12} {connections:>11} {time_us:>12.1} {busbw:>14.3} {cpu:>13.3}");
    Ok(())
}

/// How long a peer may take to leave.
const LEAVE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
