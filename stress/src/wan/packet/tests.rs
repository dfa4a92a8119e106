//! Packets are built by hand, cut, and checked as a receiver would check them.

use proptest::prelude::*;

use super::*;

/// What a packet is made of.
#[derive(Clone, Copy, Debug)]
struct Form {
    is_v6: bool,
    is_udp: bool,
    segment_bytes: usize,
    payload_bytes: usize,
}

impl Form {
    const fn ip_bytes(self) -> usize {
        if self.is_v6 { 40 } else { 20 }
    }

    const fn header_bytes(self) -> usize {
        // TCP with 12 bytes of options, as timestamps take.
        self.ip_bytes() + if self.is_udp { 8 } else { 32 }
    }
}

const FLAGS: u8 = TCP_CWR | 0x10 | TCP_PSH | TCP_FIN;
const SEQUENCE: u32 = u32::MAX - 5000;

/// A packet with offload from host 0 to host 2. Byte `n` of the payload is `n` modulo 251.
fn packet(form: Form) -> Packet {
    let mut bytes = vec![0; DEVICE_HEADER_BYTES + form.header_bytes()];
    bytes.extend((0..form.payload_bytes).map(|index| (index % 251) as u8));
    let gso_type = match form {
        Form { is_udp: true, .. } => GSO_UDP,
        Form { is_v6: true, .. } => GSO_TCP_V6,
        _ => GSO_TCP_V4 | GSO_ECN,
    };
    bytes[0] = 1;
    bytes[GSO_TYPE] = gso_type;
    bytes[GSO_SEGMENT..][..2].copy_from_slice(&(form.segment_bytes as u16).to_ne_bytes());
    bytes[CHECKSUM_START..][..2].copy_from_slice(&(form.ip_bytes() as u16).to_ne_bytes());
    let packet = &mut bytes[DEVICE_HEADER_BYTES..];
    let protocol = if form.is_udp { 17 } else { 6 };
    if form.is_v6 {
        packet[0] = 6 << 4;
        packet[6] = protocol;
        packet[8..24].copy_from_slice(&address_v6(0).octets());
        packet[24..40].copy_from_slice(&address_v6(2).octets());
    } else {
        packet[0] = 0x45;
        put_u16(packet, 4, 0xfffe);
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&address(0).octets());
        packet[16..20].copy_from_slice(&address(2).octets());
    }
    if !form.is_udp {
        let tcp = &mut packet[form.ip_bytes()..];
        tcp[4..8].copy_from_slice(&SEQUENCE.to_be_bytes());
        tcp[12] = 8 << 4;
        tcp[13] = FLAGS;
    }
    let whole = Run {
        start_bytes: 0,
        start_segment: 0,
        is_first: true,
        is_last: true,
    };
    whole.write_headers(&mut bytes, gso_type);
    let length = bytes.len();
    bytes.extend([0; 50]); // memory that is not part of the packet
    Packet::parse(bytes, length).expect("a packet for host 2")
}

/// Checks the headers of a packet with these segments of the whole; returns its payload.
fn check(form: Form, cut: &Packet, range: &Range<u64>, whole: u64) -> Vec<u8> {
    let bytes = cut.bytes();
    let packet = &bytes[DEVICE_HEADER_BYTES..];
    let is_single = range.end - range.start == 1;
    assert_eq!(bytes[GSO_TYPE] == GSO_NONE, is_single);
    if form.is_v6 {
        assert_eq!(usize::from(u16_at(packet, 4)), packet.len() - 40);
    } else {
        assert_eq!(usize::from(u16_at(packet, 2)), packet.len());
        assert_eq!(
            u16_at(packet, 4),
            0xfffe_u16.wrapping_add(range.start as u16)
        );
        assert_eq!(fold(sum(&packet[..20])), 0xffff, "checksum of the header");
    }
    let transport = &packet[form.ip_bytes()..];
    let checksum_at = if form.is_udp { 6 } else { 16 };
    let addresses = if form.is_v6 {
        &packet[8..40]
    } else {
        &packet[12..20]
    };
    let protocol = if form.is_udp { 17 } else { 6 };
    let pseudo = fold(sum(addresses) + protocol + transport.len() as u32);
    assert_eq!(u16_at(transport, checksum_at), pseudo, "partial checksum");
    if form.is_udp {
        assert_eq!(usize::from(u16_at(transport, 4)), transport.len());
    } else {
        let sequence = u32::from_be_bytes(transport[4..8].try_into().unwrap());
        let offset = range.start as u32 * form.segment_bytes as u32;
        assert_eq!(sequence, SEQUENCE.wrapping_add(offset));
        let flags = transport[13];
        let is_last = range.end == whole;
        assert_eq!(flags & (TCP_FIN | TCP_PSH) != 0, is_last);
        assert_eq!(flags & TCP_CWR != 0, range.start == 0);
        assert_eq!(flags & 0x10, 0x10, "other flags stay");
    }
    packet[form.header_bytes()..].to_vec()
}

