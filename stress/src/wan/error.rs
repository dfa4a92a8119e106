//! Why a network cannot be emulated, or does not do what it was told.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried, and what might help.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A command of the control language is wrong, or names what does not exist.
    #[error("{0}")]
    Command(String),
    /// The network is no longer there.
    #[error("the emulated network has ended")]
    Ended,
}

/// Result of everything that concerns the system.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was tried when it failed.
pub trait Context<T> {
    /// Turns the system's error into one that begins with `what`.
    fn context(self, what: &str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &str) -> Result<T> {
        self.map_err(|error| Error::System {
            what: what.to_owned(),
            source: error.into(),
        })
    }
}
