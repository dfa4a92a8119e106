//! Goal: in whatever order frames and work arrive, every member ends with the documented bytes or,
//! after an abort, with its unchanged input; slots never leak, and no set of operations blocks
//! another.

mod refusals;

use bytes::Bytes;

use super::exchange::ExchangeLimits;
use super::harness::{Call, ENCODED_LIMITS, LIMITS, Prng, World, peer, reference};
use super::layout::Part;
use crate::ids::{Rank, Vid};
use crate::reduce::{Dtype, ReduceOp};
use crate::transport::{Frame, FrameHeader};
use crate::wire::control::{Algorithm, Fingerprint, Kind};

pub(super) fn check(world: &World, call: &Call) {
    for at in 0..call.world_size {
        let peer = &world.peers[at];
        assert!(
            peer.faults.is_empty(),
            "{call:?} at {at}: {:?}",
            peer.faults
        );
        assert_eq!(
            peer.held.iter().filter(|&&op| op == call.name()).count(),
            1,
            "{call:?} is held once at {at}; progress {:?}",
            peer.exchange.progress(call.name())
        );
        let memory = &peer.memory[&call.name()];
        assert_eq!(
            memory.input,
            call.input(at),
            "{call:?}: input of {at} changed"
        );
        assert_eq!(memory.result, reference(call, at), "{call:?} at {at}");
        let (moved, total) = peer.exchange.progress(call.name()).unwrap();
        assert_eq!(moved, total, "{call:?} at {at}");
    }
}

pub(super) fn run(call: &Call, seed: u64) -> World {
    run_with(LIMITS, call, seed)
}

fn run_with(limits: ExchangeLimits, call: &Call, seed: u64) -> World {
    let mut world = World::new(call.world_size, limits, seed);
    let mut order: Vec<usize> = (0..call.world_size).collect();
    while !order.is_empty() {
        let at = order.swap_remove(world.prng.below(order.len()));
        world.start(at, call);
        for _ in 0..world.prng.below(20) {
            world.step();
        }
    }
    world.run();
    check(&world, call);
    for at in 0..call.world_size {
        world.stop(at, call.name());
        assert!(
            world.peers[at].exchange.is_idle(),
            "{call:?}: slots leak at {at}"
        );
    }
    world
}

fn rotated(n: usize, seed: u64) -> Vec<Rank> {
    let mut order: Vec<Rank> = (0..n as u32).map(Rank).collect();
    let mut prng = Prng(seed);
    for index in (1..n).rev() {
        order.swap(index, prng.below(index + 1));
    }
    order
}

#[test]
fn every_dtype_and_operator_gives_the_documented_bits() {
    let mut seed = 0;
    for dtype in Dtype::ALL {
        for op in ReduceOp::ALL {
            for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
                seed += 1;
                let mut call = Call::all_reduce(3, dtype, 301);
                call.op = op;
                call.algorithm = algorithm;
                call.ring_order = rotated(3, seed);
                run(&call, seed);
            }
        }
    }
}

#[test]
fn every_kind_works_with_every_count_in_every_world() {
    let kinds = [
        Kind::AllReduce,
        Kind::ReduceScatter,
        Kind::AllGather,
        Kind::Broadcast,
    ];
    for n in 1..=9 {
        for (kind_index, kind) in kinds.into_iter().enumerate() {
            for count in [0, 1, n as u64 - 1, n as u64, 7, 30, 1023] {
                for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
                    let seed = count * 100 + n as u64 * 10 + kind_index as u64;
                    let mut call = Call::all_reduce(n, Dtype::F32, count);
                    call.kind = kind;
                    call.algorithm = algorithm;
                    call.root = (n as u32) / 2;
                    call.ring_order = rotated(n, seed);
                    run(&call, seed);
                }
            }
        }
    }
}

/// Goal: encoded and weighted contributions come to what the documents say, whatever the order, the
/// number of segments, and who abstains.
#[test]
fn contributions_are_rounded_once_and_weighed() {
    let mut seed = 0;
    for n in 1..=5 {
        for kind in [Kind::AllReduce, Kind::ReduceScatter] {
            for count in [0, 1, 255, 256, 257, 4001] {
                for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
                    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64] {
                        seed += 1;
                        let mut prng = Prng(seed);
                        let mut call = Call::all_reduce(n, dtype, count);
                        call.kind = kind;
                        call.algorithm = algorithm;
                        call.op = [ReduceOp::Sum, ReduceOp::Avg][prng.below(2)];
                        let encodings = Call::encodings(dtype);
                        call.encoding = encodings[prng.below(encodings.len())];
                        if prng.below(2) == 0 {
                            call.weights = (0..n).map(|_| prng.below(4) as u32).collect();
                        }
                        call.costs.reserve_bytes = [0, 30_000][prng.below(2)];
                        run_with(ENCODED_LIMITS, &call, seed);
                    }
                }
            }
        }
    }
}

