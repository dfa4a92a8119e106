//! The master driven by hand: each test sends messages of peers and checks the answers.

mod agreement;
mod attach;
mod cancel;
mod change;
mod closed;
mod entry;
mod facts;
mod faults;
mod founding;
mod generations;
mod invariants;
mod journal;
mod late;
mod noise;
mod pauses;
mod records;
mod restart;
mod returns;
mod safe_points;
mod shared_state;
mod status;
mod takeover;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::ids::{
    GroupId, LinkKey, OpName, OpNumber, PeerId, Rank, RunId, SessionId, Tag, Term, UnitId, Vid,
};
use crate::reduce::{Dtype, ReduceOp};
use crate::timers::Timers;
use crate::wire::control::{
    Called, Claim, Elements, Fingerprint, Install, OpNote, OpenReport, PROTOCOL_VERSION, Report,
    Sealed, TagReport,
};

use facts::{done, posted, report, report_open};
pub(super) use facts::{fingerprint, member, note, op, vid};

/// A master, its messages that were not checked yet, and its journal.
struct Stage {
    master: Master,
    now: Instant,
    sent: BTreeMap<ConnectionId, Vec<MasterToPeer>>,
    closed: BTreeSet<ConnectionId>,
    journal: Vec<Record>,
    events: Vec<Event>,
    next_connection: u64,
}

/// A peer as the test knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Puppet {
    connection: ConnectionId,
    peer: PeerId,
    session: SessionId,
    run_id: RunId,
    attach: u64,
}

