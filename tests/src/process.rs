//! A child process of a test: its input, the lines it prints, its signals and its end.
//!
//! Nothing here sleeps, waits forever, or leaves a process behind. Tests of all crates use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

pub use nix::sys::signal::Signal;

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `None` once it is closed.
    input: Option<ChildStdin>,
    /// Ends when the process has ended and no other has its output.
    lines: Receiver<String>,
}

impl Process {
    /// Starts a command. Its standard input and output are this test's.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = spawn(command.stdout(Stdio::piped()));
        let output = child.stdout.take().expect("piped above");
        Self::reading(child, output)
    }

    /// As [`Process::start`]; the lines are those of its standard error, and its output is dropped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_reading_errors(command: &mut Command) -> Self {
        let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let errors = child.stderr.take().expect("piped above");
        Self::reading(child, errors)
    }

    fn reading(mut child: Child, source: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        let pid = pid(child.id());
        std::thread::spawn(move || {
            send_lines(source, &sender);
            // Reaps the process; an error means that it was reaped already.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        });
        Self {
            input: child.stdin.take(),
            child,
            lines,
        }
    }

    /// Sends a line.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").expect("the process lives");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// If it is gone, or prints nothing for a minute.
    #[must_use]
    pub fn line(&self) -> String {
        let line = self.line_within(LINE_MAX);
        line.expect("the process prints a line")
    }

    /// The next line it prints, if it prints one in this time.
    ///
    /// # Panics
    /// If it is gone.
    #[must_use]
    pub fn line_within(&self, time: Duration) -> Option<String> {
        match self.lines.recv_timeout(time) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the process has ended"),
        }
    }

    /// The lines that it prints in this time.
    ///
    /// # Panics
    /// If it ends.
    #[must_use]
    pub fn lines_within(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let left = || end.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.line_within(left())).collect()
    }

    /// Sends a line and returns the next one that it prints.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops these processes for a while, and resumes them.
    ///
    /// # Panics
    /// If the system does not let it.
    pub fn pause(processes: &[&Self], length: Duration) {
        for process in processes {
            process.signal(Signal::SIGSTOP);
        }
        let (_keep, never) = channel::<()>();
        // No message arrives.
        let _ = never.recv_timeout(length);
        for process in processes {
            process.signal(Signal::SIGCONT);
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If the system does not let it.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.id(), signal);
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If the system does not let it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits until it and all other processes with its output have ended. Returns its exit status
    /// and the lines that were not read.
    ///
    /// # Panics
    /// If it neither ends nor prints anything for a minute.
    pub fn end(&mut self) -> (ExitStatus, Vec<String>) {
        let mut unread = Vec::new();
        loop {
            match self.lines.recv_timeout(LINE_MAX) {
                Ok(line) => unread.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {unread:?}"),
            }
        }
        let status = self.child.wait().expect("it is our child");
        (status, unread)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone, and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, which must be a success; returns what it printed.
///
/// # Panics
/// If it cannot be started or fails, with all that it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(status.success(), "{command:?}: {status}\n{printed}{errors}");
    printed
}

/// Sends a signal to any process, such as a child of a child.
///
/// # Panics
/// If the system does not let it.
pub fn send_signal(process: u32, signal: Signal) {
    let sent = kill(pid(process), signal);
    sent.unwrap_or_else(|error| panic!("{signal} to {process}: {error}"));
}

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn send_lines(source: impl Read, sender: &Sender<String>) {
    for line in BufReader::new(source).lines().map_while(Result::ok) {
        // To the end, even without a reader: the process must not meet a closed pipe.
        let _ = sender.send(line);
    }
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).expect("the system's numbers fit"))
}

/// Far longer than a line takes; only a hang reaches it.
const LINE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn what_is_said_is_answered_and_the_end_is_told_with_what_nobody_read() {
        let mut process = shell("read word; echo $word; cat; echo last; exit 3");
        assert_eq!(process.ask("first"), "first");
        assert_eq!(process.line_within(Duration::ZERO), None);
        process.say("unread");
        process.close_input();
        let (status, lines) = process.end();
        assert_eq!(status.code(), Some(3));
        assert_eq!(lines, ["unread", "last"]);
    }

    #[test]
    fn errors_are_read_instead_of_the_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo output; echo error >&2"]);
        let (status, lines) = Process::start_reading_errors(&mut command).end();
        assert!(status.success());
        assert_eq!(lines, ["error"]);
    }

    #[test]
    fn a_stopped_process_goes_on_and_a_killed_one_does_not() {
        let mut process = shell("exec cat");
        Process::pause(&[&process], Duration::from_millis(1));
        assert_eq!(process.ask("awake"), "awake");
        process.kill();
        assert!(!process.end().0.success());
    }

    #[test]
    fn nothing_is_left_of_a_process_that_is_dropped() {
        let process = shell("exec cat");
        let id = pid(process.id());
        kill(id, None).expect("it is there");
        drop(process);
        assert_eq!(kill(id, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    #[should_panic(expected = "has ended")]
    fn a_line_of_a_process_that_has_ended_is_not_waited_for() {
        let _ = shell("exit 0").line_within(LINE_MAX);
    }

    #[test]
    #[should_panic(expected = "the reason")]
    fn a_command_that_fails_is_told_with_its_words() {
        run(Command::new("sh").args(["-c", "echo the reason >&2; exit 1"]));
    }
}