#[test]
fn who_abstains_sends_no_data() {
    for (algorithm, count) in [
        (Algorithm::OneShot, 8),
        (Algorithm::OneShot, 4000),
        (Algorithm::TwoShot, 4000),
    ] {
        let mut call = Call::all_reduce(3, Dtype::F32, count);
        call.algorithm = algorithm;
        call.weights = vec![2, 0, 1];
        let mut world = World::new(3, ENCODED_LIMITS, 4);
        for at in 0..3 {
            world.start(at, &call);
        }
        world.run();
        check(&world, &call);
        assert_eq!(world.contributed[1], 0, "{algorithm:?} {count}");
        assert!(world.contributed[0] > 0 && world.contributed[2] > 0);
    }
}

#[test]
fn parts_of_different_types_are_one_operation() {
    let kinds = [
        Kind::AllReduce,
        Kind::ReduceScatter,
        Kind::AllGather,
        Kind::Broadcast,
    ];
    for (seed, kind) in kinds.into_iter().enumerate() {
        for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
            let mut call = Call::all_reduce(4, Dtype::F32, 0);
            call.kind = kind;
            call.algorithm = algorithm;
            let parts = [
                (Dtype::Bf16, 333),
                (Dtype::U8, 0),
                (Dtype::F64, 1),
                (Dtype::I8, 1001),
                (Dtype::F32, 77),
            ];
            call.parts = parts.map(|(dtype, count)| Part { dtype, count }).to_vec();
            run(&call, seed as u64);
        }
    }
}

#[test]
fn a_barrier_ends_when_all_have_come() {
    let mut call = Call::all_reduce(3, Dtype::U8, 0);
    call.kind = Kind::Barrier;
    call.parts.clear();
    let mut world = World::new(3, LIMITS, 1);
    world.start(0, &call);
    world.start(2, &call);
    world.run();
    assert!(world.peers.iter().all(|peer| peer.held.is_empty()));
    world.start(1, &call);
    world.run();
    check(&world, &call);
}

#[test]
fn an_empty_operation_is_held_only_when_all_have_posted() {
    for kind in [Kind::AllReduce, Kind::Broadcast, Kind::AllGather] {
        let mut call = Call::all_reduce(3, Dtype::F32, 0);
        call.kind = kind;
        let mut world = World::new(3, LIMITS, 1);
        world.start(0, &call);
        world.start(1, &call);
        world.run();
        assert!(world.peers.iter().all(|peer| peer.held.is_empty()));
    }
}

#[test]
fn one_member_alone_is_done_with_a_copy_and_no_frame() {
    let mut call = Call::all_reduce(1, Dtype::F32, 1000);
    call.op = ReduceOp::Avg;
    let world = run(&call, 0);
    assert_eq!(world.peers[0].credits, 0);
    assert_eq!(world.peers[0].eager_bodies, 0);
}

#[test]
fn small_operations_need_no_credit_and_large_ones_go_no_eager_way() {
    let small = run(&Call::all_reduce(3, Dtype::F32, 24), 1);
    assert!(small.peers.iter().all(|peer| peer.credits == 0));
    assert!(small.peers.iter().any(|peer| peer.eager_bodies > 0));
    let mut large = Call::all_reduce(3, Dtype::F32, 25);
    large.costs.reserve_bytes = 0;
    let large = run(&large, 1);
    assert!(large.peers.iter().any(|peer| peer.credits > 0));
    assert!(large.peers.iter().all(|peer| peer.eager_bodies == 0));
}

/// Several operations, called in a different order on each peer, with scratch memory for one
/// segment. Each caller waits for an operation to be held before it calls the next but one.
#[test]
fn operations_called_in_different_orders_never_block_each_other() {
    for seed in 0..40 {
        let n = 2 + seed as usize % 4;
        let limits = ExchangeLimits {
            scratch_bytes: 256 * (n - 1),
            ..LIMITS
        };
        let mut calls = Vec::new();
        for tag in 0..6 {
            let mut call = Call::all_reduce(n, Dtype::I32, 20 + 150 * tag);
            call.tag = tag;
            match tag {
                3 => call.algorithm = Algorithm::OneShot,
                4 => call.algorithm = Algorithm::Ring,
                _ => {}
            }
            calls.push(call);
        }
        let mut world = World::new(n, limits, seed);
        let mut todo: Vec<Vec<usize>> = vec![(0..calls.len()).collect(); n];
        let mut idle_rounds = 0;
        loop {
            let at = world.prng.below(n);
            let open = calls.len() - todo[at].len() - world.peers[at].held.len();
            if open < 5 && !todo[at].is_empty() {
                let choice = world.prng.below(todo[at].len());
                let index = todo[at].swap_remove(choice);
                world.start(at, &calls[index]);
            }
            let is_moving = world.step();
            idle_rounds = if is_moving { 0 } else { idle_rounds + 1 };
            assert!(idle_rounds < 1000, "seed {seed}: all wait for each other");
            if !is_moving && todo.iter().all(Vec::is_empty) {
                break;
            }
        }
        calls.iter().for_each(|call| check(&world, call));
        for at in 0..n {
            calls.iter().for_each(|call| world.stop(at, call.name()));
            assert!(world.peers[at].exchange.is_idle());
        }
    }
}

