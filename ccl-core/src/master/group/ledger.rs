//! The outcome state of a group: the floor of each tag, and its open operation (R2, R3).
//!
//! Only the operation at a tag's floor can be open. `decision` decides the fate of an operation at
//! a view change; membership is the group's business.

use std::collections::BTreeMap;

use crate::ids::{OpName, OpNumber, PeerId, Tag};
use crate::limits;
use crate::master::group::View;
use crate::master::group::operation::OpenOp;
use crate::master::group::returns::Returns;
use crate::master::group::shared_state;
use crate::mutation::{Mutation, is_active};
use crate::time::Instant;
use crate::wire::control::{
    AbortReason, Birth, CancelReason, CommitRecord, Crossed, OpNote, Report, Sealed, StateId,
    TagFloor, TagReport,
};

/// What a group's members have called and how it ended.
#[derive(Debug, Default)]
pub struct Ledger {
    tags: BTreeMap<Tag, TagState>,
    open: BTreeMap<Tag, OpenOp>,
    /// Tags that are given back, and those that were.
    pub returns: Returns,
    /// The shared state that the newest committed sync sealed (R18).
    pub sealed_state: Option<StateId>,
    /// Number of that sync.
    pub sealed_by: Option<OpNumber>,
    /// Its members, if this master sealed it itself.
    pub sealers: Vec<PeerId>,
    /// Commits that members knew before the master, and that it has not sealed yet (R19).
    learned: Vec<CommitRecord>,
}

/// All operations of a tag below `floor` are decided.
#[derive(Debug, Default)]
struct TagState {
    floor: OpNumber,
    last_committed: Option<OpNumber>,
    reasons: BTreeMap<OpNumber, AbortReason>,
}

/// The view and the moment in which something is reported.
#[derive(Clone, Copy, Debug)]
pub struct InView<'a> {
    /// The newest view.
    pub view: &'a View,
    /// By the master's clock.
    pub now: Instant,
}

/// A message that no correct peer would send.
pub type Violation = String;

impl Ledger {
    /// A member called an operation.
    pub fn post(&mut self, from: PeerId, note: &OpNote, at: InView<'_>) -> Fact {
        shared_state::check_kind(note)?;
        let Some(open) = self.find(from, note.op, at)? else {
            return Ok(());
        };
        open.posted_by(from, &note.fingerprint, at.now);
        Ok(())
    }

    /// A member holds the whole result.
    pub fn done(&mut self, from: PeerId, note: &OpNote, at: InView<'_>) -> Fact {
        shared_state::check_kind(note)?;
        let Some(open) = self.find(from, note.op, at)? else {
            return Ok(());
        };
        if note.fingerprint.called.offer().is_some() && !matches!(open.elected, Some(Ok(_))) {
            return Err(format!(
                "it reported the result of {}, for which no content was elected",
                note.op
            ));
        }
        open.posted_by(from, &note.fingerprint, at.now);
        open.done.insert(from);
        Ok(())
    }

    /// A member of a resumed run reports what was elected for a sync.
    pub fn restate_elected(
        &mut self,
        from: PeerId,
        op: OpName,
        content: StateId,
        at: InView<'_>,
    ) -> Fact {
        if let Some(open) = self.find(from, op, at)? {
            open.elected.get_or_insert(Ok(content));
        }
        Ok(())
    }

    /// A member reports it too: it must have received the election that was made.
    pub fn check_elected(&self, op: OpName, heard: StateId) -> Fact {
        let open = self.open.get(&op.tag).filter(|open| open.op() == op);
        open.map_or(Ok(()), |open| shared_state::check_heard(open, heard))
    }

    /// A member wants an operation aborted. Ignored if it has not called it: a cancel never
    /// outlives the call that it belongs to.
    pub fn cancel(&mut self, from: PeerId, op: OpName, reason: CancelReason) {
        if let Some(open) = self.open.get_mut(&op.tag)
            && open.op() == op
            && open.posted.contains(&from)
        {
            open.cancels.entry(from).or_insert(reason);
        }
    }

    /// The open operation that a member names, created if it is the first to name it; `None` if it
    /// is decided.
    fn find(
        &mut self,
        from: PeerId,
        op: OpName,
        InView { view, now }: InView<'_>,
    ) -> Result<Option<&mut OpenOp>, Violation> {
        if op.n < self.floor(op.tag) {
            return Ok(None);
        }
        if op.n > self.floor(op.tag) {
            // Its sender has the verdicts of all before it.
            if op.birth != view.vid {
                return Err(format!("{op} cannot be born outside view {}", view.vid));
            }
            self.overtake(op.tag, op.n, InView { view, now })?;
        }
        if !self.open.contains_key(&op.tag) {
            self.begin(op, view, now)?;
        }
        let open = self
            .open
            .get_mut(&op.tag)
            .expect("it was found or made above");
        if open.op().birth != op.birth {
            return Err(format!(
                "{op:#} was reported, born in view {}",
                open.op().birth
            ));
        }
        if !open.members().contains(&from) {
            return Err(format!("it is not a member of {op}"));
        }
        Ok(Some(open))
    }

