//! Who may be admitted together.

use super::*;

fn newcomer(linked: &[u64]) -> Newcomer {
    Newcomer {
        min_world: 1,
        linked: Some(linked.iter().copied().map(PeerId).collect()),
        not_before: Instant(0),
    }
}

fn chosen(members: &[u64], newcomers: &[(u64, &[u64])]) -> Vec<u64> {
    let members = members.iter().copied().map(PeerId).collect();
    let newcomers = newcomers
        .iter()
        .map(|(peer, linked)| (PeerId(*peer), newcomer(linked)))
        .collect();
    choose(&members, &newcomers, Instant(0))
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
    assert_eq!(choose(&BTreeSet::new(), &newcomers, Instant(0)), []);
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
    assert_eq!(choose(&members, &newcomers, Instant(9)), []);
    assert_eq!(choose(&members, &newcomers, Instant(10)), [PeerId(1)]);
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
    assert_eq!(choose(&members, &newcomers, Instant(0)), [PeerId(late)]);
}
