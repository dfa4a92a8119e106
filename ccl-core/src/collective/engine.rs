//! The data plane of one peer: connects the exchange, the memory of its operations, and the links.
//!
//! Arriving frames are passed to the exchange under a lock held for bookkeeping only. The same
//! thread then carries out what the exchange wants, without the lock: it hands frames to the links,
//! and adds and copies on memory that can be taken back at any moment (`buffer`). Copies of a whole
//! buffer take longer and are handed to the driver (`LargeCopy`, `Staged`), since other calls may
//! wait for this thread.
//!
//! The engine knows no verdicts: the driver starts and stops operations as the peer's machine
//! decides.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::Mutex;
use bytes::Bytes;

use super::exchange::{Exchange, ExchangeLimits};
use super::layout::Part;
use super::memory::{Brought, Buffer, CallAt, Memory, Scratch, StagingPool, staging_bytes};
use super::run::{self, Work};
use super::schedule::Given;
use super::step::{CopyOwn, Output, Place};
use crate::buffer::{NoMemory, Storage};
use crate::ids::{OpName, PeerId, Vid};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::transport::{FrameHeader, LinkHandler, LinkName, LinkSender, Payload, Placement};
use crate::wire::control::{Fingerprint, LinkFault, Start};

/// Events for the driver.
#[derive(Debug)]
pub enum EngineEvent {
    /// The whole result of an operation is here, and all members called the same.
    Held(OpName),
    /// Another member called something else.
    Mismatch {
        /// The operation.
        op: OpName,
        /// The other member.
        peer: PeerId,
        /// What it called.
        theirs: Fingerprint,
    },
    /// A link is whole.
    LinkUp(LinkName),
    /// A link to a member was reported down.
    LinkDown {
        /// The link concerned.
        link: LinkName,
        /// How it failed.
        fault: LinkFault,
        /// Whether repair was given up.
        gave_up: bool,
    },
    /// Why a link has no connection.
    NoLink {
        /// The link concerned.
        link: LinkName,
        /// Each address that was tried, and what came of it.
        why: String,
    },
    /// A lane was repaired.
    LaneRepaired {
        /// The other end.
        peer: PeerId,
        /// The lane's index in its link.
        lane: u16,
    },
    /// For [`Engine::copy`], on a thread that nobody waits for.
    LargeCopy(LargeCopy),
}

/// Own data that is part of a result, too long to be copied on the way.
#[derive(Debug)]
pub struct LargeCopy {
    copy: CopyOwn,
    memory: Arc<Memory>,
}

/// The result of a committed operation that was called in place, aside. The operation is over, and
/// nobody else uses this memory or the caller's.
#[derive(Debug)]
#[must_use = "without a copy the caller's memory holds the input still"]
pub struct Staged {
    engine: Arc<Engine>,
    memory: Arc<Memory>,
}

impl Staged {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.staged_bytes()
    }

    /// Copies the result to the caller's memory.
    pub fn bring_home(self) {
        self.memory.bring_home();
        self.engine.give_back(&self.memory);
    }
}

/// Receives events: from the tasks of the links, and from within `start`, `stop` and `commit`. It
/// must not block, and the caller of those must hold no lock that it takes.
pub type EngineEvents = Box<dyn Fn(EngineEvent) + Send + Sync>;

/// The data plane of one peer.
pub struct Engine {
    state: Mutex<State>,
    scratch: Arc<Storage>,
    sender: Arc<dyn LinkSender>,
    events: EngineEvents,
    repairs: AtomicU64,
}

struct State {
    exchange: Exchange,
    operations: BTreeMap<OpName, Arc<Memory>>,
    /// What peers may write to ahead of credits, of operations that are open or may be yet.
    ahead: BTreeMap<(OpName, PeerId), Arc<Memory>>,
    staging: StagingPool,
    /// Empty lists for the next jobs.
    spare: Vec<Jobs>,
}

