//! The loop around a `Master`: feeds it inputs and carries out its outputs in order.
//!
//! It runs on one thread. Between an input and its outputs it waits only for the disk: what the
//! master seals is in the journal before anything that depends on it is sent.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::archive::Archive;
use super::connection::{self, Connection, End};
use super::door::Door;
use super::{EventSink, Parts, Question};
use crate::driver::clock::{self, Clock, Moment};
use crate::driver::entropy::entropy;
use crate::driver::journal::Journal;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limits;
use crate::master::{ConnectionId, Input, Master, Output, Setup, Status};
use crate::net::{Port, Stream, Warnings};
use crate::time::Instant;
use crate::wire::control::{MasterToPeer, PeerToMaster};

/// What the tasks of the thread share.
pub(super) struct Server {
    state: RefCell<State>,
    /// What is read passes through here: connections that wait hold no buffer.
    read_buffer: RefCell<Box<[u8]>>,
    hello_timeout: Duration,
    /// The master must be called earlier than the timer is set.
    rearm: Notify,
    failed: Notify,
}

struct State {
    master: Master,
    clock: Clock,
    journal: Option<Archive>,
    before_sync: Option<Box<dyn Fn() + Send>>,
    events: Option<EventSink>,
    connections: BTreeMap<ConnectionId, Rc<Connection>>,
    door: Door,
    complaints: Warnings,
    next_connection: ConnectionId,
    /// Nothing is accepted before.
    accept_after: Instant,
    /// To be carried out once what was sealed is on the disk.
    pending: Vec<Output>,
    /// Something sealed has not reached the disk.
    is_unsynced: bool,
    /// When the journal is to be stamped again, if a member can hear from the master.
    stamp_after: Instant,
    /// When to look again whether the journal is still there.
    watch_after: Instant,
    /// When the timer is set to.
    armed: Option<Instant>,
    /// Why nothing may be sent any more.
    failure: Option<Error>,
}

/// The master's thread, from beginning to end.
pub(super) fn run(
    parts: Parts,
    stopped: oneshot::Receiver<()>,
    asked: mpsc::UnboundedReceiver<Question>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::os("cannot start the master's event loop", error))?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, serve(parts, stopped, asked))
}

async fn serve(
    parts: Parts,
    mut stopped: oneshot::Receiver<()>,
    mut asked: mpsc::UnboundedReceiver<Question>,
) -> Result<()> {
    let (server, port) = Server::new(parts)?;
    let server = Rc::new(server);
    let mut tasks = JoinSet::new();
    server.settle();
    loop {
        tokio::select! {
            // The timer is last: queued messages are read before any silence is judged (R20).
            biased;
            // The server was stopped or dropped.
            _ = &mut stopped => break,
            () = server.failed.notified() => break,
            Some(question) = asked.recv() => {
                // The asking thread may have stopped waiting.
                let _ = question.send(server.status());
            }
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            connection = server.accept(&port) => {
                tasks.spawn_local(connection::run(server.clone(), connection));
            }
            () = server.timer() => {
                server.hear_out().await;
                server.expire();
            }
        }
    }
    server.finish()
}

impl Server {
    /// The server, and its port, whose connections it accepts.
    fn new(parts: Parts) -> Result<(Self, Port)> {
        let refused = |error| Error::os("cannot accept connections on the master's port", error);
        let port = parts.port.serve().map_err(refused)?;
        let clock = Clock::start();
        let setup = Setup {
            run: parts.config.run,
            timers: parts.config.timers,
            paths: parts.config.paths,
            new_run: parts.config.new_run,
            force_rebuild: parts.config.force_rebuild,
            members_gone: parts.config.members_gone,
            silence: silence(parts.journal.as_ref()),
            journaled: parts.is_journal_newest,
            start_number: clock::seconds_since_2026(),
            tags_kept: limits::TAGS_KEPT,
            entropy: entropy()?,
        };
        let state = State {
            master: Master::new(setup, &parts.history, clock.now()),
            clock,
            journal: parts
                .journal
                .map(|journal| Archive::new(journal, &parts.history)),
            before_sync: parts.before_sync,
            events: parts.events,
            connections: BTreeMap::new(),
            door: Door::default(),
            complaints: Warnings::new("closed a control connection"),
            next_connection: ConnectionId(0),
            accept_after: Instant::default(),
            pending: Vec::new(),
            is_unsynced: false,
            stamp_after: Instant::default(),
            watch_after: Instant::default(),
            armed: None,
            failure: None,
        };
        let server = Self {
            state: RefCell::new(state),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            hello_timeout: parts.hello_timeout,
            rearm: Notify::new(),
            failed: Notify::new(),
        };
        Ok((server, port))
    }

