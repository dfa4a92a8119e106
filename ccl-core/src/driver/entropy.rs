//! Random bytes from the operating system, for secrets and seeds.

use std::io;

use crate::error::{Error, Result};

/// Returns random words.
///
/// # Errors
/// The system has none to give.
pub(super) fn entropy<const N: usize>() -> Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        *word = getrandom::u64().map_err(|error| {
            Error::os(
                "cannot read random numbers from the system",
                io::Error::other(error),
            )
        })?;
    }
    Ok(words)
}
