//! Which links are kept, and what is said of them (R10, H24).

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
