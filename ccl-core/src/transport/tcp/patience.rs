//! How long a reader looks for data before its thread sleeps.
//!
//! Between processes of one host the next bytes often come sooner than a sleeping thread wakes up.
//! Looking costs processor time that others may need, so a reader goes on with it only while it
//! pays: it gives way to every thread that can run, stops as soon as one did, and after looking in
//! vain sleeps at once for a while.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::Stream;

/// Longest time to look for data: about what it takes to put a thread to sleep and wake it again.
const LOOK_MAX: Duration = Duration::from_micros(100);
/// A look at the system's event queue that takes this long has let other threads run.
const TURN_MAX: Duration = Duration::from_micros(10);
/// After so many looks in vain the number of sleeps without a look grows no more.
const VAIN_MAX: u32 = 8;

/// Whether it has paid to look for data on one connection.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Looks in vain since the last success.
    vain: u32,
    /// How often to sleep without a look.
    sleeps: u32,
}

impl Patience {
    /// Waits until there may be something to read.
    pub(super) async fn readable(&mut self, stream: &Stream) -> io::Result<()> {
        if self.looks() {
            match look(stream).await {
                Some(outcome) => {
                    self.vain = 0;
                    return outcome;
                }
                None => self.give_up(),
            }
        }
        stream.readable().await
    }

    fn looks(&mut self) -> bool {
        let looks = self.sleeps == 0;
        self.sleeps = self.sleeps.saturating_sub(1);
        looks
    }

    fn give_up(&mut self) {
        self.vain = (self.vain + 1).min(VAIN_MAX);
        self.sleeps = (1 << self.vain) - 1;
    }
}

/// Looks for something to read; `None` if nothing came or others need the processor.
async fn look(stream: &Stream) -> Option<io::Result<()>> {
    let start = Instant::now();
    let mut turn = start;
    loop {
        tokio::select! {
            biased;
            outcome = stream.readable() => return Some(outcome),
            () = tokio::task::yield_now() => std::thread::yield_now(),
        }
        let now = Instant::now();
        if now - turn > TURN_MAX || now - start > LOOK_MAX {
            return None;
        }
        turn = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_become_rare_and_success_brings_them_back() {
        let mut patience = Patience::default();
        let mut looks = 0;
        for _ in 0..10_000 {
            if patience.looks() {
                looks += 1;
                patience.give_up();
            }
        }
        assert!((40..60).contains(&looks), "{looks} looks");
        patience.vain = 0;
        while !patience.looks() {}
        patience.give_up();
        assert!(!patience.looks());
        assert!(patience.looks());
    }
}