/// What the exchange wants, and the memory that it is about.
type Jobs = VecDeque<(Output, Option<Arc<Memory>>)>;

impl Engine {
    /// Without operations. Contributions on their way lie in `scratch`.
    #[must_use]
    pub fn new(scratch: Scratch, sender: Arc<dyn LinkSender>, events: EngineEvents) -> Self {
        let limits = ExchangeLimits {
            scratch_bytes: scratch.bytes(),
            ..ExchangeLimits::default()
        };
        Self {
            state: Mutex::new(State {
                exchange: Exchange::new(limits),
                operations: BTreeMap::new(),
                ahead: BTreeMap::new(),
                staging: StagingPool::default(),
                spare: Vec::new(),
            }),
            scratch: scratch.0,
            sender,
            events,
            repairs: AtomicU64::new(0),
        }
    }

    /// Opens an operation on the caller's memory, and sends what can be sent at once. Until `stop`
    /// or `commit` the inputs are read and the results written; in place, results are put together
    /// elsewhere. Copies this peer's own data where it is part of the result and short; does not
    /// block otherwise.
    ///
    /// # Errors
    /// If there is no memory to put results together in; nothing is open then.
    ///
    /// # Panics
    /// If another operation of its tag is open, or the buffers do not have the lengths of their
    /// counts.
    pub fn start(&self, start: Start, brought: &Brought) -> Result<(), NoMemory> {
        let buffers = &brought.buffers;
        let part = |buffer: &Buffer| Part {
            dtype: buffer.dtype,
            count: buffer.count as u64,
        };
        let parts: Vec<Part> = buffers.iter().map(part).collect();
        let called = CallAt {
            fingerprint: &start.fingerprint,
            rank: start.rank,
            seed: brought.seed,
        };
        let staging = match staging_bytes(buffers, called) {
            0 => None,
            bytes => Some(self.staging(bytes)?),
        };
        let memory = Memory::new(buffers, called, &self.scratch, staging);
        self.with_exchange(|state| {
            state.operations.insert(start.birth.op, Arc::new(memory));
            let parts = &parts;
            let weight = brought.weight;
            state.exchange.start(start, Given { parts, weight });
        });
        Ok(())
    }

    /// Ends an operation, whatever became of it: when this returns nothing reads or writes the
    /// caller's memory. Waits at most for one system call or one addition. Does nothing if it is
    /// over already.
    pub fn stop(&self, op: OpName) {
        if let Some(memory) = self.end(op) {
            self.give_back(&memory);
        }
    }

    /// Ends an operation that was committed: as `stop`, and the caller's memory holds the result
    /// once what is returned has been brought home.
    pub fn commit(self: &Arc<Self>, op: OpName) -> Option<Staged> {
        let memory = self.end(op)?;
        if memory.staged_bytes() == 0 {
            self.give_back(&memory);
            return None;
        }
        Some(Staged {
            engine: Arc::clone(self),
            memory,
        })
    }

    /// Does a large copy, and what follows from it.
    pub fn copy(&self, LargeCopy { copy, memory }: LargeCopy) {
        let mut jobs = Jobs::new();
        self.work(Output::Copy(copy), &memory, &mut jobs);
        self.carry_out(jobs);
    }

    /// Payload bytes sent and received so far, and those of the whole operation; `None` if it is
    /// not open.
    #[must_use]
    pub fn progress(&self, op: OpName) -> Option<(u64, u64)> {
        self.state.lock().exchange.progress(op)
    }

    /// By how much each member's contribution counts, if it has weights and is open.
    #[must_use]
    pub fn weights(&self, op: OpName) -> Option<BTreeMap<PeerId, u32>> {
        self.state.lock().exchange.weights(op)
    }

    /// Lanes that were repaired since the engine was made.
    #[must_use]
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// What peers posted ahead that are no neighbours any more is forgotten.
    pub fn retain_peers(&self, is_neighbour: impl Fn(PeerId) -> bool) {
        self.with_exchange(|state| state.exchange.retain_peers(is_neighbour));
    }

