//! What plain sockets need for the bytes of a collective: the yardstick beside it.
//!
//! As many processes as the world has peers exchange, pair by pair, exactly the bytes that the
//! collective moves between the two, over 1, 2 or 4 blocking connections per pair: 1 MiB writes
//! from touched memory, and one f32 addition for each received element into touched memory. There
//! are no checksums, no credits and no verdicts. They can also measure a ping-pong of 4 bytes, the
//! shortest way there and back. This side starts the processes and gives the orders.

pub mod peer;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::hosts::Host;
use crate::child::Child;
use crate::failure::{Failure, Result};

/// Numbers of connections a pair that are tried.
pub const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// What a floor process is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Its place among the others.
    pub index: usize,
    /// How many there are.
    pub world_size: usize,
    /// Where it listens, on a port of its choice.
    pub address: std::net::IpAddr,
    /// Whether all of them are on one host.
    pub is_one_host: bool,
    /// Congestion control of its connections; `None` picks as the lanes do.
    pub congestion_control: Option<String>,
}

/// What it is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Move the bytes of a collective.
    Exchange(Exchange),
    /// Send 4 bytes from the first process to the last and back.
    PingPong {
        /// Iterations before the clock starts.
        warmup: u32,
        /// Iterations that are timed, at least 1.
        iterations: u32,
    },
}

/// The exchange that it is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// Bytes to send to each of the others in one iteration, by place; a multiple of 4.
    pub send_bytes: Vec<u64>,
    /// Bytes that each of the others sends.
    pub receive_bytes: Vec<u64>,
    /// Connections a pair.
    pub connections: usize,
    /// Iterations before the clock starts.
    pub warmup: u32,
    /// Iterations that are timed.
    pub iterations: u32,
}

/// What it measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// The timed iterations together, in nanoseconds.
    pub batch_ns: u64,
    /// User and system time of the process meanwhile, in nanoseconds.
    pub cpu_ns: u64,
}

/// All processes together, a iteration: the slowest one's time, everybody's processor time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Nanoseconds an iteration.
    pub time_ns: f64,
    /// Nanoseconds of processor time an iteration.
    pub cpu_ns: f64,
}

/// The processes of a floor.
#[derive(Debug)]
pub struct Floor {
    children: Vec<Child>,
}

impl Floor {
    /// Starts and connects as many processes as the world has peers.
    pub fn start(world_size: u32, congestion_control: Option<&str>) -> Result<Self> {
        let hosts = vec![Host::here(); world_size as usize];
        Self::start_on(&hosts, congestion_control)
    }

    /// Starts and connects a process on each of the hosts, of which one may be named often.
    pub fn start_on(hosts: &[Host], congestion_control: Option<&str>) -> Result<Self> {
        let mut children = Vec::with_capacity(hosts.len());
        for (index, host) in hosts.iter().enumerate() {
            let name = format!("floor process {index}");
            let mut child = Child::spawn_by(&host.launcher, name, &["floor-peer".into()])?;
            child.send(&Setup {
                index,
                world_size: hosts.len(),
                address: host.address,
                is_one_host: hosts.iter().all(|other| other.address == host.address),
                congestion_control: congestion_control.map(Into::into),
            })?;
            children.push(child);
        }
        let addresses = receive_all::<SocketAddr>(&mut children)?;
        for child in &mut children {
            child.send(&addresses)?;
        }
        receive_all::<()>(&mut children)?;
        Ok(Self { children })
    }

    /// Moves the bytes of `case`; `None` for a collective that has no floor, or nothing to move.
    pub fn measure(&mut self, case: &Case, connections: usize) -> Result<Option<Cost>> {
        let world_size = self.children.len();
        let orders: Option<Vec<Exchange>> = (0..world_size)
            .map(|index| order_for(case, index, world_size, connections))
            .collect();
        orders.map(|orders| self.exchange(&orders)).transpose()
    }

