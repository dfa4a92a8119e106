//! Errors of the public API, one variant per remedy.

use std::fmt;
use std::sync::Arc;

use crate::ids::{OpName, PeerId, Vid};
use crate::names::Names;
use crate::wire::control::{AbortReason, CancelReason, EvictReason, Kind, SyncFault, Wait};

/// Result of the library's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not succeed; the variant says what to do about it.
///
/// Input buffers are intact after every error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A member was lost, or left, during the operation. Call again to run it with the survivors.
    #[error(
        "{} was lost during {}: {}; call again to continue with the survivors",
        .names.of(*.peer), .kind.call(*.op), .reason.words(.names)
    )]
    PeerLost {
        /// The peer that was lost.
        peer: PeerId,
        /// Which collective was called.
        kind: Kind,
        /// The operation, aborted for all members.
        op: OpName,
        /// The view that the survivors are in.
        vid: Vid,
        /// What the master observed.
        reason: EvictReason,
        /// The names of peers.
        names: Names,
    },
    /// A member cancelled the operation, its deadline passed, the members' calls differ, or a
    /// member had no memory for it. It was aborted for all members and is not retried: all callers
    /// get this error.
    #[error("{}", .reason.sentence(.kind.call(*.op), *.by, .names))]
    Cancelled {
        /// Which collective was called.
        kind: Kind,
        /// The operation, aborted for all members.
        op: OpName,
        /// The peer that asked for the abort.
        by: PeerId,
        /// Why it was cancelled.
        reason: Box<CancelReason>,
        /// The names of peers.
        names: Names,
    },
    /// A shared state cannot be synchronised: entries, strategies or revisions do not fit together.
    /// No data was moved. All callers get this error, which names the member that does not fit.
    #[error(
        "the shared state cannot be synchronised: {}{}",
        .fault.words(.names), .entry.as_deref().unwrap_or_default()
    )]
    SharedState {
        /// What does not fit, and on which member.
        fault: Box<SyncFault>,
        /// The entry that differs, if this peer knows it, as the end of a sentence.
        entry: Option<String>,
        /// The sync, aborted for all members.
        op: OpName,
        /// The view that the members are in.
        vid: Vid,
        /// The names of peers.
        names: Names,
    },
    /// Fewer members than `min_world_size`. Call `update_topology` until more peers join.
    #[error(
        "the world size is {world_size}, but {min_world_size} members are needed; call \
         update_topology until more peers join, or, since a closed group admits none, form another"
    )]
    TooFewPeers {
        /// Current world size.
        world_size: u32,
        /// The configured `min_world_size`.
        min_world_size: u32,
    },
    /// The members changed, and the buffers of this call were made for another world size. Nothing
    /// was started. Call again with buffers for the new world size.
    #[error("the world size has changed to {world_size}; call again with buffers for it")]
    WorldChanged {
        /// Current world size.
        world_size: u32,
    },
    /// The master evicted this peer. The session is over; connect again. If the reason was its
    /// shared state ([`ErrorKind::RevisionAhead`]), connect without that state.
    #[error("this peer was evicted from the run: {0}; connect again to rejoin as a newcomer")]
    Evicted(Eviction),
    /// The master refused this peer.
    #[error("the master refused this peer: {0}")]
    Refused(String),
    /// Whether the operation succeeded cannot be known. The session is over; connect again.
    #[error("the outcome is unknown: {0}; the session is over, connect again")]
    Unknown(String),
    /// The session has already ended, or `leave` was called.
    #[error("the session is over: {0}; connect again")]
    Ended(String),
    /// No master could be reached in time.
    #[error("could not reach a master at {address} within connect_timeout: {cause}")]
    MasterUnreachable {
        /// The configured address of the master.
        address: String,
        /// The last attempt's error, and what to do about it.
        cause: String,
    },
    /// The master knows this peer, but it was not admitted in time.
    #[error(
        "registered with the master but not admitted within {waited_ms} ms: {}",
        what_waits(.waits.as_deref(), .cause)
    )]
    NotAdmitted {
        /// How long it waited.
        waited_ms: u64,
        /// What it waited for, as last reported by the master.
        waits: Option<Box<Wait>>,
        /// Why the master cannot be reached, if it cannot.
        cause: Option<String>,
    },
    /// `wait_for` ended before the operation did; the operation goes on.
    #[error("the operation did not finish within the timeout, and goes on")]
    Timeout,
    /// An argument is out of range. Nothing was started.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The call does not fit the state, such as a second operation on a busy tag. Nothing was
    /// started.
    #[error("invalid usage: {0}")]
    InvalidUsage(String),
    /// The object was created before a fork and used in the child.
    #[error("this object belongs to the parent process; create a new one after fork")]
    Forked,
    /// The operating system refused something.
    #[error("{context}: {source}")]
    Os {
        /// What was tried.
        context: String,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
}

