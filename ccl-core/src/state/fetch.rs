//! How a member fetches the content it lacks: which source it asks for what, and what it trusts.
//!
//! Pure: the owner reports what arrived and whether digests match, and sends the requests. First
//! one source sends the digests of all blocks, which must match the elected root. Then all sources
//! send blocks, each as many at a time as it can answer quickly. Nothing is written before its
//! digest matches, so neither a lying source nor a late answer can corrupt the content.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::digest::Tree;
use super::layout::Blocks;
use super::source::{Source, WINDOW_MAX, WINDOW_MAX_SMALL};
use super::{Order, What};
use crate::ids::PeerId;
use crate::limits::SEGMENT_BYTES_MAX;
use crate::time::Instant;
use crate::wire::state::{Digest, StateId};

/// Digests that fit in one frame.
pub const DIGESTS_PER_FRAME: u32 = (SEGMENT_BYTES_MAX / 32) as u32;
/// What is to be fetched.
#[derive(Clone, Debug)]
pub struct Task {
    /// The elected content.
    pub elected: StateId,
    /// Digest of the keys, equal for all members.
    pub keys: Digest,
    /// How the state is cut.
    pub layout: Arc<Blocks>,
    /// Digests of the blocks that are here.
    pub mine: Vec<Digest>,
    /// Members that have the elected content.
    pub sources: Vec<PeerId>,
    /// Which of them is asked for the digests first: receivers differ in it.
    pub first_source: usize,
}

/// What happens to blocks that have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// They are to be written; `stored` follows.
    Store,
    /// Another source was faster, or they were not requested.
    Drop,
    /// The source lied and is not asked again.
    Lie,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// All blocks are here and verified.
    Held,
    /// All sources gave blocks or digests that do not belong to the elected content.
    AllLied(Vec<PeerId>),
}

/// The fetch of one member in one sync.
#[derive(Debug)]
pub struct Fetch {
    task: Task,
    stage: Stage,
    sources: BTreeMap<PeerId, Source>,
    liars: BTreeSet<PeerId>,
    orders: VecDeque<Order>,
    /// Bytes of each source that were used.
    used: BTreeMap<PeerId, u64>,
    /// Bytes asked of a second source.
    second_bytes: u64,
}

#[derive(Debug)]
enum Stage {
    Digests {
        from: PeerId,
        got: BTreeMap<u32, Vec<Digest>>,
    },
    Blocks(Wanted),
    Ended(FetchEnd),
}

#[derive(Debug)]
struct Wanted {
    digests: Vec<Digest>,
    /// Runs that are not stored, by first block.
    runs: BTreeMap<u32, Run>,
    /// Blocks that are not requested from any source.
    todo: VecDeque<u32>,
    /// Bytes of all runs.
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    count: u32,
    bytes: u64,
    askers: u8,
    is_claimed: bool,
}

impl Fetch {
    /// Starts a fetch.
    #[must_use]
    pub fn new(task: Task, now: Instant) -> Self {
        let sources = task.sources.iter();
        let mut fetch = Self {
            sources: sources.map(|peer| (*peer, Source::default())).collect(),
            stage: Stage::Ended(FetchEnd::AllLied(Vec::new())),
            liars: BTreeSet::new(),
            orders: VecDeque::new(),
            used: BTreeMap::new(),
            second_bytes: 0,
            task,
        };
        fetch.ask_digests(now);
        fetch
    }

