//! Anything in any order: no panic, and every call ends exactly once.
//!
//! Half of the master's messages are random and mostly nonsense; the other half fits the peer's
//! last message, so that runs get past the first contradiction.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::peer::{PeerToPeer, SafePointProgress};
use crate::wire::control::{LinkFault, RecordRule};

struct Chaos {
    fixture: Fixture,
    report: Report,
    next_call: u64,
    open: BTreeSet<CallId>,
    started: BTreeMap<OpName, CallId>,
    running: BTreeSet<OpName>,
    held: BTreeSet<OpName>,
    elected: BTreeSet<OpName>,
    ended: bool,
    /// Ways in which calls ended.
    ends: BTreeSet<String>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nothing_panics_and_every_call_ends_once(
        steps in prop::collection::vec((0u8..29, any::<u16>()), 0..150),
        is_member in any::<bool>(),
    ) {
        let mut chaos = Chaos::new(is_member);
        for (step, dice) in steps {
            chaos.step(step, dice);
            chaos.observe();
        }
        chaos.fixture.tell(Input::ControlUp);
        chaos.observe();
        // Long enough for every timeout in a row.
        let call = chaos.call();
        chaos.fixture.tell(Input::Leave { call });
        chaos.observe();
        chaos.fixture.pass(Duration::from_secs(120));
        chaos.observe();
        prop_assert!(chaos.ended);
        prop_assert!(chaos.open.is_empty(), "{:?} never ended", chaos.open);
        prop_assert!(chaos.running.is_empty(), "{:?} never stopped", chaos.running);
        prop_assert!(chaos.fixture.peer.poll_timeout().is_none());
    }
}

/// The runs above must make progress: chaos that ends at its first step proves nothing.
#[test]
fn chaos_reaches_most_of_the_table() {
    let mut seen = BTreeSet::new();
    let mut ends = BTreeSet::new();
    for seed in 0..300 {
        let mut chaos = Chaos::new(seed % 3 != 0);
        let mut word: u64 = seed;
        for _ in 0..150 {
            word = word
                .wrapping_mul(0x5851_F42D_4C95_7F2D)
                .wrapping_add(0x1405_7B7E_F767_814F);
            chaos.step((word >> 33) as u8 % 29, (word >> 40) as u16);
            chaos.observe();
        }
        seen.extend(chaos.fixture.peer.visited().iter().copied());
        ends.append(&mut chaos.ends);
    }
    let legal = Peer::legal_cells();
    let missed: Vec<_> = legal.difference(&seen).collect();
    assert!(missed.len() * 10 <= legal.len(), "{missed:?}");
    let expected = [
        "Aborted",
        "Committed",
        "Left",
        "SafePoint",
        "Unknown",
        "Withdrawn",
    ];
    assert!(expected.iter().all(|end| ends.contains(*end)), "{ends:?}");
}

impl Chaos {
    fn new(is_member: bool) -> Self {
        let mut chaos = Self {
            fixture: if is_member {
                Fixture::steady()
            } else {
                Fixture::new()
            },
            report: Report::default(),
            next_call: 0,
            open: BTreeSet::new(),
            started: BTreeMap::new(),
            running: BTreeSet::new(),
            held: BTreeSet::new(),
            elected: BTreeSet::new(),
            ended: false,
            ends: BTreeSet::new(),
        };
        chaos.observe();
        chaos
    }

    fn call(&mut self) -> CallId {
        self.next_call += 1;
        self.open.insert(CallId(self.next_call));
        CallId(self.next_call)
    }