    /// 4 bytes from the first process to the last and back; the time of the first.
    pub fn ping_pong(&mut self, iterations: u32) -> Result<Cost> {
        let warmup = iterations;
        let order = Order::PingPong { warmup, iterations };
        for child in &mut self.children {
            child.send(&order)?;
        }
        let spent: Vec<Spent> = receive_all(&mut self.children)?;
        let first = spent.first().map_or(0, |spent| spent.batch_ns);
        let cpu: u64 = spent.iter().map(|spent| spent.cpu_ns).sum();
        Ok(Cost {
            time_ns: first as f64 / f64::from(iterations),
            cpu_ns: cpu as f64 / f64::from(iterations),
        })
    }

    /// Moves so many bytes, at least one element, from the first process to the second, once.
    pub fn measure_transfer(&mut self, bytes: u64, connections: usize) -> Result<Cost> {
        let orders: Vec<Exchange> = (0..self.children.len())
            .map(|index| {
                let towards = |sender: usize| {
                    let mut moved = vec![0; self.children.len()];
                    if index == sender {
                        moved[1 - sender] = bytes / ELEMENT_BYTES * ELEMENT_BYTES;
                    }
                    moved
                };
                Exchange {
                    send_bytes: towards(0),
                    receive_bytes: towards(1),
                    connections,
                    warmup: 1,
                    iterations: 1,
                }
            })
            .collect();
        self.exchange(&orders)
    }

    /// Gives each process its order.
    fn exchange(&mut self, orders: &[Exchange]) -> Result<Cost> {
        for (child, order) in self.children.iter_mut().zip(orders) {
            child.send(&Order::Exchange(order.clone()))?;
        }
        let spent: Vec<Spent> = receive_all(&mut self.children)?;
        let iterations = orders.first().map_or(1, |order| order.iterations);
        let slowest = spent.iter().map(|spent| spent.batch_ns).max().unwrap_or(0);
        let cpu: u64 = spent.iter().map(|spent| spent.cpu_ns).sum();
        Ok(Cost {
            time_ns: slowest as f64 / f64::from(iterations),
            cpu_ns: cpu as f64 / f64::from(iterations),
        })
    }
}

/// Takes one answer of each child; the first failure is the one told.
pub fn receive_all<T: serde::de::DeserializeOwned>(children: &mut [Child]) -> Result<Vec<T>> {
    children.iter_mut().map(Child::receive_answer).collect()
}

fn order_for(case: &Case, index: usize, world_size: usize, connections: usize) -> Option<Exchange> {
    let between = |from: usize, to: usize| -> Option<u64> {
        if from == to {
            return Some(0);
        }
        let bytes = case.bytes_between(u32::try_from(from).ok()?, u32::try_from(to).ok()?, {
            u32::try_from(world_size).ok()?
        })?;
        Some(bytes / ELEMENT_BYTES * ELEMENT_BYTES)
    };
    let send_bytes: Vec<u64> = (0..world_size)
        .map(|other| between(index, other))
        .collect::<Option<_>>()?;
    let receive_bytes: Vec<u64> = (0..world_size)
        .map(|other| between(other, index))
        .collect::<Option<_>>()?;
    let is_idle = send_bytes
        .iter()
        .chain(&receive_bytes)
        .all(|&bytes| bytes == 0);
    (!is_idle).then_some(Exchange {
        send_bytes,
        receive_bytes,
        connections,
        warmup: case.warmup.max(1),
        iterations: case.iterations,
    })
}

/// The floor adds f32, whatever the collective's elements are.
const ELEMENT_BYTES: u64 = 4;

/// Checks that an order fits a process; it comes from a parent of the same build.
fn validate(order: &Exchange, setup: &Setup) -> Result<()> {
    let fits = order.send_bytes.len() == setup.world_size
        && order.receive_bytes.len() == setup.world_size
        && CONNECTIONS.contains(&order.connections)
        && order.iterations > 0;
    if fits {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "an order that does not fit: of {} for {} peers",
            order.iterations,
            order.receive_bytes.len()
        )))
    }
}
