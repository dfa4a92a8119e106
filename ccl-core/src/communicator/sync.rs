//! The call that makes a shared state equal at all members.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::communicator::{Communicator, RawHandle, SharedState};
use crate::driver::call::{Call, Operation};
use crate::error::{Error, Result};
use crate::ids::{OpName, PeerId, Tag};
use crate::outcome::Progress;
use crate::peer::View;
use crate::state::holding::Holding;
use crate::state::odd;
use crate::time::Instant;
use crate::wire::control::{Called, Digest, Fingerprint, StateOffer, SyncFault, SyncStrategy};

/// How a sync is to be made.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// Whether this peer's content counts. Default: it does, and is replaced if another is elected.
    pub strategy: SyncStrategy,
    /// A vote for the best content there is, if nobody has the one that was sealed last, or if
    /// somebody is more than one revision ahead of it, as after a loss of the master's journal.
    /// Needs the votes of all members. Default false.
    pub restore: bool,
    /// Indices of the entries that may have changed since the last sync: only these are hashed. A
    /// change elsewhere goes unseen until a sync without this hint. Default `None`: all.
    pub touched: Option<Vec<usize>>,
    /// When to cancel it for everybody. `None`: the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Threads that hash. `None`: as many as there are cores, at most 8.
    pub hash_threads: Option<usize>,
}

/// What a sync did at this peer.
#[derive(Clone, Debug)]
pub struct SyncInfo {
    /// The revision that all members have now.
    pub revision: u64,
    /// The digest over all entries, equal at all members.
    pub root: Digest,
    /// Bytes given to other members.
    pub sent_bytes: u64,
    /// Bytes received: blocks that differed, and digests.
    pub received_bytes: u64,
    /// Who gave them, and how many of those that were used.
    pub sources: Vec<(PeerId, u64)>,
    /// Members that took part.
    pub members: Vec<PeerId>,
    /// The view this peer was in when it was told.
    pub view: Arc<View>,
    /// The sync's name in the history.
    pub op: OpName,
    /// Attempts it took.
    pub attempts: u32,
    /// Time from call to return.
    pub duration: Duration,
    /// How much of it went into hashing the own state.
    pub hashing: Duration,
}

/// A sync under way. Dropping it cancels, and waits until nothing touches the state.
#[derive(Debug)]
pub struct SyncHandle<'s, 'a> {
    raw: RawHandle,
    holding: Arc<Holding>,
    state: &'s mut SharedState<'a>,
    started: Instant,
    hashing: Duration,
    communicator: Communicator,
    is_settled: bool,
}

impl Communicator {
    /// Makes a state equal at all members of the group: the master elects one content by revision
    /// and popularity, and whoever lacks it gets the blocks that differ from those that have it,
    /// verified. All members call it; blocks until all have it. A member that is lost meanwhile
    /// does not disturb the others. On entry the memory is the caller's state, on success the
    /// elected one, and nobody may write it in between.
    ///
    /// # Errors
    /// [`crate::Error::SharedState`] names who called with other entries, strategies or revisions;
    /// nothing moved. [`crate::Error::Cancelled`], [`crate::Error::TooFewPeers`], the fatal ones.
    /// After an error [`SharedState::is_usable`] says whether the content is still whole.
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

    /// As [`Communicator::sync_shared_state`], with options, and with something to do meanwhile:
    /// `body` runs once the state is hashed, and may follow and cancel the sync by its handle. Then
    /// blocks until the sync has ended.
    ///
    /// # Errors
    /// As [`Communicator::sync_shared_state`]. [`crate::Error::InvalidArgument`], and
    /// [`crate::Error::InvalidUsage`] if another sync is under way; then `body` does not run.
    pub fn sync_while<'s, 'a>(
        &self,
        state: &'s mut SharedState<'a>,
        options: &SyncOptions,
        body: impl FnOnce(&SyncHandle<'s, 'a>),
    ) -> Result<SyncInfo> {
        // SAFETY: the handle stays in this frame, which waits for it, or drops it if `body` panics.
        let handle = unsafe { self.sync_shared_state_async(state, options) }?;
        body(&handle);
        handle.wait()
    }

