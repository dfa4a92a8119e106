//! Newcomers: hello, refusals, limits, and the peers in their `Expect`.

use super::*;
use crate::limits;
use crate::wire::control::Wait;

type Edit = fn(&mut PeerToMaster);

fn refusal(edit: Edit) -> String {
    let mut stage = Stage::new();
    let mut hello = stage.hello(0, 1);
    edit(&mut hello);
    let connection = stage.connection();
    stage.say_at(connection, hello);
    assert!(stage.closed.contains(&connection));
    match &stage.told_at(connection)[..] {
        [MasterToPeer::Refused { reason }] => reason.clone(),
        other => panic!("no refusal but {other:?}"),
    }
}

#[test]
fn refusals_say_what_to_change() {
    let edits: [(Edit, &str); 6] = [
        (
            |hello| {
                if let PeerToMaster::Hello { protocol, .. } = hello {
                    *protocol += 1;
                }
            },
            "speaks protocol",
        ),
        (
            |hello| {
                if let PeerToMaster::Hello { run, .. } = hello {
                    *run = "other".into();
                }
            },
            "serves run \"run\", not \"other\"",
        ),
        (
            |hello| {
                if let PeerToMaster::Hello { addresses, .. } = hello {
                    addresses.clear();
                }
            },
            "addresses",
        ),
        (
            |hello| {
                if let PeerToMaster::Hello { addresses, .. } = hello {
                    let ports = 0..=limits::ADDRESSES_MAX as u16;
                    *addresses = ports.map(address).collect();
                }
            },
            "addresses",
        ),
        (
            |hello| {
                if let PeerToMaster::Hello { min_world, .. } = hello {
                    *min_world = limits::WORLD_SIZE_MAX as u32 + 1;
                }
            },
            "min_world",
        ),
        (
            |hello| {
                if let PeerToMaster::Hello { unit, .. } = hello {
                    *unit = Some(UnitId(1 << 63));
                }
            },
            "unit",
        ),
    ];
    for (edit, words) in edits {
        let reason = refusal(edit);
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn peers_beyond_the_limit_are_refused() {
    let mut stage = Stage::new();
    for index in 0..limits::PEERS_MAX {
        stage.join(stage.hello(index as u64, 1 + index as u128));
    }
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 1 << 40));
    let told = stage.told_at(connection);
    assert!(matches!(&told[..], [MasterToPeer::Refused { reason }] if reason.contains("1024")));
}

#[test]
fn hello_said_again_over_a_new_connection_is_the_same_session() {
    let mut stage = Stage::new();
    let first = stage.join(stage.hello(0, 5));
    let mut again = stage.hello(0, 5);
    if let PeerToMaster::Hello { attach, .. } = &mut again {
        *attach = 2;
    }
    let second = stage.join(again);
    assert_eq!((second.peer, second.session), (first.peer, first.session));
    assert!(stage.closed.contains(&first.connection));
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 5));
    assert_eq!(
        stage.told_at(connection),
        [],
        "an older attempt that was slow"
    );
    assert!(stage.closed.contains(&connection));
    stage.ready(second, &[]);
    assert_eq!(stage.installed(second).members.len(), 1);
}

#[test]
fn process_that_begins_anew_ends_its_old_session() {
    let mut stage = Stage::new();
    let old = stage.join(stage.hello(0, 5));
    stage.ready(old, &[]);
    let mut hello = stage.hello(0, 5);
    if let PeerToMaster::Hello { attach, .. } = &mut hello {
        *attach = 2;
    }
    let new = stage.join(hello);
    assert_ne!(new.peer, old.peer);
    assert!(stage.closed.contains(&old.connection));
    assert_eq!(stage.state(0), "Founding");
}

#[test]
fn first_message_must_say_who_speaks() {
    let mut stage = Stage::new();
    let connection = stage.connection();
    stage.say_at(connection, PeerToMaster::Ping);
    assert!(stage.closed.contains(&connection));
    assert_eq!(stage.told_at(connection), []);
}

#[test]
fn unspecified_address_stands_for_the_one_that_the_master_sees() {
    let mut stage = Stage::new();
    let mut hello = stage.hello(0, 5);
    if let PeerToMaster::Hello { addresses, .. } = &mut hello {
        *addresses = vec!["0.0.0.0:700".parse().unwrap(), "[::]:701".parse().unwrap()];
    }
    let puppet = stage.join(hello);
    stage.ready(puppet, &[]);
    let member = stage.installed(puppet).members.remove(0);
    let seen = address(0).ip();
    assert_eq!(member.addresses, [(seen, 700).into(), (seen, 701).into()]);
}

