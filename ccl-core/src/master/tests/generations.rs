//! Generations of a unit: restarts, a peer too many, leaving (R9).

use super::takeover::without_journal;
use super::units::{Site, UNIT, at};
use super::*;
use crate::wire::control::{UnitCount, Wait};

/// A unit that is a member of both groups.
pub(super) fn admitted() -> Site {
    let mut site = Site::whole();
    for group in [0, 1] {
        assert!(!site.pass(group, 0));
        site.change(group, 1);
        let install = site.stage.installed(site.unit[group]);
        site.stage.confirm(site.unit[group], install.vid);
    }
    site.stage.sent.clear();
    site
}

/// A master that has lost the site's journal.
pub(super) fn taken_over(site: &mut Site, setup: Setup) -> Stage {
    let mut stage = Stage::with(setup, &[]);
    stage.journal = std::mem::take(&mut site.stage.journal);
    stage.next_connection = site.stage.next_connection;
    stage
}

/// The report of a member after one safe point.
pub(super) fn at_one(vid: Vid) -> Report {
    let mut facts = report(vid);
    (facts.safe_called, facts.safe_released) = (1, 1);
    facts
}

pub(super) fn evictions(stage: &Stage) -> Vec<(PeerId, EvictReason)> {
    let evicted = stage.events.iter().filter_map(|event| match event {
        Event::Evicted { peer, reason, .. } => Some((*peer, reason.clone())),
        _ => None,
    });
    evicted.collect()
}

fn refusal(told: &[MasterToPeer]) -> &str {
    match told {
        [MasterToPeer::Refused { reason }] => reason,
        other => panic!("no refusal but {other:?}"),
    }
}

/// The host loses power: the master sees only silence.
#[test]
fn host_that_restarts_before_its_old_peers_are_found_dead_is_not_lost_with_them() {
    let mut site = admitted();
    let old = site.unit;
    let others = [site.groups[0].clone(), site.groups[1].clone()].concat();
    let timeout = Timers::default().peer_timeout;
    site.stage.pass(timeout / 2, &others);
    site.unit = [0, 1].map(|group| site.stage.join_unit(group, UNIT, 2));
    let alive = [others, site.unit.to_vec()].concat();
    site.stage.pass(timeout, &alive);
    let lost: BTreeSet<_> = evictions(&site.stage)
        .iter()
        .map(|(peer, _)| *peer)
        .collect();
    assert_eq!(lost, old.map(|puppet| puppet.peer).into());
    site.stage.sent.clear();
    for group in [0, 1] {
        site.change(group, 1);
    }
    site.ready(0);
    site.ready(1);
    for group in [0, 1] {
        assert!(!site.pass(group, 1), "the new self enters like any other");
        assert_eq!(site.change(group, 2).members.len(), 3);
    }
}

/// Its new processes are ready before the master knows that the old ones are gone.
#[test]
fn next_generation_of_a_unit_waits_for_the_end_of_the_one_before() {
    let mut site = Site::whole();
    let old = site.unit;
    site.unit = [0, 1].map(|group| site.stage.join_unit(group, UNIT, 2));
    site.stage.announced();
    for group in [0, 1] {
        let linked = [site.groups[group].clone(), vec![old[group]]].concat();
        site.stage.ready(site.unit[group], &linked);
    }
    site.stage.sent.clear();
    site.stage.say(old[0], PeerToMaster::Leave);
    assert_eq!(evictions(&site.stage).len(), 2);
    for group in [0, 1] {
        assert!(!site.pass(group, 0));
        assert_eq!(site.change(group, 1).members.len(), 3);
        assert!(site.is_in(group as u64));
    }
}

#[test]
fn one_too_many_is_refused_once_the_others_prove_to_be_alive() {
    let mut site = admitted();
    let third = site.stage.join_unit(1, UNIT, 2);
    let margin = Timers::default().heartbeat_interval * 2;
    site.stage.now = site.stage.now + margin;
    for mate in site.unit {
        site.stage.say(mate, PeerToMaster::Ping);
    }
    assert_eq!(site.stage.told(third), [], "these may be last words");
    site.stage.now = site.stage.now + Duration::from_millis(1);
    site.stage.say(site.unit[0], PeerToMaster::Ping);
    assert_eq!(site.stage.told(third), [], "the other may be dead");
    site.stage.say(site.unit[1], PeerToMaster::Ping);
    let told = site.stage.told(third);
    let words = refusal(&told);
    assert!(
        words.contains("unit 7 already has all its 2 peers") && words.contains("unit_size"),
        "{words}"
    );
    assert_eq!(evictions(&site.stage).len(), 1);
    assert!(site.is_in(0) && site.is_in(1));
}

