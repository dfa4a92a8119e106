//! Finds the smallest history that still fails: a failing seed with as few faults and features as
//! possible.
//!
//! A seed decides everything, so a history cannot be cut by hand. But a seed can be run with fewer
//! faults, without some of them, and without whole features. Each step is kept if the seed still
//! fails, however it fails.

use std::collections::BTreeSet;

use super::cluster::World;
use super::run::{Failure, Outcome, run_prepared};
use super::swarm::Swarm;
use super::trace::Trace;

/// A seed, and what is left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// The seed.
    pub seed: u64,
    /// Most faults; `None`: as many as the seed draws.
    pub faults: Option<usize>,
    /// Faults that are left out, by number from 1.
    pub skipped: BTreeSet<usize>,
    /// Features that are left out.
    pub without: BTreeSet<Feature>,
}

/// What can be left out of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Feature {
    /// Messages that take ten times as long.
    Tails,
    /// Syncs of shared state.
    Syncs,
    /// Records.
    Records,
    /// Calls that do not match, deadlines that pass, invalid calls.
    Twists,
    /// More than one call of a tag in a round.
    Calls,
    /// More than one tag.
    Tags,
    /// More than one lane a link.
    Lanes,
    /// Delayed additions and arrivals.
    Laziness,
    /// Operations of more than three elements.
    Sizes,
}

impl Variant {
    /// The whole seed.
    #[must_use]
    pub fn whole(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What was wrong, with the last events if the trace keeps them.
    pub fn run(&self, trace: Trace) -> Result<Outcome, Box<Failure>> {
        let mut swarm = Swarm::new(self.seed);
        for feature in &self.without {
            feature.leave_out(&mut swarm);
        }
        swarm.faults = self
            .faults
            .map_or(swarm.faults, |most| most.min(swarm.faults));
        let mut world = World::new(swarm, trace);
        world.plan.skipped.clone_from(&self.skipped);
        run_prepared(world)
    }

    /// Whether it fails.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.run(Trace::new(false, false)).is_err()
    }

    /// The smallest variant of this one that still fails: first with as few faults as possible,
    /// then without each of the rest, then without each feature.
    #[must_use]
    pub fn shrunk(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut smallest = self.clone();
        for faults in 0..Swarm::new(self.seed).faults {
            let fewer = Self {
                faults: Some(faults),
                ..smallest.clone()
            };
            if fails(&fewer) {
                smallest = fewer;
                break;
            }
        }
        let drawn = smallest.faults.unwrap_or(Swarm::new(self.seed).faults);
        for number in 1..=drawn {
            let mut without = smallest.clone();
            without.skipped.insert(number);
            if fails(&without) {
                smallest = without;
            }
        }
        for feature in <Feature as clap::ValueEnum>::value_variants() {
            let mut without = smallest.clone();
            without.without.insert(*feature);
            if fails(&without) {
                smallest = without;
            }
        }
        smallest
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut words = format!(
            "cargo run --release -p ccl-tests --bin simulate -- --seed {} --verbose",
            self.seed
        );
        if let Some(faults) = self.faults {
            words += &format!(" --faults {faults}");
        }
        for number in &self.skipped {
            words += &format!(" --skip {number}");
        }
        for feature in &self.without {
            let value = clap::ValueEnum::to_possible_value(feature);
            let value = value.expect("no feature is hidden");
            words += &format!(" --without {}", value.get_name());
        }
        words
    }
}

impl Feature {
    fn leave_out(self, swarm: &mut Swarm) {
        match self {
            Self::Tails => swarm.tail_permille = 0,
            Self::Syncs => swarm.sync_permille = 0,
            Self::Records => swarm.record_permille = 0,
            Self::Twists => swarm.planned_permille = 0,
            Self::Calls => swarm.calls_per_round = 1,
            Self::Tags => swarm.tags = 1,
            Self::Lanes => swarm.lanes = 1,
            Self::Laziness => swarm.lazy_permille = 0,
            Self::Sizes => swarm.count_max = swarm.count_max.min(3),
        }
    }
}
