//! Faults that wait for a message of an admission, a restart or a view change.
//!
//! A fault at a random moment nearly always finds a group at rest. So half of them wait for the
//! next message of a change, and many of these bring a second fault at a later moment of the same
//! change. If the moment does not come, the fault happens after a while nevertheless.

use std::time::Duration;

use super::cluster::{Event, HostId, World};
use super::faults::Fault;
use super::hooks::Point;
use super::messages::{
    ATTACH, EXPECT, FLUSH, HELLO, HERE, INSTALL, INSTALLED, READY, RELEASE, SUMMON, SUSPEND,
};
use super::swarm::FaultKind;

/// A fault that waits for its moment.
#[derive(Clone, Debug)]
pub struct Aim {
    id: u64,
    /// Index into [`MOMENTS`].
    moment: usize,
    /// How many such messages to let pass first.
    skip: u64,
    kind: FaultKind,
    /// What happens later in the same change.
    second: Option<FaultKind>,
}

/// Moments of an admission, of a master's restart and of a view change, in their order.
const MOMENTS: [(Point, u64); 18] = [
    (Point::AtMaster, HELLO),
    (Point::MasterSends, EXPECT),
    (Point::AtMaster, READY),
    (Point::HostSends, HERE),
    (Point::AtMaster, HERE),
    (Point::AtHost, SUMMON),
    (Point::HostSends, ATTACH),
    (Point::AtMaster, ATTACH),
    (Point::MasterSends, SUSPEND),
    (Point::AtHost, SUSPEND),
    (Point::HostSends, FLUSH),
    (Point::AtMaster, FLUSH),
    (Point::MasterSends, INSTALL),
    (Point::AtHost, INSTALL),
    (Point::HostSends, INSTALLED),
    (Point::AtMaster, INSTALLED),
    (Point::MasterSends, RELEASE),
    (Point::AtHost, RELEASE),
];
/// The first moments of a run, and of a master that has restarted.
const FOUNDING: [usize; 3] = [0, 1, 2];
const RESTART: [usize; 5] = [3, 4, 5, 6, 7];
/// What happens then half of the time, in every seed: few other faults come so early.
const AT_START: [FaultKind; 8] = [
    FaultKind::Leave,
    FaultKind::JoinStorm,
    FaultKind::Cancel,
    FaultKind::Twist,
    FaultKind::Crash,
    FaultKind::ControlBreak,
    FaultKind::MasterFreeze,
    FaultKind::LastingCut,
];
/// How many of 1,000 aimed faults bring a second one.
const SECOND_PERMILLE: u64 = 400;
/// Most messages that an aim lets pass before it hits.
const SKIP_MAX: u64 = 2;
/// How long an aim waits for its moment, in mean gaps between faults.
const PATIENCE_GAPS: u32 = 3;

impl World {
    /// Lets a fault of this kind wait for a moment of a view change.
    pub fn aim(&mut self, kind: FaultKind) {
        let second = self.fault_rng.chance(SECOND_PERMILLE);
        let second = if second { self.draw_kind() } else { None };
        let moment = self.fault_rng.index(MOMENTS.len());
        let skip = self.fault_rng.between(0, SKIP_MAX);
        self.arm(Aim {
            id: 0,
            moment,
            skip,
            kind,
            second,
        });
    }

    /// Lets a fault hit while a run is founded, or a restarted master hears its members.
    pub fn aim_at_start(&mut self, is_restart: bool) {
        let moments = if is_restart { &RESTART[..] } else { &FOUNDING };
        let any = self.fault_rng.chance(500);
        let kind = match any && self.swarm.healthy_group.is_none() {
            true => self.fault_rng.pick(&AT_START),
            false => self.draw_kind(),
        };
        let moment = self.fault_rng.pick(moments);
        if let (Some(moment), Some(kind)) = (moment, kind) {
            let skip = self.fault_rng.between(0, SKIP_MAX);
            self.arm(Aim {
                id: 0,
                moment,
                skip,
                kind,
                second: None,
            });
        }
    }

    fn arm(&mut self, aim: Aim) {
        self.plan.armed += 1;
        let id = self.plan.armed;
        self.plan.aims.push(Aim { id, ..aim });
        let patience = self.swarm.fault_gap * PATIENCE_GAPS;
        self.schedule(patience, Event::Fault(Fault::Overdue(id)));
    }

    /// A message passes a point: faults that waited for it happen right after.
    pub(super) fn run_aims(&mut self, point: Point, message: u64, host: Option<HostId>) {
        if self.plan.aims.is_empty() {
            return;
        }
        let mut due = Vec::new();
        self.plan.aims.retain_mut(|aim| {
            if MOMENTS[aim.moment] != (point, message) {
                return true;
            }
            if aim.skip > 0 {
                aim.skip -= 1;
                return true;
            }
            due.push(aim.clone());
            false
        });
        for aim in due {
            let hit = Fault::Hit(aim.kind, host);
            self.schedule(Duration::ZERO, Event::Fault(hit));
            if let Some(kind) = aim.second {
                let later = MOMENTS.len() - aim.moment - 1;
                let moment = aim.moment + 1 + self.fault_rng.index(later.max(1));
                self.arm(Aim {
                    id: 0,
                    moment: moment.min(MOMENTS.len() - 1),
                    skip: 0,
                    kind,
                    second: None,
                });
            }
        }
    }

    /// A fault has waited for its moment in vain.
    pub(super) fn overdue(&mut self, id: u64) {
        let Some(index) = self.plan.aims.iter().position(|aim| aim.id == id) else {
            return;
        };
        let aim = self.plan.aims.remove(index);
        self.inject(aim.kind, None);
    }
}
