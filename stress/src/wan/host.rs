//! One emulated host: a network namespace with a TUN device.
//!
//! Both last as long as their descriptors, which end with the process, however it ends. A namespace
//! also lasts as long as processes are in it; `warden` sees to those.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::wan::error::{Context, Error, Result};
use crate::wan::netlink::Netlink;
use crate::wan::packet::{address, address_v6};
use crate::wan::sys;

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its packets are read and written here, one at a time, without waiting.
    pub device: File,
    /// Its network namespace.
    pub namespace: File,
    /// What the system could not do for it.
    pub notes: Vec<String>,
}

/// A setting below `/proc/sys`, in a host's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Such as `net.ipv4.tcp_min_tso_segs`.
    pub name: String,
    /// Such as `32`.
    pub value: String,
}

impl Host {
    /// Creates the host with this index.
    pub fn create(index: usize, sysctls: &[Sysctl]) -> Result<Self> {
        // A thread of its own: it leaves its namespace for good.
        let created = thread::scope(|scope| {
            let thread = scope.spawn(|| Self::create_here(index, sysctls));
            thread.join()
        });
        created.expect("creating a host does not panic")
    }

    fn create_here(index: usize, sysctls: &[Sysctl]) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a new network namespace needs root")?;
        let namespace = File::open(THREAD_NAMESPACE).context(THREAD_NAMESPACE)?;
        let device = open_tun()?;
        sys::attach_tun(&device, INTERFACE).context("creating a TUN device")?;
        let has_udp = sys::set_offload(&device).context("segmentation offload")?;
        let mut notes = Vec::new();
        if !has_udp {
            notes.push("this kernel does not hand over UDP in bursts".into());
        }
        let netlink = Netlink::open().context("rtnetlink")?;
        netlink.set_up("lo", None).context("switching on lo")?;
        let set_up = netlink.set_up(INTERFACE, Some(QUEUE_PACKETS));
        set_up.context("switching on the TUN device")?;
        let v4 = IpAddr::V4(address(index));
        let added = netlink.add_address(INTERFACE, v4, 24);
        added.context("giving the TUN device an address")?;
        let v6 = IpAddr::V6(address_v6(index));
        if let Err(error) = netlink.add_address(INTERFACE, v6, 64) {
            notes.push(format!("hosts have no IPv6 address: {error}"));
        }
        for sysctl in sysctls {
            sysctl.write()?;
        }
        Ok(Self {
            device,
            namespace,
            notes,
        })
    }
}

impl Sysctl {
    /// `NAME=VALUE`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is no NAME=VALUE"))?;
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !name.starts_with("net.") || name.contains("..") || !name.chars().all(is_safe) {
            return Err(format!(
                "`{name}` is no setting of a network, such as net.ipv4.tcp_rmem"
            ));
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }

    fn write(&self) -> Result<()> {
        let path = format!("/proc/sys/{}", self.name.replace('.', "/"));
        fs::write(&path, &self.value).context(&format!("setting {} in a host", self.name))
    }
}

/// Moves this process into a user namespace in which it is root, so that it may create networks.
///
/// Works only while the process has one thread.
pub fn enter_user_namespace() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    let refused =
        "a user namespace (the system may forbid them, and a process with threads has none)";
    unshare(CloneFlags::CLONE_NEWUSER).context(refused)?;
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    for (path, text) in maps {
        fs::write(path, text).context(path)?;
    }
    Ok(())
}

/// Whether this process is root, here or in its user namespace.
pub fn is_root() -> bool {
    geteuid().is_root()
}

fn open_tun() -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK);
    options.open(TUN).map_err(|source| Error::System {
        what: match source.kind() {
            io::ErrorKind::PermissionDenied => format!("{TUN} must be readable and writable"),
            io::ErrorKind::NotFound => format!("{TUN} is missing (modprobe tun)"),
            _ => TUN.into(),
        },
        source,
    })
}

/// Name of a host's interface.
pub const INTERFACE: &str = "wan0";

/// How many packets wait for the emulator; with fewer, bursts are lost before it sees them.
const QUEUE_PACKETS: u32 = 10_000;

const TUN: &str = "/dev/net/tun";
const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_a_network_are_taken() {
        let sysctl = Sysctl::parse("net.ipv4.tcp_rmem=4096 131072 6291456").unwrap();
        assert_eq!(sysctl.name, "net.ipv4.tcp_rmem");
        assert_eq!(sysctl.value, "4096 131072 6291456");
        for text in ["net.ipv4.x", "kernel.panic=1", "net...kernel=1", "net./x=1"] {
            assert!(Sysctl::parse(text).is_err(), "{text}");
        }
    }
}