    /// The next ask to send.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle = self.sources.iter().filter(|(_, source)| source.has_room());
        let due = idle.filter_map(|(peer, _)| self.slowest_of_others(*peer));
        due.map(|(due, _)| due).min()
    }

    /// Asks a second source for what takes long.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pump_all(now);
    }

    /// Whether an answer is awaited from this source.
    #[must_use]
    pub fn is_awaited(&self, order: &Order) -> bool {
        let source = self.sources.get(&order.peer);
        let open = source.and_then(|source| source.open.get(&(order.what, order.first)));
        open.is_some_and(|(count, _)| *count == order.count)
    }

    /// The digests that blocks must have.
    #[must_use]
    pub fn wanted(&self, first: u32, count: u32) -> Option<&[Digest]> {
        let Stage::Blocks(wanted) = &self.stage else {
            return None;
        };
        wanted.digests.get(first as usize..(first + count) as usize)
    }

    /// Handles digests that arrived.
    pub fn digests_arrived(&mut self, order: &Order, digests: Vec<Digest>, now: Instant) -> Claim {
        if !self.answered(order, now) {
            return Claim::Drop;
        }
        let Stage::Digests { from, got } = &mut self.stage else {
            return Claim::Drop;
        };
        if *from != order.peer {
            return Claim::Drop;
        }
        got.insert(order.first, digests);
        let count: usize = got.values().map(Vec::len).sum();
        if count < self.task.layout.count() as usize {
            self.pump(order.peer, now);
            return Claim::Store;
        }
        let digests = std::mem::take(got).into_values().flatten().collect();
        let tree = Tree::new(self.task.keys, &self.task.layout, digests);
        if tree.root != self.task.elected.root {
            self.ban(order.peer, now);
            return Claim::Lie;
        }
        let bytes = tree.blocks.len() as u64 * 32;
        *self.used.entry(order.peer).or_default() += bytes;
        self.want(tree.blocks);
        self.pump_all(now);
        Claim::Store
    }

    /// Blocks arrived, and their digests fit or not.
    pub fn blocks_arrived(&mut self, order: &Order, fits: bool, now: Instant) -> Claim {
        if !self.answered(order, now) {
            return Claim::Drop;
        }
        let Stage::Blocks(wanted) = &mut self.stage else {
            return Claim::Drop;
        };
        if !fits {
            wanted.give_back(order.first);
            self.ban(order.peer, now);
            return Claim::Lie;
        }
        let run = wanted.runs.get_mut(&order.first);
        let Some(run) = run.filter(|run| !run.is_claimed) else {
            self.pump(order.peer, now);
            return Claim::Drop;
        };
        run.is_claimed = true;
        *self.used.entry(order.peer).or_default() += run.bytes;
        self.pump(order.peer, now);
        Claim::Store
    }

    /// Blocks that were to be written are.
    pub fn stored(&mut self, first: u32) {
        let Stage::Blocks(wanted) = &mut self.stage else {
            return;
        };
        wanted.runs.remove(&first);
        if wanted.runs.is_empty() {
            self.stage = Stage::Ended(FetchEnd::Held);
        }
    }

    /// Handles the loss of a source: the others are asked for what it owes.
    pub fn lose(&mut self, peer: PeerId, now: Instant) {
        let Some(source) = self.sources.remove(&peer) else {
            return;
        };
        match &mut self.stage {
            Stage::Digests { from, .. } if *from == peer => self.ask_digests(now),
            Stage::Blocks(wanted) => {
                for (_, first) in source.open.into_keys() {
                    wanted.give_back(first);
                }
                if self.sources.is_empty() && wanted.runs.values().any(|run| !run.is_claimed) {
                    self.give_up();
                }
                self.pump_all(now);
            }
            _ => {}
        }
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<&FetchEnd> {
        match &self.stage {
            Stage::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Bytes used of each source.
    #[must_use]
    pub fn used(&self) -> &BTreeMap<PeerId, u64> {
        &self.used
    }

    /// Bytes that are here of those that differed, and of all that differ; known once the digests
    /// are.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        match &self.stage {
            Stage::Digests { .. } => (0, self.task.layout.bytes()),
            Stage::Blocks(wanted) => {
                let left: u64 = wanted.runs.values().map(|run| run.bytes).sum();
                (wanted.bytes - left, wanted.bytes)
            }
            Stage::Ended(_) => {
                let used = self.used.values().sum();
                (used, used)
            }
        }
    }

    /// An answer came: the source has room for another ask. False if it was not asked.
    fn answered(&mut self, order: &Order, now: Instant) -> bool {
        let Some(source) = self.sources.get_mut(&order.peer) else {
            return false;
        };
        let Some((_, asked)) = source.open.remove(&(order.what, order.first)) else {
            return false;
        };
        let cap = match order.what {
            What::Blocks if order.count > 1 => WINDOW_MAX_SMALL,
            _ => WINDOW_MAX,
        };
        source.learn(now.saturating_since(asked), cap);
        true
    }

    fn ask_digests(&mut self, now: Instant) {
        if self.task.layout.count() == 0 {
            // Nothing can differ: such a state has one root.
            self.stage = Stage::Ended(FetchEnd::Held);
            return;
        }
        let peers: Vec<_> = self.task.sources.to_vec();
        let rotated = peers.iter().cycle().skip(self.task.first_source);
        let next = rotated
            .take(peers.len())
            .find(|peer| self.sources.contains_key(peer));
        let Some(&from) = next else {
            return self.give_up();
        };
        let got = BTreeMap::new();
        self.stage = Stage::Digests { from, got };
        self.pump(from, now);
    }

    /// Knows now what the blocks are to be.
    fn want(&mut self, digests: Vec<Digest>) {
        let layout = &self.task.layout;
        let mut runs = BTreeMap::new();
        let differs = |block: u32| digests[block as usize] != self.task.mine[block as usize];
        let mut block = 0;
        while block < layout.count() {
            if !differs(block) {
                block += 1;
                continue;
            }
            let fitting = layout.run_from(block, block.saturating_add(RUN_BLOCKS_MAX));
            let same = (block..block + fitting).find(|&next| !differs(next));
            let count = same.map_or(fitting, |same| same - block);
            let bytes = (block..block + count).map(|block| layout.block_bytes(block) as u64);
            let run = Run {
                count,
                bytes: bytes.sum(),
                askers: 0,
                is_claimed: false,
            };
            runs.insert(block, run);
            block += count;
        }
        if runs.is_empty() {
            self.stage = Stage::Ended(FetchEnd::Held);
            return;
        }
        self.stage = Stage::Blocks(Wanted {
            digests,
            todo: runs.keys().copied().collect(),
            bytes: runs.values().map(|run| run.bytes).sum(),
            runs,
        });
    }

    fn ban(&mut self, peer: PeerId, now: Instant) {
        self.liars.insert(peer);
        self.lose(peer, now);
    }

    /// Handles the loss of all sources. A lost source is about to be evicted (R10), which ends the
    /// attempt for all. Only if all sources have lied, this peer must end it.
    fn give_up(&mut self) {
        if self.liars.len() < self.task.sources.len() {
            return;
        }
        let liars = self.liars.iter().copied().collect();
        self.stage = Stage::Ended(FetchEnd::AllLied(liars));
    }

    fn pump_all(&mut self, now: Instant) {
        let peers: Vec<_> = self.sources.keys().copied().collect();
        for peer in peers {
            self.pump(peer, now);
        }
    }

    /// Asks a source for as much as it has room for.
    fn pump(&mut self, peer: PeerId, now: Instant) {
        while self.sources.get(&peer).is_some_and(Source::has_room) {
            let next = match &self.stage {
                Stage::Digests { from, got } if *from == peer => self.next_digests(peer, got),
                Stage::Blocks(_) => self.next_blocks(peer, now),
                _ => None,
            };
            let Some(order) = next else { return };
            let source = self.sources.get_mut(&peer).expect("it has room");
            source
                .open
                .insert((order.what, order.first), (order.count, now));
            self.orders.push_back(order);
        }
    }

    fn next_digests(&self, peer: PeerId, got: &BTreeMap<u32, Vec<Digest>>) -> Option<Order> {
        let count = self.task.layout.count();
        let source = &self.sources[&peer];
        let mut firsts = (0..count).step_by(DIGESTS_PER_FRAME as usize);
        let first = firsts.find(|first| {
            !got.contains_key(first) && !source.open.contains_key(&(What::Digests, *first))
        })?;
        Some(Order {
            peer,
            what: What::Digests,
            first,
            count: DIGESTS_PER_FRAME.min(count - first),
        })
    }

    fn next_blocks(&mut self, peer: PeerId, now: Instant) -> Option<Order> {
        let second = self.slowest_of_others(peer).filter(|(due, _)| *due <= now);
        let Stage::Blocks(wanted) = &mut self.stage else {
            return None;
        };
        let first = wanted.todo.pop_front().or(second.map(|(_, first)| first))?;
        let run = wanted.runs.get_mut(&first)?;
        run.askers += 1;
        if run.askers > 1 {
            self.second_bytes += run.bytes;
        }
        Some(Order {
            peer,
            what: What::Blocks,
            first,
            count: run.count,
        })
    }

    /// The ask that waits longest at another source, and when it is time to ask this one as well;
    /// none if that would cost too much.
    fn slowest_of_others(&self, peer: PeerId) -> Option<(Instant, u32)> {
        let Stage::Blocks(wanted) = &self.stage else {
            return None;
        };
        if !wanted.todo.is_empty() {
            return None;
        }
        let patience = self.sources[&peer].patience();
        let others = self.sources.iter().filter(|(other, _)| **other != peer);
        let open = others.flat_map(|(_, source)| &source.open);
        let single = open.filter(|((_, first), _)| {
            let run = wanted.runs.get(first);
            run.is_some_and(|run| run.askers == 1 && !run.is_claimed)
        });
        let ((_, first), (_, asked)) = single.min_by_key(|(_, (_, asked))| *asked)?;
        let bytes = self.second_bytes + wanted.runs[first].bytes;
        let is_cheap = bytes <= wanted.bytes / 16 + SEGMENT_BYTES_MAX as u64;
        is_cheap.then_some((*asked + patience, *first))
    }
}

/// Most blocks of one run, which bounds what an ask can make a source copy together.
const RUN_BLOCKS_MAX: u32 = 4096;

impl Wanted {
    /// A source will not answer.
    fn give_back(&mut self, first: u32) {
        if let Some(run) = self.runs.get_mut(&first) {
            run.askers -= 1;
            if run.askers == 0 && !run.is_claimed {
                self.todo.push_front(first);
            }
        }
    }
}

#[cfg(test)]
mod tests;
