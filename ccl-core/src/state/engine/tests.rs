//! Engines connected by a wire on which the test delivers, and may tamper with, each frame.

use std::collections::VecDeque;

use super::*;
use crate::buffer::Lent;
use crate::ids::Members;
use crate::ids::Revision;
use crate::reduce::Dtype;
use crate::state::holding::Brought;
use crate::state::{BLOCK_BYTES, Blocks, Key, Tree, block_digest, keys_digest};
use crate::transport::{Frame, Payload};

#[path = "chaos.rs"]
mod chaos;

const OP: OpName = OpName {
    tag: crate::ids::Tag::SHARED_STATE,
    n: crate::ids::OpNumber(0),
    birth: crate::ids::Vid {
        term: crate::ids::Term(1),
        epoch: crate::ids::Epoch(1),
    },
};

enum Sent {
    Signal(FrameHeader, Bytes),
    Bulk(FrameHeader, Payload),
}

type Wire = Arc<Mutex<VecDeque<(PeerId, PeerId, Sent)>>>;

/// One peer's end of the wire.
struct End(PeerId, Wire);

impl LinkSender for End {
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes) {
        let frame = Sent::Signal(header, payload);
        self.1.lock().push_back((self.0, to, frame));
    }

    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload) {
        let frame = Sent::Bulk(header, payload);
        self.1.lock().push_back((self.0, to, frame));
    }

    fn forget(&self, _op: OpName) {}
}

struct Node {
    engine: StateEngine,
    holding: Arc<Holding>,
    memory: Box<[u8]>,
    events: Arc<Mutex<Vec<StateEvent>>>,
}

struct Net {
    wire: Wire,
    nodes: BTreeMap<PeerId, Node>,
}

fn node(id: u64, wire: &Wire, memory: Box<[u8]>) -> Node {
    node_cut(id, wire, memory, BLOCK_BYTES)
}

fn node_cut(id: u64, wire: &Wire, mut memory: Box<[u8]>, block_bytes: usize) -> Node {
    let keys = [Key {
        name: "w".into(),
        dtype: Dtype::U8,
        shape: vec![memory.len() as u64],
        allow_inequality: false,
    }];
    let layout = Blocks::with_block_bytes(&keys, block_bytes).unwrap();
    let digests = memory.chunks(block_bytes).map(block_digest).collect();
    let keys = keys_digest(&keys);
    let tree = Tree::new(keys, &layout, digests);
    let content = StateId {
        revision: Revision(1),
        root: tree.root,
    };
    // SAFETY: the node keeps the memory, which does not move, and the test reads it only when no
    // engine is at work.
    let lent = unsafe { Lent::new(memory.as_mut_ptr(), memory.len()) };
    let brought = Brought {
        tree,
        named: content,
        is_whole: true,
    };
    let holding = Holding::new(vec![lent], Arc::new(layout), keys, brought);
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let engine = StateEngine::new(StateTools {
        sender: Arc::new(End(PeerId(id), Arc::clone(wire))),
        events: Box::new(move |event| told.lock().push(event)),
        clock: Box::new(Instant::default),
        wake: Box::new(|| {}),
        rate: None,
    });
    Node {
        engine,
        holding: Arc::new(holding),
        memory,
        events,
    }
}

fn content(seed: u8) -> Box<[u8]> {
    let bytes = 3 * BLOCK_BYTES + 100;
    (0..bytes)
        .map(|index| (index / 1000) as u8 ^ seed)
        .collect()
}

/// Peers 1 … with these contents, all started in one sync.
fn net(seeds: &[u8]) -> Net {
    let wire = Wire::default();
    let ids: Members = (1..=seeds.len() as u64).map(PeerId).collect();
    let nodes = ids.iter().zip(seeds);
    let nodes: BTreeMap<_, _> = nodes
        .map(|(id, seed)| (*id, node(id.0, &wire, content(*seed))))
        .collect();
    for (rank, id) in ids.iter().enumerate() {
        let node = &nodes[id];
        node.engine.start(StartSync {
            op: OP,
            members: ids.clone(),
            rank,
            holding: Arc::clone(&node.holding),
        });
    }
    Net { wire, nodes }
}

