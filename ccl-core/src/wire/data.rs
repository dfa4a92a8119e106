//! The frames between two peers: a fixed header, a payload, a trailer.
//!
//! All numbers are little-endian. The header has its own CRC, since its lengths are trusted before
//! the payload arrives. A payload is followed by a trailer, whose CRC continues the header's over
//! the payload and the trailer's mark, so a payload cannot pass under another header. If the sender
//! cannot finish a frame (its operation ended half-way), it fills the frame up and marks it void in
//! the trailer; that is not a fault. A frame without payload has no trailer.
//!
//! Which frames may come when, and what they do, is decided by `transport`.

use crc32fast::Hasher;

use super::fixed::{Reader, Writer, stored_crc};
use crate::ids::{Epoch, OpName, OpNumber, Tag, Term, Vid};
use crate::limits::{SEGMENT_BYTES_MAX, SIGNAL_PAYLOAD_BYTES_MAX};

pub use super::fault::{DATA_VERSION, DataFault};
pub use super::lane::{
    Answer, HELLO_BYTES, LaneHello, LaneOffer, LaneWelcome, Opening, WELCOME_BYTES,
};

/// Bytes of an encoded [`Header`].
pub const HEADER_BYTES: usize = 64;
/// Bytes of the trailer behind a payload.
pub const TRAILER_BYTES: usize = 8;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An operation was posted: its fingerprint, and for eager operations the contribution (signal
    /// lane).
    Post {
        /// Segments of the contribution that come ahead of a credit.
        ahead: u32,
        /// Bytes of the fingerprint, with which the payload begins.
        fingerprint_bytes: u32,
    },
    /// The receiver may send these segments' contributions (signal lane).
    Credit {
        /// First segment, as the operation's layout numbers them.
        first: u32,
        /// Number of segments.
        count: u32,
    },
    /// A segment of somebody's input, on its way to be reduced.
    Contribution {
        /// Number of the segment.
        segment: u32,
        /// How often it was passed on before; ring only.
        hop: u32,
    },
    /// A finished segment.
    Result {
        /// Number of the segment.
        segment: u32,
        /// How often it was passed on before; ring only.
        hop: u32,
    },
    /// Finished segments of an eager operation (signal lane).
    EagerResult {
        /// First segment.
        first: u32,
        /// Number of segments.
        count: u32,
    },
    /// The sender holds the whole result of an operation (signal lane; R19).
    Held,
    /// How far its sender is with the safe points of a view, which is named as the operation's
    /// birth; the operation's number is how many it is at or past (signal lane; R19).
    SafePoint {
        /// Low half of how many are released to it.
        released_low: u32,
        /// High half.
        released_high: u32,
    },
    /// Asks for blocks of a shared state (signal lane).
    StateAsk {
        /// First block.
        first: u32,
        /// Number of blocks.
        count: u32,
    },
    /// Asks for digests of blocks (signal lane).
    StateDigestAsk {
        /// First block.
        first: u32,
        /// Number of blocks.
        count: u32,
    },
    /// Blocks of a shared state, one after the other.
    StateBlocks {
        /// First block.
        first: u32,
        /// Number of blocks.
        count: u32,
    },
    /// Digests of blocks.
    StateDigests {
        /// First block.
        first: u32,
        /// Number of blocks.
        count: u32,
    },
    /// A segment of somebody's input, sent with the post and ahead of a credit.
    Ahead {
        /// Number of the segment.
        segment: u32,
        /// Bytes that all such segments to this receiver need in its reserve.
        batch_bytes: u32,
    },
}

impl Frame {
    /// Whether such frames travel on the signal lane only. The others may, while they are small.
    #[must_use]
    pub const fn is_signal(self) -> bool {
        match self {
            Self::Post { .. }
            | Self::Credit { .. }
            | Self::EagerResult { .. }
            | Self::Held
            | Self::SafePoint { .. }
            | Self::StateAsk { .. }
            | Self::StateDigestAsk { .. } => true,
            Self::Contribution { .. }
            | Self::Result { .. }
            | Self::StateBlocks { .. }
            | Self::StateDigests { .. }
            | Self::Ahead { .. } => false,
        }
    }

