//! A child process of a test: what it is told, the lines it prints, and its end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A process under way; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a command. Its standard input and output are this test's.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take().expect("piped above");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    /// Sends a line.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the process lives");
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// If it is gone, or prints nothing for a minute.
    #[must_use]
    pub fn line(&self) -> String {
        self.lines
            .recv_timeout(LINE_MAX)
            .expect("the process prints a line")
    }

    /// The next line it prints, if it prints one in this time.
    #[must_use]
    pub fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
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
        let line = format!("kill -{name} {}", self.id());
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

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}

/// Far beyond what a line takes; only a hang reaches it.
const LINE_MAX: Duration = Duration::from_secs(60);
