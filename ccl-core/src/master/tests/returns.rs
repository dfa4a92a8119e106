//! Tags that are given back (R2): when, which, and with late members and restarts.

use super::*;
use crate::wire::control::{CancelReason, GivenBack};

/// A run in which the third tag is one too many.
fn tight() -> Setup {
    Setup {
        tags_kept: 3,
        ..setup()
    }
}

fn tagged(tag: u64, n: u64, birth: Vid) -> OpName {
    OpName {
        tag: Tag(tag),
        ..op(n, birth)
    }
}

/// A tag of which a member has seen all operations below `next` end, the newest successfully.
fn at_rest(tag: u64, next: u64) -> TagReport {
    TagReport {
        tag: Tag(tag),
        floor: OpNumber(next),
        last_committed: next.checked_sub(1).map(OpNumber),
        sealed: Sealed::Nothing,
        aborted: None,
        open: None,
        next: Some(OpNumber(next)),
    }
}

fn knowing(vid: Vid, tags: &[TagReport]) -> Report {
    Report {
        tags: tags.to_vec(),
        ..report(vid)
    }
}

fn begun(tag: u64, vid: Vid) -> GivenBack {
    GivenBack { tag: Tag(tag), vid }
}

impl Stage {
    /// These call an operation and finish it.
    fn commit_at(&mut self, puppets: &[Puppet], op: OpName) {
        for &puppet in puppets {
            self.say(puppet, done(op));
        }
    }
}

/// Two members that have committed operation 0 of tags 1 and 2, and hold that of tag 3, for which a
/// view change makes room.
fn crowded(setup: Setup) -> (Stage, Vec<Puppet>, Vid) {
    let mut stage = Stage::with(setup, &[]);
    let (peers, vid) = stage.founded(0, 2);
    stage.commit_at(&peers, tagged(1, 0, vid));
    stage.commit_at(&peers, tagged(2, 0, vid));
    assert_eq!(stage.state(0), "Steady");
    stage.commit_at(&peers, tagged(3, 0, vid));
    assert_eq!(stage.state(0), "Suspended");
    (stage, peers, vid)
}

/// Their reports.
fn before(vid: Vid) -> Report {
    let mut report = report_open(vid, tagged(3, 0, vid), true);
    report.tags.extend([at_rest(1, 1), at_rest(2, 1)]);
    report
}

#[test]
fn tags_at_rest_are_given_back_when_there_are_many() {
    let (mut stage, peers, vid) = crowded(tight());
    for &peer in &peers {
        stage.flush(peer, vid, before(vid));
    }
    let install = stage.installed(peers[0]);
    let floors = install.floors.iter().map(|floor| floor.tag);
    assert_eq!(floors.collect::<Vec<_>>(), [Tag(3)], "it is committed now");
    assert_eq!(
        install.given_back,
        [begun(1, install.vid), begun(2, install.vid)]
    );
    for &peer in &peers {
        stage.confirm(peer, install.vid);
    }
    assert_eq!(stage.state(0), "Steady");
    stage.commit_at(&peers, tagged(1, 0, install.vid));
    let told = stage.told(peers[0]);
    assert!(told.iter().any(|message| matches!(message,
        MasterToPeer::Commit(commits) if commits[0].op == tagged(1, 0, install.vid))));
}

#[test]
fn a_tag_is_kept_while_a_member_is_behind_or_has_a_call_of_it() {
    let (mut stage, peers, vid) = crowded(tight());
    stage.flush(peers[0], vid, before(vid));
    let mut told = at_rest(1, 1);
    told.next = None;
    let mut behind = at_rest(2, 1);
    behind.next = Some(OpNumber(0));
    let open = report_open(vid, tagged(3, 0, vid), true).tags.remove(0);
    stage.flush(peers[1], vid, knowing(vid, &[told, behind, open]));
    let install = stage.installed(peers[0]);
    assert_eq!(install.given_back, []);
    assert_eq!(install.floors.len(), 3);
    for &peer in &peers {
        stage.confirm(peer, install.vid);
    }
    assert_eq!(stage.state(0), "Steady", "it is not tried again at once");
}

