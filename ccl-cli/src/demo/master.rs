//! The master's process of a demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Arguments;
use super::peer::RUN;
use crate::bench::Listening;
use crate::child::Child;
use crate::failure::Result;

/// The master's process, and how to start it again.
pub struct Master {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    arguments: Vec<String>,
    journal: Option<PathBuf>,
}

impl Master {
    /// Starts one of a run of its own on a free port.
    pub fn start(arguments: &Arguments) -> Result<Self> {
        let mut words: Vec<String> = ["master", "--json", "--exit-with-parent", "--run", RUN]
            .into_iter()
            .map(str::to_owned)
            .collect();
        words.push(format!("--peer-timeout-ms={}", arguments.peer_timeout_ms));
        words.push(format!(
            "--heartbeat-ms={}",
            (arguments.peer_timeout_ms / 10).max(1)
        ));
        let journal = (arguments.restart_master > 0)
            .then(|| std::env::temp_dir().join(format!("ccl-demo-{}.journal", std::process::id())));
        if let Some(path) = &journal {
            words.push(format!("--journal={}", path.display()));
        }
        let mut first = words.clone();
        first.extend(["--new-run".to_owned(), "--listen=127.0.0.1:0".to_owned()]);
        let (child, address) = spawn_master(&first)?;
        words.push(format!("--listen={address}"));
        Ok(Self {
            child,
            address,
            arguments: words,
            journal,
        })
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()
    }

    /// Starts the killed one again, on its port and with its journal.
    pub fn restart(&mut self) -> Result<()> {
        let (child, _) = spawn_master(&self.arguments)?;
        self.child = child;
        Ok(())
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(path) = &self.journal {
            // It may never have been written; nobody needs it any more.
            let _ = std::fs::remove_file(path);
            let _ = std::fs::remove_file(path.with_extension("journal.marker"));
        }
    }
}

fn spawn_master(arguments: &[String]) -> Result<(Child, SocketAddr)> {
    let mut child = Child::spawn("the master", arguments)?;
    let address = child.receive::<Listening>()?.address;
    if let Some(output) = child.take_output() {
        // Its log is on standard error; these lines would only fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut { output }, &mut std::io::sink()));
    }
    Ok((child, address))
}
