//! Goal: all transports keep the promises of the transport interface.
//!
//! Each case of `cases` runs over every kind of [`Network`]: real sockets on loopback, and memory
//! under virtual time. Anything specific to one of them is tested there.

mod cases;
pub(super) mod recorder;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::recorder::{Recorder, Seen, key_of};
use super::mem::{Faults, MemLinks, MemNetwork};
use super::tcp::{TcpConfig, TcpLinks};
use super::{Identity, Links};
use crate::ids::{PeerId, RunId};
use crate::lock::{Condvar, Mutex};
use crate::peer::Neighbour;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Events of the handlers that were not taken yet, by peer.
#[derive(Default)]
struct Log {
    seen: Mutex<BTreeMap<PeerId, VecDeque<Seen>>>,
    grew: Condvar,
}

/// What carries the frames.
trait Network {
    type Links: Links;
    fn new() -> Self;
    /// The links of one more peer, with this many bulk lanes.
    fn links(&mut self, lanes: u16) -> Self::Links;
    /// Returns once this peer has an event.
    fn wait(&mut self, log: &Log, at: PeerId);
    /// Breaks one connection as a reset by the network would.
    fn reset_lane(&self, links: &Self::Links, peer: PeerId, lane: u16);
}

struct Tcp(tokio::runtime::Runtime);

impl Network for Tcp {
    type Links = TcpLinks;

    fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        Self(runtime.worker_threads(2).enable_all().build().unwrap())
    }

    fn links(&mut self, lanes: u16) -> TcpLinks {
        let config = TcpConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            lanes: Some(lanes),
            checksum: true,
            congestion_control: None,
            pacing_bytes_per_second: None,
        };
        TcpLinks::bind(config, self.0.handle()).unwrap()
    }

    fn wait(&mut self, log: &Log, at: PeerId) {
        let is_empty = |seen: &mut BTreeMap<PeerId, VecDeque<Seen>>| seen[&at].is_empty();
        let seen = log.grew.wait_while_for(log.seen.lock(), is_empty, PATIENCE);
        assert!(!seen[&at].is_empty(), "peer {at} waits in vain");
    }

    fn reset_lane(&self, links: &TcpLinks, peer: PeerId, lane: u16) {
        links.reset_lane(peer, lane);
    }
}

struct Memory(MemNetwork);

impl Network for Memory {
    type Links = MemLinks;

    fn new() -> Self {
        Self(MemNetwork::new(1, Faults::NONE))
    }

    fn links(&mut self, lanes: u16) -> MemLinks {
        self.0.links(lanes)
    }

    fn wait(&mut self, log: &Log, at: PeerId) {
        while log.seen.lock()[&at].is_empty() {
            assert!(self.0.step(), "peer {at} waits in vain");
        }
    }

    fn reset_lane(&self, links: &MemLinks, peer: PeerId, lane: u16) {
        links.reset_lane(peer, lane);
    }
}

/// One peer.
struct Node<L> {
    id: PeerId,
    links: L,
    recorder: Arc<Recorder>,
}

/// Peers and what is between them.
struct Stage<N: Network> {
    network: N,
    log: Arc<Log>,
    nodes: Vec<Node<N::Links>>,
}

impl<N: Network> Stage<N> {
    fn new() -> Self {
        Self {
            network: N::new(),
            log: Arc::default(),
            nodes: Vec::new(),
        }
    }

    /// Two peers without a link between them.
    fn strangers(lanes: u16) -> Self {
        let mut stage = Self::new();
        stage.enter(lanes);
        stage.enter(lanes);
        stage
    }

    /// Two peers with a link between them; the second dials.
    fn pair(lanes: u16) -> Self {
        let mut stage = Self::strangers(lanes);
        stage.want(0, 1);
        stage.want(1, 0);
        stage.next_is(0, Seen::Up);
        stage.next_is(1, Seen::Up);
        stage
    }

    fn enter(&mut self, lanes: u16) {
        let id = PeerId(self.nodes.len() as u64 + 1);
        self.log.seen.lock().insert(id, VecDeque::new());
        let log = Arc::clone(&self.log);
        let recorder = Recorder::new(move |seen| {
            if let Some(queue) = log.seen.lock().get_mut(&id) {
                queue.push_back(seen);
            }
            log.grew.notify_all();
        });
        let links = self.network.links(lanes);
        let identity = Identity {
            run: RunId(77),
            peer: id,
            key: key_of(id),
            link_timeout: PATIENCE,
        };
        links.identify(identity, recorder.clone());
        self.nodes.push(Node {
            id,
            links,
            recorder,
        });
    }

    /// Makes one peer want a link with another peer only. The later one dials.
    fn want(&self, at: usize, other: usize) {
        let neighbour = Neighbour {
            addresses: vec![self.nodes[other].links.address()],
            key: key_of(self.nodes[other].id),
            dial: at > other,
        };
        let wanted = BTreeMap::from([(self.nodes[other].id, neighbour)]);
        self.nodes[at].links.set_wanted(&wanted);
    }

    fn links(&self, at: usize) -> &N::Links {
        &self.nodes[at].links
    }

    fn id(&self, at: usize) -> PeerId {
        self.nodes[at].id
    }

    fn reset_lane(&self, at: usize, lane: u16) {
        let other = self.id(1 - at);
        self.network.reset_lane(self.links(at), other, lane);
    }

    /// The next event.
    fn next(&mut self, at: usize) -> Seen {
        let id = self.id(at);
        self.network.wait(&self.log, id);
        let mut seen = self.log.seen.lock();
        let queue = seen.get_mut(&id).expect("it is a peer");
        queue.pop_front().expect("it was waited for")
    }

    /// The next event that `pick` accepts; others are dropped.
    fn find<R>(&mut self, at: usize, mut pick: impl FnMut(&Seen) -> Option<R>) -> R {
        loop {
            if let Some(picked) = pick(&self.next(at)) {
                return picked;
            }
        }
    }

    fn next_is(&mut self, at: usize, wanted: Seen) {
        self.find(at, |seen| (*seen == wanted).then_some(()));
    }
}

/// One test for each case and each network.
macro_rules! over_every_network {
    ($($case:ident)*) => {
        mod over_tcp {
            $(#[test] fn $case() { super::cases::$case::<super::Tcp>(); })*
        }
        mod over_memory {
            $(#[test] fn $case() { super::cases::$case::<super::Memory>(); })*
        }
    };
}

over_every_network! {
    segments_cross_in_both_directions_over_all_lanes
    every_lane_carries_its_share_of_one_call
    signals_of_any_length_arrive_in_order
    frames_sent_before_the_link_is_up_are_kept_unless_forgotten
    an_empty_segment_and_owned_bytes_travel_like_others
    nothing_is_lost_or_doubled_when_lanes_are_reset_again_and_again
    a_repaired_lane_is_reported_and_the_link_is_not
    operations_that_end_do_not_disturb_those_that_go_on_while_lanes_break
    a_frame_that_nobody_asked_for_ends_the_link
    memory_taken_back_by_the_receiver_takes_the_frame_with_it
    the_end_of_the_other_side_is_reported_and_given_up
    a_link_that_one_side_forgot_begins_anew
    an_earlier_link_is_not_the_current_one
}
