//! Random loss of segments.
//!
//! Each segment is lost with the same probability, independently of the others. The distance to the
//! next loss is drawn in advance, so segments between losses cost nothing.

use std::ops::Range;

/// Which segments of a link are lost.
#[derive(Clone, Debug)]
pub struct Loss {
    probability: f64,
    /// Segments that pass before the next is lost; `None` if none ever is.
    until_next: Option<u64>,
    /// Segments lost so far.
    pub lost_segments: u64,
}

impl Loss {
    /// Loses nothing.
    pub const fn none() -> Self {
        Self {
            probability: 0.0,
            until_next: None,
            lost_segments: 0,
        }
    }

    /// Sets the probability, 0 to 1.
    pub fn set(&mut self, probability: f64, random: &mut fastrand::Rng) {
        self.probability = probability;
        self.until_next = distance(probability, random);
    }

    /// Runs of survivors among so many segments, in order.
    pub fn survivors(&mut self, segments: u64, random: &mut fastrand::Rng) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut start = 0;
        while let Some(passing) = self.until_next.filter(|count| *count < segments - start) {
            if passing > 0 {
                runs.push(start..start + passing);
            }
            start += passing + 1;
            self.lost_segments += 1;
            self.until_next = distance(self.probability, random);
        }
        if start < segments {
            runs.push(start..segments);
            self.until_next = self.until_next.map(|count| count - (segments - start));
        }
        runs
    }
}

/// How many segments pass before one is lost: geometrically distributed.
fn distance(probability: f64, random: &mut fastrand::Rng) -> Option<u64> {
    if probability <= 0.0 {
        return None;
    }
    if probability >= 1.0 {
        return Some(0);
    }
    // Above 0, so that its logarithm is finite.
    let uniform = 1.0 - random.f64();
    Some((uniform.ln() / (-probability).ln_1p()) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loss(probability: f64, random: &mut fastrand::Rng) -> Loss {
        let mut loss = Loss::none();
        loss.set(probability, random);
        loss
    }

    #[test]
    fn nothing_or_everything_is_lost() {
        let random = &mut fastrand::Rng::with_seed(1);
        let runs = Loss::none().survivors(45, random);
        assert_eq!(runs.first(), Some(&(0..45)));
        let runs = loss(0.0, random).survivors(45, random);
        assert_eq!(runs.first(), Some(&(0..45)));
        let mut all = loss(1.0, random);
        assert!(all.survivors(45, random).is_empty());
        assert_eq!(all.lost_segments, 45);
    }

    #[test]
    fn the_share_lost_is_the_probability() {
        let random = &mut fastrand::Rng::with_seed(7);
        for probability in [0.001, 0.01, 0.3] {
            let mut loss = loss(probability, random);
            let segments = 2_000_000;
            for _ in 0..segments / 40 {
                let _ = loss.survivors(40, random);
            }
            let share = loss.lost_segments as f64 / f64::from(segments);
            assert!((share / probability - 1.0).abs() < 0.1, "{share}");
        }
    }

    proptest! {
        /// Survivors are runs in order, and every segment survives or is counted.
        #[test]
        fn every_segment_is_accounted_for(
            seed: u64,
            probability in 0.0_f64..1.0,
            packets in prop::collection::vec(1_u64..46, 1..100),
        ) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut loss = loss(probability, random);
            for segments in packets {
                let before = loss.lost_segments;
                let runs = loss.survivors(segments, random);
                let mut at = 0;
                for (index, run) in runs.iter().enumerate() {
                    prop_assert!(run.start < run.end);
                    prop_assert!(run.start >= at && (index == 0 || run.start > at));
                    at = run.end;
                }
                prop_assert!(at <= segments);
                let surviving: u64 = runs.iter().map(|run| run.end - run.start).sum();
                prop_assert_eq!(surviving + loss.lost_segments - before, segments);
            }
        }
    }
}
