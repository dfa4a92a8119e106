//! Runs the syncs of one peer: connects fetch or serve, the caller's memory, and the links.
//!
//! Arriving frames are passed to the machines under a lock held for bookkeeping only; the task that
//! received them hashes and copies outside it. Blocks are received into the library's memory and
//! copied into place once their digests match. The engine knows no verdicts: the driver starts and
//! stops syncs as the peer's machine decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::lock::Mutex;
use bytes::Bytes;

use super::fetch::{Claim, Fetch, Task};
use super::frames::{self, asked, bytes_of, fits, given, note_lie};
use super::holding::Holding;
use super::running::{Jobs, Role, Running};
pub use super::running::{StartSync, StateEvent};
use super::serve::Serve;
use super::{Order, What};
use crate::buffer::{Gate, Region, Storage};
use crate::ids::{OpName, PeerId, Revision};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::time::Instant;
use crate::transport::{FrameHeader, LinkSender, Placement};
use crate::wire::state::{Digest, StateId};

/// What an engine is given to work with.
pub struct StateTools {
    /// The links.
    pub sender: Arc<dyn LinkSender>,
    /// Receives events, from the tasks of the links and from within the engine's calls; must not
    /// block.
    pub events: Box<dyn Fn(StateEvent) + Send + Sync>,
    /// Returns the current time.
    pub clock: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Called when `deadline` may have changed.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Most bytes per second that this peer sends; `None`: as many as the links take.
    pub rate: Option<u64>,
}

/// Syncs of one peer, one at a time.
pub struct StateEngine {
    state: Mutex<State>,
    tools: StateTools,
}

#[derive(Debug, Default)]
struct State {
    sync: Option<Running>,
    /// Memory that blocks are received into, not in use.
    idle: Vec<Region>,
}

/// A frame whose payload is in its place, and the sync that it belongs to.
struct Arrived {
    holding: Arc<Holding>,
    gate: Arc<Gate>,
    buffer: Region,
}

impl StateEngine {
    /// An engine without an active sync.
    #[must_use]
    pub fn new(tools: StateTools) -> Self {
        Self {
            state: Mutex::default(),
            tools,
        }
    }

    /// Opens a sync on the caller's memory. Until `stop` it may be read, and written if another
    /// content is elected.
    pub fn start(&self, start: StartSync) {
        let mut state = self.state.lock();
        assert!(state.sync.is_none(), "one sync at a time (R1)");
        state.sync = Some(Running {
            start,
            gate: Gate::new(),
            elected: None,
            role: Role::Waiting(Vec::new()),
            is_told: false,
            buffers: BTreeMap::new(),
        });
    }

    /// The election is known: gives, or begins to fetch.
    pub fn elected(&self, op: OpName, content: StateId, sources: &[PeerId]) {
        let now = (self.tools.clock)();
        self.with_sync(op, |sync| {
            sync.elected = Some(content);
            let holding = Arc::clone(&sync.start.holding);
            holding.note(|account| account.elected = Some(content));
            let (mine, is_whole) = holding.offered();
            if is_whole && mine.root == content.root {
                holding.win(content);
                let layout = Arc::clone(&holding.layout);
                let serve = Serve::new(layout, self.tools.rate);
                let role = std::mem::replace(&mut sync.role, Role::Source(serve));
                sync.take_early(role);
                return Some(StateEvent::Held(op));
            }
            // A state that was never advanced is not worth the memory: nothing would be lost.
            let is_advanced = mine.revision > Revision(0);
            holding.keep_previous(is_advanced && sources.len() == 1);
            let fetch = Fetch::new(
                Task {
                    elected: content,
                    keys: holding.keys,
                    layout: Arc::clone(&holding.layout),
                    mine: holding.digests(),
                    sources: sources.to_vec(),
                    first_source: sync.start.rank,
                },
                now,
            );
            sync.role = Role::Receiver(fetch);
            sync.end()
        });
    }

    /// Ends a sync, whatever became of it: when this returns nothing reads or writes the caller's
    /// memory. Does nothing if it is over already.
    pub fn stop(&self, op: OpName) {
        let mut state = self.state.lock();
        let Some(sync) = state.sync.take_if(|sync| sync.start.op == op) else {
            return;
        };
        drop(state);
        sync.gate.close();
        self.tools.sender.forget(op);
        sync.start.holding.note(|account| match &sync.role {
            Role::Source(serve) => account.sent_bytes += serve.given_bytes(),
            Role::Receiver(fetch) => {
                for (peer, bytes) in fetch.used() {
                    match account.sources.iter_mut().find(|(known, _)| known == peer) {
                        Some((_, sum)) => *sum += bytes,
                        None => account.sources.push((*peer, *bytes)),
                    }
                }
            }
            Role::Waiting(_) => {}
        });
    }

