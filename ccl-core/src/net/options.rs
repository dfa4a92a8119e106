//! Socket options: which, why, and what the system made of them.
//!
//! None is needed for correctness: if the system refuses one, that is reported and the connection
//! goes on without it. The receive buffer is never set, because that would switch off its
//! autotuning, which reaches further than an unprivileged process may ask for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::info::condition_of;
use super::stream::Stream;

/// What a connection for much data is tuned with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Congestion control that the user asks for: a name, `keep` for the system's choice, or
    /// `auto`, which `None` means too.
    pub congestion_control: Option<String>,
    /// Most bytes a second.
    pub pacing_bytes_per_second: Option<u64>,
    /// How long sent bytes may stay unacknowledged before the system gives the connection up.
    pub user_timeout: Duration,
}

impl Tuning {
    /// Whether the library may choose the congestion control.
    #[must_use]
    pub fn is_control_free(&self) -> bool {
        matches!(self.congestion_control.as_deref(), None | Some("auto"))
    }
}

/// What a connection got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuned {
    /// The congestion control in force.
    pub congestion_control: String,
    /// The send buffer in force, in bytes, as the system counts them.
    pub send_buffer_bytes: usize,
    /// Options that were refused, in words.
    pub refused: Vec<String>,
}

/// Sets the options of a connection for few bytes: each leaves at once, and the system asks whether
/// the other side is still there.
///
/// # Errors
/// The system's.
pub fn keep_alive(stream: &Stream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
}

/// Sets all options of a connection for much data.
pub fn tune(stream: &Stream, tuning: &Tuning) -> Tuned {
    tune_for(stream.as_fd(), tuning, stream.is_on_this_host())
}

fn tune_for(socket: BorrowedFd<'_>, tuning: &Tuning, same_host: bool) -> Tuned {
    let reference = SockRef::from(&socket);
    let mut tuned = Tuned::default();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            tuned.refused.push(format!("{what}: {error}"));
        }
    };
    note("TCP_NODELAY", reference.set_tcp_nodelay(true));
    note("SO_KEEPALIVE", reference.set_tcp_keepalive(&keepalive()));
    note(
        "TCP_USER_TIMEOUT",
        reference.set_tcp_user_timeout(Some(tuning.user_timeout)),
    );
    if !same_host {
        // Explicitly asked for, the system doubles it. Where that is more than autotuning would
        // ever reach, a single connection on a long fat path may have more bytes under way.
        if let Some(bytes) = send_buffer_bytes_wanted() {
            note("SO_SNDBUF", reference.set_send_buffer_size(bytes));
        }
    }
    let not_sent_bytes = match same_host {
        true => NOT_SENT_BYTES_MAX_SAME_HOST,
        false => NOT_SENT_BYTES_MAX,
    };
    note(
        "TCP_NOTSENT_LOWAT",
        reference.set_tcp_notsent_lowat(not_sent_bytes),
    );
    if let Some(rate) = tuning.pacing_bytes_per_second {
        note("SO_MAX_PACING_RATE", set_pacing_rate(socket, rate));
    }
    if let Err(error) = choose_congestion_control(socket, tuning, same_host) {
        tuned.refused.push(error);
    }
    let name = reference.tcp_congestion().unwrap_or_default();
    tuned.congestion_control = String::from_utf8_lossy(&name)
        .trim_end_matches('\0')
        .to_owned();
    tuned.send_buffer_bytes = reference.send_buffer_size().unwrap_or(0);
    tuned
}

/// The user's wish. By default on the same host what costs the least: nothing is lost there, and
/// BBR's pacing takes twice the processor time; `reno` is the one that every process may choose. On
/// a long path CUBIC, whose first window grows until a queue builds up and not beyond; the link
/// changes it as it sends.
fn choose_congestion_control(
    socket: BorrowedFd<'_>,
    tuning: &Tuning,
    same_host: bool,
) -> Result<(), String> {
    let reference = SockRef::from(&socket);
    let rtt = condition_of(socket).map(|condition| condition.rtt);
    match tuning.congestion_control.as_deref() {
        Some("keep") => {}
        None | Some("auto") if same_host => {
            // The system's default does as well.
            let _ = ["cubic", "reno"]
                .iter()
                .any(|name| reference.set_tcp_congestion(name.as_bytes()).is_ok());
        }
        None | Some("auto") if rtt.is_some_and(|rtt| rtt >= LONG_PATH) => {
            // `Tuned` says which one is in force.
            let _ = reference.set_tcp_congestion(b"cubic");
        }
        None | Some("auto") => {}
        Some(name) => reference
            .set_tcp_congestion(name.as_bytes())
            .map_err(|error| format!("TCP_CONGESTION {name}: {error}"))?,
    }
    Ok(())
}

