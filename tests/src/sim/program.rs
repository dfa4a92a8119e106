//! What the applications of a group call, round by round: the same for all members.
//!
//! A round ends at a safe point; its number is the number of safe points released before, which a
//! newcomer is told with its first view. So an application branches on nothing but results, and a
//! newcomer knows where the others are (docs/protocol.md, R16).

use std::time::Duration;

use ccl_core::collective::layout::Part;
use ccl_core::ids::{GroupId, Rank, Tag};
use ccl_core::wire::control::{Called, Elements, Fingerprint};
use ccl_core::{Algorithm, Dtype, Kind, ReduceOp};

use super::rng::{Rng, mix_all};
use super::swarm::Swarm;

/// Something that only some members do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Cancel it after a while.
    Cancel(Duration),
    /// Give it a deadline that may pass.
    Deadline(Duration),
    /// Call it with another count.
    Count,
    /// Call it with another element type.
    Dtype,
    /// Call it with another operator.
    Op,
    /// Call it as another collective built on the same kind.
    Caller,
    /// Call it twice at once, which is refused.
    Twice,
    /// Never call it, nor anything after it.
    Hang,
}

/// One call of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// Names it: the same for all members, different from every other call of the seed.
    pub id: u64,
    /// Its stream.
    pub tag: Tag,
    /// What is called.
    pub fingerprint: Fingerprint,
    /// Its buffers.
    pub parts: Vec<Part>,
    /// Whether the result replaces the input.
    pub in_place: bool,
    /// Whether the safe point after it does not wait for it.
    pub asynchronous: bool,
    /// What some members do with it.
    pub twist: Option<(Twist, u64)>,
    /// Rounds by which some members are later than the others.
    pub late: u64,
}

impl Logical {
    /// What this member does with it, if anything.
    #[must_use]
    pub fn twist_of(&self, member: u64) -> Option<Twist> {
        let (twist, selector) = self.twist?;
        (mix_all(&[selector, member]).is_multiple_of(2)).then_some(twist)
    }

    /// What calls that may end together have in common. Late calls may meet another call of the
    /// tag.
    #[must_use]
    pub fn meeting(&self) -> u64 {
        match self.late {
            0 => self.id,
            _ => self.tag.0,
        }
    }

    /// How many rounds later than the others this member makes it, if it does.
    #[must_use]
    pub fn late_by(&self, member: u64) -> Option<u64> {
        let is_late = self.late > 0 && mix_all(&[self.id, member]).is_multiple_of(4);
        is_late.then_some(self.late)
    }

    /// The call of a member whose twist is to make another one.
    #[must_use]
    pub fn twisted(&self, twist: Option<Twist>) -> (Fingerprint, Vec<Part>) {
        let mut parts = self.parts.clone();
        let mut fingerprint = self.fingerprint.clone();
        match twist {
            // A sync has no buffers that could differ.
            Some(Twist::Count | Twist::Dtype) if self.tag == Tag::SHARED_STATE => {
                fingerprint.caller = "sync of a checkpoint".into();
            }
            Some(Twist::Count) => parts[0].count += 1,
            Some(Twist::Dtype) => {
                let other = parts[0].dtype == Dtype::F32;
                parts[0].dtype = if other { Dtype::I32 } else { Dtype::F32 };
            }
            Some(Twist::Op) => {
                if let Called::AllReduce { reduce_op, .. }
                | Called::ReduceScatter { reduce_op, .. } = &mut fingerprint.called
                {
                    let is_max = *reduce_op == ReduceOp::Max;
                    *reduce_op = if is_max { ReduceOp::Min } else { ReduceOp::Max };
                }
            }
            Some(Twist::Caller) => fingerprint.caller = "reduce to rank 1".into(),
            _ => {}
        }
        describe(&mut fingerprint, &parts);
        (fingerprint, parts)
    }

    /// Whether sums must be exact whatever their order.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.fingerprint.algorithm == Algorithm::Ring
    }
}

/// What a fingerprint says about these buffers.
#[must_use]
pub fn elements_of(parts: &[Part]) -> Elements {
    Elements::of(parts.iter().map(|part| (part.dtype, part.count)))
}