    fn step(&mut self, step: u8, dice: u16) {
        let low = u64::from(dice % 4);
        let high = u64::from(dice / 4 % 4);
        let input = match step {
            0 if low == 0 => Input::Post {
                call: self.call(),
                tag: Tag::SHARED_STATE,
                fingerprint: shared_state::sync(shared_state::content(high, 1)),
                deadline: None,
            },
            0..=3 => Input::Post {
                call: self.call(),
                tag: Tag(low),
                fingerprint: fingerprint(high),
                deadline: (dice & 0x100 != 0).then(|| self.fixture.now + Duration::from_secs(1)),
            },
            4..=6 => match self
                .started
                .keys()
                .nth(usize::from(dice) % (self.started.len() + 1))
            {
                // No peer holds a sync before its election.
                Some(op) if op.tag == Tag::SHARED_STATE && !self.elected.contains(op) => {
                    Input::Control(self.election(dice))
                }
                Some(op) => {
                    self.held.insert(*op);
                    Input::Held(*op)
                }
                None => Input::LinkUp(PeerId(low)),
            },
            7 => self.cancel(dice),
            8 => Input::SafePoint {
                call: self.call(),
                deadline: None,
            },
            9 if dice.is_multiple_of(16) => Input::Leave { call: self.call() },
            9 | 10 => Input::ControlUp,
            11 => Input::ControlDown,
            12 if dice & 0x200 != 0 => {
                let (peer, why) = (PeerId(low), format!("refused {dice}"));
                Input::NoLink { peer, why }
            }
            12 => {
                let fault = LinkFault::Ended;
                Input::LinkDown {
                    peer: PeerId(low),
                    fault,
                    gave_up: dice & 0x100 != 0,
                }
            }
            13 => {
                self.fixture
                    .pass(Duration::from_millis(u64::from(dice) / 16));
                Input::Timeout
            }
            14..=16 => Input::Control(self.nonsense(dice)),
            17 => Input::Control(MasterToPeer::Suspend { vid: self.vid() }),
            18..=20 => Input::Control(MasterToPeer::Install(self.fitting(dice))),
            21 => Input::Control(MasterToPeer::Release { vid: self.vid() }),
            22 => Input::Control(MasterToPeer::Commit(self.commits())),
            23 => self.message(dice),
            24 | 25 => self.entry(dice),
            26 | 27 => Input::Control(records::next(&self.fixture.peer, dice)),
            _ => Input::Control(welcome()),
        };
        self.fixture.tell(input);
    }

    fn cancel(&self, dice: u16) -> Input {
        Input::Cancel {
            call: CallId(u64::from(dice) % (self.next_call + 1)),
            reason: CancelReason::User,
        }
    }

    fn entry(&mut self, dice: u16) -> Input {
        Input::Enter {
            call: self.call(),
            stream: records::S,
            payload: vec![dice as u8; usize::from(dice % 3)],
            rule: RecordRule {
                age_max: u32::from(dice / 4 % 3),
                ..RecordRule::default()
            },
        }
    }

    /// What another member tells, which may be nonsense.
    fn message(&self, dice: u16) -> Input {
        let (low, high) = (u64::from(dice % 4), u64::from(dice / 4 % 4));
        let mut started = self.started.keys().copied();
        let op = started.nth(usize::from(dice) % (self.started.len() + 1));
        let message = match dice & 0x100 {
            0 => PeerToPeer::Held(op.unwrap_or(super::op(low, high, 1))),
            _ => PeerToPeer::SafePoint(SafePointProgress {
                vid: self.vid(),
                called: high,
                released: self.report.safe_released,
            }),
        };
        let peer = PeerId(low);
        Input::Said { peer, message }
    }

    fn vid(&self) -> Vid {
        self.fixture
            .peer
            .view()
            .map(|view| view.vid)
            .unwrap_or_default()
    }

    /// Commits everything that may be.
    fn commits(&self) -> Vec<CommitRecord> {
        let held = self.running.intersection(&self.held);
        let commit = |op: &OpName| CommitRecord {
            op: *op,
            contributors: Vec::new(),
            sealed: Sealed::Nothing,
        };
        held.map(commit).collect()
    }

    /// A view that agrees with the newest report.
    fn fitting(&self, dice: u16) -> Install {
        let mut vid = self.vid();
        if dice & 1 != 0 || vid == Vid::default() {
            vid.epoch.0 += 1;
        }
        let mut change = match self.fixture.peer.view() {
            Some(view) if view.vid == vid => Install {
                members: view.members.clone(),
                ring_order: view.ring_order.clone(),
                ..install(1, &[2])
            },
            _ => install(1, &[1, 2, 3]),
        };
        change.vid = vid;
        change.released = dice & 2 != 0;
        change.suspended = dice & 4 != 0;
        change.safe_released = self.report.safe_called.max(self.report.safe_released);
        change.streams = records::places(&self.fixture.peer);
        for tag in &self.report.tags {
            let mut known = floor(tag.tag.0, tag.floor.0, tag.last_committed.map(|n| n.0));
            if let Some(open) = &tag.open {
                let op = OpName {
                    tag: tag.tag,
                    n: open.n,
                    birth: open.birth,
                };
                if dice & 8 != 0 && open.birth < vid {
                    change.carried.push(carried(op, &[1, 2, 3]));
                } else if open.birth < vid || dice & 16 != 0 {
                    known.floor = open.n.next();
                    known.last_committed = open.held.then_some(open.n).or(tag.last_committed);
                }
            }
            change.floors.push(known);
        }
        change
    }