/// How a peer was removed from a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The evicted peer's session id.
    pub peer: PeerId,
    /// The last view that it was in; the default if it was never in one.
    pub vid: Vid,
    /// What the master observed.
    pub reason: EvictReason,
    /// The names of peers.
    pub names: Names,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.words(&self.names))
    }
}

impl Error {
    /// An [`Error::InvalidArgument`] with this text.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument(what.into())
    }

    /// An [`Error::InvalidUsage`] with this text.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::InvalidUsage(what.into())
    }

    /// An [`Error::Os`] with this context.
    pub fn os(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Os {
            context: context.into(),
            source: Arc::new(source),
        }
    }

    /// The same error, with the names of peers.
    #[must_use]
    pub fn with_names(mut self, known: Names) -> Self {
        match &mut self {
            Self::PeerLost { names, .. }
            | Self::Cancelled { names, .. }
            | Self::SharedState { names, .. }
            | Self::Evicted(Eviction { names, .. }) => *names = known,
            _ => {}
        }
        self
    }

    /// The kind of error, without its details.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PeerLost { .. } => ErrorKind::PeerLost,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::SharedState { .. } => ErrorKind::SharedState,
            Self::TooFewPeers { .. } => ErrorKind::TooFewPeers,
            Self::WorldChanged { .. } => ErrorKind::WorldChanged,
            Self::Evicted(Eviction {
                reason: EvictReason::RevisionAhead { .. },
                ..
            }) => ErrorKind::RevisionAhead,
            Self::Evicted(_) => ErrorKind::Evicted,
            Self::Refused(_) => ErrorKind::Refused,
            Self::Unknown(_) => ErrorKind::Unknown,
            Self::Ended(_) => ErrorKind::Ended,
            Self::MasterUnreachable { .. } => ErrorKind::MasterUnreachable,
            Self::NotAdmitted { .. } => ErrorKind::NotAdmitted,
            Self::Timeout => ErrorKind::Timeout,
            Self::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Self::InvalidUsage(_) => ErrorKind::InvalidUsage,
            Self::Forked => ErrorKind::Forked,
            Self::Os { .. } => ErrorKind::Os,
        }
    }

    /// Whether the same call may succeed if it is made again in this session.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.kind().is_fatal()
    }

    /// The error that a caller gets for an abort verdict.
    #[must_use]
    pub fn from_abort(kind: Kind, op: OpName, vid: Vid, reason: AbortReason) -> Self {
        match reason {
            AbortReason::Lost { peer, reason } => Self::PeerLost {
                peer,
                kind,
                op,
                vid,
                reason,
                names: Names::default(),
            },
            AbortReason::Cancelled { by, reason } => Self::Cancelled {
                kind,
                op,
                by,
                reason: Box::new(reason),
                names: Names::default(),
            },
            AbortReason::State(fault) => Self::SharedState {
                fault: Box::new(fault),
                entry: None,
                op,
                vid,
                names: Names::default(),
            },
        }
    }
}

/// The kinds of errors, for bindings that map each to a number or a class: [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each of the others is described by the error of the same name"
)]
pub enum ErrorKind {
    PeerLost,
    Cancelled,
    SharedState,
    TooFewPeers,
    WorldChanged,
    Evicted,
    /// [`Error::Evicted`] because of a shared state that is more than one revision ahead of the
    /// run. A peer that rejoins with that state is evicted again: start without it, or load the
    /// run's own checkpoint.
    RevisionAhead,
    Refused,
    Unknown,
    Ended,
    MasterUnreachable,
    NotAdmitted,
    Timeout,
    InvalidArgument,
    InvalidUsage,
    Forked,
    Os,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::PeerLost,
        Self::Cancelled,
        Self::SharedState,
        Self::TooFewPeers,
        Self::WorldChanged,
        Self::Evicted,
        Self::RevisionAhead,
        Self::Refused,
        Self::Unknown,
        Self::Ended,
        Self::MasterUnreachable,
        Self::NotAdmitted,
        Self::Timeout,
        Self::InvalidArgument,
        Self::InvalidUsage,
        Self::Forked,
        Self::Os,
    ];

    /// As [`Error::is_retryable`].
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::PeerLost | Self::TooFewPeers | Self::WorldChanged
        )
    }

    /// As [`Error::is_fatal`].
    #[must_use]
    pub fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::Evicted
                | Self::RevisionAhead
                | Self::Refused
                | Self::Unknown
                | Self::Ended
                | Self::Forked
        )
    }
}

/// Why a peer was not admitted, and what to do.
fn what_waits(waits: Option<&Wait>, cause: &Option<String>) -> String {
    match (waits, cause) {
        (_, Some(cause)) => format!("the master was lost: {cause}"),
        (Some(wait), None) => wait.to_string(),
        (None, None) => "the master has not reported why".into(),
    }
}
