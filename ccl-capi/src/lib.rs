//! The C interface: `libccl` and `include/ccl.h`, which is generated from these files.
//!
//! Translates only: catches panics, checks pointers, converts, makes one call of `ccl-core`, and
//! writes results on success. Names are those of C, because this is what C reads; the comments here
//! are the header's documentation. One file per topic, listed in `tests/header.rs`.
#![allow(
    unsafe_code,
    reason = "memory that C lends is checked and turned into Rust's here"
)]
#![allow(
    non_camel_case_types,
    non_upper_case_globals,
    reason = "types and constants are called what C calls them"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "what each pointer must be is in the words that C programmers read"
)]

pub mod call;
pub mod callback;
pub mod caller;
pub mod checkpoint;
pub mod collectives;
pub mod communicator;
pub mod config;
pub mod entries;
pub mod handles;
pub mod last_error;
pub mod log;
pub mod master;
pub mod memory;
pub mod notice;
pub mod operation;
pub mod remedy;
pub mod result;
pub mod shared_state;
pub mod sync;
pub mod topology;
pub mod types;
pub mod version;
