//! One active sync of one peer: its role in it, and how it reacts to events.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fetch::{Fetch, FetchEnd};
use super::frames::payload;
use super::holding::Holding;
use super::serve::Serve;
use super::{Order, What};
use crate::buffer::{Gate, Region};
use crate::ids::{Members, OpName, PeerId};
use crate::limits::STATE_ASKS_MAX;
use crate::time::Instant;
use crate::transport::Payload;
use crate::wire::state::StateId;

/// Events for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateEvent {
    /// The elected content is here.
    Held(OpName),
    /// It is not available; the reason as text.
    Failed(OpName, String),
}

/// The parameters of a sync.
#[derive(Clone, Debug)]
pub struct StartSync {
    /// The sync's operation.
    pub op: OpName,
    /// Members in rank order.
    pub members: Members,
    /// This peer's rank.
    pub rank: usize,
    /// The caller's state.
    pub holding: Arc<Holding>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub start: StartSync,
    pub gate: Arc<Gate>,
    pub elected: Option<StateId>,
    pub role: Role,
    /// Whether its end was reported.
    pub is_told: bool,
    /// Memory that blocks are being received into.
    pub buffers: BTreeMap<(PeerId, What, u32), Region>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(super) enum Role {
    /// The election has not arrived yet; others may already send requests.
    Waiting(Vec<Order>),
    Source(Serve),
    Receiver(Fetch),
}

/// What is to be done without the lock.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub op: OpName,
    pub asks: Vec<Order>,
    pub gives: Vec<(Order, Payload)>,
    pub event: Option<StateEvent>,
}

impl Running {
    pub fn take_ask(&mut self, order: Order) -> Result<(), &'static str> {
        match &mut self.role {
            Role::Source(serve) => serve.ask(order),
            Role::Waiting(early) if early.len() < STATE_ASKS_MAX => {
                early.push(order);
                Ok(())
            }
            Role::Waiting(_) => Err("too many requests before the election"),
            Role::Receiver(_) => Err("a request for content that this peer does not have"),
        }
    }

    pub fn take_early(&mut self, role: Role) {
        if let Role::Waiting(early) = role {
            for order in early {
                if let Err(reason) = self.take_ask(order) {
                    tracing::warn!(peer = %order.peer, reason, "a request for shared state is \
                                                                ignored");
                }
            }
        }
    }

    /// What the end of the fetch means, the first time that it is looked at.
    pub fn end(&mut self) -> Option<StateEvent> {
        let op = self.start.op;
        let Role::Receiver(fetch) = &self.role else {
            return None;
        };
        let end = fetch.end()?;
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        match end {
            FetchEnd::Held => {
                self.start.holding.complete(self.elected?);
                Some(StateEvent::Held(op))
            }
            FetchEnd::AllLied(liars) => {
                let liars: Vec<_> = liars.iter().map(ToString::to_string).collect();
                let reason = match &liars[..] {
                    [] => "no peer is left to send the elected state".to_owned(),
                    liars => format!(
                        "all sources of the elected state sent other content: peers {}",
                        liars.join(", ")
                    ),
                };
                Some(StateEvent::Failed(op, reason))
            }
        }
    }

    pub fn collect(&mut self, jobs: &mut Jobs, now: Instant) {
        match &mut self.role {
            Role::Waiting(_) => {}
            Role::Receiver(fetch) => jobs.asks.extend(std::iter::from_fn(|| fetch.poll_order())),
            Role::Source(serve) => {
                while let Some(order) = serve.poll_order(now) {
                    if let Some(payload) = payload(&self.start.holding, &self.gate, &order) {
                        jobs.gives.push((order, payload));
                    }
                }
            }
        }
    }
}
