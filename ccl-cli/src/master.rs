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
use ccl_core::{MasterConfig, MasterServer, Timers};
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
    /// Name of the run; a peer that names another is refused.
    #[arg(long, value_name = "NAME", default_value = "default")]
    run: String,
    /// File that keeps the history, so that a restarted master takes the run up again.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Take the journal for the newest although it has no marker beside it, because it was moved
    /// here. Risk: an older copy may contradict what members were told.
    #[arg(long, requires = "journal")]
    trust_journal: bool,
    /// Do not wait for the disk before a decision is told.
    #[arg(long)]
    no_fsync: bool,
    /// Found a run at once, without waiting for members of an earlier one; refused beside a journal
    /// that holds a run.
    #[arg(long)]
    new_run: bool,
    /// Rebuild from whoever is there, without a journal and a majority: only if nobody else goes
    /// on.
    #[arg(long)]
    force_rebuild: bool,
    /// Wait for no member of an earlier run or view: none is alive. Risk: one that is goes on for a
    /// while beside those that take its place.
    #[arg(long)]
    members_gone: bool,
    /// Silence after which a peer counts as dead, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    peer_timeout_ms: u64,
    /// How often each side says that it is alive, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 250)]
    heartbeat_ms: u64,
    /// How long a member whose control connection ended may take to come back, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    reattach_grace_ms: u64,
    /// How long a broken data connection may take to be repaired, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    link_timeout_ms: u64,
    /// How long a restarted master waits for the members of its last view, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    rebuild_window_ms: u64,
    /// How long peers go on without a master, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    detach_timeout_ms: u64,
    /// How long after the others a member may take to call an operation, in milliseconds; 0: for
    /// ever.
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    post_timeout_ms: u64,
    /// Report committed operations too; there may be thousands a second.
    #[arg(long)]
    commits: bool,
    /// Print one JSON object a line on standard output.
    #[arg(long)]
    json: bool,
    /// End when standard input is closed.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl Arguments {
    /// What to log unless told otherwise: a master that another command started is no news.
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
        }
    }
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
    start_reporter(receiver, &arguments);
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
    Ok(ExitCode::SUCCESS)
}

/// The first line: whoever started it with port 0 learns the port here.
fn announce(address: SocketAddr, arguments: &Arguments) -> Result<()> {
    let stdout = &mut std::io::stdout();
    if arguments.json {
        return child::send_line(stdout, &json!({ "event": "listening", "address": address }));
    }
    writeln!(
        stdout,
        "master of run `{}` listening on {address}",
        arguments.run
    )
    .context("standard output")
}

/// Passes events on without waiting.
fn sink(sender: Sender<Event>, with_commits: bool) -> EventSink {
    Arc::new(move |event: &Event| {
        if with_commits || !matches!(event, Event::Committed { .. }) {
            // Nobody listens any more only when the process is about to end.
            let _ = sender.send(event.clone());
        }
    })
}

/// Events are written by a thread of their own: a reader who stops reading never holds the master
/// up. It starts after the announcement, which so is always the first line.
fn start_reporter(events: Receiver<Event>, arguments: &Arguments) {
    let (json, with_commits) = (arguments.json, arguments.commits);
    std::thread::spawn(move || {
        let mut news = News::default();
        for event in events {
            let is_news = news.is(&event) || with_commits;
            report(&event, json, is_news);
        }
    });
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

/// The same for machines.
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
