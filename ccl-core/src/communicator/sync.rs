//! The call that makes a shared state equal on all members. The form that owns its state is in
//! `sync_handle`.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::collective::Brought;
use crate::communicator::{Communicator, RawHandle, SharedState};
use crate::driver::peer::call::{Call, Operation};
use crate::error::{Error, Result};
use crate::ids::{OpName, PeerId, Tag};
use crate::outcome::{Outcome, Progress};
use crate::peer::View;
use crate::state::holding::Holding;
use crate::state::{Key, odd};
use crate::time::Instant;
use crate::wire::control::{
    Called, CancelReason, Digest, Fingerprint, StateOffer, SyncFault, SyncStrategy,
};

/// Options of one sync.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// This peer's role in the election. Default: its content takes part, and is replaced if
    /// another is elected.
    pub strategy: SyncStrategy,
    /// A vote to go on from the best content there is. It counts if no member has the content
    /// sealed last or its successor, or if fewer members have those than are further ahead, as
    /// after the loss of the master's journal. All members must vote for it. Default false.
    pub restore: bool,
    /// Indices of the entries that may have changed since the last sync: only these are hashed. A
    /// change to any other entry goes unnoticed until a sync without this hint. Default `None`:
    /// all.
    pub touched: Option<Vec<usize>>,
    /// When to cancel it for all members. `None`: after the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Hashing threads. `None`: one per core, at most 8.
    pub hash_threads: Option<usize>,
}

/// What a sync did at this peer.
#[derive(Clone, Debug)]
pub struct SyncInfo {
    /// The revision that all members have now.
    pub revision: u64,
    /// The root digest over all entries, equal on all members.
    pub root: Digest,
    /// Bytes sent to other members.
    pub sent_bytes: u64,
    /// Bytes received: differing blocks, and digests.
    pub received_bytes: u64,
    /// Which peers sent blocks, and how many of their bytes were used.
    pub sources: Vec<(PeerId, u64)>,
    /// Members that took part.
    pub members: Vec<PeerId>,
    /// The view this peer was in when it learned the outcome.
    pub view: Arc<View>,
    /// The sync's name in the run's history.
    pub op: OpName,
    /// Number of attempts.
    pub attempts: u32,
    /// Time from call to return.
    pub duration: Duration,
    /// How much of it was spent hashing this peer's state.
    pub hashing: Duration,
}

impl Communicator {
    /// Makes a state equal on all members of the group. The master elects one content by revision
    /// and popularity; members with another content fetch the differing blocks from those that have
    /// it, and verify them. All members call it; it blocks until all have the content. Losing a
    /// member does not disturb the others. The memory must not be written during the call; on
    /// success it holds the elected content.
    ///
    /// # Errors
    /// [`crate::Error::SharedState`] names the peer whose entries, strategy or revision does not
    /// fit; no data was moved. [`crate::Error::Cancelled`], [`crate::Error::TooFewPeers`], any
    /// fatal error. After an error [`SharedState::is_usable`] says whether the content is still
    /// consistent.
    pub fn sync_shared_state(
        &self,
        state: &mut SharedState<'_>,
        strategy: SyncStrategy,
    ) -> Result<SyncInfo> {
        let options = SyncOptions {
            strategy,
            ..SyncOptions::default()
        };
        self.sync_while(state, &options, |_| {})
    }

    /// As [`Communicator::sync_shared_state`], with options and a closure to run meanwhile. `body`
    /// runs once the state is hashed, and may watch and cancel the sync. Afterwards this blocks
    /// until the sync has ended. A panic in `body` cancels the sync.
    ///
    /// # Errors
    /// As [`Communicator::sync_shared_state`]. [`crate::Error::InvalidArgument`], and
    /// [`crate::Error::InvalidUsage`] if another sync is in progress; then `body` does not run.
    pub fn sync_while(
        &self,
        state: &mut SharedState<'_>,
        options: &SyncOptions,
        body: impl FnOnce(&SyncWatch),
    ) -> Result<SyncInfo> {
        // SAFETY: `raw` has ended before the state is used, or when this frame is left.
        let (raw, syncing) = unsafe { self.start_sync(state, options) }?;
        let watch = SyncWatch { call: raw.call() };
        let body = catch_unwind(AssertUnwindSafe(|| body(&watch)));
        if body.is_err() {
            raw.settle();
        }
        let end = syncing.end(state, raw.wait());
        body.unwrap_or_else(|panic| resume_unwind(panic));
        end
    }