#[test]
fn newcomers_and_members_are_told_of_each_other() {
    let mut stage = Stage::new();
    let (peers, vid) = stage.founded(0, 2);
    let newcomer = stage.join_group(0);
    let told = stage.told(newcomer);
    let [
        MasterToPeer::Expect {
            vid: of,
            members,
            newcomers,
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(*of, vid);
    assert_eq!(members.len(), 2);
    assert_eq!(newcomers[0].peer, newcomer.peer);
    assert_eq!(stage.told(peers[0]), told, "members let the newcomer in");
    stage.say(newcomer, PeerToMaster::Leave);
    assert_eq!(stage.told(peers[0]), [], "not twice in one interval");
    stage.announced();
    let told = stage.told(peers[0]);
    assert!(
        matches!(&told[..], [MasterToPeer::Expect { newcomers, .. }] if newcomers.is_empty()),
        "the list is replaced: {told:?}"
    );
}

#[test]
fn newcomer_may_not_speak_as_a_member() {
    let mut stage = Stage::new();
    let newcomer = stage.join_group(0);
    stage.say(newcomer, posted(op(0, Vid::default())));
    assert!(stage.closed.contains(&newcomer.connection));
    assert!(
        stage.master.groups.is_empty(),
        "nothing is kept of a group that never was"
    );
}

#[test]
fn ping_is_answered_with_the_term() {
    let mut stage = Stage::new();
    let (peers, _) = stage.founded(0, 1);
    stage.say(peers[0], PeerToMaster::Ping);
    assert_eq!(stage.told(peers[0]), [pong(1, (0, 0, 0))]);
}

#[test]
fn signs_of_life_tell_of_the_other_groups() {
    let mut stage = Stage::new();
    let (first, _) = stage.founded(0, 1);
    let (second, vid) = stage.founded(1, 3);
    stage.say(first[0], PeerToMaster::Ping);
    assert_eq!(stage.told(first[0]), [pong(1, (3, 1, 3))]);
    stage.say(second[0], PeerToMaster::Ping);
    assert_eq!(stage.told(second[0]), [pong(1, (1, 1, 1))]);
    stage.say(second[2], PeerToMaster::Leave);
    let survivors = &second[..2];
    for &peer in survivors {
        let report = Report {
            vid,
            released: true,
            ..Report::default()
        };
        stage.say(peer, PeerToMaster::Flush { vid, report });
    }
    stage.say(first[0], PeerToMaster::Ping);
    assert_eq!(stage.told(first[0]), [pong(1, (2, 1, 2))]);
    let newcomer = stage.join_group(2);
    stage.say(newcomer, PeerToMaster::Ping);
    let said = stage.told(newcomer);
    assert_eq!(said.last(), Some(&pong(1, (3, 2, 2))), "it is not counted");
}

#[test]
fn empty_master_waits_for_an_earlier_run_before_it_founds_one() {
    let mut setup = setup();
    setup.new_run = false;
    let mut stage = Stage::with(setup, &[]);
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 1));
    stage.say_at(connection, PeerToMaster::Ping);
    let told = stage.told_at(connection);
    let [MasterToPeer::Pong { waits, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(*waits, Some(Wait::EarlierRun { seconds: 5 }));
    assert_eq!(stage.journal, []);
    let window = Timers::default().rebuild_window;
    stage.pass(window - Duration::from_millis(1), &[]);
    assert_eq!(stage.told_at(connection), []);
    stage.pass(Duration::from_millis(1), &[]);
    assert!(matches!(
        stage.told_at(connection)[0],
        MasterToPeer::Welcome { .. }
    ));
    assert!(matches!(stage.journal[0], Record::RunFounded { .. }));
}

#[test]
fn newcomer_that_hangs_up_before_the_run_is_founded_is_forgotten() {
    let mut setup = setup();
    setup.new_run = false;
    let mut stage = Stage::with(setup, &[]);
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(0, 1));
    stage.input(Input::Closed { connection });
    stage.pass(Timers::default().rebuild_window, &[]);
    assert_eq!(stage.told_at(connection), []);
    assert!(stage.master.groups.is_empty());
}

/// Every possible group may have members whose sessions a doubted journal does not name.
#[test]
fn newcomer_to_one_group_more_than_a_master_serves_is_refused() {
    let mut stage = Stage::new();
    let groups = limits::GROUPS_MAX as u64;
    for group in 0..groups {
        let peer = stage.join_group(group);
        stage.ready(peer, &[]);
    }
    let mut stage = stage.restart(Setup {
        journaled: false,
        ..setup()
    });
    let connection = stage.connection();
    stage.say_at(connection, stage.hello(groups, 7));
    let told = stage.told_at(connection);
    let [MasterToPeer::Refused { reason }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(reason.contains(&format!("already serves {groups} groups")));
    stage.join_group(groups - 1);
    assert_eq!(stage.master.groups.len(), limits::GROUPS_MAX);
}

/// Groups without members give way, those that sealed a content last.
#[test]
fn a_master_serves_any_number_of_groups_one_after_the_other() {
    let mut stage = Stage::new();
    let groups = limits::GROUPS_MAX as u64;
    for group in 0..groups + 10 {
        let peer = stage.join_group(group);
        stage.ready(peer, &[]);
        if group == 0 {
            let first = stage.master.groups.get_mut(&GroupId(0)).unwrap();
            first.ledger.sealed_state = Some(Default::default());
        }
        assert_eq!(stage.view(group).1, [peer.peer]);
        stage.say(peer, PeerToMaster::Leave);
    }
    assert_eq!(stage.master.groups.len(), limits::GROUPS_MAX);
    let gone: Vec<_> = (0..groups)
        .filter(|group| !stage.master.groups.contains_key(&GroupId(*group)))
        .collect();
    assert_eq!(gone, (1..=10).collect::<Vec<_>>());
    // A group that comes back continues above the views that it may have had.
    let before = stage.view(0).0;
    let peer = stage.join_group(1);
    stage.ready(peer, &[]);
    assert!(stage.view(1).0 > before);
    let restarted = stage.restart(setup());
    assert_eq!(restarted.master.groups.len(), limits::GROUPS_MAX);
    assert!(!restarted.master.groups.contains_key(&GroupId(11)));
}
