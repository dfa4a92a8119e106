//! One direction between two hosts: its bottleneck, delay, jitter, loss and cuts.

use std::time::Duration;

use crate::wan::command::LinkChange;
use crate::wan::loss::Loss;
use crate::wan::packet::Packet;
use crate::wan::shaper::{QueueLimit, Shaper};
use crate::wan::stats::LinkStats;

/// A link from one host to another.
#[derive(Debug)]
pub struct Link {
    shaper: Shaper,
    loss: Loss,
    delay: Duration,
    jitter: Duration,
    may_reorder: bool,
    is_cut: bool,
    cuts: u64,
    /// When the last packet arrives at the other end.
    last_arrival: Duration,
    packets: u64,
    bytes: u64,
    /// Segments that were sent into the link.
    pub segments: u64,
    /// Segments dropped because the link was cut or a host was dead.
    pub cut_segments: u64,
}

/// A packet that leaves a stage at a time.
#[derive(Debug)]
pub struct Departure {
    /// When its last bit leaves.
    pub at: Duration,
    /// The packet.
    pub packet: Packet,
}

impl Departure {
    /// What a bottleneck lets pass: everything, a part, or nothing; a large packet in pieces.
    pub fn through(self, shaper: &mut Shaper) -> Vec<Self> {
        let burst = self.packet.burst();
        let piece_segments = shaper.segments_per_piece(burst.segment_bytes);
        if burst.segments <= piece_segments {
            return self.admitted(shaper).into_iter().collect();
        }
        let starts = (0..burst.segments).step_by(piece_segments as usize);
        let pieces = starts.map(|start| {
            let end = (start + piece_segments).min(burst.segments);
            Self {
                at: self.at,
                packet: self.packet.cut(&(start..end)),
            }
        });
        pieces.filter_map(|piece| piece.admitted(shaper)).collect()
    }

    fn admitted(self, shaper: &mut Shaper) -> Option<Self> {
        let burst = self.packet.burst();
        let admitted = shaper.admit(self.at, &burst);
        let packet = match admitted.segments {
            0 => return None,
            all if all == burst.segments => self.packet,
            segments => self.packet.cut(&(0..segments)),
        };
        Some(Self {
            at: admitted.departure,
            packet,
        })
    }
}

impl Link {
    /// A link that delivers everything at once.
    pub const fn new() -> Self {
        Self {
            shaper: Shaper::new(QueueLimit::Products(1.0)),
            loss: Loss::none(),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            may_reorder: false,
            is_cut: false,
            cuts: 0,
            last_arrival: Duration::ZERO,
            packets: 0,
            bytes: 0,
            segments: 0,
            cut_segments: 0,
        }
    }

    /// Changes what is given.
    pub fn set(&mut self, change: &LinkChange, random: &mut fastrand::Rng) {
        self.shaper.set(change.shaper.rate, change.shaper.queue);
        self.delay = change.delay.unwrap_or(self.delay);
        self.jitter = change.jitter.unwrap_or(self.jitter);
        self.may_reorder = change.reorder.unwrap_or(self.may_reorder);
        if let Some(probability) = change.loss {
            self.loss.set(probability, random);
        }
    }

    /// Computes the queue anew, from the round trip.
    pub fn settle(&mut self, round_trip: Duration) {
        self.shaper.settle(round_trip);
    }

    /// Cuts or heals the link. A cut also drops what is in flight.
    pub const fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
        if is_cut {
            self.drop_flights();
        }
    }

    /// Drops what is in flight.
    pub const fn drop_flights(&mut self) {
        self.cuts += 1;
    }

    /// How often what was in flight has been dropped. A packet notes it when it sets out.
    pub const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Whether nothing passes.
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// One-way delay, without jitter.
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// Its bottleneck.
    pub const fn shaper(&self) -> &Shaper {
        &self.shaper
    }

    /// What arrives at the other end of a packet that enters, and when.
    pub fn pass(&mut self, entering: Departure, random: &mut fastrand::Rng) -> Vec<Departure> {
        self.packets += 1;
        self.segments += entering.packet.segments();
        self.bytes += entering.packet.bytes().len() as u64;
        let mut arrivals = Vec::new();
        for Departure { at, packet } in entering.through(&mut self.shaper) {
            let at = self.arrival(at, random);
            let runs = self.loss.survivors(packet.segments(), random);
            if runs.first() == Some(&(0..packet.segments())) {
                arrivals.push(Departure { at, packet });
                continue;
            }
            let survivors = runs.iter().map(|run| packet.cut(run));
            arrivals.extend(survivors.map(|packet| Departure { at, packet }));
        }
        arrivals
    }

    /// When a packet that left the bottleneck at `departure` arrives.
    fn arrival(&mut self, departure: Duration, random: &mut fastrand::Rng) -> Duration {
        let jitter = match self.jitter {
            Duration::ZERO => Duration::ZERO,
            jitter => jitter.mul_f64(random.f64()),
        };
        let arrival = departure + self.delay + jitter;
        if self.may_reorder {
            return arrival;
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }

    /// What was counted, without the hosts.
    pub fn stats(&self) -> LinkStats {
        LinkStats {
            source: 0,
            target: 0,
            packets: self.packets,
            segments: self.segments,
            bytes: self.bytes,
            overflow_segments: self.shaper.dropped_segments,
            lost_segments: self.loss.lost_segments,
            cut_segments: self.cut_segments,
            queue_bytes_max: self.shaper.queue_bytes_max,
        }
    }

    /// Counts from 0 again.
    pub const fn reset(&mut self) {
        self.shaper.reset();
        self.loss.lost_segments = 0;
        self.packets = 0;
        self.bytes = 0;
        self.segments = 0;
        self.cut_segments = 0;
    }
}
