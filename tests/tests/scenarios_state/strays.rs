//! Peers whose state is too far ahead of what the run sealed last.

use super::*;

/// Checks that the session ends with an eviction for a revision that is too far ahead.
fn assert_evicted_ahead(s: &mut Scenario, host: HostId, theirs: u64, sealed: u64) {
    let end = s.session_end(host);
    let is_it = |why: &EvictReason| {
        matches!(why, EvictReason::RevisionAhead { theirs: has, sealed: last }
            if (has.0, last.0) == (theirs, sealed))
    };
    assert!(is_evicted(&end, is_it), "{end:?}");
}

/// A newcomer with the checkpoint of another run is evicted, when all is quiet and across a restart
/// of the master, and the others retry the sync. Without that checkpoint it is admitted.
#[test]
fn newcomer_that_is_too_far_ahead_goes_and_the_others_go_on() {
    for disk in DISKS {
        for restarts in [false, true] {
            let mut s = Scenario::with(2, disk);
            has(&mut s, &[A, B], content(14, 1));
            agree(&mut s, &[A, B], content(14, 1));
            s.join();
            s.admit(&[A, B], C);
            has(&mut s, &[C], content(16, 9));
            if restarts {
                s.restart_master(100);
            }
            has(&mut s, &[B], content(15, 1));
            let calls = begin(&mut s, &[A, B, C]);
            let endings = s.ends(&[A, B], &calls[..2]);
            assert!(endings.iter().all(is_lost), "{endings:?}");
            assert_evicted_ahead(&mut s, C, 16, 14);
            agree(&mut s, &[A, B], content(15, 1));
            let again = s.join();
            s.admit(&[A, B], again);
            agree(&mut s, &[A, B, again], content(15, 1));
        }
    }
}

/// A stray peer returns at once with the same state each time, from another port. The others change
/// their view for it again and again, but less and less often; other newcomers do not have to wait.
#[test]
fn stray_that_comes_back_with_the_same_state_waits_longer_each_time() {
    let mut s = Scenario::with_members(3);
    has(&mut s, &[A, B, C], content(14, 1));
    agree(&mut s, &[A, B, C], content(14, 1));
    has(&mut s, &[C], content(16, 9));
    let mut stray = C;
    for seconds in [1, 2, 4] {
        let calls = begin(&mut s, &[A, B, stray]);
        let endings = s.ends(&[A, B], &calls[..2]);
        assert!(endings.iter().all(is_lost), "{endings:?}");
        assert_evicted_ahead(&mut s, stray, 16, 14);
        let evicted = s.world.now;
        agree(&mut s, &[A, B], content(14, 1));
        stray = s.join_beside(stray);
        has(&mut s, &[stray], content(16, 9));
        while size(&s.world, stray) == 0 {
            let calls = [A, B].map(|host| s.safe_point(host));
            s.ends(&[A, B], &calls);
            s.pass_ms(100);
        }
        let waited = (s.world.now - evicted).as_secs();
        assert_eq!(waited, seconds);
    }
    let other = s.join();
    s.admit(&[A, B, stray], other);
}

/// Strays outnumber the members that sealed the run's state, and joined after it was sealed:
/// however many they are, they are evicted. A master that did not seal it itself goes by the
/// numbers.
#[test]
fn strays_that_came_after_the_seal_go_however_many_they_are() {
    for restarts in [false, true] {
        let mut s = Scenario::with_members(1);
        has(&mut s, &[A], content(14, 1));
        agree(&mut s, &[A], content(14, 1));
        for stray in [B, C] {
            s.join();
            let members: Vec<_> = (0..stray.0).map(HostId).collect();
            s.admit(&members, stray);
        }
        has(&mut s, &[B, C], content(500, 9));
        has(&mut s, &[A], content(15, 1));
        if restarts {
            s.restart_master(100);
        }
        let calls = begin(&mut s, &[A, B, C]);
        let ending = &s.ends(&[A], &calls[..1])[0];
        if restarts {
            let fault = fault_of(ending);
            assert!(matches!(fault, SyncFault::RevisionAhead { .. }), "{fault}");
            continue;
        }
        assert!(is_lost(ending), "{ending:?}");
        for stray in [B, C] {
            assert_evicted_ahead(&mut s, stray, 500, 14);
        }
        agree(&mut s, &[A], content(15, 1));
    }
}

