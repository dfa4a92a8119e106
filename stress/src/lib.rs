//! Tools that put ccl under stress.
//!
//! The command `ccl-stress` is a thin shell over this library, which tests use directly. Linux
//! only: elsewhere the crate is empty.

#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
pub mod wan;