/// Fills in what a fingerprint says about the buffers.
pub fn describe(fingerprint: &mut Fingerprint, parts: &[Part]) {
    match &mut fingerprint.called {
        Called::AllReduce { elements, .. }
        | Called::ReduceScatter { elements, .. }
        | Called::AllGather { elements }
        | Called::Broadcast { elements, .. } => *elements = elements_of(parts),
        Called::Barrier | Called::Sync(_) => {}
    }
}

/// A collective of this kind on these buffers; broadcasts are from rank 0. The offer of a sync is
/// known when it is posted.
#[must_use]
pub fn called(kind: Kind, reduce_op: ReduceOp, parts: &[Part]) -> Called {
    let elements = elements_of(parts);
    match kind {
        Kind::AllReduce => Called::AllReduce {
            reduce_op,
            elements,
        },
        Kind::ReduceScatter => Called::ReduceScatter {
            reduce_op,
            elements,
        },
        Kind::AllGather => Called::AllGather { elements },
        Kind::Broadcast => Called::Broadcast {
            root: Rank(0),
            elements,
        },
        Kind::Barrier => Called::Barrier,
        Kind::SharedState => Called::Sync(Box::default()),
    }
}

/// The calls of one round, a list a tag.
#[must_use]
pub fn round(swarm: &Swarm, group: GroupId, round: u64) -> Vec<Vec<Logical>> {
    let seed = mix_all(&[swarm.seed, group.0, round]);
    let mut rng = Rng::new(seed);
    let tags = rng.between(1, swarm.tags);
    let sync = sync(&mut rng, swarm, group);
    let collectives = (0..tags).map(|index| {
        let tag = tag(swarm, round, index);
        let calls = rng.between(1, swarm.calls_per_round);
        (0..calls)
            .map(|call| {
                let id = mix_all(&[seed, tag.0, call]);
                let is_last = call + 1 == calls;
                logical(&mut rng, swarm, group, (tag, id, is_last))
            })
            .collect()
    });
    let late = late(&mut Rng::new(seed ^ 0x001a_7e00), swarm, (group, round));
    let single = sync.into_iter().chain(late).map(|call| vec![call]);
    collectives.chain(single).collect()
}

/// The tag of the n-th stream of calls of a round.
fn tag(swarm: &Swarm, round: u64, index: u64) -> Tag {
    let position = (round + index) % swarm.tags;
    match swarm.fresh_tags {
        // A set of tags for each of the rounds that may overlap.
        true => Tag(position + swarm.tags * (round % FRESH_ROUNDS)),
        false => Tag(position),
    }
}

/// Rounds after which tags are used again.
const FRESH_ROUNDS: u64 = 5;

/// A call to which some members come rounds later than the others, in some rounds. If all that came
/// in time are gone by then, newcomers may know nothing of it: the program is wrong, and the late
/// ones may meet another call of the tag.
fn late(rng: &mut Rng, swarm: &Swarm, (group, round): (GroupId, u64)) -> Option<Logical> {
    let spared = swarm.healthy_group == Some(group.0);
    if spared || !rng.chance(swarm.late_permille) {
        return None;
    }
    let (tag, id) = (Tag(LATE_TAGS + round % LATE_ROUNDS), rng.bits());
    let mut late = logical(rng, swarm, group, (tag, id, true));
    late.fingerprint.attempts = 1;
    late.asynchronous = true;
    late.twist = None;
    late.late = rng.between(1, LATE_ROUNDS / 2);
    Some(late)
}

/// Tags of such calls.
const LATE_TAGS: u64 = 1_000;
/// Rounds after which such a tag is used again.
const LATE_ROUNDS: u64 = 8;

