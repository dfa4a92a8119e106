//! The master's sealed history on disk: append-only, checksummed, torn tails cut off.
