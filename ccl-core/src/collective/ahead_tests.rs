//! Goal: what comes ahead of credits changes no result and blocks nobody, and its memory is free
//! again however its operation ends.

use bytes::Bytes;

use super::exchange::ExchangeLimits;
use super::harness::{Call, LIMITS, Prng, World, peer};
use super::reserve::Reserve;
use super::step::Place;
use super::tests::{check, run};
use crate::ids::{Epoch, OpName, Rank, Term, Vid};
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::{Algorithm, Kind};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring];

fn credits(world: &World) -> usize {
    world.peers.iter().map(|peer| peer.credits).sum()
}

#[test]
fn data_that_fits_the_reserve_needs_no_credit_and_the_rest_waits_for_one() {
    for algorithm in [Algorithm::OneShot, Algorithm::TwoShot] {
        let mut call = Call::all_reduce(2, Dtype::F32, 240);
        call.algorithm = algorithm;
        assert_eq!(credits(&run(&call, 2)), 0, "{algorithm:?}");
        call.costs.reserve_bytes = 320;
        assert!(credits(&run(&call, 2)) > 0, "{algorithm:?}");
        call.costs.reserve_bytes = 2048;
        call.costs.round_trip_bytes = 320;
        assert!(credits(&run(&call, 2)) > 0, "{algorithm:?}");
    }
}

#[test]
fn a_caller_that_waits_in_the_reserve_holds_up_no_other_operation() {
    for seed in 0..20 {
        let mut early = Call::all_reduce(3, Dtype::F32, 300);
        early.algorithm = ALGORITHMS[seed as usize % 2];
        let mut other = early.clone();
        other.tag = 1;
        let mut world = World::new(3, LIMITS, seed);
        world.start(0, &early);
        world.run();
        (0..3).for_each(|at| world.start(at, &other));
        world.run();
        check(&world, &other);
        (1..3).for_each(|at| world.start(at, &early));
        world.run();
        check(&world, &early);
    }
}

/// One group's calls: on three tags, with everything that may differ, over four views.
struct Story {
    world: World,
    n: usize,
    seed: u64,
    prng: Prng,
    /// By tag: the operation that is open, at the members that have called it.
    open: Vec<(Call, Vec<usize>)>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut prng = Prng(seed);
        let n = 2 + prng.below(3);
        let limits = ExchangeLimits {
            reserve_bytes: [0, 1024, 4096][prng.below(3)],
            ..LIMITS
        };
        let mut story = Self {
            world: World::new(n, limits, seed),
            n,
            seed,
            prng,
            open: Vec::new(),
        };
        for tag in 0..3 {
            let call = story.call(tag, 0);
            story.open.push((call, Vec::new()));
        }
        story
    }

    fn call(&mut self, tag: u64, number: u64) -> Call {
        let prng = &mut self.prng;
        let dtype = [Dtype::F32, Dtype::I8, Dtype::F16][prng.below(3)];
        let count = [1, 100, 300, 1000][prng.below(4)];
        let mut call = Call::all_reduce(self.n, dtype, count);
        call.algorithm = ALGORITHMS[prng.below(3)];
        call.op = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Avg][prng.below(3)];
        if prng.below(4) == 0 {
            call.kind = Kind::ReduceScatter;
        }
        // The same for all operations of a view.
        call.costs.reserve_bytes = [0, 640, 2048, 1 << 20][self.seed as usize % 4];
        call.tag = tag;
        call.n = number;
        call
    }

    /// Calls and deliveries in any order; every third operation is called by a part only.
    fn view(&mut self, epoch: u32) {
        for tag in 0..3 {
            let left_out = self.prng.below(self.n);
            let is_left_out = self.prng.below(3) == 0;
            let (call, callers) = &mut self.open[tag];
            for at in 0..self.n {
                let is_absent = is_left_out && at == left_out;
                if !is_absent && !callers.contains(&at) {
                    callers.push(at);
                    self.world.start(at, call);
                }
                for _ in 0..self.prng.below(30) {
                    self.world.step();
                }
            }
        }
        if self.prng.below(2) == 0 {
            self.world.run();
        }
        self.change(epoch + 1);
    }

    /// A view change: an operation that all have called may end well; the others are aborted or
    /// carried. What is aborted goes on in a new operation.
    fn change(&mut self, epoch: u32) {
        let mut carried: Vec<OpName> = Vec::new();
        for tag in 0..3 {
            let (call, callers) = self.open[tag].clone();
            if callers.len() == self.n && self.prng.below(2) == 0 {
                self.world.run();
                check(&self.world, &call);
            } else if self.prng.below(2) == 0 {
                carried.push(call.name());
                continue;
            }
            for &at in &callers {
                self.world.stop(at, call.name());
            }
            let mut next = self.call(tag as u64, call.n + 1);
            next.epoch = epoch;
            self.open[tag] = (next, Vec::new());
        }
        let vid = Vid {
            term: Term(1),
            epoch: Epoch(epoch),
        };
        for at in 0..self.n {
            self.world.forget(at, vid, &carried);
            for _ in 0..self.prng.below(10) {
                self.world.step();
            }
        }
    }

    fn end(&mut self) {
        for (call, callers) in std::mem::take(&mut self.open) {
            for at in 0..self.n {
                if !callers.contains(&at) {
                    self.world.start(at, &call);
                }
            }
            self.world.run();
            check(&self.world, &call);
            (0..self.n).for_each(|at| self.world.stop(at, call.name()));
        }
        let mut last = self.call(9, 0);
        last.epoch = 4;
        for at in 0..self.n {
            self.world.start(at, &last);
            for _ in 0..self.prng.below(20) {
                self.world.step();
            }
        }
        (0..self.n).for_each(|at| self.world.stop(at, last.name()));
        self.world.run();
        for (at, peer) in self.world.peers.iter().enumerate() {
            assert!(
                peer.exchange.is_idle(),
                "seed {}: memory leaks at {at}",
                self.seed
            );
            assert_eq!(peer.sent_ahead.len(), 0);
        }
    }
}