impl Net {
    /// Reports to a node that the content of peer 1 was elected.
    fn elect(&self, id: u64, sources: &[u64]) {
        let (content, _) = self.nodes[&PeerId(1)].holding.offered();
        let sources: Vec<_> = sources.iter().copied().map(PeerId).collect();
        self.nodes[&PeerId(id)]
            .engine
            .elected(OP, content, &sources);
    }

    /// Delivers all frames, each after `tamper`; returns what nodes reported as faults.
    fn deliver(
        &self,
        mut tamper: impl FnMut(PeerId, &FrameHeader, &mut [u8]),
    ) -> Vec<&'static str> {
        let mut faults = Vec::new();
        loop {
            let Some((from, to, frame)) = self.wire.lock().pop_front() else {
                return faults;
            };
            let engine = &self.nodes[&to].engine;
            match frame {
                Sent::Signal(header, payload) => {
                    faults.extend(engine.signal(from, &header, &payload).err());
                }
                Sent::Bulk(header, payload) => match engine.place(from, &header) {
                    Placement::Memory(region) => {
                        let copied = match &payload {
                            Payload::Small(bytes) => Some(bytes.to_vec()),
                            Payload::Lent(lent) => lent.read(<[u8]>::to_vec),
                        };
                        let Some(mut bytes) = copied else { continue };
                        tamper(from, &header, &mut bytes);
                        region.write(|place| place.copy_from_slice(&bytes)).unwrap();
                        engine.arrived(from, &header);
                    }
                    Placement::Discard => {}
                    Placement::Refuse(why) => faults.push(why),
                },
            }
        }
    }

    fn events(&self, id: u64) -> Vec<StateEvent> {
        self.nodes[&PeerId(id)].events.lock().clone()
    }

    fn stop_all(&self) {
        self.nodes.values().for_each(|node| node.engine.stop(OP));
    }

    fn memory(&self, id: u64) -> &[u8] {
        &self.nodes[&PeerId(id)].memory
    }
}

#[test]
fn a_receiver_gets_the_elected_content_and_says_so_once() {
    let net = net(&[1, 1, 9]);
    for id in 1..=3 {
        net.elect(id, &[1, 2]);
    }
    assert!(net.deliver(|_, _, _| {}).is_empty());
    for id in 1..=3 {
        assert_eq!(net.events(id), [StateEvent::Held(OP)], "peer {id}");
    }
    net.stop_all();
    assert_eq!(net.memory(3), net.memory(1));
    let account = net.nodes[&PeerId(3)].holding.account();
    let used: u64 = account.sources.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(used, net.memory(1).len() as u64 + 4 * 32);
}

#[test]
fn asks_that_come_before_the_election_are_answered_after_it() {
    let net = net(&[1, 9]);
    net.elect(2, &[1]);
    assert!(net.deliver(|_, _, _| {}).is_empty());
    assert!(net.events(2).is_empty());
    net.elect(1, &[1]);
    net.deliver(|_, _, _| {});
    assert_eq!(net.events(2), [StateEvent::Held(OP)]);
}

#[test]
fn a_source_that_gives_other_blocks_is_left_for_an_honest_one() {
    let net = net(&[1, 1, 9]);
    for id in 1..=3 {
        net.elect(id, &[1, 2]);
    }
    net.deliver(|from, header, bytes| {
        if from == PeerId(1) && matches!(header.frame, Frame::StateBlocks { .. }) {
            bytes[5] ^= 1;
        }
    });
    assert_eq!(net.events(3), [StateEvent::Held(OP)]);
    net.stop_all();
    assert_eq!(net.memory(3), net.memory(2));
}

#[test]
fn when_every_source_lies_nothing_is_written_and_the_liar_is_named() {
    let net = net(&[1, 9]);
    net.elect(1, &[1]);
    net.elect(2, &[1]);
    net.deliver(|_, header, bytes| {
        if matches!(header.frame, Frame::StateDigests { .. }) {
            bytes[40] ^= 1;
        }
    });
    let [StateEvent::Failed(OP, why)] = &net.events(2)[..] else {
        panic!("{:?}", net.events(2));
    };
    assert!(why.contains("peers 1"), "{why}");
    net.stop_all();
    assert_eq!(net.memory(2), &content(9)[..]);
    assert!(net.nodes[&PeerId(2)].holding.offered().1, "still whole");
}

