//! Units that are admitted as one: to all their groups at the safe point of the same number (R9).

use super::*;
use crate::limits;

pub(super) const UNIT: u64 = 7;

pub(super) fn at(k: u64) -> PeerToMaster {
    PeerToMaster::AtSafePoint { k, ahead: 0 }
}

/// Two groups of two members each, and a unit that wants to join both.
pub(super) struct Site {
    pub stage: Stage,
    pub groups: [Vec<Puppet>; 2],
    vids: [Vid; 2],
    pub unit: [Puppet; 2],
}

impl Site {
    pub fn new() -> Self {
        let mut stage = Stage::new();
        let (first, vid) = stage.founded(0, 2);
        let (second, other) = stage.founded(1, 2);
        let unit = [0, 1].map(|group| stage.join_unit(group, UNIT, 2));
        stage.announced();
        stage.sent.clear();
        Self {
            stage,
            groups: [first, second],
            vids: [vid, other],
            unit,
        }
    }

    /// With both newcomers ready.
    pub fn whole() -> Self {
        let mut site = Self::new();
        site.ready(0);
        site.ready(1);
        site
    }

    pub fn ready(&mut self, group: usize) {
        self.stage.ready(self.unit[group], &self.groups[group]);
    }

    /// Both members of a group call a safe point. Returns whether it changed nothing.
    pub fn pass(&mut self, group: usize, k: u64) -> bool {
        for member in self.groups[group].clone() {
            self.stage.say(member, at(k));
        }
        let is_released = |message: &MasterToPeer| match message {
            MasterToPeer::SafeReleased { k: released, .. } => *released == k,
            _ => false,
        };
        let told = self.groups[group].iter().map(|peer| self.stage.told(*peer));
        let told: Vec<_> = told.collect();
        told.iter().all(|told| told.iter().any(is_released))
    }

    /// The members of a group, at safe point k, answer `Suspend` and install the next view.
    pub fn change(&mut self, group: usize, called: u64) -> Install {
        let vid = self.vids[group];
        let mut facts = report(vid);
        facts.safe_called = called;
        for member in self.groups[group].clone() {
            self.stage.flush(member, vid, facts.clone());
        }
        let install = self.stage.installed(self.groups[group][0]);
        let mut facts = report(install.vid);
        facts.safe_called = called;
        for member in self.groups[group].clone() {
            let (vid, report) = (install.vid, facts.clone());
            self.stage
                .say(member, PeerToMaster::Installed { vid, report });
        }
        self.vids[group] = install.vid;
        install
    }

    pub fn evicted(&mut self, newcomer: usize) -> Option<EvictReason> {
        let told = self.stage.told(self.unit[newcomer]);
        told.into_iter().find_map(|message| match message {
            MasterToPeer::Evicted { reason } => Some(reason),
            _ => None,
        })
    }

    pub fn is_in(&self, group: u64) -> bool {
        let peer = self.unit[group as usize].peer;
        self.stage.view(group).1.contains(&peer)
    }
}

impl Stage {
    pub(super) fn join_unit(&mut self, group: u64, unit: u64, size: u32) -> Puppet {
        let hello = self.sized_hello(group, unit, size);
        self.join(hello)
    }

    /// A founding member.
    fn implant(&mut self, peer: u64, model: Puppet) -> Puppet {
        let known = self.master.shared.sessions.get(model.peer).unwrap();
        let registration = Registration {
            peer: PeerId(peer),
            generation: PeerId(peer),
            unit: UnitId(peer),
            session: SessionId(peer.into()),
            key: LinkKey(peer.into()),
            ..known.registration.clone()
        };
        let now = self.now;
        self.master.shared.sessions.register(registration, now);
        let view = &mut self.master.groups.get_mut(&GroupId(0)).unwrap().view;
        view.ring_order.push(Rank(view.members.len() as u32));
        view.members.push(member(peer));
        Puppet {
            peer: PeerId(peer),
            ..model
        }
    }

    pub(super) fn sized_hello(&self, group: u64, unit: u64, size: u32) -> PeerToMaster {
        let key = u128::from(self.next_connection) + 100;
        let mut hello = self.unit_hello(group, key, unit);
        if let PeerToMaster::Hello { unit_size, .. } = &mut hello {
            *unit_size = Some(size);
        }
        hello
    }
}

/// H30: group 0 would admit the unit at 0. Its members would wait for the unit there, which waits
/// for group 1, whose members wait for those of group 0 on their hosts.
#[test]
fn half_a_unit_is_let_into_no_group() {
    let mut site = Site::new();
    site.ready(0);
    assert!(site.pass(0, 0), "nobody waits for half a unit");
    assert!(site.pass(1, 0));
    assert!(!site.is_in(0) && !site.is_in(1));
}

