//! The process that outlives the emulator, and ends what it started in the hosts.
//!
//! It waits until a pipe closes, which also happens when the emulator is killed. Then it kills
//! every process in the hosts' namespaces, whoever started it, and ends.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::wan::error::{Context, Result};
use crate::wan::sys;

/// The running warden. Dropping it ends all processes in the hosts.
#[derive(Debug)]
pub struct Warden {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Warden {
    /// Starts the warden of these namespaces.
    pub fn start<'a>(namespaces: impl Iterator<Item = &'a File>) -> Result<Self> {
        let mut inodes = Vec::new();
        let mut held: Vec<OwnedFd> = Vec::new();
        for namespace in namespaces {
            let metadata = namespace.metadata().context("a network namespace")?;
            inodes.push(metadata.ino().to_string());
            held.push(namespace.try_clone().context("a network namespace")?.into());
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", include_str!("warden.sh"), "ccl-stress-warden"]);
        command.args(inodes);
        sys::pass_on(&mut command, held);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // what interrupts the emulator does not interrupt the warden
            .spawn()
            .context("starting a shell")?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.pipe = None;
        // If it cannot be waited for, it still does its work.
        let _ = self.process.wait();
    }
}
