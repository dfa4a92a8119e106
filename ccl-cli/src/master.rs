//! `ccl master`: a master process, its log and its clean end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ccl_core::driver::master::EventSink;
use ccl_core::event::{Event, News};
use ccl_core::limits::RESERVE_BYTES_DEFAULT;
use ccl_core::{MasterConfig, MasterServer, Paths, Timers};
use clap::Args;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, info};

use crate::child;
use crate::failure::{Context, Result};

/// Options of `ccl master`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Address to listen on; port 0 lets the system choose. Other hosts reach it only if this is
    /// not a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:48148")]
    listen: SocketAddr,
    /// Name of the run; a peer of another run is refused.
    #[arg(long, value_name = "NAME", default_value = "default")]
    run: String,
    /// File that keeps the history, so that a restarted master resumes the run.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Accept the journal without its marker, because it was moved here. Risk: an older copy may
    /// contradict what members already know.
    #[arg(long, requires = "journal")]
    trust_journal: bool,
    /// Do not wait for the disk before a decision is sent to peers.
    #[arg(long)]
    no_fsync: bool,
    /// Found a run at once, without waiting for members of an earlier one; an error if the journal
    /// holds a run.
    #[arg(long)]
    new_run: bool,
    /// Rebuild from the members that are back, without a journal or a majority. Use it only if no
    /// other members are still running.
    #[arg(long)]
    force_rebuild: bool,
    /// Do not wait for members of an earlier run or view, because none is alive. Risk: one that is
    /// goes on for a while beside its replacements.
    #[arg(long)]
    members_gone: bool,
    /// Silence after which a peer counts as dead, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    peer_timeout_ms: u64,
    /// Interval between heartbeats, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 250)]
    heartbeat_ms: u64,
    /// How long a member may take to restore a lost control connection, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    reattach_grace_ms: u64,
    /// How long the repair of a data connection may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    link_timeout_ms: u64,
    /// How long a restarted master waits for the members of its last view, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    rebuild_window_ms: u64,
    /// How long peers keep running without a master, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    detach_timeout_ms: u64,
    /// How late a member may join an operation that the others have called, in milliseconds; 0: no
    /// limit.
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    post_timeout_ms: u64,
    /// Time from one member to another and back, in milliseconds; 0: guessed.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = parse_milliseconds)]
    link_round_trip_ms: Duration,
    /// Bytes per second that a member sends, and receives; 0: guessed.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    link_bytes_per_second: u64,
    /// Receive memory of each member for data that is sent before it is asked for, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = RESERVE_BYTES_DEFAULT)]
    reserve_bytes: usize,
    /// Report committed operations too; there may be thousands per second.
    #[arg(long)]
    commits: bool,
    /// Print one JSON object per line on standard output.
    #[arg(long)]
    json: bool,
    /// End when standard input is closed.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl Arguments {
    /// Default log filter: a master started by another command logs less.
    pub const fn log_level(&self) -> &'static str {
        if self.exit_with_parent {
            "warn"
        } else {
            "info"
        }
    }

    fn config(&self) -> MasterConfig {
        let ms = Duration::from_millis;
        MasterConfig {
            listen: self.listen,
            run: self.run.clone(),
            journal: self.journal.clone(),
            trust_journal: self.trust_journal,
            fsync: !self.no_fsync,
            new_run: self.new_run,
            force_rebuild: self.force_rebuild,
            members_gone: self.members_gone,
            timers: Timers {
                heartbeat_interval: ms(self.heartbeat_ms),
                peer_timeout: ms(self.peer_timeout_ms),
                reattach_grace: ms(self.reattach_grace_ms),
                link_timeout: ms(self.link_timeout_ms),
                rebuild_window: ms(self.rebuild_window_ms),
                detach_timeout: ms(self.detach_timeout_ms),
                post_timeout: (self.post_timeout_ms > 0).then(|| ms(self.post_timeout_ms)),
                ..Timers::default()
            },
            paths: Paths {
                round_trip: (!self.link_round_trip_ms.is_zero()).then_some(self.link_round_trip_ms),
                bytes_per_second: (self.link_bytes_per_second > 0)
                    .then_some(self.link_bytes_per_second),
                reserve_bytes: self.reserve_bytes,
            },
        }
    }
}

/// A number of milliseconds, which need not be whole.
fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok();
    let time = number.and_then(|number| Duration::try_from_secs_f64(number / 1e3).ok());
    time.ok_or_else(|| format!("`{text}` is not a number of milliseconds, such as 0.2 or 50"))
}