    /// Hashes the state and starts a sync of it.
    ///
    /// # Safety
    /// The library's threads write the state's memory until the handle has ended or is dropped.
    /// That must happen before the state or its memory is used in any other way.
    pub(super) unsafe fn start_sync(
        &self,
        state: &mut SharedState<'_>,
        options: &SyncOptions,
    ) -> Result<(RawHandle, Syncing)> {
        self.session().check_open()?;
        let started = self.session().now();
        let holding = Arc::new(state.hold(options)?);
        let hashing = self.session().now() - started;
        let (content, is_usable) = holding.offered();
        let offer = StateOffer {
            content,
            keys: holding.keys,
            sketch: odd::sketch(state.keys()),
            entries: u32::try_from(state.keys().len()).expect("at most STATE_ENTRIES_MAX"),
            bytes: holding.layout.bytes(),
            strategy: options.strategy,
            is_usable,
            restore: options.restore,
        };
        let operation = Operation {
            fingerprint: fingerprint(offer, self.session().min_world_size()),
            brought: Brought::NOTHING,
            tag: Tag::SHARED_STATE,
            deadline: options.deadline,
            holding: Some(Arc::clone(&holding)),
            world_size: None,
        };
        let raw = RawHandle::new(self.session().post(operation)?);
        let syncing = Syncing {
            holding,
            started,
            hashing,
            communicator: self.clone(),
        };
        Ok((raw, syncing))
    }
}

/// What is needed at the end of a sync.
#[derive(Debug)]
pub(super) struct Syncing {
    holding: Arc<Holding>,
    started: Instant,
    hashing: Duration,
    communicator: Communicator,
}

impl Syncing {
    /// Updates the state after a sync, and returns what the sync did.
    pub(super) fn end(
        &self,
        state: &mut SharedState<'_>,
        end: Result<Outcome>,
    ) -> Result<SyncInfo> {
        state.settle(&self.holding, is_given_up(&end));
        let outcome = end.map_err(|error| self.with_entry(state.keys(), error))?;
        let account = self.holding.account();
        let (content, _) = self.holding.offered();
        Ok(SyncInfo {
            revision: content.revision.0,
            root: content.root,
            sent_bytes: account.sent_bytes,
            received_bytes: account.received_bytes,
            sources: account.sources,
            members: outcome.contributors,
            view: outcome.view,
            op: outcome.op,
            attempts: outcome.attempts,
            duration: self.communicator.session().now() - self.started,
            hashing: self.hashing,
        })
    }

    /// Names the entry in which the members differ, if this peer knows it.
    fn with_entry(&self, keys: &[Key], mut error: Error) -> Error {
        if let Error::SharedState {
            fault,
            entry,
            names,
            ..
        } = &mut error
            && let SyncFault::Keys {
                peer,
                odd: odd_keys,
                usual,
                difference: Some(difference),
                ..
            } = &**fault
        {
            let odd = names.of(*peer).to_string();
            let words = if self.holding.keys == *usual {
                Some(odd::describe(keys, difference.reversed(), &odd))
            } else if self.holding.keys == *odd_keys {
                Some(odd::describe(keys, **difference, OTHERS))
            } else {
                odd::describe_strange(**difference, &odd, OTHERS)
            };
            *entry = words.map(|words| format!(". {words}"));
        }
        error
    }
}

/// Whether callers gave up a sync: then they are likely to call again, with the same source.
fn is_given_up(end: &Result<Outcome>) -> bool {
    let Err(Error::Cancelled { reason, .. }) = end else {
        return false;
    };
    matches!(**reason, CancelReason::User | CancelReason::Deadline { .. })
}

/// Watches a sync, and can cancel it, while another thread waits for it. It does not borrow the
/// state. After the end it still reports the sync's progress.
#[derive(Clone, Debug)]
pub struct SyncWatch {
    call: Arc<Call>,
}

impl SyncWatch {
    /// Blocks at most `timeout`. Returns whether the sync has ended; if not, it goes on.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let is_parent = self.call.check_process().is_ok();
        is_parent && self.call.completion().wait_for(timeout) || self.is_finished()
    }

    /// Whether it has ended, successfully or not. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.call.completion().is_finished()
    }

    /// Asks to abort it for all members. It may still succeed. Does not block.
    pub fn cancel(&self) {
        self.call.cancel();
    }

    /// Bytes that differed and are here, and all of them; for a source, the bytes it gave. After
    /// the end what it was then. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.call.progress()
    }

    /// Whether this peer's content is the elected one, which others may be reading; `None` before
    /// the election. The memory may be read by the caller then, and must not be written before the
    /// end. Stays what it was after that.
    #[must_use]
    pub fn is_source(&self) -> Option<bool> {
        self.call.is_source()
    }
}

/// The members whose entries are the usual ones.
const OTHERS: &str = "the others";

/// What all members must agree on, and what this one brings.
fn fingerprint(offer: StateOffer, min_world: u32) -> Fingerprint {
    Fingerprint {
        attempts: u32::MAX,
        min_world,
        ..Fingerprint::new(Called::Sync(Box::new(offer)))
    }
}
