//! The subcommands of `ccl-stress wan`, and their options.

mod all_reduce;
mod bench;
mod calibrate;
mod compare;
mod control;
mod options;
mod output;
mod run;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::wan::control::remove_left;
use crate::wan::error::Result;

/// Options of `ccl-stress wan`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start a network, and commands in it; end it when they end, or at Ctrl-C.
    Run(run::Options),
    /// Run a command in a host of a running network.
    Exec(control::ExecOptions),
    /// Change a running network, or ask it something.
    Ctl(control::ControlOptions),
    /// Measure up to which rate this machine emulates exactly. Takes some 10 seconds.
    Calibrate(calibrate::Options),
    /// Measure an all-reduce of ccl with a peer in each host.
    AllReduce(all_reduce::Options),
    /// Compare ccl with gloo, Open MPI and plain sockets, with a process of each in each host.
    Compare(compare::Options),
}

/// Runs a subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Run(options) => run::run(options),
        What::Exec(options) => control::exec(options),
        What::Ctl(options) => control::control(options),
        What::Calibrate(options) => calibrate::run(options),
        What::AllReduce(options) => all_reduce::run(options),
        What::Compare(options) => compare::run(options),
    }
}

/// A path for the control socket of this process's network. Removes those of emulators that were
/// killed.
fn private_socket() -> PathBuf {
    let folder = std::env::temp_dir();
    remove_left_sockets(&folder);
    folder.join(socket_name(std::process::id()))
}

fn remove_left_sockets(folder: &Path) {
    // Of a folder that cannot be read nothing needs to be removed; binding says what is wrong.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(process_of);
        // One that has only just begun may not listen yet.
        let is_running = |process: u32| Path::new(&format!("/proc/{process}")).exists();
        if process.is_some_and(|process| !is_running(process)) {
            remove_left(&entry.path());
        }
    }
}

fn socket_name(process: u32) -> String {
    format!("{SOCKET_START}{process}{SOCKET_END}")
}

fn process_of(socket_name: &str) -> Option<u32> {
    let rest = socket_name.strip_prefix(SOCKET_START)?;
    rest.strip_suffix(SOCKET_END)?.parse().ok()
}

const SOCKET_START: &str = "ccl-stress-wan-";
const SOCKET_END: &str = ".sock";
/// Names the control socket of the network for commands that it starts.
const CONTROL_VARIABLE: &str = "CCL_STRESS_WAN";

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Above the largest number that Linux gives a process.
    const NOBODY: u32 = 1 << 23;

    #[test]
    fn sockets_of_killed_emulators_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let listening = path(&socket_name(NOBODY));
        let own = path(&socket_name(std::process::id()));
        let foreign = path("ccl-stress-wan-x.sock");
        let left = path(&socket_name(NOBODY + 1));
        let _listener = UnixListener::bind(&listening).unwrap();
        for path in [&own, &foreign, &left] {
            drop(UnixListener::bind(path).unwrap());
        }
        let file = path(&socket_name(NOBODY + 2));
        fs::write(&file, "").unwrap();
        remove_left_sockets(folder.path());
        assert!(!left.exists());
        for path in [&listening, &own, &foreign, &file] {
            assert!(path.exists(), "{}", path.display());
        }
    }
}
