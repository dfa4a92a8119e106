//! Shared state: entries that all members hold with the same bits.
//!
//! Defines entries, blocks and digests, and how a member gets the blocks that differ. The master
//! decides which content is right.

pub mod digest;
pub mod engine;
pub mod fetch;
mod frames;
pub mod hash;
pub mod holding;
pub mod layout;
pub mod odd;
mod previous;
mod running;
pub mod serve;
mod source;

use crate::ids::PeerId;

pub use digest::{EntryDigest, Tree, block_digest, keys_digest};
pub use hash::{Wanted, default_threads, hash_blocks, rehash_entries};
pub use layout::{BLOCK_BYTES, Blocks, Key};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Digests of blocks.
    Digests,
    /// Blocks themselves.
    Blocks,
}

/// One frame's worth of blocks or digests, asked of or given to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The peer at the other end.
    pub peer: PeerId,
    /// Digests or blocks.
    pub what: What,
    /// First block.
    pub first: u32,
    /// Number of blocks.
    pub count: u32,
}