    /// Bytes of what differs that are here, and all of it; for a source, what it gave.
    #[must_use]
    pub fn progress(&self, op: OpName) -> Option<(u64, u64)> {
        let state = self.state.lock();
        let sync = state.sync.as_ref().filter(|sync| sync.start.op == op)?;
        Some(match &sync.role {
            Role::Waiting(_) => (0, sync.start.holding.layout.bytes()),
            Role::Source(serve) => (serve.given_bytes(), serve.given_bytes()),
            Role::Receiver(fetch) => fetch.progress(),
        })
    }

    /// Whether this peer's memory holds the elected content, and so must not change before the end;
    /// `None` before the election.
    #[must_use]
    pub fn is_source(&self, op: OpName) -> Option<bool> {
        let state = self.state.lock();
        let sync = state.sync.as_ref().filter(|sync| sync.start.op == op)?;
        match &sync.role {
            Role::Waiting(_) => None,
            Role::Source(_) => Some(!sync.start.holding.is_mixed()),
            Role::Receiver(_) => Some(false),
        }
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        match &state.sync.as_ref()?.role {
            Role::Waiting(_) => None,
            Role::Source(serve) => serve.poll_timeout(),
            Role::Receiver(fetch) => fetch.poll_timeout(),
        }
    }

    /// The time of `deadline` has come.
    pub fn handle_timeout(&self) {
        let now = (self.tools.clock)();
        self.with_any(|sync| {
            if let Role::Receiver(fetch) = &mut sync.role {
                fetch.handle_timeout(now);
            }
            None
        });
    }

