//! What the system knows about a connection: `TCP_INFO`.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::stream::Stream;

/// The state of one connection, as its sender sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Bytes that the other side's system has, about: with what it holds beyond a gap.
    pub delivered_bytes: u64,
    /// Bytes sent and not yet acknowledged, about.
    pub in_flight_bytes: u64,
    /// Bytes that may be under way, about.
    pub window_bytes: u64,
    /// Bytes taken over and not yet sent.
    pub unsent_bytes: u64,
    /// Segments sent again.
    pub resent_segments: u64,
    /// Segments sent, those sent again included.
    pub sent_segments: u64,
    /// The smoothed round trip.
    pub rtt: Duration,
    /// The shortest round trip of the last minutes.
    pub min_rtt: Duration,
    /// Times in a row that the retransmission timer ran out without any acknowledgement.
    pub timeouts: u8,
}

/// The state of a connection; `None` if this system does not tell.
#[must_use]
pub fn condition(stream: &Stream) -> Option<Condition> {
    condition_of(stream.as_fd())
}

pub(super) fn condition_of(socket: BorrowedFd<'_>) -> Option<Condition> {
    let mut bytes = [0_u8; INFO_BYTES];
    let mut length = INFO_BYTES as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it is open; the buffer is a live local of the length
    // that is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 || (length as usize) < INFO_BYTES {
        return None;
    }
    let word = |at: usize| {
        let field = bytes[at..at + 4].try_into().expect("four bytes");
        u64::from(u32::from_ne_bytes(field))
    };
    Some(Condition {
        delivered_bytes: word(DELIVERED) * word(SEGMENT_BYTES),
        in_flight_bytes: word(UNACKED) * word(SEGMENT_BYTES),
        window_bytes: word(WINDOW) * word(SEGMENT_BYTES),
        unsent_bytes: word(UNSENT_BYTES),
        resent_segments: word(RESENT),
        sent_segments: word(SEGMENTS_OUT),
        rtt: Duration::from_micros(word(RTT)),
        min_rtt: Duration::from_micros(word(MIN_RTT)),
        timeouts: bytes[TIMEOUTS],
    })
}

/// Offsets in `struct tcp_info` (linux/tcp.h), which only ever grows at its end.
const TIMEOUTS: usize = 2;
const SEGMENT_BYTES: usize = 16;
const UNACKED: usize = 24;
const RTT: usize = 68;
const WINDOW: usize = 80;
const RESENT: usize = 100;
const SEGMENTS_OUT: usize = 136;
const UNSENT_BYTES: usize = 144;
const MIN_RTT: usize = 148;
const DELIVERED: usize = 192;
/// The first bytes of it, up to the last of these fields.
const INFO_BYTES: usize = 196;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn delivered_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let before = condition_of(dialled.as_fd()).unwrap();
        dialled.write_all(&[7; 10_000]).unwrap();
        accepted.read_exact(&mut [0; 10_000]).unwrap();
        // The answer carries the acknowledgement of everything before it.
        accepted.write_all(&[1]).unwrap();
        dialled.read_exact(&mut [0]).unwrap();
        let after = condition_of(dialled.as_fd()).unwrap();
        let delivered_bytes = after.delivered_bytes - before.delivered_bytes;
        assert!(delivered_bytes >= 10_000, "{delivered_bytes}");
        assert_eq!((after.in_flight_bytes, after.unsent_bytes), (0, 0));
        assert_eq!(after.timeouts, 0);
        assert!(after.rtt > Duration::ZERO && after.min_rtt <= after.rtt);
        assert!(after.sent_segments > before.sent_segments);
    }
}
