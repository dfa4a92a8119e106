//! Every rule of the election from both sides, and properties that hold for any offers.

use proptest::prelude::*;

use super::*;
use crate::wire::control::{Digest, KeySketch};
use SyncStrategy::{EnforcePopular as E, ReceiveOnly as R, SendOnly as S};

/// A content of this revision; equal letters are equal roots.
fn id(revision: u64, root: u8) -> StateId {
    StateId {
        revision: Revision(revision),
        root: Digest([root; 32]),
    }
}

fn offer(strategy: SyncStrategy, content: StateId) -> StateOffer {
    StateOffer {
        content,
        keys: Digest([7; 32]),
        sketch: KeySketch::default(),
        entries: 3,
        bytes: 100,
        strategy,
        is_usable: true,
        restore: false,
    }
}

fn has(revision: u64, root: u8) -> StateOffer {
    offer(E, id(revision, root))
}

fn keyed(keys: u8) -> StateOffer {
    StateOffer {
        keys: Digest([keys; 32]),
        entries: keys.into(),
        bytes: u64::from(keys) * 100,
        ..has(1, b'a')
    }
}

fn restoring(offer: StateOffer) -> StateOffer {
    StateOffer {
        restore: true,
        ..offer
    }
}

fn torn(offer: StateOffer) -> StateOffer {
    StateOffer {
        is_usable: false,
        ..offer
    }
}

/// Peers 10, 11, … with these offers, in rank order.
fn ranked(offers: &[StateOffer]) -> Vec<Offer> {
    let peers = (10..).map(PeerId);
    peers.zip(offers.iter().copied()).collect()
}

fn run(offers: &[StateOffer], sealed: Option<StateId>) -> Result<Election, SyncFault> {
    elect(&ranked(offers), sealed)
}

fn wins(content: StateId, sources: &[u64]) -> Result<Election, SyncFault> {
    Ok(Election {
        content,
        sources: sources.iter().copied().map(PeerId).collect(),
    })
}

