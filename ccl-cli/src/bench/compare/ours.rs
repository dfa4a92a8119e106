//! Processes of this library.

use std::net::SocketAddr;

use super::plan::{Cell, Effort};
use super::results::Spent;
use crate::bench::case::{Case, Measured, Step};
use crate::bench::floor::receive_all;
use crate::bench::hosts::Host;
use crate::bench::options::AlgorithmChoice;
use crate::bench::peer::{Joined, Order, Setup};
use crate::bench::report::Repeat;
use crate::bench::start_master_on;
use crate::child::Child;
use crate::failure::{Failure, Result};
use ccl_core::{Dtype, Kind, ReduceOp};

/// A run with a peer on each host.
#[derive(Debug)]
pub struct Ours {
    peers: Vec<Child>,
    joined: Vec<Joined>,
    /// Ended last: without it the peers could not leave.
    _master: Child,
}

impl Ours {
    /// Starts a master on the first host, and the peers.
    pub fn start(hosts: &[Host], congestion_control: Option<&str>) -> Result<Self> {
        let (master, listening) = start_master_on(&hosts[0], RUN)?;
        let mut peers = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let name = format!("bench peer {index}");
            let mut child = Child::spawn_by(&host.launcher, name, &["bench-peer".into()])?;
            child.send(&Setup {
                master: listening.address.to_string(),
                run: RUN.to_owned(),
                world_size: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
                lanes: None,
                checksum: true,
                congestion_control: congestion_control.map(Into::into),
                io_threads: None,
                listen: Some(SocketAddr::new(host.address, 0)),
                advertise: None,
                master_process: (index == 0).then_some(listening.process),
            })?;
            peers.push(child);
        }
        let joined = receive_all(&mut peers)?;
        Ok(Self {
            peers,
            joined,
            _master: master,
        })
    }

    /// Measures an all-reduce.
    pub fn measure(
        &mut self,
        choice: AlgorithmChoice,
        cell: &Cell,
        effort: Effort,
    ) -> Result<Spent> {
        let case = case_of(cell, choice, effort);
        for peer in &mut self.peers {
            peer.send(&Order::Run(case))?;
        }
        let peers: Vec<Measured> = receive_all(&mut self.peers)?;
        Ok(together(peers, &self.joined))
    }

    /// Lets the peers leave.
    pub fn finish(self) -> Result<()> {
        for mut peer in self.peers {
            peer.send(&Order::Leave)?;
            if peer.wait_for(crate::bench::LEAVE_LIMIT)?.is_none() {
                return Err(Failure::new("a bench peer did not leave the run"));
            }
        }
        Ok(())
    }
}

fn together(peers: Vec<Measured>, joined: &[Joined]) -> Spent {
    let extra = peers.iter().zip(joined).map(|(peer, joined)| {
        let resident = joined.resident_bytes;
        peer.extra_rss_bytes.saturating_sub(resident)
    });
    let extra_bytes = extra.max();
    let wrong = peers.iter().filter_map(|peer| peer.wrong).sum();
    let algorithm = peers.first().map(|peer| peer.algorithm.name().to_owned());
    let repeat = Repeat { peers, floor: None };
    Spent {
        time_ns: repeat.time_ns(),
        cpu_ns: repeat.cpu_ns(),
        extra_bytes,
        wrong,
        algorithm,
    }
}

/// The same all-reduce, as the bench knows it.
pub fn case_of(cell: &Cell, choice: AlgorithmChoice, effort: Effort) -> Case {
    Case {
        kind: Kind::AllReduce,
        algorithm: choice.as_requested(),
        dtype: Dtype::F32,
        op: ReduceOp::Sum,
        encoding: None,
        count: cell.count(),
        in_place: cell.in_place,
        warmup: effort.warmup,
        iterations: effort.iterations,
        check: effort.check,
        step: Step::PLAIN,
    }
}

const RUN: &str = "compare";
