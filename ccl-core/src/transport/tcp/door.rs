//! Hands an identified connection to the task of its lane. Holds one at a time; a newer attempt
//! replaces it.

use std::net::SocketAddr;

use crate::lock::Mutex;
use tokio::sync::Notify;

use crate::net::Stream;
use crate::wire::data::LaneHello;

/// A connection with a valid hello.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) stream: Stream,
    pub(super) remote: SocketAddr,
    pub(super) hello: LaneHello,
}

/// The door of one lane.
#[derive(Debug, Default)]
pub(super) struct Door {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    newest_attempt: u64,
    visitor: Option<Visitor>,
}

impl Door {
    /// Keeps a connection, unless a newer attempt came before it.
    pub(super) fn enter(&self, visitor: Visitor) {
        let mut waiting = self.waiting.lock();
        if visitor.hello.attempt > waiting.newest_attempt {
            waiting.newest_attempt = visitor.hello.attempt;
            waiting.visitor = Some(visitor);
            self.bell.notify_one();
        }
    }

    /// Takes the waiting connection, or the next one.
    pub(super) async fn next(&self) -> Visitor {
        loop {
            if let Some(visitor) = self.waiting.lock().visitor.take() {
                return visitor;
            }
            self.bell.notified().await;
        }
    }

    /// Returns when a connection waits.
    pub(super) async fn knock(&self) {
        while self.waiting.lock().visitor.is_none() {
            self.bell.notified().await;
        }
    }
}
