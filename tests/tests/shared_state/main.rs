//! Shared state over real sockets: members that lack the elected content get it from those that
//! have it.
//!
//! Deaths of whole processes are tested in `ccl-cli/tests`.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod owned;
mod texts;

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