    pub fn hello_timeout(&self) -> Duration {
        self.hello_timeout
    }

    /// Lends the buffer to one read.
    pub fn with_read_buffer<T>(&self, read: impl FnOnce(&mut [u8]) -> T) -> T {
        read(&mut self.read_buffer.borrow_mut())
    }

    /// Takes one message in. `settle` carries out what follows.
    pub fn take(&self, connection: &Connection, message: PeerToMaster) {
        let state = &mut *self.state.borrow_mut();
        state.door.leave(connection.id);
        state.handle(Input::Message {
            connection: connection.id,
            from: connection.address,
            message,
        });
    }

    /// Carries out what follows from everything that was taken in.
    pub fn settle(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Err(error) = state.settle() {
            state.failure = Some(error);
            self.failed.notify_one();
        }
        let due = state.master.poll_timeout();
        if due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            self.rearm.notify_one();
        }
    }

    /// Notes how much of an unfinished message an unidentified connection holds.
    pub fn buffered(&self, connection: &Connection, bytes: usize) {
        let state = &mut *self.state.borrow_mut();
        if let Some(leaving) = state.door.buffer(connection.id, bytes) {
            state.turn_out(leaving);
        }
    }

    /// A connection's task is over.
    pub fn ended(&self, connection: &Connection, end: End) {
        self.state.borrow_mut().end(connection, end);
        self.settle();
    }

    /// The next connection. Cancelling it loses none.
    async fn accept(&self, port: &Port) -> Rc<Connection> {
        loop {
            let pause = self.state.borrow().pause();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                continue;
            }
            match port.accept().await {
                Ok((stream, address)) => {
                    // One that ended already cannot be prepared, and is no loss.
                    if let Ok(connection) = self.state.borrow_mut().enter(stream, address) {
                        return connection;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => self.state.borrow_mut().rest(&error),
            }
        }
    }

    /// Returns when the master is to be called.
    async fn timer(&self) {
        loop {
            let due = {
                let state = &mut *self.state.borrow_mut();
                state.armed = state.master.poll_timeout();
                match state.armed {
                    Some(due) if due <= state.clock.now() => return,
                    due => due.map(|due| state.clock.to_std(due)),
                }
            };
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.rearm.notified() => {}
            }
        }
    }

    /// Lets the task of each connection read what has arrived.
    async fn hear_out(&self) {
        let connections = self.state.borrow().connections.len();
        for _ in 0..connections / TASKS_A_TURN + 2 {
            tokio::task::yield_now().await;
        }
    }

    fn expire(&self) {
        self.state.borrow_mut().handle(Input::Timeout);
        self.settle();
    }

    fn status(&self) -> Status {
        self.state.borrow().master.status()
    }

    /// The last act: commits that were journaled lazily reach the disk.
    fn finish(&self) -> Result<()> {
        let state = &mut *self.state.borrow_mut();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let close = |journal: &mut Archive| journal.watch().and_then(|()| journal.sync());
        state.journal.as_mut().map_or(Ok(()), close)
    }
}

impl State {
    /// How long no connection may be accepted.
    fn pause(&self) -> Duration {
        let now = self.clock.now();
        self.door.pause(now).max(self.accept_after - now)
    }

    /// Accepts nothing for a moment: out of file descriptors, most likely. Peers try again, too.
    fn rest(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a connection could not be accepted");
        self.accept_after = self.clock.now() + ACCEPT_RETRY;
    }

    fn enter(&mut self, stream: Stream, address: SocketAddr) -> io::Result<Rc<Connection>> {
        let id = self.next_connection;
        let connection = Rc::new(Connection::new(id, stream, address)?);
        self.next_connection.0 += 1;
        self.connections.insert(id, connection.clone());
        if let Some(leaving) = self.door.enter(id, self.clock.now()) {
            self.turn_out(leaving);
        }
        Ok(connection)
    }