/// A sync of shared state, in some rounds.
fn sync(rng: &mut Rng, swarm: &Swarm, group: GroupId) -> Option<Logical> {
    if !rng.chance(swarm.sync_permille) {
        return None;
    }
    let (tag, id) = (Tag::SHARED_STATE, rng.bits());
    // What newcomers do not know cannot be retried with them.
    let asynchronous = rng.chance(150);
    let attempts = if asynchronous { 1 } else { u32::MAX };
    let parts = vec![NOTHING];
    let fingerprint = Fingerprint {
        attempts,
        min_world: swarm.min_world(group),
        ..Fingerprint::new(Called::Sync(Box::default()))
    };
    let spared = swarm.healthy_group == Some(group.0);
    let is_planned = !spared && rng.chance(swarm.planned_permille);
    let twist = is_planned.then(|| (twist(rng, Kind::SharedState), id));
    Some(Logical {
        id,
        tag,
        fingerprint,
        parts,
        in_place: true,
        asynchronous,
        twist,
        late: 0,
    })
}

/// The part of a call without elements.
const NOTHING: Part = Part {
    dtype: Dtype::U8,
    count: 0,
};

fn logical(
    rng: &mut Rng,
    swarm: &Swarm,
    group: GroupId,
    (tag, id, is_last): (Tag, u64, bool),
) -> Logical {
    let kinds = [
        Kind::AllReduce,
        Kind::AllReduce,
        Kind::AllReduce,
        Kind::AllReduce,
        Kind::Barrier,
        Kind::Broadcast,
        Kind::AllGather,
        Kind::ReduceScatter,
    ];
    let kind = kinds[rng.index(kinds.len())];
    let algorithm = [
        Algorithm::Auto,
        Algorithm::OneShot,
        Algorithm::TwoShot,
        Algorithm::Ring,
    ][rng.index(4)];
    let reduces = matches!(kind, Kind::AllReduce | Kind::ReduceScatter);
    let op = if reduces {
        reduce_op(rng, algorithm)
    } else {
        ReduceOp::Sum
    };
    let parts = parts(rng, swarm, kind);
    let asynchronous = is_last && rng.chance(250);
    let attempts = if asynchronous {
        1
    } else {
        rng.between(1, 4) as u32
    };
    let fingerprint = Fingerprint {
        algorithm,
        attempts,
        min_world: swarm.min_world(group),
        ..Fingerprint::new(called(kind, op, &parts))
    };
    let spared = swarm.healthy_group == Some(group.0);
    let twist = (!spared && rng.chance(swarm.planned_permille)).then(|| (twist(rng, kind), id));
    Logical {
        id,
        tag,
        fingerprint,
        parts,
        in_place: matches!(kind, Kind::Broadcast) || (kind == Kind::AllReduce && rng.chance(500)),
        asynchronous,
        twist,
        late: 0,
    }
}

/// Around the ring only results that do not depend on the order.
fn reduce_op(rng: &mut Rng, algorithm: Algorithm) -> ReduceOp {
    let any = ReduceOp::ALL[rng.index(5)];
    let ordered = matches!(any, ReduceOp::Prod);
    if algorithm == Algorithm::Ring && ordered {
        ReduceOp::Sum
    } else {
        any
    }
}

fn parts(rng: &mut Rng, swarm: &Swarm, kind: Kind) -> Vec<Part> {
    if kind == Kind::Barrier {
        return vec![NOTHING];
    }
    let many = kind == Kind::AllReduce && rng.chance(200);
    let dtype = Dtype::ALL[rng.index(Dtype::ALL.len())];
    (0..if many { rng.between(2, 4) } else { 1 })
        .map(|_| Part {
            dtype,
            count: match rng.below(8) {
                0 => 0,
                1 => 1,
                2 => swarm.count_max,
                _ => rng.between(0, swarm.count_max.min(200)),
            },
        })
        .collect()
}

/// A twist of one member for a call of this kind.
pub fn twist(rng: &mut Rng, kind: Kind) -> Twist {
    let after = rng.millis(0, 60);
    match rng.below(if kind == Kind::Barrier { 3 } else { 6 }) {
        0 => Twist::Cancel(after),
        1 => Twist::Deadline(after),
        2 => Twist::Twice,
        3 => Twist::Count,
        4 => Twist::Dtype,
        _ if matches!(kind, Kind::AllReduce | Kind::ReduceScatter) => Twist::Op,
        _ => Twist::Caller,
    }
}
