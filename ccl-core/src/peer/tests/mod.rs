//! What a peer must do, rule by rule. The tests play the master and the caller.

mod agreement;
mod changes;
mod chaos;
mod contradictions;
mod detached;
mod happy;
mod links;
mod operations;
mod pauses;
mod records;
mod returns;
mod safe_points;
mod session;
mod shared_state;
mod table;

use std::time::Duration;

use super::{End, Input, Output, Peer, SessionEnd, Setup};
use crate::error::Eviction;
use crate::ids::{
    CallId, Epoch, GroupId, LinkKey, MemberNumber, OpName, OpNumber, PeerId, Rank, RunId,
    SessionId, Tag, Term, UnitId, Vid,
};
use crate::reduce::{Dtype, ReduceOp};
use crate::time::Instant;
use crate::timers::Timers;
use crate::wire::control::{
    AbortReason, Birth, Called, CancelReason, CommitRecord, CostTable, Elements, EvictReason,
    Fingerprint, Install, MasterToPeer, Member, OpNote, OtherGroups, PeerToMaster, Report, Sealed,
    TagFloor,
};

/// A peer with a clock, and its outputs since the last check.
pub(super) struct Fixture {
    pub peer: Peer,
    pub now: Instant,
}

pub(super) const ME: PeerId = PeerId(2);
pub(super) const T0: Tag = Tag(0);

pub(super) fn welcome() -> MasterToPeer {
    welcome_with(Timers::default())
}

pub(super) fn welcome_with(timers: Timers) -> MasterToPeer {
    MasterToPeer::Welcome {
        run_id: RunId(5),
        session: SessionId(6),
        peer: ME,
        term: Term(1),
        timers,
        others: OtherGroups::default(),
        waits: None,
    }
}

pub(super) fn pong(term: u32) -> MasterToPeer {
    MasterToPeer::Pong {
        term: Term(term),
        others: OtherGroups::default(),
        waits: None,
    }
}

pub(super) fn vid(epoch: u32) -> Vid {
    Vid {
        term: Term(1),
        epoch: Epoch(epoch),
    }
}

/// Of this peer, in the view that a fixture begins with.
pub(super) fn eviction(reason: EvictReason) -> Eviction {
    Eviction {
        peer: ME,
        vid: vid(1),
        reason,
        names: (1..=3)
            .map(|peer| (PeerId(peer), member(peer).label()))
            .collect(),
    }
}

pub(super) fn op(tag: u64, n: u64, birth: u32) -> OpName {
    OpName {
        tag: Tag(tag),
        n: OpNumber(n),
        birth: vid(birth),
    }
}

pub(super) fn member(peer: u64) -> Member {
    Member {
        peer: PeerId(peer),
        number: MemberNumber(peer),
        unit: UnitId(peer),
        addresses: vec![([127, 0, 0, 1], 1000).into()],
        key: LinkKey(u128::from(peer)),
        name: format!("node{peer}"),
    }
}

pub(super) fn fingerprint(count: u64) -> Fingerprint {
    Fingerprint::new(Called::AllReduce {
        reduce_op: ReduceOp::Sum,
        elements: Elements::of([(Dtype::F32, count)]),
    })
}

pub(super) fn install(epoch: u32, members: &[u64]) -> Install {
    let count = u32::try_from(members.len()).unwrap();
    Install {
        vid: vid(epoch),
        members: members.iter().copied().map(member).collect(),
        ring_order: (0..count).map(Rank).collect(),
        floors: Vec::new(),
        given_back: Vec::new(),
        carried: Vec::new(),
        safe_released: 0,
        costs: CostTable::default(),
        released: false,
        suspended: false,
        departed: Vec::new(),
        streams: Vec::new(),
    }
}

pub(super) fn floor(tag: u64, floor: u64, last_committed: Option<u64>) -> TagFloor {
    TagFloor {
        tag: Tag(tag),
        floor: OpNumber(floor),
        last_committed: last_committed.map(OpNumber),
        reasons: Vec::new(),
    }
}

pub(super) fn carried(op: OpName, members: &[u64]) -> Birth {
    let count = u32::try_from(members.len()).unwrap();
    Birth {
        op,
        members: members.iter().copied().map(PeerId).collect(),
        ring_order: (0..count).rev().map(Rank).collect(),
        costs: CostTable::default(),
    }
}

pub(super) fn lost(peer: u64) -> AbortReason {
    AbortReason::Lost {
        peer: PeerId(peer),
        reason: EvictReason::Died,
    }
}

impl Fixture {
    /// A peer that has not connected.
    pub fn new() -> Self {
        Self::with_min_world(1)
    }

    pub fn with_min_world(min_world: u32) -> Self {
        let setup = Setup {
            run: "default".into(),
            group: GroupId(0),
            unit: None,
            unit_size: None,
            place: None,
            addresses: vec![([127, 0, 0, 1], 1000).into()],
            key: LinkKey(2),
            min_world,
            name: "own".into(),
            entropy: 7,
        };
        let now = Instant(1_000_000_000);
        let peer = Peer::new(setup, now);
        Self { peer, now }
    }

