//! The version of the data protocol, and the faults that its bytes may have.

/// What is wrong with bytes that came over a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataFault {
    /// The first bytes are not those of a data connection.
    #[error("not a data connection")]
    Magic,
    /// The other side speaks another version.
    #[error("data protocol version {0}, this side speaks {DATA_VERSION}")]
    Version(u32),
    /// The CRC over header, hello or welcome does not match.
    #[error("header checksum mismatch")]
    HeaderChecksum,
    /// The CRC over the payload does not match.
    #[error("payload checksum mismatch")]
    PayloadChecksum,
    /// A field has an invalid value.
    #[error("field {0} is out of range")]
    Field(&'static str),
    /// The frame announces more than its kind may carry.
    #[error("frame of {0} bytes announced, more than its kind may carry")]
    TooLong(u32),
}

/// Version of the data connections; both sides must speak the same.
pub const DATA_VERSION: u32 = 1;
