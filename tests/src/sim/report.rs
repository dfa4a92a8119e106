//! What is counted over a run, and over many.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ccl_core::master::Master;
use ccl_core::peer::{End, Peer, SessionEnd};
use ccl_core::wire::control::{EvictReason, SyncFault};

use super::situations;
use super::swarm::FaultKind;
use super::sync_rules;

/// State and event of a transition table.
pub type Cell = (&'static str, &'static str);

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Calls that ended in success.
    pub committed: u64,
    /// Calls that were aborted.
    pub aborted: u64,
    /// Calls whose outcome cannot be known.
    pub unknown: u64,
    /// Calls refused for want of members.
    pub refused: u64,
    /// Records that callers were told.
    pub records: u64,
    /// Ends of syncs of shared state: how often told, or for which reason refused.
    pub syncs: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Sessions that the master ended, by reason.
    pub evictions: BTreeMap<&'static str, u64>,
    /// Sessions by how they ended.
    pub sessions: BTreeMap<&'static str, u64>,
    /// Times that the last process of a host with several was admitted.
    pub units: u64,
    /// Rare situations, and how often they came about.
    pub situations: BTreeMap<Cell, u64>,
    /// Tags that hosts forgot because they were given back.
    pub returns: u64,
    /// Events simulated.
    pub events: u64,
    /// Cells of the master's transition table that were reached.
    pub master_cells: BTreeSet<Cell>,
    /// Cells of the peer's transition table that were reached.
    pub peer_cells: BTreeSet<Cell>,
}

impl Stats {
    /// Counts a fault.
    pub fn fault(&mut self, kind: FaultKind) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts a situation.
    pub fn situation(&mut self, name: Cell) {
        *self.situations.entry(name).or_default() += 1;
    }

    /// The named situations, the rarest first.
    #[must_use]
    pub fn rare_situations(&self) -> Vec<(Cell, u64)> {
        let times = |name: Cell| self.situations.get(&name).copied().unwrap_or_default();
        let mut named: Vec<_> = situations::all().map(|name| (name, times(name))).collect();
        named.sort_by_key(|(_, times)| *times);
        named
    }

    /// Counts an end of a sync.
    pub fn sync(&mut self, end: &'static str) {
        *self.syncs.entry(end).or_default() += 1;
    }

    /// Counts a refusal of a sync.
    pub fn sync_fault(&mut self, fault: &SyncFault) {
        self.sync(sync_rules::name(fault));
    }

    /// Counts an end of a collective.
    pub fn ending(&mut self, end: &End) {
        match end {
            End::Committed { .. } => self.committed += 1,
            End::Aborted { .. } => self.aborted += 1,
            _ => self.unknown += 1,
        }
    }

    /// Counts the end of a session.
    pub fn session_ended(&mut self, end: &SessionEnd) {
        let name = match end {
            SessionEnd::Evicted(_) => "evicted",
            SessionEnd::Refused(_) => "refused",
            SessionEnd::Detached => "detached",
            SessionEnd::NoVerdict => "no verdict",
            SessionEnd::Protocol(_) => "protocol",
            SessionEnd::Internal => "internal",
            SessionEnd::Left => "left",
        };
        *self.sessions.entry(name).or_default() += 1;
    }

    /// Counts an eviction.
    pub fn eviction(&mut self, reason: &EvictReason) {
        let name = match reason {
            EvictReason::Left => "left",
            EvictReason::Silent { .. } => "silent",
            EvictReason::Died => "died",
            EvictReason::Detached => "detached",
            EvictReason::Unreachable { .. } => "unreachable",
            EvictReason::NotPosted { .. } => "not posted",
            EvictReason::NotAtSafePoint { .. } => "not at safe point",
            EvictReason::NotHeard => "not heard",
            EvictReason::NotAMember => "not a member",
            EvictReason::Protocol(_) => "protocol",
            EvictReason::Unit(_) => "unit",
            EvictReason::Unaware => "unaware",
            EvictReason::GroupTaken { .. } => "group taken",
            EvictReason::PlaceTaken { .. } => "place taken",
            EvictReason::UnitTorn => "unit torn",
            EvictReason::UnitLeft(_) => "unit left",
            EvictReason::UnitFull { .. } => "unit full",
            EvictReason::RevisionAhead { .. } => "revision ahead",
            EvictReason::Crossed { .. } => "crossed",
            EvictReason::RecordsBehind { .. } => "records behind",
        };
        *self.evictions.entry(name).or_default() += 1;
    }

    /// Takes the cells that a master reached.
    pub fn absorb_master(&mut self, master: &Master) {
        self.master_cells.extend(master.visited().iter().copied());
    }

    /// Takes the cells that a peer reached.
    pub fn absorb_peer(&mut self, peer: &Peer) {
        self.peer_cells.extend(peer.visited().iter().copied());
    }

    /// How much of the transition tables was reached.
    #[must_use]
    pub fn coverage(&self) -> String {
        let count = |name: &str, legal: BTreeSet<Cell>, reached: &BTreeSet<Cell>| {
            let missed: Vec<_> = legal.difference(reached).collect();
            let hit = legal.len() - missed.len();
            format!(
                "transition cells reached, {name}: {hit} of {} ({:.1} %); missed {missed:?}",
                legal.len(),
                100.0 * hit as f64 / legal.len() as f64,
            )
        };
        let master = count("master", Master::legal_cells(), &self.master_cells);
        let peer = count("peer", Peer::legal_cells(), &self.peer_cells);
        format!("{master}\n{peer}")
    }

    /// Collectives that ended, and faults.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let operations = self.committed + self.aborted + self.unknown;
        (operations, self.faults.values().sum())
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.records += other.records;
        self.events += other.events;
        self.units += other.units;
        self.returns += other.returns;
        for (end, count) in &other.syncs {
            *self.syncs.entry(end).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (reason, count) in &other.evictions {
            *self.evictions.entry(reason).or_default() += count;
        }
        for (name, count) in &other.situations {
            *self.situations.entry(*name).or_default() += count;
        }
        for (end, count) in &other.sessions {
            *self.sessions.entry(end).or_default() += count;
        }
        self.master_cells.extend(other.master_cells.iter().copied());
        self.peer_cells.extend(other.peer_cells.iter().copied());
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operations, faults) = self.totals();
        writeln!(
            f,
            "operations {operations}: {} committed, {} aborted, {} unknown; {} refused for want of \
             members",
            self.committed, self.aborted, self.unknown, self.refused
        )?;
        writeln!(f, "records told: {}", self.records)?;
        writeln!(f, "syncs of shared state: {:?}", self.syncs)?;
        writeln!(f, "faults {faults}: {:?}", self.faults)?;
        writeln!(f, "evictions: {:?}", self.evictions)?;
        writeln!(f, "sessions ended: {:?}", self.sessions)?;
        writeln!(f, "hosts with several processes admitted: {}", self.units)?;
        writeln!(f, "tags begun anew, by host: {}", self.returns)?;
        write!(f, "events {}", self.events)
    }
}
