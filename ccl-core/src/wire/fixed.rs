//! Fields in a fixed number of bytes, the last four of which are a CRC-32 of the others.

use super::fault::{DATA_VERSION, DataFault};

/// Checks magic, version and CRC, in this order, and goes on behind them.
pub(super) fn begin<const N: usize>(
    bytes: &[u8; N],
    magic: [u8; 8],
) -> Result<Reader<'_>, DataFault> {
    let mut reader = Reader::new(bytes);
    if reader.take() != magic {
        return Err(DataFault::Magic);
    }
    let version = reader.u32();
    if version != DATA_VERSION {
        return Err(DataFault::Version(version));
    }
    if crc32fast::hash(&bytes[..N - 4]) != stored_crc(bytes) {
        return Err(DataFault::HeaderChecksum);
    }
    Ok(reader)
}

pub(super) fn stored_crc<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut crc = [0; 4];
    crc.copy_from_slice(&bytes[N - 4..]);
    u32::from_le_bytes(crc)
}

/// Fills a fixed number of bytes; the last four become the CRC of the others.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; N],
            at: 0,
        }
    }

    pub(super) fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    pub(super) fn finish(mut self) -> [u8; N] {
        assert!(self.at <= N - 4, "the fields leave room for the CRC");
        let crc = crc32fast::hash(&self.bytes[..N - 4]);
        self.bytes[N - 4..].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Reads fields out of bytes whose length is fixed: the layouts above fit, whatever the bytes say.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .expect("the layout is shorter than the fixed length");
        self.rest = rest;
        *field
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }
}