fn setup() -> Setup {
    Setup {
        run: "run".into(),
        timers: Timers::default(),
        paths: Default::default(),
        new_run: true,
        force_rebuild: false,
        start_number: 0,
        tags_kept: crate::limits::TAGS_KEPT,
        members_gone: false,
        silence: Duration::ZERO,
        journaled: true,
        entropy: [1, 2, 3, 4],
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

impl Stage {
    fn new() -> Self {
        Self::with(setup(), &[])
    }

    fn with(setup: Setup, history: &[Record]) -> Self {
        let now = Instant(1_000_000_000);
        let mut stage = Self {
            master: Master::new(setup, history, now),
            now,
            sent: BTreeMap::new(),
            closed: BTreeSet::new(),
            journal: history.to_vec(),
            events: Vec::new(),
            next_connection: 0,
        };
        stage.drain();
        stage
    }

    /// The master dies and starts again with what is in the journal.
    fn restart(self, setup: Setup) -> Self {
        let mut stage = Self::with(setup, &self.journal);
        stage.next_connection = self.next_connection;
        stage
    }

    fn drain(&mut self) {
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Journal { record, .. } => self.journal.push(record),
                Output::Send {
                    connection,
                    message,
                } => self.sent.entry(connection).or_default().push(message),
                Output::Close { connection } => {
                    self.closed.insert(connection);
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    fn input(&mut self, input: Input) {
        self.master.handle(self.now, input);
        self.drain();
    }

    fn say_at(&mut self, connection: ConnectionId, message: PeerToMaster) {
        self.input(Input::Message {
            connection,
            from: address(9),
            message,
        });
    }

    fn say(&mut self, puppet: Puppet, message: PeerToMaster) {
        self.say_at(puppet.connection, message);
    }

    fn close(&mut self, puppet: Puppet) {
        self.input(Input::Closed {
            connection: puppet.connection,
        });
    }

    /// The messages to a peer since the last check.
    fn told(&mut self, puppet: Puppet) -> Vec<MasterToPeer> {
        self.told_at(puppet.connection)
    }

    fn told_at(&mut self, connection: ConnectionId) -> Vec<MasterToPeer> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    /// The `Install` among the messages to a peer since the last check.
    fn installed(&mut self, puppet: Puppet) -> Install {
        let told = self.told(puppet);
        let mut installs = told.iter().filter_map(|message| match message {
            MasterToPeer::Install(install) => Some(install.clone()),
            _ => None,
        });
        installs
            .next_back()
            .unwrap_or_else(|| panic!("no Install among {told:?}"))
    }

    /// Lets time pass; the named peers send heartbeats, and the master is called when it asks for
    /// it.
    fn pass(&mut self, duration: Duration, alive: &[Puppet]) {
        let end = self.now + duration;
        while self.now < end {
            let beat = self.now + Duration::from_millis(100);
            let due = self.master.poll_timeout().unwrap_or(beat);
            self.now = due.clamp(self.now, beat).min(end);
            if due <= self.now {
                self.expire();
            }
            for puppet in alive {
                self.say(*puppet, PeerToMaster::Ping);
            }
            self.sent.values_mut().for_each(|sent| {
                sent.retain(|message| !matches!(message, MasterToPeer::Pong { .. }));
            });
            if due > self.now && self.now < end {
                self.now = beat.min(end);
            }
        }
    }

    /// Calls the master at the time that it asked for. The next time may be due at once, for
    /// example for a member of a view that was just rebuilt, but not the one after that.
    fn expire(&mut self) {
        let is_due = |stage: &Self| {
            let next = stage.master.poll_timeout();
            next.is_some_and(|next| next <= stage.now)
        };
        self.input(Input::Timeout);
        if is_due(self) {
            self.input(Input::Timeout);
        }
        assert!(!is_due(self), "the master does not spin");
    }

    fn hello(&self, group: u64, key: u128) -> PeerToMaster {
        PeerToMaster::Hello {
            protocol: PROTOCOL_VERSION,
            library: "test".into(),
            run: "run".into(),
            group: GroupId(group),
            unit: None,
            unit_size: None,
            place: None,
            addresses: vec![address(key as u16)],
            key: LinkKey(key),
            min_world: 1,
            attach: 1,
            name: format!("node{key}"),
        }
    }

    /// A newcomer with this link key, after its `Welcome`.
    fn join(&mut self, hello: PeerToMaster) -> Puppet {
        let connection = self.connection();
        self.say_at(connection, hello);
        let told = self.told_at(connection);
        let Some(MasterToPeer::Welcome {
            run_id,
            session,
            peer,
            ..
        }) = told.first()
        else {
            panic!("no Welcome but {told:?}");
        };
        self.sent.insert(connection, told[1..].to_vec());
        Puppet {
            connection,
            peer: *peer,
            session: *session,
            run_id: *run_id,
            attach: 1,
        }
    }

    fn join_group(&mut self, group: u64) -> Puppet {
        let key = u128::from(self.next_connection) + 100;
        self.join(self.hello(group, key))
    }

    fn ready(&mut self, puppet: Puppet, linked: &[Puppet]) {
        let others = linked
            .iter()
            .map(|other| other.peer)
            .filter(|peer| *peer != puppet.peer);
        let message = PeerToMaster::Ready {
            vid: Vid::default(),
            linked: others.collect(),
        };
        self.say(puppet, message);
    }

    /// A group of `count` members whose first view is released, and its name.
    fn founded(&mut self, group: u64, count: usize) -> (Vec<Puppet>, Vid) {
        let mut puppets = Vec::new();
        for _ in 0..count {
            let key = u128::from(self.next_connection) + 100;
            let mut hello = self.hello(group, key);
            if let PeerToMaster::Hello { min_world, .. } = &mut hello {
                *min_world = count as u32;
            }
            puppets.push(self.join(hello));
        }
        for puppet in puppets.clone() {
            self.ready(puppet, &puppets.clone());
        }
        let install = self.installed(puppets[0]);
        let vid = install.vid;
        for puppet in puppets.clone() {
            let report = report(vid);
            self.say(puppet, PeerToMaster::Installed { vid, report });
        }
        self.announced();
        for puppet in puppets.clone() {
            self.say(puppet, PeerToMaster::Ping);
        }
        self.sent.clear();
        (puppets, vid)
    }

    /// Lets the next `Expect` go out.
    fn announced(&mut self) {
        self.now = self.now + crate::limits::EXPECT_INTERVAL;
        self.input(Input::Timeout);
        self.now = self.now + crate::limits::EXPECT_INTERVAL;
    }

    /// The state of a group's phase.
    fn state(&self, group: u64) -> &'static str {
        self.master.groups[&GroupId(group)].phase.state().name()
    }

    fn view(&self, group: u64) -> (Vid, Vec<PeerId>) {
        let view = &self.master.groups[&GroupId(group)].view;
        (view.vid, view.peers())
    }

    fn flush(&mut self, puppet: Puppet, vid: Vid, report: Report) {
        self.say(puppet, PeerToMaster::Flush { vid, report });
    }

    fn confirm(&mut self, puppet: Puppet, vid: Vid) {
        let report = report(vid);
        self.say(puppet, PeerToMaster::Installed { vid, report });
    }

    /// The peer comes back over a new connection, and goes on by itself.
    fn come_back(&mut self, puppet: &mut Puppet, vid: Vid) {
        puppet.attach += 1;
        puppet.connection = self.connection();
        let claim = self.claim(*puppet);
        let message = PeerToMaster::Here {
            run_id: puppet.run_id,
            session: puppet.session,
            attach: puppet.attach,
            vid,
            claim,
        };
        self.say(*puppet, message);
    }

    /// The peer comes back over a new connection and reports all it knows.
    fn attach(&mut self, puppet: &mut Puppet, report: Report) {
        puppet.attach += 1;
        puppet.connection = self.connection();
        self.say_attach(*puppet, report);
    }

    fn say_attach(&mut self, puppet: Puppet, report: Report) {
        let claim = self.claim(puppet);
        let message = PeerToMaster::Attach {
            run_id: puppet.run_id,
            session: puppet.session,
            attach: puppet.attach,
            claim,
            report,
        };
        self.say(puppet, message);
    }

    /// A claim as the newest view in the journal makes it.
    fn claim(&self, puppet: Puppet) -> Claim {
        let views = self.journal.iter().rev().filter_map(|record| match record {
            Record::ViewSealed(view) => Some(view),
            _ => None,
        });
        let mut mine = views.filter(|view| {
            view.members
                .iter()
                .any(|known| known.member.peer == puppet.peer)
        });
        let Some(view) = mine.next() else {
            return Claim {
                peer: puppet.peer,
                ..Claim::default()
            };
        };
        Claim {
            peer: puppet.peer,
            group: view.group,
            unit_size: self.registration_of(puppet).and_then(|it| it.unit_size),
            place: self.registration_of(puppet).and_then(|it| it.place),
            members: view
                .members
                .iter()
                .map(|known| known.member.clone())
                .collect(),
            ring_order: view.ring_order.clone(),
            costs: view.costs,
        }
    }

    /// What the journal has of a peer's `Hello`.
    fn registration_of(&self, puppet: Puppet) -> Option<&Registration> {
        self.journal.iter().find_map(|record| match record {
            Record::SessionRegistered(known) if known.peer == puppet.peer => Some(known),
            _ => None,
        })
    }

    fn unit_hello(&self, group: u64, key: u128, unit: u64) -> PeerToMaster {
        let mut hello = self.hello(group, key);
        if let PeerToMaster::Hello { unit: wanted, .. } = &mut hello {
            *wanted = Some(UnitId(unit));
        }
        hello
    }
}

/// A heartbeat reply with these numbers of members and groups, and this largest group.
fn pong(term: u32, (members, groups, largest): (u32, u32, u32)) -> MasterToPeer {
    MasterToPeer::Pong {
        term: Term(term),
        others: crate::wire::control::OtherGroups {
            members,
            groups,
            largest,
        },
        waits: None,
    }
}

/// All members post X and these hold it.
fn start(stage: &mut Stage, peers: &[Puppet], x: OpName, holders: &[Puppet]) {
    for &peer in peers {
        stage.say(peer, posted(x));
    }
    for &peer in holders {
        stage.say(peer, done(x));
    }
}
