//! One lane of a link: the state that outlives its connections, and the task that serves and
//! replaces them.
//!
//! One task owns both directions, so the old connection is no longer in use when the next one is
//! greeted: the sequence numbers exchanged then are exact.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::lock::Mutex;
use bytes::Bytes;
use tokio::sync::Notify;

use super::bulk::BulkWriter;
use super::dial;
use super::door::Door;
use super::keeper::Event;
use super::link::Link;
use super::offer::Offered;
use super::reader::{BulkReader, SignalReader};
use super::signal::{self, SignalOut};
use super::window::{Entry, OutOfStep, Window};
use crate::limits::{ACK_INTERVAL_FRAMES, UNACKED_FRAMES_MAX};
use crate::net::{self, Stream};
use crate::wire::control::LinkFault;
use crate::wire::data::DataFault;

/// Faults of a lane's bytes, without a good frame between them, after which its link is given up:
/// memory that changes while it is sent would otherwise be sent forever.
const FAULTS_WITHOUT_PROGRESS_MAX: u32 = 8;

/// A limit that changes by less than one part in this many is left as it is, to save the system
/// call.
const PACE_STEPS: u64 = 128;

/// Why a link fails if its two sides disagree about what was sent.
pub(super) const OUT_OF_STEP: &str = "the lane's sequence numbers do not match";

/// One lane of a link, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// 0 is the signal lane.
    pub(super) index: u16,
    /// Outgoing frames. Locked for one system call at most.
    pub(super) out: Mutex<Outgoing>,
    /// The next expected number: all frames below have been handed up.
    next_expected: AtomicU64,
    /// The newest acknowledgement that went out.
    ack_told: AtomicU64,
    /// The newest that arrived while `out` was locked; 0 if none did. The next one covers it.
    ack_missed: AtomicU64,
    /// The writer is to send an acknowledgement even if there is nothing else to send.
    pub(super) ack_due: AtomicBool,
    /// The writer is to send a sign of life.
    pub(super) ping_due: AtomicBool,
    /// The present connection, with its number.
    present: Mutex<Option<(Arc<Stream>, u64)>>,
    /// Most bytes per second that it may send; 0 for no limit.
    limit: AtomicU64,
    /// The link has lanes enough without it.
    is_spare: AtomicBool,
    /// Bytes of padding to send, if there is nothing else.
    pub(super) padding: AtomicU32,
    /// Wakes the writer.
    pub(super) wake: Notify,
    /// Ends the present connection.
    kill: Notify,
    /// The present connection is to be ended by a reset.
    reset: AtomicBool,
    /// Receives the other side's connections for this lane.
    pub(super) door: Door,
    /// A connection serves it.
    pub(super) is_served: AtomicBool,
    /// Attempts to connect made so far.
    pub(super) attempts: AtomicU64,
    /// Connections that it had so far.
    connections: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

/// The outgoing frames of a lane.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Numbered frames.
    pub(super) window: Window,
    /// The connection as the signal lane's senders use it.
    pub(super) signal: SignalOut,
}

impl Outgoing {
    /// Drops the frames that the other side acknowledged while the lock was taken.
    pub(super) fn take_missed_ack(&mut self, lane: &Lane) {
        let ack = lane.ack_missed.swap(0, Ordering::Relaxed);
        // An impossible acknowledgement, or one that a later one has overtaken, changes nothing.
        let _ = self.window.acknowledge(ack);
    }
}

/// A connection on which both sides have greeted each other. However its task ends, senders of
/// signals release it too, so that it closes.
#[derive(Debug)]
pub(super) struct Connection {
    lane: Arc<Lane>,
    pub(super) stream: Arc<Stream>,
    pub(super) remote: SocketAddr,
    pub(super) checksum: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.lane.out.lock().signal = SignalOut::default();
        *self.lane.present.lock() = None;
    }
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// An error of the system.
    Closed(io::Error),
    /// Damaged bytes. The frame is sent again over the next connection.
    Fault(DataFault),
    /// The other side broke the protocol, which ends the link.
    Violation(&'static str),
    /// The other side has dialled again.
    Replaced,
    /// This side wants a new one.
    Killed,
}

impl From<io::Error> for LaneEnd {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

impl From<DataFault> for LaneEnd {
    fn from(fault: DataFault) -> Self {
        Self::Fault(fault)
    }
}

impl Lane {
    pub(super) fn new(index: u16) -> Arc<Self> {
        Arc::new(Self {
            index,
            ..Self::default()
        })
    }

    /// The next expected number.
    pub(super) fn next_expected(&self) -> u64 {
        self.next_expected.load(Ordering::Acquire)
    }