/// Group 0 has passed safe points 0 and 1 when the unit gets whole, group 1 only 0.
#[test]
fn whole_unit_enters_all_its_groups_at_the_first_safe_point_that_none_has_seen() {
    let mut site = Site::new();
    site.ready(0);
    assert!(site.pass(0, 0) && site.pass(1, 0));
    site.stage.say(site.groups[0][0], at(1));
    site.ready(1);
    assert!(site.pass(1, 1), "group 0 had nobody to admit at 1");
    site.stage.say(site.groups[0][1], at(1));
    for group in [0, 1] {
        assert!(!site.pass(group, 2));
        let install = site.change(group, 3);
        assert_eq!((install.members.len(), install.safe_released), (3, 3));
    }
    assert!(site.is_in(0) && site.is_in(1));
    assert!(site.pass(0, 3) && site.pass(1, 3), "it goes on as before");
}

/// A safe point at which members wait for another newcomer is fixed already.
#[test]
fn safe_point_that_members_wait_at_is_not_given_to_a_unit() {
    let mut site = Site::new();
    let lone = site.stage.join_group(0);
    site.stage.announced();
    site.stage
        .ready(lone, &[site.groups[0].clone(), vec![site.unit[0]]].concat());
    site.stage.say(site.groups[0][0], at(0));
    let linked = [site.groups[0].clone(), vec![lone]].concat();
    site.stage.ready(site.unit[0], &linked);
    site.ready(1);
    assert!(site.pass(1, 0), "the unit enters at 1");
    site.stage.say(site.groups[0][1], at(0));
    let install = site.change(0, 1);
    assert_eq!(install.members.len(), 3);
    assert_eq!(install.members[2].peer, lone.peer);
    assert!(!site.pass(1, 1));
    assert_eq!(site.change(1, 2).members.len(), 3);
}

#[test]
fn mate_that_dies_first_takes_its_unit_along_and_nobody_waits() {
    let mut site = Site::whole();
    site.stage.say(site.groups[0][0], at(0));
    site.stage.say(site.unit[1], PeerToMaster::Leave);
    assert_eq!(site.evicted(0), Some(EvictReason::Unit(site.unit[1].peer)));
    let told = site.stage.told(site.groups[0][0]);
    let released = told
        .iter()
        .any(|m| matches!(m, MasterToPeer::SafeReleased { k: 0, .. }));
    assert!(released, "{told:?}");
    assert!(site.pass(1, 0));
}

/// The link of one newcomer breaks after the other was admitted: its group does not wait, and the
/// other is lost at once, so that its group does not wait either.
#[test]
fn newcomer_that_misses_its_safe_point_costs_its_unit_the_admission() {
    let mut site = Site::whole();
    assert!(!site.pass(0, 0));
    site.change(0, 1);
    assert!(site.is_in(0));
    let down = PeerToMaster::LinkDown {
        vid: Vid::default(),
        peer: site.groups[1][0].peer,
        fault: crate::wire::control::LinkFault::TimedOut,
        gave_up: true,
    };
    site.stage.say(site.unit[1], down);
    assert!(site.pass(1, 0));
    assert_eq!(site.evicted(1), Some(EvictReason::UnitTorn));
    assert_eq!(site.evicted(0), Some(EvictReason::UnitTorn));
    assert_eq!(site.stage.state(0), "Suspended");
}

#[test]
fn member_that_gives_up_at_the_safe_point_of_a_unit_ends_its_admission() {
    let mut site = Site::whole();
    site.stage.say(site.groups[1][0], at(0));
    site.stage
        .say(site.groups[1][0], PeerToMaster::Withdraw { k: 0 });
    assert_eq!(site.evicted(1), Some(EvictReason::UnitTorn));
    assert!(site.evicted(0).is_some());
    assert!(site.pass(0, 0));
}

#[test]
fn first_members_of_all_groups_are_of_whole_units() {
    let mut stage = Stage::new();
    let units: Vec<_> = [1, 2, 3]
        .iter()
        .map(|unit| [0, 1].map(|group| stage.join_unit(group, *unit, 2)))
        .collect();
    let of = |group: usize| units.iter().map(|unit| unit[group]).collect::<Vec<_>>();
    // Unit 3 is first in group 0, and unknown to the others of group 1.
    stage.ready(units[2][0], &of(0));
    stage.ready(units[0][0], &of(0));
    stage.ready(units[1][0], &of(0));
    assert_eq!(stage.state(0), "Founding");
    stage.ready(units[0][1], &of(1));
    assert_eq!(stage.view(0).1, [units[0][0].peer]);
    assert_eq!(stage.view(1).1, [units[0][1].peer]);
}

/// A restarted master knows no turns. None was admitted, so the turn is set anew.
#[test]
fn turn_is_found_anew_after_a_restart() {
    let mut site = Site::whole();
    let mut stage = site.stage.restart(setup());
    for group in [0, 1] {
        for member in &mut site.groups[group] {
            stage.attach(member, report(site.vids[group]));
        }
        let install = stage.installed(site.groups[group][0]);
        for member in &site.groups[group] {
            stage.confirm(*member, install.vid);
        }
        site.vids[group] = install.vid;
        stage.attach(&mut site.unit[group], Report::default());
    }
    stage.announced();
    stage.sent.clear();
    site.stage = stage;
    site.ready(0);
    assert!(site.pass(0, 0));
    site.ready(1);
    assert!(site.pass(1, 0));
    for group in [0, 1] {
        assert!(!site.pass(group, 1));
        assert_eq!(site.change(group, 2).members.len(), 3);
    }
}