fn tell(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut story = Story::new(seed);
        (1..4).for_each(|epoch| story.view(epoch));
        story.end();
    }
}

#[test]
fn whatever_comes_ahead_results_are_right_and_its_memory_is_free_in_the_end() {
    tell(0..400);
}

#[test]
fn data_ahead_without_a_right_is_refused() {
    let call = Call::all_reduce(3, Dtype::F32, 300);
    let layout = call.layout();
    let ahead = |segment, batch_bytes, payload_bytes| FrameHeader {
        op: call.name(),
        frame: Frame::Ahead {
            segment,
            batch_bytes,
        },
        payload_bytes,
    };
    let mut world = World::new(3, LIMITS, 4);
    let bytes = layout.bytes(0) as u32;
    let place = |world: &mut World, header| world.peers[0].exchange.place(peer(1), &header);
    // Before its post is here nothing is known of the operation but the length of the batch.
    assert!(matches!(
        place(&mut world, ahead(0, 128, 128)),
        Place::Reserve { .. }
    ));
    assert!(matches!(
        place(&mut world, ahead(1, 128, 128)),
        Place::Refuse(_)
    ));
    assert!(matches!(
        place(&mut world, ahead(0, 192, 128)),
        Place::Refuse(_)
    ));
    let mut world = World::new(3, LIMITS, 4);
    (0..2).for_each(|at| world.start(at, &call));
    world.run();
    let owned = layout.owned(Rank(0));
    let end = owned.end;
    let lengths = owned.map(|segment| Reserve::bytes_for(layout.bytes(segment)));
    let batch_bytes = lengths.sum::<usize>() as u32;
    for header in [
        ahead(end, batch_bytes, bytes),
        ahead(u32::MAX, batch_bytes, bytes),
        ahead(0, batch_bytes, bytes - 1),
    ] {
        assert!(
            matches!(place(&mut world, header), Place::Refuse(_)),
            "{header:?}"
        );
    }
    // A copy of what is here, as after a repair.
    assert_eq!(
        place(&mut world, ahead(0, batch_bytes, bytes)),
        Place::Discard
    );
}

#[test]
fn a_post_that_announces_more_than_there_may_be_is_a_fault_of_its_sender() {
    let mut call = Call::all_reduce(2, Dtype::F32, 300);
    for (count, reserve_bytes) in [(1000, 1 << 20), (4, 256)] {
        call.costs.reserve_bytes = reserve_bytes;
        let head = postcard::to_stdvec(&call.fingerprint()).unwrap();
        let header = FrameHeader {
            op: call.name(),
            frame: Frame::Post {
                ahead: count,
                fingerprint_bytes: head.len() as u32,
            },
            payload_bytes: head.len() as u32,
        };
        let mut world = World::new(2, LIMITS, 0);
        world.start(0, &call);
        world.inject(1, 0, header, Bytes::from(head));
        world.run();
        assert_eq!(world.peers[0].faults.len(), 1);
    }
}

/// These tests detect the deliberate bugs in the rules of the reserve (docs/simulation.md).
#[cfg(ccl_mutations)]
mod mutations {
    use super::*;
    use crate::collective::tests::mutations::is_noticed;
    use crate::mutation::Mutation;

    #[test]
    fn bugs_of_the_reserve_and_of_one_shot_are_noticed() {
        for mutation in [
            Mutation::AheadBeyondReserve,
            Mutation::ReserveFreedEarly,
            Mutation::ReserveKeptAfterAbort,
            Mutation::OneShotOwnFirst,
        ] {
            assert!(is_noticed(mutation, || tell(0..400)), "{mutation:?}");
        }
    }
}
