//! What a seed chooses: sizes, timeouts, delays, and how likely each fault is.
//!
//! Each seed picks its own mix, so that some runs see one kind of fault often and others never. An
//! even mix would hide the interplay of rare ones.

use std::time::Duration;

use ccl_core::ids::{GroupId, UnitId};
use ccl_core::limits;
use ccl_core::{Paths, Timers};

use super::rng::{Rng, mix};

/// What a crashed master finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Everything it wrote: the process died, the machine did not.
    Full,
    /// Everything durable; of the lazily written tail, a part.
    LazyLost,
    /// Nothing: it keeps no journal.
    None,
}

/// Kinds of faults, for the mix and for the count at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum FaultKind {
    Crash,
    PowerLoss,
    Wedge,
    SlowHost,
    PartitionFromMaster,
    PartitionToMaster,
    PartitionData,
    IsolateData,
    LinkReset,
    SlowLink,
    ControlBreak,
    ControlHalfOpen,
    MasterCrash,
    MasterFreeze,
    MasterPause,
    PeersPause,
    WorldPause,
    DiskStall,
    JoinStorm,
    Hermit,
    Leave,
    StaleFrames,
    Stranger,
    DuplicateHello,
    LateHello,
    StaleAttach,
    Cancel,
    Deadline,
    Hang,
    Mismatch,
    InvalidCall,
    LastingCut,
    LastingMute,
    Twist,
    BarrierDeath,
    HastyPoint,
    JournalOlder,
    JournalCut,
    JournalLost,
    Askers,
    GroupCut,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 41] = [
        Self::Crash,
        Self::PowerLoss,
        Self::Wedge,
        Self::SlowHost,
        Self::PartitionFromMaster,
        Self::PartitionToMaster,
        Self::PartitionData,
        Self::IsolateData,
        Self::LinkReset,
        Self::SlowLink,
        Self::ControlBreak,
        Self::ControlHalfOpen,
        Self::MasterCrash,
        Self::MasterFreeze,
        Self::MasterPause,
        Self::PeersPause,
        Self::WorldPause,
        Self::DiskStall,
        Self::JoinStorm,
        Self::Hermit,
        Self::Leave,
        Self::StaleFrames,
        Self::Stranger,
        Self::DuplicateHello,
        Self::LateHello,
        Self::StaleAttach,
        Self::Cancel,
        Self::Deadline,
        Self::Hang,
        Self::Mismatch,
        Self::InvalidCall,
        Self::LastingCut,
        Self::LastingMute,
        Self::Twist,
        Self::BarrierDeath,
        Self::HastyPoint,
        Self::JournalOlder,
        Self::JournalCut,
        Self::JournalLost,
        Self::Askers,
        Self::GroupCut,
    ];

    /// Whether it hits all processes at once, or something that all need.
    #[must_use]
    pub fn hits_all(self) -> bool {
        self == Self::MasterFreeze || self.restarts_master() || self.is_pause()
    }

    /// Whether the master dies of it and starts again.
    #[must_use]
    pub fn restarts_master(self) -> bool {
        matches!(
            self,
            Self::MasterCrash | Self::JournalOlder | Self::JournalCut | Self::JournalLost
        )
    }

    /// Whether something pauses for longer than it takes to be missed.
    #[must_use]
    pub fn is_pause(self) -> bool {
        let master = matches!(self, Self::MasterPause | Self::DiskStall);
        master || matches!(self, Self::PeersPause | Self::WorldPause)
    }

    /// Whether applications cause it, planned with their calls.
    #[must_use]
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Deadline | Self::Mismatch | Self::InvalidCall)
    }
}

