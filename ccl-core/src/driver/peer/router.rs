//! Routes data frames to collectives and syncs, and turns the sync engine's events into inputs.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::collective::Engine;
use crate::config::CommunicatorConfig;
use crate::driver::clock::Clock;
use crate::driver::peer::call::Operation;
use crate::driver::peer::core::Item;
use crate::driver::peer::session::Session;
use crate::ids::{OpName, PeerId};
use crate::peer::{Input, PeerToPeer};
use crate::state::engine::{StateEngine, StateEvent, StateTools};
use crate::transport::{Frame, FrameHeader, Handler, LinkHandler, LinkName, Links, Placement};
use crate::wire::control::{Called, LinkFault};

/// Hands what arrives to the collectives or to shared state.
struct Router {
    engine: Arc<Engine>,
    state: Arc<StateEngine>,
    links: Arc<dyn Links>,
    session: Weak<Session>,
}

impl Session {
    /// The handler of everything that arrives on the links.
    pub(super) fn router(&self) -> Handler {
        Arc::new(Router {
            engine: Arc::clone(&self.engine),
            state: Arc::clone(&self.state),
            links: Arc::clone(&self.links),
            session: self.weak.clone(),
        })
    }

    /// Nothing reads or writes the memory of this operation any more.
    pub(super) fn stop_op(&self, op: OpName) {
        self.engine.stop(op);
        self.state.stop(op);
    }
}

impl Operation {
    /// A sync that is repeated brings what it has now.
    pub(super) fn renew_offer(&mut self) {
        if let (Some(holding), Called::Sync(offer)) = (&self.holding, &mut self.fingerprint.called)
        {
            (offer.content, offer.is_usable) = holding.offered();
        }
    }
}

/// The engine, whose events are inputs of the machine.
pub(super) fn state_engine(
    session: &Weak<Session>,
    clock: Clock,
    config: &CommunicatorConfig,
    links: &Arc<dyn Links>,
) -> Arc<StateEngine> {
    let (for_events, for_wake) = (session.clone(), session.clone());
    let events = move |event| {
        if let Some(session) = for_events.upgrade() {
            match event {
                StateEvent::Held(op) => session.submit(Input::Held(op)),
                StateEvent::Failed(op, reason) => session.take(Item::SyncFailed(op, reason)),
            }
        }
    };
    let wake = move || {
        if let Some(session) = for_wake.upgrade() {
            session.state_alarm.set(session.state.deadline());
        }
    };
    Arc::new(StateEngine::new(StateTools {
        sender: Arc::clone(links) as _,
        events: Box::new(events),
        clock: Box::new(move || clock.now()),
        wake: Box::new(wake),
        rate: config.state_bytes_per_second,
    }))
}

fn is_of_state(header: &FrameHeader) -> bool {
    matches!(
        header.frame,
        Frame::StateAsk { .. }
            | Frame::StateDigestAsk { .. }
            | Frame::StateBlocks { .. }
            | Frame::StateDigests { .. }
    )
}

impl LinkHandler for Router {
    fn signal(
        &self,
        from: PeerId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), &'static str> {
        if is_of_state(header) {
            return self.state.signal(from, header, &payload);
        }
        if let Some(message) = PeerToPeer::of(header) {
            if !payload.is_empty() {
                return Err("a payload behind a message that has none");
            }
            if let Some(session) = self.session.upgrade() {
                session.submit(Input::Said {
                    peer: from,
                    message,
                });
            }
            return Ok(());
        }
        self.engine.signal(from, header, payload)
    }

    fn place(&self, from: PeerId, header: &FrameHeader) -> Placement {
        if is_of_state(header) {
            return self.state.place(from, header);
        }
        self.engine.place(from, header)
    }

    fn arrived(&self, from: PeerId, header: &FrameHeader) {
        if is_of_state(header) {
            return self.state.arrived(from, header);
        }
        self.engine.arrived(from, header);
    }

    fn link_up(&self, link: LinkName) {
        self.engine.link_up(link);
    }

    fn link_down(&self, link: LinkName, fault: LinkFault, gave_up: bool) {
        if gave_up && self.links.is_current(link) {
            self.state.lose(link.peer);
        }
        self.engine.link_down(link, fault, gave_up);
    }

    fn no_link(&self, link: LinkName, why: String) {
        self.engine.no_link(link, why);
    }

    fn lane_repaired(&self, peer: PeerId, lane: u16) {
        self.engine.lane_repaired(peer, lane);
    }
}
