//! Who fails when, decided by the seed.

use super::notes::{Fault, FaultSignal};
use super::train::Random;
use super::trainer::SAFE_POINT_STEPS;

/// Most deaths of the master.
pub const RESTARTS_MAX: usize = RESTART_SHARES.len();

/// The faults of one demonstration.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Fault of each process.
    pub faults: Vec<Option<Fault>>,
    /// Newcomers, in the order in which they come.
    pub visits: Vec<Visit>,
    /// Step after which the stopped process, which came back as a newcomer, leaves.
    pub return_leaves: usize,
    /// Steps after which the master is killed, in order.
    pub master_kills: Vec<usize>,
}

/// The stay of a newcomer. It may come and go later, but trains before it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Step after which it is started.
    pub joins: usize,
    /// Step after which it is told to leave.
    pub leaves: usize,
}

impl Plan {
    /// One process is killed in the third quarter of the first half, another is stopped in the
    /// third quarter of the whole, at a share of an operation's bytes that leaves room on both
    /// sides. Newcomers come before, between and after.
    pub fn new(seed: u64, peers: usize, steps: usize) -> Self {
        let mut random = Random::new(seed ^ 0xfa17);
        let mut faults = vec![None; peers];
        let killed = random.below(peers);
        let stopped = (killed + 1 + random.below(peers - 1)) % peers;
        let mut fault = |signal, step| {
            Some(Fault {
                signal,
                step,
                share: 0.05 + 0.35 * random.next_share(),
            })
        };
        faults[killed] = fault(FaultSignal::Kill, steps / 4);
        faults[stopped] = fault(FaultSignal::Stop, steps / 2);
        for fault in faults.iter_mut().flatten() {
            fault.step += random.below(steps / 8);
        }
        let at = |share: f64| (share * steps as f64) as usize;
        let visits = VISIT_SHARES.map(|(joins, leaves)| Visit {
            joins: at(joins),
            leaves: at(leaves),
        });
        Self {
            faults,
            visits: visits.to_vec(),
            return_leaves: at(RETURN_SHARE),
            master_kills: Vec::new(),
        }
    }

    /// Nobody fails, comes or goes.
    pub fn without_faults(peers: usize) -> Self {
        Self {
            faults: vec![None; peers],
            visits: Vec::new(),
            return_leaves: 0,
            master_kills: Vec::new(),
        }
    }

    /// Lets the master die so many times, at most [`RESTARTS_MAX`]: each time just after a sync, so
    /// that some steps follow that need no master.
    pub fn with_master_kills(mut self, kills: usize, steps: usize) -> Self {
        let mut at: Vec<usize> = RESTART_SHARES
            .iter()
            .take(kills)
            .map(|share| (share * steps as f64) as usize)
            .map(|step| step - step % SAFE_POINT_STEPS as usize)
            .collect();
        at.sort_unstable();
        self.master_kills = at;
        self
    }
}

/// Where in the training newcomers come and go.
const VISIT_SHARES: [(f64, f64); 3] = [(0.05, 0.35), (0.3, 0.6), (0.66, 0.85)];
/// Where the process leaves that was stopped, evicted and came back.
const RETURN_SHARE: f64 = 0.9;
/// Where in the training the master dies: apart from each other, and from the peers' faults.
const RESTART_SHARES: [f64; 5] = [0.08, 0.42, 0.75, 0.17, 0.88];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_killed_and_another_is_stopped_later() {
        for seed in 0..200 {
            for peers in 3..6 {
                let plan = Plan::new(seed, peers, 154);
                let of = |signal| {
                    plan.faults
                        .iter()
                        .flatten()
                        .find(|fault| fault.signal == signal)
                };
                let killed = of(FaultSignal::Kill).unwrap();
                let stopped = of(FaultSignal::Stop).unwrap();
                assert_eq!(plan.faults.iter().flatten().count(), 2);
                assert!(killed.step < stopped.step && stopped.step < 154);
                let is_stay = |visit: &Visit| visit.joins < visit.leaves && visit.leaves < 154;
                assert!(plan.visits.iter().all(is_stay));
                assert!(
                    [killed, stopped]
                        .iter()
                        .all(|fault| fault.share > 0.0 && fault.share < 1.0)
                );
            }
        }
    }

    #[test]
    fn equal_seeds_make_equal_plans() {
        assert_eq!(Plan::new(9, 4, 100), Plan::new(9, 4, 100));
        assert!((0..20).any(|seed| Plan::new(seed, 4, 100) != Plan::new(9, 4, 100)));
    }

    #[test]
    fn the_master_dies_as_often_as_asked_in_order() {
        let plan = Plan::without_faults(4).with_master_kills(3, 100);
        assert_eq!(plan.master_kills, [5, 40, 75]);
    }
}
