//! Which links are kept and reported (R10, H24).

use std::collections::BTreeSet;

use super::*;
use crate::wire::control::LinkFault;

fn listed(outputs: &[Output]) -> Option<BTreeSet<(u64, bool)>> {
    let mut lists = outputs.iter().filter_map(|output| match output {
        Output::Links(links) => Some(links),
        _ => None,
    });
    let last = lists.next_back()?;
    Some(
        last.iter()
            .map(|(peer, neighbour)| (peer.0, neighbour.dial))
            .collect(),
    )
}

fn expect(fixture: &mut Fixture, epoch: u32, members: &[u64], newcomers: &[u64]) {
    fixture.hear(MasterToPeer::Expect {
        vid: vid(epoch),
        members: members.iter().copied().map(member).collect(),
        newcomers: newcomers.iter().copied().map(member).collect(),
    });
}

#[test]
fn the_later_session_dials_the_earlier() {
    let mut fixture = Fixture::newcomer();
    expect(&mut fixture, 1, &[1, 3], &[2, 4]);
    let expected = BTreeSet::from([(1, true), (3, false), (4, false)]);
    assert_eq!(listed(&fixture.drain()), Some(expected));
}

#[test]
fn ready_is_restated_whenever_links_or_view_change() {
    let mut fixture = Fixture::newcomer();
    let mut ready = |input: Input| {
        fixture.tell(input);
        sent(fixture.drain())
            .into_iter()
            .map(|message| match message {
                PeerToMaster::Ready { vid, linked } => (
                    vid.epoch.0,
                    linked.into_iter().map(|peer| peer.0).collect::<Vec<_>>(),
                ),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let expect = |epoch| {
        Input::Control(MasterToPeer::Expect {
            vid: vid(epoch),
            members: vec![member(1)],
            newcomers: vec![member(2), member(3)],
        })
    };
    assert_eq!(
        ready(Input::LinkUp(PeerId(1))),
        [],
        "nobody asked for it: it is about to end"
    );
    assert_eq!(ready(expect(1)), [(1, vec![])]);
    assert_eq!(ready(Input::LinkUp(PeerId(1))), [(1, vec![1])]);
    assert_eq!(ready(Input::LinkUp(PeerId(3))), [(1, vec![1, 3])]);
    assert_eq!(ready(Input::LinkUp(PeerId(3))), [], "nothing new");
    assert_eq!(ready(expect(2)), [(2, vec![1, 3])]);
    let down = Input::LinkDown {
        peer: PeerId(1),
        fault: LinkFault::Ended,
        gave_up: false,
    };
    assert_eq!(ready(down), [(2, vec![3])]);
}

#[test]
fn links_outlive_views_and_end_with_membership() {
    let mut fixture = Fixture::steady();
    expect(&mut fixture, 1, &[1, 2, 3], &[4]);
    let expected = BTreeSet::from([(1, true), (3, false), (4, false)]);
    assert_eq!(listed(&fixture.drain()), Some(expected));
    fixture.suspend(1);
    fixture.hear(MasterToPeer::Install(install(2, &[1, 2, 3, 4])));
    assert_eq!(listed(&fixture.drain()), None, "all are listed already");
    fixture.suspend(2);
    fixture.hear(MasterToPeer::Install(install(3, &[2, 4])));
    assert_eq!(listed(&fixture.drain()), Some(BTreeSet::from([(4, false)])));
}

#[test]
fn a_newcomer_that_is_gone_is_not_waited_for() {
    let mut fixture = Fixture::steady();
    expect(&mut fixture, 1, &[1, 2, 3], &[4]);
    fixture.drain();
    expect(&mut fixture, 1, &[1, 2, 3], &[]);
    let expected = BTreeSet::from([(1, true), (3, false)]);
    assert_eq!(listed(&fixture.drain()), Some(expected));
}

#[test]
fn a_broken_link_is_reported_and_its_repair_too() {
    let mut fixture = Fixture::steady();
    let down = |fault, gave_up| Input::LinkDown {
        peer: PeerId(3),
        fault,
        gave_up,
    };
    fixture.tell(down(LinkFault::Refused, false));
    let report = |fault, gave_up| PeerToMaster::LinkDown {
        vid: vid(1),
        peer: PeerId(3),
        fault,
        gave_up,
    };
    assert_eq!(sent(fixture.drain()), [report(LinkFault::Refused, false)]);
    fixture.tell(down(LinkFault::TimedOut, true));
    assert_eq!(sent(fixture.drain()), [report(LinkFault::TimedOut, true)]);
    fixture.tell(Input::LinkUp(PeerId(3)));
    assert_eq!(
        sent(fixture.drain()),
        [PeerToMaster::LinkUp { peer: PeerId(3) }]
    );
    fixture.tell(Input::LinkUp(PeerId(3)));
    assert!(fixture.drain().is_empty());
}

#[test]
fn broken_and_repaired_links_are_restated_to_a_master_that_came_back() {
    let mut fixture = Fixture::steady();
    let down = |peer| Input::LinkDown {
        peer: PeerId(peer),
        fault: LinkFault::Ended,
        gave_up: true,
    };
    fixture.tell(down(1));
    fixture.drain();
    fixture.reattach();
    fixture.tell(Input::LinkUp(PeerId(1)));
    fixture.tell(down(3));
    assert!(fixture.drain().is_empty());
    let mut reply = install(1, &[1, 2, 3]);
    reply.released = true;
    fixture.hear(MasterToPeer::Install(reply));
    assert_eq!(words(&fixture.drain()), ["Installed", "LinkDown", "LinkUp"]);
}

#[test]
fn links_to_newcomers_are_theirs_to_report() {
    let mut fixture = Fixture::steady();
    expect(&mut fixture, 1, &[1, 2, 3], &[4]);
    fixture.drain();
    fixture.tell(Input::LinkDown {
        peer: PeerId(4),
        fault: LinkFault::Ended,
        gave_up: true,
    });
    assert!(fixture.drain().is_empty());
}

/// Goal: the master knows why a newcomer is not linked, from whichever side knows it.
///
/// 1. A newcomer reports the dialling error, once over each connection.
/// 2. A member reports it for newcomers, not for members, which have `LinkDown`.
/// 3. When there is a link, it reports that.
#[test]
fn why_there_is_no_link_is_told_of_newcomers_until_there_is_one() {
    let no_link = |peer, why: &str| Input::NoLink {
        peer: PeerId(peer),
        why: why.into(),
    };
    let said = |peer, why: &str| PeerToMaster::NoLink {
        peer: PeerId(peer),
        why: why.into(),
    };
    let told = |fixture: &mut Fixture| -> Vec<PeerToMaster> {
        let all = sent(fixture.drain()).into_iter();
        all.filter(|message| matches!(message, PeerToMaster::NoLink { .. }))
            .collect()
    };
    let expect = |newcomers| {
        Input::Control(MasterToPeer::Expect {
            vid: vid(1),
            members: vec![member(1)],
            newcomers,
        })
    };
    let mut fixture = Fixture::newcomer();
    fixture.tell(no_link(1, "nobody asked"));
    assert_eq!(told(&mut fixture), []);
    fixture.tell(expect(vec![member(2), member(3)]));
    fixture.tell(no_link(1, "a:1: no\nanswer"));
    fixture.tell(no_link(1, "a:1: noanswer"));
    assert_eq!(told(&mut fixture), [said(1, "a:1: noanswer")]);
    fixture.tell(Input::ControlDown);
    fixture.pass(Duration::from_secs(5));
    fixture.tell(Input::ControlUp);
    assert_eq!(told(&mut fixture), [said(1, "a:1: noanswer")]);
    fixture.tell(Input::LinkUp(PeerId(1)));
    assert_eq!(told(&mut fixture), [said(1, "")]);

    let mut fixture = Fixture::steady();
    fixture.tell(expect(vec![member(9)]));
    fixture.tell(no_link(1, "a member"));
    fixture.tell(no_link(9, "x".repeat(9999).as_str()));
    let words = told(&mut fixture);
    let [PeerToMaster::NoLink { peer, why }] = &words[..] else {
        panic!("{words:?}");
    };
    assert_eq!(
        (*peer, why.len()),
        (PeerId(9), crate::limits::TEXT_BYTES_MAX)
    );
}