const TCP: Form = Form {
    is_v6: false,
    is_udp: false,
    segment_bytes: 1448,
    payload_bytes: 1448 * 3 + 100,
};

#[test]
fn a_large_packet_is_its_segments_on_the_wire() {
    let packet = packet(TCP);
    assert_eq!((packet.target(), packet.segments()), (2, 4));
    let expected = Burst {
        segments: 4,
        segment_bytes: 1448 + 52 + 38,
        last_bytes: 100 + 52 + 38,
    };
    assert_eq!(packet.burst(), expected);
    assert_eq!(packet.cut(&(0..4)), packet);
    let expected = Burst {
        segments: 2,
        segment_bytes: 1448 + 52 + 38,
        last_bytes: 100 + 52 + 38,
    };
    assert_eq!(packet.cut(&(2..4)).burst(), expected);
    let last = packet.cut(&(3..4)).burst();
    assert_eq!((last.segments, last.last_bytes), (1, 100 + 52 + 38));
    assert_eq!(last.segment_bytes, last.last_bytes);
}

#[test]
fn a_packet_without_offload_is_one_segment() {
    let mut bytes = packet(TCP).bytes().to_vec();
    bytes[GSO_TYPE] = GSO_NONE;
    let length = bytes.len();
    let packet = Packet::parse(bytes, length).unwrap();
    let wire_bytes = (length - DEVICE_HEADER_BYTES) as u64 + 38;
    assert_eq!(packet.segments(), 1);
    assert_eq!(packet.burst().last_bytes, wire_bytes);
    assert_eq!(packet.burst().segment_bytes, wire_bytes);
}

#[test]
fn packets_for_elsewhere_are_refused() {
    let good = packet(TCP).bytes().to_vec();
    let refused = |bytes: Vec<u8>| {
        let length = bytes.len();
        Packet::parse(bytes, length).is_err()
    };
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[DEVICE_HEADER_BYTES + at] = value;
        bytes
    };
    assert!(!refused(good.clone()));
    assert!(refused(with(16, 224)), "multicast");
    assert!(refused(with(19, 0)), "the network itself");
    assert!(refused(with(0, 0x55)), "IP version 5");
    assert!(refused(with(20 + 12, 0)), "TCP header of 0 bytes");
    for length in 0..DEVICE_HEADER_BYTES + 20 + 13 {
        assert!(refused(good[..length].to_vec()), "{length} bytes");
    }
}

#[test]
fn addresses_are_those_of_the_hosts() {
    assert_eq!(address(0).to_string(), "10.77.0.1");
    assert_eq!(address_v6(9).to_string(), "fd77::a");
}

proptest! {
    /// However a packet is cut, and cut again, each part is sound and nothing is lost.
    #[test]
    fn parts_are_sound_packets(
        is_v6: bool,
        is_udp: bool,
        segment_bytes in 500_usize..1473,
        payload_bytes in 1_usize..60_000,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let form = Form { is_v6, is_udp, segment_bytes, payload_bytes };
        let whole = packet(form);
        let segments = whole.segments();
        let end = |cut: &prop::sample::Index| cut.index(segments as usize) as u64;
        let mut ends: Vec<u64> = cuts.iter().map(end).collect();
        ends.push(segments);
        ends.sort_unstable();
        ends.dedup();
        let mut start = 0;
        let mut payload = Vec::new();
        let mut rest = whole.clone();
        for end in ends.into_iter().filter(|end| *end > 0) {
            let range = start..end;
            let part = whole.cut(&range);
            prop_assert_eq!(part.segments(), end - start);
            payload.extend(match segments {
                1 => part.bytes()[DEVICE_HEADER_BYTES + form.header_bytes()..].to_vec(),
                _ => check(form, &part, &range, segments),
            });
            // The same part, cut from what an earlier cut left.
            let again = rest.cut(&(0..end - start));
            prop_assert_eq!(again.bytes(), part.bytes());
            if end < segments {
                rest = rest.cut(&(end - start..rest.segments()));
            }
            start = end;
        }
        let expected: Vec<u8> = (0..payload_bytes).map(|index| (index % 251) as u8).collect();
        prop_assert_eq!(payload, expected);
    }
}