    /// Raises the floors to those of a member's report, before its open operations count.
    pub fn raise(&mut self, report: &Report, at: InView<'_>) -> Fact {
        for tag in &report.tags {
            let floor = self.floor(tag.tag);
            if tag.floor <= floor || self.returns.is_void(tag.tag, report.vid) {
                continue;
            }
            let below = tag.floor.0.checked_sub(1).map(OpNumber);
            if report.vid != at.view.vid || tag.last_committed != below {
                return Err(format!(
                    "operation {floor} of tag {} is not decided",
                    tag.tag
                ));
            }
            if !is_active(Mutation::HigherFloorIgnored) {
                self.overtake(tag.tag, tag.floor, at)?;
            }
        }
        Ok(())
    }

    /// A member knows that all operations of a tag below this one are committed (R19).
    fn overtake(&mut self, tag: Tag, floor: OpNumber, InView { view, now }: InView<'_>) -> Fact {
        if tag == Tag::SHARED_STATE {
            return Err(format!("a sync before {floor} is not decided"));
        }
        self.check_room(tag)?;
        self.wait_anew(tag, now);
        let n = OpNumber(floor.0 - 1);
        let open = self.open.remove(&tag).filter(|open| open.op().n == n);
        let birth = view.vid;
        let commit = match open {
            Some(open) => CommitRecord {
                op: open.op(),
                contributors: open.members().to_vec(),
                sealed: Sealed::Nothing,
            },
            None => CommitRecord {
                op: OpName { tag, n, birth },
                contributors: view.peers(),
                sealed: Sealed::Nothing,
            },
        };
        let state = self.tags.entry(tag).or_default();
        state.floor = floor;
        state.last_committed = Some(n);
        self.learned.push(commit);
        Ok(())
    }

    /// The commits that members knew before the master.
    pub fn take_learned(&mut self) -> Vec<CommitRecord> {
        std::mem::take(&mut self.learned)
    }

    fn check_room(&self, tag: Tag) -> Fact {
        let is_room = self.tags.contains_key(&tag) || self.tags.len() < limits::TAGS_MAX;
        is_room.then_some(()).ok_or_else(|| {
            let most = limits::TAGS_MAX;
            format!("more than {most} tags")
        })
    }

    fn begin(&mut self, op: OpName, view: &View, now: Instant) -> Fact {
        if op.birth != view.vid {
            return Err(format!("{op} cannot be born outside view {}", view.vid));
        }
        self.check_room(op.tag)?;
        self.tags.entry(op.tag).or_default();
        let birth = Birth {
            op,
            members: view.members.iter().map(|member| member.peer).collect(),
            ring_order: view.ring_order.clone().into(),
            costs: view.costs,
        };
        self.open.insert(op.tag, OpenOp::new(birth, now));
        Ok(())
    }

    pub fn floor(&self, tag: Tag) -> OpNumber {
        self.tags.get(&tag).map_or(OpNumber(0), |state| state.floor)
    }

    /// Every tag with its floor.
    pub fn tags(&self) -> impl Iterator<Item = (Tag, OpNumber)> {
        self.tags.iter().map(|(tag, state)| (*tag, state.floor))
    }

    /// Number of tags.
    pub fn count(&self) -> usize {
        self.tags.len()
    }

    /// Forgets how the operations of a tag ended. None is open.
    pub fn forget_tag(&mut self, tag: Tag) {
        assert!(
            !self.open.contains_key(&tag),
            "a tag with an open operation is not at rest"
        );
        self.tags.remove(&tag);
    }

    pub fn open(&self) -> impl Iterator<Item = &OpenOp> {
        self.open.values()
    }

    pub fn open_of(&self, tag: Tag) -> Option<&OpenOp> {
        self.open.get(&tag)
    }

    pub fn open_mut(&mut self, tag: Tag) -> Option<&mut OpenOp> {
        self.open.get_mut(&tag)
    }

    /// Tags whose open operation every member finished.
    pub fn complete(&self) -> Vec<Tag> {
        let complete = self.open.values().filter(|open| open.is_complete());
        complete.map(|open| open.op().tag).collect()
    }

    /// Whether a member wants an operation aborted.
    pub fn wants_abort(&self) -> bool {
        self.open.values().any(OpenOp::is_to_end)
    }

    /// Notes that members wait for each other in a tag's open operation and in another call.
    pub fn cross(&mut self, tag: Tag, crossed: Crossed) {
        if let Some(open) = self.open.get_mut(&tag) {
            open.crossed = Some(crossed);
        }
    }

    /// A tag's open operation is about to end.
    pub fn wait_anew(&mut self, tag: Tag, now: Instant) {
        let Some(ended) = self.open.get(&tag).cloned() else {
            return;
        };
        self.open
            .values_mut()
            .for_each(|open| open.note_end(&ended, now));
    }

