//! First views of groups made of units: in one step, counted from the same number (R9).

use super::units::{UNIT, at};
use super::*;

type Pair = [Puppet; 2];

/// Newcomers of these units, one in each of two groups; `wishes`: the first views' sizes.
fn units(stage: &mut Stage, units: &[u64], wishes: [u32; 2]) -> Vec<Pair> {
    let mut joined = Vec::new();
    for unit in units {
        joined.push([0, 1].map(|group| {
            let mut hello = stage.sized_hello(group, *unit, 2);
            if let PeerToMaster::Hello { min_world, .. } = &mut hello {
                *min_world = wishes[group as usize];
            }
            stage.join(hello)
        }));
    }
    joined
}

fn of(units: &[Pair], group: usize) -> Vec<Puppet> {
    units.iter().map(|unit| unit[group]).collect()
}

fn ready(stage: &mut Stage, unit: Pair, all: &[Pair]) {
    for group in [0, 1] {
        stage.ready(unit[group], &of(all, group));
    }
}

/// All members of a group confirm their view and call a safe point.
fn step(stage: &mut Stage, members: &[Puppet], group: u64, k: u64) {
    for member in members {
        stage.say(*member, at(k));
        let told = stage.told(*member);
        let is_released =
            |message: &MasterToPeer| matches!(message, MasterToPeer::SafeReleased { .. });
        assert!(told.iter().any(is_released), "group {group}, {k}: {told:?}");
    }
}

fn confirm(stage: &mut Stage, members: &[Puppet]) -> Install {
    let install = stage.installed(members[0]);
    for member in members {
        let mut facts = report(install.vid);
        (facts.safe_called, facts.safe_released) = (install.safe_released, install.safe_released);
        let vid = install.vid;
        stage.say(*member, PeerToMaster::Installed { vid, report: facts });
    }
    install
}

/// Group 0 needs only one host, and would begin to count before group 1.
#[test]
fn groups_of_a_unit_are_founded_in_one_step_whatever_each_waits_for() {
    let mut stage = Stage::new();
    let all = units(&mut stage, &[1, 2], [1, 2]);
    ready(&mut stage, all[0], &all);
    assert_eq!((stage.state(0), stage.state(1)), ("Founding", "Founding"));
    ready(&mut stage, all[1], &all);
    for group in [0, 1] {
        let install = stage.installed(all[0][group]);
        assert_eq!((install.members.len(), install.safe_released), (2, 0));
    }
}

/// A lone peer counts for the group that it is in, and enters with the units.
#[test]
fn lone_newcomers_are_founded_with_the_units() {
    let mut stage = Stage::new();
    let all = units(&mut stage, &[1], [2, 1]);
    let mut hello = stage.hello(0, 77);
    if let PeerToMaster::Hello { min_world, .. } = &mut hello {
        *min_world = 2;
    }
    let lone = stage.join(hello);
    stage.ready(all[0][1], &[]);
    stage.ready(all[0][0], &[lone]);
    assert_eq!((stage.state(0), stage.state(1)), ("Founding", "Founding"));
    stage.ready(lone, &[all[0][0]]);
    assert_eq!(stage.view(0).1, [all[0][0].peer, lone.peer]);
    assert_eq!(stage.view(1).1, [all[0][1].peer]);
}

/// The last members were lost when group 0 had released a safe point more than group 1.
#[test]
fn groups_that_emptied_apart_count_alike_again() {
    let mut stage = Stage::new();
    let old = units(&mut stage, &[1], [1, 1]);
    ready(&mut stage, old[0], &old);
    for group in [0, 1] {
        confirm(&mut stage, &of(&old, group));
    }
    for k in [0, 1, 2] {
        step(&mut stage, &[old[0][0]], 0, k);
    }
    step(&mut stage, &[old[0][1]], 1, 0);
    for peer in old[0] {
        stage.say(peer, PeerToMaster::Leave);
    }
    assert_eq!((stage.state(0), stage.state(1)), ("Founding", "Founding"));
    let new = units(&mut stage, &[2], [1, 1]);
    ready(&mut stage, new[0], &new);
    for group in [0, 1] {
        assert_eq!(confirm(&mut stage, &[new[0][group]]).safe_released, 3);
    }
    let joined = units(&mut stage, &[3], [1, 1]);
    stage.announced();
    stage.sent.clear();
    ready(&mut stage, joined[0], &new);
    for group in [0, 1] {
        stage.say(new[0][group], at(3));
        assert_eq!(stage.state(group as u64), "Suspended", "both admit at 3");
    }
}

