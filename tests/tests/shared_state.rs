//! Shared state over real sockets: members that lack the elected content get it from those that
//! have it.
//!
//! Deaths of whole processes are tested in `ccl-cli/tests`.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use ccl_core::{
    Checkpoints, Communicator, CommunicatorConfig, Error, Hashes, MasterConfig, MasterServer,
    Options, SharedState, SyncFault, SyncInfo, SyncOptions, SyncStrategy, SyncWatch, Vid,
};

/// Far longer than anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

/// Runs `body` with its rank on `world` communicators at once; results in rank order.
fn run<R: Send + 'static>(
    world: u32,
    body: impl Fn(&Communicator, usize) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let config = MasterConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        new_run: true,
        ..MasterConfig::default()
    };
    let master = MasterServer::start(config, None).unwrap();
    let body = Arc::new(body);
    let done = Arc::new(Barrier::new(world as usize));
    let peer = |_| {
        let config = CommunicatorConfig {
            master: master.address().to_string(),
            initial_world_size: Some(world),
            connect_timeout: HANG,
            operation_timeout: Some(HANG),
            ..CommunicatorConfig::default()
        };
        let (body, done) = (Arc::clone(&body), Arc::clone(&done));
        std::thread::spawn(move || {
            let communicator = Communicator::connect(config).unwrap();
            let rank = communicator.rank().index();
            let result = body(&communicator, rank);
            done.wait();
            (rank, result)
        })
    };
    let threads: Vec<_> = (0..world).map(peer).collect();
    let joined = threads.into_iter().map(|thread| thread.join().unwrap());
    let mut results: Vec<_> = joined.collect();
    results.sort_by_key(|(rank, _)| *rank);
    master.shutdown();
    results.into_iter().map(|(_, result)| result).collect()
}