/// Operations are stopped at any moment, different on each peer; the tag's next operation works.
#[test]
fn an_abort_at_any_moment_leaves_inputs_and_the_next_operation_whole() {
    for seed in 0..200 {
        let n = 2 + seed as usize % 3;
        let mut call = Call::all_reduce(n, Dtype::F32, [20, 900][seed as usize / 7 % 2]);
        call.algorithm =
            [Algorithm::Ring, Algorithm::TwoShot, Algorithm::OneShot][seed as usize % 3];
        let mut next = call.clone();
        next.n = 1;
        let mut world = World::new(n, LIMITS, seed);
        let posted = world.prng.below(n) + 1;
        for at in 0..posted {
            world.start(at, &call);
        }
        for at in 0..n {
            for _ in 0..world.prng.below(60) {
                world.step();
            }
            if at < posted {
                let memory = &world.peers[at].memory[&call.name()];
                assert_eq!(memory.input, call.input(at));
                world.stop(at, call.name());
            }
            world.start(at, &next);
        }
        world.run();
        check(&world, &next);
        for at in 0..n {
            world.stop(at, next.name());
            assert!(
                world.peers[at].exchange.is_idle(),
                "seed {seed}: slots leak at {at}"
            );
        }
    }
}

#[test]
fn a_difference_in_any_field_is_told_to_all_and_nothing_is_held() {
    let base = Call::all_reduce(3, Dtype::F32, 100);
    type Change = (&'static str, fn(&mut Call));
    let changes: Vec<Change> = vec![
        ("call", |call| call.kind = Kind::Broadcast),
        ("algorithm", |call| call.algorithm = Algorithm::Ring),
        ("operator", |call| call.op = ReduceOp::Max),
        ("dtype", |call| call.parts[0].dtype = Dtype::I32),
        ("count", |call| call.parts[0].count = 99),
        ("count", |call| call.parts[0].count = 0),
        ("count", |call| call.parts[0].count = 1),
        ("call", |call| call.caller = "reduce to rank 2".into()),
        ("number of buffers", |call| {
            call.parts = vec![
                Part {
                    dtype: Dtype::F32,
                    count: 50,
                },
                Part {
                    dtype: Dtype::F32,
                    count: 50,
                },
            ];
        }),
    ];
    for (seed, (field, change)) in changes.into_iter().enumerate() {
        let mut other = base.clone();
        change(&mut other);
        check_difference(field, (&base, &other), seed as u64);
    }
    let mut base = base;
    base.kind = Kind::Broadcast;
    let mut other = base.clone();
    other.root = 1;
    check_difference("root", (&base, &other), 0);
}

/// Peer 1 calls something else than peers 0 and 2.
fn check_difference(field: &str, (base, other): (&Call, &Call), seed: u64) {
    let mut world = World::new(3, LIMITS, seed);
    world.start(0, base);
    world.start(1, other);
    world.start(2, base);
    world.run();
    for at in 0..3 {
        assert!(world.peers[at].held.is_empty(), "{field} at {at}");
        assert!(world.peers[at].faults.is_empty(), "{field} at {at}");
        let told = &world.peers[at].mismatches;
        let theirs = if at == 1 { base } else { other };
        let expected: Vec<(_, Fingerprint)> = [0, 1, 2]
            .into_iter()
            .filter(|&other| (at == 1) == (other != 1) && other != at)
            .map(|other| (peer(other), theirs.fingerprint()))
            .collect();
        let mut told = told.clone();
        told.sort();
        assert_eq!(told, expected, "{field} at {at}");
        let mine = world_fingerprint(at, base, other);
        assert_eq!(told[0].1.difference(&mine).unwrap().0, field);
    }
}

fn world_fingerprint(at: usize, base: &Call, other: &Call) -> Fingerprint {
    if at == 1 { other } else { base }.fingerprint()
}

/// These tests detect the deliberate bugs in the rules of this module (docs/simulation.md).
#[cfg(ccl_mutations)]
pub(super) mod mutations {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::collective::is_staged;
    use crate::mutation::{Mutation, activate};

    pub(in crate::collective) fn is_noticed(mutation: Mutation, test: impl FnOnce()) -> bool {
        activate(Some(mutation));
        let result = catch_unwind(AssertUnwindSafe(test));
        activate(None);
        result.is_err()
    }

    #[test]
    fn credits_before_all_have_posted_are_noticed() {
        assert!(is_noticed(Mutation::CreditWhenPosted, || {
            operations_called_in_different_orders_never_block_each_other();
        }));
    }

    #[test]
    fn frames_of_other_births_are_noticed() {
        assert!(is_noticed(Mutation::NoBirthCheck, || {
            an_abort_at_any_moment_leaves_inputs_and_the_next_operation_whole();
        }));
    }

    #[test]
    fn a_fingerprint_that_is_not_compared_is_noticed() {
        assert!(is_noticed(Mutation::FingerprintSkippedWhenDone, || {
            a_difference_in_any_field_is_told_to_all_and_nothing_is_held();
        }));
    }

    #[test]
    fn results_in_the_memory_of_the_input_are_noticed() {
        assert!(is_noticed(Mutation::ResendFromOverwritten, || {
            assert!(is_staged(true));
        }));
    }
}
