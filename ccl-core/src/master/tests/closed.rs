//! Closed groups: they form once, with exactly their members in order, and no one joins them (R21).

use super::*;
use crate::ids::Epoch;
use crate::wire::control::{Place, Wait};

const GROUP: u64 = 5;

impl Stage {
    /// The hello of a peer with this list of members.
    fn listed(&self, roster: u128, size: u32, rank: u32) -> PeerToMaster {
        let key = u128::from(self.next_connection) + 100;
        let mut hello = self.hello(GROUP, key);
        if let PeerToMaster::Hello {
            place, min_world, ..
        } = &mut hello
        {
            let rank = Rank(rank);
            *place = Some(Place { roster, size, rank });
            *min_world = size;
        }
        hello
    }

    /// Newcomers with these ranks of a list of three, in the order in which they connect.
    fn come(&mut self, ranks: &[u32]) -> Vec<Puppet> {
        let mut puppets = Vec::new();
        for &rank in ranks {
            puppets.push(self.join(self.listed(1, 3, rank)));
        }
        puppets
    }

    fn ready_all(&mut self, puppets: &[Puppet]) {
        for puppet in puppets {
            self.ready(*puppet, puppets);
        }
    }

    /// Three members in rank order, and their first view.
    fn closed(&mut self) -> (Vec<Puppet>, Vid) {
        let peers = self.come(&[0, 1, 2]);
        self.ready_all(&peers);
        let vid = self.installed(peers[0]).vid;
        peers.iter().for_each(|peer| self.confirm(*peer, vid));
        self.sent.clear();
        (peers, vid)
    }

    /// Why a hello is refused.
    fn refused(&mut self, hello: PeerToMaster) -> String {
        let connection = self.connection();
        self.say_at(connection, hello);
        let told = self.told_at(connection);
        let Some(MasterToPeer::Refused { reason }) = told.first() else {
            panic!("not refused but {told:?}");
        };
        reason.clone()
    }
}

#[test]
fn the_first_view_has_exactly_the_members_of_the_list_in_its_order() {
    let mut stage = Stage::new();
    let peers = stage.come(&[2, 0, 1]);
    stage.ready_all(&peers[..2]);
    stage.ready(peers[2], &peers);
    assert_eq!(stage.state(GROUP), "Founding", "not all of them are linked");
    stage.ready_all(&peers);
    let members = stage.installed(peers[0]).members;
    let members = members.iter().map(|member| member.peer);
    let ranks = [peers[1], peers[2], peers[0]].map(|peer| peer.peer);
    assert_eq!(members.collect::<Vec<_>>(), ranks);
}

#[test]
fn one_that_is_missing_is_named_and_nothing_is_left_when_the_others_give_up() {
    let mut stage = Stage::new();
    let peers = stage.come(&[0, 2]);
    stage.ready_all(&peers);
    stage.sent.clear();
    stage.say(peers[0], PeerToMaster::Ping);
    let told = stage.told(peers[0]);
    let Some(MasterToPeer::Pong {
        waits: Some(wait), ..
    }) = told.first()
    else {
        panic!("no wait: {told:?}");
    };
    assert!(matches!(wait, Wait::FirstView { absent, .. } if *absent == [Rank(1)]));
    let words = wait.to_string();
    assert!(words.starts_with("2 of the 3 members of the closed group have joined"));
    assert!(words.ends_with("still missing: rank 1"), "{words}");
    for peer in peers {
        stage.say(peer, PeerToMaster::Leave);
    }
    assert_eq!(stage.master.groups.len(), 0);
    let again = stage.come(&[0, 1, 2]);
    stage.ready_all(&again);
    assert_eq!(stage.state(GROUP), "Steady", "the id was not used up");
}

#[test]
fn only_peers_with_the_same_list_wait_for_each_other() {
    let mut stage = Stage::new();
    stage.come(&[0]);
    let hellos: [fn(&Stage) -> PeerToMaster; 3] = [
        |stage| stage.listed(2, 3, 1),
        |stage| stage.listed(1, 2, 1),
        |stage| stage.hello(GROUP, 77),
    ];
    for hello in hellos {
        let reason = stage.refused(hello(&stage));
        assert!(reason.contains("with another list of members"), "{reason}");
    }
    let mut stage = Stage::new();
    stage.join(stage.hello(GROUP, 77));
    let reason = stage.refused(stage.listed(1, 3, 0));
    assert!(reason.contains("an open group"), "{reason}");
}

#[test]
fn a_copy_of_a_refused_hello_takes_no_place_later() {
    let mut stage = Stage::new();
    let others = stage.come(&[0]);
    let hello = stage.listed(2, 2, 1);
    stage.refused(hello.clone());
    stage.say(others[0], PeerToMaster::Leave);
    let connection = stage.connection();
    stage.say_at(connection, hello);
    assert_eq!(stage.told_at(connection), []);
    assert_eq!(stage.master.groups.len(), 0);
}