    /// The acknowledgement for the next header to send.
    pub(super) fn ack(&self) -> u64 {
        let ack = self.next_expected();
        self.ack_told.store(ack, Ordering::Relaxed);
        self.ack_due.store(false, Ordering::Relaxed);
        ack
    }

    /// Whether something arrived that was not acknowledged yet.
    pub(super) fn owes_ack(&self) -> bool {
        self.next_expected() != self.ack_told.load(Ordering::Relaxed)
    }

    /// Triggers an acknowledgement even if there is nothing else to send.
    pub(super) fn demand_ack(&self) {
        if !self.ack_due.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Checks that a numbered frame is the next one.
    pub(super) fn check_number(&self, sequence: u64) -> Result<(), DataFault> {
        if sequence == self.next_expected() {
            Ok(())
        } else {
            Err(DataFault::Field("sequence"))
        }
    }

    /// The next numbered frame was received for good.
    pub(super) fn advance(&self) {
        let next = self.next_expected() + 1;
        self.next_expected.store(next, Ordering::Release);
        if next - self.ack_told.load(Ordering::Relaxed) >= ACK_INTERVAL_FRAMES {
            self.demand_ack();
        }
    }

    /// The other side has everything below `ack`.
    ///
    /// On the signal lane the lock is held during writes to the socket. A reader does not wait for
    /// that, since the next acknowledgement covers this one too.
    pub(super) fn handle_ack(&self, ack: u64) -> Result<(), DataFault> {
        let mut out = match self.out.try_lock() {
            Some(out) => out,
            None if self.index == 0 => {
                self.ack_missed.store(ack, Ordering::Relaxed);
                return Ok(());
            }
            None => self.out.lock(),
        };
        let was_full = out.window.len() >= UNACKED_FRAMES_MAX;
        let count = out.window.acknowledge(ack);
        drop(out);
        let count = count.map_err(|_out_of_step| DataFault::Field("ack"))?;
        if was_full && count > 0 {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether frames were taken that the other side may not have.
    pub(super) fn has_unsettled(&self) -> bool {
        let mut out = self.out.lock();
        out.take_missed_ack(self);
        out.window.len() > 0
    }

    /// The next bulk frame for this lane: first those to be sent again, then those that the link
    /// has queued.
    pub(super) fn next_bulk(&self, queue: &Mutex<VecDeque<Entry>>) -> Option<(u64, Entry)> {
        let mut out = self.out.lock();
        if out.window.is_all_sent() {
            if out.window.len() >= UNACKED_FRAMES_MAX || !self.is_used() {
                return None;
            }
            let entry = queue.lock().pop_front()?;
            out.window.push(entry);
        }
        out.window
            .next()
            .map(|(number, entry)| (number, entry.clone()))
    }

    /// Whether it may take frames off the link's queue.
    pub(super) fn has_room(&self) -> bool {
        self.is_used() && self.out.lock().window.len() < UNACKED_FRAMES_MAX
    }

    pub(super) fn is_used(&self) -> bool {
        !self.is_spare.load(Ordering::Relaxed)
    }

    /// Whether the lane takes no frames off the link's queue.
    pub(super) fn set_spare(&self, is_spare: bool) {
        if self.is_spare.swap(is_spare, Ordering::Relaxed) != is_spare {
            self.wake.notify_one();
        }
    }

    /// The present connection, with its number.
    pub(super) fn stream(&self) -> Option<(Arc<Stream>, u64)> {
        self.present.lock().clone()
    }

    /// Sets the most bytes per second that the lane may send; 0 for no limit.
    pub(super) fn pace(&self, limit: u64) {
        let before = self.limit.load(Ordering::Relaxed);
        if before.abs_diff(limit) <= before / PACE_STEPS {
            return;
        }
        self.limit.store(limit, Ordering::Relaxed);
        if let Some((stream, _)) = self.stream() {
            // Refused, the lane goes on as fast as it may.
            let _ = net::pace(&stream, (limit > 0).then_some(limit));
        }
    }

    /// Ends the present connection, if there is one; it is repaired like any other.
    pub(super) fn kill(&self, by_reset: bool) {
        self.reset.store(by_reset, Ordering::Relaxed);
        self.kill.notify_waiters();
    }
}

impl Connection {
    /// Begins a new connection of a lane, over which the other side expects this number.
    pub(super) fn begin(
        lane: &Arc<Lane>,
        Offered { stream, remote }: Offered,
        expected: u64,
        checksum: bool,
    ) -> Result<Self, OutOfStep> {
        let connection = Self {
            lane: Arc::clone(lane),
            stream: Arc::new(stream),
            remote,
            checksum,
        };
        let mut out = lane.out.lock();
        lane.ack_missed.store(0, Ordering::Relaxed);
        out.window.resume(expected)?;
        drop(out);
        Ok(connection)
    }

    /// Lets senders of signals write to it, now that the greeting is over, at the lane's pace.
    fn open(&self) {
        let limit = self.lane.limit.load(Ordering::Relaxed);
        if limit > 0 {
            let _ = net::pace(&self.stream, Some(limit));
        }
        let number = self.lane.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *self.lane.present.lock() = Some((Arc::clone(&self.stream), number));
        if self.lane.index == 0 {
            let mut out = self.lane.out.lock();
            out.signal.open(&self.stream, self.checksum);
        }
    }
}

/// Keeps one lane of a link connected and served, until it is aborted or its link fails.
pub(super) async fn run(link: Arc<Link>, lane: Arc<Lane>) {
    let mut faults = Faults::default();
    loop {
        let connection = if link.dials {
            dial::connect(&link, &lane).await
        } else {
            accept(&link, &lane).await
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err(reason) => return link.tell(Event::Failed(LinkFault::Protocol, reason)).await,
        };
        connection.open();
        lane.is_served.store(true, Ordering::Relaxed);
        link.tell(Event::LaneUp(lane.index)).await;
        link.traffic.notify_one();
        let end = serve(&link, &lane, &connection).await;
        lane.is_served.store(false, Ordering::Relaxed);
        link.lacks.notify_one();
        if lane.reset.swap(false, Ordering::Relaxed) {
            net::reset_on_close(&connection.stream);
        }
        let remote = connection.remote;
        drop(connection);
        let mut is_ended = false;
        let reason = match end {
            LaneEnd::Replaced => continue,
            LaneEnd::Violation(reason) => Some(reason),
            LaneEnd::Fault(fault) => {
                link.warnings.warn(remote, fault);
                faults
                    .is_hopeless(lane.next_expected())
                    .then_some("the same frame was damaged repeatedly")
            }
            LaneEnd::Closed(error) => {
                tracing::debug!(peer = %link.peer, lane = lane.index, %error, "lane closed");
                is_ended = is_ended_by_other_side(&error);
                None
            }
            LaneEnd::Killed => None,
        };
        if let Some(reason) = reason {
            link.warnings.warn(remote, reason);
            return link.tell(Event::Failed(LinkFault::Protocol, reason)).await;
        }
        link.tell(Event::LaneDown(lane.index, is_ended)).await;
    }
}

/// Waits for the other side's next connection for this lane and answers its hello.
async fn accept(link: &Link, lane: &Arc<Lane>) -> Result<Connection, &'static str> {
    loop {
        let visitor = lane.door.next().await;
        let welcome = link.welcome(&visitor.hello, lane.next_expected());
        let connection = Connection::begin(
            lane,
            Offered {
                stream: visitor.stream,
                remote: visitor.remote,
            },
            visitor.hello.next_expected,
            welcome.checksum,
        )
        .map_err(|_out_of_step| OUT_OF_STEP)?;
        // At 96 bytes it fits the buffer of any new connection.
        if connection.stream.write_all(&welcome.encode()).await.is_ok() {
            return Ok(connection);
        }
    }
}

/// Moves frames in both directions until the connection ends.
async fn serve(link: &Link, lane: &Lane, connection: &Connection) -> LaneEnd {
    let both = async {
        if lane.index == 0 {
            tokio::select! {
                biased;
                end = SignalReader::new(link, lane, connection).run() => end,
                end = signal::write(lane, &connection.stream) => end,
            }
        } else {
            tokio::select! {
                biased;
                end = BulkReader::new(link, lane, connection).run() => end,
                end = BulkWriter::new(link, lane, connection).run() => end,
            }
        }
    };
    tokio::select! {
        biased;
        () = lane.kill.notified() => LaneEnd::Killed,
        () = lane.door.knock() => LaneEnd::Replaced,
        end = both => end,
    }
}

/// Whether an error shows that the other side's system has ended the connection.
fn is_ended_by_other_side(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Counts faults that come without a good frame between them.
#[derive(Debug, Default)]
struct Faults {
    at: u64,
    count: u32,
}

impl Faults {
    fn is_hopeless(&mut self, next_expected: u64) -> bool {
        if self.at != next_expected {
            self.at = next_expected;
            self.count = 0;
        }
        self.count += 1;
        self.count >= FAULTS_WITHOUT_PROGRESS_MAX
    }
}

/// A frame of the signal lane, which owns its payload.
pub(super) fn small(header: super::FrameHeader, payload: Bytes) -> Entry {
    Entry::Frame(header, super::Payload::Small(payload))
}

#[cfg(test)]
mod tests;
