//! Control connections as streams: the delay varies, the order does not, and a break loses the
//! tail.
//!
//! The two directions break at once, but each side notices at its own time, or never: then it only
//! sees silence.

use std::collections::VecDeque;
use std::time::Duration;

use ccl_core::limits::CONTROL_FRAME_BYTES_MAX;
use ccl_core::time::Instant;
use ccl_core::wire::control::{MasterToPeer, PeerToMaster};
use ccl_core::wire::frame;

use super::cluster::{Event, HostId, World};

/// One direction of a control connection.
#[derive(Debug)]
pub struct Stream<M> {
    /// Messages given to it.
    sent: u64,
    /// Messages that arrived.
    delivered: u64,
    /// Messages from this index on are lost.
    limit: Option<u64>,
    /// When the newest message arrives; none overtakes another.
    last: Instant,
    /// Messages that wait behind a partition.
    held: VecDeque<(u64, M)>,
    /// Whether a partition holds it.
    blocked: bool,
}

impl<M> Default for Stream<M> {
    fn default() -> Self {
        Self {
            sent: 0,
            delivered: 0,
            limit: None,
            last: Instant::default(),
            held: VecDeque::new(),
            blocked: false,
        }
    }
}

impl<M> Stream<M> {
    /// Takes a message in; returns it with its index and time of arrival unless it is lost or held.
    fn push(&mut self, message: M, arrival: Instant) -> Option<(u64, M, Instant)> {
        let index = self.sent;
        self.sent += 1;
        if self.limit.is_some_and(|limit| index >= limit) {
            return None;
        }
        if self.blocked {
            self.held.push_back((index, message));
            return None;
        }
        self.last = self.last.max(arrival);
        Some((index, message, self.last))
    }

    /// Whether the message of this index arrives; counts it.
    fn arrives(&mut self, index: u64) -> bool {
        if self.limit.is_some_and(|limit| index >= limit) {
            return false;
        }
        self.delivered = index + 1;
        true
    }

    /// Loses what waits behind a partition: its sender is gone.
    fn lose_held(&mut self) {
        if let Some((first, _)) = self.held.front() {
            self.limit = Some(self.limit.map_or(*first, |limit| limit.min(*first)));
            self.held.clear();
        }
    }

    /// Cuts it, so that `kept` of 1,000 parts of what is under way still arrive.
    fn cut(&mut self, kept: u64) {
        if self.limit.is_some() {
            return;
        }
        let under_way = self.sent - self.delivered;
        let limit = self.delivered + under_way * kept / 1000;
        self.limit = Some(limit);
        self.held.retain(|(index, _)| *index < limit);
    }
}

/// A control connection.
#[derive(Debug)]
pub struct Connection {
    /// The peer's host; `None` for one that replays old messages.
    pub host: Option<HostId>,
    /// The master it leads to, by its number of starts.
    pub incarnation: u32,
    up: Stream<PeerToMaster>,
    down: Stream<MasterToPeer>,
    /// Whether the master's side has dropped it.
    master_closed: bool,
    /// Whether the host's side has dropped it.
    host_closed: bool,
}

impl Connection {
    /// A fresh connection.
    #[must_use]
    pub fn new(host: Option<HostId>, incarnation: u32) -> Self {
        Self {
            host,
            incarnation,
            up: Stream::default(),
            down: Stream::default(),
            master_closed: false,
            host_closed: false,
        }
    }
}

impl Connection {
    /// Whether the master has sent anything over it.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.down.sent > 0
    }
}

/// How each side of a broken connection learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// Of 1,000 parts under way to the master, how many still arrive.
    pub up_kept: u64,
    /// The same towards the peer.
    pub down_kept: u64,
    /// When the host notices; `None`: never.
    pub host_notices: Option<Duration>,
    /// When the master notices; `None`: never.
    pub master_notices: Option<Duration>,
}

impl World {
    /// A message from a host to the master.
    pub fn send_up(&mut self, connection: u64, message: PeerToMaster) {
        self.check_codec(&message);
        let host = self.connections[connection as usize].host;
        let arrival = self.now + self.control_delay(host);
        let stream = &mut self.connections[connection as usize].up;
        if let Some((index, message, at)) = stream.push(message, arrival) {
            let event = Event::ToMaster {
                connection,
                index,
                message: Box::new(message),
            };
            self.schedule_at(at, event);
        }
    }

    /// A message from the master to a host.
    pub fn send_down(&mut self, connection: u64, message: MasterToPeer) {
        self.check_codec(&message);
        let host = self.connections[connection as usize].host;
        let arrival = self.now + self.control_delay(host);
        let stream = &mut self.connections[connection as usize].down;
        if let Some((index, message, at)) = stream.push(message, arrival) {
            let event = Event::ToHost {
                connection,
                index,
                message: Box::new(message),
            };
            self.schedule_at(at, event);
        }
    }

    /// In some seeds each message is encoded and decoded, and must stay the same.
    fn check_codec<M: frame::Message + PartialEq + std::fmt::Debug>(&mut self, message: &M) {
        if !self.swarm.seed.is_multiple_of(10) {
            return;
        }
        let mut bytes = Vec::new();
        let mut deframer = frame::Deframer::new(CONTROL_FRAME_BYTES_MAX);
        let back = frame::encode(message, &mut bytes).and_then(|()| {
            deframer.push(&bytes);
            deframer.pop::<M>()
        });
        if !matches!(&back, Ok(Some(back)) if back == message) {
            self.fail(format!("{message:?} comes back as {back:?}"));
        }
    }

    /// Whether a message to the master that is due arrives.
    pub fn arrives_up(&mut self, connection: u64, index: u64) -> bool {
        let incarnation = self.master.incarnation;
        let connection = &mut self.connections[connection as usize];
        connection.up.arrives(index)
            && connection.incarnation == incarnation
            && !connection.master_closed
    }