    /// Longest payload of such a frame, in bytes.
    #[must_use]
    pub const fn payload_bytes_max(self) -> usize {
        if self.is_signal() {
            SIGNAL_PAYLOAD_BYTES_MAX
        } else {
            SEGMENT_BYTES_MAX
        }
    }

    /// The number of its kind on the wire.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.fields().0
    }

    /// The first segment or block that it is about; for a post the number of segments ahead.
    #[must_use]
    pub const fn first(self) -> u32 {
        self.fields().1
    }

    /// Its kind and its two fields in the header.
    const fn fields(self) -> (u8, u32, u32) {
        match self {
            Self::Post {
                ahead,
                fingerprint_bytes,
            } => (1, ahead, fingerprint_bytes),
            Self::Credit { first, count } => (2, first, count),
            Self::Contribution { segment, hop } => (3, segment, hop),
            Self::Result { segment, hop } => (4, segment, hop),
            Self::EagerResult { first, count } => (5, first, count),
            Self::StateAsk { first, count } => (6, first, count),
            Self::StateDigestAsk { first, count } => (7, first, count),
            Self::StateBlocks { first, count } => (8, first, count),
            Self::StateDigests { first, count } => (9, first, count),
            Self::Held => (10, 0, 0),
            Self::SafePoint {
                released_low,
                released_high,
            } => (11, released_low, released_high),
            Self::Ahead {
                segment,
                batch_bytes,
            } => (12, segment, batch_bytes),
        }
    }

    /// The reverse; `None` for a kind that there is not.
    const fn from_fields(kind: u8, first: u32, second: u32) -> Option<Self> {
        let (segment, hop, count) = (first, second, second);
        Some(match kind {
            1 => Self::Post {
                ahead: first,
                fingerprint_bytes: second,
            },
            2 => Self::Credit { first, count },
            3 => Self::Contribution { segment, hop },
            4 => Self::Result { segment, hop },
            5 => Self::EagerResult { first, count },
            6 => Self::StateAsk { first, count },
            7 => Self::StateDigestAsk { first, count },
            8 => Self::StateBlocks { first, count },
            9 => Self::StateDigests { first, count },
            10 => Self::Held,
            11 => Self::SafePoint {
                released_low: first,
                released_high: second,
            },
            12 => Self::Ahead {
                segment,
                batch_bytes: second,
            },
            _ => return None,
        })
    }
}

/// Which bytes a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The operation.
    pub op: OpName,
    /// What it is about.
    pub frame: Frame,
    /// Bytes of payload that follow.
    pub payload_bytes: u32,
}

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A frame of the layer above.
    Frame(FrameHeader),
    /// A number whose frame is no longer wanted: its operation is over.
    Skip,
    /// Nothing but the acknowledgement in the header.
    Ack,
    /// Heartbeat.
    Ping,
    /// Bytes that mean nothing follow, without a trailer: as many as it says.
    Padding(u32),
}

impl Content {
    /// Whether it takes a number of its lane.
    #[must_use]
    pub const fn is_numbered(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Skip)
    }
}

/// One header on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame carries.
    pub content: Content,
    /// Its number in its lane, from 0; 0 where it takes none.
    pub sequence: u64,
    /// The number the sender expects next on this lane: all below have arrived.
    pub ack: u64,
}

const KIND_SKIP: u8 = 16;
const KIND_ACK: u8 = 17;
const KIND_PING: u8 = 18;
const KIND_PADDING: u8 = 19;
const MARK_FRAME: u16 = 0xCC1D;
const MARK_VALID: u32 = 0x5AA5_C33C;
const MARK_VOID: u32 = !MARK_VALID;