    fn nonsense(&self, dice: u16) -> MasterToPeer {
        let low = u64::from(dice / 16 % 4);
        let vid = vid(u32::from(dice / 64 % 4));
        match dice % 11 {
            0 => MasterToPeer::Expect {
                vid,
                members: vec![member(low)],
                newcomers: vec![member(low + 1), member(2)],
            },
            1 => MasterToPeer::Suspend { vid },
            2 => MasterToPeer::Release { vid },
            3 => MasterToPeer::SafeReleased { k: low, vid },
            4 if low == 0 => MasterToPeer::Refused {
                reason: String::new(),
            },
            4 if low == 1 => MasterToPeer::Evicted {
                reason: EvictReason::NotAMember,
            },
            5 => MasterToPeer::Commit(vec![CommitRecord {
                op: op(low, u64::from(dice / 256 % 3), vid.epoch.0),
                contributors: Vec::new(),
                sealed: Sealed::Nothing,
            }]),
            6 => {
                let mut change = install(vid.epoch.0, &[low, low + 1]);
                change.floors = vec![floor(low, u64::from(dice / 256), None)];
                change.carried = vec![carried(op(low, 1, 0), &[1])];
                MasterToPeer::Install(change)
            }
            7 if low == 0 => MasterToPeer::SafeReleased { k: u64::MAX, vid },
            7 => MasterToPeer::Summon,
            8 => self.election(dice),
            _ => pong(0),
        }
    }

    /// An election for the sync that runs, if one does; mostly one that can be true.
    fn election(&self, dice: u16) -> MasterToPeer {
        let mut syncs = self.running.iter().filter(|op| op.tag == Tag::SHARED_STATE);
        let op = syncs.next_back().copied();
        let source = PeerId(if dice & 0x700 == 0 { 2 } else { 1 });
        MasterToPeer::Elected {
            op: op.unwrap_or_default(),
            content: shared_state::content(9, (dice >> 13) as u8),
            sources: vec![source],
        }
    }

    /// Checks the order of the peer's outputs.
    fn observe(&mut self) {
        for output in self.fixture.drain() {
            if self.ended {
                let is_answer = matches!(
                    output,
                    Output::Rejected { .. } | Output::Finish { end: End::Left, .. }
                );
                assert!(is_answer, "{output:?} after the end");
            }
            match output {
                Output::StartOp { call, start } => {
                    let op = start.birth.op;
                    assert!(self.open.contains(&call));
                    assert!(
                        self.started.insert(op, call).is_none(),
                        "{op} started twice"
                    );
                    assert!(self.running.insert(op));
                }
                Output::StopOp(op) => assert!(self.running.remove(&op), "{op} stopped twice"),
                Output::Elected { op, .. } => {
                    assert!(
                        self.running.contains(&op),
                        "{op} elected, and not under way"
                    );
                    assert!(self.elected.insert(op), "{op} elected twice");
                }
                Output::Finish { call, end } => self.observe_end(call, &end),
                Output::Rejected { call, .. } => assert!(self.open.remove(&call), "{call:?}"),
                Output::Send(
                    PeerToMaster::Flush { report, .. }
                    | PeerToMaster::Attach { report, .. }
                    | PeerToMaster::Installed { report, .. },
                ) => self.report = report,
                Output::Ended(_) => self.ended = true,
                _ => {}
            }
        }
    }

    fn observe_end(&mut self, call: CallId, end: &End) {
        assert!(self.open.remove(&call), "{call:?} ended twice");
        let text = format!("{end:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default();
        self.ends.insert(name.to_owned());
        match end {
            End::Committed { op, .. } => {
                assert!(self.held.contains(op), "success of {op} without its result");
                assert_eq!(self.started.get(op), Some(&call));
            }
            End::Aborted { op, .. } => assert!(!self.running.contains(op)),
            End::Unknown { .. } => {
                let is_running = |op: &&OpName| self.started.get(*op) == Some(&call);
                assert!(!self.running.iter().any(|op| is_running(&op)));
            }
            End::SafePoint { .. } | End::Recorded { .. } | End::Withdrawn | End::Left => {}
        }
    }
}