    /// Seals the success of a tag's open operation.
    pub fn commit(&mut self, tag: Tag) -> CommitRecord {
        let open = self
            .open
            .remove(&tag)
            .expect("only open operations are committed");
        let state = self.tags.entry(tag).or_default();
        state.advance(open.op().n);
        state.last_committed = Some(open.op().n);
        let sealed = Sealed::from(
            open.elected
                .as_ref()
                .and_then(|it| it.as_ref().ok())
                .copied(),
        );
        if let Sealed::State(content) = sealed {
            self.sealed_state = Some(content);
            self.sealed_by = Some(open.op().n);
            self.sealers = open.members().iter().copied().collect();
        }
        CommitRecord {
            op: open.op(),
            contributors: open.members().to_vec(),
            sealed,
        }
    }

    /// Seals the failure of a tag's open operation.
    pub fn abort(&mut self, tag: Tag, reason: AbortReason) {
        let open = self
            .open
            .remove(&tag)
            .expect("only open operations are aborted");
        let state = self.tags.entry(tag).or_default();
        state.advance(open.op().n);
        state.note_reason(open.op().n, reason);
    }

    /// The open operation is carried into the next view.
    pub fn carry(&mut self, tag: Tag) {
        let open = self
            .open
            .get_mut(&tag)
            .expect("only open operations are carried");
        open.carried = true;
    }

    /// As if the open operation had never been called, its cancels included (R4).
    pub fn forget(&mut self, tag: Tag) {
        if !is_active(Mutation::StickyCancel) {
            self.open.remove(&tag);
        }
    }

    /// Adds what a peer reports to a restarted master about how a tag's operations ended. The
    /// newest information counts.
    pub fn learn(&mut self, report: &TagReport) -> Fact {
        self.check_room(report.tag)?;
        let state = self.tags.entry(report.tag).or_default();
        state.floor = state.floor.max(report.floor);
        if report.last_committed > state.last_committed {
            state.last_committed = report.last_committed;
        }
        let below = report.floor.0.checked_sub(1).map(OpNumber);
        if let (Some(n), Some(reason)) = (below, &report.aborted) {
            state.note_reason(n, reason.clone());
        }
        Ok(())
    }

    /// Adds the floors of a sealed view, with the reasons of the newest aborts, and the sealed
    /// shared state.
    pub fn restore(&mut self, floors: &[TagFloor], sealed_state: Option<StateId>) {
        let is_forgotten = is_active(Mutation::SealedStateForgotten);
        self.sealed_state = sealed_state.filter(|_| !is_forgotten);
        for known in floors {
            if known.tag == Tag::SHARED_STATE {
                self.sealed_by = known.last_committed;
            }
            let state = self.tags.entry(known.tag).or_default();
            state.floor = known.floor;
            state.last_committed = known.last_committed;
            state.reasons = known.reasons.iter().cloned().collect();
        }
    }

    /// Adds an operation that was carried into the newest view.
    pub fn resume(&mut self, carried: &Birth, now: Instant) {
        if carried.op.n != self.floor(carried.op.tag) {
            return;
        }
        let mut open = OpenOp::new(carried.clone(), now);
        open.carried = true;
        self.tags.entry(carried.op.tag).or_default();
        self.open.insert(carried.op.tag, open);
    }

    /// The outcome state of every tag, with as many reasons of aborts as a message has room for:
    /// the newest of each tag first.
    pub fn floors(&self) -> Vec<TagFloor> {
        let floor = |(tag, state): (&Tag, &TagState)| TagFloor {
            tag: *tag,
            floor: state.floor,
            last_committed: state.last_committed,
            reasons: Vec::new(),
        };
        let mut floors: Vec<_> = self.tags.iter().map(floor).collect();
        let mut room = limits::ABORT_REASONS_BYTES_MAX;
        for age in 0..limits::ABORT_REASONS_MAX {
            for (floor, state) in floors.iter_mut().zip(self.tags.values()) {
                let Some((n, reason)) = state.reasons.iter().nth_back(age) else {
                    continue;
                };
                let Some(left) = room.checked_sub(reason.bytes_max()) else {
                    return floors;
                };
                room = left;
                floor.reasons.insert(0, (*n, reason.clone()));
            }
        }
        floors
    }

    /// Operations that were carried into the present view.
    pub fn carried(&self) -> Vec<Birth> {
        let carried = self.open.values().filter(|open| open.carried);
        carried.map(|open| open.birth.clone()).collect()
    }
}

type Fact = Result<(), Violation>;

impl TagState {
    fn advance(&mut self, decided: OpNumber) {
        assert_eq!(
            decided, self.floor,
            "operations of a tag are decided in order (I7)"
        );
        self.floor = decided.next();
    }
}

impl TagState {
    fn note_reason(&mut self, n: OpNumber, reason: AbortReason) {
        self.reasons.entry(n).or_insert(reason);
        if self.reasons.len() > limits::ABORT_REASONS_MAX {
            self.reasons.pop_first();
        }
    }
}
