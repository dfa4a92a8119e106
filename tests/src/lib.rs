//! What tests of ccl share: its machines under virtual time, and real processes.

pub mod heartbeats;
pub mod process;
pub mod processes;
pub mod saves;
pub mod sim;