/// Everything a seed chooses.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The seed.
    pub seed: u64,
    /// Hosts of each group at the start.
    pub worlds: Vec<usize>,
    /// Fewest members of each group.
    pub min_worlds: Vec<u32>,
    /// Tags of each group.
    pub tags: u64,
    /// Whether rounds rarely use the same tags, so that many are in use.
    pub fresh_tags: bool,
    /// Tags of a group from which on those at rest are given back.
    pub tags_kept: usize,
    /// A group that no fault may touch and that must never wait for another.
    pub healthy_group: Option<u64>,
    /// Timeouts of the run.
    pub timers: Timers,
    /// What the master assumes of the paths between members.
    pub paths: Paths,
    /// What a crashed master finds.
    pub disk: Disk,
    /// Whether the first master founds the run at once.
    pub new_run: bool,
    /// Shortest and longest delay of a message.
    pub delay: (Duration, Duration),
    /// How many of 1,000 messages take ten times as long.
    pub tail_permille: u64,
    /// Longest write of the journal.
    pub fsync: Duration,
    /// Data lanes of each link.
    pub lanes: u16,
    /// Faults to inject before the calm.
    pub faults: usize,
    /// Mean time between faults.
    pub fault_gap: Duration,
    /// How many of 1,000 faults wait for a moment of a view change.
    pub aim_permille: u64,
    /// How likely each kind is, against the others.
    pub weights: Vec<(FaultKind, u64)>,
    /// Sessions of each unit; 1: none share a unit.
    pub unit: u64,
    /// Sessions of a unit that are admitted together; `None`: they need not wait for each other.
    pub unit_size: Option<u32>,
    /// The groups in which each host has a process. A host's processes advance together and are a
    /// unit that is admitted as one. Empty: each process is a host of its own.
    pub site: Vec<u64>,
    /// Such hosts at the start.
    pub sites: usize,
    /// How many of 1,000 additions and arrivals are delayed.
    pub lazy_permille: u64,
    /// Longest pause of an application between calls.
    pub think: Duration,
    /// Most calls of one tag in a round.
    pub calls_per_round: u64,
    /// Largest operation, in elements.
    pub count_max: u64,
    /// How many of 1,000 calls have a deadline that may pass, do not match, are cancelled.
    pub planned_permille: u64,
    /// How many of 1,000 rounds have a call to which some come rounds later.
    pub late_permille: u64,
    /// How many of 1,000 rounds sync the shared state.
    pub sync_permille: u64,
    /// How often a round has records of a stream, of 1,000.
    pub record_permille: u64,
}

impl Swarm {
    /// What this seed chooses.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let swarm = Self::of_lone_processes(seed);
        let mut rng = Rng::new(seed ^ 0x0517_e000);
        let swarm = if rng.chance(250) {
            swarm.of_sites(&mut rng)
        } else {
            swarm
        };
        swarm.of_many_tags(&mut Rng::new(seed ^ 0x007a_6500))
    }

    /// The same, usually with a limit of tags that its calls often reach.
    fn of_many_tags(mut self, rng: &mut Rng) -> Self {
        if rng.chance(750) {
            self.tags_kept = rng.between(1, 2 * self.tags) as usize;
            self.fresh_tags = rng.chance(700);
        }
        self
    }

    /// What this seed chooses, with processes that are each a host of its own.
    #[must_use]
    pub fn of_lone_processes(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let groups = [1, 1, 1, 2, 2, 3, 4][rng.index(7)];
        let worlds: Vec<usize> = (0..groups).map(|_| world(&mut rng, groups)).collect();
        let min_worlds = worlds.iter().map(|&w| min_world(&mut rng, w)).collect();
        let peers: usize = worlds.iter().sum();
        let healthy_group = (groups > 1 && rng.chance(300)).then(|| groups as u64 - 1);
        let disk = [Disk::Full, Disk::LazyLost, Disk::None][rng.index(3)];
        let slow = rng.chance(300) && healthy_group.is_none();
        let longest = if peers > 8 && healthy_group.is_none() {
            1500
        } else {
            300
        };
        let think = rng.millis(5, longest);
        let spares = healthy_group.is_some();
        Self {
            seed,
            worlds,
            min_worlds,
            tags: rng.between(1, if peers > 10 { 3 } else { 8 }),
            fresh_tags: false,
            tags_kept: limits::TAGS_KEPT,
            healthy_group,
            timers: timers(&mut rng),
            paths: paths(&mut Rng::new(mix(seed))),
            disk,
            new_run: rng.chance(700),
            delay: (
                Duration::from_micros(rng.between(50, 2000)),
                rng.millis(2, if slow { 120 } else { 15 }),
            ),
            tail_permille: if spares {
                0
            } else {
                [0, 0, 5, 30][rng.index(4)]
            },
            fsync: rng.millis(0, 20),
            lanes: u16::try_from(rng.between(1, 4)).unwrap_or(1),
            faults: usize::try_from(rng.between(4, 12)).unwrap_or(4),
            fault_gap: rng.millis(100, 4000),
            aim_permille: 500,
            weights: weights(&mut rng, healthy_group.is_some()),
            think,
            unit: if spares {
                1
            } else {
                [1, 1, 1, 1, 1, 2, 3][rng.index(7)]
            },
            unit_size: None,
            site: Vec::new(),
            sites: 0,
            lazy_permille: [0, 0, 100, 400][rng.index(4)],
            calls_per_round: rng.between(1, 3),
            count_max: [0, 3, 40, 40, 200, 2000][rng.index(6)],
            planned_permille: [0, 20, 60][rng.index(3)],
            sync_permille: [0, 300, 700][rng.index(3)],
            late_permille: [0, 0, 150, 400][rng.index(4)],
            record_permille: [0, 200, 600][rng.index(3)],
        }
    }

    /// The same with hosts that have a process in each group.
    fn of_sites(mut self, rng: &mut Rng) -> Self {
        let groups = self.worlds.len().clamp(2, 3) as u64;
        self.site = (0..groups).collect();
        if rng.chance(250) {
            self.site.push(0);
        }
        self.sites = [1, 2, 2, 3, 3, 4][rng.index(6)];
        let ranks: Vec<usize> = (0..groups).map(|group| self.ranks_of_site(group)).collect();
        self.worlds = ranks.iter().map(|ranks| ranks * self.sites).collect();
        let min_sites = ranks
            .iter()
            .map(|ranks| (ranks, rng.between(1, 2).min(self.sites as u64)));
        self.min_worlds = min_sites
            .map(|(ranks, sites)| *ranks as u32 * sites as u32)
            .collect();
        self.healthy_group = None;
        self.weights = weights(rng, false);
        self.unit = 1;
        self
    }
}