    /// A member asks for something.
    ///
    /// # Errors
    /// Why no correct member asks so.
    pub fn signal(
        &self,
        from: PeerId,
        header: &FrameHeader,
        payload: &Bytes,
    ) -> Result<(), &'static str> {
        let Some(order) = asked(from, header.frame) else {
            return Err("not a signal frame of shared state");
        };
        if !payload.is_empty() {
            return Err("a request for shared state that carries data");
        }
        let mut answer = Ok(());
        self.with_sync(header.op, |sync| {
            if sync.start.members.contains(&from) {
                answer = sync.take_ask(order);
            }
            None
        });
        answer
    }

    /// Where the payload of a frame goes.
    pub fn place(&self, from: PeerId, header: &FrameHeader) -> Placement {
        let Some(order) = given(from, header.frame) else {
            return Placement::Refuse("not a bulk frame of shared state");
        };
        let mut state = self.state.lock();
        let State { sync, idle } = &mut *state;
        let Some(sync) = sync.as_mut().filter(|sync| sync.start.op == header.op) else {
            return Placement::Discard;
        };
        let Role::Receiver(fetch) = &sync.role else {
            return Placement::Discard;
        };
        if !fetch.is_awaited(&order) {
            let bytes = u64::from(header.payload_bytes);
            let holding = &sync.start.holding;
            holding.note(|account| account.received_bytes += bytes);
            return Placement::Discard;
        }
        if u64::from(header.payload_bytes) != bytes_of(&sync.start.holding, &order) {
            return Placement::Refuse("blocks that do not have the requested length");
        }
        let key = (from, order.what, order.first);
        let buffer = sync
            .buffers
            .entry(key)
            .or_insert_with(|| idle.pop().unwrap_or_else(new_buffer));
        Placement::Memory(buffer.slice(0..header.payload_bytes as usize))
    }

    /// The payload of a frame is in its place.
    pub fn arrived(&self, from: PeerId, header: &FrameHeader) {
        let Some(order) = given(from, header.frame) else {
            return;
        };
        let Some(arrived) = self.take_arrived(header, &order) else {
            return;
        };
        let payload = arrived.buffer.slice(0..header.payload_bytes as usize);
        match order.what {
            What::Digests => {
                let digests = payload
                    .read(|bytes| {
                        let chunks = bytes.chunks_exact(32);
                        chunks
                            .map(|chunk| Digest(chunk.try_into().expect("32 bytes")))
                            .collect()
                    })
                    .expect("this memory is the library's");
                let now = (self.tools.clock)();
                self.with_receiver(header.op, |fetch| {
                    let claim = fetch.digests_arrived(&order, digests, now);
                    note_lie(&order, claim);
                });
            }
            What::Blocks => self.blocks_arrived(header.op, &order, &arrived, &payload),
        }
        self.state.lock().keep(arrived.buffer);
    }

    /// A link was given up.
    pub fn lose(&self, peer: PeerId) {
        let now = (self.tools.clock)();
        self.with_any(|sync| match &mut sync.role {
            Role::Receiver(fetch) => {
                fetch.lose(peer, now);
                sync.end()
            }
            Role::Source(serve) => {
                serve.lose(peer);
                None
            }
            Role::Waiting(early) => {
                early.retain(|order| order.peer != peer);
                None
            }
        });
    }

    fn take_arrived(&self, header: &FrameHeader, order: &Order) -> Option<Arrived> {
        let mut state = self.state.lock();
        let sync = state.sync.as_mut()?;
        if sync.start.op != header.op {
            return None;
        }
        let buffer = sync
            .buffers
            .remove(&(order.peer, order.what, order.first))?;
        let holding = Arc::clone(&sync.start.holding);
        holding.note(|account| account.received_bytes += u64::from(header.payload_bytes));
        Some(Arrived {
            holding,
            gate: Arc::clone(&sync.gate),
            buffer,
        })
    }

    fn blocks_arrived(&self, op: OpName, order: &Order, arrived: &Arrived, payload: &Region) {
        let Arrived { holding, gate, .. } = arrived;
        let Some(wanted) = self.wanted(op, order) else {
            return;
        };
        let fits = payload.read(|bytes| fits(holding, order, &wanted, bytes));
        let now = (self.tools.clock)();
        let mut claim = Claim::Drop;
        self.with_receiver(op, |fetch| {
            claim = fetch.blocks_arrived(order, fits == Some(true), now);
            note_lie(order, claim);
        });
        if claim != Claim::Store {
            return;
        }
        let Some(inside) = gate.enter() else { return };
        holding.mix();
        payload.read(|bytes| holding.store(&inside, gate, order.first, bytes));
        holding.stored(order.first, &wanted);
        drop(inside);
        self.with_receiver(op, |fetch| fetch.stored(order.first));
    }

    fn wanted(&self, op: OpName, order: &Order) -> Option<Vec<Digest>> {
        let state = self.state.lock();
        let sync = state.sync.as_ref().filter(|sync| sync.start.op == op)?;
        match &sync.role {
            Role::Receiver(fetch) => fetch.wanted(order.first, order.count).map(<[_]>::to_vec),
            _ => None,
        }
    }

    fn with_receiver(&self, op: OpName, change: impl FnOnce(&mut Fetch)) {
        self.with_sync(op, |sync| {
            if let Role::Receiver(fetch) = &mut sync.role {
                change(fetch);
            }
            sync.end()
        });
    }

    fn with_sync(&self, op: OpName, change: impl FnOnce(&mut Running) -> Option<StateEvent>) {
        self.with_any(|sync| {
            if sync.start.op == op {
                change(sync)
            } else {
                None
            }
        });
    }

    /// Lets the machines decide, then does what they want.
    fn with_any(&self, change: impl FnOnce(&mut Running) -> Option<StateEvent>) {
        let mut jobs = Jobs::default();
        {
            let mut state = self.state.lock();
            let Some(sync) = &mut state.sync else { return };
            jobs.op = sync.start.op;
            jobs.event = change(sync);
            sync.collect(&mut jobs, (self.tools.clock)());
        }
        for ask in jobs.asks {
            let header = frames::ask(jobs.op, &ask);
            self.tools.sender.signal(ask.peer, header, Bytes::new());
        }
        for (give, payload) in jobs.gives {
            let header = frames::give(jobs.op, &give, &payload);
            self.tools.sender.bulk(give.peer, header, payload);
        }
        if let Some(event) = jobs.event {
            (self.tools.events)(event);
        }
        (self.tools.wake)();
    }
}

impl State {
    fn keep(&mut self, buffer: Region) {
        if self.idle.len() < IDLE_BUFFERS_MAX {
            self.idle.push(buffer);
        }
    }
}

fn new_buffer() -> Region {
    let storage = Storage::new(SEGMENT_BYTES_MAX);
    let gate = Gate::keeping(vec![Arc::clone(&storage)]);
    storage.open(&gate)
}

impl fmt::Debug for StateEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateEngine").finish_non_exhaustive()
    }
}

/// Receive buffers kept between frames: as many as lanes may deliver at once.
const IDLE_BUFFERS_MAX: usize = 16;

#[cfg(test)]
#[allow(unsafe_code)]
mod tests;
