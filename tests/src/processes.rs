//! Peers as processes of their own, and a connection that can be held up, for tests of real deaths.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Far beyond what an answer takes; only a hang reaches it.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// One `actor` process; killed when dropped.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    commands: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Actor {
    /// Starts `program` with these arguments (see `src/bin/actor.rs`). Does not wait for admission.
    ///
    /// # Panics
    /// If the process cannot be started.
    #[must_use]
    pub fn spawn(program: &str, master: SocketAddr, world: u32, lanes: u16) -> Self {
        let numbers = [world.to_string(), lanes.to_string()];
        Self::run(program, &[&master.to_string(), &numbers[0], &numbers[1]])
    }

    /// Starts any program of this kind.
    ///
    /// # Panics
    /// If the process cannot be started.
    #[must_use]
    pub fn run(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the actor is built with the tests");
        let commands = child.stdin.take().expect("piped above");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            commands,
            answers,
        }
    }

    /// Sends a command.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn say(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the actor lives");
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// If it is gone, or prints nothing for a minute.
    #[must_use]
    pub fn answer(&self) -> String {
        self.answers
            .recv_timeout(ANSWER_MAX)
            .expect("the actor answers")
    }

    /// The next line it prints, if it prints one in this time.
    #[must_use]
    pub fn answer_within(&self, time: Duration) -> Option<String> {
        self.answers.recv_timeout(time).ok()
    }

    /// Sends a command and returns the answer.
    pub fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.answer()
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Starts a master that waits so long for a silent peer (see `src/bin/master.rs`); returns its
    /// address too.
    ///
    /// # Panics
    /// If the process cannot be started.
    #[must_use]
    pub fn master(program: &str, peer_timeout: Duration) -> (Self, SocketAddr) {
        let timeout = peer_timeout.as_millis().to_string();
        let master = Self::run(program, &[&timeout]);
        let address = master.answer().parse().expect("it prints its address");
        (master, address)
    }

    /// Stops these processes, lets them stand still for a while, and lets them go on.
    ///
    /// # Panics
    /// If the system does not let it.
    pub fn pause(processes: &[&Self], length: Duration) {
        for process in processes {
            process.signal("STOP");
        }
        let (_keep, never) = mpsc::channel::<()>();
        let _nobody_says_anything = never.recv_timeout(length);
        for process in processes {
            process.signal("CONT");
        }
    }

    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.process());
        let status = Command::new("sh").args(["-c", &line]).status();
        assert!(status.is_ok_and(|status| status.success()), "{line}");
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If the system does not let it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
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

    /// From now on nothing more is forwarded from the dialling side; its end still is.
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
