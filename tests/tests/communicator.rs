//! Collectives as a program calls them, over real sockets: a master and several communicators, each
//! on its own thread. Changes of membership are in `membership.rs`.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::time::Duration;

use ccl_core::{Algorithm, Error, Handle, Options, Rank, ReduceOp};

use common::{run, with_tag};

#[test]
fn everybody_gets_the_sum_in_place_and_out_of_place() {
    for world in [1, 2, 4] {
        let counts = [0, 1, 3, 1023, 70_001, 1_048_577];
        let results = run(world, move |communicator| {
            let rank = communicator.rank().0;
            for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
                let options = Options {
                    algorithm,
                    ..Options::default()
                };
                for count in counts {
                    let input: Vec<i64> = (0..count).map(|i| i64::from(rank + 1) * i).collect();
                    let factor = i64::from(world * (world + 1) / 2);
                    let expected: Vec<i64> = (0..count).map(|i| factor * i).collect();
                    let mut output = vec![-1; input.len()];
                    let sum = ReduceOp::Sum;
                    communicator
                        .all_reduce_into(&input, &mut output, sum, &options)
                        .unwrap();
                    assert_eq!(output, expected);
                    let mut buffer = input.clone();
                    let outcome = communicator.all_reduce(&mut buffer, sum, &options).unwrap();
                    assert_eq!(buffer, expected);
                    assert_eq!(outcome.contributors.len(), world as usize);
                }
            }
            communicator.counters().commits
        });
        assert_eq!(results, vec![36; world as usize]);
    }
}

#[test]
fn a_list_of_buffers_is_one_transaction() {
    run(3, |communicator| {
        let rank = communicator.rank().0 as f32;
        let mut buffers: Vec<Vec<f32>> = [0, 1, 5, 4096, 100_000]
            .iter()
            .map(|&count| vec![rank; count])
            .collect();
        let mut slices: Vec<&mut [f32]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        let options = Options::default();
        communicator
            .all_reduce_many(&mut slices, ReduceOp::Avg, &options)
            .unwrap();
        assert!(buffers.iter().flatten().all(|&value| value == 1.0));
        assert_eq!(communicator.counters().commits, 1);
    });
}

#[test]
fn the_other_collectives_move_what_their_names_say() {
    run(3, |communicator| {
        let (rank, options) = (communicator.rank().0, Options::default());
        for count in [1_usize, 7, 50_000] {
            let send = vec![rank; count];
            let mut gathered = vec![9; 3 * count];
            communicator
                .all_gather(&send, &mut gathered, &options)
                .unwrap();
            assert!(
                gathered
                    .chunks(count)
                    .zip(0_u32..)
                    .all(|(c, r)| c.iter().all(|&v| v == r))
            );

            let send: Vec<u32> = (0..3 * count as u32).map(|i| i * (rank + 1)).collect();
            let mut share = vec![0; count];
            communicator
                .reduce_scatter(&send, &mut share, ReduceOp::Sum, &options)
                .unwrap();
            let first = rank * count as u32;
            assert!(share.iter().zip(first..).all(|(&value, i)| value == i * 6));

            let mut buffer = vec![rank; count];
            communicator
                .broadcast(&mut buffer, Rank(2), &options)
                .unwrap();
            assert_eq!(buffer, vec![2; count]);
        }
        communicator.barrier(&options).unwrap();
    });
}

#[test]
fn operations_of_many_tags_run_at_once_in_any_order() {
    run(4, |communicator| {
        let rank = communicator.rank().0;
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    // Each rank starts the tags in a different order.
                    let start = |round| {
                        let tag = 10 * thread + (round + u64::from(rank)) % 6;
                        let count = if tag % 2 == 0 { 11 } else { 120_000 };
                        let buffers = vec![vec![tag + u64::from(rank); count]];
                        let (sum, options) = (ReduceOp::Sum, with_tag(tag));
                        (
                            tag,
                            communicator.all_reduce_many_async(buffers, sum, &options),
                        )
                    };
                    let handles: Vec<_> = (0..6).map(start).collect();
                    for (tag, handle) in handles {
                        let (buffers, end) = handle.wait();
                        end.unwrap();
                        assert!(buffers[0].iter().all(|&value| value == 4 * tag + 6));
                    }
                });
            }
        });
    });
}

