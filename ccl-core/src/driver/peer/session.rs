//! A peer's session: its clock, tasks and calls around the state machine `peer::Peer`.
//!
//! Inputs come from callers, the control connection, the data plane and the clock.
//! `Session::submit` queues an input; `Session::drive` runs the machine on the calling thread, so
//! that a call reaches the wire without a task switch.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use crate::lock::{Condvar, Mutex};

use crate::collective::{Engine, EngineEvent, Scratch};
use crate::config::{CommunicatorConfig, Roster};
use crate::descriptors::Owner;
use crate::driver::clock::Clock;
use crate::driver::entropy::entropy;
use crate::driver::peer::alarm::{self, Alarm, StateAlarm};
use crate::driver::peer::call::{Call, Operation, RecordCall, SafePointCall};
use crate::driver::peer::completion::Completion;
use crate::driver::peer::copier::{self, Job};
use crate::driver::peer::core::{Core, Item};
use crate::driver::peer::deferred::{Deferred, Hands};
use crate::driver::peer::notice;
use crate::driver::peer::public::Public;
use crate::driver::peer::reach;
use crate::driver::peer::router;
use crate::driver::runtime::{self, IoThreads, Thread};
use crate::error::{Error, Result};
use crate::ids::{CallId, LinkKey, PeerId, StreamId};
use crate::limits;
use crate::outcome::{Counters, LinkState};
use crate::peer::{Input, SessionEnd, Setup, View};
use crate::state::engine::StateEngine;
use crate::time::Instant;
use crate::transport::{self, Links};
use crate::wire::control::{CancelReason, OtherGroups, RecordRule};

/// A session of one peer: everything that is shared between callers and tasks.
pub struct Session {
    pub(super) config: CommunicatorConfig,
    /// The process that made it; a forked child has neither its threads nor its connections.
    process: u32,
    pub(super) clock: Clock,
    pub(super) engine: Arc<Engine>,
    pub(super) state: Arc<StateEngine>,
    pub(super) links: Arc<dyn Links>,
    /// Those of connections to the master.
    pub(super) sockets: Arc<Owner>,
    pub(super) threads: IoThreads,
    pub(super) inbox: Mutex<VecDeque<Item>>,
    pub(super) core: Mutex<Core>,
    /// Decided under the lock of `core`, to be carried out without it.
    pub(super) deferred: Mutex<VecDeque<Deferred>>,
    pub(super) hands: Mutex<Hands>,
    pub(super) alarm: Arc<Alarm>,
    pub(super) rings: AtomicU32,
    pub(super) state_alarm: Arc<StateAlarm>,
    /// Before `helpers`: its end is the copier's.
    pub(super) jobs: mpsc::Sender<Job>,
    /// The threads of the alarm and of the copier.
    helpers: Mutex<Vec<Thread>>,
    pub(super) public: Arc<Mutex<Public>>,
    pub(super) changed: Condvar,
    next_call: AtomicU64,
    /// Newcomers that wait for a safe point.
    pub(super) pending_peers: AtomicU32,
    pub(super) weak: Weak<Session>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.alarm.end();
    }
}

