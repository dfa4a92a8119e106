//! An IP packet as a TUN device hands it over, and how one of many segments is cut.
//!
//! A device with segmentation offload passes up to 64 KiB of one TCP or UDP flow as a single
//! packet, preceded by a `virtio_net_hdr` that says how to cut it. The emulator loses and queues
//! segments, so it cuts such a packet into runs of segments, each with headers of its own.
//! Checksums of TCP and UDP stay partial: the receiving system completes or skips them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::wan::shaper::Burst;

/// A packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The header of the device and the packet, and maybe unused bytes after them.
    buffer: Vec<u8>,
    length: usize,
    layout: Layout,
}

/// What the emulator knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Index of the host it goes to.
    target: usize,
    /// Headers that each segment repeats; 0 in a packet of one segment.
    header_bytes: usize,
    /// Payload of each segment but the last.
    segment_bytes: usize,
    segments: u64,
}

impl Packet {
    /// The packet in the first `length` bytes; the buffer if it is for no host of the network.
    pub fn parse(buffer: Vec<u8>, length: usize) -> Result<Self, Vec<u8>> {
        match buffer.get(..length).and_then(parse) {
            Some(layout) => Ok(Self {
                buffer,
                length,
                layout,
            }),
            None => Err(buffer),
        }
    }

    /// What to write to the device of the receiver.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// The memory, for the next packet.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Index of the host it goes to.
    pub const fn target(&self) -> usize {
        self.layout.target
    }

    /// How many segments it has on the wire; at least 1.
    pub const fn segments(&self) -> u64 {
        self.layout.segments
    }

    /// Its segments as a bottleneck sees them.
    pub fn burst(&self) -> Burst {
        let layout = &self.layout;
        let ip_bytes = self.length - DEVICE_HEADER_BYTES;
        // Without the payload of the others, headers and the last payload are left.
        let others_bytes = (layout.segments as usize - 1) * layout.segment_bytes;
        let last_bytes = (ip_bytes - others_bytes) as u64 + FRAMING_BYTES;
        let segment_bytes = match layout.segments {
            1 => last_bytes,
            _ => (layout.header_bytes + layout.segment_bytes) as u64 + FRAMING_BYTES,
        };
        Burst {
            segments: layout.segments,
            segment_bytes,
            last_bytes,
        }
    }

    /// These of its segments as a packet of their own.
    pub fn cut(&self, range: &Range<u64>) -> Self {
        assert!(range.start < range.end, "a packet has at least one segment");
        assert!(range.end <= self.segments(), "only its own segments");
        if *range == (0..self.segments()) {
            return self.clone();
        }
        let Layout {
            header_bytes,
            segment_bytes,
            ..
        } = self.layout;
        let (headers, payload) = self.bytes().split_at(DEVICE_HEADER_BYTES + header_bytes);
        let start = range.start as usize * segment_bytes;
        let end = (range.end as usize * segment_bytes).min(payload.len());
        let mut buffer = [headers, &payload[start..end]].concat();
        let run = Run {
            start_bytes: start,
            start_segment: range.start,
            is_first: range.start == 0,
            is_last: range.end == self.segments(),
        };
        let segments = range.end - range.start;
        if segments == 1 {
            buffer[GSO_TYPE] = GSO_NONE;
            buffer[GSO_SEGMENT..GSO_SEGMENT + 2].fill(0);
        }
        run.write_headers(&mut buffer, self.bytes()[GSO_TYPE]);
        Self {
            length: buffer.len(),
            buffer,
            layout: Layout {
                segments,
                ..self.layout
            },
        }
    }
}

/// Address of the host with this index.
pub fn address(host: usize) -> Ipv4Addr {
    let [a, b, c, _] = NETWORK;
    Ipv4Addr::new(a, b, c, last_byte(host))
}

/// Its IPv6 address.
pub fn address_v6(host: usize) -> Ipv6Addr {
    let mut octets = NETWORK_V6;
    octets[15] = last_byte(host);
    octets.into()
}

fn last_byte(host: usize) -> u8 {
    assert!(host < HOSTS_MAX, "a network has at most {HOSTS_MAX} hosts");
    host as u8 + 1
}

/// The part of a packet that a cut leaves.
struct Run {
    /// Where its payload began.
    start_bytes: usize,
    start_segment: u64,
    is_first: bool,
    is_last: bool,
}