    /// Starts a sync: hashes the state, which takes the calling thread's time, and returns.
    /// [`Communicator::sync_while`] does the same within a scope, and is safe.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`], [`crate::Error::InvalidUsage`] if another sync is under
    /// way; the rest from the handle.
    ///
    /// # Safety
    /// Threads of the library write the state's memory until the handle is dropped or waited for,
    /// which must happen before the memory is used in any other way: the handle must not be leaked.
    ///
    /// ```compile_fail,E0133
    /// # fn f(communicator: &ccl_core::Communicator) -> ccl_core::Result<()> {
    /// let mut weights = vec![0.0_f32; 1 << 20];
    /// let mut state = ccl_core::SharedState::new(0);
    /// state.add("weights", &[1 << 20], &mut weights)?;
    /// std::mem::forget(communicator.sync_shared_state_async(&mut state, &Default::default())?);
    /// drop(weights); // The library still writes them.
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn sync_shared_state_async<'s, 'a>(
        &self,
        state: &'s mut SharedState<'a>,
        options: &SyncOptions,
    ) -> Result<SyncHandle<'s, 'a>> {
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
            parts: Vec::new(),
            tag: Tag::SHARED_STATE,
            deadline: options.deadline,
            holding: Some(Arc::clone(&holding)),
            world_size: None,
        };
        let raw = RawHandle::new(self.session().post(operation)?);
        Ok(SyncHandle {
            raw,
            holding,
            state,
            started,
            hashing,
            communicator: self.clone(),
            is_settled: false,
        })
    }
}

impl SyncHandle<'_, '_> {
    /// Blocks until it has ended.
    ///
    /// # Errors
    /// As [`Communicator::sync_shared_state`].
    pub fn wait(mut self) -> Result<SyncInfo> {
        let end = self.raw.wait();
        self.settle();
        let outcome = end.map_err(|error| self.with_entry(error))?;
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

    /// Blocks at most `timeout`; whether it has ended. It goes on either way.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> bool {
        self.raw.wait_for(timeout).is_ok() || self.is_finished()
    }

    /// Whether it has ended, one way or another. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Whether it has ended, or a promise to wake the context's waker when it has; the newest waker
    /// counts. Wakers are woken by the library's threads and must not block.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.raw.poll(context).map(drop)
    }

    /// Asks to abort it for all members; the verdict may still be success. Does not block.
    pub fn cancel(&self) {
        self.raw.cancel();
    }

    /// Bytes that differed and are here, and all of them; for a source, the bytes it gave. After
    /// the end what it was then. Does not block.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.raw.progress()
    }

    /// Whether this peer's content is the elected one, which others may be reading; `None` before
    /// the election. The memory may be read by the caller then, and must not be written before the
    /// end. Stays what it was after that.
    #[must_use]
    pub fn is_source(&self) -> Option<bool> {
        self.raw.is_source()
    }

    /// For other threads than the one that waits.
    #[must_use]
    pub fn watch(&self) -> SyncWatch {
        SyncWatch {
            call: self.raw.call(),
        }
    }

    /// Names the entry in which the members differ, if this one knows it.
    fn with_entry(&self, mut error: Error) -> Error {
        if let Error::SharedState {
            fault,
            entry,
            names,
            ..
        } = &mut error
            && let SyncFault::Keys {
                peer,
                usual,
                difference: Some(difference),
                ..
            } = &**fault
        {
            let (keys, odd) = (self.state.keys(), names.of(*peer).to_string());
            let words = if self.holding.keys == *usual {
                Some(odd::describe(keys, difference.reversed(), &odd))
            } else if self.communicator.peer() == *peer {
                Some(odd::describe(keys, **difference, OTHERS))
            } else {
                odd::describe_strange(**difference, &odd, OTHERS)
            };
            *entry = words.map(|words| format!(". {words}"));
        }
        error
    }

    fn settle(&mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.state.settle(&self.holding);
        }
    }
}

/// Tells how far a sync is, and cancels it, while another thread waits for it. It does not keep the
/// state borrowed; after the end it tells how far the sync was.
#[derive(Clone, Debug)]
pub struct SyncWatch {
    call: Arc<Call>,
}

impl SyncWatch {
    /// As [`SyncHandle::cancel`].
    pub fn cancel(&self) {
        self.call.cancel();
    }

    /// As [`SyncHandle::progress`].
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.call.progress()
    }

    /// As [`SyncHandle::is_source`].
    #[must_use]
    pub fn is_source(&self) -> Option<bool> {
        self.call.is_source()
    }
}

impl Drop for SyncHandle<'_, '_> {
    fn drop(&mut self) {
        self.raw.settle();
        self.settle();
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