/// A member misses the view in which tags were given back, and comes back as it was before it.
#[test]
fn who_missed_the_view_hears_which_tags_began_anew_until_all_have_it() {
    let (mut stage, mut peers, vid) = crowded(tight());
    for &peer in &peers {
        stage.flush(peer, vid, before(vid));
    }
    let first = stage.installed(peers[0]);
    stage.close(peers[1]);
    stage.confirm(peers[0], first.vid);
    // A third view follows before the late member has the second.
    let aborted = tagged(1, 0, first.vid);
    stage.say(peers[0], posted(aborted));
    stage.say(
        peers[0],
        PeerToMaster::Cancel {
            op: aborted,
            reason: CancelReason::User,
        },
    );
    stage.attach(&mut peers[1], before(vid));
    let reply = stage.installed(peers[1]);
    assert_eq!(reply.given_back.len(), 2, "the reply names them");
    stage.confirm(peers[1], first.vid);
    assert_eq!(stage.state(0), "Suspended", "by the cancel");
    for &peer in &peers {
        let open = report_open(first.vid, aborted, false);
        let known = if peer == peers[0] {
            open
        } else {
            report(first.vid)
        };
        stage.flush(peer, first.vid, known);
    }
    let second = stage.installed(peers[0]);
    assert_eq!(
        second.given_back,
        [],
        "all members have had the view that names them"
    );
    let floors = second.floors.iter().map(|floor| (floor.tag, floor.floor));
    let expected = [(Tag(1), OpNumber(1)), (Tag(3), OpNumber(1))];
    assert_eq!(floors.collect::<Vec<_>>(), expected);
}

#[test]
fn names_stay_until_a_view_is_released() {
    let (mut stage, mut peers, vid) = crowded(tight());
    for &peer in &peers {
        stage.flush(peer, vid, before(vid));
    }
    let first = stage.installed(peers[0]);
    let newcomer = stage.join_group(0);
    stage.say(newcomer, PeerToMaster::Leave);
    // The second member loses its connection, and the first leaves: the view ends unreleased.
    stage.close(peers[1]);
    stage.say(peers[0], PeerToMaster::Leave);
    assert_eq!(stage.state(0), "Suspended");
    stage.attach(&mut peers[1], before(vid));
    let told = stage.told(peers[1]);
    let installs = told.iter().filter_map(|message| match message {
        MasterToPeer::Install(install) => Some(install),
        _ => None,
    });
    for install in installs {
        assert_eq!(install.given_back.len(), 2, "named in view {}", install.vid);
        assert!(
            install
                .given_back
                .iter()
                .all(|given| given.vid == first.vid)
        );
    }
}

/// The master restarts when only one of two members has the view that gave tags back, and has used
/// one of them again. What the other reports about the tags does not count.
fn takes_up_after(setup: Setup, keeps_journal: bool) {
    let (mut stage, mut peers, vid) = crowded(setup.clone());
    for &peer in &peers {
        stage.flush(peer, vid, before(vid));
    }
    let install = stage.installed(peers[0]);
    let claims: Vec<_> = peers.iter().map(|peer| stage.claim(*peer)).collect();
    if !keeps_journal {
        stage.journal.clear();
    }
    let mut stage = stage.restart(Setup {
        journaled: keeps_journal,
        new_run: false,
        start_number: 5,
        ..setup
    });
    let again = tagged(1, 0, install.vid);
    let mut newer = report_open(install.vid, again, true);
    newer.given_back.clone_from(&install.given_back);
    newer.released = false;
    newer.tags.push(at_rest(3, 1));
    for (index, report) in [(1, before(vid)), (0, newer)] {
        let peer = &mut peers[index];
        peer.attach += 1;
        peer.connection = stage.connection();
        let message = PeerToMaster::Attach {
            run_id: peer.run_id,
            session: peer.session,
            attach: peer.attach,
            claim: claims[index].clone(),
            report,
        };
        stage.say(*peer, message);
    }
    for &peer in &peers {
        let taken = stage.installed(peer);
        assert_eq!(taken.given_back, install.given_back);
        assert_eq!(taken.carried.len(), 1, "{taken:?}");
        assert_eq!(taken.carried[0].op, again);
        let known: Vec<_> = taken
            .floors
            .iter()
            .map(|floor| (floor.tag, floor.floor))
            .collect();
        assert_eq!(known, [(Tag(1), OpNumber(0)), (Tag(3), OpNumber(1))]);
    }
}

#[test]
fn a_master_with_its_journal_knows_which_tags_began_anew() {
    takes_up_after(tight(), true);
}

#[test]
fn a_master_without_a_journal_hears_which_tags_began_anew() {
    takes_up_after(tight(), false);
}
