//! The `ccl-stress` command as a program.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    ccl_stress::cli::run()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("ccl-stress: needs Linux, whose network namespaces and TUN devices it uses");
    ExitCode::FAILURE
}
