//! Peers and masters as processes of their own, and a connection that can be held up, for tests of
//! real deaths.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
