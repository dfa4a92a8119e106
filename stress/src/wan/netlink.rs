//! Configures interfaces of this thread's network namespace, by rtnetlink.
//!
//! The ioctls that do the same refuse the length of the queue in a user namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A connection to the kernel's part for this namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Connects.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket })
    }

    /// Switches an interface on, and sets how many packets its queue holds.
    pub fn set_up(&self, interface: &str, queue_packets: Option<u32>) -> io::Result<()> {
        let index = if_nametoindex(interface)?;
        let mut message = Message::new(RTM_NEWLINK, 0);
        let up = libc::IFF_UP as u32;
        message.put(&[0; 4]);
        message.put(&index.to_ne_bytes());
        message.put(&up.to_ne_bytes()); // the flags
        message.put(&up.to_ne_bytes()); // which of them change
        if let Some(packets) = queue_packets {
            message.attribute(IFLA_TXQLEN, &packets.to_ne_bytes());
        }
        self.ask(message)
    }

    /// Gives an interface an address.
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let index = if_nametoindex(interface)?;
        let (family, octets) = match address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE);
        message.put(&[family as u8, prefix_bits, IFA_F_NODAD, 0]);
        message.put(&index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &octets);
        message.attribute(IFA_ADDRESS, &octets);
        self.ask(message)
    }

    /// Sends a request, and waits until it has been carried out or refused.
    fn ask(&self, message: Message) -> io::Result<()> {
        let socket = self.socket.as_raw_fd();
        send(socket, &message.finish(), MsgFlags::empty())?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let length = recv(socket, &mut answer, MsgFlags::empty())?;
        match refusal(&answer[..length]) {
            Some(0) => Ok(()),
            Some(errno) => Err(Errno::from_raw(-errno).into()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A request being written.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self { bytes: vec![0; 4] }; // the length comes last
        message.put(&kind.to_ne_bytes());
        message.put(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.put(&[0; 8]); // number and port: there is one request at a time
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        assert!(value.len().is_multiple_of(4), "no value needs padding");
        self.put(&(value.len() as u16 + 4).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// The error number in an answer, negative or 0; `None` if it is no answer.
fn refusal(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(number)
}

/// An answer repeats the request, which is below 100 bytes.
const ANSWER_BYTES_MAX: usize = 512;

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFLA_TXQLEN: u16 = 13;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_with_its_length() {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.attribute(IFLA_TXQLEN, &7_u32.to_ne_bytes());
        let bytes = message.finish();
        assert_eq!(bytes.len(), 16 + 8);
        assert_eq!(bytes[..4], 24_u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 8_u16.to_ne_bytes());
    }

    #[test]
    fn a_refusal_is_found_in_the_answer() {
        let mut answer = vec![0; 20];
        assert_eq!(refusal(&answer), None);
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(refusal(&answer), Some(-1));
        assert_eq!(refusal(&answer[..19]), None);
    }
}
