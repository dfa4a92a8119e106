//! One fetch in virtual time, from sources with different rates and faults.

use std::time::Duration;

use super::*;
use crate::ids::Revision;
use crate::reduce::Dtype;
use crate::state::source::WINDOW_MAX;
use crate::state::{BLOCK_BYTES, Key, block_digest, keys_digest};

/// One source: it answers in order, so many bytes a second, after half a round trip each way.
#[derive(Clone, Copy, Debug)]
struct Giver {
    rate: f64,
    round_trip: Duration,
    /// Bytes after which it is dead.
    dies_after: u64,
    lies: bool,
}

const HONEST: Giver = Giver {
    rate: 1e9,
    round_trip: Duration::from_millis(1),
    dies_after: u64::MAX,
    lies: false,
};

struct Bench {
    fetch: Fetch,
    layout: Arc<Blocks>,
    content: Vec<Digest>,
    givers: BTreeMap<PeerId, (Giver, Instant, u64)>,
    /// Answers on their way, by time of arrival.
    answers: BTreeMap<(Instant, u64), Order>,
    now: Instant,
    received: BTreeMap<PeerId, u64>,
    order: u64,
}

fn keys(lengths: &[u64]) -> Vec<Key> {
    let key = |(index, length): (usize, &u64)| Key {
        name: index.to_string(),
        dtype: Dtype::U8,
        shape: vec![*length],
        allow_inequality: false,
    };
    lengths.iter().enumerate().map(key).collect()
}

fn bench(lengths: &[u64], differing: impl Fn(u32) -> bool, givers: &[Giver]) -> Bench {
    let keys = keys(lengths);
    let layout = Arc::new(Blocks::new(&keys).unwrap());
    let digest = |block: u32| block_digest(&block.to_le_bytes());
    let content: Vec<_> = (0..layout.count()).map(digest).collect();
    let keys = keys_digest(&keys);
    let elected = StateId {
        revision: Revision(3),
        root: Tree::new(keys, &layout, content.clone()).root,
    };
    let mut mine = content.clone();
    for (block, digest) in mine.iter_mut().enumerate() {
        if differing(block as u32) {
            *digest = Digest::default();
        }
    }
    let sources: Vec<_> = (1..=givers.len() as u64).map(PeerId).collect();
    let task = Task {
        elected,
        keys,
        layout: Arc::clone(&layout),
        mine,
        sources: sources.clone(),
        first_source: 0,
    };
    let now = Instant(1_000_000_000);
    let givers = sources.iter().zip(givers);
    Bench {
        fetch: Fetch::new(task, now),
        layout,
        content,
        givers: givers
            .map(|(peer, giver)| (*peer, (*giver, now, 0)))
            .collect(),
        answers: BTreeMap::new(),
        now,
        received: BTreeMap::new(),
        order: 0,
    }
}

impl Bench {
    fn bytes(&self, order: &Order) -> u64 {
        match order.what {
            What::Digests => u64::from(order.count) * 32,
            What::Blocks => (order.first..order.first + order.count)
                .map(|block| self.layout.block_bytes(block) as u64)
                .sum(),
        }
    }

    fn send(&mut self) {
        while let Some(order) = self.fetch.poll_order() {
            let bytes = self.bytes(&order);
            let (giver, free_at, given) = self.givers.get_mut(&order.peer).expect("a source");
            if *given + bytes > giver.dies_after {
                *given = u64::MAX / 2;
                continue;
            }
            *given += bytes;
            let begins = (*free_at).max(self.now + giver.round_trip / 2);
            *free_at = begins + Duration::from_secs_f64(bytes as f64 / giver.rate);
            self.order += 1;
            let arrives = *free_at + giver.round_trip / 2;
            self.answers.insert((arrives, self.order), order);
        }
    }

    fn arrive(&mut self, order: Order) {
        *self.received.entry(order.peer).or_default() += self.bytes(&order);
        if !self.fetch.is_awaited(&order) {
            return;
        }
        let lies = self.givers[&order.peer].0.lies;
        let range = order.first as usize..(order.first + order.count) as usize;
        match order.what {
            What::Digests => {
                let mut digests = self.content[range].to_vec();
                if lies {
                    digests[0].0[7] ^= 1;
                }
                self.fetch.digests_arrived(&order, digests, self.now);
            }
            What::Blocks => {
                let claim = self.fetch.blocks_arrived(&order, !lies, self.now);
                if claim == Claim::Store {
                    self.fetch.stored(order.first);
                }
            }
        }
    }

    /// Runs the fetch to its end; returns the virtual time that it took.
    fn run(&mut self) -> Duration {
        let start = self.now;
        for _ in 0..1_000_000 {
            self.send();
            if self.fetch.end().is_some() {
                return self.now - start;
            }
            let answer = self.answers.keys().next().copied();
            let alarm = self.fetch.poll_timeout();
            let dead: Vec<_> = self.dead();
            match (answer, alarm) {
                (Some((at, _)), Some(alarm)) if alarm <= self.now || alarm < at => {
                    self.now = self.now.max(alarm);
                    self.fetch.handle_timeout(self.now);
                    if self.fetch.orders.is_empty() {
                        self.take_answer();
                    }
                }
                (Some(_), _) => self.take_answer(),
                (None, _) if !dead.is_empty() => {
                    // Only now does anybody tell it.
                    dead.into_iter()
                        .for_each(|peer| self.fetch.lose(peer, self.now));
                }
                (None, alarm) => panic!("stuck at {}, alarm {alarm:?}", self.now),
            }
        }
        panic!("it never ends");
    }

