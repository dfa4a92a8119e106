//! The parent of the demonstration: starts the processes, listens to them, kills the master when
//! planned, wakes the stopped peer at the end, and judges how it went.

use std::io::BufReader;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ChildStdout, ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Arguments;
use super::data::Digits;
use super::display::Display;
use super::notes::{FaultSignal, Note, Setup};
use super::peer::RUN;
use super::plan::Plan;
use super::schedule::Schedule;
use super::story::Story;
use super::train::gradient_bytes;
use crate::bench::Listening;
use crate::child::{Child, receive_line};
use crate::failure::{Context, Failure, Result};

/// Runs it from the first process to the last line.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let images = Digits::load()?.train.len();
    let schedule = Schedule::new(arguments.seed, arguments.epochs, images);
    let steps = schedule.steps();
    let plan = if arguments.no_faults {
        Plan::without_faults(arguments.peers)
    } else {
        Plan::new(arguments.seed, arguments.peers, steps)
    };
    let plan = plan.with_master_kills(arguments.restart_master, steps);
    let display = Display::new(arguments.json, steps, schedule.steps_per_epoch());
    let mut demonstration = Demonstration::start(arguments, plan, display)?;
    demonstration.train()?;
    demonstration.wake_stopped()?;
    demonstration.judge(arguments.peer_timeout_ms)
}

/// What a thread that listens to one process passes on.
enum Heard {
    Note(Note),
    Nonsense(Failure),
    End,
}

struct Demonstration {
    plan: Plan,
    story: Story,
    display: Display,
    peers: Vec<Child>,
    heard: Receiver<(usize, Heard)>,
    /// Which processes have not closed their output.
    is_talking: Vec<bool>,
    /// Exit statuses that are not as they must be.
    bad_exits: Vec<String>,
    /// Ended last: without it the peers could not leave.
    master: Master,
}

impl Demonstration {
    fn start(arguments: &Arguments, plan: Plan, mut display: Display) -> Result<Self> {
        let master = Master::start(arguments)?;
        let (sender, heard) = channel();
        let mut peers = Vec::new();
        for (place, fault) in plan.faults.iter().enumerate() {
            let mut child = Child::spawn(format!("peer {place}"), &["demo-peer".into()])?;
            let faults = plan.faults.iter().flatten().count();
            child.send(&Setup {
                peers: arguments.peers,
                peers_min: (arguments.peers - faults).max(1),
                seed: arguments.seed,
                epochs: arguments.epochs,
                master: master.address.to_string(),
                fault: *fault,
            })?;
            if let Some(output) = child.take_output() {
                listen(place, output, sender.clone());
            }
            peers.push(child);
        }
        let words = format!(
            "a master at {} and {} peers, each a process; each step averages {:.2} MiB of gradients",
            master.address,
            peers.len(),
            gradient_bytes() as f64 / f64::from(1 << 20),
        );
        display.tell("started", &words)?;
        let is_talking = vec![true; peers.len()];
        let story = Story::new(peers.len());
        Ok(Self {
            plan,
            story,
            display,
            peers,
            heard,
            is_talking,
            bad_exits: Vec::new(),
            master,
        })
    }

    /// Until everybody who is to survive has ended.
    fn train(&mut self) -> Result<()> {
        let survivors: Vec<usize> = (0..self.peers.len())
            .filter(|&place| self.plan.faults[place].is_none())
            .collect();
        while survivors.iter().any(|&place| self.is_talking[place]) {
            self.hear(SILENCE_LIMIT)?;
        }
        Ok(())
    }

    /// Takes in one line of one process.
    fn hear(&mut self, limit: Duration) -> Result<()> {
        let (place, heard) = self
            .heard
            .recv_timeout(limit)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => Failure::new(format!(
                    "no peer has said anything for {} s",
                    limit.as_secs()
                )),
                RecvTimeoutError::Disconnected => Failure::new("all peers are gone"),
            })?;
        match heard {
            Heard::Note(note) => {
                self.story.record(place, &note);
                self.display.show(&self.story, place, &note)?;
                if let Note::Step { step, .. } = note {
                    self.restart_master_if_planned(step)?;
                }
                Ok(())
            }
            Heard::Nonsense(failure) => Err(failure),
            Heard::End => {
                self.is_talking[place] = false;
                self.reap(place)
            }
        }
    }

    /// Looks at how a process ended that has closed its output.
    fn reap(&mut self, place: usize) -> Result<()> {
        let status = self.peers[place].wait_for(EXIT_LIMIT)?;
        let is_to_be_killed =
            self.plan.faults[place].is_some_and(|fault| fault.signal == FaultSignal::Kill);
        let is_fine = status.is_some_and(|status| {
            if is_to_be_killed {
                status.signal() == Some(SIGKILL)
            } else {
                status.success()
            }
        });
        if !is_fine {
            self.bad_exits
                .push(format!("peer {place} {}", ending(status)));
        }
        Ok(())
    }

    fn restart_master_if_planned(&mut self, step: usize) -> Result<()> {
        let planned = self.plan.master_kills.get(self.story.master_restarts);
        if planned.is_none_or(|&planned| step < planned) {
            return Ok(());
        }
        self.master.restart()?;
        self.story.master_restarts += 1;
        let words = format!("the master was killed after step {step} and started again");
        self.display.tell("master_restarted", &words)
    }

    /// Lets the stopped process go on; it must find out by itself that it is out.
    fn wake_stopped(&mut self) -> Result<()> {
        for place in 0..self.peers.len() {
            let is_stopped =
                self.plan.faults[place].is_some_and(|fault| fault.signal == FaultSignal::Stop);
            if !is_stopped || !self.is_talking[place] {
                continue;
            }
            let pid = i32::try_from(self.peers[place].pid()).context("process number")?;
            kill(Pid::from_raw(pid), Signal::SIGCONT).context("SIGCONT")?;
            self.display
                .tell("continued", &format!("peer {place} is allowed to go on"))?;
            let deadline = Instant::now() + WAKE_LIMIT;
            while self.is_talking[place] && Instant::now() < deadline {
                self.hear(WAKE_LIMIT)?;
            }
        }
        Ok(())
    }

    fn judge(mut self, peer_timeout_ms: u64) -> Result<ExitCode> {
        let seconds = self.display.seconds();
        let mut summary = self.story.summary(&self.plan, peer_timeout_ms, seconds);
        summary.add_problems(std::mem::take(&mut self.bad_exits));
        self.display.finish(&summary)?;
        for problem in summary.problems() {
            eprintln!("ccl: {problem}");
        }
        Ok(if summary.problems().is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The master's process, and how to start it again.
struct Master {
    child: Child,
    address: SocketAddr,
    arguments: Vec<String>,
    journal: Option<PathBuf>,
}

impl Master {
    fn start(arguments: &Arguments) -> Result<Self> {
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

    /// SIGKILL, and the same again on the same port.
    fn restart(&mut self) -> Result<()> {
        self.child.kill()?;
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

/// A demonstration in which nobody commits a step for so long is stuck.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end after its last words.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
/// How long the woken peer may take to find out.
const WAKE_LIMIT: Duration = Duration::from_secs(10);
const SIGKILL: i32 = Signal::SIGKILL as i32;
