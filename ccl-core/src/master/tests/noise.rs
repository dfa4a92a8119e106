//! Whatever peers send, in any order, the master goes on without contradicting itself.
//!
//! Peers sometimes keep to the protocol, and otherwise send anything. The checks are the invariants
//! inside the master: none may fail. Every group must be usable afterwards, and the master must
//! never ask to be called again at once forever.

use super::*;
use crate::ids::Step;
use crate::limits;
use crate::wire::control::{
    CancelReason, ChainPlace, Entry, KeptRecords, LinkFault, RecordRule, StateId, StreamReport,
};

/// SplitMix64, to draw from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.roll(from.len().max(1) as u64) as usize;
        from.get(index).copied()
    }
}

struct Crowd {
    stage: Stage,
    dice: Dice,
    puppets: Vec<Puppet>,
}

impl Crowd {
    /// A peer whose session is not over.
    fn someone(&mut self) -> Option<Puppet> {
        let sessions = &self.stage.master.shared.sessions;
        let alive = self.puppets.iter().copied();
        let alive: Vec<_> = alive
            .filter(|puppet| sessions.get(puppet.peer).is_some())
            .collect();
        self.dice.pick(&alive)
    }

    fn group(&self, puppet: Puppet) -> &Group {
        let sessions = &self.stage.master.shared.sessions;
        &self.stage.master.groups[&sessions.get(puppet.peer).unwrap().registration.group]
    }

    /// Once in a while, nonsense.
    fn is_wild(&mut self) -> bool {
        self.dice.roll(60) == 0
    }

    fn vid(&mut self, puppet: Puppet) -> Vid {
        match self.is_wild() {
            true => vid(self.dice.roll(4) as u32, self.dice.roll(9) as u32),
            false => self.group(puppet).view.vid,
        }
    }

    fn op(&mut self, puppet: Puppet) -> OpName {
        let tags = [Tag(0), Tag(1), Tag(2), Tag::SHARED_STATE];
        let tag = tags[self.dice.roll(4) as usize];
        let birth = self.vid(puppet);
        let ledger = &self.group(puppet).ledger;
        let open = ledger
            .open()
            .find(|open| open.op().tag == tag)
            .map(|open| open.op());
        let new = OpName {
            tag,
            n: ledger.floor(tag),
            birth,
        };
        match self.is_wild() {
            true => OpName {
                n: OpNumber(self.dice.roll(4)),
                ..new
            },
            false => open.unwrap_or(new),
        }
    }

    /// The elected content of a sync, if it is open.
    fn elected(&self, puppet: Puppet, op: OpName) -> Option<StateId> {
        let sync = self.group(puppet).ledger.sync();
        let elected = sync.filter(|sync| sync.op() == op)?.elected.clone()?;
        elected.ok()
    }

    fn note(&mut self, puppet: Puppet) -> OpNote {
        let op = self.op(puppet);
        if op.tag == Tag::SHARED_STATE && !self.is_wild() {
            let content = shared_state::content(self.dice.roll(3), 1);
            let mut offer = shared_state::offer(content);
            offer.restore = self.dice.roll(2) == 0;
            offer.is_usable = self.dice.roll(5) > 0;
            return shared_state::synced(op, offer);
        }
        let count = if self.is_wild() { 11 } else { 10 };
        OpNote {
            op,
            fingerprint: fingerprint(count),
        }
    }

    fn report(&mut self, puppet: Puppet) -> Report {
        let vid = self.vid(puppet);
        let mut report = report(vid);
        if self.dice.roll(2) == 0 {
            let note = self.note(puppet);
            let elected = self.elected(puppet, note.op);
            let holds = note.op.tag != Tag::SHARED_STATE || elected.is_some() || self.is_wild();
            report = report_open(vid, note.op, self.dice.roll(2) == 0 && holds);
            if let Some(open) = &mut report.tags[0].open {
                open.fingerprint = note.fingerprint;
                open.elected = elected;
            }
        }
        report.safe_called = self.k(puppet);
        if self.dice.roll(2) == 0 {
            let entry = self.entry(puppet);
            report.streams.push(StreamReport {
                stream: records::S,
                place: self.place(puppet),
                released: entry.step,
                consumed: entry.step,
                entries: vec![entry],
                kept: KeptRecords::default(),
            });
        }
        report
    }

