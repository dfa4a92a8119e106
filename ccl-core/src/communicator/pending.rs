//! Connecting and safe points, waited for in slices.
//!
//! For callers that must do something else while they wait, such as handle an interpreter's
//! signals. The blocking forms are in the parent module.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::communicator::{Communicator, Membership};
use crate::config::CommunicatorConfig;
use crate::driver::peer::Session;
use crate::driver::peer::call::SafePointCall;
use crate::driver::peer::completion::{Completion, Finished};
use crate::driver::peer::notice::Waiting;
use crate::error::{Error, Result};
use crate::peer::View;
use crate::time::Instant;

/// A connection attempt in progress. Dropping the last clone gives up.
#[derive(Clone, Debug)]
pub struct Connecting {
    membership: Arc<Membership>,
    /// End of the `connect_timeout`.
    until: Instant,
    connect_timeout: Duration,
}

impl Connecting {
    /// Blocks at most `timeout`. Returns the communicator once this peer is admitted, `None`
    /// before.
    ///
    /// # Errors
    /// As [`Communicator::connect`]; `connect_timeout` counts from the start.
    pub fn wait_for(&self, timeout: Duration) -> Result<Option<Communicator>> {
        let session = &self.membership.0;
        session.check_process()?;
        let left = self.until.saturating_since(session.now());
        match session.wait_admitted(timeout.min(left)) {
            Ok(()) => Ok(Some(Communicator {
                membership: Arc::clone(&self.membership),
            })),
            Err(Error::NotAdmitted { .. } | Error::MasterUnreachable { .. }) if timeout < left => {
                Ok(None)
            }
            Err(Error::NotAdmitted { waits, cause, .. }) => Err(Error::NotAdmitted {
                waits,
                cause,
                waited_ms: u64::try_from(self.connect_timeout.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(error) => Err(error),
        }
    }

    /// What it waits for now, as a text for users.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.membership.0.waits_for()
    }

    /// The same for [`crate::Notices`], which decides when to show it.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.membership.0.waiting()
    }

    /// Gives up, from any thread: a waiting thread gets [`Error::Ended`]. Blocks at most a second.
    pub fn cancel(&self) {
        self.membership.0.close();
    }
}

/// A safe point that this peer has reached. Dropping it withdraws the peer from it, unless it has
/// been released.
#[derive(Debug)]
pub struct SafePoint {
    call: SafePointCall,
}

impl SafePoint {
    /// Blocks until the safe point is released.
    ///
    /// # Errors
    /// As [`Communicator::update_topology`].
    pub fn wait(&self) -> Result<Arc<View>> {
        view(self.completion().wait())
    }

    /// Blocks at most `timeout`; `None` if it is not released by then.
    ///
    /// # Errors
    /// As [`Communicator::update_topology`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Option<Arc<View>>> {
        if self.completion().wait_for(timeout) {
            self.wait().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether it was released or withdrawn. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.completion().is_finished()
    }

    /// Polls for the end. Keeps only the newest waker; a thread of the library wakes it, so it must
    /// not block.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Result<Arc<View>>> {
        self.completion().poll(context.waker()).map(view)
    }

    /// Asks to withdraw from it; the next call is then the same safe point again. Does not block.
    pub fn cancel(&self) {
        self.call.cancel();
    }

    fn completion(&self) -> &Completion {
        self.call.completion()
    }
}

impl Drop for SafePoint {
    fn drop(&mut self) {
        if !self.completion().is_finished() {
            self.cancel();
        }
    }
}

fn view(end: Result<Finished>) -> Result<Arc<View>> {
    match end? {
        Finished::SafePoint(view) => Ok(view),
        Finished::Operation(_) | Finished::Recorded(_) | Finished::Left => {
            unreachable!("a safe point ends as one")
        }
    }
}

impl Communicator {
    /// Starts to join a run; [`Connecting::wait_for`] waits for admission.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::Os`].
    pub fn connect_async(config: CommunicatorConfig) -> Result<Connecting> {
        let connect_timeout = config.connect_timeout;
        let session = Session::start(config)?;
        Ok(Connecting {
            until: session.now() + connect_timeout,
            membership: Arc::new(Membership(session)),
            connect_timeout,
        })
    }

    /// Enters a safe point without waiting for the others.
    ///
    /// # Errors
    /// [`Error::Forked`] at once; all others from the safe point.
    pub fn update_topology_async(&self) -> Result<SafePoint> {
        self.session().safe_point().map(|call| SafePoint { call })
    }

    /// Leaves the run as dropping the last clone does: waits at most a second for the master's
    /// answer. Every clone and every open call gets [`Error::Ended`]. Does nothing when called
    /// again, or in a forked child.
    pub fn close(&self) {
        self.session().close();
    }
}
