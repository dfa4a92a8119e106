//! The simulator of ccl.

pub mod processes;