impl Session {
    /// Binds the port, starts the threads, and starts looking for the master, without waiting.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::Os`].
    pub(crate) fn start(config: CommunicatorConfig) -> Result<Arc<Self>> {
        config.validate()?;
        let io_threads = config.io_threads.unwrap_or_else(runtime::default_threads);
        let threads = IoThreads::start("ccl-io", io_threads)?;
        let [high, low, seed] = entropy()?;
        let key = LinkKey(u128::from(high) << 64 | u128::from(low));
        let clock = Clock::start();
        let scratch = scratch(&config)?;
        let links = transport::bind(&config, reach::listen_at(&config), threads.handle())?;
        let setup = Setup {
            run: config.run.clone(),
            group: config.group,
            unit: config.unit,
            unit_size: config.unit_size,
            place: config.roster.as_ref().map(Roster::place),
            addresses: reach::advertised(&config, links.address())?,
            key,
            min_world: config.first_world_size(),
            name: config.name.clone().unwrap_or_else(default_name),
            entropy: seed,
        };
        let public = Arc::default();
        let timeout = config.operation_timeout;
        let core = Core::new(clock.now(), setup, timeout, Arc::clone(&public));
        let (jobs, queue) = mpsc::channel();
        let session = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            process: std::process::id(),
            clock,
            engine: engine(weak, scratch, &links),
            state: router::state_engine(weak, clock, &config, &links),
            links,
            sockets: Arc::default(),
            threads,
            inbox: Mutex::default(),
            core: Mutex::new(core),
            deferred: Mutex::default(),
            hands: Mutex::default(),
            alarm: Arc::default(),
            rings: AtomicU32::new(1),
            state_alarm: Arc::default(),
            jobs,
            helpers: Mutex::default(),
            public,
            changed: Condvar::new(),
            next_call: AtomicU64::new(1),
            pending_peers: AtomicU32::new(0),
            weak: weak.clone(),
            config,
        });
        session.start_helpers(queue)?;
        session.threads.spawn(notice::run(session.weak.clone()));
        session.drive();
        Ok(session)
    }

    fn start_helpers(&self, queue: mpsc::Receiver<Job>) -> Result<()> {
        let state_alarm = Arc::clone(&self.state_alarm);
        drop(
            self.threads
                .spawn(alarm::run_state_alarm(self.weak.clone(), state_alarm)),
        );
        let (session, alarm, clock) = (self.weak.clone(), Arc::clone(&self.alarm), self.clock);
        let ringing = Thread::start("ccl-clock", move || {
            alarm::run_clock(&session, &alarm, clock);
        })?;
        self.helpers.lock().push(ringing);
        let session = self.weak.clone();
        let copying = Thread::start("ccl-copy", move || copier::run(&session, &queue))?;
        self.helpers.lock().push(copying);
        Ok(())
    }

    /// The time by the session's clock.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Starts a collective.
    pub(crate) fn post(&self, operation: Operation) -> Result<Arc<Call>> {
        self.check_open()?;
        let call = Arc::new(Call {
            id: self.new_call(),
            session: self.weak.upgrade().expect("`self` is borrowed from an Arc"),
            completion: Completion::new(),
            op: Mutex::default(),
            last: Mutex::default(),
        });
        self.take(Item::Post(operation, Arc::clone(&call)));
        // A call that was refused at once is an error of starting it, not of its end.
        if call.completion.is_finished()
            && let Err(error) = call.completion.wait()
            && matches!(error, Error::InvalidUsage(_) | Error::InvalidArgument(_))
        {
            return Err(error);
        }
        Ok(call)
    }

    /// Comes to the next safe point.
    pub(crate) fn safe_point(&self) -> Result<SafePointCall> {
        self.check_open()?;
        let (call, completion) = (self.new_call(), Completion::new());
        let deadline = self
            .config
            .operation_timeout
            .map(|timeout| self.clock.now() + timeout);
        self.take(Item::Plain(
            call,
            Arc::clone(&completion),
            Input::SafePoint { call, deadline },
        ));
        Ok(SafePointCall {
            id: call,
            session: self.weak.upgrade().expect("`self` is borrowed from an Arc"),
            completion,
        })
    }

    /// Gives something for the next step of a stream.
    pub(crate) fn enter(
        &self,
        stream: StreamId,
        payload: Vec<u8>,
        rule: RecordRule,
    ) -> Result<RecordCall> {
        self.check_open()?;
        let (call, completion) = (self.new_call(), Completion::new());
        let input = Input::Enter {
            call,
            stream,
            payload,
            rule,
        };
        self.take(Item::Plain(call, Arc::clone(&completion), input));
        Ok(RecordCall {
            session: self.weak.upgrade().expect("`self` is borrowed from an Arc"),
            completion,
        })
    }

    /// Leaves the run and waits for the master's answer.
    pub(crate) fn leave(&self) -> Result<()> {
        self.check_process()?;
        let ended = self.public.lock().ended.clone();
        if let Some(end) = ended.filter(|end| *end != SessionEnd::Left) {
            return Err(end.error());
        }
        let (call, completion) = (self.new_call(), Completion::new());
        self.take(Item::Plain(
            call,
            Arc::clone(&completion),
            Input::Leave { call },
        ));
        completion.wait().map(drop)
    }

    /// Newcomers that the next safe point may admit.
    pub(crate) fn pending_peers(&self) -> u32 {
        self.pending_peers.load(Ordering::Relaxed)
    }

    /// The other groups of the run, as last reported by the master.
    pub(crate) fn other_groups(&self) -> OtherGroups {
        self.public.lock().others
    }

    /// Leaves if the master answers soon, and ends the session either way. Its port is free then.
    pub(crate) fn close(&self) {
        if self.process != std::process::id() {
            return;
        }
        if self.public.lock().ended.is_none() {
            let (call, completion) = (self.new_call(), Completion::new());
            self.take(Item::Plain(
                call,
                Arc::clone(&completion),
                Input::Leave { call },
            ));
            let _ = completion.wait_for(FAREWELL_MAX);
        }
        self.end_calls(&SessionEnd::Left);
        self.links.shutdown();
        self.wait_closed();
    }

    /// Blocks until the tasks have closed their sockets, which they do at their next turn.
    fn wait_closed(&self) {
        if self.threads.is_inside() {
            // This thread's own tasks have no turn before it returns.
            return;
        }
        let is_closed = self.links.wait_closed(CLOSE_MAX) && self.sockets.wait_closed(CLOSE_MAX);
        if !is_closed {
            tracing::warn!("the threads of a closed session have not closed its sockets in time");
        }
    }

    /// The view of the newest result.
    pub(crate) fn view(&self) -> Arc<View> {
        self.public
            .lock()
            .view
            .clone()
            .expect("a communicator is made once admitted")
    }

    /// The session's name.
    pub(crate) fn peer(&self) -> PeerId {
        self.public
            .lock()
            .peer
            .expect("a communicator is made once admitted")
    }

    /// Counters since the communicator was created.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.public.lock().counters;
        counters.repairs = self.engine.repairs();
        for link in self.links.counters().values() {
            counters.sent_bytes += link.sent_bytes;
            counters.received_bytes += link.received_bytes;
            let lanes = link.lane_sent_bytes.len().saturating_sub(1);
            counters.lanes = counters.lanes.max(u16::try_from(lanes).unwrap_or(u16::MAX));
        }
        counters
    }

    /// What the links have in force.
    pub(crate) fn link_states(&self) -> Vec<LinkState> {
        let links = self.links.counters().into_iter();
        let states = links.map(|(peer, link)| {
            let tuned = link.tuned.unwrap_or_default();
            LinkState {
                peer,
                lanes: link.lanes,
                congestion_control: tuned.congestion_control,
                send_buffer_bytes: tuned.send_buffer_bytes as u64,
                delivered_bytes_per_second: link.rates.delivered_bytes_per_second,
                limit_bytes_per_second: link.rates.limit_bytes_per_second,
                rtt: link.rates.rtt,
            }
        });
        states.collect()
    }

    /// Where other peers reach this one.
    pub(crate) fn listen_address(&self) -> SocketAddr {
        self.links.address()
    }

    /// Fewest members it works with.
    pub(crate) fn min_world_size(&self) -> u32 {
        self.config.min_world_size
    }

    /// Asks for an abort. What belongs to the parent is left alone in a forked child.
    pub(super) fn cancel(&self, call: CallId) {
        if self.check_process().is_ok() {
            let reason = CancelReason::User;
            self.submit(Input::Cancel { call, reason });
        }
    }

    /// Queues an input and drives the machine.
    pub(crate) fn submit(&self, input: Input) {
        self.take(Item::Input(input));
    }

    pub(super) fn take(&self, item: Item) {
        self.inbox.lock().push_back(item);
        self.drive();
    }

    pub(super) fn new_call(&self) -> CallId {
        CallId(self.next_call.fetch_add(1, Ordering::Relaxed))
    }

    /// How the session ended, if it has; an error in a forked child.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_process()?;
        match &self.public.lock().ended {
            Some(end) => Err(end.error()),
            None => Ok(()),
        }
    }

    /// An error in a forked child, which has neither the threads nor, maybe, an open lock.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }
}

