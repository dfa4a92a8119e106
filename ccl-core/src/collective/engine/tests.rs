//! Goal: engines connected in memory, and driven by several threads at once, end with the
//! documented bytes in the caller's memory, or leave that memory unchanged.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::buffer::Lent;
use crate::collective::harness::{Call, Prng, peer, reference};
use crate::collective::layout::Side;
use crate::limits::SCRATCH_BYTES_DEFAULT;
use crate::reduce::Dtype;
use crate::transport::Frame;
use crate::wire::control::{Algorithm, Kind};

enum Sent {
    Signal(FrameHeader, Bytes),
    Bulk(FrameHeader, Payload),
}

/// Frames in flight between all peers. Signals leave in the order of their link, but several
/// threads deliver them, so that even signals may overtake each other, unlike on a real link.
#[derive(Default)]
struct Fabric {
    signals: Mutex<BTreeMap<(usize, usize), VecDeque<Sent>>>,
    bulks: Mutex<Vec<(usize, usize, Sent)>>,
    forgotten: AtomicUsize,
}

struct Port {
    at: usize,
    fabric: Arc<Fabric>,
}

fn index(peer: PeerId) -> usize {
    peer.0 as usize - 10
}

impl LinkSender for Port {
    fn signal(&self, to: PeerId, header: FrameHeader, payload: Bytes) {
        let mut signals = self.fabric.signals.lock();
        let link = signals.entry((self.at, index(to))).or_default();
        link.push_back(Sent::Signal(header, payload));
    }

    fn bulk(&self, to: PeerId, header: FrameHeader, payload: Payload) {
        let frame = Sent::Bulk(header, payload);
        self.fabric.bulks.lock().push((self.at, index(to), frame));
    }

