//! Who may be admitted together.

use super::*;
use crate::wire::control::BackoffCause;

fn newcomer(linked: &[u64]) -> Newcomer {
    Newcomer {
        min_world: 1,
        place: None,
        linked: Some(linked.iter().copied().map(PeerId).collect()),
        held: None,
        turn: Turn::Any,
    }
}

fn chosen(members: &[u64], newcomers: &[(u64, &[u64])]) -> Vec<u64> {
    let members = members.iter().copied().map(PeerId).collect();
    let newcomers = newcomers
        .iter()
        .map(|(peer, linked)| (PeerId(*peer), newcomer(linked)))
        .collect();
    choose(&members, &newcomers, Instant(0), Some(5))
        .into_iter()
        .map(|peer| peer.0)
        .collect()
}

#[test]
fn newcomer_needs_links_to_all_members() {
    assert_eq!(chosen(&[0, 1], &[(2, &[0])]), [0_u64; 0]);
    assert_eq!(chosen(&[0, 1], &[(2, &[0, 1])]), [2]);
    assert_eq!(chosen(&[], &[(2, &[])]), [2]);
    let silent = Newcomer {
        linked: None,
        ..newcomer(&[])
    };
    let newcomers = BTreeMap::from([(PeerId(2), silent)]);
    assert_eq!(
        choose(&BTreeSet::new(), &newcomers, Instant(0), Some(5)),
        []
    );
}

#[test]
fn newcomers_need_links_to_each_other_in_both_words() {
    assert_eq!(chosen(&[0], &[(2, &[0, 3]), (3, &[0, 2])]), [2, 3]);
    assert_eq!(chosen(&[0], &[(2, &[0]), (3, &[0, 2])]), [2]);
    assert_eq!(chosen(&[0], &[(2, &[0, 3]), (3, &[0])]), [2]);
}

/// Newcomers numbered from 1, all linked except these pairs; there are no members.
fn chosen_without(count: u64, missing: &[(u64, u64)]) -> Vec<u64> {
    let linked = |one: u64| -> Vec<u64> {
        let others = (1..=count).filter(|other| *other != one);
        let has =
            |other: &u64| !missing.contains(&(one, *other)) && !missing.contains(&(*other, one));
        others.filter(has).collect()
    };
    let links: Vec<_> = (1..=count).map(|one| (one, linked(one))).collect();
    let newcomers: Vec<_> = links.iter().map(|(one, all)| (*one, &all[..])).collect();
    chosen(&[], &newcomers)
}

#[test]
fn newcomer_that_nobody_reaches_keeps_nobody_out() {
    assert_eq!(chosen_without(4, &[(1, 2), (1, 3), (1, 4)]), [2, 3, 4]);
    assert_eq!(chosen_without(4, &[(2, 1), (2, 3), (2, 4)]), [1, 3, 4]);
    // One other reaches it.
    assert_eq!(chosen_without(4, &[(1, 3), (1, 4)]), [2, 3, 4]);
    // Two of them, and each is linked with the other.
    let apart = [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)];
    assert_eq!(chosen_without(5, &apart), [3, 4, 5]);
}

#[test]
fn of_a_pair_without_a_link_the_earlier_is_chosen() {
    assert_eq!(chosen_without(3, &[(1, 2)]), [1, 3]);
    assert_eq!(chosen_without(2, &[(1, 2)]), [1]);
    assert_eq!(chosen_without(5, &[(1, 2), (4, 3)]), [1, 3, 5]);
}

#[test]
fn who_was_taken_away_comes_back_if_all_that_it_missed_went_too() {
    // 3, 4 and 5 miss two each: 5 goes, then 4 for 2, and 3 for 1.
    let path = chosen_without(5, &[(1, 3), (3, 5), (5, 4), (4, 2)]);
    assert_eq!(path, [1, 2, 5]);
}

#[test]
fn newcomer_waits_out_its_backoff() {
    let members = BTreeSet::new();
    let mut late = newcomer(&[]);
    late.held = Some(Held {
        until: Instant(10),
        cause: BackoffCause::Unreachable,
    });
    let newcomers = BTreeMap::from([(PeerId(1), late)]);
    assert_eq!(choose(&members, &newcomers, Instant(9), Some(5)), []);
    assert_eq!(
        choose(&members, &newcomers, Instant(10), Some(5)),
        [PeerId(1)]
    );
}

#[test]
fn view_never_grows_beyond_its_limit() {
    let members: BTreeSet<_> = (0..limits::WORLD_SIZE_MAX as u64 - 1).map(PeerId).collect();
    let all: Vec<_> = (0..limits::WORLD_SIZE_MAX as u64 + 2).collect();
    let late = limits::WORLD_SIZE_MAX as u64;
    let newcomers = BTreeMap::from([
        (PeerId(late), newcomer(&all)),
        (PeerId(late + 1), newcomer(&all)),
    ]);
    assert_eq!(
        choose(&members, &newcomers, Instant(0), Some(5)),
        [PeerId(late)]
    );
}

fn with_turn(linked: &[u64], turn: Turn) -> Newcomer {
    Newcomer {
        turn,
        ..newcomer(linked)
    }
}

#[test]
fn newcomer_of_a_unit_enters_at_its_turn_and_not_before() {
    let members = BTreeSet::from([PeerId(0)]);
    let at = |turn, point| {
        let newcomers = BTreeMap::from([(PeerId(2), with_turn(&[0], turn))]);
        choose(&members, &newcomers, Instant(0), point)
    };
    assert_eq!(at(Turn::Waits, Some(9)), []);
    assert_eq!(at(Turn::Waits, None), []);
    assert_eq!(at(Turn::At(6), Some(5)), []);
    assert_eq!(at(Turn::At(6), Some(6)), [PeerId(2)]);
    assert_eq!(at(Turn::At(6), None), [PeerId(2)]);
}

/// An earlier session that is not linked with it would take its place, or keep it out as a member.
#[test]
fn nobody_is_admitted_who_would_keep_out_one_with_a_turn() {
    let members = BTreeSet::from([PeerId(0)]);
    let at = |linked: &[u64], point| {
        let newcomers = BTreeMap::from([
            (PeerId(1), newcomer(linked)),
            (PeerId(2), with_turn(&[0, 1], Turn::At(6))),
        ]);
        choose(&members, &newcomers, Instant(0), Some(point))
    };
    assert_eq!(at(&[0], 5), []);
    assert_eq!(at(&[0], 6), [PeerId(2)]);
    assert_eq!(at(&[0, 2], 5), [PeerId(1)]);
    assert_eq!(at(&[0, 2], 6), [PeerId(1), PeerId(2)]);
}

#[test]
fn newcomer_is_ready_when_it_fits_members_and_those_with_a_turn() {
    let members = BTreeSet::from([PeerId(0)]);
    let is_ready = |linked: &[u64], other: Turn| {
        let newcomers = BTreeMap::from([
            (PeerId(1), with_turn(&[0, 2], other)),
            (PeerId(2), with_turn(linked, Turn::Waits)),
        ]);
        super::is_ready(PeerId(2), &members, &newcomers, Instant(0))
    };
    assert!(!is_ready(&[1], Turn::Waits));
    assert!(is_ready(&[0], Turn::Waits));
    assert!(!is_ready(&[0], Turn::At(3)));
    assert!(is_ready(&[0, 1], Turn::At(3)));
}
