//! Shared state of the applications, and an abstract transfer of it.
//!
//! Stands in for the memory and for the engine that moves blocks: a content is a revision and a
//! root, and a receiver has it after a while, if a source is still there to serve it. What must
//! hold of it is in `sync_rules`.

use std::collections::BTreeMap;
use std::time::Duration;

use ccl_core::ids::{OpName, PeerId, Revision};
use ccl_core::peer::Input;
use ccl_core::wire::control::{
    Digest, EvictReason, KeySketch, StateId, StateOffer, SyncFault, SyncStrategy,
};

use super::cluster::{Event, HostId, World};
use super::rng::mix_all;

/// An application's shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possession {
    /// Its content, if that is whole.
    pub content: StateId,
    /// Whether it is whole: not while it is fetched, nor after a fetch that was given up.
    pub is_usable: bool,
    /// Whether it votes to restore.
    pub restore: bool,
    /// The strategy of a scripted application.
    pub strategy: SyncStrategy,
    /// Whether it was ever part of a sync that succeeded.
    has_synced: bool,
    /// Whether it has trained since the last sync that succeeded: one step at most.
    has_trained: bool,
    /// The call for which it prepared: a retry has the same offer.
    ready_for: Option<u64>,
}

/// The theme of one sync, the same for all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The popular content is enforced, and some only receive.
    Popular,
    /// Some send, the others receive.
    Send,
    /// Members have arbitrary strategies.
    Mixed,
    /// All only receive.
    Receive,
    /// Some have other keys.
    Keys,
    /// Some are too far ahead.
    Ahead,
    /// All are behind.
    Lost,
}

impl Mode {
    fn of(logical: u64) -> Self {
        match mix_all(&[logical, 1]) % 100 {
            0..66 => Self::Popular,
            66..78 => Self::Send,
            78..83 => Self::Mixed,
            83..85 => Self::Receive,
            85..89 => Self::Keys,
            89..93 => Self::Ahead,
            _ => Self::Lost,
        }
    }
}

impl Default for Possession {
    fn default() -> Self {
        Self {
            content: StateId::default(),
            is_usable: true,
            restore: false,
            strategy: SyncStrategy::EnforcePopular,
            has_synced: false,
            has_trained: false,
            ready_for: None,
        }
    }
}

impl Possession {
    /// Trains between two syncs: the same step from the same content, or a stray one.
    fn get_ready(&mut self, logical: u64, dice: u64) {
        if self.ready_for.replace(logical) == Some(logical) || !self.is_usable {
            return;
        }
        if std::mem::replace(&mut self.has_trained, true) {
            return;
        }
        let stray = mix_all(&[logical, dice]);
        match (Mode::of(logical), dice % 100) {
            (Mode::Lost, _) => self.content = behind(self.content, 0),
            (Mode::Ahead, 0..40) => self.content = after(after(self.content, 0), 0),
            (_, 0..5) if !self.has_synced => self.content = of_another_run(stray),
            _ if !self.has_synced => {}
            (_, 0..8) => {}
            (_, 8..16) => self.content = after(self.content, stray),
            (_, 16..20) => self.content = behind(self.content, stray),
            (_, 20..23) => self.is_usable = false,
            _ => self.content = after(self.content, 0),
        }
    }

    fn strategy(&self, logical: u64, dice: u64) -> SyncStrategy {
        use SyncStrategy::{EnforcePopular, ReceiveOnly, SendOnly};
        let dice = dice / 100 % 100;
        match Mode::of(logical) {
            Mode::Send if self.has_synced && dice < 60 => SendOnly,
            Mode::Send | Mode::Receive => ReceiveOnly,
            Mode::Mixed => [EnforcePopular, ReceiveOnly, SendOnly][dice as usize % 3],
            _ if dice < 5 || !self.has_synced && dice < 50 => ReceiveOnly,
            _ => EnforcePopular,
        }
    }

    /// Its offer for this call.
    fn offer(&mut self, logical: u64, dice: u64) -> StateOffer {
        self.get_ready(logical, dice);
        let odd = Mode::of(logical) == Mode::Keys && dice / 10_000 % 100 < 30;
        let keys = if odd { 1 + dice % 2 } else { 0 };
        StateOffer {
            content: self.content,
            keys: root(keys),
            sketch: KeySketch::default(),
            entries: 10 + keys as u32,
            bytes: 1000 + keys,
            strategy: self.strategy(logical, dice),
            is_usable: self.is_usable,
            restore: self.restore || dice / 1_000_000 % 100 < 10,
        }
    }

    /// A sync succeeded.
    fn synced(&mut self) {
        self.has_synced = true;
        self.has_trained = false;
        self.restore = false;
    }

    /// It was evicted, and comes back as the reason asks: without a state of another run.
    pub fn evicted(&mut self, reason: &EvictReason) {
        if let EvictReason::RevisionAhead { .. } = reason {
            *self = Self::default();
        }
    }

    /// A sync was refused: the application does what the fault asks.
    fn refused(&mut self, fault: &SyncFault) {
        match fault {
            SyncFault::RevisionLost { .. } => self.restore = true,
            // All learn the same, and act alike.
            SyncFault::RevisionAhead { theirs, .. } if theirs.0 % 2 == 0 => self.restore = true,
            SyncFault::RevisionAhead { sealed, .. } => {
                let last = Revision(sealed.0 + 1);
                self.content.revision = self.content.revision.min(last);
            }
            // From a checkpoint, say.
            SyncFault::NoSource if !self.is_usable => {
                self.content = StateId::default();
                self.is_usable = true;
            }
            _ => {}
        }
    }
}