/// What the end of the session means to a call.
pub(super) fn session_error(end: &SessionEnd) -> Error {
    match end {
        SessionEnd::Evicted(eviction) => Error::Evicted(eviction.clone()),
        SessionEnd::Refused(reason) => Error::Refused(reason.clone()),
        SessionEnd::Detached => Error::Unknown("no master for longer than detach_timeout".into()),
        SessionEnd::NoVerdict => {
            Error::Unknown("no verdict on a cancelled call within verdict_timeout".into())
        }
        SessionEnd::Protocol(what) => {
            Error::Unknown(format!("the master broke the protocol: {what}"))
        }
        SessionEnd::Internal => Error::Unknown(end.to_string()),
        SessionEnd::Left => Error::Ended("this peer left the run".into()),
    }
}

/// The data plane, whose events are inputs of the machine.
fn engine(session: &Weak<Session>, scratch: Scratch, links: &Arc<dyn Links>) -> Arc<Engine> {
    let session = session.clone();
    let events = move |event| {
        let Some(session) = session.upgrade() else {
            return;
        };
        session.take(match event {
            EngineEvent::Held(op) => Item::Input(Input::Held(op)),
            EngineEvent::Mismatch { op, peer, theirs } => {
                Item::Input(Input::Mismatch { op, peer, theirs })
            }
            EngineEvent::LinkUp(link) => Item::Link(link, Input::LinkUp(link.peer)),
            EngineEvent::LinkDown {
                link,
                fault,
                gave_up,
            } => {
                let peer = link.peer;
                let input = Input::LinkDown {
                    peer,
                    fault,
                    gave_up,
                };
                Item::Link(link, input)
            }
            EngineEvent::NoLink { link, why } => {
                let peer = link.peer;
                Item::Link(link, Input::NoLink { peer, why })
            }
            EngineEvent::LaneRepaired { peer, lane } => {
                return tracing::info!(%peer, lane, "a lane was repaired");
            }
            EngineEvent::LargeCopy(copy) => return session.hand_to_copier(Job::Own(copy)),
        });
    };
    Arc::new(Engine::new(
        scratch,
        Arc::clone(links) as _,
        Box::new(events),
    ))
}

fn scratch(config: &CommunicatorConfig) -> Result<Scratch> {
    Scratch::new(config.scratch_bytes).map_err(|refusal| {
        let cause = std::io::Error::new(std::io::ErrorKind::OutOfMemory, refusal);
        Error::os("cannot allocate scratch_bytes of memory", cause)
    })
}

/// The host and the process.
fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| !c.is_control()).collect();
    let process = format!(":{}", std::process::id());
    let room = host.floor_char_boundary(limits::NAME_BYTES_MAX - process.len());
    match &host[..room] {
        "" => format!("localhost{process}"),
        host => format!("{host}{process}"),
    }
}

/// Longest that dropping the last communicator waits for the master's farewell.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Longest that it waits for its sockets to close: far more than a busy machine takes.
const CLOSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) mod tests;
