//! Which peer is blamed for broken links.

use super::*;

fn peers(ids: &[u64]) -> Vec<PeerId> {
    ids.iter().copied().map(PeerId).collect()
}

fn links(pairs: &[(u64, u64)]) -> BTreeSet<(PeerId, PeerId)> {
    pairs.iter().map(|&(a, b)| (PeerId(a), PeerId(b))).collect()
}

fn picked(pairs: &[(u64, u64)], suspects: &[u64]) -> Vec<u64> {
    let suspects = peers(suspects).into_iter().collect();
    let picked = culprits(links(pairs), &peers(&[0, 1, 2, 3]), &suspects);
    picked.into_iter().map(|(peer, _)| peer.0).collect()
}

fn broken(fault: LinkFault, gave_up: bool) -> Broken {
    Broken { fault, gave_up }
}

#[test]
fn whoever_ends_most_broken_links_goes() {
    assert_eq!(picked(&[(0, 1), (1, 2), (1, 3)], &[]), [1]);
    assert_eq!(picked(&[], &[]), [0_u64; 0]);
}

#[test]
fn one_dead_link_costs_the_latest_admitted_end_only() {
    assert_eq!(picked(&[(0, 1)], &[]), [1]);
    assert_eq!(picked(&[(0, 3), (1, 2)], &[]), [3, 2]);
}

#[test]
fn silent_end_of_a_dead_link_goes_before_the_living_one() {
    assert_eq!(picked(&[(0, 1)], &[0]), [0]);
    assert_eq!(picked(&[(0, 1)], &[2]), [1], "silence alone breaks no link");
}

#[test]
fn repeats_until_no_broken_link_is_left() {
    assert_eq!(picked(&[(0, 1), (0, 2), (0, 3), (1, 2)], &[]), [0, 2]);
}

#[test]
fn culprit_is_named_with_those_who_missed_it() {
    let picked = culprits(
        links(&[(0, 2), (1, 2)]),
        &peers(&[0, 1, 2]),
        &BTreeSet::new(),
    );
    assert_eq!(picked, [(PeerId(2), peers(&[0, 1]))]);
}

#[test]
fn window_opens_with_the_first_given_up_link_and_closes_with_its_repair() {
    let (a, b) = (PeerId(0), PeerId(1));
    let mut blame = Blame::default();
    blame.report(a, b, broken(LinkFault::Ended, false), Instant(5));
    assert_eq!(blame.due(), None);
    assert!(blame.saw_end_of(b));
    assert!(!blame.saw_end_of(a));
    blame.report(a, b, broken(LinkFault::TimedOut, true), Instant(6));
    blame.report(b, a, broken(LinkFault::TimedOut, true), Instant(7));
    assert_eq!(blame.due(), Some(Instant(6)));
    assert!(!blame.saw_end_of(b));
    blame.clear(a, b);
    assert_eq!(blame.due(), Some(Instant(6)));
    blame.forget(b);
    assert_eq!(blame.due(), None);
    assert_eq!(blame.judge(), BTreeSet::new());
}