#[test]
fn a_sync_that_stops_half_way_leaves_a_mixture_and_touches_nothing_after() {
    let net = net(&[1, 9]);
    net.elect(1, &[1]);
    net.elect(2, &[1]);
    let mut blocks = 0;
    net.deliver(|_, header, bytes| {
        if matches!(header.frame, Frame::StateBlocks { .. }) {
            blocks += 1;
            if blocks == 2 {
                net.nodes[&PeerId(2)].engine.stop(OP);
            }
            let _ = bytes;
        }
    });
    let memory = net.memory(2);
    assert_eq!(memory[..BLOCK_BYTES], net.memory(1)[..BLOCK_BYTES]);
    assert_eq!(memory[BLOCK_BYTES..], content(9)[BLOCK_BYTES..]);
    let holding = &net.nodes[&PeerId(2)].holding;
    assert!(holding.is_mixed());
    holding.end(true);
    assert!(!holding.offered().1, "a mixture stays");
}

/// Peer 2 has received half of a content that only peer 1 has. When peer 1 is lost, peer 3 gets
/// peer 2's earlier content from the kept copy, and in the end peer 2 has it back in place.
#[test]
fn what_a_member_had_before_is_given_when_the_only_source_is_lost() {
    let net = net(&[1, 9, 5]);
    let [second, third] = [2, 3].map(|id| &net.nodes[&PeerId(id)]);
    let (before, _) = second.holding.offered();
    for id in [1, 2, 3] {
        net.elect(id, &[1]);
    }
    let mut blocks = 0;
    net.deliver(|_, header, _| {
        if matches!(header.frame, Frame::StateBlocks { .. }) {
            blocks += 1;
            if blocks == 3 {
                net.stop_all();
            }
        }
    });
    assert!(second.holding.is_mixed());
    assert_eq!(second.holding.offered(), (before, true));
    let ids: Members = [PeerId(2), PeerId(3)].into_iter().collect();
    for (rank, node) in [second, third].into_iter().enumerate() {
        node.events.lock().clear();
        node.engine.start(StartSync {
            op: OP,
            members: ids.clone(),
            rank,
            holding: Arc::clone(&node.holding),
        });
        node.engine.elected(OP, before, &[PeerId(2)]);
    }
    assert_eq!(
        second.engine.is_source(OP),
        Some(false),
        "its memory is a mixture"
    );
    net.deliver(|_, _, _| {});
    for node in [second, third] {
        assert_eq!(*node.events.lock(), [StateEvent::Held(OP)]);
        node.engine.stop(OP);
        node.holding.end(false);
        assert_eq!(node.holding.offered(), (before, true));
        assert!(!node.holding.is_mixed());
    }
    assert_eq!(net.memory(2), &content(9)[..]);
    assert_eq!(net.memory(3), &content(9)[..]);
    let digests: Vec<_> = content(9).chunks(BLOCK_BYTES).map(block_digest).collect();
    assert_eq!(second.holding.digests(), digests);
}

/// With a second source nothing is kept: one of the two will survive.
#[test]
fn nothing_is_kept_where_two_have_the_elected_content() {
    let net = net(&[1, 1, 9]);
    for id in [1, 2, 3] {
        net.elect(id, &[1, 2]);
    }
    let mut blocks = 0;
    net.deliver(|_, header, _| {
        blocks += u32::from(matches!(header.frame, Frame::StateBlocks { .. }));
        if blocks == 2 {
            net.stop_all();
        }
    });
    assert!(!net.nodes[&PeerId(3)].holding.offered().1);
}

