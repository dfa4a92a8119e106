//! Seeded syncs with all kinds of faults: sources and receivers die, send wrong data, or are slow
//! or late, and attempts are stopped between any two frames and retried with the survivors.
//!
//! Checked at every step: each block in a receiver's memory is its own or the elected one, never
//! anything else. At the end: every peer that reports success has the elected content, bit for bit,
//! and every other peer reports why not.

use std::collections::BTreeSet;

use super::*;
use crate::ids::Members;

/// Total blocks of an entry.
const BLOCK: usize = 64;

/// A small generator (SplitMix64): one seed, one history.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

struct Chaos {
    dice: Dice,
    net: Net,
    elected: Vec<u8>,
    originals: BTreeMap<PeerId, Vec<u8>>,
    living: BTreeSet<PeerId>,
    liars: BTreeSet<PeerId>,
    /// Dead, but not yet known to be dead.
    unburied: Vec<PeerId>,
    attempt: u64,
    /// The content elected in this attempt, and the peers that have it.
    election: (Option<StateId>, Vec<PeerId>),
    /// Peers that do not know the election yet.
    elections: BTreeSet<PeerId>,
    liveness: usize,
}

fn op(attempt: u64) -> OpName {
    OpName {
        n: crate::ids::OpNumber(attempt),
        ..OP
    }
}

