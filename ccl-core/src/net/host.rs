//! Which addresses belong to this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

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

#[cfg(test)]
mod tests {
    use super::*;

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