#[test]
fn what_one_attempt_verified_is_not_fetched_by_the_next() {
    let net = net(&[1, 9]);
    net.elect(1, &[1]);
    net.elect(2, &[1]);
    let mut blocks = 0;
    net.deliver(|_, header, _| {
        if matches!(header.frame, Frame::StateBlocks { .. }) {
            blocks += 1;
            if blocks == 3 {
                net.stop_all();
            }
        }
    });
    let ids: Members = [PeerId(1), PeerId(2)].into_iter().collect();
    for (rank, id) in ids.iter().enumerate() {
        let node = &net.nodes[id];
        node.engine.start(StartSync {
            op: OP,
            members: ids.clone(),
            rank,
            holding: Arc::clone(&node.holding),
        });
        net.elect(id.0, &[1]);
    }
    let mut again = 0;
    net.deliver(|_, header, _| {
        again += u32::from(matches!(header.frame, Frame::StateBlocks { .. }))
    });
    assert_eq!(again, 2, "of four blocks two were there");
    net.stop_all();
    assert_eq!(net.memory(2), net.memory(1));
}

#[test]
fn asks_and_answers_out_of_place_are_faults_of_their_sender() {
    let net = net(&[1, 9]);
    net.elect(1, &[1]);
    net.elect(2, &[1]);
    let (source, receiver) = (&net.nodes[&PeerId(1)].engine, &net.nodes[&PeerId(2)].engine);
    let header = |frame, payload_bytes| FrameHeader {
        op: OP,
        frame,
        payload_bytes,
    };
    let asks = header(Frame::StateAsk { first: 0, count: 1 }, 0);
    assert!(receiver.signal(PeerId(1), &asks, &Bytes::new()).is_err());
    assert!(
        source
            .signal(PeerId(2), &asks, &Bytes::from_static(b"x"))
            .is_err()
    );
    let beyond = header(Frame::StateAsk { first: 4, count: 1 }, 0);
    assert!(source.signal(PeerId(2), &beyond, &Bytes::new()).is_err());
    // A stranger, or the last words of another sync, cost nothing and change nothing.
    assert!(source.signal(PeerId(7), &asks, &Bytes::new()).is_ok());
    let short = header(Frame::StateDigests { first: 0, count: 4 }, 31);
    assert!(matches!(
        receiver.place(PeerId(1), &short),
        Placement::Refuse(_)
    ));
    let unasked = header(Frame::StateDigests { first: 1, count: 1 }, 32);
    assert!(matches!(
        receiver.place(PeerId(1), &unasked),
        Placement::Discard
    ));
}

#[test]
fn a_source_that_is_lost_is_replaced() {
    let net = net(&[1, 1, 9]);
    for id in 2..=3 {
        net.elect(id, &[1, 2]);
    }
    // Peer 1 answers nothing: it has not heard of the election.
    net.nodes[&PeerId(3)].engine.lose(PeerId(1));
    net.deliver(|_, _, _| {});
    assert_eq!(net.events(3), [StateEvent::Held(OP)]);
}

/// The master is about to evict the source, and all retry the sync; a cancel would be final for
/// them. The only source is lost before it has sent anything, or half-way; or one of two sources
/// sends wrong data and the other is lost.
#[test]
fn the_loss_of_the_last_source_is_left_to_the_master() {
    let early = net(&[1, 9]);
    early.elect(2, &[1]);
    early.nodes[&PeerId(2)].engine.lose(PeerId(1));
    assert_eq!(early.events(2), []);

    let half = net(&[1, 9]);
    half.elect(1, &[1]);
    half.elect(2, &[1]);
    let mut blocks = 0;
    half.deliver(|_, header, _| {
        blocks += u32::from(matches!(header.frame, Frame::StateBlocks { .. }));
        if blocks == 2 {
            half.nodes[&PeerId(2)].engine.lose(PeerId(1));
        }
    });
    assert_eq!(half.events(2), []);
    let (here, all) = half.nodes[&PeerId(2)].engine.progress(OP).unwrap();
    assert!(0 < here && here < all, "{here} of {all}");

    let two = net(&[1, 1, 9]);
    for id in 1..=3 {
        two.elect(id, &[1, 2]);
    }
    two.nodes[&PeerId(3)].engine.lose(PeerId(2));
    two.deliver(|_, header, bytes| {
        if matches!(header.frame, Frame::StateDigests { .. }) {
            bytes[40] ^= 1;
        }
    });
    assert_eq!(two.events(3), []);
}
