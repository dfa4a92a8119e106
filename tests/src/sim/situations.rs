//! Rare situations by name, and how often they were reached.
//!
//! A rule for a rare situation is tested only where the situation occurs. So each has a name, and a
//! long run reports how often it occurred, the rarest first.

use ccl_core::ids::{GroupId, OpName};
use ccl_core::master::Master;
use ccl_core::peer::End;

use super::cluster::{HostId, World};
use super::messages::{ATTACH, RELEASE, WITHDRAW};
use super::report::Cell;
use super::swarm::FaultKind;

/// Phases of a group in which a fault is rare.
const PHASES: [&str; 4] = ["Founding", "Suspended", "Installing", "Rebuild"];
/// Classes of faults to which rules refer.
const CLASSES: [&str; 10] = [
    "loss",
    "master restart",
    "master pause",
    "pause of all",
    "control cut",
    "link cut",
    "leave",
    "cancel",
    "twist",
    "join",
];
/// Situations other than a fault in a phase.
const OTHERS: [Cell; 20] = [
    ("attach", "counts as flush"),
    ("attach", "while installing"),
    ("operation", "carried, posted late"),
    ("operation", "committed at a view change"),
    ("operation", "committed though cancelled"),
    ("operation", "committed without a member"),
    ("eviction", "while suspended"),
    ("eviction", "while installing"),
    ("operation", "open over an admission"),
    ("operation", "open over several admissions"),
    ("twist", "first round of a newcomer"),
    ("barrier", "a caller dies"),
    ("safe point", "withdrawn while suspended"),
    ("safe point", "withdrawn while installing"),
    ("lasting cut", "at a member"),
    ("lasting cut", "at a newcomer"),
    ("lasting mute", "at a member"),
    ("closed group", "formed"),
    ("closed group", "went on"),
    ("closed group", "process refused"),
];

/// The class of a fault.
fn class(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Crash | FaultKind::PowerLoss | FaultKind::Wedge => "loss",
        kind if kind.restarts_master() => "master restart",
        FaultKind::MasterFreeze | FaultKind::MasterPause | FaultKind::DiskStall => "master pause",
        FaultKind::PeersPause | FaultKind::WorldPause => "pause of all",
        FaultKind::PartitionFromMaster
        | FaultKind::PartitionToMaster
        | FaultKind::LastingMute
        | FaultKind::GroupCut
        | FaultKind::ControlBreak
        | FaultKind::ControlHalfOpen => "control cut",
        FaultKind::PartitionData
        | FaultKind::IsolateData
        | FaultKind::LastingCut
        | FaultKind::LinkReset => "link cut",
        FaultKind::Leave => "leave",
        FaultKind::Cancel => "cancel",
        FaultKind::Twist => "twist",
        FaultKind::JoinStorm | FaultKind::Hermit | FaultKind::Askers => "join",
        _ => "other",
    }
}

/// All situations that have a name.
pub fn all() -> impl Iterator<Item = Cell> {
    let faults = PHASES
        .into_iter()
        .flat_map(|phase| CLASSES.into_iter().map(move |class| (phase, class)));
    faults.chain(OTHERS)
}

impl World {
    /// The phase of a group at the master, if there is one.
    #[must_use]
    pub fn phase_of(&self, group: GroupId) -> Option<&'static str> {
        let mut phases = self.master.machine.as_ref()?.phases();
        phases.find(|(id, _)| *id == group).map(|(_, phase)| phase)
    }

    /// A fault happens: to a host or, if `None`, to all groups.
    pub(super) fn note_fault(&mut self, kind: FaultKind, victim: Option<HostId>) {
        let is_member = victim.is_some_and(|host| self.hosts[host.0].view.is_some());
        match (kind, is_member) {
            (FaultKind::LastingCut, true) => self.stats.situation(("lasting cut", "at a member")),
            (FaultKind::LastingCut, false) => {
                self.stats.situation(("lasting cut", "at a newcomer"));
            }
            (FaultKind::LastingMute, true) => self.stats.situation(("lasting mute", "at a member")),
            _ => {}
        }
        let phases = self.master.machine.as_ref().map(Master::phases);
        let group = victim.map(|host| self.hosts[host.0].group);
        let is_hit = |id: GroupId| kind.hits_all() || group.is_none_or(|group| group == id);
        let hit = phases.into_iter().flatten().filter(|(id, _)| is_hit(*id));
        for (_, phase) in hit.collect::<Vec<_>>() {
            self.stats.situation((phase, class(kind)));
        }
    }

    /// A message reaches the master, which has not handled it yet.
    pub(super) fn note_at_master(&mut self, message: u64, host: Option<HostId>) {
        if message == WITHDRAW
            && let Some(host) = host
        {
            match self.phase_of(self.hosts[host.0].group) {
                Some("Suspended") => self
                    .stats
                    .situation(("safe point", "withdrawn while suspended")),
                Some("Installing") => self
                    .stats
                    .situation(("safe point", "withdrawn while installing")),
                _ => {}
            }
        }
        let Some(host) = host.filter(|_| message == ATTACH) else {
            return;
        };
        match self.phase_of(self.hosts[host.0].group) {
            Some("Suspended") => self.stats.situation(("attach", "counts as flush")),
            Some("Installing") => self.stats.situation(("attach", "while installing")),
            _ => {}
        }
    }

    /// The master evicts a peer.
    pub(super) fn note_eviction(&mut self, group: GroupId) {
        match self.phase_of(group) {
            Some("Suspended") => self.stats.situation(("eviction", "while suspended")),
            Some("Installing") => self.stats.situation(("eviction", "while installing")),
            _ => {}
        }
    }

    /// A host starts an operation.
    pub(super) fn note_start(&mut self, host: HostId, op: OpName) {
        let view = self.hosts[host.0].view.as_ref();
        if view.is_some_and(|view| view.vid != op.birth) {
            self.stats.situation(("operation", "carried, posted late"));
        }
    }

    /// A call of a host ends; `logical` is what the application called.
    pub(super) fn note_end(&mut self, host: HostId, logical: u64, end: &End) {
        let End::Committed {
            op, contributors, ..
        } = end
        else {
            return;
        };
        let (run, group) = (
            self.hosts[host.0].run.unwrap_or(0),
            self.hosts[host.0].group,
        );
        let ends = [op.birth, self.hosts[host.0].vid()];
        match self.admissions_between((run, group), ends) {
            0 => {}
            1 => self
                .stats
                .situation(("operation", "open over an admission")),
            _ => self
                .stats
                .situation(("operation", "open over several admissions")),
        }
        if self.hosts[host.0].hearing == Some(RELEASE) {
            self.stats
                .situation(("operation", "committed at a view change"));
        }
        if self.checkers.has_asked(host, logical) {
            self.stats
                .situation(("operation", "committed though cancelled"));
        }
        let name = (
            self.hosts[host.0].run.unwrap_or(0),
            self.hosts[host.0].group,
            *op,
        );
        let members = self.checkers.births.get(&name);
        if members.is_some_and(|members| members.len() > contributors.len()) {
            self.stats
                .situation(("operation", "committed without a member"));
        }
    }
}