    /// The host that a due message reaches, unless it is lost or its host is gone.
    pub fn arrives_down(&mut self, connection: u64, index: u64) -> Option<HostId> {
        let id = connection;
        let connection = &mut self.connections[connection as usize];
        if !connection.down.arrives(index) || connection.host_closed {
            return None;
        }
        let host = connection.host?;
        (self.hosts[host.0].connection == Some(id)).then_some(host)
    }

    /// Breaks a connection: part of what is under way is lost, and each side may notice.
    pub fn break_connection(&mut self, connection: u64, how: Break) {
        let broken = &mut self.connections[connection as usize];
        broken.up.cut(how.up_kept);
        broken.down.cut(how.down_kept);
        let up_last = broken.up.last.max(self.now);
        let down_last = broken.down.last.max(self.now);
        if let Some(after) = how.master_notices {
            self.schedule_at(up_last + after, Event::MasterClosed { connection });
        }
        if let Some(after) = how.host_notices {
            self.schedule_at(down_last + after, Event::HostClosed { connection });
        }
    }

    /// The host lost its power: what it could not yet send will never be sent.
    pub fn lose_unsent(&mut self, connection: u64) {
        self.connections[connection as usize].up.lose_held();
    }

    /// The host closes a connection: what it sent arrives, then the end.
    pub fn close_from_host(&mut self, connection: u64) {
        let delay = self.control_delay(self.connections[connection as usize].host);
        let closed = &mut self.connections[connection as usize];
        if std::mem::replace(&mut closed.host_closed, true) {
            return;
        }
        if closed.up.limit.is_none() {
            closed.up.limit = Some(closed.up.sent);
            if !closed.up.blocked {
                let at = closed.up.last.max(self.now) + delay;
                self.schedule_at(at, Event::MasterClosed { connection });
            }
        }
    }

    /// The master closes a connection.
    pub fn close_from_master(&mut self, connection: u64) {
        let delay = self.control_delay(self.connections[connection as usize].host);
        let closed = &mut self.connections[connection as usize];
        if std::mem::replace(&mut closed.master_closed, true) {
            return;
        }
        if closed.down.limit.is_none() {
            closed.down.limit = Some(closed.down.sent);
            if !closed.down.blocked {
                let at = closed.down.last.max(self.now) + delay;
                self.schedule_at(at, Event::HostClosed { connection });
            }
        }
    }

    /// Whether the master still reads a connection; it then drops it.
    pub fn take_master_close(&mut self, connection: u64) -> bool {
        let incarnation = self.master.incarnation;
        let closed = &mut self.connections[connection as usize];
        closed.incarnation == incarnation && !std::mem::replace(&mut closed.master_closed, true)
    }

    /// The host that notices the end of a connection, if it still uses it.
    pub fn take_host_close(&mut self, connection: u64) -> Option<HostId> {
        let closed = &mut self.connections[connection as usize];
        if std::mem::replace(&mut closed.host_closed, true) {
            return None;
        }
        let host = closed.host?;
        (self.hosts[host.0].connection == Some(connection)).then_some(host)
    }

    /// Holds back or releases messages between a host and the master, for each direction.
    pub fn block_control(&mut self, host: HostId, up: Option<bool>, down: Option<bool>) {
        let state = &mut self.hosts[host.0];
        state.up_blocked = up.unwrap_or(state.up_blocked);
        state.down_blocked = down.unwrap_or(state.down_blocked);
        for connection in 0..self.connections.len() {
            if self.connections[connection].host == Some(host) {
                self.apply_block(connection as u64);
            }
        }
    }

    /// Brings a connection's streams in line with the partitions of its host.
    pub fn apply_block(&mut self, connection: u64) {
        let Some(host) = self.connections[connection as usize].host else {
            return;
        };
        let (up, down) = (
            self.hosts[host.0].up_blocked,
            self.hosts[host.0].down_blocked,
        );
        let state = &mut self.connections[connection as usize];
        state.up.blocked = up;
        state.down.blocked = down;
        let ups = if up {
            VecDeque::new()
        } else {
            std::mem::take(&mut state.up.held)
        };
        let downs = if down {
            VecDeque::new()
        } else {
            std::mem::take(&mut state.down.held)
        };
        for (index, message) in ups {
            let at = self.now + self.control_delay(Some(host));
            let last = &mut self.connections[connection as usize].up.last;
            *last = (*last).max(at);
            let at = *last;
            let message = Box::new(message);
            self.schedule_at(
                at,
                Event::ToMaster {
                    connection,
                    index,
                    message,
                },
            );
        }
        for (index, message) in downs {
            let at = self.now + self.control_delay(Some(host));
            let last = &mut self.connections[connection as usize].down.last;
            *last = (*last).max(at);
            let at = *last;
            let message = Box::new(message);
            self.schedule_at(
                at,
                Event::ToHost {
                    connection,
                    index,
                    message,
                },
            );
        }
    }

    /// When the newest message of a host reaches the master.
    #[must_use]
    pub fn last_word(&self, host: HostId) -> Instant {
        self.hosts[host.0]
            .connection
            .map_or(self.now, |connection| {
                self.connections[connection as usize].up.last
            })
    }

    /// How long the next control message of a host takes.
    pub fn control_delay(&mut self, host: Option<HostId>) -> Duration {
        let (low, high) = self.swarm.delay;
        let mut delay = self.network_rng.duration(low, high);
        if self.network_rng.chance(self.swarm.tail_permille) {
            delay *= 10;
        }
        host.map_or(delay, |host| delay * self.hosts[host.0].slowness)
    }
}