    /// How far the stream has come.
    fn place(&self, puppet: Puppet) -> ChainPlace {
        let streams = &self.group(puppet).records.streams;
        let stream = streams.get(&records::S);
        stream
            .map(|stream| stream.chain.place())
            .unwrap_or_default()
    }

    fn entry(&mut self, puppet: Puppet) -> Entry {
        let mut place = self.place(puppet);
        if self.is_wild() {
            place.next = Step(self.dice.roll(4));
        }
        let rule = RecordRule {
            quorum: self.dice.roll(3) as u32,
            age_max: self.dice.roll(3) as u32,
            ..RecordRule::default()
        };
        records::entry(place, self.dice.roll(5) as u8, rule)
    }

    fn k(&mut self, puppet: Puppet) -> u64 {
        match self.is_wild() {
            true => self.dice.roll(3),
            false => self.group(puppet).safe.released,
        }
    }

    fn link_down(&mut self, puppet: Puppet) -> PeerToMaster {
        PeerToMaster::LinkDown {
            vid: self.vid(puppet),
            peer: PeerId(self.dice.roll(30)),
            fault: LinkFault::Ended,
            gave_up: self.dice.roll(4) == 0,
        }
    }

    fn message(&mut self, puppet: Puppet) -> PeerToMaster {
        let newcomer = self.group(puppet).newcomers.contains_key(&puppet.peer);
        if newcomer && !self.is_wild() {
            return PeerToMaster::Ready {
                vid: self.vid(puppet),
                linked: self.puppets.iter().map(|puppet| puppet.peer).collect(),
            };
        }
        match self.dice.roll(20) {
            0 | 1 => PeerToMaster::Posted(vec![self.note(puppet)]),
            2 | 3 => {
                let note = self.note(puppet);
                let is_sync = note.op.tag == Tag::SHARED_STATE;
                match is_sync && self.elected(puppet, note.op).is_none() && !self.is_wild() {
                    true => PeerToMaster::Posted(vec![note]),
                    false => PeerToMaster::Done(vec![note]),
                }
            }
            4 => PeerToMaster::Cancel {
                op: self.op(puppet),
                reason: CancelReason::User,
            },
            5..=7 => PeerToMaster::Flush {
                vid: self.vid(puppet),
                report: self.report(puppet),
            },
            8..=10 => PeerToMaster::Installed {
                vid: self.vid(puppet),
                report: self.report(puppet),
            },
            11 | 12 => PeerToMaster::AtSafePoint {
                k: self.k(puppet),
                ahead: 0,
            },
            13 => PeerToMaster::Withdraw { k: self.k(puppet) },
            14 => self.link_down(puppet),
            15..=17 => PeerToMaster::Entered(self.entry(puppet)),
            18 => PeerToMaster::RecordsHeld {
                stream: records::S,
                next: self.place(puppet).next,
            },
            _ => PeerToMaster::LinkUp {
                peer: PeerId(self.dice.roll(30)),
            },
        }
    }

    fn step(&mut self) {
        match self.dice.roll(40) {
            0..=2 => {
                let connection = self.stage.connection();
                let key = u128::from(self.dice.roll(12));
                let mut hello = self.stage.hello(self.dice.roll(2), key);
                if let PeerToMaster::Hello {
                    unit,
                    unit_size,
                    attach,
                    ..
                } = &mut hello
                {
                    // Some arrive late, or twice.
                    *attach = connection.0.saturating_sub(self.dice.roll(20));
                    if self.dice.roll(3) == 0 {
                        *unit = Some(UnitId(self.dice.roll(4)));
                        *unit_size = Some(1 + self.dice.roll(3) as u32);
                    }
                }
                self.stage.say_at(connection, hello);
                self.meet(connection);
            }
            3 => self.attach(),
            4 => {
                if let Some(puppet) = self.someone() {
                    self.stage.close(puppet);
                }
            }
            5 => {
                if let Some(puppet) = self.someone().filter(|_| self.dice.roll(3) == 0) {
                    self.stage.say(puppet, PeerToMaster::Leave);
                }
            }
            6 => {
                let step = Duration::from_millis(self.dice.roll(1500));
                self.stage.pass(step, &self.puppets.clone());
            }
            _ => {
                if let Some(puppet) = self.someone() {
                    let message = self.message(puppet);
                    self.stage.say(puppet, message);
                }
            }
        }
    }