#[test]
fn odd_keys_are_those_of_the_fewest_and_of_the_latest_admitted() {
    let odd = |keys: &[u8]| {
        let offers: Vec<_> = keys.iter().map(|&keys| keyed(keys)).collect();
        match run(&offers, None) {
            Ok(_) => None,
            Err(SyncFault::Keys {
                peer, theirs, most, ..
            }) => Some((peer.0, theirs.0, most.0)),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(odd(&[1]), None);
    assert_eq!(odd(&[1, 1, 1]), None);
    assert_eq!(odd(&[2, 1, 1]), Some((10, 2, 1)));
    assert_eq!(odd(&[1, 1, 2]), Some((12, 2, 1)));
    assert_eq!(odd(&[1, 2]), Some((11, 2, 1)));
    assert_eq!(odd(&[2, 1]), Some((11, 1, 2)));
    assert_eq!(odd(&[1, 2, 2, 1]), Some((12, 2, 1)));
    assert_eq!(odd(&[3, 1, 2, 1]), Some((12, 2, 1)));
}

#[test]
fn keys_are_looked_at_before_anything_else() {
    let mut offers = [keyed(1), keyed(1), keyed(2)];
    offers.iter_mut().for_each(|offer| offer.is_usable = false);
    assert!(matches!(run(&offers, None), Err(SyncFault::Keys { .. })));
    // Bytes count for the message only: names, types and shapes are in the digest.
    let mut other = keyed(1);
    other.bytes = 7;
    assert!(run(&[keyed(1), other], None).is_ok());
}

#[test]
fn every_mixture_of_strategies() {
    type Odd = (u64, SyncStrategy, SyncStrategy);
    let cases: &[(&[SyncStrategy], Option<Odd>)] = &[
        (&[E], None),
        (&[E, E, E], None),
        (&[E, R], None),
        (&[R, E], None),
        (&[R, E, R, E], None),
        (&[S], None),
        (&[S, S], None),
        (&[S, R], None),
        (&[R, R, S], None),
        (&[E, S], Some((11, S, E))),
        (&[S, E], Some((11, E, S))),
        (&[E, S, S], Some((10, E, S))),
        (&[E, E, S], Some((12, S, E))),
        (&[S, E, R, E], Some((10, S, E))),
        (&[E, S, S, E], Some((12, S, E))),
        (&[R, S, R, E], Some((13, E, S))),
    ];
    for (strategies, expected) in cases {
        let offers: Vec<_> = strategies
            .iter()
            .map(|&it| offer(it, id(1, b'a')))
            .collect();
        let found = match run(&offers, None) {
            Ok(_) => None,
            Err(SyncFault::Strategies { peer, theirs, most }) => Some((peer.0, theirs, most)),
            Err(other) => panic!("{strategies:?}: {other}"),
        };
        assert_eq!(found, *expected, "{strategies:?}");
    }
}

#[test]
fn somebody_must_have_something_to_give() {
    let received = offer(R, id(3, b'a'));
    assert_eq!(run(&[received, received], None), Err(SyncFault::NoSource));
    assert_eq!(run(&[torn(has(1, b'a'))], None), Err(SyncFault::NoSource));
    let offers = [received, torn(has(9, b'a'))];
    assert_eq!(run(&offers, Some(id(3, b'a'))), Err(SyncFault::NoSource));
    let offers = [torn(has(9, b'a')), has(0, b'b')];
    assert_eq!(run(&offers, None), wins(id(0, b'b'), &[11]));
}

#[test]
fn before_anything_is_sealed_the_highest_revision_wins_then_popularity_then_rank() {
    let offers = [has(1, b'a'), has(2, b'b'), has(1, b'a')];
    assert_eq!(run(&offers, None), wins(id(2, b'b'), &[11]));
    let offers = [has(2, b'a'), has(2, b'b'), has(2, b'b')];
    assert_eq!(run(&offers, None), wins(id(2, b'b'), &[11, 12]));
    let offers = [has(2, b'z'), has(2, b'a'), has(2, b'a'), has(2, b'z')];
    assert_eq!(run(&offers, None), wins(id(2, b'z'), &[10, 13]));
    let offers = [has(u64::MAX, b'a'), has(5, b'b')];
    assert_eq!(run(&offers, None), wins(id(u64::MAX, b'a'), &[10]));
}

#[test]
fn the_sealed_content_or_one_revision_more_is_legal() {
    let sealed = Some(id(5, b's'));
    let cases = [
        // The sealed root wins at its revision, however few have it.
        (
            vec![has(5, b'x'), has(5, b's'), has(5, b'x')],
            wins(id(5, b's'), &[11]),
        ),
        // One step further wins over it, with any root.
        (
            vec![has(5, b's'), has(5, b's'), has(6, b'x')],
            wins(id(6, b'x'), &[12]),
        ),
        (
            vec![has(6, b'x'), has(6, b'y'), has(6, b'y')],
            wins(id(6, b'y'), &[11, 12]),
        ),
        (vec![has(6, b'y'), has(6, b'x')], wins(id(6, b'y'), &[10])),
        // What is behind is brought up.
        (vec![has(0, b'x'), has(5, b's')], wins(id(5, b's'), &[11])),
    ];
    for (offers, expected) in cases {
        assert_eq!(run(&offers, sealed), expected);
    }
}

#[test]
fn more_than_one_revision_further_is_an_error_that_names_the_furthest() {
    let sealed = Some(id(5, b's'));
    let ahead = |peer, revision| {
        Err(SyncFault::RevisionAhead {
            peer: PeerId(peer),
            theirs: Revision(revision),
            sealed: Revision(5),
        })
    };
    assert_eq!(run(&[has(6, b'x'), has(7, b'y')], sealed), ahead(11, 7));
    let offers = [has(7, b'x'), has(9, b'x'), has(9, b'y'), has(5, b's')];
    assert_eq!(run(&offers, sealed), ahead(12, 9));
    let offers = [restoring(has(7, b'x')), has(5, b's')];
    assert_eq!(run(&offers, sealed), ahead(10, 7));
    // If a content does not count, neither does its revision.
    let offers = [offer(R, id(7, b'x')), has(6, b'x'), torn(has(9, b'x'))];
    assert_eq!(run(&offers, sealed), wins(id(6, b'x'), &[11]));
    let last = Some(id(u64::MAX, b's'));
    assert_eq!(
        run(&[has(u64::MAX, b's')], last),
        wins(id(u64::MAX, b's'), &[10])
    );
}

#[test]
fn a_few_that_are_too_far_ahead_are_strays_and_as_many_as_the_rest_are_not() {
    let strays = |offers: &[StateOffer]| strays_of(offers, &[]);
    let (good, next, ahead) = (has(14, b's'), has(15, b'x'), has(16, b'y'));
    assert_eq!(strays(&[good, next, good]), []);
    assert_eq!(strays(&[good, ahead]), []);
    assert_eq!(strays(&[good, next, ahead]), [(12, 16)]);
    assert_eq!(
        strays(&[ahead, good, next, has(90, b'y'), good]),
        [(10, 16), (13, 90)]
    );
    assert_eq!(strays(&[ahead, good, ahead, next]), []);
    // These do not count: what is behind, another content of the sealed revision, half a content,
    // and what a receiver has.
    let nothing = [
        has(3, b'x'),
        has(14, b'x'),
        torn(good),
        offer(R, good.content),
    ];
    assert_eq!(strays(&[&nothing[..], &[ahead, good]].concat()), []);
    assert_eq!(strays(&[good, offer(R, ahead.content), torn(ahead)]), []);
    // A vote to restore does not let a minority's content win.
    assert_eq!(strays(&[good, good, ahead].map(restoring)), [(12, 16)]);
    assert!(super::strays(&ranked(&[good, good, ahead]), id(u64::MAX, b's'), &[]).is_empty());
}

/// Peers 10 and 11 have sealed.
#[test]
fn those_who_did_not_seal_are_strays_however_many_they_are() {
    let strays = |offers: &[StateOffer]| strays_of(offers, &[PeerId(10), PeerId(11)]);
    let (good, ahead) = (has(14, b's'), has(16, b'y'));
    assert_eq!(strays(&[good, torn(good), ahead]), [(12, 16)]);
    assert_eq!(strays(&[good, ahead, ahead]), [(12, 16)], "one has sealed");
    assert_eq!(strays(&[good, ahead]), [], "it has sealed");
    assert_eq!(strays(&[torn(good), ahead, good, ahead]), [], "nobody left");
}

fn strays_of(offers: &[StateOffer], sealers: &[PeerId]) -> Vec<(u64, u64)> {
    let strays = strays(&ranked(offers), id(14, b's'), sealers).into_iter();
    strays.map(|(peer, it)| (peer.0, it.0)).collect()
}

#[test]
fn a_lost_revision_comes_back_only_if_all_members_vote_for_it() {
    let sealed = id(5, b's');
    let lost = |best, unwilling: &[u64]| {
        Err(SyncFault::RevisionLost {
            sealed,
            best,
            unwilling: unwilling.iter().copied().map(PeerId).collect(),
        })
    };
    let offers = [has(5, b'x'), has(4, b'y'), offer(R, id(0, b'z'))];
    assert_eq!(run(&offers, Some(sealed)), lost(id(5, b'x'), &[10, 11, 12]));
    let willing = offers.map(restoring);
    let mut offers = willing;
    offers[2].restore = false;
    assert_eq!(run(&offers, Some(sealed)), lost(id(5, b'x'), &[12]));
    assert_eq!(run(&willing, Some(sealed)), wins(id(5, b'x'), &[10]));
    let behind = [has(3, b'x'), has(4, b'b'), has(4, b'c'), has(4, b'c')].map(restoring);
    assert_eq!(run(&behind, Some(sealed)), wins(id(4, b'c'), &[12, 13]));
}

/// The sealed content may be older than what earlier members made of it.
#[test]
fn all_members_together_go_on_from_a_revision_further_ahead() {
    let sealed = Some(id(5, b's'));
    let offers = [has(7, b'x'), has(9, b'y'), has(9, b'z'), has(9, b'z')].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(9, b'z'), &[12, 13]));
    // What the run sealed, or what follows it, wins if no fewer have it.
    let offers = [has(5, b's'), has(7, b'y'), has(9, b'y')].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(9, b'y'), &[12]));
    let offers = [has(7, b'y'), has(6, b'x')].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(6, b'x'), &[11]));
    // All members: also those that only receive, and have nothing whole.
    let mut offers = [has(7, b'x'), offer(R, id(0, b'z')), torn(has(3, b'a'))].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(7, b'x'), &[10]));
    offers[1].restore = false;
    assert!(matches!(
        run(&offers, sealed),
        Err(SyncFault::RevisionAhead { .. })
    ));
}