    fn take_answer(&mut self) {
        let ((at, _), order) = self.answers.pop_first().expect("somebody looked");
        self.now = self.now.max(at);
        self.arrive(order);
    }

    fn dead(&self) -> Vec<PeerId> {
        let dead = self
            .givers
            .iter()
            .filter(|(_, (giver, _, given))| *given > giver.dies_after);
        dead.map(|(peer, _)| *peer).collect()
    }

    fn share(&self, peer: u64) -> f64 {
        let used = self.fetch.used();
        let all: u64 = used.values().sum();
        used.get(&PeerId(peer)).copied().unwrap_or(0) as f64 / all as f64
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;
const LARGE: u64 = 1024 * BLOCK;

#[test]
fn equal_sources_give_equal_shares() {
    let mut bench = bench(&[LARGE], |_| true, &[HONEST; 3]);
    let took = bench.run();
    assert_eq!(bench.fetch.end(), Some(&FetchEnd::Held));
    for peer in 1..=3 {
        let share = bench.share(peer);
        assert!((0.25..0.42).contains(&share), "source {peer} gave {share}");
    }
    let alone = LARGE as f64 / HONEST.rate;
    assert!(took.as_secs_f64() < alone / 3.0 * 1.25, "took {took:?}");
}

#[test]
fn a_source_at_a_tenth_of_the_rate_gives_little_and_delays_nobody() {
    let slow = Giver {
        rate: HONEST.rate / 10.0,
        ..HONEST
    };
    let mut bench = bench(&[LARGE], |_| true, &[slow, HONEST, HONEST]);
    let took = bench.run();
    assert!(bench.share(1) < 0.10, "it gave {}", bench.share(1));
    let ideal = LARGE as f64 / (HONEST.rate * 2.1);
    assert!(
        took.as_secs_f64() < ideal * 1.3,
        "took {took:?}, ideal {ideal}"
    );
}

#[test]
fn a_long_way_is_filled() {
    let far = Giver {
        round_trip: Duration::from_millis(200),
        ..HONEST
    };
    let mut bench = bench(&[4 * LARGE], |_| true, &[far]);
    let took = bench.run().as_secs_f64();
    let window = WINDOW_MAX as f64 * BLOCK as f64 / 0.2;
    let ideal = 4.0 * LARGE as f64 / window.min(HONEST.rate);
    assert!(took < ideal + 12.0 * 0.2, "took {took}, ideal {ideal}");
}

#[test]
fn only_what_differs_moves() {
    let mut bench = bench(&[LARGE], |block| block == 77, &[HONEST; 3]);
    bench.run();
    let received: u64 = bench.received.values().sum();
    assert_eq!(received, BLOCK + 1024 * 32);
}

#[test]
fn nothing_that_differs_is_held_at_once() {
    let mut bench = bench(&[LARGE], |_| false, &[HONEST]);
    bench.run();
    assert_eq!(bench.received.values().sum::<u64>(), 1024 * 32);
}

#[test]
fn the_death_of_a_source_costs_what_was_under_way() {
    let mortal = Giver {
        dies_after: LARGE / 6,
        ..HONEST
    };
    let mut bench = bench(&[LARGE], |_| true, &[mortal, HONEST, HONEST]);
    bench.run();
    assert_eq!(bench.fetch.end(), Some(&FetchEnd::Held));
    let received: u64 = bench.received.values().sum();
    assert!(received as f64 <= LARGE as f64 * 1.1, "received {received}");
}

#[test]
fn a_liar_is_found_out_and_the_others_suffice() {
    let liar = Giver {
        lies: true,
        ..HONEST
    };
    let mut bench = bench(&[LARGE], |_| true, &[liar, HONEST]);
    bench.run();
    assert_eq!(bench.fetch.end(), Some(&FetchEnd::Held));
    assert_eq!(bench.share(1), 0.0);
}

#[test]
fn when_all_lie_the_fetch_names_them() {
    let liar = Giver {
        lies: true,
        ..HONEST
    };
    let mut bench = bench(&[LARGE], |_| true, &[liar, liar]);
    bench.run();
    let liars = vec![PeerId(1), PeerId(2)];
    assert_eq!(bench.fetch.end(), Some(&FetchEnd::AllLied(liars)));
}

#[test]
fn many_small_entries_share_frames() {
    let lengths = vec![100; 20_000];
    let mut bench = bench(&lengths, |_| true, &[HONEST; 2]);
    bench.run();
    let asks = bench.order;
    assert!(asks < 40, "{asks} frames for 2 MB");
}

#[test]
fn a_state_without_bytes_needs_nothing() {
    let mut bench = bench(&[0, 0], |_| true, &[HONEST]);
    assert_eq!(bench.run(), Duration::ZERO);
}

#[test]
fn an_answer_that_nobody_asked_for_is_dropped() {
    let mut bench = bench(&[LARGE], |_| true, &[HONEST]);
    let stray = Order {
        peer: PeerId(9),
        what: What::Blocks,
        first: 0,
        count: 1,
    };
    assert!(!bench.fetch.is_awaited(&stray));
    let claim = bench.fetch.blocks_arrived(&stray, true, bench.now);
    assert_eq!(claim, Claim::Drop);
    bench.run();
}