impl Run {
    /// Rewrites the headers of IP, TCP and UDP for what `buffer` holds now.
    fn write_headers(&self, buffer: &mut [u8], gso_type: u8) {
        let transport = usize::from(native_u16(buffer, CHECKSUM_START));
        let packet = &mut buffer[DEVICE_HEADER_BYTES..];
        let pseudo = match packet[0] >> 4 {
            4 => self.write_ipv4(packet),
            _ => self.write_ipv6(packet),
        };
        let length = packet.len() - transport;
        let is_udp = gso_type & !GSO_ECN == GSO_UDP;
        let protocol = if is_udp { PROTOCOL_UDP } else { PROTOCOL_TCP };
        let partial = fold(pseudo + protocol + length as u32);
        let header = &mut packet[transport..];
        if is_udp {
            put_u16(header, 4, length as u16);
            put_u16(header, 6, partial);
        } else {
            self.write_tcp(header);
            put_u16(header, 16, partial);
        }
    }

    /// Returns the sum of the addresses.
    fn write_ipv4(&self, packet: &mut [u8]) -> u32 {
        put_u16(packet, 2, packet.len() as u16);
        let identification = u16_at(packet, 4).wrapping_add(self.start_segment as u16);
        put_u16(packet, 4, identification);
        put_u16(packet, 10, 0);
        let header_bytes = usize::from(packet[0] & 15) * 4;
        let checksum = !fold(sum(&packet[..header_bytes]));
        put_u16(packet, 10, checksum);
        sum(&packet[12..20])
    }

    /// Returns the sum of the addresses.
    fn write_ipv6(&self, packet: &mut [u8]) -> u32 {
        put_u16(packet, 4, (packet.len() - 40) as u16);
        sum(&packet[8..40])
    }

    fn write_tcp(&self, header: &mut [u8]) {
        let first = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let sequence = first.wrapping_add(self.start_bytes as u32);
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        // These say something about the end and the beginning of the whole.
        if !self.is_last {
            header[13] &= !(TCP_FIN | TCP_PSH);
        }
        if !self.is_first {
            header[13] &= !TCP_CWR;
        }
    }
}

/// Reads the headers. `None` if the packet is broken or for no host.
fn parse(bytes: &[u8]) -> Option<Layout> {
    let packet = bytes.get(DEVICE_HEADER_BYTES..)?;
    let target = target(packet)?;
    let gso_type = bytes[GSO_TYPE] & !GSO_ECN;
    let segment_bytes = usize::from(native_u16(bytes, GSO_SEGMENT));
    if gso_type == GSO_NONE || segment_bytes == 0 {
        return Some(Layout {
            target,
            header_bytes: 0,
            segment_bytes: 0,
            segments: 1,
        });
    }
    let transport = usize::from(native_u16(bytes, CHECKSUM_START));
    let transport_bytes = match gso_type {
        GSO_UDP => 8,
        GSO_TCP_V4 | GSO_TCP_V6 => usize::from(packet.get(transport + 12)? >> 4) * 4,
        _ => return None,
    };
    let header_bytes = transport + transport_bytes;
    let fits = transport >= 20 && transport_bytes >= 8 && header_bytes < packet.len();
    let payload = packet.len().checked_sub(header_bytes).filter(|_| fits)?;
    Some(Layout {
        target,
        header_bytes,
        segment_bytes,
        segments: payload.div_ceil(segment_bytes) as u64,
    })
}

fn target(packet: &[u8]) -> Option<usize> {
    let last = match packet.first()? >> 4 {
        4 if packet.len() >= 20 && packet[16..19] == NETWORK[..3] => packet[19],
        6 if packet.len() >= 40 && packet[24..39] == NETWORK_V6[..15] => packet[39],
        _ => return None,
    };
    usize::from(last).checked_sub(1)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The device's own header is in the order of the machine.
fn native_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// Sum of 16-bit words, the last padded with 0 (RFC 1071). Carries are folded by `fold`.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Most hosts of a network: the last byte of an address is the host's index + 1.
pub const HOSTS_MAX: usize = 250;

/// Length of `virtio_net_hdr`.
pub const DEVICE_HEADER_BYTES: usize = 10;

/// Longest packet, with the header of the device.
pub const PACKET_BYTES_MAX: usize = DEVICE_HEADER_BYTES + (64 << 10);

/// What Ethernet adds to each segment: preamble, header, checksum and gap.
const FRAMING_BYTES: u64 = 38;

/// Addresses of hosts are `10.77.0.1` and on.
const NETWORK: [u8; 4] = [10, 77, 0, 0];

/// Addresses of hosts are `fd77::1` and on.
const NETWORK_V6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

// Fields of `virtio_net_hdr`.
const GSO_TYPE: usize = 1;
const GSO_SEGMENT: usize = 4;
const CHECKSUM_START: usize = 6;

// Values of its type of segmentation.
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_UDP: u32 = 17;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

#[cfg(test)]
mod tests;