#[test]
fn a_vote_to_restore_changes_nothing_while_the_sealed_content_is_there() {
    let sealed = Some(id(5, b's'));
    let offers = [has(5, b'x'), has(5, b'x'), has(5, b's')].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(5, b's'), &[12]));
    // Also if only a receiver has it, since no one may take it from there.
    let offers = [offer(R, id(5, b's')), has(4, b'x')].map(restoring);
    assert_eq!(run(&offers, sealed), wins(id(4, b'x'), &[11]));
}

#[test]
fn all_who_send_must_have_what_was_elected() {
    let beaten = |peer, theirs, elected| {
        Err(SyncFault::SenderLost {
            peer: PeerId(peer),
            theirs,
            elected,
        })
    };
    let (a, b) = (offer(S, id(1, b'a')), offer(S, id(1, b'b')));
    let received = offer(R, id(0, b'z'));
    assert_eq!(run(&[a, received, a], None), wins(id(1, b'a'), &[10, 12]));
    assert_eq!(
        run(&[a, b, received], None),
        beaten(11, id(1, b'b'), id(1, b'a'))
    );
    assert_eq!(run(&[a, b, b], None), beaten(10, id(1, b'a'), id(1, b'b')));
    assert_eq!(
        run(&[a, torn(a)], None),
        beaten(11, id(1, b'a'), id(1, b'a'))
    );
    // The sealed content wins over a sender that is behind.
    let offers = [offer(S, id(5, b's')), offer(S, id(5, b'x'))];
    let expected = beaten(11, id(5, b'x'), id(5, b's'));
    assert_eq!(run(&offers, Some(id(5, b's'))), expected);
}

