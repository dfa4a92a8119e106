//! Socket options of the lanes: which, why, and what the system made of them.
//!
//! Nothing here is needed for correctness: an option that the system refuses is reported and lived
//! without. The receive buffer is never set, because that would switch off its autotuning, which
//! reaches further than an unprivileged process may ask for.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// What the lanes of a link are tuned with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Congestion control that the user asks for.
    pub congestion_control: Option<String>,
    /// Most bytes a second.
    pub pacing_bytes_per_second: Option<u64>,
    /// How long sent bytes may stay unacknowledged before the system gives the connection up.
    pub user_timeout: Duration,
}

/// What a lane got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuned {
    /// The congestion control in force.
    pub congestion_control: String,
    /// The send buffer in force, in bytes, as the system counts them.
    pub send_buffer_bytes: usize,
    /// Options that were refused, in words.
    pub refused: Vec<String>,
}

/// Unsent bytes that the system takes from a lane at once. Beyond, a frame waits where another lane
/// may still take it; 512 KiB is 4 ms at 1 Gbit/s, longer than a wake-up takes.
const NOT_SENT_BYTES_MAX: u32 = 512 << 10;
/// The same where both ends are on this host: what waits is then still in the cache when it is
/// read, which takes a sixth less processor time than without a limit.
const NOT_SENT_BYTES_MAX_SAME_HOST: u32 = 128 << 10;
/// Idle time before the system asks whether the other side is still there, and between such
/// questions. Pings keep a link from being idle; this ends connections whose process hangs.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Sets all options of a connection.
pub fn tune(socket: BorrowedFd<'_>, tuning: &Tuning, same_host: bool) -> Tuned {
    let reference = SockRef::from(&socket);
    let mut tuned = Tuned::default();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            tuned.refused.push(format!("{what}: {error}"));
        }
    };
    note("TCP_NODELAY", reference.set_tcp_nodelay(true));
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_TIME);
    note("SO_KEEPALIVE", reference.set_tcp_keepalive(&keepalive));
    note(
        "TCP_USER_TIMEOUT",
        reference.set_tcp_user_timeout(Some(tuning.user_timeout)),
    );
    if !same_host {
        // Explicitly asked for, the system doubles it: twice what autotuning would ever reach,
        // which is what limits a single connection on a long fat path.
        if let Some(bytes) = send_buffer_bytes_max() {
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
    if let Err(error) = choose_congestion_control(&reference, tuning, same_host) {
        tuned.refused.push(error);
    }
    let name = reference.tcp_congestion().unwrap_or_default();
    tuned.congestion_control = String::from_utf8_lossy(&name)
        .trim_end_matches('\0')
        .to_owned();
    tuned.send_buffer_bytes = reference.send_buffer_size().unwrap_or(0);
    tuned
}

/// The user's wish; on the same host what costs the least: nothing is lost there, and BBR's pacing
/// takes twice the processor time. `reno` is the one that every process may choose.
fn choose_congestion_control(
    socket: &SockRef<'_>,
    tuning: &Tuning,
    same_host: bool,
) -> Result<(), String> {
    if let Some(name) = &tuning.congestion_control {
        return socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|error| format!("TCP_CONGESTION {name}: {error}"));
    }
    if same_host {
        let _is_chosen = ["cubic", "reno"]
            .iter()
            .any(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
    }
    Ok(())
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

/// The longest send buffer that this process may ask for.
fn send_buffer_bytes_max() -> Option<usize> {
    static BYTES: OnceLock<Option<usize>> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/net/core/wmem_max").ok()?;
        text.trim().parse().ok()
    })
}

/// Whether both ends of a connection are on this host.
#[must_use]
pub fn is_same_host(local: SocketAddr, remote: SocketAddr) -> bool {
    let local = local.ip().to_canonical();
    let remote = remote.ip().to_canonical();
    local == remote || (local.is_loopback() && remote.is_loopback())
}

/// Whether an address is one of this host's: then the system would also send from it.
#[must_use]
pub fn is_of_this_host(address: SocketAddr) -> bool {
    let local = source_towards(address).map(|ip| SocketAddr::new(ip, 0));
    local.is_some_and(|local| is_same_host(local, address))
}

/// The address that the system would send from to this one.
#[must_use]
pub fn source_towards(address: SocketAddr) -> Option<IpAddr> {
    let unspecified: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a datagram socket sends nothing; it only chooses the way.
    let chosen = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    chosen.ok().map(|local| local.ip())
}

/// Makes the next close of the socket a reset: what is under way in both directions is lost.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    let _refused = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Opens a listening port: on every address if none is given, IPv6 and IPv4 alike.
///
/// # Errors
/// The system's error.
pub fn listen(address: Option<SocketAddr>) -> io::Result<std::net::TcpListener> {
    match address {
        Some(address) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            let without_ipv6 = SocketAddr::from(([0_u8; 4], address.port()));
            listen_at(address).or_else(|error| match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => listen_at(without_ipv6),
                _ => Err(error),
            })
        }
        Some(address) => listen_at(address),
        None => listen_at(SocketAddr::from(([0_u16; 8], 0)))
            .or_else(|_no_ipv6| listen_at(SocketAddr::from(([0_u8; 4], 0)))),
    }
}

fn listen_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.set_nonblocking(false).unwrap();
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
        let tuned = tune(socket.as_fd(), &tuning, false);
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
        let before = tune(socket.as_fd(), &Tuning::default(), false);
        let tuning = Tuning {
            congestion_control: Some("no-such".into()),
            ..Tuning::default()
        };
        let tuned = tune(socket.as_fd(), &tuning, false);
        assert_eq!(tuned.congestion_control, before.congestion_control);
        assert!(tuned.refused[0].contains("no-such"), "{tuned:?}");
    }

    #[test]
    fn one_port_takes_ipv4_and_ipv6() {
        let listener = listen(None).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let listener = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let error = listen(Some(listener.local_addr().unwrap())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_of_this_host_is_known_as_such() {
        assert!(is_of_this_host("127.0.0.1:9".parse().unwrap()));
        // For documentation (RFC 5737): nobody has it.
        assert!(!is_of_this_host("192.0.2.1:9".parse().unwrap()));
    }

    #[test]
    fn ends_on_one_host_are_told_apart_from_ends_on_two() {
        let same = |a: &str, b: &str| is_same_host(a.parse().unwrap(), b.parse().unwrap());
        assert!(same("127.0.0.1:1", "127.0.0.2:9"));
        assert!(same("10.0.0.1:1", "[::ffff:10.0.0.1]:9"));
        assert!(!same("10.0.0.1:1", "10.0.0.2:1"));
    }
}
