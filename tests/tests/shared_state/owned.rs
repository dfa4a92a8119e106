//! Syncs that own their state until they end.

use super::*;

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
