//! What a process costs: time, processor time, memory. Linux's own counters, nothing sampled.

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::failure::{Context, Failure, Result};

/// Now, in nanoseconds of the system's monotonic clock, which all processes of a host share.
pub fn monotonic_ns() -> Result<u64> {
    read_clock(ClockId::CLOCK_MONOTONIC)
}

/// User and system time of this process, ended threads included, in nanoseconds.
pub fn own_cpu_ns() -> Result<u64> {
    read_clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// User and system time of another process of this host, in nanoseconds.
pub fn cpu_ns_of(process: u32) -> Result<u64> {
    let pid = i32::try_from(process).context("process number")?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).context("processor clock of the master")?;
    read_clock(clock)
}

/// Most memory that this process has had resident since [`reset_peak_rss`], in bytes.
pub fn peak_rss_bytes() -> Result<u64> {
    status_bytes("VmHWM:")
}

/// Memory that this process has resident, in bytes.
pub fn resident_bytes() -> Result<u64> {
    status_bytes("VmRSS:")
}

/// Lets the peak start anew from what is resident now.
pub fn reset_peak_rss() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")
}

fn read_clock(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock).context("clock_gettime")?;
    let seconds = u64::try_from(time.tv_sec()).context("clock before its zero")?;
    let nanoseconds = u64::try_from(time.tv_nsec()).context("clock before its zero")?;
    Ok(seconds * 1_000_000_000 + nanoseconds)
}

fn status_bytes(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    parse_status(&status, field)
        .ok_or_else(|| Failure::new(format!("/proc/self/status has no line `{field} … kB`")))
}

fn parse_status(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_file() {
        let status = "Name:\tx\nVmHWM:\t    2044 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(2044 << 10));
        assert_eq!(parse_status(status, "VmRSS:"), Some(1 << 10));
        assert_eq!(parse_status("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn touching_memory_raises_the_peak_and_a_reset_lowers_it() {
        const BYTES: usize = 64 << 20;
        drop(std::hint::black_box(vec![1_u8; BYTES]));
        assert!(peak_rss_bytes().unwrap() >= BYTES as u64);
        reset_peak_rss().unwrap();
        assert!(peak_rss_bytes().unwrap() < BYTES as u64);
    }

    #[test]
    fn own_clock_and_the_clock_by_number_agree() {
        let own = own_cpu_ns().unwrap();
        let by_number = cpu_ns_of(std::process::id()).unwrap();
        assert!(by_number >= own, "the same clock, read later");
    }
}