    /// A view is in force: of the operations born before, these go on, and the others are over.
    pub fn forget(&self, before: Vid, carried: Vec<OpName>) {
        self.with_exchange(|state| state.exchange.forget(before, carried));
    }

    /// Gives staging memory back to the system that was not used since the call before; to be
    /// called every few seconds.
    pub fn trim(&self) {
        let unused = self.state.lock().staging.trim();
        // Given back without the lock: that takes a while for large memory.
        drop(unused);
    }

    fn end(&self, op: OpName) -> Option<Arc<Memory>> {
        let memory = self.state.lock().operations.get(&op).cloned()?;
        // First the memory, then the exchange: a slot must not be given to another operation while
        // somebody still writes to it.
        memory.take_back();
        // From now on nothing is placed for this operation.
        let ahead = self.state.lock().ahead_of(op);
        ahead.iter().for_each(|memory| memory.take_back());
        let mut is_first = false;
        self.with_exchange(|state| {
            is_first = state.operations.remove(&op).is_some();
            state.ahead.retain(|(name, _), _| *name != op);
            state.exchange.stop(op);
        });
        self.sender.forget(op);
        is_first.then_some(memory)
    }

    /// Memory to put results together in. What is idle and does not fit is given back to the system
    /// first, so that operations of different lengths do not add up.
    fn staging(&self, bytes: usize) -> Result<Arc<Storage>, NoMemory> {
        let (fitting, unused) = self.state.lock().staging.take(bytes);
        drop(unused);
        match fitting {
            Some(storage) => Ok(storage),
            None => StagingPool::make(bytes),
        }
    }

    fn give_back(&self, memory: &Memory) {
        if let Some(storage) = memory.staging() {
            self.state.lock().staging.give_back(storage);
        }
    }

    /// Lets the exchange decide, then does what it wants.
    fn with_exchange<R>(&self, decide: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let decided = decide(&mut state);
        let mut jobs = state.spare.pop().unwrap_or_default();
        state.collect(&mut jobs);
        drop(state);
        if jobs.is_empty() {
            self.state.lock().keep(jobs);
        } else {
            self.carry_out(jobs);
        }
        decided
    }

    fn carry_out(&self, mut jobs: Jobs) {
        while let Some((output, memory)) = jobs.pop_front() {
            match output {
                Output::Held(op) => (self.events)(EngineEvent::Held(op)),
                Output::Mismatch { op, peer, theirs } => {
                    (self.events)(EngineEvent::Mismatch { op, peer, theirs });
                }
                Output::Signal {
                    to,
                    header,
                    head,
                    body,
                } => {
                    let payload = run::gather(memory.as_deref(), head, body.as_ref());
                    if let Some(payload) = payload {
                        self.sender.signal(to, header, payload);
                    }
                }
                Output::Bulk {
                    to,
                    header,
                    side,
                    span,
                } => {
                    if let Some(memory) = memory {
                        let payload = Payload::Lent(memory.region(side, span));
                        self.sender.bulk(to, header, payload);
                    }
                }
                Output::Abandon { from, op } => {
                    if let Some(memory) = memory {
                        memory.take_back();
                    }
                    self.state.lock().exchange.abandoned(from, op);
                }
                Output::Copy(copy) if copy.body.bytes() > COPY_BYTES_MAX => {
                    if let Some(memory) = memory {
                        let large = LargeCopy { copy, memory };
                        (self.events)(EngineEvent::LargeCopy(large));
                    }
                }
                work => {
                    if let Some(memory) = memory {
                        self.work(work, &memory, &mut jobs);
                    }
                }
            }
        }
        self.state.lock().keep(jobs);
    }