#[test]
fn whoever_has_the_elected_content_whole_is_a_source() {
    let content = id(1, b'a');
    let offers = [
        offer(R, content),
        has(1, b'a'),
        torn(has(1, b'a')),
        has(1, b'b'),
    ];
    assert_eq!(run(&offers, None), wins(content, &[10, 11]));
}

fn some_offer() -> impl Strategy<Value = StateOffer> {
    let strategy = prop_oneof![6 => Just(E), 1 => Just(S), 3 => Just(R)];
    let keys = prop_oneof![20 => Just(1_u8), 1 => Just(2)];
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.7));
    (strategy, 3..8_u64, 0..3_u8, keys, flags).prop_map(
        |(strategy, revision, root, keys, (is_usable, restore))| StateOffer {
            keys: Digest([keys; 32]),
            is_usable,
            restore,
            ..offer(strategy, id(revision, root))
        },
    )
}

fn some_offers() -> impl Strategy<Value = (Vec<StateOffer>, Option<StateId>)> {
    let sealed = prop::option::of((4..7_u64, 0..3_u8).prop_map(|(n, root)| id(n, root)));
    (prop::collection::vec(some_offer(), 1..8), sealed)
}

/// How many candidates have a content.
fn votes(offers: &[Offer], content: StateId) -> usize {
    let candidates = offers.iter().filter(|offer| is_candidate(offer));
    candidates.filter(|(_, it)| it.content == content).count()
}

