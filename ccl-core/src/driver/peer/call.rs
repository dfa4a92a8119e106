//! What a caller asks for, and the call in progress as its handle sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::lock::Mutex;

use crate::collective::Brought;
use crate::driver::peer::completion::Completion;
use crate::driver::peer::session::Session;
use crate::error::Result;
use crate::ids::{CallId, OpName, Tag};
use crate::outcome::Progress;
use crate::state::holding::Holding;
use crate::wire::control::Fingerprint;

/// A collective that a caller wants done.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// What all members must agree on.
    pub(crate) fingerprint: Fingerprint,
    /// The caller's memory, and how it counts.
    pub(crate) brought: Brought,
    /// The call's tag.
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
    /// The attempt in progress, for `progress`.
    pub(super) op: Mutex<Option<OpName>>,
    /// How far it was when its newest attempt ended.
    pub(super) last: Mutex<Standing>,
}

/// How far an attempt is at this peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    progress: Progress,
    is_source: Option<bool>,
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
        self.standing().is_source
    }

    /// How far it is at this peer.
    pub(crate) fn progress(&self) -> Progress {
        self.standing().progress
    }

    /// Remembers how far an attempt is: its bytes are about to stop, and with them what is known of
    /// them. Nothing to a call that is at another attempt by now.
    pub(super) fn keep_standing(&self, op: OpName) {
        if *self.op.lock() == Some(op) {
            let standing = self.standing();
            *self.last.lock() = standing;
        }
    }

    /// The call starts again, with an attempt that may end differently.
    pub(super) fn forget_standing(&self) {
        *self.op.lock() = None;
        *self.last.lock() = Standing::default();
    }

    fn standing(&self) -> Standing {
        // What stops during the check was recorded before.
        let under_way = self.under_way();
        under_way.unwrap_or_else(|| *self.last.lock())
    }

    fn under_way(&self) -> Option<Standing> {
        let op = (*self.op.lock())?;
        let session = &self.session;
        // Asked before the progress: without one the sync is over, and this was kept.
        let is_source = session.state.is_source(op);
        let sync = session.state.progress(op);
        let (done_bytes, total_bytes) = sync.or_else(|| session.engine.progress(op))?;
        Some(Standing {
            progress: Progress {
                done_bytes,
                total_bytes,
            },
            is_source,
        })
    }
}

/// One step of a stream of records in progress, as its caller sees it.
#[derive(Debug)]
pub(crate) struct RecordCall {
    pub(super) session: Arc<Session>,
    pub(super) completion: Arc<Completion>,
}

impl RecordCall {
    /// Where its end will be.
    pub(crate) fn completion(&self) -> &Completion {
        &self.completion
    }

    /// An error in a forked child, where nothing would ever end it.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.session.check_process()
    }
}

/// One safe point in progress, as its caller sees it.
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
