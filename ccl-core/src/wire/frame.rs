//! Control frames: length, version, CRC, body; and how to cut a byte stream into them.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the body, little-endian |
//! | 4 | [`FRAME_VERSION`]; the top bit is set in frames from the master |
//! | 5..9 | CRC-32 of the body, little-endian |
//! | 9.. | body: the message in postcard's format |
//!
//! What messages mean is in `wire::control`, what is valid in `wire::validate`. Nothing here
//! allocates by an announced length: memory grows with the bytes that arrived.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::{GroupId, LinkKey};
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::wire::control::{MasterToPeer, PROTOCOL_VERSION, PeerToMaster};
use crate::wire::validate::Violation;

/// Version of the frame layout and of the bodies' encoding.
pub const FRAME_VERSION: u8 = 1;
/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 9;

/// A message that control frames carry.
pub trait Message: Serialize + DeserializeOwned {
    /// The byte of the header that tells version and direction.
    const MARKER: u8;

    /// Checks it against the limits.
    ///
    /// # Errors
    /// The first violation.
    fn check(&self) -> Result<(), Violation>;

    /// What to make of a message whose other fields may differ, because its first say that it is of
    /// another version of the protocol.
    fn of_another_version(_body: &[u8]) -> Option<Self> {
        None
    }
}

/// Why bytes are not a frame, or a message cannot become one. Fatal for the connection: where the
/// next frame begins is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header announces, or the message needs, more than is allowed.
    #[error("a control frame of {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of header and body.
        bytes: u64,
        /// The maximum.
        max: u32,
    },
    /// The version is another, or the bytes are no frame at all.
    #[error("control frame version {found}, this side speaks {FRAME_VERSION}")]
    Version {
        /// What the header says.
        found: u8,
    },
    /// The other side sends what this side should send.
    #[error("the frame comes from the wrong side: is this the address of a master?")]
    Direction,
    /// The body was damaged.
    #[error("control frame checksum is {computed:08x}, the header says {announced:08x}")]
    Checksum {
        /// What the header says.
        announced: u32,
        /// What the body gives.
        computed: u32,
    },
    /// The body is no message.
    #[error("cannot decode the control message: {0}")]
    Undecodable(String),
    /// The message breaks a limit.
    #[error("control message out of bounds: {0}")]
    OutOfBounds(#[from] Violation),
}

/// Appends the frame of a message to `frames`.
///
/// # Errors
/// [`FrameError::OutOfBounds`] or [`FrameError::TooLong`] if the other side would refuse it;
/// `frames` is as before.
pub fn encode<M: Message>(message: &M, frames: &mut Vec<u8>) -> Result<(), FrameError> {
    message.check()?;
    let start = frames.len();
    let body_start = start + FRAME_HEADER_BYTES;
    frames.resize(body_start, 0);
    let written = postcard::to_io(message, &mut *frames).map(|_| ());
    let result = match written {
        Ok(()) => seal(&mut frames[start..], M::MARKER),
        Err(error) => Err(FrameError::Undecodable(error.to_string())),
    };
    if result.is_err() {
        frames.truncate(start);
    }
    result
}

