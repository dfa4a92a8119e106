//! Peers and masters as processes of their own, and a connection that can be held up, for tests of
//! real deaths.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::Process;

/// Starts a peer (see `src/bin/actor.rs`). Does not wait for admission.
#[must_use]
pub fn peer(program: &str, master: SocketAddr, world: u32, lanes: u16) -> Process {
    let mut command = Command::new(program);
    command.arg(master.to_string());
    Process::start(command.args([world.to_string(), lanes.to_string()]))
}

/// Starts a master with this `peer_timeout` (see `src/bin/master.rs`); returns its address too.
///
/// # Panics
/// If it prints none.
#[must_use]
pub fn master(program: &str, peer_timeout: Duration) -> (Process, SocketAddr) {
    let timeout = peer_timeout.as_millis().to_string();
    let master = Process::start(Command::new(program).arg(timeout));
    let address = master.line().parse().expect("it prints its address");
    (master, address)
}

/// A journal, the masters that write it one after another, all on one port, and their peers.
#[derive(Debug)]
pub struct Site {
    keeper: &'static str,
    folder: PathBuf,
    address: String,
    detach_timeout: Duration,
}

impl Site {
    /// A site without a journal yet, whose masters run this program (see `src/bin/keeper.rs`).
    ///
    /// # Panics
    /// If there can be no folder.
    #[must_use]
    pub fn new(keeper: &'static str, name: &str, detach_timeout: Duration) -> Self {
        let name = format!("ccl-site-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self {
            keeper,
            folder,
            address: "127.0.0.1:0".into(),
            detach_timeout,
        }
    }

    /// Starts a master on the port of the first one.
    ///
    /// # Panics
    /// If it prints no address.
    #[must_use]
    pub fn master(&mut self, words: &[&str]) -> Process {
        let mut command = Command::new(self.keeper);
        command.arg(&self.address);
        command.arg(self.folder.join("run.journal"));
        command.arg(self.detach_timeout.as_millis().to_string());
        let master = Process::start(command.args(words));
        let line = master.line();
        let address = line.strip_prefix("listening ");
        self.address = address.expect("it prints its address").into();
        master
    }

    /// Starts a peer with one lane, of a group that begins with so many. Does not wait for
    /// admission.
    ///
    /// # Panics
    /// If no master was started.
    #[must_use]
    pub fn peer(&self, actor: &str, world: u32) -> Process {
        let master = self.address.parse().expect("a master was started");
        peer(actor, master, world, 1)
    }

    /// The disk with the journal is lost, and replaced by an empty one.
    ///
    /// # Panics
    /// If the files cannot be removed.
    pub fn lose_journal(&self) {
        std::fs::remove_dir_all(&self.folder).expect("its own folder");
        std::fs::create_dir_all(&self.folder).expect("it was there");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A TCP forwarder whose one direction, from the dialling side, can be held up.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    held: Arc<AtomicBool>,
}

impl Proxy {
    /// Forwards connections to `target` from a port of its own, until the process ends.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("just bound");
        let held = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&held);
        std::thread::spawn(move || {
            for dialled in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                let (back, forth) = (onward.try_clone(), dialled.try_clone());
                let (Ok(back), Ok(forth)) = (back, forth) else {
                    continue;
                };
                let flag = Arc::clone(&flag);
                std::thread::spawn(move || forward(dialled, onward, Some(&flag)));
                std::thread::spawn(move || forward(back, forth, None));
            }
        });
        Self { address, held }
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing more is forwarded from the dialling side, except its end.
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, held: Option<&AtomicBool>) {
    let mut buffer = [0_u8; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        if held.is_some_and(|held| held.load(Ordering::SeqCst)) {
            continue;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _already_closed = to.shutdown(std::net::Shutdown::Both);
    let _already_closed = from.shutdown(std::net::Shutdown::Both);
}