    fn forget(&self, _op: OpName) {
        self.fabric.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

struct Cluster {
    fabric: Arc<Fabric>,
    engines: Vec<Arc<Engine>>,
    held: Vec<Arc<Mutex<Vec<OpName>>>>,
    /// Copies for a thread of the driver; here `step` makes them.
    copies: Arc<Mutex<Vec<(usize, LargeCopy)>>>,
}

impl Cluster {
    fn new(n: usize) -> Self {
        let fabric = Arc::new(Fabric::default());
        let held: Vec<Arc<Mutex<Vec<OpName>>>> = (0..n).map(|_| Arc::default()).collect();
        let copies: Arc<Mutex<Vec<(usize, LargeCopy)>>> = Arc::default();
        let engine = |at: usize| {
            let port = Port {
                at,
                fabric: Arc::clone(&fabric),
            };
            let (held, copies) = (Arc::clone(&held[at]), Arc::clone(&copies));
            let events = Box::new(move |event| match event {
                EngineEvent::Held(op) => held.lock().push(op),
                EngineEvent::LargeCopy(copy) => copies.lock().push((at, copy)),
                other => panic!("{other:?}"),
            });
            let scratch = Scratch::new(SCRATCH_BYTES_DEFAULT).unwrap();
            Arc::new(Engine::new(scratch, Arc::new(port), events))
        };
        Self {
            engines: (0..n).map(engine).collect(),
            fabric,
            held,
            copies,
        }
    }

    fn start(&self, at: usize, call: &Call, buffers: &[Buffer]) {
        let brought = Brought {
            buffers: buffers.to_vec(),
            weight: call.weight(at),
            seed: None,
        };
        let started = self.engines[at].start(call.start(at, peer), &brought);
        started.expect("there is memory for it");
    }

    fn commit(&self, at: usize, call: &Call) {
        if let Some(staged) = self.engines[at].commit(call.name()) {
            staged.bring_home();
        }
    }

    /// Delivers one frame or makes one large copy; false if there is none.
    fn step(&self, prng: &mut Prng) -> bool {
        if prng.below(2) == 0 {
            let copy = self.copies.lock().pop();
            if let Some((at, copy)) = copy {
                self.engines[at].copy(copy);
                return true;
            }
        }
        let mut signals = self.fabric.signals.lock();
        let waiting = signals.iter().filter(|(_, queue)| !queue.is_empty());
        let links: Vec<_> = waiting.map(|(&link, _)| link).collect();
        if !links.is_empty() && prng.below(2) == 0 {
            let (from, to) = links[prng.below(links.len())];
            let frame = signals.get_mut(&(from, to)).unwrap().pop_front().unwrap();
            let Sent::Signal(header, payload) = frame else {
                unreachable!()
            };
            drop(signals);
            self.engines[to]
                .signal(peer(from), &header, payload)
                .unwrap();
            return true;
        }
        drop(signals);
        let mut bulks = self.fabric.bulks.lock();
        if bulks.is_empty() {
            return !links.is_empty() || !self.copies.lock().is_empty();
        }
        let choice = prng.below(bulks.len());
        let (from, to, frame) = bulks.swap_remove(choice);
        drop(bulks);
        let Sent::Bulk(header, Payload::Lent(region)) = frame else {
            unreachable!()
        };
        let placement = self.engines[to].place(peer(from), &header);
        let Some(bytes) = region.read(<[u8]>::to_vec) else {
            return true;
        };
        match placement {
            Placement::Memory(target) => {
                if target
                    .write(|target| target.copy_from_slice(&bytes))
                    .is_some()
                {
                    self.engines[to].arrived(peer(from), &header);
                }
            }
            Placement::Discard => {}
            Placement::Refuse(why) => panic!("{why}: {header:?} from {from} to {to}"),
        }
        true
    }

    /// Delivers with several threads until all peers hold `count` operations.
    fn run_until_held(&self, count: usize) {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    let mut prng = Prng(thread);
                    while self.held.iter().any(|held| held.lock().len() < count) {
                        if !self.step(&mut prng) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
    }
}

pub(super) fn buffers(call: &Call, at: usize, is_in_place: bool) -> Vec<Buffer> {
    let sides = call
        .input(at)
        .into_iter()
        .zip(call.side_bytes(Side::Result));
    let parts = call.parts.iter().zip(sides);
    parts
        .map(|(part, (input, result_bytes))| {
            let send = Lent::leaked(input);
            let receive = match is_in_place {
                true => send.clone(),
                false => Lent::leaked(vec![0xA5; result_bytes]),
            };
            Buffer {
                send,
                receive,
                count: part.count as usize,
                dtype: part.dtype,
            }
        })
        .collect()
}

pub(super) fn snapshots(buffers: &[Buffer], side: impl Fn(&Buffer) -> &Lent) -> Vec<Vec<u8>> {
    buffers
        .iter()
        .map(|buffer| side(buffer).snapshot())
        .collect()
}

#[test]
fn results_are_home_after_the_commit_and_inputs_whole_before() {
    for (kind, algorithm, is_in_place) in [
        (Kind::AllReduce, Algorithm::TwoShot, false),
        (Kind::AllReduce, Algorithm::TwoShot, true),
        (Kind::AllReduce, Algorithm::OneShot, false),
        (Kind::AllReduce, Algorithm::OneShot, true),
        (Kind::AllReduce, Algorithm::Ring, false),
        (Kind::AllReduce, Algorithm::Ring, true),
        (Kind::Broadcast, Algorithm::TwoShot, true),
        (Kind::AllGather, Algorithm::TwoShot, false),
        (Kind::ReduceScatter, Algorithm::TwoShot, false),
    ] {
        let mut call = Call::all_reduce(3, Dtype::F32, 60_001);
        call.kind = kind;
        call.algorithm = algorithm;
        call.root = 1;
        let cluster = Cluster::new(3);
        let memory: Vec<_> = (0..3).map(|at| buffers(&call, at, is_in_place)).collect();
        for (at, buffers) in memory.iter().enumerate() {
            cluster.start(at, &call, buffers);
        }
        cluster.run_until_held(1);
        for (at, buffers) in memory.iter().enumerate() {
            assert_eq!(snapshots(buffers, |b| &b.send), call.input(at));
            let (done, total) = cluster.engines[at].progress(call.name()).unwrap();
            assert_eq!(done, total);
            cluster.commit(at, &call);
            assert_eq!(snapshots(buffers, |b| &b.receive), reference(&call, at));
            assert!(cluster.engines[at].progress(call.name()).is_none());
        }
        assert_eq!(cluster.fabric.forgotten.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn operations_of_all_sizes_run_at_once() {
    let cluster = Cluster::new(4);
    let calls: Vec<Call> = [0, 1, 5, 16_384, 32_769, 150_001]
        .into_iter()
        .enumerate()
        .map(|(tag, count)| {
            let mut call = Call::all_reduce(4, Dtype::Bf16, count);
            call.tag = tag as u64;
            call
        })
        .collect();
    let mut memory = Vec::new();
    for at in 0..4 {
        for (index, call) in calls.iter().enumerate() {
            let buffers = buffers(call, at, index % 2 == 0);
            cluster.start(at, call, &buffers);
            memory.push((at, call, buffers));
        }
    }
    cluster.run_until_held(calls.len());
    for (at, call, buffers) in memory {
        cluster.commit(at, call);
        assert_eq!(snapshots(&buffers, |b| &b.receive), reference(call, at));
    }
}

#[test]
fn after_stop_nothing_writes_and_the_input_is_whole() {
    for seed in 0..20 {
        let mut call = Call::all_reduce(3, Dtype::F32, 200_000);
        if seed % 2 == 0 {
            call.algorithm = Algorithm::Ring;
        }
        let cluster = Cluster::new(3);
        let memory: Vec<_> = (0..3).map(|at| buffers(&call, at, seed % 4 < 2)).collect();
        for (at, buffers) in memory.iter().enumerate() {
            cluster.start(at, &call, buffers);
        }
        let mut prng = Prng(seed);
        for _ in 0..prng.below(120) {
            cluster.step(&mut prng);
        }
        cluster.engines[0].stop(call.name());
        assert_eq!(snapshots(&memory[0], |b| &b.send), call.input(0));
        let before = snapshots(&memory[0], |b| &b.receive);
        while cluster.step(&mut prng) {}
        assert_eq!(snapshots(&memory[0], |b| &b.receive), before);
        cluster.commit(0, &call);
        assert_eq!(snapshots(&memory[0], |b| &b.receive), before, "too late");
    }
}

#[test]
fn staging_memory_is_used_again_and_given_back_when_idle() {
    let cluster = Cluster::new(1);
    let idle = |cluster: &Cluster| cluster.engines[0].state.lock().staging.idle_bytes();
    for n in 0..3 {
        let mut call = Call::all_reduce(1, Dtype::F32, 100_000);
        call.n = n;
        let memory = buffers(&call, 0, true);
        cluster.start(0, &call, &memory);
        assert_eq!(idle(&cluster), 0, "one piece, in use");
        cluster.commit(0, &call);
        assert_eq!(idle(&cluster), 400_000);
    }
    let mut larger = Call::all_reduce(1, Dtype::F32, 250_000);
    larger.n = 3;
    cluster.start(0, &larger, &buffers(&larger, 0, true));
    assert_eq!(idle(&cluster), 0, "what is too small goes first");
    cluster.engines[0].stop(larger.name());
    assert_eq!(idle(&cluster), 1_000_000);
    cluster.engines[0].trim();
    assert_eq!(idle(&cluster), 1_000_000);
    cluster.engines[0].trim();
    assert_eq!(idle(&cluster), 0);
}

#[test]
fn staging_memory_of_a_result_that_is_not_home_is_nobody_elses() {
    let cluster = Cluster::new(1);
    let first = Call::all_reduce(1, Dtype::F32, 10_000);
    let mut second = first.clone();
    second.n = 1;
    assert_ne!(first.input(0), second.input(0), "one would hide the other");
    let memory = [&first, &second].map(|call| buffers(call, 0, true));
    cluster.start(0, &first, &memory[0]);
    cluster.run_until_held(1);
    let staged = cluster.engines[0].commit(first.name()).unwrap();
    cluster.start(0, &second, &memory[1]);
    cluster.run_until_held(2);
    staged.bring_home();
    cluster.commit(0, &second);
    for (call, buffers) in [&first, &second].into_iter().zip(&memory) {
        assert_eq!(snapshots(buffers, |b| &b.receive), reference(call, 0));
    }
}

/// Goal: a slot is reused only when no thread writes to it any more.
///
/// 1. A contribution is being received into a slot: a thread is using its memory.
/// 2. The operation is stopped; no other thread can use its memory from then on.
/// 3. While the first thread is using it, the exchange keeps the operation, and so the slot.
#[test]
fn a_slot_is_free_only_when_nobody_writes_to_it_any_more() {
    let (call, cluster) = (Call::all_reduce(2, Dtype::F32, 60_001), Cluster::new(2));
    let memory: Vec<_> = (0..2).map(|at| buffers(&call, at, false)).collect();
    for (at, buffers) in memory.iter().enumerate() {
        cluster.start(at, &call, buffers);
    }
    let mut prng = Prng(1);
    let header = loop {
        let contribution = cluster.fabric.bulks.lock().iter().find_map(|frame| {
            let (_, 0, Sent::Bulk(header, _)) = frame else {
                return None;
            };
            matches!(header.frame, Frame::Contribution { .. }).then_some(*header)
        });
        match contribution {
            Some(header) => break header,
            None => assert!(cluster.step(&mut prng), "credits bring contributions"),
        }
    };
    let engine = &cluster.engines[0];
    let Placement::Memory(slot) = engine.place(peer(1), &header) else {
        panic!("it has a slot");
    };
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let write = || {
            slot.write(|_| {
                barrier.wait();
                barrier.wait();
            })
        };
        let writer = scope.spawn(write);
        barrier.wait();
        let stopper = scope.spawn(|| engine.stop(call.name()));
        while slot.read(|_| {}).is_some() {
            std::thread::yield_now();
        }
        assert!(
            engine.progress(call.name()).is_some(),
            "it is free too early"
        );
        barrier.wait();
        assert!(writer.join().unwrap().is_some());
        stopper.join().unwrap();
    });
    assert!(engine.progress(call.name()).is_none());
}

#[test]
fn the_root_of_a_broadcast_in_place_needs_no_second_memory() {
    let mut call = Call::all_reduce(1, Dtype::F32, 100_000);
    call.kind = Kind::Broadcast;
    let cluster = Cluster::new(1);
    let memory = buffers(&call, 0, true);
    cluster.start(0, &call, &memory);
    cluster.commit(0, &call);
    assert_eq!(snapshots(&memory, |b| &b.receive), call.input(0));
    assert_eq!(cluster.engines[0].state.lock().staging.idle_bytes(), 0);
}

#[test]
fn frames_of_unknown_operations_are_dropped() {
    let cluster = Cluster::new(2);
    let header = FrameHeader {
        op: Call::all_reduce(2, Dtype::F32, 9).name(),
        frame: Frame::Contribution { segment: 0, hop: 0 },
        payload_bytes: 4,
    };
    let placement = cluster.engines[0].place(peer(1), &header);
    assert!(matches!(placement, Placement::Discard));
    cluster.engines[0].arrived(peer(1), &header);
    cluster.engines[0].stop(header.op);
}