/// A sync that runs at a host.
#[derive(Debug)]
pub struct Transfer {
    offer: StateOffer,
    /// The elected content, and the members that have it.
    elected: Option<(StateId, Vec<PeerId>)>,
}

/// The syncs that run at a host.
pub type Transfers = BTreeMap<OpName, Transfer>;

impl World {
    /// A host's offer for a sync.
    pub fn sync_offer(&mut self, host: HostId, logical: u64) -> StateOffer {
        let is_spared = self.swarm.healthy_group == Some(self.hosts[host.0].group.0);
        let app = &mut self.hosts[host.0].app;
        let possession = &mut app.possession;
        if app.scripted {
            return StateOffer {
                content: possession.content,
                keys: root(0),
                sketch: KeySketch::default(),
                entries: 10,
                bytes: 1000,
                strategy: possession.strategy,
                is_usable: possession.is_usable,
                restore: possession.restore,
            };
        }
        let mut dice = mix_all(&[logical, host.0 as u64, 2]);
        if is_spared {
            // No host is evicted there, so none may be too far ahead.
            dice = dice - dice % 100 + 40 + dice % 60;
        }
        possession.offer(logical, dice)
    }

    /// A sync begins at a host.
    pub fn sync_starts(&mut self, host: HostId, op: OpName, offer: StateOffer) {
        let elected = None;
        let transfer = Transfer { offer, elected };
        let transfers = &mut self.hosts[host.0].transfers;
        transfers.insert(op, transfer);
    }

    /// A host receives an election: it has the content, or begins to fetch it.
    pub fn sync_elected(&mut self, host: HostId, op: OpName, elected: (StateId, Vec<PeerId>)) {
        let (now, revision) = (self.now, elected.0.revision.0);
        self.trace.fold(now, &[36, host.0 as u64, revision]);
        let content = elected.0;
        // Its own content is kept until the only source has given everything.
        let is_single = elected.1.len() == 1;
        let state = &mut self.hosts[host.0];
        let Some(transfer) = state.transfers.get_mut(&op) else {
            return self.fail(format!("{op} was elected at {host:?} and does not run"));
        };
        if transfer.elected.replace(elected).is_some() {
            return self.fail(format!("{op} was elected twice at {host:?}"));
        }
        let offer = transfer.offer;
        if offer.is_usable && offer.content == content {
            return self.sync_held(host, op);
        }
        let possession = &mut state.app.possession;
        possession.is_usable &= is_single && possession.content.revision > Revision(0);
        self.sync_fetch_soon(host, op);
    }

    fn sync_fetch_soon(&mut self, host: HostId, op: OpName) {
        let after = self.network_rng.millis(1, 60);
        self.schedule(after, Event::Fetched { host, op });
    }

    /// A host has fetched all that it misses, if there was a source.
    pub fn sync_fetched(&mut self, host: HostId, op: OpName) {
        let Some(transfer) = self.hosts[host.0].transfers.get(&op) else {
            return;
        };
        let Some((content, sources)) = &transfer.elected else {
            return;
        };
        let content = *content;
        let served = sources.iter().any(|source| self.serves(host, *source, op));
        if !served {
            return self.sync_fetch_soon(host, op);
        }
        let possession = &mut self.hosts[host.0].app.possession;
        possession.content = content;
        possession.is_usable = true;
        self.sync_held(host, op);
        self.host_pump(host);
    }

    /// Whether a source's state is still lent to the library.
    fn serves(&self, receiver: HostId, source: PeerId, op: OpName) -> bool {
        let (run, group) = {
            let host = &self.hosts[receiver.0];
            (host.run, host.group)
        };
        self.hosts.iter().any(|host| {
            let is_it = host.run == run && host.group == group;
            let is_it = is_it && host.peer.peer() == Some(source);
            is_it && host.is_live() && host.is_running() && host.transfers.contains_key(&op)
        })
    }

    fn sync_held(&mut self, host: HostId, op: OpName) {
        self.hosts[host.0].told.holds(op);
        self.host_input_quietly(host, Input::Held(op));
    }

    /// No more blocks of it move. Half-written memory stays so.
    pub fn sync_stops(&mut self, host: HostId, op: OpName) {
        self.hosts[host.0].transfers.remove(&op);
    }

    /// A sync succeeded at an application.
    pub fn app_synced(&mut self, host: HostId) {
        self.hosts[host.0].app.possession.synced();
    }

    /// A sync was refused at an application.
    pub fn app_sync_refused(&mut self, host: HostId, fault: &SyncFault) {
        self.stats.sync_fault(fault);
        self.hosts[host.0].app.possession.refused(fault);
    }
}

/// The next revision of a content: the same from the same content, unless it strays.
fn after(content: StateId, stray: u64) -> StateId {
    let revision = content.revision.0 + 1;
    StateId {
        revision: Revision(revision),
        root: root(mix_all(&[head(content), revision, stray])),
    }
}

/// The content of another run's checkpoint.
fn of_another_run(stray: u64) -> StateId {
    StateId {
        revision: Revision(1 + stray % 200),
        root: root(stray),
    }
}

/// A content of the revision before.
fn behind(content: StateId, stray: u64) -> StateId {
    StateId {
        revision: Revision(content.revision.0.saturating_sub(1)),
        root: root(mix_all(&[head(content), 7, stray])),
    }
}

fn head(content: StateId) -> u64 {
    let head = content.root.0.first_chunk().copied();
    u64::from_le_bytes(head.unwrap_or_default())
}

/// The root for a number.
#[must_use]
pub fn root(number: u64) -> Digest {
    let mut root = Digest::default();
    root.0[..8].copy_from_slice(&number.to_le_bytes());
    root
}

/// How long a transfer takes in a script, with a margin.
pub const TRANSFER_MAX: Duration = Duration::from_millis(200);