impl Swarm {
    /// How many processes a host has in a group.
    #[must_use]
    pub fn ranks_of_site(&self, group: u64) -> usize {
        self.site.iter().filter(|of| **of == group).count()
    }

    /// Fewest members with which a group works; a closed one goes on with what is left of it.
    #[must_use]
    pub fn min_world(&self, group: GroupId) -> u32 {
        self.min_worlds.get(group.0 as usize).copied().unwrap_or(1)
    }

    /// The unit of the process that starts as the n-th.
    #[must_use]
    pub fn unit_of(&self, n: u64) -> Option<UnitId> {
        (self.unit > 1).then(|| UnitId(n / self.unit))
    }
}

fn world(rng: &mut Rng, groups: usize) -> usize {
    let limit = if groups == 1 { 16 } else { 6 };
    let drawn = [1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8, 12, 16][rng.index(13)];
    drawn.min(limit)
}

fn min_world(rng: &mut Rng, world: usize) -> u32 {
    let drawn = [1, 1, 1, 2, 2, 3][rng.index(6)];
    drawn.min(world as u32)
}

/// From paths on which nothing goes ahead of credits to those on which everything does.
fn paths(rng: &mut Rng) -> Paths {
    Paths {
        round_trip: Some(Duration::from_micros([128, 512, 1 << 20][rng.index(3)])),
        bytes_per_second: Some(1_000_000),
        reserve_bytes: [0, 1024, 4096, 16 << 20][rng.index(4)],
    }
}

fn timers(rng: &mut Rng) -> Timers {
    let heartbeat_interval = rng.millis(400, 1000);
    Timers {
        heartbeat_interval,
        peer_timeout: heartbeat_interval * 2 + rng.millis(1000, 4000),
        reattach_grace: rng.millis(500, 3000),
        blame_window: rng.millis(200, 800),
        link_timeout: rng.millis(1000, 3000),
        rebuild_window: rng.millis(2000, 6000),
        detach_timeout: rng.millis(15_000, 30_000),
        verdict_timeout: rng.millis(8000, 15_000),
        post_timeout: Some(rng.millis(10_000, 20_000)),
    }
}

/// A mix of about half of the kinds, with rates that differ by an order of magnitude.
fn weights(rng: &mut Rng, spares_a_group: bool) -> Vec<(FaultKind, u64)> {
    let candidates = FaultKind::ALL
        .into_iter()
        .filter(|kind| !(kind.is_planned() || spares_a_group && kind.hits_all()));
    let mut weights = Vec::new();
    for kind in candidates {
        if rng.chance(500) {
            weights.push((kind, rng.between(1, 10)));
        }
    }
    if weights.is_empty() {
        weights.push((FaultKind::Crash, 1));
    }
    weights
}
