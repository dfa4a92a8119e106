//! What a network has counted, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wan::lateness::LatenessStats;

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Links that had traffic.
    pub links: Vec<LinkStats>,
    /// Bottlenecks of several links that had traffic.
    pub bottlenecks: Vec<BottleneckStats>,
    /// How late packets were delivered.
    pub lateness: LatenessStats,
    /// Packets that a host's device refused.
    pub refused_packets: u64,
    /// Processor time of the emulator since its start, in milliseconds.
    pub cpu_ms: u64,
}

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// The host that sends.
    pub source: usize,
    /// The host that receives.
    pub target: usize,
    /// Packets sent into the link, of up to 64 KiB each.
    pub packets: u64,
    /// The same as segments on the wire.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that did not fit into the queue.
    pub overflow_segments: u64,
    /// Segments lost at random.
    pub lost_segments: u64,
    /// Segments dropped because of a cut or a dead host.
    pub cut_segments: u64,
    /// The longest queue.
    pub queue_bytes_max: u64,
}

/// A bottleneck of several links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BottleneckStats {
    /// Whose it is, and which direction.
    pub name: String,
    /// Segments that did not fit into the queue.
    pub overflow_segments: u64,
    /// The longest queue.
    pub queue_bytes_max: u64,
}

impl Stats {
    /// Whether measurements made meanwhile are void, because the emulator was too late too often.
    pub const fn is_void(&self) -> bool {
        self.lateness.is_void()
    }

    /// The link from one host to another, if it had traffic.
    pub fn link(&self, source: usize, target: usize) -> Option<&LinkStats> {
        let mut links = self.links.iter();
        links.find(|link| link.source == source && link.target == target)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.links.is_empty() {
            writeln!(
                f,
                "{:>9} {:>9} {:>10} {:>10} {:>9} {:>7} {:>7} {:>9}",
                "link", "packets", "segments", "MB", "overflow", "lost", "cut", "queue kB"
            )?;
        }
        for link in &self.links {
            writeln!(
                f,
                "{:>9} {:>9} {:>10} {:>10.1} {:>9} {:>7} {:>7} {:>9}",
                format!("{}->{}", link.source, link.target),
                link.packets,
                link.segments,
                link.bytes as f64 / 1e6,
                link.overflow_segments,
                link.lost_segments,
                link.cut_segments,
                link.queue_bytes_max / 1000,
            )?;
        }
        for it in &self.bottlenecks {
            let queue = it.queue_bytes_max / 1000;
            let overflow = it.overflow_segments;
            writeln!(f, "{}: overflow {overflow}, queue {queue} kB", it.name)?;
        }
        let late = &self.lateness;
        writeln!(
            f,
            "late by: p50 {} us, p99 {} us, max {} us; {} of {} packets too late",
            late.p50_us, late.p99_us, late.max_us, late.too_late, late.packets
        )?;
        if self.refused_packets > 0 {
            writeln!(f, "devices refused {} packets", self.refused_packets)?;
        }
        write!(
            f,
            "emulator: {:.2} s of processor time",
            self.cpu_ms as f64 / 1e3
        )?;
        if self.is_void() {
            write!(
                f,
                "\nVOID: the emulator could not keep up; measure again, at a lower rate"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_measurement_says_so() {
        let mut stats = Stats::default();
        stats.lateness.packets = 100;
        stats.links.push(LinkStats::default());
        assert!(!stats.to_string().contains("VOID"));
        assert!(stats.to_string().contains("0->0"));
        stats.lateness.too_late = 2;
        assert!(stats.to_string().contains("VOID"));
    }

    #[test]
    fn stats_survive_being_sent() {
        let mut stats = Stats::default();
        stats.links.push(LinkStats {
            target: 1,
            ..LinkStats::default()
        });
        let text = serde_json::to_string(&stats).unwrap();
        let back: Stats = serde_json::from_str(&text).unwrap();
        assert_eq!(back, stats);
        assert!(back.link(0, 1).is_some() && back.link(1, 0).is_none());
    }
}
