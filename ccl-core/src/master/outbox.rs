//! The master's outputs, in the order in which it decided them.

use std::collections::VecDeque;

use crate::event::Event;
use crate::master::{ConnectionId, Output, Record};
use crate::wire::control::MasterToPeer;

/// Outputs that the driver has not yet taken. It drains them after every input, so their number is
/// bounded by what one input can cause.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
}

impl Outbox {
    pub fn send(&mut self, connection: ConnectionId, message: MasterToPeer) {
        self.queue.push_back(Output::Send {
            connection,
            message,
        });
    }

    pub fn close(&mut self, connection: ConnectionId) {
        self.queue.push_back(Output::Close { connection });
    }

    /// Seals a record that must be on disk before anything that depends on it is sent.
    pub fn seal(&mut self, record: Record) {
        self.queue.push_back(Output::Journal {
            record,
            durable: true,
        });
    }

    /// Seals a record that the members of the view know too, so that it may be written lazily.
    pub fn seal_lazily(&mut self, record: Record) {
        self.queue.push_back(Output::Journal {
            record,
            durable: false,
        });
    }

    pub fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    pub fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