#[test]
fn a_difference_names_the_peer_and_both_values_and_the_next_call_works() {
    let errors = run(3, |communicator| {
        let count = if communicator.rank().0 == 1 {
            1001
        } else {
            1000
        };
        let mut buffer = vec![1.0_f32; count];
        let error = communicator
            .all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
            .unwrap_err();
        assert_eq!(buffer, vec![1.0; count], "the input is intact");
        let mut buffer = vec![1.0_f32; 10];
        communicator
            .all_reduce(&mut buffer, ReduceOp::Sum, &Options::default())
            .unwrap();
        assert_eq!(buffer, vec![3.0; 10]);
        error.to_string()
    });
    for error in errors {
        assert!(error.contains("count") && error.contains("1000") && error.contains("1001"));
    }
}

#[test]
fn a_cancel_ends_the_call_of_everybody_and_spares_the_input() {
    run(2, |communicator| {
        let mut buffers = vec![vec![5_u32; 300_000]];
        if communicator.rank().0 == 0 {
            let options = Options::default();
            let handle = communicator.all_reduce_many_async(buffers, ReduceOp::Sum, &options);
            assert!(matches!(
                handle.wait_for(Duration::from_millis(20)),
                Err(Error::Timeout)
            ));
            assert!(!handle.is_finished());
            handle.cancel();
            let end;
            (buffers, end) = handle.wait();
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
            assert_eq!(buffers[0], vec![5; 300_000]);
            communicator.barrier(&with_tag(1)).unwrap();
        } else {
            // Called after the verdict, so the cancelled number is used up here too.
            communicator.barrier(&with_tag(1)).unwrap();
            let end = communicator.all_reduce(&mut buffers[0], ReduceOp::Sum, &Options::default());
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        }
        let end = communicator.all_reduce(&mut buffers[0], ReduceOp::Sum, &Options::default());
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(buffers[0], vec![10; 300_000]);
    });
}

#[test]
fn a_deadline_is_a_cancel() {
    run(2, |communicator| {
        if communicator.rank().0 == 0 {
            let deadline = Some(Duration::from_millis(50));
            let options = Options {
                deadline,
                ..Options::default()
            };
            let mut buffer = [1_u8];
            let end = communicator.all_reduce(&mut buffer, ReduceOp::Sum, &options);
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        } else {
            let end = communicator.barrier(&with_tag(0));
            assert!(matches!(end, Err(Error::Cancelled { .. })), "{end:?}");
        }
        communicator.barrier(&with_tag(0)).unwrap();
    });
}

#[test]
fn a_busy_tag_is_refused_and_uses_no_number() {
    run(2, |communicator| {
        let options = with_tag(3);
        if communicator.rank().0 == 0 {
            let buffers = vec![vec![1_i32; 100]];
            let first = communicator.all_reduce_many_async(buffers, ReduceOp::Sum, &options);
            let second = communicator.barrier(&options);
            assert!(matches!(second, Err(Error::InvalidUsage(_))), "{second:?}");
            communicator.barrier(&with_tag(4)).unwrap();
            first.wait().1.unwrap();
        } else {
            communicator.barrier(&with_tag(4)).unwrap();
            communicator
                .all_reduce(&mut [1_i32; 100], ReduceOp::Sum, &options)
                .unwrap();
        }
        communicator.barrier(&options).unwrap();
    });
}

#[test]
fn borrowed_buffers_run_side_by_side_in_a_scope() {
    run(2, |communicator| {
        let (mut a, mut b) = (vec![1.0_f64; 200_000], [2_i8; 3]);
        communicator.scope(|scope| {
            let first = scope
                .all_reduce(&mut a, ReduceOp::Sum, &with_tag(0))
                .unwrap();
            let second = scope
                .all_reduce(&mut b, ReduceOp::Prod, &with_tag(1))
                .unwrap();
            second.wait().unwrap();
            first.wait().unwrap();
        });
        assert_eq!(a, vec![2.0; 200_000]);
        assert_eq!(b, [4; 3]);
    });
}

