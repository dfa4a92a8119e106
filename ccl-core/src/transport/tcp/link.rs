//! All connections to one other peer: what their tasks share, and which connections are accepted.
//!
//! `keeper` judges and reports whether the link works.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::lock::Mutex;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::control::Control;
use super::door::Visitor;
use super::keeper::{Event, Keeper};
use super::lane::Lane;
use super::offer::Offers;
use super::probe::Probes;
use super::signal::Sent;
use super::tuner::LaneSample;
use super::window::Entry;
use super::{FrameHeader, Handler, LinkName, Payload};
use super::{Identity, Inner, LinkCounters, Rates};
use crate::descriptors::Owner;
use crate::ids::{LinkKey, OpName, PeerId};
use crate::limits;
use crate::net::{self, Tuned, Tuning, Warnings};
use crate::peer::Neighbour;
use crate::wire::control::LinkFault;
use crate::wire::data::{Answer, LaneHello, LaneWelcome};

/// Events that wait for the keeper; lanes wait beyond.
const EVENTS_MAX: usize = 64;
/// What is the same for all links of a peer.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) lanes: Option<u16>,
    pub(super) checksum: bool,
    pub(super) tuning: Tuning,
    pub(super) warnings: Arc<Warnings>,
    pub(super) sockets: Arc<Owner>,
    pub(super) probes: Probes,
}

/// A link to one other peer.
pub(super) struct Link {
    pub(super) peer: PeerId,
    /// Which one of this side's links with the peer it is.
    pub(super) incarnation: u64,
    /// Whether it replaces one that lost frames which the other side may not have received.
    pub(super) follows_loss: bool,
    pub(super) identity: Identity,
    pub(super) settings: Arc<Settings>,
    pub(super) warnings: Arc<Warnings>,
    pub(super) handler: Handler,
    pub(super) dials: bool,
    /// If this side dials: connections that the other side made.
    pub(super) offers: Offers,
    /// If this side dials: an address of the other side has led to it.
    pub(super) is_reached: AtomicBool,
    /// If the other side dials: a lane has lost its connection.
    pub(super) lacks: Notify,
    /// If the other side dials: it has greeted over a connection that this side made.
    pub(super) is_offered: AtomicBool,
    /// Bulk frames that no lane has taken yet.
    pub(super) queue: Mutex<VecDeque<Entry>>,
    /// One permit a frame: wakes the lane that has been idle longest.
    pub(super) bulk_ready: Notify,
    /// Wakes the pacer.
    pub(super) traffic: Notify,
    /// The pacer sleeps until there is traffic.
    is_quiet: AtomicBool,
    neighbour: Mutex<Neighbour>,
    /// The other side's incarnation, once known.
    remote: Mutex<Option<u64>>,
    /// As many lanes as a link may have, the signal lane first.
    lanes: Vec<Arc<Lane>>,
    /// How many of them it has: the dialling side announces that, and adds some where they help.
    count: AtomicUsize,
    events: mpsc::Sender<Event>,
    /// More was queued on the signal lane than it may hold.
    pub(super) is_stuck: AtomicBool,
    /// The link has failed permanently: no connection is accepted, nothing is sent.
    pub(super) is_failed: AtomicBool,
    pub(super) repairs: AtomicU64,
    tuned: Mutex<Option<Tuned>>,
    rates: Mutex<Rates>,
    keeper: OnceLock<AbortHandle>,
}

