//! Members that do not call what the others wait for: an operation, or a safe point (R15).
//!
//! A member that waits in another call is alive. If none can continue because each waits for
//! members in other calls, their programs differ: the call of the majority is right. If there is
//! none, no member is evicted, and the calls of all are aborted.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{PeerId, Tag};
use crate::master::group::Group;
use crate::master::group::operation::OpenOp;
use crate::time::Instant;
use crate::wire::control::{Crossed, EvictReason, LatePeers, WaitPoint};

/// The outcome for members that have waited for each other for too long.
#[derive(Debug, Default)]
pub struct Absence {
    /// The members to evict, and why.
    pub evicted: Vec<(PeerId, EvictReason)>,
    /// Operations that cannot finish, and of which none is the one that most members are in.
    pub crossed: Vec<(Tag, Crossed)>,
}

/// A call that members are in.
#[derive(Clone, Debug)]
struct Call {
    point: WaitPoint,
    here: BTreeSet<PeerId>,
    missing: BTreeSet<PeerId>,
    /// When missing members are overdue; `None` if none is missing.
    due: Option<Instant>,
}

impl Absence {
    pub fn is_empty(&self) -> bool {
        self.evicted.is_empty() && self.crossed.is_empty()
    }
}

impl Group {
    /// Members that the others have waited for too long, and calls that wait for each other.
    pub fn absent(&self, timeout: Duration, now: Instant) -> Absence {
        let calls = self.calls(timeout);
        let is_overdue = |call: &&Call| call.due.is_some_and(|due| due <= now);
        let overdue: Vec<&Call> = calls.iter().filter(is_overdue).collect();
        let evicted = idle(&overdue, &calls);
        if !evicted.is_empty() {
            return Absence {
                evicted,
                crossed: Vec::new(),
            };
        }
        let stuck = stuck(&overdue, &calls);
        match right(&stuck) {
            Some(right) => Absence {
                evicted: elsewhere(right, &stuck),
                crossed: Vec::new(),
            },
            None => Absence {
                evicted: Vec::new(),
                crossed: crossed(&stuck),
            },
        }
    }

    /// When the first member will be absent.
    pub fn next_absent(&self, timeout: Duration, now: Instant) -> Option<Instant> {
        let calls = self.calls(timeout);
        let (passed, ahead): (Vec<_>, Vec<_>) = calls
            .iter()
            .filter_map(|call| call.due)
            .partition(|&due| due <= now);
        if !passed.is_empty() && !self.absent(timeout, now).is_empty() {
            return Some(now);
        }
        ahead.into_iter().min()
    }

    /// All calls that a member is in.
    fn calls(&self, timeout: Duration) -> Vec<Call> {
        let open = self.ledger.open();
        let mut calls: Vec<Call> = open.filter_map(|open| operation(open, timeout)).collect();
        if let Some((since, here)) = self.safe.waiting(self.view.members.len()) {
            let members = self.view.members.iter().map(|member| member.peer);
            let missing: BTreeSet<_> = members.filter(|peer| !here.contains(peer)).collect();
            calls.push(Call {
                point: WaitPoint::SafePoint {
                    k: self.safe.released,
                },
                due: (!missing.is_empty()).then(|| since + timeout),
                here,
                missing,
            });
        }
        calls
    }
}

fn operation(open: &OpenOp, timeout: Duration) -> Option<Call> {
    let (_, fingerprint) = open.called.as_ref()?;
    let missing = open.members().iter().copied();
    // Whoever holds it has a post of all.
    let is_missing = |peer: &PeerId| !open.posted.contains(peer) && open.done.is_empty();
    let missing: BTreeSet<_> = missing.filter(is_missing).collect();
    let waits = !missing.is_empty() && !open.is_to_end();
    Some(Call {
        point: WaitPoint::Call(fingerprint.kind().call(open.op())),
        here: open.posted.clone(),
        missing,
        due: waits.then(|| open.waited_since + timeout),
    })
}

/// Members that are overdue and in no call at all.
fn idle(overdue: &[&Call], calls: &[Call]) -> Vec<(PeerId, EvictReason)> {
    let is_idle = |peer: &PeerId| !calls.iter().any(|call| call.here.contains(peer));
    let absent = overdue.iter().flat_map(|call| {
        let idle = call.missing.iter().copied().filter(is_idle);
        idle.map(|peer| (peer, call.reason()))
    });
    absent.collect()
}

/// Overdue calls whose missing members all wait in such calls themselves.
fn stuck<'a>(overdue: &[&'a Call], calls: &[Call]) -> Vec<&'a Call> {
    let mut stuck = overdue.to_vec();
    loop {
        let may_end = |call: &&Call| !stuck.iter().any(|it| it.point == call.point);
        let free = calls.iter().filter(may_end).flat_map(|call| &call.here);
        let free: BTreeSet<PeerId> = free.copied().collect();
        let before = stuck.len();
        stuck.retain(|call| call.missing.is_disjoint(&free));
        if stuck.len() == before {
            return stuck;
        }
    }
}

/// The call that most members are in, if its missing members are in calls with fewer members.
fn right<'a>(stuck: &[&'a Call]) -> Option<&'a Call> {
    let right = stuck.iter().rev().max_by_key(|call| call.here.len())?;
    let is_most = right.here.len() > right.missing.len();
    let mut others = stuck
        .iter()
        .filter(|call| !call.here.is_disjoint(&right.missing));
    let is_largest = others.all(|call| call.here.len() < right.here.len());
    (is_most && is_largest).then_some(*right)
}

fn elsewhere(right: &Call, stuck: &[&Call]) -> Vec<(PeerId, EvictReason)> {
    let odd = right.missing.iter().filter_map(|peer| {
        let own = stuck.iter().find(|call| call.here.contains(peer))?;
        let reason = EvictReason::Crossed {
            own: Box::new(own.point),
            others: Box::new(right.point),
        };
        Some((*peer, reason))
    });
    odd.collect()
}

/// Each stuck operation, with the first other call that a missing member is in.
fn crossed(stuck: &[&Call]) -> Vec<(Tag, Crossed)> {
    let crossed = stuck.iter().filter_map(|call| {
        let WaitPoint::Call(name) = call.point else {
            return None;
        };
        let other = stuck
            .iter()
            .find(|other| !other.here.is_disjoint(&call.missing))?;
        let here: Vec<_> = call.here.iter().copied().collect();
        let there: Vec<_> = other.here.intersection(&call.missing).copied().collect();
        let crossed = Crossed {
            here: LatePeers::of(&here),
            there: LatePeers::of(&there),
            other: other.point,
        };
        Some((name.op().tag, crossed))
    });
    crossed.collect()
}

impl Call {
    /// Why a member that is in no call is evicted.
    fn reason(&self) -> EvictReason {
        match self.point {
            WaitPoint::Call(call) => EvictReason::NotPosted {
                tag: call.op().tag,
                n: call.op().n,
            },
            WaitPoint::SafePoint { k } => EvictReason::NotAtSafePoint { k },
        }
    }
}