/// Fills in the header of a frame whose body is written.
fn seal(frame: &mut [u8], marker: u8) -> Result<(), FrameError> {
    check_length(frame.len() as u64, CONTROL_FRAME_BYTES_MAX)?;
    let (header, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let length = u32::try_from(body.len()).expect("checked against a 32-bit limit above");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = marker;
    header[5..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    Ok(())
}

/// Cuts the bytes of one connection into messages.
///
/// Push what arrives, then pop until nothing comes; then at most one unfinished frame is kept.
#[derive(Debug)]
pub struct Deframer {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were popped already.
    start: usize,
    frame_bytes_max: u32,
    failed: Option<FrameError>,
}

impl Deframer {
    /// A deframer that refuses frames of more than `frame_bytes_max` bytes, header included.
    #[must_use]
    pub fn new(frame_bytes_max: u32) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            frame_bytes_max: frame_bytes_max.min(CONTROL_FRAME_BYTES_MAX),
            failed: None,
        }
    }

    /// Allows longer frames, once the sender is known.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_bytes_max = frame_bytes_max.min(CONTROL_FRAME_BYTES_MAX);
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.release();
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that arrived and were not popped.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// Why the bytes are refused. From then on every call says the same.
    pub fn pop<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.pop_frame();
        match &result {
            Ok(Some(_)) => {}
            Ok(None) => self.release(),
            Err(error) => {
                self.bytes = Vec::new();
                self.start = 0;
                self.failed = Some(error.clone());
            }
        }
        result
    }

    fn pop_frame<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        let waiting = &self.bytes[self.start..];
        let Some(length) = waiting.first_chunk::<4>() else {
            return Ok(None);
        };
        let body_bytes = u32::from_le_bytes(*length);
        let frame_bytes = u64::from(body_bytes) + FRAME_HEADER_BYTES as u64;
        check_length(frame_bytes, self.frame_bytes_max)?;
        let Some(header) = waiting.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        check_marker(header[4], M::MARKER)?;
        let end = FRAME_HEADER_BYTES + body_bytes as usize;
        let Some(body) = waiting.get(FRAME_HEADER_BYTES..end) else {
            return Ok(None);
        };
        let announced = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
        let message = decode(announced, body)?;
        self.start += end;
        Ok(Some(message))
    }

    /// Forgets popped bytes, and gives memory back that only a long frame needed.
    fn release(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

fn check_length(bytes: u64, max: u32) -> Result<(), FrameError> {
    if bytes > u64::from(max) {
        return Err(FrameError::TooLong { bytes, max });
    }
    Ok(())
}

fn check_marker(found: u8, expected: u8) -> Result<(), FrameError> {
    if found == expected {
        return Ok(());
    }
    if found == expected ^ FROM_MASTER {
        return Err(FrameError::Direction);
    }
    Err(FrameError::Version {
        found: found & !FROM_MASTER,
    })
}

fn decode<M: Message>(announced: u32, body: &[u8]) -> Result<M, FrameError> {
    let computed = crc32fast::hash(body);
    if computed != announced {
        return Err(FrameError::Checksum {
            announced,
            computed,
        });
    }
    if let Some(message) = M::of_another_version(body) {
        return Ok(message);
    }
    let (message, rest) = postcard::take_from_bytes::<M>(body)
        .map_err(|error| FrameError::Undecodable(error.to_string()))?;
    if !rest.is_empty() {
        let what = format!("{} bytes left after its end", rest.len());
        return Err(FrameError::Undecodable(what));
    }
    message.check()?;
    Ok(message)
}

impl Message for PeerToMaster {
    const MARKER: u8 = FRAME_VERSION;

    fn check(&self) -> Result<(), Violation> {
        self.validate()
    }

    /// Of a `Hello` the number of its version is all that can be read, so that its sender can be
    /// told why it is refused.
    fn of_another_version(body: &[u8]) -> Option<Self> {
        let ((kind, protocol), _) = postcard::take_from_bytes::<(u32, u32)>(body).ok()?;
        let differs = kind == HELLO && protocol != PROTOCOL_VERSION;
        differs.then(|| Self::Hello {
            protocol,
            library: String::new(),
            run: String::new(),
            group: GroupId(0),
            unit: None,
            unit_size: None,
            addresses: Vec::new(),
            key: LinkKey(0),
            min_world: 0,
            attach: 0,
            name: String::new(),
        })
    }
}

impl Message for MasterToPeer {
    const MARKER: u8 = FRAME_VERSION | FROM_MASTER;

    fn check(&self) -> Result<(), Violation> {
        self.validate()
    }
}

/// Number of `Hello` among the messages to the master, in each version.
const HELLO: u32 = 0;
/// Top bit of the version byte in frames from the master.
const FROM_MASTER: u8 = 0x80;
/// Memory that an idle deframer may keep, in bytes: most messages fit.
const KEPT_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests;