/// The outcome for a connection that has identified itself.
#[derive(Debug)]
pub(super) enum Admission {
    /// Its lane took it.
    Entered,
    /// The other side must restart the link.
    Stale(Visitor),
    /// This side must restart the link: the other side has forgotten it.
    Renew(Visitor),
    /// It is closed.
    Closed(&'static str),
}

impl Link {
    /// Makes a link and its tasks.
    pub(super) fn start(inner: &Arc<Inner>, runtime: &Handle, seed: LinkSeed) -> Arc<Self> {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let dials = seed.neighbour.dial;
        let link = Arc::new(Self {
            peer: seed.peer,
            incarnation: seed.incarnation,
            follows_loss: seed.follows_loss,
            identity: seed.identity,
            warnings: Arc::clone(&seed.settings.warnings),
            settings: seed.settings,
            handler: seed.handler,
            dials,
            offers: Offers::default(),
            is_reached: AtomicBool::new(false),
            lacks: Notify::new(),
            is_offered: AtomicBool::new(false),
            queue: Mutex::default(),
            bulk_ready: Notify::new(),
            traffic: Notify::new(),
            is_quiet: AtomicBool::new(false),
            neighbour: Mutex::new(seed.neighbour),
            remote: Mutex::new(None),
            lanes: (0..=limits::LANES_MAX).map(Lane::new).collect(),
            count: AtomicUsize::new(1),
            events,
            is_stuck: AtomicBool::new(false),
            is_failed: AtomicBool::new(false),
            repairs: AtomicU64::new(0),
            tuned: Mutex::new(None),
            rates: Mutex::default(),
            keeper: OnceLock::new(),
        });
        if dials {
            link.add_lanes(link.wanted_lanes());
        }
        let keeper = Keeper::new(Arc::clone(&link), Arc::downgrade(inner));
        let task = runtime.spawn(keeper.run(inbox));
        let _first = link.keeper.set(task.abort_handle());
        link
    }

    pub(super) fn name(&self) -> LinkName {
        LinkName {
            peer: self.peer,
            incarnation: self.incarnation,
        }
    }

    /// Ends the link: its connections close as soon as their tasks have stopped.
    pub(super) fn stop(&self) {
        self.is_failed.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }

    /// The link has at least this many bulk lanes from now on; true if it had fewer.
    pub(super) fn add_lanes(&self, bulk: u16) -> bool {
        let count = usize::from(bulk.min(limits::LANES_MAX)) + 1;
        self.count.fetch_max(count, Ordering::AcqRel) < count
    }

    /// Adds lanes to a link that this side dials; false if it has as many.
    pub(super) async fn grow(&self, bulk: u16) -> bool {
        let is_more = self.dials && self.add_lanes(bulk);
        if is_more {
            self.tell(Event::Lanes).await;
        }
        is_more
    }

    /// How many bulk lanes the dialling side makes.
    fn wanted_lanes(&self) -> u16 {
        let nearest = self.addresses().first().copied();
        match self.settings.lanes {
            Some(lanes) => lanes,
            None if nearest.is_some_and(net::is_of_this_host) => limits::LANES_SAME_HOST,
            None => limits::LANES_DEFAULT,
        }
    }

    pub(super) fn signal_lane(&self) -> &Arc<Lane> {
        &self.lanes[0]
    }

    /// The lanes that are known.
    pub(super) fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes[..self.count.load(Ordering::Acquire)]
    }

    /// Whether a lane has no connection.
    pub(super) fn is_lacking(&self) -> bool {
        let is_served = |lane: &Arc<Lane>| lane.is_served.load(Ordering::Relaxed);
        !self.is_failed.load(Ordering::Relaxed) && !self.lanes().iter().all(is_served)
    }

    pub(super) async fn tell(&self, event: Event) {
        // The keeper is gone only when this task is about to be.
        let _gone = self.events.send(event).await;
    }

    pub(super) fn key(&self) -> LinkKey {
        self.neighbour.lock().key
    }

    pub(super) fn neighbour(&self) -> Neighbour {
        self.neighbour.lock().clone()
    }

    /// Whether the other side is still the same; if so, adopts its newest addresses.
    pub(super) fn refresh(&self, neighbour: &Neighbour) -> bool {
        let mut known = self.neighbour.lock();
        if known.key != neighbour.key || known.dial != neighbour.dial {
            return false;
        }
        if known
            .addresses
            .iter()
            .any(|address| !neighbour.addresses.contains(address))
            || known.addresses.len() != neighbour.addresses.len()
        {
            known.addresses.clone_from(&neighbour.addresses);
        }
        true
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.neighbour.lock().addresses.clone()
    }

