//! Shared state: entries that all members hold with the same bits.
//!
//! What an entry is, how it is cut into blocks, what the digests are over, and how a member gets
//! the blocks that differ. Who has the right content is decided by the master.

pub mod digest;
pub mod hash;
pub mod layout;

pub use digest::{EntryDigest, Tree, block_digest, keys_digest};
pub use hash::{default_threads, hash_blocks, rehash_entries};
pub use layout::{BLOCK_BYTES, Blocks, Key};
