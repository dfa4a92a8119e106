//! The frames between two peers: a fixed header, a payload, a trailer.
//!
//! The header has a CRC of its own, since its lengths are believed before the payload is there. The
//! trailer's CRC covers header and payload. A frame whose sender could not finish it honestly (its
//! operation ended half-way) is filled up and marked void in the trailer; that is no fault.