    /// The address worked: from now on it is tried first.
    pub(super) fn prefer(&self, address: SocketAddr) {
        let addresses = &mut self.neighbour.lock().addresses;
        if let Some(index) = addresses.iter().position(|known| *known == address) {
            addresses[..=index].rotate_right(1);
        }
    }

    /// The address led to something else than the other side: from now on it is tried last.
    pub(super) fn demote(&self, address: SocketAddr) {
        let addresses = &mut self.neighbour.lock().addresses;
        if let Some(index) = addresses.iter().position(|known| *known == address) {
            addresses[index..].rotate_left(1);
        }
    }

    /// The other side's key, its incarnation if known, and the number of bulk lanes.
    pub(super) fn hello_facts(&self) -> (LinkKey, u64, u16) {
        let known = self.remote.lock().unwrap_or(0);
        let lanes = self.lanes().len().saturating_sub(1);
        let lanes = u16::try_from(lanes).expect("a link has at most LANES_MAX lanes");
        (self.key(), known, lanes)
    }

    /// Whether the other side's link is the known one; the first one becomes known.
    pub(super) fn is_remote(&self, incarnation: u64) -> bool {
        *self.remote.lock().get_or_insert(incarnation) == incarnation
    }

    pub(super) fn welcome(&self, hello: &LaneHello, next_expected: u64) -> LaneWelcome {
        LaneWelcome {
            answer: Answer::Accepted,
            run: self.identity.run,
            from: self.identity.peer,
            to: self.peer,
            incarnation: self.incarnation,
            attempt: hello.attempt,
            next_expected,
            lane: hello.lane,
            lanes: hello.lanes,
            checksum: hello.checksum || self.settings.checksum,
        }
    }

    /// Accepts a connection whose keys are right.
    pub(super) fn admit(&self, visitor: Visitor) -> Admission {
        let hello = &visitor.hello;
        if self.dials {
            return Admission::Closed("both sides dial");
        }
        if self.is_failed.load(Ordering::Relaxed) {
            return Admission::Closed("the link has failed");
        }
        if hello.known != 0 && hello.known != self.incarnation {
            return Admission::Stale(visitor);
        }
        let known = *self.remote.lock().get_or_insert(hello.incarnation);
        if hello.incarnation < known {
            return Admission::Closed("an outdated connection");
        }
        if hello.incarnation > known {
            return Admission::Renew(visitor);
        }
        let is_new = self.add_lanes(hello.lanes);
        self.tune(&visitor.stream);
        self.lanes[usize::from(hello.lane)].door.enter(visitor);
        if is_new {
            // If its inbox is full, the keeper sees the number at its next tick.
            let _told = self.events.try_send(Event::Lanes);
        }
        Admission::Entered
    }

    pub(super) fn send_signal(&self, header: FrameHeader, payload: Bytes) {
        if self.is_failed.load(Ordering::Relaxed) || self.is_stuck.load(Ordering::Relaxed) {
            return;
        }
        if self.signal_lane().send_signal(header, payload) == Sent::Overflow {
            self.is_stuck.store(true, Ordering::Relaxed);
            let reason = "the other side does not read its signal frames";
            // If its inbox is full, the keeper sees the mark at its next tick.
            let _told = self
                .events
                .try_send(Event::Failed(LinkFault::TimedOut, reason));
        }
    }

    pub(super) fn send_bulk(&self, header: FrameHeader, payload: Payload) {
        if self.is_failed.load(Ordering::Relaxed) {
            return;
        }
        self.queue.lock().push_back(Entry::Frame(header, payload));
        self.bulk_ready.notify_one();
        if self.is_quiet.load(Ordering::Relaxed) && self.is_quiet.swap(false, Ordering::Relaxed) {
            self.traffic.notify_one();
        }
    }

    /// The pacer is about to sleep: the next bulk frame wakes it. Returns whether some wait now.
    pub(super) fn await_traffic(&self) -> bool {
        self.is_quiet.store(true, Ordering::SeqCst);
        !self.queue.lock().is_empty()
    }

