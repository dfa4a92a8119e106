//! A master as a running server: sockets, clock and journal around `master::Master`.
//!
//! This file owns the server's thread and its shutdown. `serve` carries out outputs in order,
//! `connection` owns one peer's connection, `door` the connections that are not identified yet.

mod archive;
mod connection;
mod door;
mod serve;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lock::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot};

use crate::config::MasterConfig;
use crate::driver::journal::{Doubt, Journal};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limits::HELLO_TIMEOUT;
use crate::master::{Record, Status};
use crate::net::Bound;
use crate::signals;

/// Receives every event of a master; called from its thread, so it must not block.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// A running master. Dropping it stops it.
#[derive(Debug)]
pub struct MasterServer {
    address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    questions: mpsc::UnboundedSender<Question>,
    ending: Arc<Ending>,
    thread: Option<JoinHandle<()>>,
    /// A forked child has no such thread to stop or to wait for.
    process: u32,
}

impl MasterServer {
    /// Reads the journal, binds the port, and serves from a thread of its own.
    ///
    /// # Errors
    /// [`crate::Error::Os`] if the port or the journal cannot be opened;
    /// [`crate::Error::InvalidArgument`] for waiting times that contradict each other, and for a
    /// journal that another master uses, that is of another run, or that is damaged.
    pub fn start(config: MasterConfig, events: Option<EventSink>) -> Result<Self> {
        Self::start_from(Parts::new(config, events)?)
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the master has ended: `Ok` if another thread called `stop`. May be called any
    /// number of times, from any thread. A server program should wait here, besides handling its
    /// signals, so that it does not keep running after the master has failed.
    ///
    /// # Errors
    /// [`crate::Error::Os`] if the journal could not be written. The master has stopped rather than
    /// to promise what is not on the disk; start it again once there is room.
    pub fn wait(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        self.ending.wait()
    }

    /// As `wait`, at most as long as `timeout`; `None` if it has not ended by then.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> Option<Result<()>> {
        if self.is_forked() {
            return Some(Err(Error::Forked));
        }
        let Ending { result, told } = &*self.ending;
        let result = told.wait_while_for(result.lock(), |result| result.is_none(), timeout);
        result.clone()
    }

    /// Why the master has ended, if it has; does not block.
    #[must_use]
    pub fn ended(&self) -> Option<Result<()>> {
        self.ending.result.lock().clone()
    }

    /// Tells the master to stop serving; `wait` returns once it has. Peers go on, and find a master
    /// that is started again.
    pub fn stop(&self) {
        if self.is_forked() {
            return;
        }
        if let Some(stop) = self.stop.lock().take() {
            // An error means that it has ended.
            let _ = stop.send(());
        }
    }

    /// What the master knows about its run now. Blocks for as long as one turn of the master takes,
    /// the disk of its journal included.
    ///
    /// # Errors
    /// As `wait`; [`crate::Error::Ended`] after `stop`.
    pub fn status(&self) -> Result<Status> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        let (answer, answered) = std::sync::mpsc::channel();
        let asked = self.questions.send(answer);
        match asked.ok().and_then(|()| answered.recv().ok()) {
            Some(status) => Ok(status),
            None => {
                self.ending.wait()?;
                Err(Error::Ended("the master was stopped".into()))
            }
        }
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Stops serving and waits for the thread.
    pub fn shutdown(self) {
        drop(self);
    }

    fn start_from(parts: Parts) -> Result<Self> {
        let address = parts
            .port
            .local_addr()
            .map_err(|error| Error::os("cannot determine the master's address", error))?;
        let (stop, stopped) = oneshot::channel();
        let (questions, asked) = mpsc::unbounded_channel();
        let ending = Arc::new(Ending::default());
        let told = ending.clone();
        let serve = move || {
            // A panic in here is a mistake in this library: it must not look like a master that
            // runs.
            let run = AssertUnwindSafe(|| serve::run(parts, stopped, asked));
            told.set(std::panic::catch_unwind(run).unwrap_or_else(|_| Err(panicked())));
        };
        let thread = std::thread::Builder::new().name("ccl-master".into());
        let thread = signals::without_signals(|| thread.spawn(serve))
            .map_err(|error| Error::os("cannot start the master's thread", error))?;
        Ok(Self {
            address,
            stop: Mutex::new(Some(stop)),
            questions,
            ending,
            thread: Some(thread),
            process: std::process::id(),
        })
    }
}