/// Serves until SIGTERM or SIGINT, or until the master ends by itself, which is an error.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    // The handlers come first: a signal that comes while the port is being opened ends it cleanly
    // too.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signal handlers")?;
    let config = arguments.config();
    config.validate()?;
    let (sender, receiver) = channel();
    let server = MasterServer::start(config, Some(sink(sender, arguments.commits)))?;
    announce(server.address(), &arguments)?;
    let reported = start_reporter(receiver, &arguments);
    if arguments.exit_with_parent {
        child::exit_with_parent();
    }
    let handle = signals.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its result is read below.
            let _ = server.wait();
            handle.close();
        });
        if let Some(signal) = signals.forever().next() {
            info!(signal, "stopping");
        }
        server.stop();
    });
    server.wait()?;
    // The sender of events goes with the server. Then the last of them are reported, unless their
    // reader has stopped reading.
    drop(server);
    let _ = reported.recv_timeout(LAST_EVENTS_MAX);
    Ok(ExitCode::SUCCESS)
}

/// The first line: a caller that passed port 0 learns the port here.
fn announce(address: SocketAddr, arguments: &Arguments) -> Result<()> {
    let stdout = &mut std::io::stdout();
    if arguments.json {
        let process = std::process::id();
        let line = json!({ "event": "listening", "address": address, "process": process });
        return child::send_line(stdout, &line);
    }
    writeln!(
        stdout,
        "master of run `{}` listening on {address}",
        arguments.run
    )
    .context("standard output")
}

/// How long the last events may take to be written when the master ends.
const LAST_EVENTS_MAX: Duration = Duration::from_secs(1);

/// Passes events on without waiting.
fn sink(sender: Sender<Event>, with_commits: bool) -> EventSink {
    Arc::new(move |event: &Event| {
        if with_commits || !matches!(event, Event::Committed { .. }) {
            // Nobody listens any more only when the process is about to end.
            let _ = sender.send(event.clone());
        }
    })
}

/// Events are written by a separate thread: a reader that stops reading never blocks the master. It
/// starts after the announcement, so that is always the first line.
///
/// The receiver that it returns is disconnected once all events have been written.
fn start_reporter(events: Receiver<Event>, arguments: &Arguments) -> Receiver<()> {
    let (json, with_commits) = (arguments.json, arguments.commits);
    let (working, reported) = channel();
    std::thread::spawn(move || {
        let _working: Sender<()> = working;
        let mut news = News::default();
        for event in events {
            let is_news = news.is(&event) || with_commits;
            report(&event, json, is_news);
        }
    });
    reported
}

fn report(event: &Event, json: bool, is_news: bool) {
    if json {
        // Whoever read the lines may be gone; the run does not depend on it.
        let _ = child::send_line(&mut std::io::stdout(), &event_to_json(event));
    }
    match is_news {
        true => info!("{event}"),
        false => debug!("{event}"),
    }
}

/// The same as JSON.
fn event_to_json(event: &Event) -> Value {
    match event {
        Event::MasterStarted { term, rebuilt } => {
            json!({ "event": "started", "term": term, "rebuilt": rebuilt })
        }
        Event::EarlierRunAwaited { seconds } => {
            json!({ "event": "earlier_run_awaited", "seconds": seconds })
        }
        Event::Registered { peer, group, name } => {
            json!({ "event": "registered", "peer": peer, "group": group, "name": name })
        }
        Event::Evicted {
            peer,
            group,
            reason,
            names,
        } => {
            let (name, reason) = (names.get(*peer), reason.words(names));
            json!({
                "event": "evicted", "peer": peer, "group": group, "name": name, "reason": reason
            })
        }
        Event::ViewInstalled {
            group,
            vid,
            members,
            names,
        } => {
            let called: Vec<_> = members.iter().map(|peer| names.get(*peer)).collect();
            json!({
                "event": "view", "group": group, "vid": vid.to_string(), "members": members,
                "names": called
            })
        }
        Event::Waits { group, wait } => {
            json!({ "event": "waits", "group": group, "text": wait.to_string() })
        }
        Event::Committed { group, op } => {
            json!({ "event": "committed", "group": group, "op": op.to_string() })
        }
        Event::Aborted {
            group,
            op,
            reason,
            names,
        } => {
            let (op, reason) = (op.to_string(), reason.words(names));
            json!({ "event": "aborted", "group": group, "op": op, "reason": reason })
        }
        Event::StateSealed { group, content } => {
            let (revision, root) = (content.revision, content.root.to_string());
            json!({ "event": "state_sealed", "group": group, "revision": revision, "root": root })
        }
        Event::RebuildStalled {
            group,
            heard,
            members,
        } => {
            json!({ "event": "rebuild_stalled", "group": group, "heard": heard, "members": members })
        }
        Event::MasterPaused { paused_ms } => {
            json!({ "event": "master_paused", "paused_ms": paused_ms })
        }
        Event::MasterHearsNobody => json!({ "event": "master_hears_nobody" }),
        other => json!({ "event": "other", "text": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_that_are_no_time_are_refused() {
        assert_eq!(parse_milliseconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_milliseconds("0.2"), Ok(Duration::from_micros(200)));
        for text in ["", "-1", "1s", "inf", "NaN", "1e30"] {
            assert!(parse_milliseconds(text).is_err(), "{text}");
        }
    }
}
