//! Deliberate bugs that measure the tests (docs/simulation.md).
//!
//! Built only with `--cfg ccl_mutations`: the simulator switches one on at a time, on its own
//! thread, and must notice it. In every other build `is_active` is a constant `false`.

/// One deliberate bug each; see docs/protocol.md for the rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Mutation {
    /// The master commits when all but one member said `Done`.
    CommitOnAllButOne,
    /// A peer tells outcomes decided at a view change at `Install`, without waiting for `Release`.
    TellAtInstall,
    /// An evicted peer tells its open calls "aborted" instead of "unknown".
    EvictedToldAborted,
    /// A cancelled call returns at once instead of waiting for the verdict.
    LocalReturnOnCancel,
    /// A peer goes on posting after it has flushed.
    PostAfterFlush,
    /// The reply to an `Attach` carries no floors.
    AttachReplyWithoutFloors,
    /// `Installed` carries no facts about open operations.
    InstalledWithoutFacts,
    /// A newcomer is admitted without a flush of the old members.
    AdmitWithoutFlush,
    /// Safe points are not numbered: whether anybody waits is answered call by call.
    UnnumberedSafePoint,
    /// A cancel of an operation that nobody surviving posted is kept.
    StickyCancel,
    /// An `Attach` of somebody evicted is not answered.
    DropAttachOfEvicted,
    /// A member that posts a carried operation late uses the new view as its birth.
    CarriedTakesNewView,
    /// The term stays the same when a master restarts.
    NoTerm,
    /// Data frames are accepted whatever their birth view.
    NoBirthCheck,
    /// A cancelled operation is repeated by the library.
    RetryAfterCancel,
    /// A call that was refused as invalid uses up a number.
    InvalidCallTakesNumber,
    /// Credits are given when the receiver has posted, not when all members have.
    CreditWhenPosted,
    /// After a lane repair contributions are read from memory that results were written to.
    ResendFromOverwritten,
    /// A fingerprint that arrives when the own operation is done is not compared.
    FingerprintSkippedWhenDone,
    /// A master without history founds a run at once.
    EmptyMasterFounds,
    /// A view change of one group waits for the members of another.
    GroupsWaitForEachOther,
    /// The target of the first report of a broken link is evicted.
    BlameFirstTarget,
    /// An election is made although some member has not posted.
    ElectBeforeAllPosted,
    /// An election is not said again after the reply to an `Attach`.
    ElectionNotRepeated,
    /// A half-written state counts as whole.
    HalfWrittenCounts,
    /// What most have wins over the sealed content of the same revision.
    PopularBeatsSealed,
    /// A member that is too far ahead fails the sync for all, however few have such a content.
    AheadFailsAll,
    /// What a sync sealed is sent before it is on disk.
    SealedStateLazy,
    /// A restarted master does not know what was sealed.
    SealedStateForgotten,
    /// Members are counted when the master starts, and not after.
    GroupsCountedOnce,
    /// A unit's peers do not wait for each other.
    UnitAdmittedByHalves,
    /// A unit enters each of its groups at the first safe point that this one has not seen.
    UnitPointOfEachGroup,
    /// Groups that a unit founds go on with the safe points that each has counted.
    UnitsFoundedApart,
    /// A tag is given back although a member has not made all calls that the others have made.
    TagGivenBackTooEarly,
    /// Only the next `Install` names the tags that were given back.
    ReturnsNamedOnce,
    /// What a member says of a tag as it was before it was given back counts.
    EarlierTagHeard,
    /// Of two posts of a tag the one with the higher number is the newer one.
    PostsOrderedByNumber,
    /// Of newcomers that are not all linked with each other, those that came first are taken.
    FoundersFirstCome,
    /// A hello counts although its process was heard over a newer connection.
    LateHelloHeard,
    /// The loss of one peer of a unit leaves the others in.
    UnitOutlivesPeer,
    /// Time in which a machine did not run counts as the silence of others.
    PauseCounts,
    /// A master that hears no member at all evicts them all.
    DeafMasterJudges,
    /// An operation is aborted for the loss of somebody who is no member of it.
    LossOfAnybody,
    /// The reply to an `Attach` never says that the view has ended.
    ReplyOpensAgain,
    /// The bytes of an aborted operation are not stopped.
    AbortKeepsMemory,
    /// A cancel is not said to the master until there is a view change.
    CancelNotSaid,
    /// A verdict that does not come is waited for for ever.
    VerdictAwaitedForEver,
    /// A safe point that admitted a peer is answered before its view is released.
    SafePointToldEarly,
    /// Every other safe point lets nobody in.
    NewcomerOverlooked,
    /// A journal is taken for the newest, whatever its marker says.
    OlderJournalTrusted,
    /// A report that knows more than the journal does not cast doubt on it.
    NewerReportIgnored,
    /// A restarted master does not know that its journal was doubted.
    DoubtForgotten,
    /// A closed group forms without one of its members.
    ClosedFoundedShort,
    /// The members of a closed group are ranked in the order in which they connected.
    ClosedInOrderOfComing,
    /// A closed group lets newcomers in.
    ClosedLetsIn,
    /// The id of a closed group may be used again once its members are gone.
    UsedIdForgotten,
    /// The next master does not know that a group is closed.
    ClosedNotSealed,
    /// A peer says that it holds a result although its report has said that it does not.
    HeldAfterFlush,
    /// An operation counts as committed although one member has not said that it holds it.
    AgreedByAllButOne,
    /// The master ignores floors above its own in reports.
    HigherFloorIgnored,
    /// A floor that the master learns from a report is not passed on.
    HigherFloorNotTold,
    /// A group is founded anew while its last members may be at work without the master.
    LeaseIgnored,
    /// A newcomer is admitted at a safe point that members may have taken for unchanged.
    SaidSafePointIgnored,
    /// A peer says that it is at a safe point although its report has said that it is not.
    SafePointSaidAfterFlush,
    /// A restarted master has each member attach as soon as it is back.
    SummonedTooEarly,
    /// A member that has not heard the master for long still knows verdicts.
    LeaseOutlived,
    /// A member sends more ahead of credits than its receivers' reserve takes.
    AheadBeyondReserve,
    /// What came ahead of an operation gives way when the first segment of it is added.
    ReserveFreedEarly,
    /// What came ahead of an aborted operation stays in the reserve.
    ReserveKeptAfterAbort,
    /// In a one-shot each member adds its own input first.
    OneShotOwnFirst,
    /// A step is sealed although one of three members or more has given nothing.
    RecordSealedShort,
    /// Deadlines of records mean nothing.
    RecordDeadlineIgnored,
    /// A record is sent before it is on disk.
    RecordSealedLazily,
    /// A caller is told of a record that only its own peer may have.
    RecordToldAlone,
    /// Without a journal a record is released when one member has it.
    RecordReleasedByOne,
    /// A restarted master does not know the records in its journal.
    ChainForgotten,
    /// A restarted master takes the records of the first member that it asks.
    ShorterChainTaken,
    /// What a member gave is not in its reports.
    EntryNotRestated,
    /// A late entry is in more than one record.
    LateEntryTwice,
    /// Records that a member has missed are not sent again.
    RecordsNotSentAgain,
    /// A newcomer begins each stream at its first step.
    NewcomerAtStepZero,
    /// A newcomer that learns late of its admission begins where the streams stand then.
    AdmissionWithoutSteps,
    /// What a lost member gave stays in the open step.
    EntryOfLostKept,
}

#[cfg(ccl_mutations)]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, or all off.
    pub fn activate(mutation: Option<Mutation>) {
        ACTIVE.set(mutation);
    }

    /// Whether this bug is switched on.
    #[must_use]
    pub fn is_active(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }
}

#[cfg(ccl_mutations)]
pub use switch::{activate, is_active};

/// Whether this bug is switched on: never, in this build.
#[cfg(not(ccl_mutations))]
#[must_use]
#[inline(always)]
pub const fn is_active(_mutation: Mutation) -> bool {
    false
}
