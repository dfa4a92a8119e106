//! The processes of a demonstration: starts them, reads their notes, sends signals, and checks
//! their end.

use std::io::BufReader;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::display::Display;
use super::master::Master;
use super::notes::{FaultSignal, Note, Order, Setup};
use super::story::Story;
use crate::child::{Child, receive_line};
use crate::failure::{Context, Failure, Result};

/// Everything that runs, and what is known of it. Places number the processes.
pub struct Crew {
    /// What happened so far.
    pub story: Story,
    /// Where it is told.
    pub display: Display,
    processes: Vec<Process>,
    heard: Receiver<(usize, Heard)>,
    sender: Sender<(usize, Heard)>,
    /// Ended last: without it the peers could not leave.
    pub master: Master,
}

struct Process {
    child: Child,
    /// Whether it has not closed its output.
    is_talking: bool,
    /// Whether it is to end by SIGKILL.
    is_to_be_killed: bool,
}

/// What a thread that listens to one process passes on.
enum Heard {
    Note(Note),
    Nonsense(Failure),
    End,
}

impl Crew {
    /// A master, and nobody else yet.
    pub fn new(master: Master, display: Display) -> Self {
        let (sender, heard) = channel();
        Self {
            story: Story::default(),
            display,
            processes: Vec::new(),
            heard,
            sender,
            master,
        }
    }

    /// Starts a process; its place.
    pub fn spawn(&mut self, setup: &Setup) -> Result<usize> {
        let place = self.processes.len();
        let mut child = Child::spawn(format!("peer {place}"), &["demo-peer".into()])?;
        child.send(setup)?;
        if let Some(output) = child.take_output() {
            listen(place, output, self.sender.clone());
        }
        self.story.add_life();
        let is_to_be_killed = setup
            .fault
            .is_some_and(|fault| fault.signal == FaultSignal::Kill);
        self.processes.push(Process {
            child,
            is_talking: true,
            is_to_be_killed,
        });
        Ok(place)
    }

    /// Whether a process may still say something.
    pub fn is_talking(&self, place: usize) -> bool {
        self.processes[place].is_talking
    }

    /// Takes in one line of one process: its place and what it said, if it said something within
    /// the time and did not end.
    pub fn hear(&mut self, limit: Duration) -> Result<Option<(usize, Note)>> {
        let (place, heard) = match self.heard.recv_timeout(limit) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new("all peers are gone"));
            }
        };
        match heard {
            Heard::Note(note) => {
                self.story.record(place, &note);
                self.display.show(&self.story, place, &note)?;
                Ok(Some((place, note)))
            }
            // Half a line is all that the killed may leave.
            Heard::Nonsense(failure) if !self.processes[place].is_to_be_killed => Err(failure),
            Heard::Nonsense(_) | Heard::End => {
                self.reap(place)?;
                Ok(None)
            }
        }
    }

    /// Tells a process something.
    pub fn order(&mut self, place: usize, order: Order) -> Result<()> {
        self.processes[place].child.send(&order)
    }

    /// Ends a process with SIGKILL.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        self.processes[place].is_to_be_killed = true;
        self.processes[place].child.kill()
    }

    /// Sends a process SIGSTOP or SIGCONT.
    pub fn signal(&self, place: usize, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.processes[place].child.pid()).context("process number")?;
        kill(Pid::from_raw(pid), signal).context(signal.as_str())
    }

    /// Looks at how a process ended that has closed its output.
    fn reap(&mut self, place: usize) -> Result<()> {
        let process = &mut self.processes[place];
        process.is_talking = false;
        let status = process.child.wait_for(EXIT_LIMIT)?;
        let is_fine = status.is_some_and(|status| {
            if process.is_to_be_killed {
                status.signal() == Some(Signal::SIGKILL as i32)
            } else {
                status.success()
            }
        });
        if !is_fine {
            let words = format!("peer {place} {}", ending(status));
            self.story.object(words);
        }
        Ok(())
    }
}

fn listen(place: usize, mut output: BufReader<ChildStdout>, sender: Sender<(usize, Heard)>) {
    std::thread::spawn(move || {
        loop {
            let heard = match receive_line::<Note>(&mut output) {
                Ok(Some(note)) => Heard::Note(note),
                Ok(None) => Heard::End,
                Err(failure) => Heard::Nonsense(failure),
            };
            let is_last = !matches!(heard, Heard::Note(_));
            if sender.send((place, heard)).is_err() || is_last {
                return;
            }
        }
    });
}

fn ending(status: Option<ExitStatus>) -> String {
    status.map_or("did not end".to_owned(), |status| {
        format!("ended with {status}")
    })
}

/// How long a process may take to end after its last words.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