    fn meet(&mut self, connection: ConnectionId) {
        for message in self.stage.told_at(connection) {
            if let MasterToPeer::Welcome {
                run_id,
                session,
                peer,
                ..
            } = message
            {
                self.puppets.push(Puppet {
                    connection,
                    peer,
                    session,
                    run_id,
                    attach: connection.0,
                });
            }
        }
    }

    fn attach(&mut self) {
        let Some(puppet) = self.someone() else {
            return;
        };
        let report = self.report(puppet);
        let index = self
            .puppets
            .iter()
            .position(|known| *known == puppet)
            .unwrap();
        self.come_back(index, report);
    }

    /// The master dies, with its journal or without, and some peers find the next one at once.
    fn restart(&mut self) {
        let journaled = self.dice.roll(3) > 0;
        let setup = Setup {
            journaled,
            new_run: false,
            ..setup()
        };
        let records = std::mem::take(&mut self.stage.journal);
        let history: &[Record] = if journaled { &records } else { &[] };
        let next_connection = self.stage.next_connection;
        self.stage = Stage::with(setup, history);
        self.stage.next_connection = next_connection;
        self.stage.journal = records;
        for index in 0..self.puppets.len() {
            let claim = self.stage.claim(self.puppets[index]);
            let group = self
                .stage
                .journal
                .iter()
                .rev()
                .find_map(|record| match record {
                    Record::ViewSealed(view) if view.group == claim.group => Some(view.vid),
                    _ => None,
                });
            let report = report(group.unwrap_or_default());
            self.come_back(index, report);
        }
    }

    /// A peer is back: it attaches at once, or when it is asked to.
    fn come_back(&mut self, index: usize, report: Report) {
        let puppet = &mut self.puppets[index];
        if self.dice.roll(2) == 0 {
            return self.stage.attach(puppet, report);
        }
        self.stage.come_back(puppet, report.vid);
        let puppet = *puppet;
        if self.dice.roll(4) > 0 {
            self.stage.say_attach(puppet, report);
        }
    }
}

#[test]
fn whatever_is_said_the_master_keeps_its_invariants() {
    let mut cells = BTreeSet::new();
    let mut syncs = 0;
    for seed in 0..60 {
        let mut crowd = Crowd {
            stage: Stage::new(),
            dice: Dice(seed),
            puppets: Vec::new(),
        };
        for step in 0..600 {
            crowd.step();
            let sealed = crowd.stage.events.iter();
            syncs += sealed
                .filter(|it| matches!(it, Event::StateSealed { .. }))
                .count();
            crowd.stage.events.clear();
            if step % 200 == 199 {
                cells.extend(crowd.stage.master.visited());
                crowd.restart();
            }
        }
        cells.extend(crowd.stage.master.visited());
        still_works(crowd);
    }
    let legal = Master::legal_cells();
    let missed: Vec<_> = legal.difference(&cells).collect();
    assert!(missed.len() * 20 <= legal.len(), "not reached: {missed:?}");
    assert!(syncs > 30, "{syncs} syncs committed");
}

/// A newcomer alone founds a group of its own and gets an operation through.
fn still_works(mut crowd: Crowd) {
    // No peer is heard for so long that none can be alive.
    let timers = Timers::default();
    crowd
        .stage
        .pass(timers.detach_timeout + timers.rebuild_window * 2, &[]);
    let connection = crowd.stage.connection();
    let hello = crowd.stage.hello(77, 1 << 50);
    crowd.stage.say_at(connection, hello);
    crowd.puppets.clear();
    crowd.meet(connection);
    let Some(&puppet) = crowd.puppets.first() else {
        return;
    };
    crowd.stage.ready(puppet, &[]);
    crowd.stage.told(puppet);
    let (vid, _) = crowd.stage.view(77);
    crowd.stage.say(puppet, done(op(0, vid)));
    let told = crowd.stage.told(puppet);
    assert!(
        told.iter()
            .any(|message| matches!(message, MasterToPeer::Commit(_))),
        "{told:?}"
    );
    assert!(crowd.stage.master.groups.len() <= limits::GROUPS_MAX);
}
