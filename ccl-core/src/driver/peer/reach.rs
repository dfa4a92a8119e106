//! How other peers reach this one: its listening port and the addresses it advertises.
//!
//! Which of its addresses the others can reach is unknown, so it advertises every candidate. The
//! master replaces an unspecified address by the one it sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::config::CommunicatorConfig;
use crate::error::{Error, Result};
use crate::limits;
use crate::net;

/// The address to listen on; `None`: all of this host, on any port. Without a wish, loopback only
/// if the master is named by a loopback address or as `localhost`: a name of this host may stand
/// for one of those, too, and others know it by another.
pub(super) fn listen_at(config: &CommunicatorConfig) -> Option<SocketAddr> {
    if config.listen.is_some() {
        return config.listen;
    }
    if let Some(advertise) = &config.advertise {
        let port = port_of(advertise).filter(|port| *port != 0);
        return port.map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    named_loopback(&config.master).map(|ip| SocketAddr::new(ip, 0))
}

/// The addresses announced to the others. An unspecified one stands for the address that the master
/// sees.
///
/// # Errors
/// [`Error::InvalidArgument`] if `advertise` has no address.
pub(super) fn advertised(
    config: &CommunicatorConfig,
    listening: SocketAddr,
) -> Result<Vec<SocketAddr>> {
    let mut addresses = match &config.advertise {
        Some(advertise) => resolve(advertise, config, listening)?,
        None if listening.ip().is_unspecified() => all_of_this_host(config, listening),
        None => vec![listening],
    };
    addresses.truncate(limits::ADDRESSES_MAX);
    Ok(addresses)
}

fn resolve(
    advertise: &str,
    config: &CommunicatorConfig,
    listening: SocketAddr,
) -> Result<Vec<SocketAddr>> {
    let resolved = advertise.to_socket_addrs().map_err(|error| {
        Error::invalid(format!(
            "advertise {advertise:?} is not a host:port that resolves: {error}"
        ))
    })?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    let is_name = !advertise.starts_with('[') && advertise.parse::<SocketAddr>().is_err();
    if is_name && named_loopback(&config.master).is_none() {
        // In /etc/hosts a host's own name often stands for a loopback address.
        addresses.retain(|address| !address.ip().is_loopback());
    }
    if addresses.is_empty() {
        let port = port_of(advertise).unwrap_or(0);
        let listening = SocketAddr::new(listening.ip(), port);
        addresses = all_of_this_host(config, listening);
    }
    for address in &mut addresses {
        if address.port() == 0 {
            address.set_port(listening.port());
        }
    }
    Ok(addresses)
}

/// The address that the master sees, and those that this host would send from.
fn all_of_this_host(config: &CommunicatorConfig, listening: SocketAddr) -> Vec<SocketAddr> {
    let masters = config.master.to_socket_addrs().into_iter().flatten();
    let away = masters.filter(|master| !master.ip().is_loopback());
    let own = away.chain(ANYWHERE).filter_map(net::source_towards);
    let mut ips = vec![listening.ip()];
    for ip in own {
        if !ip.is_loopback() && !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    let at = |ip| SocketAddr::new(ip, listening.port());
    ips.into_iter().map(at).collect()
}

/// The loopback address to listen on, if the master's address is loopback.
fn named_loopback(master: &str) -> Option<IpAddr> {
    if let Ok(address) = master.parse::<SocketAddr>() {
        return address.ip().is_loopback().then(|| loopback_like(&address));
    }
    let (host, _) = master.rsplit_once(':')?;
    if host != "localhost" && !host.ends_with(".localhost") {
        return None;
    }
    let mut addresses: Vec<SocketAddr> = master.to_socket_addrs().into_iter().flatten().collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let first = addresses.first();
    Some(first.map_or(Ipv4Addr::LOCALHOST.into(), loopback_like))
}

fn loopback_like(address: &SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn port_of(address: &str) -> Option<u16> {
    let (_, port) = address.rsplit_once(':')?;
    port.parse().ok()
}

/// Addresses for documentation (RFC 5737, RFC 3849): unused, and reached by the default route.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(master: &str) -> CommunicatorConfig {
        CommunicatorConfig {
            master: master.into(),
            ..CommunicatorConfig::default()
        }
    }

    fn own_name() -> String {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        name.trim().to_owned()
    }

    #[test]
    fn a_master_on_loopback_is_joined_from_loopback_of_the_same_kind() {
        let at = |master: &str| listen_at(&config(master)).map(|address| address.ip().to_string());
        assert_eq!(at("127.0.0.1:48148").as_deref(), Some("127.0.0.1"));
        assert_eq!(at("127.0.1.1:48148").as_deref(), Some("127.0.0.1"));
        assert_eq!(at("[::1]:48148").as_deref(), Some("::1"));
        assert!(at("localhost:48148").is_some());
        assert_eq!(at("192.0.2.1:48148"), None);
    }

    /// In Debian's /etc/hosts the own name is 127.0.1.1; others know the host by another address.
    #[test]
    fn a_name_of_this_host_is_not_taken_for_loopback() {
        let config = config(&format!("{}:48148", own_name()));
        assert_eq!(listen_at(&config), None);
        let listening = SocketAddr::from(([0_u16; 8], 7000));
        let told = advertised(&config, listening).unwrap();
        assert_eq!(told[0], listening, "the master puts in what it sees");
        assert!(
            told.iter()
                .all(|address| !address.ip().is_loopback() && address.port() == 7000)
        );
        if let Some(own) = net::source_towards(ANYWHERE[0]) {
            assert!(told.iter().any(|address| address.ip() == own), "{told:?}");
        }
    }

    #[test]
    fn advertise_alone_names_the_port_to_listen_on() {
        let advertising = |advertise: &str| CommunicatorConfig {
            advertise: Some(advertise.into()),
            ..config("127.0.0.1:48148")
        };
        let at = listen_at(&advertising("192.0.2.7:7000"));
        assert_eq!(at, Some(SocketAddr::from(([0_u16; 8], 7000))));
        assert_eq!(listen_at(&advertising("192.0.2.7:0")), None);
        let listening = SocketAddr::from(([0_u16; 8], 7001));
        let told = advertised(&advertising("192.0.2.7:0"), listening).unwrap();
        assert_eq!(told, ["192.0.2.7:7001".parse().unwrap()]);
    }

    #[test]
    fn a_name_that_is_loopback_here_is_not_told_to_others() {
        let config = CommunicatorConfig {
            advertise: Some("localhost:7000".into()),
            ..config("192.0.2.1:48148")
        };
        let listening = SocketAddr::from(([0_u16; 8], 7000));
        let told = advertised(&config, listening).unwrap();
        assert_eq!(told[0], listening);
        assert!(told.iter().all(|address| !address.ip().is_loopback()));
    }
}
