//! Goal: despite faults of bytes, lanes and order, engines over links in memory end with the
//! documented bytes in the caller's memory, or leave that memory unchanged. One seed is one
//! history.
//!
//! 1. Peers call the same operations, each in its own order and at any time.
//! 2. Some operations are stopped everywhere at a random moment, as by an abort.
//! 3. Operations that all peers hold are committed. In the end no event is left, and all have
//!    ended.

use std::collections::BTreeMap;

use super::tests::{buffers, snapshots};
use super::*;
use crate::collective::harness::{Call, Prng, peer, reference};
use crate::ids::{LinkKey, RunId};
use crate::limits::SCRATCH_BYTES_DEFAULT;
use crate::peer::Neighbour;
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::mem::{Faults, MemLinks, MemNetwork};
use crate::transport::{Identity, Links};
use crate::wire::control::{Algorithm, CostTable, Kind};

/// One peer.
struct Node {
    engine: Arc<Engine>,
    /// The remaining calls, in this peer's order.
    to_call: Vec<usize>,
    /// The lent memory of each operation, and its input.
    open: BTreeMap<usize, Vec<Buffer>>,
}

struct World {
    network: MemNetwork,
    prng: Prng,
    calls: Vec<Call>,
    nodes: Vec<Node>,
    /// Which peers hold which operation.
    held: Arc<Mutex<Vec<(usize, OpName)>>>,
    copies: Arc<Mutex<Vec<(usize, LargeCopy)>>>,
    committed: usize,
    stopped: Vec<usize>,
}

fn random_call(prng: &mut Prng, world_size: usize, tag: u64) -> Call {
    let dtypes = [Dtype::F32, Dtype::Bf16, Dtype::I8, Dtype::F64];
    let counts = [0, 1, 1000, 16_385, 40_001, 150_000];
    let dtype = dtypes[prng.below(dtypes.len())];
    let count = counts[prng.below(counts.len())];
    let mut call = Call::all_reduce(world_size, dtype, count);
    let kinds = [
        Kind::AllReduce,
        Kind::AllReduce,
        Kind::ReduceScatter,
        Kind::AllGather,
        Kind::Broadcast,
        Kind::Barrier,
    ];
    call.kind = kinds[prng.below(kinds.len())];
    if call.kind == Kind::Barrier {
        call.parts.clear();
    }
    if call.kind == Kind::AllReduce {
        let algorithms = [Algorithm::Ring, Algorithm::TwoShot, Algorithm::OneShot];
        call.algorithm = algorithms[prng.below(algorithms.len())];
    }
    if prng.below(2) == 0 {
        call.costs = CostTable::default();
    }
    call.op = [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Max][prng.below(3)];
    call.root = prng.below(world_size) as u32;
    call.tag = tag;
    let is_reduction = matches!(call.kind, Kind::AllReduce | Kind::ReduceScatter);
    if is_reduction && !dtype.is_integer() && call.op != ReduceOp::Max {
        let encodings = Call::encodings(dtype);
        call.encoding = encodings[prng.below(encodings.len())];
        if prng.below(2) == 0 {
            call.weights = (0..world_size).map(|_| prng.below(3) as u32).collect();
        }
    }
    call
}

impl World {
    fn new(seed: u64) -> Self {
        let mut prng = Prng(seed);
        let rates = [0, 0, 40, 7];
        let faults = Faults {
            breaks: rates[prng.below(rates.len())],
            damage: rates[prng.below(rates.len())],
        };
        let network = MemNetwork::new(seed, faults);
        let world_size = 2 + prng.below(3);
        let lanes = 1 + prng.below(4) as u16;
        let calls: Vec<Call> = (0..2 + prng.below(4) as u64)
            .map(|tag| random_call(&mut prng, world_size, tag))
            .collect();
        let mut world = Self {
            network,
            prng,
            calls,
            nodes: Vec::new(),
            held: Arc::default(),
            copies: Arc::default(),
            committed: 0,
            stopped: Vec::new(),
        };
        let links: Vec<MemLinks> = (0..world_size)
            .map(|_| world.network.links(lanes))
            .collect();
        for at in 0..world_size {
            world.enter(at, &links);
        }
        world
    }

