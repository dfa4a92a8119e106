//! Control frames: length, version, CRC, body; and how to cut a byte stream into them.
