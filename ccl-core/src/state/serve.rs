//! Which request a source answers next.
//!
//! Pure: receivers ask, the owner sends. Receivers take turns; a source may have a rate limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::layout::Blocks;
use super::{Order, What};
use crate::ids::PeerId;
use crate::limits::{self, SEGMENT_BYTES_MAX};
use crate::time::Instant;

use super::fetch::DIGESTS_PER_FRAME;

/// The serving side of one sync.
#[derive(Debug)]
pub struct Serve {
    layout: Arc<Blocks>,
    /// Most bytes a second.
    rate: Option<u64>,
    /// When the rate allows the next frame.
    free_at: Instant,
    /// Whose turn it is, in front.
    turns: VecDeque<PeerId>,
    asks: BTreeMap<PeerId, VecDeque<Order>>,
    given_bytes: u64,
}

impl Serve {
    /// A server without requests.
    #[must_use]
    pub fn new(layout: Arc<Blocks>, rate: Option<u64>) -> Self {
        Self {
            layout,
            rate,
            free_at: Instant::default(),
            turns: VecDeque::new(),
            asks: BTreeMap::new(),
            given_bytes: 0,
        }
    }

    /// A receiver asks.
    ///
    /// # Errors
    /// Why no correct receiver asks so.
    pub fn ask(&mut self, order: Order) -> Result<(), &'static str> {
        let end = order.first.checked_add(order.count);
        let is_inside = end.is_some_and(|end| end <= self.layout.count());
        if order.count == 0 || !is_inside {
            return Err("a request for blocks that do not exist");
        }
        let fits = match order.what {
            What::Digests => order.count <= DIGESTS_PER_FRAME,
            What::Blocks => self.bytes(&order) <= self.layout.frame_bytes() as u64,
        };
        if !fits {
            return Err("a request for more than a frame can carry");
        }
        let asks = self.asks.entry(order.peer).or_default();
        if asks.len() >= limits::STATE_ASKS_MAX {
            return Err("more requests than a receiver may have open");
        }
        if asks.is_empty() {
            self.turns.push_back(order.peer);
        }
        asks.push_back(order);
        Ok(())
    }

    /// The next frame to send, if the rate allows one.
    pub fn poll_order(&mut self, now: Instant) -> Option<Order> {
        if self.rate.is_some() && now < self.free_at {
            return None;
        }
        let peer = self.turns.pop_front()?;
        let asks = self.asks.get_mut(&peer)?;
        let order = asks.pop_front()?;
        if !asks.is_empty() {
            self.turns.push_back(peer);
        }
        let bytes = match order.what {
            What::Digests => u64::from(order.count) * 32,
            What::Blocks => self.bytes(&order),
        };
        self.given_bytes += bytes;
        if let Some(rate) = self.rate {
            let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            self.free_at = self.free_at.max(now) + time;
        }
        Some(order)
    }

    /// When the rate limit allows the next requested frame.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.rate.is_some() && !self.turns.is_empty()).then_some(self.free_at)
    }

    /// Forgets the requests of a receiver that was lost.
    pub fn lose(&mut self, peer: PeerId) {
        self.asks.remove(&peer);
        self.turns.retain(|turn| *turn != peer);
    }

    /// Bytes given so far.
    #[must_use]
    pub fn given_bytes(&self) -> u64 {
        self.given_bytes
    }

    fn bytes(&self, order: &Order) -> u64 {
        let blocks = order.first..order.first + order.count.min(SEGMENT_BYTES_MAX as u32);
        blocks
            .map(|block| self.layout.block_bytes(block) as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::Dtype;
    use crate::state::{BLOCK_BYTES, Key};

    fn serve(rate: Option<u64>) -> Serve {
        let key = Key {
            name: "w".into(),
            dtype: Dtype::U8,
            shape: vec![4 * BLOCK_BYTES as u64],
            allow_inequality: false,
        };
        Serve::new(Arc::new(Blocks::new(&[key]).unwrap()), rate)
    }

    fn order(peer: u64, first: u32, count: u32) -> Order {
        Order {
            peer: PeerId(peer),
            what: What::Blocks,
            first,
            count,
        }
    }

    #[test]
    fn asks_that_no_frame_can_answer_are_refused() {
        let mut serve = serve(None);
        assert!(serve.ask(order(1, 0, 0)).is_err());
        assert!(serve.ask(order(1, 4, 1)).is_err());
        assert!(serve.ask(order(1, u32::MAX, 2)).is_err());
        assert!(
            serve.ask(order(1, 0, 2)).is_err(),
            "two blocks are two frames"
        );
        assert!(serve.ask(order(1, 3, 1)).is_ok());
    }

    #[test]
    fn receivers_take_turns() {
        let mut serve = serve(None);
        for (peer, first) in [(1, 0), (1, 1), (1, 2), (2, 3)] {
            serve.ask(order(peer, first, 1)).unwrap();
        }
        let turns = std::iter::from_fn(|| serve.poll_order(Instant::default()));
        let peers: Vec<_> = turns.map(|order| order.peer.0).collect();
        assert_eq!(peers, [1, 2, 1, 1]);
    }

    #[test]
    fn a_rate_spaces_the_frames() {
        let mut serve = serve(Some(BLOCK_BYTES as u64));
        let start = Instant::default();
        serve.ask(order(1, 0, 1)).unwrap();
        serve.ask(order(1, 1, 1)).unwrap();
        assert!(serve.poll_order(start).is_some());
        assert!(serve.poll_order(start).is_none());
        assert_eq!(serve.poll_timeout(), Some(start + Duration::from_secs(1)));
        assert!(serve.poll_order(start + Duration::from_secs(1)).is_some());
        assert_eq!(serve.poll_timeout(), None, "nobody waits");
    }

    #[test]
    fn a_receiver_that_asks_without_end_is_stopped() {
        let mut serve = serve(None);
        for _ in 0..limits::STATE_ASKS_MAX {
            serve.ask(order(1, 0, 1)).unwrap();
        }
        assert!(serve.ask(order(1, 0, 1)).is_err());
        serve.lose(PeerId(1));
        assert!(serve.poll_order(Instant::default()).is_none());
    }
}