impl Header {
    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (kind, frame) = match self.content {
            Content::Frame(header) => (header.frame.kind(), Some(header)),
            Content::Skip => (KIND_SKIP, None),
            Content::Ack => (KIND_ACK, None),
            Content::Ping => (KIND_PING, None),
            Content::Padding(_) => (KIND_PADDING, None),
        };
        let following_bytes = match self.content {
            Content::Frame(header) => header.payload_bytes,
            Content::Padding(bytes) => bytes,
            Content::Skip | Content::Ack | Content::Ping => 0,
        };
        let mut writer = Writer::<HEADER_BYTES>::new();
        writer.put(&[kind, 0]);
        writer.put(&MARK_FRAME.to_le_bytes());
        writer.put(&following_bytes.to_le_bytes());
        writer.put(&self.sequence.to_le_bytes());
        writer.put(&self.ack.to_le_bytes());
        if let Some(FrameHeader { op, frame, .. }) = frame {
            writer.put(&op.tag.0.to_le_bytes());
            writer.put(&op.n.0.to_le_bytes());
            writer.put(&op.birth.term.0.to_le_bytes());
            writer.put(&op.birth.epoch.0.to_le_bytes());
            let (_, first, second) = frame.fields();
            writer.put(&first.to_le_bytes());
            writer.put(&second.to_le_bytes());
        }
        let bytes = writer.finish();
        debug_assert!(
            Self::decode(&bytes).map_or(true, |(header, _)| header == *self),
            "the other side reads what was written, or refuses it"
        );
        bytes
    }

    /// From bytes, checked against every limit. Also returns the header's CRC, with which a
    /// [`PayloadCheck`] begins.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, u32), DataFault> {
        let mut reader = Reader::new(bytes);
        let [kind, flags] = reader.take();
        let mark = u16::from_le_bytes(reader.take());
        let crc = stored_crc(bytes);
        if crc32fast::hash(&bytes[..HEADER_BYTES - 4]) != crc {
            return Err(DataFault::HeaderChecksum);
        }
        if mark != MARK_FRAME || flags != 0 {
            return Err(DataFault::Field("mark"));
        }
        let payload_bytes = reader.u32();
        let sequence = reader.u64();
        let ack = reader.u64();
        let op = OpName {
            tag: Tag(reader.u64()),
            n: OpNumber(reader.u64()),
            birth: Vid {
                term: Term(reader.u32()),
                epoch: Epoch(reader.u32()),
            },
        };
        let content = match (kind, Frame::from_fields(kind, reader.u32(), reader.u32())) {
            (_, Some(frame)) if payload_bytes as usize > frame.payload_bytes_max() => {
                return Err(DataFault::TooLong(payload_bytes));
            }
            (_, Some(frame)) => Content::Frame(FrameHeader {
                op,
                frame,
                payload_bytes,
            }),
            (KIND_PADDING, _) if payload_bytes as usize <= SEGMENT_BYTES_MAX => {
                Content::Padding(payload_bytes)
            }
            _ if payload_bytes != 0 => return Err(DataFault::TooLong(payload_bytes)),
            (KIND_SKIP, _) => Content::Skip,
            (KIND_ACK, _) => Content::Ack,
            (KIND_PING, _) => Content::Ping,
            _ => return Err(DataFault::Field("kind")),
        };
        if !content.is_numbered() && sequence != 0 {
            return Err(DataFault::Field("sequence"));
        }
        let header = Self {
            content,
            sequence,
            ack,
        };
        Ok((header, crc))
    }
}

/// The running CRC of a payload, begun with its header's CRC; nothing when checksums are off.
#[derive(Clone, Debug)]
pub struct PayloadCheck {
    header_crc: u32,
    hasher: Option<Hasher>,
}

impl PayloadCheck {
    /// Begins with the CRC of the header.
    #[must_use]
    pub fn new(header_crc: u32, checksum: bool) -> Self {
        Self {
            header_crc,
            hasher: checksum.then(|| Hasher::new_with_initial(header_crc)),
        }
    }

    /// Begins with an encoded header.
    #[must_use]
    pub fn after(header: &[u8; HEADER_BYTES], checksum: bool) -> Self {
        Self::new(stored_crc(header), checksum)
    }

    /// Takes in the next bytes of the payload.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    /// The trailer of a payload that was taken in whole.
    #[must_use]
    pub fn valid(self) -> [u8; TRAILER_BYTES] {
        let crc = self.hasher.map_or(0, |mut hasher| {
            hasher.update(&MARK_VALID.to_le_bytes());
            hasher.finalize()
        });
        encode_trailer(crc, MARK_VALID)
    }