/// One was admitted before the restart, the other cannot be at the same safe point any more.
#[test]
fn unit_that_a_restart_tore_is_evicted() {
    let mut site = Site::whole();
    assert!(!site.pass(0, 0));
    let install = site.change(0, 1);
    let mut stage = site.stage.restart(setup());
    let mut members = [site.groups[0].clone(), vec![site.unit[0]]].concat();
    for member in &mut members {
        let mut facts = report(install.vid);
        (facts.safe_called, facts.safe_released) = (1, 1);
        stage.attach(member, facts);
    }
    site.unit[0] = members[2];
    stage.attach(&mut site.unit[1], Report::default());
    for member in &mut site.groups[1] {
        assert!(
            stage.view(0).1.contains(&members[2].peer),
            "group 1 is not known yet"
        );
        stage.attach(member, report(site.vids[1]));
    }
    site.stage = stage;
    assert_eq!(site.evicted(1), Some(EvictReason::UnitTorn));
    assert_eq!(site.evicted(0), Some(EvictReason::UnitTorn));
}

/// The member's group is resumed last, when no more messages arrive in the newcomer's.
#[test]
fn unit_that_a_restart_tore_is_evicted_whichever_group_is_taken_up_last() {
    let mut site = Site::whole();
    assert!(!site.pass(0, 0));
    let install = site.change(0, 1);
    let mut stage = site.stage.restart(setup());
    stage.attach(&mut site.unit[1], Report::default());
    for member in &mut site.groups[1] {
        stage.attach(member, report(site.vids[1]));
    }
    let mut members = [site.groups[0].clone(), vec![site.unit[0]]].concat();
    for member in &mut members {
        let mut facts = report(install.vid);
        (facts.safe_called, facts.safe_released) = (1, 1);
        stage.attach(member, facts);
    }
    site.unit[0] = members[2];
    site.stage = stage;
    assert_eq!(site.evicted(1), Some(EvictReason::UnitTorn));
    assert_eq!(site.evicted(0), Some(EvictReason::UnitTorn));
}

/// Two peers of a unit in one group: each has links to all members, but not yet to the other.
#[test]
fn mates_of_one_group_are_whole_only_when_they_are_linked_with_each_other() {
    let mut stage = Stage::new();
    let (members, vid) = stage.founded(0, 2);
    let unit = [0, 1].map(|_| stage.join_unit(0, UNIT, 2));
    stage.announced();
    stage.sent.clear();
    stage.ready(unit[0], &members);
    stage.ready(unit[1], &[members.clone(), vec![unit[0]]].concat());
    for member in &members {
        stage.say(*member, at(0));
    }
    assert_eq!(stage.state(0), "Steady");
    for mate in unit {
        assert!(stage.told(mate).is_empty(), "it goes on waiting");
    }
    stage.ready(unit[0], &[members.clone(), vec![unit[1]]].concat());
    for member in &members {
        stage.say(*member, at(1));
    }
    let mut facts = report(vid);
    facts.safe_called = 2;
    for member in &members {
        stage.flush(*member, vid, facts.clone());
    }
    assert_eq!(stage.installed(unit[0]).members.len(), 4);
}

/// Two peers of a unit in one group, which has room for one, and then for both.
#[test]
fn unit_waits_until_there_is_room_for_all_of_it() {
    for (members, is_told) in [
        (limits::WORLD_SIZE_MAX - 1, false),
        (limits::WORLD_SIZE_MAX - 2, true),
    ] {
        let mut stage = Stage::new();
        let (mut linked, _) = stage.founded(0, 2);
        for index in 2..members {
            linked.push(stage.implant(1000 + index as u64, linked[0]));
        }
        let unit = [0, 1].map(|_| stage.join_unit(0, UNIT, 2));
        let all = [linked, unit.to_vec()].concat();
        for mate in unit {
            stage.ready(mate, &all);
        }
        let newcomers = &stage.master.groups[&GroupId(0)].newcomers;
        let told = unit.map(|mate| newcomers[&mate.peer].turn == group::admission::Turn::At(0));
        assert_eq!(told, [is_told; 2], "{members} members");
    }
}

#[test]
fn size_without_unit_or_out_of_range_is_refused() {
    let mut stage = Stage::new();
    for (of, size) in [(None, 2), (Some(UNIT), 0), (Some(UNIT), 1025)] {
        let mut hello = stage.sized_hello(0, UNIT, size);
        if let PeerToMaster::Hello { unit, .. } = &mut hello {
            *unit = of.map(UnitId);
        }
        let connection = stage.connection();
        stage.say_at(connection, hello);
        let told = stage.told_at(connection);
        let [MasterToPeer::Refused { reason }] = &told[..] else {
            panic!("{told:?}");
        };
        assert!(reason.contains("unit_size"), "{reason}");
    }
}
