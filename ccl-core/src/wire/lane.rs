//! How a data connection begins: a hello from the side that dials, a welcome from the other.
//!
//! `transport` decides what to do about a hello that does not fit.

use super::fault::{DATA_VERSION, DataFault};
use super::fixed::{Writer, begin};
use crate::ids::{LinkKey, PeerId, RunId};
use crate::limits::LANES_MAX;

/// Bytes of an encoded [`LaneHello`].
pub const HELLO_BYTES: usize = 128;
/// Bytes of an encoded [`LaneWelcome`].
pub const WELCOME_BYTES: usize = 96;

/// The first bytes of a data connection, from the side that dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHello {
    /// The run that both belong to.
    pub run: RunId,
    /// The dialling peer.
    pub from: PeerId,
    /// The dialled peer.
    pub to: PeerId,
    /// The dialler's key, which shows that it is who it says.
    pub from_key: LinkKey,
    /// The key of the dialled port.
    pub to_key: LinkKey,
    /// Which link of the dialler this is: higher each time it forgot what it had sent.
    pub incarnation: u64,
    /// The other side's link incarnation that the dialler last saw; 0 for none.
    pub known: u64,
    /// Counts the dialler's attempts for this lane, so that a late one does not replace a newer.
    pub attempt: u64,
    /// The number the dialler expects next on this lane.
    pub next_expected: u64,
    /// Which lane; 0 is the signal lane.
    pub lane: u16,
    /// Bulk lanes of the link: lanes 1 to this.
    pub lanes: u16,
    /// Whether the dialler wants payloads checked.
    pub checksum: bool,
}

impl LaneHello {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let flags = if self.checksum { FLAG_CHECKSUM } else { 0 };
        let mut writer = Writer::<HELLO_BYTES>::new();
        writer.put(&MAGIC_HELLO);
        writer.put(&DATA_VERSION.to_le_bytes());
        writer.put(&flags.to_le_bytes());
        writer.put(&self.run.0.to_le_bytes());
        writer.put(&self.from.0.to_le_bytes());
        writer.put(&self.to.0.to_le_bytes());
        writer.put(&self.from_key.0.to_le_bytes());
        writer.put(&self.to_key.0.to_le_bytes());
        writer.put(&self.incarnation.to_le_bytes());
        writer.put(&self.known.to_le_bytes());
        writer.put(&self.attempt.to_le_bytes());
        writer.put(&self.next_expected.to_le_bytes());
        writer.put(&self.lane.to_le_bytes());
        writer.put(&self.lanes.to_le_bytes());
        writer.finish()
    }

    /// From bytes, checked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, DataFault> {
        let mut reader = begin(bytes, MAGIC_HELLO)?;
        let flags = reader.u32();
        let hello = Self {
            run: RunId(reader.u128()),
            from: PeerId(reader.u64()),
            to: PeerId(reader.u64()),
            from_key: LinkKey(reader.u128()),
            to_key: LinkKey(reader.u128()),
            incarnation: reader.u64(),
            known: reader.u64(),
            attempt: reader.u64(),
            next_expected: reader.u64(),
            lane: u16::from_le_bytes(reader.take()),
            lanes: u16::from_le_bytes(reader.take()),
            checksum: flags & FLAG_CHECKSUM != 0,
        };
        if flags & !FLAG_CHECKSUM != 0 {
            return Err(DataFault::Field("flags"));
        }
        if hello.incarnation == 0 {
            return Err(DataFault::Field("incarnation"));
        }
        check_lanes(hello.lane, hello.lanes)?;
        Ok(hello)
    }
}

/// The first bytes of a connection from the side that does not dial, for the other to greet over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOffer {
    /// The run that both belong to.
    pub run: RunId,
    /// Who offers the connection.
    pub from: PeerId,
    /// Who dials the link.
    pub to: PeerId,
    /// The key of the offering side.
    pub from_key: LinkKey,
    /// The key of the port that is connected to.
    pub to_key: LinkKey,
}

impl LaneOffer {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut writer = Writer::<HELLO_BYTES>::new();
        writer.put(&MAGIC_OFFER);
        writer.put(&DATA_VERSION.to_le_bytes());
        writer.put(&self.run.0.to_le_bytes());
        writer.put(&self.from.0.to_le_bytes());
        writer.put(&self.to.0.to_le_bytes());
        writer.put(&self.from_key.0.to_le_bytes());
        writer.put(&self.to_key.0.to_le_bytes());
        writer.finish()
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, DataFault> {
        let mut reader = begin(bytes, MAGIC_OFFER)?;
        Ok(Self {
            run: RunId(reader.u128()),
            from: PeerId(reader.u64()),
            to: PeerId(reader.u64()),
            from_key: LinkKey(reader.u128()),
            to_key: LinkKey(reader.u128()),
        })
    }
}

