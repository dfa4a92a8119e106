//! Child processes of this command, and the lines of JSON that they exchange.
//!
//! A child that finds its standard input closed ends at once: no child outlives the parent, however
//! the parent ended. Each child is its own process group, so Ctrl-C reaches only the parent, and
//! the system resumes a stopped child and ends it when the parent is gone.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Context, Failure, Result};

/// What a child answers to an order: what was asked for, or why not.
pub type Answer<T> = std::result::Result<T, String>;

/// A running copy of this program, or of another. Dropping it ends it.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with `arguments`; `name` is what failures call it.
    pub fn spawn(name: impl Into<String>, arguments: &[String]) -> Result<Self> {
        Self::spawn_by(&[], name, arguments)
    }

    /// The same by means of another program, such as one that starts it in another place.
    pub fn spawn_by(
        launcher: &[String],
        name: impl Into<String>,
        arguments: &[String],
    ) -> Result<Self> {
        let program = PROGRAM.get().into_iter().flatten().cloned();
        let mut words = launcher.iter().map(OsString::from).chain(program);
        let path = words
            .next()
            .ok_or_else(|| Failure::new("this program does not know where it is"))?;
        let mut command = Command::new(path);
        command.args(words).args(arguments);
        Self::start(name, command)
    }

    /// Starts any program that ends when its standard input does.
    pub fn start(name: impl Into<String>, mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting a process")?;
        let input = process.stdin.take();
        let output = process.stdout.take().map(BufReader::new);
        Ok(Self {
            name: name.into(),
            process,
            input,
            output,
        })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it one line as it is.
    pub fn send_words(&mut self, words: &str) -> Result<()> {
        let name = &self.name;
        let input = self
            .input
            .as_mut()
            .ok_or_else(|| Failure::new(format!("{name} has no input")))?;
        writeln!(input, "{words}")
            .and_then(|()| input.flush())
            .context(name)
    }

    /// Sends it one line.
    pub fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let name = &self.name;
        let input = self
            .input
            .as_mut()
            .ok_or_else(|| Failure::new(format!("{name} has no input")))?;
        send_line(input, message).map_err(|error| Failure::new(format!("{name}: {error}")))
    }

    /// Waits for its next line.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let message = self.receive_unless_ended()?;
        message.ok_or_else(|| Failure::new(format!("{} ended before it answered", self.name)))
    }

    /// Waits for its next line; `None` if it ends before.
    pub fn receive_unless_ended<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let name = &self.name;
        let output = self
            .output
            .as_mut()
            .ok_or_else(|| Failure::new(format!("{name} is read elsewhere")))?;
        receive_line(output).map_err(|error| Failure::new(format!("{name}: {error}")))
    }

    /// Waits for its answer to an order.
    pub fn receive_answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.receive::<Answer<T>>()?
            .map_err(|error| Failure::new(format!("{}: {error}", self.name)))
    }

    /// Hands its output over, for a thread that reads it.
    pub fn take_output(&mut self) -> Option<BufReader<ChildStdout>> {
        self.output.take()
    }

    /// Says that there is nothing more to come.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Waits until it ends by itself; `None` if it goes on beyond `limit`.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait().context("waiting for a process")? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().context("SIGKILL")?;
        self.process
            .wait()
            .context("waiting for a killed process")?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.input.take());
        if !matches!(self.wait_for(GRACE), Ok(Some(_))) {
            // It is being thrown away; whether it was still there makes no difference.
            let _ = self.kill();
        }
    }
}

/// Says how a copy of this program is started: its path, and arguments that come before all others.
pub fn set_program(program: Vec<OsString>) {
    PROGRAM.get_or_init(|| program);
}

/// Writes one line of JSON.
pub fn send_line(output: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message).context("writing a message")?;
    line.push(b'\n');
    output
        .write_all(&line)
        .and_then(|()| output.flush())
        .context("writing a message")
}

/// Reads one line of JSON; `None` at the end.
pub fn receive_line<T: DeserializeOwned>(input: &mut impl BufRead) -> Result<Option<T>> {
    let mut line = String::new();
    if input.read_line(&mut line).context("reading a message")? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .context("understanding a message")
}

/// What the parent says after the first line, read by a thread of its own, which ends this process
/// at once when the parent is gone: whatever it is doing, nobody will ask for the result.
pub fn orders<T: DeserializeOwned + Send + 'static>() -> Receiver<Result<T>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while let Some(order) = receive_line(&mut input).transpose() {
            // Who does not listen any more is about to end.
            let _ = sender.send(order);
        }
        std::process::exit(ORPHAN_STATUS);
    });
    receiver
}

/// Ends this process, from a thread of its own, when the parent closes its end of standard input.
/// To be called by a child that reads nothing more from there.
pub fn exit_with_parent() {
    drop(orders::<serde_json::Value>());
}

/// What starts a copy of this program.
static PROGRAM: OnceLock<Vec<OsString>> = OnceLock::new();
/// How often a parent looks whether a child has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a child may take to end after its input was closed.
const GRACE: Duration = Duration::from_millis(500);
/// Exit status of a child whose parent is gone.
const ORPHAN_STATUS: i32 = 3;