    /// The trailer of a payload that was filled up.
    #[must_use]
    pub fn void(self) -> [u8; TRAILER_BYTES] {
        let crc = self.hasher.map_or(0, |_| {
            let mut hasher = Hasher::new_with_initial(self.header_crc);
            hasher.update(&MARK_VOID.to_le_bytes());
            hasher.finalize()
        });
        encode_trailer(crc, MARK_VOID)
    }

    /// Whether the payload that was taken in may be used: false if it is void.
    ///
    /// # Errors
    /// The trailer is no trailer, or its CRC is not that of the payload.
    pub fn verify(self, trailer: &[u8; TRAILER_BYTES]) -> Result<bool, DataFault> {
        if *trailer == self.clone().void() {
            return Ok(false);
        }
        if trailer[4..] != MARK_VALID.to_le_bytes() {
            return Err(DataFault::Field("trailer"));
        }
        if *trailer != self.valid() {
            return Err(DataFault::PayloadChecksum);
        }
        Ok(true)
    }

    /// Checks the trailer of a payload that nobody looked at.
    ///
    /// # Errors
    /// The trailer is no trailer.
    pub fn verify_unread(trailer: &[u8; TRAILER_BYTES]) -> Result<(), DataFault> {
        let mark = &trailer[4..];
        if mark == MARK_VALID.to_le_bytes() || mark == MARK_VOID.to_le_bytes() {
            return Ok(());
        }
        Err(DataFault::Field("trailer"))
    }
}