    fn turn_out(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.drop_for("it gave way to newer connections before it identified itself");
        }
    }

    /// Tells the master that a connection ended, if it knows the connection and did not end it
    /// itself.
    fn end(&mut self, connection: &Connection, end: End) {
        match end {
            End::Refused(reason) => {
                self.complaints.warn(connection.address, &reason);
            }
            End::Peer(error) => {
                let address = connection.address;
                tracing::debug!(%address, %error, "a control connection ended");
            }
            End::Closed => {}
        }
        let was_stranger = self.door.leave(connection.id);
        let was_kept = self.connections.remove(&connection.id).is_some();
        if was_kept && !was_stranger {
            let connection = connection.id;
            self.handle(Input::Closed { connection });
        }
    }

    fn handle(&mut self, input: Input) {
        if self.failure.is_some() {
            return;
        }
        self.master.handle(self.clock.now(), input);
        if let Err(error) = self.seal() {
            self.failure = Some(error);
        }
    }

    /// Writes records down in the order of the outputs, and puts the other outputs off.
    fn seal(&mut self) -> Result<()> {
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Journal { record, durable } => {
                    if let Some(journal) = &mut self.journal {
                        journal.append(&record)?;
                        self.is_unsynced |= durable;
                    }
                }
                output => {
                    if let Output::Close { connection } = output
                        && let Some(connection) = self.connections.get(&connection)
                    {
                        connection.mute();
                    }
                    self.pending.push(output);
                }
            }
        }
        Ok(())
    }

    /// Waits for the disk, if something durable was sealed, and then does what was put off. One
    /// sync covers all that came in together.
    fn settle(&mut self) -> Result<()> {
        self.seal()?;
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.stamp()?;
        loop {
            if self.is_unsynced
                && let Some(journal) = &mut self.journal
            {
                if let Some(before_sync) = &self.before_sync {
                    before_sync();
                }
                journal.sync()?;
                self.is_unsynced = false;
            }
            let mut written = BTreeSet::new();
            let mut broken = BTreeSet::new();
            for output in std::mem::take(&mut self.pending) {
                match output {
                    Output::Send {
                        connection,
                        message,
                    } => match self.send(connection, &message) {
                        Ok(()) => drop(written.insert(connection)),
                        Err(error) => {
                            self.give_up(connection, &error);
                            broken.insert(connection);
                        }
                    },
                    Output::Close { connection } => self.close(connection),
                    Output::Event(event) => self.tell(&event),
                    Output::Journal { .. } => unreachable!("sealed before it was put off"),
                }
            }
            self.flush(&written);
            if broken.is_empty() {
                return Ok(());
            }
            for connection in broken {
                self.handle(Input::Closed { connection });
            }
        }
    }

    /// Records about once a second that members can hear from the master, before they do. Also
    /// checks whether the journal is still in place.
    fn stamp(&mut self) -> Result<()> {
        let now = self.clock.now();
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if now >= self.watch_after {
            self.watch_after = now + STAMP_INTERVAL;
            journal.watch()?;
        }
        if now >= self.stamp_after && self.master.has_members() {
            self.stamp_after = now + STAMP_INTERVAL;
            if let Some(moment) = Moment::now() {
                journal.stamp(&moment)?;
            }
        }
        Ok(())
    }

    fn send(&self, id: ConnectionId, message: &MasterToPeer) -> io::Result<()> {
        // It may have ended while this was decided.
        let connection = self.connections.get(&id);
        connection.map_or(Ok(()), |connection| connection.push(message))
    }

    /// A connection that cannot be written to ends; its peer attaches again.
    fn give_up(&mut self, id: ConnectionId, error: &io::Error) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        connection.drop_for("nothing more can be sent to it");
        let reason = format!("sending to it failed: {error}");
        self.complaints.warn(connection.address, &reason);
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.close();
            connection.flush();
        }
    }

    fn flush(&self, written: &BTreeSet<ConnectionId>) {
        for id in written {
            if let Some(connection) = self.connections.get(id) {
                connection.flush();
            }
        }
    }

    fn tell(&self, event: &Event) {
        if let Some(events) = &self.events {
            events(event);
        }
    }
}

/// Minimum time for which no member has heard from a master of this journal.
fn silence(journal: Option<&Journal>) -> Duration {
    let heard = journal.and_then(Journal::last_heard);
    let silence = heard.and_then(|heard| Some(Moment::now()?.since(&heard)));
    // Largest age of the stamp when a member hears from the master.
    silence
        .unwrap_or_default()
        .saturating_sub(STAMP_INTERVAL * 2)
}

/// Tasks that surely get a turn whenever another task lets all others go first: half of what tokio
/// polls in one go.
const TASKS_A_TURN: usize = 30;
/// Between stamps of the journal: how much longer than needed the members of a view are waited for.
/// And between looks at its place.
const STAMP_INTERVAL: Duration = Duration::from_secs(1);
/// All peers' messages pass through one buffer of this size.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Pause after the system refused to accept a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod order;
