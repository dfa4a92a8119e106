//! Which peers wait, because of which, and for how long.

use std::time::Duration;

use super::*;
use crate::ids::{LinkKey, PeerId, Revision, SessionId, UnitId};
use crate::timers::Timers;

const BROKEN: EvictReason = EvictReason::Unreachable { by: Vec::new() };
const STRAY: EvictReason = EvictReason::RevisionAhead {
    theirs: Revision(16),
    sealed: Revision(14),
};

fn peer(group: u64, name: &str, address: &str) -> Registration {
    Registration {
        peer: PeerId(1),
        session: SessionId(1),
        group: GroupId(group),
        unit: UnitId(1),
        unit_size: None,
        place: None,
        generation: PeerId(1),
        addresses: vec![address.parse().unwrap()],
        key: LinkKey(1),
        min_world: 1,
        attach: 1,
        name: name.into(),
        timers: Timers::default(),
    }
}

fn held(backoffs: &Backoffs, peer: &Registration, now: Instant) -> Option<Duration> {
    backoffs.held(peer, now).map(|held| held.until - now)
}

#[test]
fn wait_doubles_with_each_eviction_and_ends() {
    let one = peer(0, "a", "10.0.0.1:4000");
    let other = peer(0, "a", "10.0.0.2:4000");
    let mut backoffs = Backoffs::default();
    let now = Instant(0);
    assert_eq!(held(&backoffs, &one, now), None);
    for times in [1, 2] {
        backoffs.strike(&one, &BROKEN, now);
        assert_eq!(
            held(&backoffs, &one, now),
            Some(limits::BACKOFF_MIN * times)
        );
    }
    assert_eq!(held(&backoffs, &other, now), None);
    for _ in 0..20 {
        backoffs.strike(&one, &BROKEN, now);
    }
    assert_eq!(held(&backoffs, &one, now), Some(limits::BACKOFF_MAX));
    let later = now + limits::BACKOFF_MAX * 2 + Duration::from_secs(1);
    assert_eq!(held(&backoffs, &one, later), None);
    backoffs.strike(&one, &BROKEN, later);
    assert_eq!(held(&backoffs, &one, later), Some(limits::BACKOFF_MIN));
    backoffs.strike(&other, &EvictReason::Died, now);
    assert_eq!(held(&backoffs, &other, now), None);
}

/// A broken link belongs to a port; a state belongs to its host, whichever process loads it.
#[test]
fn a_state_is_known_by_its_host_and_name_and_a_link_by_its_port() {
    let now = Instant(0);
    let stray = peer(0, "node:41", "10.0.0.1:4000");
    let next = peer(0, "node:42", "10.0.0.1:4001");
    let mut backoffs = Backoffs::default();
    backoffs.strike(&stray, &BROKEN, now);
    assert_eq!(backoffs.held(&next, now), None);
    backoffs.strike(&stray, &STRAY, now);
    let cause = BackoffCause::RevisionAhead;
    let until = now + limits::BACKOFF_MIN;
    assert_eq!(backoffs.held(&next, now), Some(Held { until, cause }));
    for other in [
        peer(1, "node:42", "10.0.0.1:4001"),
        peer(0, "other", "10.0.0.1:4001"),
        peer(0, "node:42", "10.0.0.2:4001"),
    ] {
        assert_eq!(backoffs.held(&other, now), None, "{other:?}");
    }
}

#[test]
fn table_is_bounded() {
    let mut backoffs = Backoffs::default();
    for port in 0..=u16::MAX {
        let peer = peer(0, "a", &format!("10.0.0.1:{port}"));
        backoffs.strike(&peer, &BROKEN, Instant(0));
    }
    assert_eq!(backoffs.accounts.len(), limits::BACKOFFS_MAX);
}