fn encode_trailer(crc: u32, mark: u32) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes[4..].copy_from_slice(&mark.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{LinkKey, PeerId, RunId};
    use crate::limits::LANES_MAX;
    use crate::wire::lane::MAGIC_HELLO;

    fn any_header() -> impl Strategy<Value = Header> {
        let frame = (
            1_u8..=12,
            any::<[u64; 2]>(),
            any::<[u32; 4]>(),
            0_u32..=4096,
        )
            .prop_map(
                |(kind, [tag, n], [term, epoch, first, second], payload_bytes)| {
                    Content::Frame(FrameHeader {
                        frame: Frame::from_fields(kind, first, second).unwrap(),
                        op: OpName {
                            tag: Tag(tag),
                            n: OpNumber(n),
                            birth: Vid {
                                term: Term(term),
                                epoch: Epoch(epoch),
                            },
                        },
                        payload_bytes,
                    })
                },
            );
        let content = prop_oneof![
            4 => frame,
            1 => Just(Content::Skip),
            1 => Just(Content::Ack),
            1 => Just(Content::Ping),
            1 => (0..=SEGMENT_BYTES_MAX as u32).prop_map(Content::Padding)
        ];
        (content, any::<u64>(), any::<u64>()).prop_map(|(content, sequence, ack)| Header {
            content,
            sequence: if content.is_numbered() { sequence } else { 0 },
            ack,
        })
    }

    fn any_hello() -> impl Strategy<Value = LaneHello> {
        let fields = (
            any::<[u128; 3]>(),
            any::<[u64; 5]>(),
            1_u64..,
            1..=LANES_MAX,
        );
        (fields, any::<(u16, bool)>()).prop_map(
            |((keys, ids, incarnation, lanes), (lane, checksum))| LaneHello {
                run: RunId(keys[0]),
                from: PeerId(ids[0]),
                to: PeerId(ids[1]),
                from_key: LinkKey(keys[1]),
                to_key: LinkKey(keys[2]),
                incarnation,
                known: ids[2],
                attempt: ids[3],
                next_expected: ids[4],
                lane: lane % (lanes + 1),
                lanes,
                checksum,
            },
        )
    }

    fn welcome_to(hello: &LaneHello, answer: Answer) -> LaneWelcome {
        LaneWelcome {
            answer,
            run: hello.run,
            from: hello.to,
            to: hello.from,
            incarnation: hello.incarnation,
            attempt: hello.attempt,
            next_expected: hello.next_expected,
            lane: hello.lane,
            lanes: hello.lanes,
            checksum: hello.checksum,
        }
    }

    proptest! {
        #[test]
        fn headers_survive_the_wire(header in any_header()) {
            let bytes = header.encode();
            let (decoded, crc) = Header::decode(&bytes).unwrap();
            prop_assert_eq!(decoded, header);
            prop_assert_eq!(crc, stored_crc(&bytes));
        }

        #[test]
        fn hellos_and_welcomes_survive_the_wire(hello in any_hello(), stale in any::<bool>()) {
            prop_assert_eq!(LaneHello::decode(&hello.encode()), Ok(hello));
            let answer = if stale { Answer::Stale } else { Answer::Accepted };
            let welcome = welcome_to(&hello, answer);
            prop_assert_eq!(LaneWelcome::decode(&welcome.encode()), Ok(welcome));
        }

        #[test]
        fn any_flipped_bit_of_a_header_is_noticed(
            header in any_header(),
            bit in 0..HEADER_BYTES * 8,
        ) {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes), Err(DataFault::HeaderChecksum));
        }

        #[test]
        fn any_flipped_bit_of_a_hello_is_noticed(hello in any_hello(), bit in 0..HELLO_BYTES * 8) {
            let mut bytes = hello.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(LaneHello::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), HELLO_BYTES)) {
            let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
            let welcome: [u8; WELCOME_BYTES] = bytes[..WELCOME_BYTES].try_into().unwrap();
            let hello: [u8; HELLO_BYTES] = bytes[..].try_into().unwrap();
            let trailer: [u8; TRAILER_BYTES] = bytes[..TRAILER_BYTES].try_into().unwrap();
            let _ = Header::decode(&header);
            let _ = LaneWelcome::decode(&welcome);
            let _ = LaneHello::decode(&hello);
            let _ = PayloadCheck::new(1, true).verify(&trailer);
        }

        /// Bytes with a good CRC but random fields: the checks behind the CRC are reached.
        #[test]
        fn arbitrary_fields_under_a_good_crc_never_exceed_the_limits(
            mut bytes in any::<[[u8; 16]; 4]>().prop_map(|rows| {
                let mut bytes = [0_u8; HEADER_BYTES];
                bytes.copy_from_slice(rows.as_flattened());
                bytes
            }),
            kind in 0_u8..20,
        ) {
            bytes[0] = kind;
            bytes[1] = 0;
            bytes[2..4].copy_from_slice(&MARK_FRAME.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
            bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            let decoded = Header::decode(&bytes);
            if let Ok((Header { content: Content::Frame(header), .. }, _)) = decoded {
                let most = header.frame.payload_bytes_max();
                prop_assert!(header.payload_bytes as usize <= most);
            }
        }

        #[test]
        fn a_changed_payload_or_trailer_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 1..300),
            header in any_header(),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let header = header.encode();
            let mut check = PayloadCheck::after(&header, true);
            check.update(&payload);
            let mut bytes = payload.clone();
            bytes.extend_from_slice(&check.valid());
            let verify = |bytes: &[u8]| {
                let (payload, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
                let mut check = PayloadCheck::after(&header, true);
                check.update(payload);
                check.verify(trailer.try_into().unwrap())
            };
            prop_assert_eq!(verify(&bytes), Ok(true));
            let index = place.index(bytes.len());
            bytes[index] ^= 1 << bit;
            prop_assert!(verify(&bytes).is_err());
        }
    }

    #[test]
    fn a_payload_does_not_pass_under_another_header() {
        let header = |segment| {
            Header {
                content: Content::Frame(FrameHeader {
                    frame: Frame::Result { segment, hop: 0 },
                    op: OpName::default(),
                    payload_bytes: 3,
                }),
                sequence: 7,
                ack: 0,
            }
            .encode()
        };
        let mut sent = PayloadCheck::after(&header(1), true);
        sent.update(b"abc");
        let mut received = PayloadCheck::after(&header(2), true);
        received.update(b"abc");
        assert_eq!(
            received.verify(&sent.valid()),
            Err(DataFault::PayloadChecksum)
        );
    }

    #[test]
    fn void_is_told_with_and_without_checksums() {
        for checksum in [false, true] {
            let trailer = PayloadCheck::new(9, checksum).void();
            let mut received = PayloadCheck::new(9, checksum);
            received.update(b"half and zeros");
            assert_eq!(received.verify(&trailer), Ok(false));
            assert_eq!(PayloadCheck::verify_unread(&trailer), Ok(()));
        }
    }

    #[test]
    fn a_frame_that_announces_four_gibibytes_is_refused() {
        for kind in 1..=10 {
            let frame = Frame::from_fields(kind, 0, 0).unwrap();
            let header = |payload_bytes| Header {
                content: Content::Frame(FrameHeader {
                    frame,
                    op: OpName::default(),
                    payload_bytes,
                }),
                sequence: 0,
                ack: 0,
            };
            let limit = u32::try_from(frame.payload_bytes_max()).unwrap();
            assert!(Header::decode(&header(limit).encode()).is_ok());
            for over in [limit + 1, u32::MAX] {
                assert_eq!(
                    Header::decode(&header(over).encode()),
                    Err(DataFault::TooLong(over))
                );
            }
        }
    }

    #[test]
    fn padding_is_as_long_as_a_segment_at_most() {
        let header = |bytes| Header {
            content: Content::Padding(bytes),
            sequence: 0,
            ack: 0,
        };
        let most = u32::try_from(SEGMENT_BYTES_MAX).unwrap();
        for bytes in [0, 1, most] {
            let decoded = Header::decode(&header(bytes).encode());
            assert_eq!(decoded.map(|(header, _)| header), Ok(header(bytes)));
        }
        for over in [most + 1, u32::MAX] {
            let refused = Header::decode(&header(over).encode());
            assert_eq!(refused, Err(DataFault::TooLong(over)));
        }
    }

    /// As docs/wire.md has them: kind, payload bytes, sequence, ack, operation, two fields.
    #[test]
    fn headers_are_the_documented_bytes() {
        let (first, count, segment, hop) = (0x0a0b_0c0d, 0x1a1b_1c1d, 0x0a0b_0c0d, 0x1a1b_1c1d);
        let frames = [
            Frame::Post {
                ahead: first,
                fingerprint_bytes: count,
            },
            Frame::Credit { first, count },
            Frame::Contribution { segment, hop },
            Frame::Result { segment, hop },
            Frame::EagerResult { first, count },
            Frame::StateAsk { first, count },
            Frame::StateDigestAsk { first, count },
            Frame::StateBlocks { first, count },
            Frame::StateDigests { first, count },
            Frame::SafePoint {
                released_low: first,
                released_high: count,
            },
            Frame::Ahead {
                segment,
                batch_bytes: count,
            },
        ];
        let kinds = (1_u8..=9).chain([11, 12]);
        for (kind, frame) in kinds.zip(frames) {
            let content = Content::Frame(FrameHeader {
                op: OpName {
                    tag: Tag(0x2122_2324_2526_2728),
                    n: OpNumber(0x3132_3334_3536_3738),
                    birth: Vid {
                        term: Term(0x4142_4344),
                        epoch: Epoch(0x5152_5354),
                    },
                },
                frame,
                payload_bytes: 0x1000,
            });
            let header = Header {
                content,
                sequence: 0x6162_6364_6566_6768,
                ack: 0x7172_7374_7576_7778,
            };
            let fields = format!(
                "{kind:02x}001dcc 00100000 6867666564636261 7877767574737271 \
                 2827262524232221 3837363534333231 44434241 54535251 \
                 0d0c0b0a 1d1c1b1a 00000000"
            );
            let encoded = header.encode();
            let hex: String = encoded[..60].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, fields.replace(' ', ""), "{frame:?}");
            assert_eq!(stored_crc(&encoded), crc32fast::hash(&encoded[..60]));
            assert_eq!(Header::decode(&encoded).unwrap().0, header);
        }
    }

    #[test]
    fn another_version_is_told_apart_from_junk() {
        let mut bytes = [0; HELLO_BYTES];
        assert_eq!(LaneHello::decode(&bytes), Err(DataFault::Magic));
        bytes[..8].copy_from_slice(&MAGIC_HELLO);
        bytes[8] = 9;
        assert_eq!(LaneHello::decode(&bytes), Err(DataFault::Version(9)));
    }
}