/// Only group 0 has members. The unit enters it at its next safe point, and counts in group 1 as if
/// that had had one too.
#[test]
fn group_without_members_is_founded_at_the_count_of_the_others() {
    let mut stage = Stage::new();
    let (members, vid) = stage.founded(0, 2);
    for k in [0, 1] {
        step(&mut stage, &members, 0, k);
    }
    let unit = units(&mut stage, &[UNIT], [1, 1]);
    stage.announced();
    stage.sent.clear();
    stage.ready(unit[0][1], &[]);
    assert_eq!(stage.state(1), "Founding", "the other is not ready");
    stage.ready(unit[0][0], &members);
    assert_eq!(confirm(&mut stage, &[unit[0][1]]).safe_released, 3);
    for member in &members {
        stage.say(*member, at(2));
    }
    let mut facts = report(vid);
    facts.safe_called = 3;
    for member in &members {
        stage.flush(*member, vid, facts.clone());
    }
    let install = stage.installed(unit[0][0]);
    assert_eq!((install.members.len(), install.safe_released), (3, 3));
}

/// The turn of two units is set to a safe point, and all members are gone before it. Neither waits
/// for it.
#[test]
fn turn_ends_with_the_members_that_were_to_give_it() {
    let mut stage = Stage::new();
    let old = units(&mut stage, &[1], [1, 1]);
    ready(&mut stage, old[0], &old);
    for group in [0, 1] {
        confirm(&mut stage, &of(&old, group));
    }
    let new = units(&mut stage, &[2, 3], [1, 1]);
    let all = [old.clone(), new.clone()].concat();
    stage.announced();
    for unit in &new {
        ready(&mut stage, *unit, &all);
    }
    for unit in &new {
        ready(&mut stage, *unit, &all);
    }
    stage.sent.clear();
    for peer in old[0] {
        stage.say(peer, PeerToMaster::Leave);
    }
    for group in [0, 1] {
        let install = stage.installed(new[0][group]);
        assert_eq!(install.members.len(), 2, "{install:?}");
    }
}

/// The unit is a member of group 0 when the last member of group 1 is lost: alone it forms the next
/// view of group 1, as if it had been admitted before.
#[test]
fn unit_founds_the_group_whose_members_were_lost_before_it_was_admitted() {
    let mut stage = Stage::new();
    let (first, vid) = stage.founded(0, 1);
    let (second, _) = stage.founded(1, 2);
    let unit = units(&mut stage, &[UNIT], [1, 1]);
    stage.announced();
    stage.sent.clear();
    stage.ready(unit[0][0], &first);
    stage.ready(unit[0][1], &second);
    stage.say(first[0], at(0));
    let mut facts = report(vid);
    facts.safe_called = 1;
    stage.flush(first[0], vid, facts);
    let install = stage.installed(unit[0][0]);
    assert_eq!((install.members.len(), install.safe_released), (2, 1));
    for peer in second {
        stage.say(peer, PeerToMaster::Leave);
    }
    let second_vid = stage.view(1).0;
    assert_eq!(stage.view(1).1, [unit[0][1].peer], "{second_vid}");
    assert_eq!(stage.installed(unit[0][1]).safe_released, 1);
}

/// Four newcomers to group 0, of which the first view needs three.
fn four(stage: &mut Stage) -> Vec<Puppet> {
    let join = |key| {
        let mut hello = stage.hello(0, key);
        if let PeerToMaster::Hello { min_world, .. } = &mut hello {
            *min_world = 3;
        }
        stage.join(hello)
    };
    (1..=4).map(join).collect()
}

/// The one that no peer can reach came first.
#[test]
fn newcomer_that_nobody_reaches_does_not_keep_the_others_from_founding() {
    let mut stage = Stage::new();
    let all = four(&mut stage);
    stage.ready(all[0], &[]);
    for one in &all[1..] {
        stage.ready(*one, &all[1..]);
    }
    let founders = all[1..].iter().map(|puppet| puppet.peer);
    assert_eq!(stage.view(0).1, founders.collect::<Vec<_>>());
    // It may be admitted later, when it is linked with all.
    let members = all[1..].to_vec();
    let vid = stage.view(0).0;
    members
        .iter()
        .for_each(|member| stage.confirm(*member, vid));
    stage.ready(all[0], &members);
    members.iter().for_each(|member| stage.say(*member, at(0)));
    assert_eq!(stage.state(0), "Suspended", "a change that admits it");
}

