//! What a caller wants done, and the call in progress as its handle sees it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::collective::Buffer;
use crate::communicator::Progress;
use crate::driver::completion::Completion;
use crate::driver::peer::Session;
use crate::error::Result;
use crate::ids::{CallId, OpName, Tag};
use crate::state::holding::Holding;
use crate::wire::control::Fingerprint;

/// A collective that a caller wants done.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// What all members must agree on.
    pub(crate) fingerprint: Fingerprint,
    /// The caller's memory.
    pub(crate) parts: Vec<Buffer>,
    /// Its stream.
    pub(crate) tag: Tag,
    /// When to cancel it; `None`: the communicator's default.
    pub(crate) deadline: Option<Duration>,
    /// The caller's shared state, if it is a sync.
    pub(crate) holding: Option<Arc<Holding>>,
    /// Members that it was called for, where lengths or the root depend on it.
    pub(crate) world_size: Option<usize>,
}

/// One call in progress, as its handle sees it.
#[derive(Debug)]
pub struct Call {
    pub(super) id: CallId,
    pub(super) session: Arc<Session>,
    pub(super) completion: Arc<Completion>,
    /// The attempt under way, for progress.
    pub(super) op: Mutex<Option<OpName>>,
}

impl Call {
    /// The caller's name for it.
    pub(super) fn id(&self) -> CallId {
        self.id
    }

    /// Where its end will be.
    pub(crate) fn completion(&self) -> &Completion {
        &self.completion
    }

    pub(super) fn completion_arc(&self) -> Arc<Completion> {
        Arc::clone(&self.completion)
    }

    /// An error in a forked child, where nothing would ever end it.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.session.check_process()
    }

    /// Asks for an abort.
    pub(crate) fn cancel(&self) {
        self.session.cancel(self.id);
    }

    /// Whether this peer's content was elected in a sync.
    pub(crate) fn is_source(&self) -> Option<bool> {
        let op = (*self.op.lock())?;
        self.session.state.is_source(op)
    }

    /// How far it is at this peer.
    pub(crate) fn progress(&self) -> Progress {
        let op = *self.op.lock();
        let (done_bytes, total_bytes) = op
            .and_then(|op| {
                let session = &self.session;
                let sync = session.state.progress(op);
                sync.or_else(|| session.engine.progress(op))
            })
            .unwrap_or_default();
        Progress {
            done_bytes,
            total_bytes,
        }
    }
}

/// One safe point in progress, as whoever came to it sees it.
#[derive(Debug)]
pub(crate) struct SafePointCall {
    pub(super) id: CallId,
    pub(super) session: Arc<Session>,
    pub(super) completion: Arc<Completion>,
}

impl SafePointCall {
    /// Where its end will be.
    pub(crate) fn completion(&self) -> &Completion {
        &self.completion
    }

    /// Asks to come back from it.
    pub(crate) fn cancel(&self) {
        self.session.cancel(self.id);
    }
}