/// As many are ahead as could go on without them: it is unknown which half is the run.
#[test]
fn half_of_the_members_are_not_evicted_for_being_ahead() {
    let mut s = Scenario::with_members(4);
    let all = [A, B, C, HostId(3)];
    has(&mut s, &all, content(14, 1));
    agree(&mut s, &all, content(14, 1));
    has(&mut s, &[A, B], content(16, 1));
    let calls = begin(&mut s, &all);
    for ending in s.ends(&all, &calls) {
        let SyncFault::RevisionAhead {
            peer,
            theirs,
            sealed,
        } = fault_of(&ending)
        else {
            panic!("{ending:?}");
        };
        let peers = [A, B].map(|host| s.world.hosts[host.0].peer.peer());
        assert!(peers.contains(&Some(*peer)) && (theirs.0, sealed.0) == (16, 14));
    }
    assert_eq!(size(&s.world, A), 4);
    // One of them returns to the run's content: then the other is outnumbered.
    votes(&mut s, &[]);
    has(&mut s, &[A], content(16, 1));
    has(&mut s, &[B], content(14, 1));
    let calls = begin(&mut s, &all);
    let endings = s.ends(&all[1..], &calls[1..]);
    assert!(endings.iter().all(is_lost), "{endings:?}");
    assert_evicted_ahead(&mut s, A, 16, 14);
    agree(&mut s, &all[1..], content(14, 1));
}

/// A checkpoint of another run is far ahead, and all vote to restore, as after a restart of a site.
/// At least as many members have the run's own content: the vote changes nothing.
#[test]
fn a_vote_of_all_makes_no_run_of_what_few_have() {
    for own in [&[A, B][..], &[A]] {
        let mut s = Scenario::with_members(own.len() + 1);
        let stray = HostId(own.len());
        let all = [own, &[stray]].concat();
        has(&mut s, &all, content(14, 1));
        agree(&mut s, &all, content(14, 1));
        has(&mut s, &[stray], content(500, 9));
        votes(&mut s, &all);
        let calls = begin(&mut s, &all);
        if own.len() > 1 {
            let endings = s.ends(own, &calls[..own.len()]);
            assert!(endings.iter().all(is_lost), "{endings:?}");
            assert_evicted_ahead(&mut s, stray, 500, 14);
            agree(&mut s, own, content(14, 1));
        } else {
            let endings = s.ends(&all, &calls);
            assert!(endings.iter().all(is_committed), "{endings:?}");
            agree(&mut s, &all, content(14, 1));
        }
    }
}

/// A successor of the master decides the same from the same offers.
#[test]
fn master_that_dies_around_the_eviction_of_a_stray_evicts_it_too() {
    for disk in DISKS {
        for words in [0, 300, 1000] {
            let mut s = Scenario::with(3, disk);
            has(&mut s, &[A, B, C], content(14, 1));
            agree(&mut s, &[A, B, C], content(14, 1));
            has(&mut s, &[C], content(16, 9));
            let restart = Duration::from_millis(200);
            let act = Act::CrashMaster { words, restart };
            s.when((Point::MasterSends, SUSPEND), None, act);
            let calls = begin(&mut s, &[A, B, C]);
            let endings = s.ends(&[A, B], &calls[..2]);
            assert!(endings.iter().all(is_lost), "{endings:?}");
            assert_evicted_ahead(&mut s, C, 16, 14);
            agree(&mut s, &[A, B], content(14, 1));
        }
    }
}