/// Only two others reach each of the first two, who do not reach each other.
#[test]
fn pair_without_a_link_does_not_keep_the_others_from_founding() {
    let mut stage = Stage::new();
    let all = four(&mut stage);
    for (index, one) in all.iter().enumerate() {
        let apart = 1_usize.wrapping_sub(index);
        let linked = all.iter().enumerate().filter(|(other, _)| *other != apart);
        let linked: Vec<Puppet> = linked.map(|(_, puppet)| *puppet).collect();
        stage.ready(*one, &linked);
    }
    let founders = [all[0], all[2], all[3]].map(|puppet| puppet.peer);
    assert_eq!(stage.view(0).1, founders);
}

/// A host that reaches no other came first. It counts as a whole, so both groups go without it.
#[test]
fn unit_that_no_other_reaches_does_not_keep_the_others_from_founding() {
    let mut stage = Stage::new();
    let all = units(&mut stage, &[1, 2, 3], [2, 2]);
    ready(&mut stage, all[0], &all[..1]);
    // In group 1 all reach it.
    stage.ready(all[0][1], &of(&all, 1));
    for unit in &all[1..] {
        stage.ready(unit[0], &of(&all[1..], 0));
        stage.ready(unit[1], &of(&all, 1));
    }
    for group in [0, 1] {
        let founders: Vec<_> = of(&all[1..], group).iter().map(|it| it.peer).collect();
        assert_eq!(stage.view(group as u64).1, founders);
    }
}

/// One host has a rank in group 1 too, where it waits for another. It came first, and there is no
/// link between the two.
#[test]
fn unit_that_waits_for_more_does_not_keep_another_from_founding() {
    let mut stage = Stage::new();
    let early = units(&mut stage, &[1], [1, 2])[0];
    let late = stage.join_unit(0, 2, 1);
    stage.ready(early[0], &[]);
    stage.ready(early[1], &[]);
    assert_eq!(stage.state(0), "Founding", "group 1 needs two");
    stage.ready(late, &[]);
    assert_eq!(stage.view(0).1, [late.peer]);
    assert_eq!(stage.state(1), "Founding");
}

/// Goal: waiting peers and the operator learn of the pair, and of the dialling errors.
#[test]
fn link_that_keeps_newcomers_out_is_told_with_what_dialling_said() {
    let mut stage = Stage::new();
    let all = four(&mut stage);
    let (hermit, others) = (all[0], [all[1], all[2]]);
    stage.say(all[3], PeerToMaster::Leave);
    stage.ready(hermit, &[]);
    for one in others {
        stage.ready(one, &others);
        let why = "10.0.0.1:1: Connection refused".into();
        let peer = hermit.peer;
        stage.say(one, PeerToMaster::NoLink { peer, why });
    }
    let wait = |stage: &mut Stage, puppet| {
        stage.say(puppet, PeerToMaster::Ping);
        match stage.told(puppet).pop() {
            Some(MasterToPeer::Pong { waits, .. }) => waits.unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    };
    let words = "peer 0 (node1, 10.0.0.1:1) cannot be reached from peer 1 (node2, 10.0.0.1:2): \
                 10.0.0.1:1: Connection refused";
    assert!(wait(&mut stage, hermit).contains(words));
    stage.events.clear();
    stage.pass(Duration::from_secs(5), &all[..3]);
    // So do the others, which are linked with each other.
    assert!(wait(&mut stage, others[0]).contains(words));
    let logged = stage.events.iter().filter_map(|event| match event {
        Event::Waits { wait, .. } => Some(wait.to_string()),
        _ => None,
    });
    let logged: Vec<String> = logged.collect();
    assert!(
        matches!(&logged[..], [once] if once.contains(words)),
        "{logged:?}"
    );
    // A repeated report changes nothing; the report of a link does.
    let (peer, why) = (hermit.peer, String::from("10.0.0.1:1: no answer"));
    stage.say(others[0], PeerToMaster::NoLink { peer, why });
    stage.pass(Duration::from_secs(5), &all[..3]);
    stage.say(
        others[0],
        PeerToMaster::NoLink {
            peer,
            why: String::new(),
        },
    );
    assert!(!wait(&mut stage, hermit).contains("from peer 1"));
    let logged = stage
        .events
        .iter()
        .filter(|it| matches!(it, Event::Waits { .. }));
    assert_eq!(logged.count(), 1);
}
