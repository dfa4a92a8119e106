//! One journal record as bytes: a header with checksums, and the body.

use std::io::Read;

use super::{RECORD_HEADER_BYTES, u32_at};

/// What was found at one position of the file.
pub(super) enum Found {
    /// A record; its checksum. The body is in the caller's buffer.
    Whole(u32),
    /// The beginning of one, or zeros: a write that a crash cut short.
    Torn,
    /// Neither a complete record nor a torn tail.
    Damaged(&'static str),
}

pub(super) struct RecordHeader {
    pub body_bytes: u32,
    pub chain: u32,
    pub body_crc: u32,
}

impl RecordHeader {
    pub fn to_bytes(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        for (field, value) in [self.body_bytes, self.chain, self.body_crc]
            .iter()
            .enumerate()
        {
            bytes[field * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if its own CRC does not fit.
    fn from_bytes(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            body_bytes: u32_at(bytes, 0),
            chain: u32_at(bytes, 4),
            body_crc: u32_at(bytes, 8),
        };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// Reads the record that follows `chain` out of the `left` bytes before the end of the file.
pub(super) fn read_record(
    reader: &mut impl Read,
    left: u64,
    chain: u32,
    body: &mut Vec<u8>,
) -> std::io::Result<Found> {
    if left < RECORD_HEADER_BYTES as u64 {
        return Ok(Found::Torn);
    }
    let mut bytes = [0; RECORD_HEADER_BYTES];
    reader.read_exact(&mut bytes)?;
    let Some(header) = RecordHeader::from_bytes(&bytes) else {
        let is_blank = bytes == [0; RECORD_HEADER_BYTES] && is_zero_to_the_end(reader)?;
        let damaged = Found::Damaged("the checksum of a record's header does not match");
        return Ok(if is_blank { Found::Torn } else { damaged });
    };
    if header.chain != chain {
        let what = "a record does not follow the one before it: records are missing or out of \
                    order";
        return Ok(Found::Damaged(what));
    }
    body.clear();
    reader.take(header.body_bytes.into()).read_to_end(body)?;
    if body.len() < header.body_bytes as usize {
        return Ok(Found::Torn);
    }
    if body_crc(chain, body) != header.body_crc {
        return Ok(Found::Damaged("the checksum of a record does not match"));
    }
    Ok(Found::Whole(header.body_crc))
}

/// Covers all records before, too: two records alike have different checksums.
pub(super) fn body_crc(chain: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Some file systems grow a file before its data is there: a crash then leaves zeros.
fn is_zero_to_the_end(reader: &mut impl Read) -> std::io::Result<bool> {
    let mut block = [0; 4096];
    loop {
        match reader.read(&mut block)? {
            0 => return Ok(true),
            count if block[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Ok(false),
        }
    }
}