impl Drop for MasterServer {
    fn drop(&mut self) {
        if self.is_forked() {
            return std::mem::forget(self.thread.take());
        }
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was caught, and is in `ending`.
            let _ = thread.join();
        }
    }
}

/// Where the answer to a status request is sent.
type Question = std::sync::mpsc::Sender<Status>;

/// What a master's thread is started with.
struct Parts {
    config: MasterConfig,
    events: Option<EventSink>,
    journal: Option<Journal>,
    history: Vec<Record>,
    /// Whether the history is known to be the newest of the run.
    is_journal_newest: bool,
    port: Bound,
    /// How long a connection may take to identify itself.
    hello_timeout: Duration,
    /// Called each time before the disk is waited for: tests make it slow here.
    before_sync: Option<Box<dyn Fn() + Send>>,
}

impl Parts {
    fn new(mut config: MasterConfig, events: Option<EventSink>) -> Result<Self> {
        config.validate()?;
        let opened = config
            .journal
            .as_deref()
            .map(|path| Journal::open(path, &config.run, config.fsync));
        let (journal, history) = match opened.transpose()? {
            Some((journal, history)) => (Some(journal), history),
            None => (None, Vec::new()),
        };
        if config.new_run
            && let Some(journal) = &journal
        {
            check_no_run(journal, &history)?;
        }
        // No earlier run can have used a port that the system has yet to choose.
        config.new_run |= config.listen.port() == 0 && history.is_empty();
        let is_journal_newest = journal.as_ref().is_some_and(|it| is_newest(it, &config));
        let port = Bound::open(&Arc::default(), Some(config.listen)).map_err(|error| {
            Error::os(
                format!("the master cannot listen on {}", config.listen),
                error,
            )
        })?;
        Ok(Self {
            config,
            events,
            journal,
            history,
            is_journal_newest,
            port,
            hello_timeout: HELLO_TIMEOUT,
            before_sync: None,
        })
    }
}

/// Whether a new run may be founded: journal and marker know of none.
fn check_no_run(journal: &Journal, history: &[Record]) -> Result<()> {
    let path = journal.path().display();
    if !history.is_empty() {
        return Err(Error::invalid(format!(
            "journal {path} already holds a run, and new_run would found another: start without \
             new_run to resume it, or move the journal and its marker away, or use another file"
        )));
    }
    match journal.doubt() {
        None => Ok(()),
        Some(Doubt::NoMarker(marker) | Doubt::Older(marker) | Doubt::Empty(marker)) => {
            Err(Error::invalid(format!(
                "journal {path} is empty or missing, but according to its marker {} it held a run, \
                 whose members may be alive, and new_run would found another: start without \
                 new_run to resume the run from them, or delete both files if no member is alive",
                marker.display()
            )))
        }
    }
}

/// Whether a journal is beyond doubt, or trusted on an operator's word.
fn is_newest(journal: &Journal, config: &MasterConfig) -> bool {
    let Some(doubt) = journal.doubt() else {
        return true;
    };
    if config.trust_journal && matches!(doubt, Doubt::NoMarker(_)) {
        return true;
    }
    let path = config.journal.as_deref().unwrap_or(Path::new(""));
    tracing::warn!(
        journal = %path.display(),
        "the journal is not trusted: {doubt}. The run goes on with a majority of each view, or \
         with force_rebuild; if no member is heard within rebuild_window, a new run is founded"
    );
    false
}

/// How a master ended, for waiting threads.
#[derive(Debug, Default)]
struct Ending {
    result: Mutex<Option<Result<()>>>,
    told: Condvar,
}

impl Ending {
    fn set(&self, result: Result<()>) {
        *self.result.lock() = Some(result);
        self.told.notify_all();
    }

    fn wait(&self) -> Result<()> {
        let mut result = self.result.lock();
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => result = self.told.wait(result),
            }
        }
    }
}

fn panicked() -> Error {
    let cause = std::io::Error::other("its thread panicked; the message is on standard error");
    Error::os("the master ended unexpectedly", cause)
}

#[cfg(test)]
mod tests;