#[test]
fn every_collective_runs_asynchronously_on_owned_and_in_a_scope_on_borrowed_buffers() {
    run(2, |communicator| {
        let (rank, sum) = (communicator.rank().0, ReduceOp::Sum);
        let tagged = with_tag;
        let one = communicator.all_reduce_async(vec![rank; 9], sum, &tagged(0));
        let two = communicator.all_reduce_into_async(vec![rank; 9], vec![7; 9], sum, &tagged(1));
        let many = vec![vec![rank; 3], vec![rank + 1]];
        let three = communicator.all_reduce_many_async(many, sum, &tagged(2));
        let four = communicator.all_gather_async(vec![rank; 2], vec![7; 4], &tagged(3));
        let halves = vec![rank, 10, 20, 30];
        let five = communicator.reduce_scatter_async(halves, vec![7; 2], sum, &tagged(4));
        let six = communicator.broadcast_async(vec![rank; 5], Rank(1), &tagged(5));
        let seven = communicator.barrier_async(&tagged(6));
        let share = [vec![1, 20], vec![40, 60]][rank as usize].clone();
        assert_eq!(done(seven), ());
        assert_eq!(done(six), [1; 5]);
        assert_eq!(done(five).1, share);
        assert_eq!(done(four), (vec![rank; 2], vec![0, 0, 1, 1]));
        assert_eq!(done(three), [vec![1; 3], vec![3]]);
        assert_eq!(done(two), (vec![rank; 9], vec![1; 9]));
        assert_eq!(done(one), [1; 9]);
        let (send, mut reduced, mut gathered, mut mine) = ([rank; 2], [7; 2], [7; 4], [7]);
        let (mut a, mut b, mut given) = ([rank; 3], [rank + 1], [rank]);
        communicator.scope(|scope| {
            let calls = [
                scope.all_reduce_into(&send, &mut reduced, sum, &tagged(0)),
                scope.all_reduce_many(&mut [&mut a, &mut b], sum, &tagged(1)),
                scope.all_gather(&send, &mut gathered, &tagged(2)),
                scope.reduce_scatter(&send, &mut mine, sum, &tagged(3)),
                scope.broadcast(&mut given, Rank(1), &tagged(4)),
                scope.barrier(&tagged(5)),
            ];
            for call in calls {
                call.unwrap().wait().unwrap();
            }
        });
        assert_eq!((reduced, a, b), ([1; 2], [1; 3], [3]));
        assert_eq!((gathered, mine, given), ([0, 0, 1, 1], [1], [1]));
    });
}

fn done<B>(handle: Handle<B>) -> B {
    let (buffers, end) = handle.wait();
    assert_eq!(end.unwrap().contributors.len(), 2);
    buffers
}

#[test]
fn a_call_that_cannot_start_gives_its_buffers_back() {
    run(2, |communicator| {
        let options = Options::default();
        let handle = communicator.all_gather_async(vec![1, 2], vec![5; 3], &options);
        assert!(handle.is_finished());
        let (buffers, end) = handle.wait();
        assert!(matches!(end, Err(Error::InvalidArgument(_))), "{end:?}");
        assert_eq!(buffers, (vec![1, 2], vec![5; 3]));
    });
}

#[test]
fn after_its_end_an_operation_still_tells_how_far_it_was() {
    run(2, |communicator| {
        let handle = communicator.all_reduce_async(
            vec![1.0_f32; 100_000],
            ReduceOp::Sum,
            &Options::default(),
        );
        while !handle.is_finished() {
            std::thread::yield_now();
        }
        for tag in 1..4 {
            let progress = handle.progress();
            assert_eq!(progress.done_bytes, progress.total_bytes);
            assert!(progress.done_bytes >= 400_000, "{progress:?}");
            communicator.barrier(&with_tag(tag)).unwrap();
        }
        let (sums, end) = handle.wait();
        end.unwrap();
        assert_eq!(sums[99_999], 2.0);
    });
}