#[test]
fn a_newer_process_takes_the_place_of_an_older() {
    let mut stage = Stage::new();
    let old = stage.come(&[0, 1])[1];
    let new = stage.come(&[1, 2, 0]);
    let told = stage.told(old);
    assert!(
        matches!(told.last(), Some(MasterToPeer::Refused { reason }) if reason.contains("rank 1")),
        "{told:?}"
    );
    stage.ready_all(&new);
    let ranks = [new[2], new[0], new[1]].map(|peer| peer.peer);
    assert_eq!(stage.view(GROUP).1, ranks);
}

#[test]
fn nobody_joins_it_later_and_its_id_is_used_up() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.closed();
    let used = "id 5 is already used";
    assert!(stage.refused(stage.hello(GROUP, 77)).starts_with(used));
    assert!(stage.refused(stage.listed(1, 3, 1)).starts_with(used));
    stage.say(peers[2], PeerToMaster::Leave);
    for peer in &peers[..2] {
        stage.flush(*peer, vid, report(vid));
    }
    assert!(stage.refused(stage.listed(1, 3, 2)).starts_with(used));
    let next = stage.view(GROUP).0;
    peers[..2]
        .iter()
        .for_each(|peer| stage.confirm(*peer, next));
    for peer in &peers[..2] {
        stage.say(*peer, PeerToMaster::Leave);
    }
    assert_eq!(stage.master.groups.len(), 0, "nothing of it is kept");
    assert!(stage.refused(stage.listed(9, 2, 0)).starts_with(used));
    let mut stage = stage.restart(setup());
    assert!(stage.refused(stage.listed(9, 2, 0)).starts_with(used));
    let shortened = History::read(&stage.journal).records();
    let next_connection = stage.next_connection;
    let mut stage = Stage::with(setup(), &shortened);
    stage.next_connection = next_connection;
    assert!(stage.refused(stage.listed(9, 2, 0)).starts_with(used));
}

#[test]
fn a_group_that_formed_open_is_never_closed() {
    let mut stage = Stage::new();
    stage.founded(GROUP, 2);
    let reason = stage.refused(stage.listed(1, 3, 0));
    assert!(reason.starts_with("id 5 is already used"), "{reason}");
}

#[test]
fn what_a_closed_group_cannot_be_is_refused() {
    let mut stage = Stage::new();
    let mut in_unit = stage.listed(1, 3, 0);
    if let PeerToMaster::Hello {
        unit, unit_size, ..
    } = &mut in_unit
    {
        (*unit, *unit_size) = (Some(UnitId(1)), Some(2));
    }
    assert!(stage.refused(in_unit).contains("unit_size"));
    let mut short = stage.listed(1, 3, 0);
    if let PeerToMaster::Hello { min_world, .. } = &mut short {
        *min_world = 2;
    }
    assert!(stage.refused(short).contains("is its size, 3"));
}

/// The next master knows it from its journal or, without one, from the members.
#[test]
fn it_is_closed_for_the_next_master_too() {
    for has_journal in [true, false] {
        let mut stage = Stage::new();
        let (mut peers, vid) = stage.closed();
        let mut stage = match has_journal {
            true => stage.restart(setup()),
            false => {
                let mut lost = setup();
                (lost.journaled, lost.new_run) = (false, false);
                let mut next = Stage::with(lost, &[]);
                next.journal = stage.journal;
                next.next_connection = stage.next_connection;
                next
            }
        };
        stage.attach(&mut peers[0], report(vid));
        let newcomer = stage.connection();
        stage.say_at(newcomer, stage.hello(GROUP, 77));
        for peer in &mut peers[1..] {
            stage.attach(peer, report(vid));
        }
        let told = stage.told_at(newcomer);
        assert!(
            matches!(told.last(), Some(MasterToPeer::Refused { reason })
                if reason.starts_with("id 5 is already used")),
            "journal: {has_journal}; {told:?}"
        );
        let next = stage.view(GROUP);
        let same = peers.iter().map(|peer| peer.peer).collect::<Vec<_>>();
        assert_eq!((next.0.term.0, next.1), (2, same));
    }
}

/// The first master dies before any of them learns of the view; the next knows it.
#[test]
fn members_that_never_learned_of_their_view_have_it_or_are_evicted() {
    let mut stage = Stage::new();
    let mut peers = stage.come(&[0, 1, 2]);
    stage.ready_all(&peers);
    let vid = stage.view(GROUP).0;
    let mut stage = stage.restart(setup());
    for peer in &mut peers {
        stage.attach(peer, report(Vid::default()));
    }
    let ranks = peers.iter().map(|peer| peer.peer).collect::<Vec<_>>();
    assert_eq!(stage.view(GROUP).1, ranks);
    let mut stage = stage.restart(setup());
    let vid = Vid {
        term: Term(2),
        epoch: Epoch(vid.epoch.0 + 1),
    };
    stage.attach(&mut peers[0], report(vid));
    for peer in &mut peers[1..] {
        stage.attach(peer, report(Vid::default()));
    }
    assert_eq!(stage.view(GROUP).1, [peers[0].peer]);
    let reason = EvictReason::Unaware;
    let told = stage.told(peers[1]);
    assert_eq!(told.last(), Some(&MasterToPeer::Evicted { reason }));
    let reason = stage.refused(stage.listed(1, 3, 1));
    assert!(reason.starts_with("id 5 is already used"), "{reason}");
}
