//! Deliberate bugs, one at a time, and how many seeds it takes to notice each.
//!
//! Built with `--cfg ccl_mutations` only. A bug that no checker notices shows a hole in them.

use ccl_core::mutation::{Mutation, activate};

use super::run::run_seed_traced;

/// Bugs that seeds notice.
pub const ALL: [Mutation; 71] = [
    Mutation::CommitOnAllButOne,
    Mutation::TellAtInstall,
    Mutation::EvictedToldAborted,
    Mutation::LocalReturnOnCancel,
    Mutation::PostAfterFlush,
    Mutation::AttachReplyWithoutFloors,
    Mutation::AdmitWithoutFlush,
    Mutation::UnnumberedSafePoint,
    Mutation::StickyCancel,
    Mutation::DropAttachOfEvicted,
    Mutation::CarriedTakesNewView,
    Mutation::NoTerm,
    Mutation::NoBirthCheck,
    Mutation::RetryAfterCancel,
    Mutation::InvalidCallTakesNumber,
    Mutation::CreditWhenPosted,
    Mutation::ResendFromOverwritten,
    Mutation::FingerprintSkippedWhenDone,
    Mutation::EmptyMasterFounds,
    Mutation::GroupsWaitForEachOther,
    Mutation::BlameFirstTarget,
    Mutation::ElectBeforeAllPosted,
    Mutation::ElectionNotRepeated,
    Mutation::HalfWrittenCounts,
    Mutation::PopularBeatsSealed,
    Mutation::AheadFailsAll,
    Mutation::SealedStateForgotten,
    Mutation::GroupsCountedOnce,
    Mutation::UnitAdmittedByHalves,
    Mutation::UnitPointOfEachGroup,
    Mutation::UnitsFoundedApart,
    Mutation::TagGivenBackTooEarly,
    Mutation::ReturnsNamedOnce,
    Mutation::EarlierTagHeard,
    Mutation::PostsOrderedByNumber,
    Mutation::FoundersFirstCome,
    Mutation::LateHelloHeard,
    Mutation::UnitOutlivesPeer,
    Mutation::PauseCounts,
    Mutation::DeafMasterJudges,
    Mutation::LossOfAnybody,
    Mutation::ReplyOpensAgain,
    Mutation::AbortKeepsMemory,
    Mutation::CancelNotSaid,
    Mutation::VerdictAwaitedForEver,
    Mutation::SafePointToldEarly,
    Mutation::NewcomerOverlooked,
    Mutation::OlderJournalTrusted,
    Mutation::ClosedFoundedShort,
    Mutation::ClosedInOrderOfComing,
    Mutation::ClosedLetsIn,
    Mutation::UsedIdForgotten,
    Mutation::HeldAfterFlush,
    Mutation::AgreedByAllButOne,
    Mutation::HigherFloorIgnored,
    Mutation::HigherFloorNotTold,
    Mutation::LeaseIgnored,
    Mutation::SafePointSaidAfterFlush,
    Mutation::AheadBeyondReserve,
    Mutation::ReserveFreedEarly,
    Mutation::ReserveKeptAfterAbort,
    Mutation::OneShotOwnFirst,
    Mutation::RecordSealedShort,
    Mutation::RecordSealedLazily,
    Mutation::ChainForgotten,
    Mutation::ShorterChainTaken,
    Mutation::EntryNotRestated,
    Mutation::LateEntryTwice,
    Mutation::RecordsNotSentAgain,
    Mutation::NewcomerAtStepZero,
    Mutation::EntryOfLostKept,
];

/// Bugs that only scripts notice (`scenarios_journal.rs`, `scenarios_state`,
/// `scenarios_closed.rs`, `scenarios_agreement.rs` and `scenarios_records.rs` in `tests/tests`).
/// They matter only after two faults that a seed hardly has in the right order, or after faults
/// that disable the checks of a seed, or they only cost time.
pub const SCRIPTED: [Mutation; 12] = [
    Mutation::NewerReportIgnored,
    Mutation::DoubtForgotten,
    Mutation::SealedStateLazy,
    Mutation::InstalledWithoutFacts,
    Mutation::ClosedNotSealed,
    Mutation::LeaseOutlived,
    Mutation::SummonedTooEarly,
    Mutation::SaidSafePointIgnored,
    Mutation::RecordDeadlineIgnored,
    Mutation::RecordToldAlone,
    Mutation::RecordReleasedByOne,
    Mutation::AdmissionWithoutSteps,
];

/// The result for one bug.
#[derive(Debug)]
pub struct Verdict {
    /// The bug.
    pub mutation: Mutation,
    /// The seed that noticed it, and how many ran before.
    pub seed: Option<u64>,
    /// How many seeds ran.
    pub seeds: u64,
    /// The failure.
    pub what: String,
}

/// The bug of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<Mutation> {
    ALL.into_iter()
        .chain(SCRIPTED)
        .find(|mutation| format!("{mutation:?}").eq_ignore_ascii_case(name))
}

/// Runs seeds with one bug until one fails.
#[must_use]
pub fn hunt(mutation: Mutation, seeds: std::ops::Range<u64>) -> Verdict {
    activate(Some(mutation));
    let first = seeds.start;
    let mut verdict = Verdict {
        mutation,
        seed: None,
        seeds: 0,
        what: String::new(),
    };
    for seed in seeds {
        verdict.seeds = seed - first + 1;
        if let Err(failure) = run_seed_traced(seed, false) {
            verdict.seed = Some(seed);
            verdict.what = failure.what;
            break;
        }
    }
    activate(None);
    verdict
}