/// How a data connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The side that dials greets.
    Hello(LaneHello),
    /// The other side offers the connection.
    Offer(LaneOffer),
}

impl Opening {
    /// From bytes, checked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, DataFault> {
        match bytes.starts_with(&MAGIC_OFFER) {
            true => LaneOffer::decode(bytes).map(Self::Offer),
            false => LaneHello::decode(bytes).map(Self::Hello),
        }
    }

    /// What both kinds say: run, both ends and both keys.
    #[must_use]
    pub fn ends(&self) -> LaneOffer {
        match self {
            Self::Offer(offer) => *offer,
            Self::Hello(hello) => LaneOffer {
                run: hello.run,
                from: hello.from,
                to: hello.to,
                from_key: hello.from_key,
                to_key: hello.to_key,
            },
        }
    }
}

/// What the dialled side says to a [`LaneHello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lane is on.
    Accepted,
    /// The two sides remember different links: restart with a higher incarnation.
    Stale,
}

/// The first bytes of a data connection, from the side that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWelcome {
    /// Whether the lane is on.
    pub answer: Answer,
    /// The run that both belong to.
    pub run: RunId,
    /// The answering peer.
    pub from: PeerId,
    /// The peer that dialled.
    pub to: PeerId,
    /// Which link of the answering side this is.
    pub incarnation: u64,
    /// Repeats the hello's attempt.
    pub attempt: u64,
    /// The number the answering side expects next on this lane.
    pub next_expected: u64,
    /// Repeats the hello's lane.
    pub lane: u16,
    /// Repeats the hello's number of bulk lanes.
    pub lanes: u16,
    /// Whether payloads are checked: because one of the sides wants it.
    pub checksum: bool,
}

impl LaneWelcome {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; WELCOME_BYTES] {
        let mut writer = Writer::<WELCOME_BYTES>::new();
        writer.put(&MAGIC_WELCOME);
        writer.put(&DATA_VERSION.to_le_bytes());
        writer.put(&[u8::from(self.checksum), 0, 0]);
        writer.put(&[match self.answer {
            Answer::Accepted => 0,
            Answer::Stale => 1,
        }]);
        writer.put(&self.run.0.to_le_bytes());
        writer.put(&self.from.0.to_le_bytes());
        writer.put(&self.to.0.to_le_bytes());
        writer.put(&self.incarnation.to_le_bytes());
        writer.put(&self.attempt.to_le_bytes());
        writer.put(&self.next_expected.to_le_bytes());
        writer.put(&self.lane.to_le_bytes());
        writer.put(&self.lanes.to_le_bytes());
        writer.finish()
    }

    /// From bytes, checked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; WELCOME_BYTES]) -> Result<Self, DataFault> {
        let mut reader = begin(bytes, MAGIC_WELCOME)?;
        let [checksum, zero, zero_too, answer] = reader.take();
        let welcome = Self {
            answer: match answer {
                0 => Answer::Accepted,
                1 => Answer::Stale,
                _ => return Err(DataFault::Field("answer")),
            },
            run: RunId(reader.u128()),
            from: PeerId(reader.u64()),
            to: PeerId(reader.u64()),
            incarnation: reader.u64(),
            attempt: reader.u64(),
            next_expected: reader.u64(),
            lane: u16::from_le_bytes(reader.take()),
            lanes: u16::from_le_bytes(reader.take()),
            checksum: checksum != 0,
        };
        if checksum > 1 || zero != 0 || zero_too != 0 {
            return Err(DataFault::Field("flags"));
        }
        check_lanes(welcome.lane, welcome.lanes)?;
        Ok(welcome)
    }
}

fn check_lanes(lane: u16, lanes: u16) -> Result<(), DataFault> {
    if lanes == 0 || lanes > LANES_MAX || lane > lanes {
        return Err(DataFault::Field("lane"));
    }
    Ok(())
}

pub(super) const MAGIC_HELLO: [u8; 8] = *b"CCL-LANE";
const MAGIC_OFFER: [u8; 8] = *b"CCL-OFFR";
const MAGIC_WELCOME: [u8; 8] = *b"CCL-WELC";
const FLAG_CHECKSUM: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_told_from_a_hello_and_checked() {
        let offer = LaneOffer {
            run: RunId(1),
            from: PeerId(2),
            to: PeerId(3),
            from_key: LinkKey(4),
            to_key: LinkKey(5),
        };
        let mut bytes = offer.encode();
        assert_eq!(Opening::decode(&bytes), Ok(Opening::Offer(offer)));
        bytes[40] ^= 1;
        assert_eq!(Opening::decode(&bytes), Err(DataFault::HeaderChecksum));
    }
}