    pub(super) fn forget(&self, op: OpName) {
        self.queue
            .lock()
            .retain(|entry| !matches!(entry, Entry::Frame(header, _) if header.op == op));
        for lane in self.lanes().iter().skip(1) {
            lane.out.lock().window.forget(op);
        }
    }

    /// Whether frames were sent that the other side may not have received.
    pub(super) fn has_unsettled(&self) -> bool {
        !self.queue.lock().is_empty() || self.lanes().iter().any(|lane| lane.has_unsettled())
    }

    #[cfg(test)]
    pub(super) fn reset_lane(&self, lane: u16) {
        if let Some(lane) = self.lanes().get(usize::from(lane)) {
            lane.kill(true);
        }
    }

    pub(super) fn counters(&self) -> LinkCounters {
        let sent = |lane: &Arc<Lane>| lane.sent_bytes.load(Ordering::Relaxed);
        let lane_sent_bytes: Vec<u64> = self.lanes().iter().map(sent).collect();
        let bulk = self.lanes().iter().skip(1);
        let used = bulk.filter(|lane| lane.is_used());
        LinkCounters {
            sent_bytes: lane_sent_bytes.iter().sum(),
            received_bytes: self.received_bytes(),
            lane_sent_bytes,
            lanes: u16::try_from(used.count()).unwrap_or(u16::MAX),
            repairs: self.repairs.load(Ordering::Relaxed),
            tuned: self.tuned.lock().clone(),
            rates: *self.rates.lock(),
        }
    }

    /// Whether its lanes never leave this host.
    pub(super) fn is_on_this_host(&self) -> bool {
        let streams = self.lanes().iter().filter_map(|lane| lane.stream());
        streams
            .into_iter()
            .any(|(stream, _)| stream.is_on_this_host())
    }

    /// The bytes, as the system counts them, that the send buffer of a lane may hold. About six
    /// tenths are payload.
    pub(super) fn send_buffer_bytes(&self) -> u64 {
        let tuned = self.tuned.lock();
        let in_force = tuned.as_ref().map_or(0, |tuned| tuned.send_buffer_bytes);
        in_force.max(net::send_buffer_bytes_autotuned()) as u64
    }

    pub(super) fn note_rates(&self, rates: Rates) {
        *self.rates.lock() = rates;
    }

    /// Gives the connection of a lane a congestion control; false if the system does not permit it.
    pub(super) fn set_control(&self, lane: &LaneSample, control: Control) -> bool {
        let present = self.lanes()[usize::from(lane.lane)].stream();
        let Some((stream, _)) = present.filter(|(_, number)| *number == lane.connection) else {
            return true;
        };
        let is_set = net::set_congestion_control(&stream, control.name()).is_ok();
        if is_set && let Some(tuned) = &mut *self.tuned.lock() {
            control.name().clone_into(&mut tuned.congestion_control);
        }
        is_set
    }

    pub(super) fn received_bytes(&self) -> u64 {
        let received = |lane: &Arc<Lane>| lane.received_bytes.load(Ordering::Relaxed);
        self.lanes().iter().map(received).sum()
    }

    /// Remembers the options that a connection really has, and logs changes of them.
    pub(super) fn note_tuned(&self, tuned: Tuned) {
        let mut known = self.tuned.lock();
        if known.as_ref() != Some(&tuned) {
            tracing::debug!(
                peer = %self.peer,
                congestion_control = tuned.congestion_control,
                send_buffer_bytes = tuned.send_buffer_bytes,
                refused = ?tuned.refused,
                "connection options"
            );
            *known = Some(tuned);
        }
    }
}

/// What a link is made from.
pub(super) struct LinkSeed {
    pub(super) peer: PeerId,
    pub(super) incarnation: u64,
    pub(super) follows_loss: bool,
    pub(super) neighbour: Neighbour,
    pub(super) identity: Identity,
    pub(super) handler: Handler,
    pub(super) settings: Arc<Settings>,
}