fn content(seed: u32, count: usize) -> Vec<u32> {
    let mix = |index: u32| (index ^ seed.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
    (0..count as u32).map(mix).collect()
}

fn received(infos: &[SyncInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.received_bytes).collect()
}

#[test]
fn a_flipped_bit_is_found_and_only_its_block_moves() {
    let infos = run(4, |communicator, rank| {
        let mut weights = content(1, 8 * MIB / 4);
        let mut bias = content(2, 1000);
        if rank == 2 {
            weights[1_000_000] ^= 1 << 17;
        }
        let mut state = SharedState::new(7);
        state
            .add("weights", &[8, MIB as u64 / 4], &mut weights)
            .unwrap();
        state.add("bias", &[1000], &mut bias).unwrap();
        let info = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        assert_eq!(
            state.slice::<u32>("weights").unwrap(),
            content(1, 8 * MIB / 4)
        );
        assert_eq!(state.root().unwrap(), info.root);
        assert_eq!(info.revision, 7);
        info
    });
    let bytes = received(&infos);
    assert_eq!([bytes[0], bytes[1], bytes[3]], [0; 3]);
    assert!(bytes[2] > 0 && bytes[2] < 512 << 10, "{} bytes", bytes[2]);
    assert!(infos.iter().all(|info| info.root == infos[0].root));
    let sent: u64 = infos.iter().map(|info| info.sent_bytes).sum();
    assert_eq!(sent, bytes[2], "every byte that was given was used");
}

#[test]
fn a_peer_that_is_behind_gets_everything_from_all_sources() {
    let infos = run(4, |communicator, rank| {
        let (seed, revision) = if rank == 3 { (9, 0) } else { (1, 12) };
        let mut weights = content(seed, 32 * MIB / 4);
        let mut state = SharedState::new(revision);
        state
            .add("weights", &[32 * MIB as u64 / 4], &mut weights)
            .unwrap();
        let info = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        assert_eq!(state.revision(), 12);
        assert_eq!(
            state.slice::<u32>("weights").unwrap(),
            content(1, 32 * MIB / 4)
        );
        info
    });
    let joiner = &infos[3];
    assert_eq!(joiner.sources.len(), 3, "{:?}", joiner.sources);
    let used: u64 = joiner.sources.iter().map(|(_, bytes)| bytes).sum();
    assert!(used >= 32 * MIB as u64);
    assert!(joiner.received_bytes <= used + used / 10);
    assert_eq!(received(&infos)[..3], [0; 3]);
}

#[test]
fn the_newer_revision_wins_against_the_more_popular() {
    run(3, |communicator, rank| {
        let mut weights = vec![if rank == 1 { 2.0_f32 } else { 1.0 }; 1000];
        let mut state = SharedState::new(if rank == 1 { 6 } else { 5 });
        state.add("w", &[1000], &mut weights).unwrap();
        let info = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        assert_eq!(info.revision, 6);
        assert_eq!(state.slice::<f32>("w").unwrap(), [2.0; 1000]);
    });
}

/// The fault, and the view of its error.
fn fault(error: Error) -> (SyncFault, Vid) {
    match error {
        Error::SharedState { fault, vid, .. } => (*fault, vid),
        error => panic!("{error}"),
    }
}

#[test]
fn other_entries_are_an_error_that_names_the_odd_one_and_the_next_sync_works() {
    let names = run(3, |communicator, rank| {
        let mut weights = vec![rank as u8; 10];
        let mut state = SharedState::new(1);
        let name = if rank == 1 { "odd" } else { "w" };
        state.add(name, &[10], &mut weights).unwrap();
        let error = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap_err();
        let (fault, vid) = fault(error);
        let SyncFault::Keys { peer, .. } = fault else {
            panic!("{fault}");
        };
        assert!(state.is_usable(), "nothing moved");
        assert_eq!(vid, communicator.view().vid);
        let mut state = SharedState::new(1);
        state.add("w", &[10], &mut weights).unwrap();
        communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        assert_eq!(
            state.slice::<u8>("w").unwrap(),
            [0; 10],
            "a tie goes to the lowest rank"
        );
        (peer, communicator.peer())
    });
    assert!(names.iter().all(|(odd, _)| *odd == names[1].1), "{names:?}");
}

/// The stray member learns both revisions and what to do, and the others' call goes on.
#[test]
fn who_is_too_far_ahead_is_evicted_with_both_revisions() {
    run(3, |communicator, rank| {
        let mut weights = vec![rank as u64; 100];
        let mut state = SharedState::new(14);
        state.add("w", &[100], &mut weights).unwrap();
        let strategy = SyncStrategy::EnforcePopular;
        communicator
            .sync_shared_state(&mut state, strategy)
            .unwrap();
        if rank == 2 {
            state.set_revision(16);
        }
        match communicator.sync_shared_state(&mut state, strategy) {
            Ok(info) => assert_eq!((rank < 2, info.revision, info.members.len()), (true, 14, 2)),
            Err(error) => {
                let text = error.to_string();
                assert!(rank == 2 && error.is_fatal(), "{text}");
                for words in ["has revision 16", "last is 14", "start without it"] {
                    assert!(text.contains(words), "{text}");
                }
            }
        }
    });
}

/// Names and shapes.
type Entries = Vec<(&'static str, Vec<u64>)>;

/// The error texts of three members, of which rank 1 has different entries.
fn told(entries: fn(usize) -> Entries) -> Vec<String> {
    told_by(3, entries)
}

/// The error texts of all members, of which rank 1 has different entries.
fn told_by(world_size: u32, entries: fn(usize) -> Entries) -> Vec<String> {
    run(world_size, move |communicator, rank| {
        let entries = entries(rank);
        let count = |shape: &[u64]| shape.iter().product::<u64>() as usize;
        let mut memory: Vec<_> = entries.iter().map(|it| vec![0_f32; count(&it.1)]).collect();
        let mut state = SharedState::new(1);
        for ((name, shape), memory) in entries.iter().zip(&mut memory) {
            state.add(name, shape, memory).unwrap();
        }
        let error = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap_err()
            .to_string();
        let (_, last) = error.rsplit_once(". ").unwrap();
        let odd = communicator.view().members[1].peer;
        let name = last
            .split_once(" (")
            .and_then(|(_, tail)| tail.split_once(')'));
        let name = name.map_or(String::new(), |(name, _)| format!(" ({name})"));
        last.replace(&format!("peer {odd}{name}"), "the odd one")
    })
}

#[test]
fn the_entry_that_differs_is_named_with_both_sides() {
    let words = told(|rank| {
        let shape = if rank == 1 { vec![20, 2] } else { vec![20] };
        vec![("a", vec![3]), ("w", shape), ("z", vec![])]
    });
    let usual = "\"w\" is f32 of shape [20] here, but f32 of shape [20, 2] on the odd one";
    let odd = "\"w\" is f32 of shape [20, 2] here, but f32 of shape [20] on the others";
    assert_eq!(words, [usual, odd, usual]);

    let words = told(|rank| match rank {
        1 => vec![("a", vec![3]), ("more", vec![1]), ("z", vec![])],
        _ => vec![("a", vec![3]), ("z", vec![])],
    });
    let usual = "\"more\" is f32 of shape [1] on the odd one, but is missing here";
    let odd = "\"more\" is f32 of shape [1] here, but is missing on the others";
    assert_eq!(words, [usual, odd, usual]);

    let words = told(|rank| match rank {
        1 => vec![("z", vec![]), ("a", vec![3])],
        _ => vec![("a", vec![3]), ("z", vec![])],
    });
    let usual = "the entries here and on the odd one are the same, but in a different order";
    let odd = "the entries here and on the others are the same, but in a different order";
    assert_eq!(words, [usual, odd, usual]);

    // All differ: the last two errors name the member admitted last.
    let words = told(|rank| vec![("a", vec![3]), (["x", "y", "z"][rank], vec![2])]);
    assert!(
        words
            .iter()
            .all(|words| words.contains(" is f32 of shape [2] ")),
        "{words:?}"
    );
}

#[test]
fn each_of_two_with_the_same_odd_entry_is_told_of_it() {
    let words = told_by(5, |rank| {
        let shape = if rank < 2 { vec![20, 2] } else { vec![20] };
        vec![("a", vec![3]), ("w", shape)]
    });
    let usual = "\"w\" is f32 of shape [20] here, but f32 of shape [20, 2] on the odd one";
    let odd = "\"w\" is f32 of shape [20, 2] here, but f32 of shape [20] on the others";
    assert_eq!(words, [odd, odd, usual, usual, usual]);
}

/// Entries are distinguished by cells, and in each cell more than one differs.
#[test]
fn many_entries_that_differ_are_counted() {
    const NAMES: [&str; 39] = [
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b0", "b1", "b2", "b3", "b4",
        "b6", "b7", "b8", "b9", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "d0",
        "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9",
    ];
    let words = told(|rank| {
        let shape = vec![if rank == 1 { 2 } else { 3 }];
        NAMES.iter().map(|name| (*name, shape.clone())).collect()
    });
    let odd = "at least 14 entries differ between this member and the others";
    let usual = "at least 14 entries differ between this member and the odd one";
    assert_eq!(words, [usual, odd, usual]);
    let words = told(|rank| {
        let shape = vec![if rank == 1 { 2 } else { 3 }];
        vec![("x", shape.clone()), ("y", shape)]
    });
    let more = "; at least one more entry differs";
    assert!(words.iter().all(|words| words.ends_with(more)), "{words:?}");
}

/// A name too long for a sketch is shown by its end, and a shape too long by its element count.
#[test]
fn an_entry_that_differs_is_named_as_far_as_there_is_room() {
    const LONG: [u64; 8] = [1, 1, 1, 1, 1, 1, 1, 3];
    let words = told(|rank| match rank {
        1 => vec![("a", vec![3])],
        _ => vec![("a", vec![3]), (NAME, LONG.to_vec())],
    });
    let (usual, odd) = (&words[0], &words[1]);
    let end = "but is missing on the odd one";
    assert!(
        usual.starts_with(&format!("{NAME:?} is f32")) && usual.ends_with(end),
        "{usual}"
    );
    let (name, tail) = odd
        .split_once(" is f32 of shape [1, 1, 1, 1, 1, 1, 1, 3] on ")
        .unwrap();
    assert_eq!(tail, "the others, but is missing here");
    let name = name.strip_prefix("\"…").unwrap().strip_suffix('"').unwrap();
    assert!(NAME.ends_with(name) && name.len() >= 60, "{name}");
}

const NAME: &str = "a.model.of.very.many.parts.whose.names.are.all.put.together.by.dots.until.nobody.\
                    reads.them.any.more.layers.31.self_attention.projection.weight";

#[test]
fn strategies_decide_who_gives() {
    run(3, |communicator, rank| {
        let mut weights = vec![rank as u64; 50_000];
        let mut state = SharedState::new(3);
        state.add("w", &[50_000], &mut weights).unwrap();
        let mixed = if rank == 0 {
            SyncStrategy::EnforcePopular
        } else {
            SyncStrategy::SendOnly
        };
        let error = communicator
            .sync_shared_state(&mut state, mixed)
            .unwrap_err();
        let (found, _) = fault(error);
        assert!(matches!(found, SyncFault::Strategies { .. }), "{found}");
        let one_sends = if rank == 2 {
            SyncStrategy::SendOnly
        } else {
            SyncStrategy::ReceiveOnly
        };
        communicator
            .sync_shared_state(&mut state, one_sends)
            .unwrap();
        assert_eq!(state.slice::<u64>("w").unwrap(), vec![2; 50_000]);
        let error = communicator
            .sync_shared_state(&mut state, SyncStrategy::ReceiveOnly)
            .unwrap_err();
        let (found, _) = fault(error);
        assert!(matches!(found, SyncFault::NoSource), "{found}");
    });
}

/// All members hold a mixture, and no vote helps. Then they declare that they have filled the
/// memory with a consistent content, and go on from that, although the run sealed a later one.
#[test]
fn members_that_have_lost_everything_begin_anew() {
    run(2, |communicator, rank| {
        let mut memory = vec![rank as u64; 50_000];
        let mut state = SharedState::new(5);
        state.add("w", &[50_000], &mut memory).unwrap();
        let restore = SyncOptions {
            restore: true,
            ..SyncOptions::default()
        };
        let popular = SyncStrategy::EnforcePopular;
        communicator.sync_shared_state(&mut state, popular).unwrap();
        state.mark_mixed();
        let error = communicator
            .sync_while(&mut state, &restore, |_| {})
            .unwrap_err();
        assert!(error.to_string().contains("begin_anew"), "{error}");
        let (found, _) = fault(error);
        assert!(matches!(found, SyncFault::NoSource), "{found}");
        state.begin_anew(1);
        state.slice_mut("w").unwrap().fill(7_u64);
        let info = communicator
            .sync_while(&mut state, &restore, |_| {})
            .unwrap();
        assert_eq!((info.revision, state.is_usable()), (1, true));
        assert_eq!(state.slice::<u64>("w").unwrap(), vec![7; 50_000]);
    });
}

#[test]
fn many_small_entries_and_empty_ones_become_equal() {
    const ENTRIES: usize = 10_000;
    run(2, |communicator, rank| {
        let mut memory: Vec<Vec<u16>> = (0..ENTRIES)
            .map(|index| vec![(index * (rank + 1)) as u16; index % 7])
            .collect();
        let mut free = vec![rank as i8; 5];
        let mut state = SharedState::new(0);
        for (index, memory) in memory.iter_mut().enumerate() {
            let shape = [memory.len() as u64];
            state
                .add(&format!("entry {index}"), &shape, memory)
                .unwrap();
        }
        state.add_unequal("free", &[5], &mut free).unwrap();
        communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        drop(state);
        for (index, memory) in memory.iter().enumerate() {
            assert_eq!(*memory, vec![index as u16; index % 7]);
        }
        assert_eq!(free, [rank as i8; 5]);
    });
}

#[test]
fn a_hint_saves_hashing_and_a_full_sync_sees_what_it_hid() {
    run(2, |communicator, rank| {
        let mut one = vec![0_u8; 1000];
        let mut two = vec![0_u8; 1000];
        let mut state = SharedState::new(0);
        state.add("one", &[1000], &mut one).unwrap();
        state.add("two", &[1000], &mut two).unwrap();
        let sync = |state: &mut SharedState<'_>, touched: Option<Vec<usize>>| {
            let options = SyncOptions {
                touched,
                ..SyncOptions::default()
            };
            communicator.sync_while(state, &options, |_| {}).unwrap();
        };
        sync(&mut state, None);
        state.slice_mut::<u8>("two").unwrap()[3] = rank as u8;
        state.slice_mut::<u8>("one").unwrap()[3] = rank as u8;
        sync(&mut state, Some(vec![0]));
        assert_eq!(state.slice::<u8>("one").unwrap()[3], 0);
        assert_eq!(
            state.slice::<u8>("two").unwrap()[3],
            rank as u8,
            "hidden by the hint"
        );
        sync(&mut state, None);
        assert_eq!(state.slice::<u8>("two").unwrap()[3], 0);
    });
}

#[test]
fn a_hint_goes_on_from_an_earlier_state_of_the_same_entries_only() {
    run(2, |communicator, rank| {
        let sync = |revision: u64, memory: &mut [u8], hashes: Option<Hashes>| {
            let mut state = SharedState::new(revision);
            let count = memory.len() as u64;
            state.add("w", &[count], memory).unwrap();
            hashes.into_iter().for_each(|hashes| state.resume(hashes));
            let options = SyncOptions {
                touched: Some(vec![]),
                ..SyncOptions::default()
            };
            communicator
                .sync_while(&mut state, &options, |_| {})
                .unwrap();
            let hashes = state.take_hashes();
            assert!(state.take_hashes().is_none());
            hashes
        };
        let hashes = sync(0, &mut [0; 1000], None);
        let mut memory = vec![rank as u8; 1000];
        let hashes = sync(1, &mut memory, hashes);
        assert_eq!(memory, vec![rank as u8; 1000], "hidden by the hint");
        let mut longer = vec![rank as u8; 1001];
        sync(2, &mut longer, hashes);
        assert_eq!(longer, vec![0; 1001], "nothing is known of it");
    });
}

#[test]
fn syncs_and_collectives_run_side_by_side() {
    run(3, |communicator, rank| {
        let mut weights = content(rank as u32, 4 * MIB / 4);
        let mut state = SharedState::new(1);
        state.add("w", &[4 * MIB as u64 / 4], &mut weights).unwrap();
        let reduce = |_: &SyncWatch| {
            let mut buffer = vec![1.0_f32; 300_000];
            communicator
                .all_reduce(&mut buffer, ccl_core::ReduceOp::Sum, &Options::default())
                .unwrap();
            assert_eq!(buffer, vec![3.0; 300_000]);
        };
        communicator
            .sync_while(&mut state, &SyncOptions::default(), reduce)
            .unwrap();
        assert_eq!(state.slice::<u32>("w").unwrap(), content(0, 4 * MIB / 4));
    });
}

#[test]
fn a_panic_while_a_sync_is_under_way_cancels_it_for_everybody() {
    run(2, |communicator, rank| {
        let mut weights = vec![rank as u8; 100];
        let mut state = SharedState::new(1);
        state.add("w", &[100], &mut weights).unwrap();
        if rank == 0 {
            let panic = |_: &SyncWatch| std::panic::resume_unwind(Box::new("body"));
            let sync = AssertUnwindSafe(|| {
                communicator.sync_while(&mut state, &SyncOptions::default(), panic)
            });
            assert!(std::panic::catch_unwind(sync).is_err());
        } else {
            // Either the cancel came too late, or the error names the member that cancelled.
            match communicator.sync_shared_state(&mut state, SyncStrategy::EnforcePopular) {
                Ok(_) | Err(Error::Cancelled { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(state.is_usable() || rank == 1);
    });
}

#[test]
fn a_run_that_starts_anew_resumes_from_the_newest_checkpoint_that_anybody_has() {
    let name = format!("ccl-shared-state-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    let path = directory.clone();
    let of_rank = move |rank: usize| Checkpoints::new(path.join(rank.to_string()));
    run(2, {
        let of_rank = of_rank.clone();
        move |_, rank| {
            let mut weights = vec![7.5_f64; 100_000];
            let mut step = [12_u64];
            // Rank 1 died before it had saved as often as the other.
            let mut state = SharedState::new(12 - rank as u64);
            state.add("weights", &[1000, 100], &mut weights).unwrap();
            state.add("step", &[], &mut step).unwrap();
            state.save(&of_rank(rank)).unwrap();
        }
    });
    run(3, move |communicator, rank| {
        let mut weights = vec![0.0_f64; 100_000];
        let mut step = [0_u64];
        let mut state = SharedState::new(0);
        state.add("weights", &[1000, 100], &mut weights).unwrap();
        state.add("step", &[], &mut step).unwrap();
        assert_eq!(state.load(&of_rank(rank)).unwrap().is_some(), rank < 2);
        let info = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap();
        assert_eq!(info.revision, 12);
        assert_eq!(state.slice::<f64>("weights").unwrap(), vec![7.5; 100_000]);
        assert_eq!(state.slice::<u64>("step").unwrap(), [12]);
    });
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn entries_that_make_no_sense_are_refused_with_their_name() {
    let mut memory = [0_u8; 10];
    let (left, right) = memory.split_at_mut(5);
    let mut state = SharedState::new(0);
    assert!(
        matches!(state.add("a", &[4], left), Err(Error::InvalidArgument(why)) if why.contains("\"a\""))
    );
    state.add("b", &[5], right).unwrap();
    let mut other = [0_u8; 1];
    assert!(matches!(
        state.add("b", &[1], &mut other),
        Err(Error::InvalidArgument(_))
    ));
    assert!(matches!(
        state.slice::<f32>("b"),
        Err(Error::InvalidArgument(_))
    ));
}

/// A state that a sync may own, of leaked memory.
fn owned(revision: u64, content: Vec<u32>) -> SharedState<'static> {
    let mut state = SharedState::new(revision);
    let shape = [content.len() as u64];
    state.add("w", &shape, content.leak()).unwrap();
    state
}

/// 1. A sync that only one of two members has called keeps its state.
/// 2. Another sync is refused meanwhile, and its state returned.
/// 3. When the other member calls too, all waiting threads get the same result, and the state is
///    returned once.
#[test]
fn a_sync_owns_its_state_until_the_end_and_gives_it_back() {
    let called = Barrier::new(2);
    run(2, move |communicator, rank| {
        let state = owned(2 - rank as u64, content(rank as u32, MIB));
        let options = SyncOptions::default();
        if rank == 1 {
            called.wait();
        }
        let sync = communicator
            .sync_shared_state_async(state, &options)
            .unwrap();
        if rank == 0 {
            assert!(sync.take_state().is_none());
            let error = sync.wait_for(Duration::ZERO).unwrap_err();
            assert!(matches!(error, Error::Timeout), "{error}");
            let (error, state) = communicator
                .sync_shared_state_async(owned(7, vec![1]), &options)
                .unwrap_err();
            assert!(matches!(error, Error::InvalidUsage(_)), "{error}");
            assert_eq!(state.revision(), 7);
            called.wait();
        }
        let [one, other] = std::thread::scope(|scope| {
            let waits = [(); 2].map(|()| scope.spawn(|| sync.wait().unwrap()));
            waits.map(|wait| wait.join().unwrap())
        });
        assert_eq!((one.revision, one.root), (2, other.root));
        assert_eq!(sync.is_source(), Some(rank == 0));
        let state = sync.take_state().unwrap();
        assert_eq!(state.slice::<u32>("w").unwrap(), content(0, MIB));
        assert_eq!(state.revision(), 2);
        assert!(sync.take_state().is_none());
        assert_eq!(sync.wait_for(Duration::ZERO).unwrap().root, one.root);
    });
}

#[test]
fn a_sync_that_is_given_up_gives_its_state_back_too() {
    run(1, |communicator, _| {
        let options = SyncOptions::default();
        let sync = communicator
            .sync_shared_state_async(owned(3, vec![5; 9]), &options)
            .unwrap();
        sync.settle();
        assert!(sync.is_finished());
        let state = sync.take_state().unwrap();
        assert_eq!(state.slice::<u32>("w").unwrap(), [5; 9]);
        // After a handle is dropped, the next sync may start.
        drop(
            communicator
                .sync_shared_state_async(state, &options)
                .unwrap(),
        );
        let next = communicator.sync_shared_state_async(owned(4, vec![6]), &options);
        next.unwrap().wait().unwrap();
    });
}

#[test]
fn after_its_end_a_sync_still_tells_what_it_did() {
    run(2, |communicator, rank| {
        let mut weights = content(rank as u32, MIB);
        let mut state = SharedState::new(2 - rank as u64);
        state.add("w", &[MIB as u64], &mut weights).unwrap();
        let options = SyncOptions::default();
        let mut watch = None;
        let keep_watch = |sync: &SyncWatch| watch = Some(sync.clone());
        let info = communicator
            .sync_while(&mut state, &options, keep_watch)
            .unwrap();
        let watch = watch.unwrap();
        assert_eq!(info.revision, 2);
        for _ in 0..2 {
            assert_eq!(watch.is_source(), Some(rank == 0));
            let progress = watch.progress();
            assert_eq!(progress.done_bytes, progress.total_bytes);
            assert!(progress.done_bytes >= 4 * MIB as u64, "{progress:?}");
            // Later calls change nothing.
            communicator.barrier(&Options::default()).unwrap();
        }
    });
}
