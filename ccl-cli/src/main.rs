//! The `ccl` command as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let program = std::env::current_exe().map_or_else(|_| "ccl".into(), Into::into);
    ccl_cli::run(vec![program], std::env::args_os().skip(1)).into()
}