    /// Does work on memory, tells the exchange, and adds what it wants next.
    fn work(&self, output: Output, memory: &Memory, jobs: &mut Jobs) {
        let done = match &output {
            Output::Reduce(reduction) => run::reduce(memory, reduction),
            Output::Store(storage) => run::store(memory, storage),
            Output::Encode(coding) => run::encode(memory, coding),
            Output::Decode(coding) => run::decode(memory, coding),
            Output::Copy(copy) => run::copy_own(memory, copy),
            _ => unreachable!("the caller has taken out everything else"),
        };
        if done == Work::TakenBack {
            return;
        }
        let mut state = self.state.lock();
        match output {
            Output::Reduce(reduction) => state.exchange.reduced(reduction),
            Output::Store(storage) => state.exchange.stored(storage),
            Output::Encode(coding) => state.exchange.encoded(coding),
            Output::Decode(coding) => state.exchange.decoded(coding),
            Output::Copy(copy) => state.exchange.copied(copy),
            _ => {}
        }
        state.collect(jobs);
    }
}

impl State {
    /// Moves what the exchange wants to `jobs`.
    fn collect(&mut self, jobs: &mut Jobs) {
        while let Some(output) = self.exchange.poll_output() {
            let memory = match output {
                Output::Abandon { from, op } => self.ahead.remove(&(op, from)),
                _ => output.op().and_then(|op| self.operations.get(&op).cloned()),
            };
            jobs.push_back((output, memory));
        }
    }

    /// The memory that peers write to ahead of an operation's credits.
    fn ahead_of(&self, op: OpName) -> Vec<Arc<Memory>> {
        let of_op = self.ahead.range((op, PeerId(0))..=(op, PeerId(u64::MAX)));
        of_op.map(|(_, memory)| Arc::clone(memory)).collect()
    }

    fn keep(&mut self, jobs: Jobs) {
        if self.spare.len() < SPARE_JOBS_MAX {
            self.spare.push(jobs);
        }
    }
}

impl LinkHandler for Engine {
    fn signal(
        &self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        self.with_exchange(|state| state.exchange.handle_signal(from, header, payload))
    }

    fn place(&self, from: PeerId, header: &FrameHeader) -> Placement {
        let mut state = self.state.lock();
        let place = state.exchange.place(from, header);
        let memory = state.operations.get(&header.op);
        match (place, memory) {
            (Place::Discard, _) => Placement::Discard,
            (Place::Refuse(why), _) => Placement::Refuse(why),
            (_, Some(memory)) if memory.is_taken_back() => Placement::Discard,
            (Place::Reserve { start, bytes }, _) => {
                let ahead = state.ahead.entry((header.op, from));
                let memory = ahead.or_insert_with(|| Arc::new(Memory::of_scratch(&self.scratch)));
                Placement::Memory(memory.slot_region(start, bytes))
            }
            (_, None) => Placement::Discard,
            (Place::Slot { start, bytes }, Some(memory)) => {
                Placement::Memory(memory.slot_region(start, bytes))
            }
            (Place::Memory { side, span }, Some(memory)) => {
                Placement::Memory(memory.region(side, span))
            }
        }
    }

    fn arrived(&self, from: PeerId, header: &FrameHeader) {
        self.with_exchange(|state| state.exchange.handle_arrived(from, header));
    }

    fn link_up(&self, link: LinkName) {
        (self.events)(EngineEvent::LinkUp(link));
    }

    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool) {
        (self.events)(EngineEvent::LinkDown {
            link,
            fault,
            gave_up,
        });
    }

    fn no_link(&self, link: LinkName, why: String) {
        (self.events)(EngineEvent::NoLink { link, why });
    }

    fn lane_repaired(&self, peer: PeerId, lane: u16) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
        (self.events)(EngineEvent::LaneRepaired { peer, lane });
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Longest own data that is copied on the way: it takes as long as an addition of a segment.
const COPY_BYTES_MAX: usize = SEGMENT_BYTES_MAX;
/// Empty lists of jobs kept: one for each thread that may be at work.
const SPARE_JOBS_MAX: usize = 16;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