#[test]
fn peers_that_disagree_on_their_number_are_refused_at_once() {
    for (first, second, words) in [
        (Some(2), Some(3), "is 3 for this peer but 2 for peer"),
        (Some(2), None, "is none for this peer but 2 for peer"),
        (None, Some(2), "is 2 for this peer but none for peer"),
    ] {
        let mut stage = Stage::new();
        let hello = |size| {
            let mut hello = stage.sized_hello(0, UNIT, 2);
            if let PeerToMaster::Hello { unit_size, key, .. } = &mut hello {
                *unit_size = size;
                *key = LinkKey(u128::from(size.unwrap_or(9)));
            }
            hello
        };
        let (early, mut late) = (hello(first), hello(second));
        let early = stage.join(early);
        let connection = stage.connection();
        stage.say_at(connection, late.clone());
        let told = stage.told_at(connection);
        let reason = refusal(&told);
        assert!(
            reason.contains(words) && reason.contains("the same for all peers"),
            "{reason}"
        );
        // The earlier peer may be left over from a previous start.
        stage.close(early);
        if let PeerToMaster::Hello { attach, .. } = &mut late {
            *attach = 2;
        }
        stage.join(late);
    }
}

#[test]
fn newcomer_hears_how_many_of_its_unit_are_there() {
    let mut stage = Stage::new();
    let hello = stage.sized_hello(0, UNIT, 3);
    let connection = stage.connection();
    stage.say_at(connection, hello);
    let count = |registered| {
        Some(Wait::Unit(UnitCount {
            unit: UnitId(UNIT),
            registered,
            size: 3,
        }))
    };
    let unit_of = |told: Vec<MasterToPeer>| match told.first() {
        Some(MasterToPeer::Welcome { waits, .. } | MasterToPeer::Pong { waits, .. }) => {
            waits.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(unit_of(stage.told_at(connection)), count(1));
    stage.join_unit(1, UNIT, 3);
    stage.say_at(connection, PeerToMaster::Ping);
    assert_eq!(unit_of(stage.told_at(connection)), count(2));
    let lone = stage.join_group(0);
    stage.told(lone);
    stage.say(lone, PeerToMaster::Ping);
    assert_eq!(unit_of(stage.told(lone)), None);
}

#[test]
fn unit_leaves_as_one_and_each_ends_what_it_has_begun() {
    let mut site = admitted();
    let [first, second] = site.unit;
    site.stage.say(first, PeerToMaster::Leave);
    assert_eq!(evictions(&site.stage), [(first.peer, EvictReason::Left)]);
    assert!(site.is_in(1), "it may end its calls");
    site.stage.say(second, PeerToMaster::Leave);
    let expected = [
        (first.peer, EvictReason::Left),
        (second.peer, EvictReason::Left),
    ];
    assert_eq!(evictions(&site.stage), expected);
    let others = [site.groups[0].clone(), site.groups[1].clone()].concat();
    site.stage
        .pass(Timers::default().peer_timeout * 2, &others[..2]);
    assert!(
        evictions(&site.stage)
            .iter()
            .all(|(_, why)| !matches!(why, EvictReason::UnitLeft(_)))
    );
}

#[test]
fn who_stays_behind_when_its_unit_leaves_is_evicted() {
    let mut site = admitted();
    let [first, second] = site.unit;
    let alive = [site.groups[1].clone(), vec![second]].concat();
    site.stage.say(first, PeerToMaster::Leave);
    let timeout = Timers::default().peer_timeout;
    site.stage.pass(timeout - Duration::from_millis(1), &alive);
    assert!(site.is_in(1));
    site.stage.pass(Duration::from_millis(1), &alive);
    let told = site.stage.told(second);
    let reason = EvictReason::UnitLeft(first.peer);
    assert!(told.contains(&MasterToPeer::Evicted { reason }), "{told:?}");
}

/// It will never begin its first call, so no peer waits for it.
#[test]
fn member_whose_mate_gives_up_joining_is_evicted_at_once() {
    let mut site = Site::whole();
    assert!(!site.pass(0, 0));
    site.change(0, 1);
    assert!(site.is_in(0));
    site.stage.say(site.unit[1], PeerToMaster::Leave);
    let lost = EvictReason::Unit(site.unit[1].peer);
    assert_eq!(site.evicted(0), Some(lost));
    assert!(site.pass(1, 0), "nobody waits");
}

/// The master dies while the others of a unit may still follow one that left: they do not stay
/// forever.
#[test]
fn rest_of_a_unit_does_not_outlive_a_restart() {
    let mut site = admitted();
    let [first, mut second] = site.unit;
    site.stage.say(first, PeerToMaster::Leave);
    site.change(0, 1);
    let vids = [0, 1].map(|group| site.stage.view(group).0);
    let mut stage = site.stage.restart(setup());
    let mut alive = [site.groups[0].clone(), site.groups[1].clone()].concat();
    for (index, puppet) in alive.iter_mut().enumerate() {
        stage.attach(puppet, at_one(vids[index / 2]));
    }
    stage.attach(&mut second, at_one(vids[1]));
    for (index, puppet) in alive.iter().enumerate() {
        let vid = stage.view(index as u64 / 2).0;
        stage.say(
            *puppet,
            PeerToMaster::Installed {
                vid,
                report: at_one(vid),
            },
        );
    }
    let (vid, report) = (stage.view(1).0, at_one(stage.view(1).0));
    stage.say(second, PeerToMaster::Installed { vid, report });
    assert!(stage.view(1).1.contains(&second.peer));
    alive.push(second);
    let timers = Timers::default();
    stage.pass(timers.peer_timeout.max(timers.rebuild_window), &alive);
    assert_eq!(evictions(&stage), [(second.peer, EvictReason::UnitTorn)]);
}

/// A takeover waits for the rest of a unit; a member that leaves meanwhile counts as leaving.
#[test]
fn who_leaves_soon_after_a_takeover_takes_its_unit_along() {
    let mut site = admitted();
    let vids = [0, 1].map(|group| site.stage.view(group).0);
    let mut stage = taken_over(&mut site, without_journal());
    let mut alive = Vec::new();
    for group in [0, 1] {
        let mut members = [site.groups[group].clone(), vec![site.unit[group]]].concat();
        for puppet in &mut members {
            stage.attach(puppet, at_one(vids[group]));
        }
        alive.extend(members.clone());
        let vid = stage.view(group as u64).0;
        for puppet in &members {
            let report = at_one(vid);
            stage.say(*puppet, PeerToMaster::Installed { vid, report });
        }
    }
    let [first, second] = site.unit.map(|mate| mate.peer);
    let leaver = *alive
        .iter()
        .find(|puppet| puppet.peer == first)
        .expect("it attached");
    alive.retain(|puppet| puppet.peer != first);
    stage.say(leaver, PeerToMaster::Leave);
    stage.pass(Timers::default().peer_timeout, &alive);
    let left = (second, EvictReason::UnitLeft(first));
    assert!(evictions(&stage).contains(&left), "{:?}", evictions(&stage));
}

/// Without a journal, a unit has the size that its peers report.
#[test]
fn member_that_a_takeover_leaves_without_its_unit_is_evicted() {
    let mut site = admitted();
    let vids = [0, 1].map(|group| site.stage.view(group).0);
    let mut stage = taken_over(&mut site, without_journal());
    let mut alive = [
        site.groups[0].clone(),
        site.groups[1].clone(),
        vec![site.unit[1]],
    ]
    .concat();
    for (index, puppet) in alive.iter_mut().enumerate() {
        stage.attach(puppet, at_one(vids[(index / 2).min(1)]));
    }
    let timers = Timers::default();
    stage.pass(timers.rebuild_window, &alive);
    for (index, puppet) in alive.clone().into_iter().enumerate() {
        let vid = stage.view((index as u64 / 2).min(1)).0;
        let report = at_one(vid);
        stage.say(puppet, PeerToMaster::Installed { vid, report });
    }
    stage.pass(timers.peer_timeout.max(timers.rebuild_window), &alive);
    let rest = (site.unit[1].peer, EvictReason::UnitTorn);
    assert!(evictions(&stage).contains(&rest), "{:?}", evictions(&stage));
}

/// Two hosts have the same number: the first pair that connects counts as the unit.
#[test]
fn unit_of_two_hosts_is_refused_to_the_second() {
    let mut stage = Stage::new();
    let first = [0, 1].map(|group| stage.join_unit(group, UNIT, 2));
    let second = [0, 1].map(|group| stage.join_unit(group, UNIT, 2));
    stage.now = stage.now + Timers::default().heartbeat_interval * 3;
    stage.sent.clear();
    for puppet in first {
        stage.say(puppet, PeerToMaster::Ping);
    }
    for puppet in second {
        let told = stage.told(puppet);
        assert!(refusal(&told).contains("each host its own unit"));
    }
    assert_eq!(stage.state(0), "Founding");
    stage.say(first[0], at(0));
}
