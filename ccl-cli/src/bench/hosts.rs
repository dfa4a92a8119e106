//! Hosts on which a bench starts processes, and what starts them there.

use std::net::{IpAddr, Ipv4Addr};

use crate::failure::{Failure, Result};

/// A place for a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where its processes listen.
    pub address: IpAddr,
    /// The program that starts a process there, with arguments before the process's own; empty for
    /// this host.
    pub launcher: Vec<String>,
}

impl Host {
    /// This host, where processes meet by loopback.
    pub fn here() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            launcher: Vec::new(),
        }
    }
}

/// Hosts with these addresses; in `template`, words as a shell reads them, {host} is the number of
/// the host and {address} its address.
pub fn launched(addresses: &[IpAddr], template: &str) -> Result<Vec<Host>> {
    let words = shlex::split(template)
        .ok_or_else(|| Failure::new(format!("--launch has an open quotation mark: {template}")))?;
    if words.is_empty() || addresses.is_empty() {
        return Err(Failure::new("--hosts and --launch need each other"));
    }
    let fill_in = |word: &String, host: usize| {
        let address = addresses[host].to_string();
        let named = word.replace("{host}", &host.to_string());
        named.replace("{address}", &address)
    };
    let hosts = addresses.iter().enumerate().map(|(host, &address)| Host {
        address,
        launcher: words.iter().map(|word| fill_in(word, host)).collect(),
    });
    Ok(hosts.collect())
}

/// The smallest network that has all of these hosts, such as `10.77.0.0/24`; `None` for IPv6.
pub fn network_of(hosts: &[Host]) -> Option<String> {
    let mut bits = Vec::with_capacity(hosts.len());
    for host in hosts {
        match host.address {
            IpAddr::V4(address) => bits.push(address.to_bits()),
            IpAddr::V6(_) => return None,
        }
    }
    let first = *bits.first()?;
    let different = bits.iter().fold(0, |all, other| all | (first ^ other));
    let length = different.leading_zeros().min(LENGTH_MAX);
    let network = first & (u32::MAX.checked_shl(u32::BITS - length).unwrap_or(0));
    Some(format!("{}/{length}", Ipv4Addr::from_bits(network)))
}

/// A network has more than one address, so that it also fits the interface of a single host.
const LENGTH_MAX: u32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(addresses: &[&str]) -> Vec<Host> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        launched(&addresses, "ssh h{host} at {address} --").unwrap()
    }

    #[test]
    fn a_launcher_names_its_host() {
        let hosts = hosts(&["10.0.0.7", "10.0.0.9"]);
        assert_eq!(hosts[1].launcher, ["ssh", "h1", "at", "10.0.0.9", "--"]);
        assert_eq!(hosts[1].address.to_string(), "10.0.0.9");
    }

    #[test]
    fn a_quoted_path_is_one_word() {
        let addresses = [Ipv4Addr::LOCALHOST.into()];
        let hosts = launched(&addresses, "'/my tools/ssh' {address}").unwrap();
        assert_eq!(hosts[0].launcher, ["/my tools/ssh", "127.0.0.1"]);
        let error = launched(&addresses, "it's {address}").unwrap_err();
        assert!(error.to_string().contains("quotation mark"), "{error}");
    }

    #[test]
    fn addresses_and_launcher_need_each_other() {
        assert!(launched(&[], "ssh").is_err());
        assert!(launched(&[Ipv4Addr::LOCALHOST.into()], " ").is_err());
    }

    #[test]
    fn a_network_has_all_hosts() {
        assert_eq!(network_of(&[Host::here()]).unwrap(), "127.0.0.0/24");
        let near = hosts(&["10.77.0.1", "10.77.0.200"]);
        assert_eq!(network_of(&near).unwrap(), "10.77.0.0/24");
        let far = hosts(&["10.1.0.1", "10.2.0.1", "10.1.0.2"]);
        assert_eq!(network_of(&far).unwrap(), "10.0.0.0/14");
        assert_eq!(network_of(&hosts(&["::1"])), None);
        let apart = hosts(&["1.0.0.1", "200.0.0.1"]);
        assert_eq!(network_of(&apart).unwrap(), "0.0.0.0/0");
    }
}