/// Contents of several entries, some of them equal to the elected one.
fn random_content(dice: &mut Dice, like: &[u8]) -> Box<[u8]> {
    let mut bytes = like.to_vec();
    for block in bytes.chunks_mut(BLOCK) {
        if dice.chance(70) {
            block.iter_mut().for_each(|byte| *byte = dice.next() as u8);
        }
    }
    bytes.into()
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let bytes = 1 + dice.below(40 * BLOCK);
        let elected: Vec<u8> = (0..bytes).map(|_| dice.next() as u8).collect();
        let (sources, receivers) = (1 + dice.below(4), 1 + dice.below(3));
        let wire = Wire::default();
        let mut nodes = BTreeMap::new();
        let mut originals = BTreeMap::new();
        let mut liars = BTreeSet::new();
        for id in 1..=(sources + receivers) as u64 {
            let is_source = id <= sources as u64;
            let content = if is_source {
                elected.clone().into()
            } else {
                random_content(&mut dice, &elected)
            };
            if is_source && dice.chance(15) {
                liars.insert(PeerId(id));
            }
            originals.insert(PeerId(id), content.to_vec());
            nodes.insert(PeerId(id), node_cut(id, &wire, content, BLOCK));
        }
        let mut chaos = Self {
            dice,
            living: nodes.keys().copied().collect(),
            net: Net { wire, nodes },
            elected,
            originals,
            liars,
            unburied: Vec::new(),
            attempt: 0,
            election: (None, Vec::new()),
            elections: BTreeSet::new(),
            liveness: 0,
        };
        chaos.begin();
        chaos
    }

    /// Starts an attempt with the surviving peers.
    fn begin(&mut self) {
        self.attempt += 1;
        self.net.wire.lock().clear();
        self.elections = self.living.clone();
        self.election = self.sources();
        let members: Members = self.living.iter().copied().collect();
        for (rank, id) in members.iter().enumerate() {
            let node = &self.net.nodes[id];
            node.events.lock().clear();
            node.engine.start(StartSync {
                op: op(self.attempt),
                members: members.clone(),
                rank,
                holding: Arc::clone(&node.holding),
            });
        }
    }

    /// Peers that have the complete elected content.
    fn sources(&self) -> (Option<StateId>, Vec<PeerId>) {
        let mut content = None;
        let mut sources = Vec::new();
        for id in &self.living {
            let (offered, is_whole) = self.net.nodes[id].holding.offered();
            if is_whole && self.memory(*id) == self.elected {
                content = Some(offered);
                sources.push(*id);
            }
        }
        (content, sources)
    }

    fn memory(&self, id: PeerId) -> Vec<u8> {
        self.net.nodes[&id].memory.to_vec()
    }

    /// The election reaches a peer that does not know it yet.
    fn tell_election(&mut self) {
        let index = self.dice.below(self.elections.len());
        let id = *self.elections.iter().nth(index).expect("below its length");
        self.elections.remove(&id);
        let (Some(content), sources) = &self.election else {
            return;
        };
        if self.living.contains(&id) {
            let engine = &self.net.nodes[&id].engine;
            engine.elected(op(self.attempt), *content, sources);
        }
    }

    fn deliver_one(&mut self) {
        let mut frames = self.net.wire.lock();
        // Any link may be quicker than another; frames of one link stay in order.
        let index = self.dice.below(frames.len());
        let (from, to, _) = frames[index];
        let first = frames.iter().position(|(a, b, _)| (*a, *b) == (from, to));
        let frame = frames
            .remove(first.expect("there is one"))
            .expect("it is there");
        drop(frames);
        if !self.living.contains(&from) || !self.living.contains(&to) {
            return;
        }
        let lie = self.liars.contains(&from).then(|| self.dice.next());
        let node = &self.net.nodes[&to];
        match frame.2 {
            Sent::Signal(header, payload) => {
                node.engine.signal(from, &header, &payload).unwrap();
            }
            Sent::Bulk(header, payload) => {
                let Placement::Memory(region) = node.engine.place(from, &header) else {
                    return;
                };
                let copied = match &payload {
                    Payload::Small(bytes) => Some(bytes.to_vec()),
                    Payload::Lent(lent) => lent.read(<[u8]>::to_vec),
                };
                // Taken back meanwhile: the frame is void.
                let Some(mut bytes) = copied else { return };
                if let Some(lie) = lie.filter(|lie| lie.is_multiple_of(3)) {
                    let at = lie as usize % bytes.len();
                    bytes[at] ^= 1;
                }
                region.write(|place| place.copy_from_slice(&bytes)).unwrap();
                node.engine.arrived(from, &header);
            }
        }
    }

    fn kill_one(&mut self) {
        let index = self.dice.below(self.living.len());
        let id = *self.living.iter().nth(index).expect("below its length");
        if self.living.len() == 1 {
            return;
        }
        self.net.nodes[&id].engine.stop(op(self.attempt));
        self.living.remove(&id);
        self.elections.remove(&id);
        self.unburied.push(id);
    }

    /// The link to a dead peer is given up, and now and then the view changes at once.
    fn bury_one(&mut self) {
        let Some(dead) = self.unburied.pop() else {
            return;
        };
        for id in &self.living {
            self.net.nodes[id].engine.lose(dead);
        }
        self.again();
    }

    fn again(&mut self) {
        for id in &self.living {
            self.net.nodes[id].engine.stop(op(self.attempt));
        }
        self.begin();
    }

    fn check(&self) {
        for id in &self.living {
            let (memory, original) = (self.memory(*id), &self.originals[id]);
            let blocks = memory.chunks(BLOCK).zip(original.chunks(BLOCK));
            for ((now, was), elected) in blocks.zip(self.elected.chunks(BLOCK)) {
                assert!(now == was || now == elected, "peer {id} holds neither");
            }
            if self
                .net
                .events(id.0)
                .contains(&StateEvent::Held(op(self.attempt)))
            {
                assert!(memory == self.elected, "peer {id} says that it holds");
            }
        }
    }

    /// Lets one event happen; false if none is left.
    fn step(&mut self) -> bool {
        let is_quiet = self.net.wire.lock().is_empty();
        match self.dice.below(1000) {
            0..4 if self.attempt < 6 => self.kill_one(),
            4..8 if self.attempt < 6 => self.again(),
            8..100 if !self.elections.is_empty() => self.tell_election(),
            100..130 if !self.unburied.is_empty() => self.bury_one(),
            _ if !is_quiet => self.deliver_one(),
            _ if !self.elections.is_empty() => self.tell_election(),
            _ if !self.unburied.is_empty() => self.bury_one(),
            _ => return false,
        }
        self.liveness += 1;
        assert!(self.liveness < 200_000, "it never ends");
        self.check();
        true
    }

    fn finish(&mut self) {
        while self.step() {}
        let (_, sources) = &self.election;
        let is_honest = |id: &&PeerId| !self.liars.contains(id) && self.living.contains(id);
        for id in &self.living {
            let events = self.net.events(id.0);
            let held = events.contains(&StateEvent::Held(op(self.attempt)));
            let failed = events
                .iter()
                .any(|event| matches!(event, StateEvent::Failed(..)));
            if sources.iter().find(is_honest).is_some() {
                assert!(
                    held && !failed,
                    "peer {id}, with an honest source: {events:?}"
                );
            } else if sources.iter().all(|id| self.living.contains(id)) {
                assert!(
                    held || failed || sources.is_empty(),
                    "peer {id} is told nothing"
                );
            }
        }
    }
}

#[test]
fn whatever_fails_nothing_but_the_elected_content_gets_in() {
    for seed in 0..600 {
        let result = std::panic::catch_unwind(|| Chaos::new(seed).finish());
        assert!(result.is_ok(), "seed {seed}");
    }
}
