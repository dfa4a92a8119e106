//! Which images each member learns from in each step.
//!
//! A function of seed, step, rank and world size, so that it need not be communicated.

use super::train::Random;

/// Images of one step, over all members.
pub const BATCH: usize = 128;

/// The order of the images in each epoch.
#[derive(Clone, Debug)]
pub struct Schedule {
    orders: Vec<Vec<usize>>,
    steps_per_epoch: usize,
}

impl Schedule {
    /// So many passes over so many images. Images that do not fill a batch are left out of an
    /// epoch, others each time.
    pub fn new(seed: u64, epochs: usize, images: usize) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let orders = (0..epochs).map(|_| shuffled(images, &mut random)).collect();
        Self {
            orders,
            steps_per_epoch: images / BATCH,
        }
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.orders.len() * self.steps_per_epoch
    }

    /// Steps of one pass.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The images of the member of this rank: all ranks together have the whole batch, each once.
    /// After the last pass comes the first again.
    pub fn shard(&self, step: usize, rank: usize, world_size: usize) -> &[usize] {
        let order = &self.orders[step / self.steps_per_epoch % self.orders.len()];
        let batch = &order[step % self.steps_per_epoch * BATCH..][..BATCH];
        &batch[BATCH * rank / world_size..BATCH * (rank + 1) / world_size]
    }
}

/// Fisher and Yates.
fn shuffled(length: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    for end in (1..length).rev() {
        order.swap(end, random.below(end + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_any_world_make_up_the_batch() {
        let schedule = Schedule::new(1, 2, 300);
        assert_eq!((schedule.steps(), schedule.steps_per_epoch()), (4, 2));
        for world_size in 1..=7 {
            let shards: Vec<usize> = (0..world_size)
                .flat_map(|rank| schedule.shard(3, rank, world_size).to_vec())
                .collect();
            assert_eq!(shards, schedule.shard(3, 0, 1));
        }
    }

    #[test]
    fn after_the_last_pass_comes_the_first_again() {
        let schedule = Schedule::new(1, 2, 300);
        assert_eq!(schedule.shard(5, 0, 1), schedule.shard(1, 0, 1));
        assert_ne!(schedule.shard(2, 0, 1), schedule.shard(0, 0, 1));
    }

    #[test]
    fn an_epoch_has_no_image_twice() {
        let schedule = Schedule::new(1, 1, 300);
        let mut seen: Vec<usize> = (0..2)
            .flat_map(|step| schedule.shard(step, 0, 1).to_vec())
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2 * BATCH);
    }
}
