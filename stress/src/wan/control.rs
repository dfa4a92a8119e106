//! The control socket: lines of the control language in, lines of JSON out.
//!
//! Each client has a thread, so a slow one delays nobody.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};

use crate::wan::error::{Context, Error, Result};
use crate::wan::stats::Stats;

/// What a command brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It has been carried out.
    Done,
    /// What has been counted.
    Stats(Stats),
    /// Where the hosts are.
    Hosts(Vec<Place>),
    /// Nothing has changed; this is why.
    Refused(String),
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its index.
    pub host: usize,
    /// Its address.
    pub address: Ipv4Addr,
    /// A path to its network namespace.
    pub namespace: PathBuf,
    /// A path to the user namespace in which that may be entered.
    pub user_namespace: PathBuf,
}

/// What answers a line.
pub type Answer = dyn Fn(&str) -> Reply + Send + Sync;

/// The listening socket. Dropping it removes it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, which must not be in use.
    pub fn start(path: &Path, answer: Arc<Answer>) -> Result<Self> {
        let name = format!("control socket {}", path.display());
        remove_left(path);
        let listener = UnixListener::bind(path).context(&name)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&is_over);
        let builder = thread::Builder::new().name("wan-control".into());
        let started = builder.spawn(move || {
            for client in listener.incoming().flatten() {
                if is_closed.load(Ordering::Acquire) {
                    return;
                }
                let answer = Arc::clone(&answer);
                // The thread ends when the client closes; nobody waits for it.
                thread::spawn(move || serve(&client, &*answer));
            }
        });
        Ok(Self {
            path: path.to_owned(),
            is_over,
            thread: Some(started.context("starting a thread")?),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let is_woken = UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_woken) {
            // It returns nothing.
            let _ = thread.join();
        }
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the socket of an emulator that was killed. If that fails, binding the path says why.
pub fn remove_left(path: &Path) {
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket(path) && UnixStream::connect(path).is_err_and(is_refused) {
        let _ = fs::remove_file(path);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn serve(client: &UnixStream, answer: &Answer) {
    let mut reader = BufReader::new(client);
    loop {
        let mut line = String::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        let reply = serde_json::to_string(&answer(line.trim())).expect("a reply is plain data");
        if writeln!(&mut &*client, "{reply}").is_err() {
            return;
        }
    }
}

/// Sends one command to the network that listens at `path`.
pub fn ask(path: &Path, line: &str) -> Result<Reply> {
    let name = format!("control socket {}", path.display());
    let mut server = UnixStream::connect(path).context(&name)?;
    writeln!(server, "{line}").context(&name)?;
    server.shutdown(Shutdown::Write).context(&name)?;
    let mut text = String::new();
    server.read_to_string(&mut text).context(&name)?;
    serde_json::from_str(&text).map_err(|_| Error::Ended)
}

/// Longest command: one with all hosts twice fits.
const LINE_BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(path: &Path) -> Result<Server> {
        let answer = |line: &str| match line {
            "stats" => Reply::Stats(Stats::default()),
            line => Reply::Refused(line.into()),
        };
        Server::start(path, Arc::new(answer))
    }

    #[test]
    fn a_file_that_is_no_socket_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(start(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_question_gets_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let server = start(&path).unwrap();
        assert_eq!(ask(&path, "stats").unwrap(), Reply::Stats(Stats::default()));
        let refused = Reply::Refused("cut 0".into());
        assert_eq!(ask(&path, " cut 0 ").unwrap(), refused);
        drop(server);
        assert!(!path.exists());
        assert!(ask(&path, "stats").is_err());
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let server = start(&path).unwrap();
        assert!(start(&path).is_err(), "in use");
        assert!(ask(&path, "stats").is_ok());
        drop(server);
    }

    #[test]
    fn several_lines_may_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let _server = start(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let mut lines = BufReader::new(&client).lines();
        for line in ["one", "two"] {
            writeln!(&mut &client, "{line}").unwrap();
            let reply = serde_json::from_str(&lines.next().unwrap().unwrap());
            assert_eq!(reply.ok(), Some(Reply::Refused(line.into())));
        }
    }
}
