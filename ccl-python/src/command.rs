//! The `ccl` command from Python: what it does is `ccl-cli`'s.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command with these arguments; returns its exit status.
///
/// `program` starts a copy of it: the interpreter and its arguments.
#[pyfunction]
pub fn run_command(py: Python<'_>, program: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| ccl_cli::run(program, arguments))
}
