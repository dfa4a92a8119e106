//! Why the command failed, as text for users.
//!
//! The binary's only error type: it is printed, and the exit status is 1.

use std::fmt;

/// What went wrong, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

/// Result of everything in this binary.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<ccl_core::Error> for Failure {
    fn from(error: ccl_core::Error) -> Self {
        Self(error.to_string())
    }
}

/// Says what was tried when it failed.
pub trait Context<T> {
    /// Turns an error into a failure that begins with `what`.
    fn context(self, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &str) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}
