//! What a process costs: time, processor time, memory. Linux's own counters, nothing sampled.

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::failure::{Context, Result};

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
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    parse_peak_rss(&status)
        .ok_or(())
        .map_err(|()| crate::failure::Failure::new("/proc/self/status has no line `VmHWM: … kB`"))
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

fn parse_peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_rss_is_read_from_the_status_file() {
        assert_eq!(
            parse_peak_rss("Name:\tx\nVmHWM:\t    2044 kB\nVmRSS:\t 1 kB\n"),
            Some(2044 << 10)
        );
        assert_eq!(parse_peak_rss("Name:\tx\n"), None);
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
