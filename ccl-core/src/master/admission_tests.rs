//! Who may be admitted together.

use super::*;

fn newcomer(linked: &[u64]) -> Newcomer {
    Newcomer {
        min_world: 1,
        linked: Some(linked.iter().copied().map(PeerId).collect()),
        not_before: Instant(0),
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

#[test]
fn newcomer_waits_out_its_backoff() {
    let members = BTreeSet::new();
    let mut late = newcomer(&[]);
    late.not_before = Instant(10);
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