proptest! {
    #[test]
    fn sources_are_exactly_those_who_have_it_and_one_of_them_was_eligible(
        (offers, sealed) in some_offers(),
    ) {
        let offers = ranked(&offers);
        if let Ok(elected) = elect(&offers, sealed) {
            let holds = |(_, it): &&Offer| it.is_usable && it.content == elected.content;
            let holders: Vec<_> = offers.iter().filter(holds).map(|(peer, _)| *peer).collect();
            prop_assert_eq!(elected.sources, holders);
            prop_assert!(votes(&offers, elected.content) > 0);
        }
    }

    /// Nothing that is legal is better: neither of a higher revision, nor more popular.
    #[test]
    fn no_legal_content_beats_the_winner((offers, sealed) in some_offers()) {
        let offers = ranked(&offers);
        let Ok(elected) = elect(&offers, sealed) else { return Ok(()) };
        let legal = |it: StateId| sealed.is_none_or(|sealed| {
            it == sealed || it.revision.0 == sealed.revision.0 + 1
        });
        let candidates = offers.iter().filter(|offer| is_candidate(offer));
        let rivals = candidates.map(|(_, it)| it.content);
        let is_restored = !legal(elected.content);
        let is_ahead = |it: StateId| sealed.is_some_and(|sealed| {
            it.revision.0 > sealed.revision.0 + 1
        });
        for rival in rivals {
            let is_better = is_ahead(elected.content);
            prop_assert!(!is_restored || is_better || !legal(rival), "{rival} was passed over");
            if is_restored || legal(rival) {
                let rank = |it: StateId| (it.revision, votes(&offers, it));
                prop_assert!(rank(rival) <= rank(elected.content), "{rival} is better");
            }
        }
        if is_restored {
            prop_assert!(offers.iter().all(|(_, it)| it.restore));
        }
    }

    /// The order of members decides between equals only: where no two contents are equally good,
    /// any order elects the same.
    #[test]
    fn order_matters_only_between_equals(
        (offers, sealed) in some_offers(),
        turn in 0..8_usize,
    ) {
        let offers = ranked(&offers);
        let mut turned = offers.clone();
        turned.rotate_left(turn % offers.len());
        let (here, there) = (elect(&offers, sealed), elect(&turned, sealed));
        // Which strategy is the odd one, and which sender loses, may depend on the order too.
        prop_assert_eq!(
            here.as_ref().err().map(std::mem::discriminant),
            there.as_ref().err().map(std::mem::discriminant)
        );
        if let (Ok(here), Ok(there)) = (here, there) {
            let rank = |it: StateId| (it.revision, votes(&offers, it));
            prop_assert_eq!(rank(here.content), rank(there.content));
            let rivals = offers.iter().filter(|offer| is_candidate(offer));
            let equals = rivals
                .filter(|(_, it)| rank(it.content) == rank(here.content))
                .any(|(_, it)| it.content != here.content);
            prop_assert!(equals || here.content == there.content);
        }
    }

    /// What was elected and sealed is elected again if no member has advanced.
    #[test]
    fn a_sealed_winner_wins_again((offers, sealed) in some_offers()) {
        let offers = ranked(&offers);
        let Ok(elected) = elect(&offers, sealed) else { return Ok(()) };
        let after = offers.iter().map(|(peer, it)| {
            let content = elected.content;
            (*peer, StateOffer { content, is_usable: true, ..*it })
        });
        let again = elect(&after.collect::<Vec<_>>(), Some(elected.content));
        prop_assert_eq!(again.map(|it| it.content), Ok(elected.content));
    }

    /// A fault names members of the sync, and what they offered.
    #[test]
    fn every_fault_is_true((offers, sealed) in some_offers()) {
        let offers = ranked(&offers);
        let of = |peer: PeerId| offers.iter().find(|(it, _)| *it == peer).map(|(_, it)| *it);
        match elect(&offers, sealed) {
            Ok(_) => {}
            Err(SyncFault::Keys { peer, theirs, most, .. }) => {
                let odd = of(peer).unwrap();
                prop_assert_eq!(theirs, (odd.entries, odd.bytes));
                let others = offers.iter().filter(|(_, it)| it.keys != odd.keys);
                prop_assert!(others.clone().any(|(_, it)| (it.entries, it.bytes) == most));
                prop_assert!(others.count() * 2 >= offers.len());
            }
            Err(SyncFault::Strategies { peer, theirs, most }) => {
                prop_assert_eq!(of(peer).unwrap().strategy, theirs);
                prop_assert!(theirs != most && theirs != R && most != R);
                prop_assert!(offers.iter().any(|(_, it)| it.strategy == most));
            }
            Err(SyncFault::SenderLost { peer, theirs, elected }) => {
                let odd = of(peer).unwrap();
                prop_assert_eq!((odd.strategy, odd.content), (S, theirs));
                prop_assert!(theirs != elected || !odd.is_usable);
                prop_assert!(votes(&offers, elected) > 0);
            }
            Err(SyncFault::RevisionAhead { peer, theirs, sealed: said }) => {
                prop_assert_eq!(of(peer).unwrap().content.revision, theirs);
                prop_assert_eq!(Some(said), sealed.map(|it| it.revision));
                prop_assert!(theirs.0 > said.0 + 1);
            }
            Err(SyncFault::RevisionLost { sealed: said, best, unwilling }) => {
                prop_assert_eq!(Some(said), sealed);
                prop_assert!(votes(&offers, best) > 0 && votes(&offers, said) == 0);
                let refusing = offers.iter().filter(|(_, it)| !it.restore);
                let refusing: Vec<_> = refusing.map(|(peer, _)| *peer).collect();
                prop_assert!(!refusing.is_empty());
                prop_assert_eq!(unwilling, refusing);
            }
            Err(SyncFault::NoSource) => prop_assert!(!offers.iter().any(is_candidate)),
        }
    }
}