    /// A peer that the master has registered as peer 2.
    pub fn newcomer() -> Self {
        let mut fixture = Self::new();
        fixture.register();
        fixture
    }

    /// A member of released view 1 = {1, 2, 3}.
    pub fn steady() -> Self {
        let mut fixture = Self::newcomer();
        fixture.enter();
        fixture
    }

    pub fn register(&mut self) {
        self.tell(Input::ControlUp);
        self.hear(welcome());
        self.drain();
    }

    pub fn enter(&mut self) {
        self.hear(MasterToPeer::Install(install(1, &[1, 2, 3])));
        self.hear(MasterToPeer::Release { vid: vid(1) });
        self.drain();
    }

    pub fn tell(&mut self, input: Input) {
        self.peer.handle(self.now, input);
    }

    pub fn hear(&mut self, message: MasterToPeer) {
        self.tell(Input::Control(message));
    }

    pub fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.peer.poll_output()).collect()
    }

    /// Lets time pass, waking the peer whenever it asked for it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.peer.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(Input::Timeout);
        }
        self.now = end;
    }

    pub fn post(&mut self, call: u64, tag: u64) {
        self.tell(Input::Post {
            call: CallId(call),
            tag: Tag(tag),
            fingerprint: fingerprint(4),
            deadline: None,
        });
    }

    pub fn post_and_hold(&mut self, call: u64, op: OpName) {
        self.post(call, op.tag.0);
        self.tell(Input::Held(op));
    }

    pub fn commit(&mut self, op: OpName, contributors: &[u64]) {
        self.commit_sealing(op, contributors, Sealed::Nothing);
    }

    pub fn commit_sealing(&mut self, op: OpName, contributors: &[u64], sealed: Sealed) {
        self.hear(MasterToPeer::Commit(vec![CommitRecord {
            op,
            contributors: contributors.iter().copied().map(PeerId).collect(),
            sealed,
        }]));
    }

    pub fn suspend(&mut self, epoch: u32) -> Report {
        self.hear(MasterToPeer::Suspend { vid: vid(epoch) });
        let flush = sent(self.drain())
            .into_iter()
            .find_map(|message| match message {
                PeerToMaster::Flush { report, .. } => Some(report),
                _ => None,
            });
        flush.expect("Suspend is answered by Flush")
    }

    /// Loses the connection, and lets a new one come up, over which a member is summoned; returns
    /// the report of the `Attach`.
    pub fn reattach(&mut self) -> Report {
        self.tell(Input::ControlDown);
        self.drain();
        self.pass(Duration::from_millis(30));
        assert!(matches!(self.drain()[..], [Output::Connect]));
        self.tell(Input::ControlUp);
        let mut said = self.drain();
        if words(&said) == ["Here"] {
            self.hear(MasterToPeer::Summon);
            said = self.drain();
        }
        let attach = sent(said).into_iter().find_map(|message| match message {
            PeerToMaster::Attach { report, .. } => Some(report),
            _ => None,
        });
        attach.expect("a session goes on by Attach")
    }
}

/// The messages to the master.
pub(super) fn sent(outputs: Vec<Output>) -> Vec<PeerToMaster> {
    let message = |output| match output {
        Output::Send(message) => Some(message),
        _ => None,
    };
    outputs.into_iter().filter_map(message).collect()
}

/// How calls ended.
pub(super) fn ends(outputs: &[Output]) -> Vec<(CallId, End)> {
    let end = |output: &Output| match output {
        Output::Finish { call, end } => Some((*call, end.clone())),
        _ => None,
    };
    outputs.iter().filter_map(end).collect()
}

/// The operations that were started.
pub(super) fn started(outputs: &[Output]) -> Vec<OpName> {
    let op = |output: &Output| match output {
        Output::StartOp { start, .. } => Some(start.birth.op),
        _ => None,
    };
    outputs.iter().filter_map(op).collect()
}

/// Outputs in one word each, where their order matters. That of `Forget`, which is about frames,
/// does not.
pub(super) fn words(outputs: &[Output]) -> Vec<String> {
    let word = |output: &Output| {
        let text = format!("{output:?}");
        let end = text.find(['(', ' ', '{']).unwrap_or(text.len());
        match output {
            Output::Send(message) => {
                let inner = format!("{message:?}");
                let end = inner.find(['(', ' ', '{']).unwrap_or(inner.len());
                inner[..end].to_owned()
            }
            Output::Finish { end, .. } => {
                let inner = format!("{end:?}");
                let end = inner.find(['(', ' ', '{']).unwrap_or(inner.len());
                inner[..end].to_owned()
            }
            _ => text[..end].to_owned(),
        }
    };
    let told = outputs
        .iter()
        .filter(|output| !matches!(output, Output::Event(_) | Output::Forget { .. }));
    told.map(word).collect()
}