/// Changes the congestion control of a connection.
///
/// # Errors
/// The system has none of this name, or does not permit it.
pub fn set_congestion_control(stream: &Stream, name: &str) -> io::Result<()> {
    SockRef::from(stream).set_tcp_congestion(name.as_bytes())
}

/// Limits the bytes per second that a connection sends; `None`: no limit.
///
/// # Errors
/// The system's.
pub fn pace(stream: &Stream, bytes_per_second: Option<u64>) -> io::Result<()> {
    set_pacing_rate(stream.as_fd(), bytes_per_second.unwrap_or(u64::MAX))
}

fn set_pacing_rate(socket: BorrowedFd<'_>, bytes_per_second: u64) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open; the option's value is a live local of the
    // length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            std::ptr::from_ref(&bytes_per_second).cast(),
            size_of::<u64>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The longest send buffer that this process may ask for, if that is more than autotuning reaches.
fn send_buffer_bytes_wanted() -> Option<usize> {
    static BYTES: OnceLock<Option<usize>> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").ok()?;
        longer_than_autotuned(most.trim().parse().ok()?, send_buffer_bytes_autotuned())
    })
}

/// The longest send buffer that the system makes by itself, in bytes as it counts them.
#[must_use]
pub fn send_buffer_bytes_autotuned() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let bounds = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
        let most = bounds.split_whitespace().last();
        most.and_then(|most| most.parse().ok()).unwrap_or(0)
    })
}

/// The system doubles what is asked for, and tunes a buffer no more once it was set.
fn longer_than_autotuned(most: usize, tuned: usize) -> Option<usize> {
    (most.saturating_mul(2) > tuned).then_some(most)
}

/// Makes the end of a connection a reset: what is under way in both directions is lost.
pub fn reset_on_close(stream: &Stream) {
    // Refused, it ends as any other.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Unsent bytes that the system takes from a lane at once. Beyond, a frame waits where another lane
/// may still take it; 512 KiB is 4 ms at 1 Gbit/s, longer than a wake-up takes.
const NOT_SENT_BYTES_MAX: u32 = 512 << 10;
/// The same where both ends are on this host: what waits is then still in the cache when it is
/// read, which takes a sixth less processor time than without a limit.
const NOT_SENT_BYTES_MAX_SAME_HOST: u32 = 128 << 10;
/// The round trip from which on a path counts as long. Below, windows open within a few
/// milliseconds, and BBR's processor time buys nothing.
pub const LONG_PATH: Duration = Duration::from_millis(3);
/// Idle time before the system asks whether the other side is still there, and time between such
/// questions. Heartbeats and pings find a dead peer sooner; this ends connections that have none.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn every_option_is_taken_by_this_system() {
        let (socket, _other) = connection();
        let tuning = Tuning {
            congestion_control: Some("reno".into()),
            pacing_bytes_per_second: Some(5_000_000_000),
            user_timeout: Duration::from_secs(3),
        };
        let tuned = tune_for(socket.as_fd(), &tuning, false);
        assert_eq!(tuned.refused, Vec::<String>::new());
        assert_eq!(tuned.congestion_control, "reno");
        let reference = SockRef::from(&socket);
        assert!(reference.tcp_nodelay().unwrap());
        assert!(reference.keepalive().unwrap());
        assert_eq!(
            reference.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(3))
        );
        assert_eq!(reference.tcp_notsent_lowat().unwrap(), NOT_SENT_BYTES_MAX);
    }

    #[test]
    fn an_unknown_congestion_control_is_reported_and_lived_without() {
        let (socket, _other) = connection();
        let before = tune_for(socket.as_fd(), &Tuning::default(), false);
        let tuning = Tuning {
            congestion_control: Some("no-such".into()),
            ..Tuning::default()
        };
        let tuned = tune_for(socket.as_fd(), &tuning, false);
        assert_eq!(tuned.congestion_control, before.congestion_control);
        assert!(tuned.refused[0].contains("no-such"), "{tuned:?}");
    }

    #[test]
    fn a_send_buffer_is_only_asked_for_if_autotuning_reaches_less() {
        assert_eq!(longer_than_autotuned(4 << 20, 4 << 20), Some(4 << 20));
        assert_eq!(longer_than_autotuned(212_992, 4 << 20), None);
        assert_eq!(longer_than_autotuned(2 << 20, 4 << 20), None);
    }
}