    fn enter(&mut self, at: usize, links: &[MemLinks]) {
        let (held, copies) = (Arc::clone(&self.held), Arc::clone(&self.copies));
        let events = Box::new(move |event| match event {
            EngineEvent::Held(op) => held.lock().push((at, op)),
            EngineEvent::LargeCopy(copy) => copies.lock().push((at, copy)),
            EngineEvent::LinkUp(_) | EngineEvent::LaneRepaired { .. } => {}
            other => panic!("{other:?}"),
        });
        let scratch = Scratch::new(SCRATCH_BYTES_DEFAULT).unwrap();
        let engine = Arc::new(Engine::new(scratch, Arc::new(links[at].clone()), events));
        let key = |at: usize| LinkKey(at as u128);
        let identity = Identity {
            run: RunId(1),
            peer: peer(at),
            key: key(at),
            link_timeout: std::time::Duration::from_secs(1),
        };
        links[at].identify(identity, engine.clone());
        let neighbour = |other: usize| Neighbour {
            addresses: vec![links[other].address()],
            key: key(other),
            dial: at > other,
        };
        let others = (0..links.len()).filter(|other| *other != at);
        let wanted = others.map(|other| (peer(other), neighbour(other)));
        links[at].set_wanted(&wanted.collect());
        let mut to_call: Vec<usize> = (0..self.calls.len()).collect();
        for index in (1..to_call.len()).rev() {
            to_call.swap(index, self.prng.below(index + 1));
        }
        self.nodes.push(Node {
            engine,
            to_call,
            open: BTreeMap::new(),
        });
    }

    /// Makes the next call of one peer.
    fn call(&mut self, at: usize) {
        let Some(index) = self.nodes[at].to_call.pop() else {
            return;
        };
        if self.stopped.contains(&index) {
            return;
        }
        let call = &self.calls[index];
        let lent = buffers(
            call,
            at,
            call.tag.is_multiple_of(2) && may_be_in_place(call.kind),
        );
        let brought = Brought {
            buffers: lent.clone(),
            weight: call.weight(at),
            seed: None,
        };
        let started = self.nodes[at].engine.start(call.start(at, peer), &brought);
        started.expect("there is memory for it");
        self.nodes[at].open.insert(index, lent);
    }

    /// Aborts an operation on all peers that have called it.
    fn stop(&mut self, index: usize) {
        let name = self.calls[index].name();
        let all_hold = self.holders(name) == self.nodes.len();
        if all_hold || self.stopped.contains(&index) {
            return;
        }
        self.stopped.push(index);
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.engine.stop(name);
            if let Some(lent) = node.open.remove(&index) {
                let input = self.calls[index].input(at);
                assert_eq!(snapshots(&lent, |b| &b.send), input, "an input was written");
            }
        }
    }

    fn holders(&self, name: OpName) -> usize {
        let held = self.held.lock();
        held.iter().filter(|(_, held)| *held == name).count()
    }

    fn commit_what_all_hold(&mut self) {
        for index in 0..self.calls.len() {
            let call = &self.calls[index];
            if self.holders(call.name()) < self.nodes.len() {
                continue;
            }
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let Some(lent) = node.open.remove(&index) else {
                    continue;
                };
                assert_eq!(snapshots(&lent, |b| &b.send), call.input(at));
                if let Some(staged) = node.engine.commit(call.name()) {
                    staged.bring_home();
                }
                node.engine.stop(call.name());
                assert_eq!(snapshots(&lent, |b| &b.receive), reference(call, at));
                self.committed += usize::from(at == 0);
            }
        }
    }

    fn run(&mut self) {
        loop {
            let at = self.prng.below(self.nodes.len());
            match self.prng.below(400) {
                0..20 => self.call(at),
                20 => {
                    let index = self.prng.below(self.calls.len());
                    self.stop(index);
                }
                _ => {}
            }
            let copy = self.copies.lock().pop();
            let is_copied = copy.is_some();
            if let Some((at, copy)) = copy {
                self.nodes[at].engine.copy(copy);
            }
            let has_more = self.network.step();
            self.commit_what_all_hold();
            let is_called = self.nodes.iter().all(|node| node.to_call.is_empty());
            if !has_more && !is_copied && is_called {
                break;
            }
        }
        assert_eq!(self.committed + self.stopped.len(), self.calls.len());
    }
}

fn may_be_in_place(kind: Kind) -> bool {
    matches!(kind, Kind::AllReduce | Kind::Broadcast | Kind::Barrier)
}

#[test]
fn results_are_right_and_inputs_whole_whatever_lanes_do() {
    let (mut committed, mut stopped) = (0, 0);
    for seed in 0..SEEDS {
        let _seed = NamedSeed(seed);
        let mut world = World::new(seed);
        world.run();
        committed += world.committed;
        stopped += world.stopped.len();
    }
    assert!(
        committed as u64 > SEEDS && stopped as u64 > SEEDS / 4,
        "{committed} {stopped}"
    );
}

/// Names the seed of a history that fails.
struct NamedSeed(u64);

impl Drop for NamedSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at seed {}", self.0);
        }
    }
}

/// Seeds for a few seconds of work.
const SEEDS: u64 = 150;
