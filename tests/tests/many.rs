//! More tags and groups over a run's life than may be in use at a time, over real sockets.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ccl_core::{Communicator, CommunicatorConfig, GroupId, Options, ReduceOp, limits};

use common::{config, master, run, with_tag};

#[test]
fn a_run_uses_more_tags_than_there_may_be_at_a_time() {
    let first_views = run(2, |communicator| {
        let first_view = communicator.view().vid;
        for tag in 0..limits::TAGS_MAX as u64 + 500 {
            let mut buffer = [tag, u64::from(communicator.rank().0)];
            communicator
                .all_reduce(&mut buffer, ReduceOp::Sum, &with_tag(tag))
                .unwrap();
            assert_eq!(buffer, [2 * tag, 1]);
        }
        // Returned tags can be used like new ones.
        for tag in 0..3 {
            let outcome = communicator.barrier(&with_tag(tag)).unwrap();
            assert_eq!(outcome.contributors.len(), 2);
        }
        assert!(communicator.view().vid > first_view, "room was made");
        first_view
    });
    assert_eq!(first_views[0], first_views[1]);
}

#[test]
fn a_master_serves_more_groups_than_there_may_be_at_a_time() {
    let master = Arc::new(master());
    let next = Arc::new(AtomicU64::new(0));
    let groups = limits::GROUPS_MAX as u64 + 100;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (master, next) = (Arc::clone(&master), Arc::clone(&next));
            std::thread::spawn(move || {
                loop {
                    let group = next.fetch_add(1, Ordering::Relaxed);
                    if group >= groups {
                        return;
                    }
                    let config = CommunicatorConfig {
                        group: GroupId(group),
                        ..config(&master, 1)
                    };
                    let communicator = Communicator::connect(config).unwrap();
                    communicator.barrier(&Options::default()).unwrap();
                    communicator.leave().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
