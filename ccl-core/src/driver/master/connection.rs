//! One control connection of the master, from `accept` to its end.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::serve::Server;
use crate::driver::outbox::Outbox;
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::master::ConnectionId;
use crate::net::{self, Stream, is_pause};
use crate::wire::control::{MasterToPeer, PeerToMaster};
use crate::wire::frame::Deframer;

/// A connection as the server keeps it, to send and to end it.
#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    /// Where it comes from.
    pub address: SocketAddr,
    stream: Stream,
    outbox: Outbox,
    /// False once the master has closed it; later messages are ignored.
    is_open: Cell<bool>,
    /// Set to end it at once, whatever is still to be sent.
    dropped: Cell<Option<&'static str>>,
    wake: Notify,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// By the other side, or by the network.
    Peer(io::Error),
    /// By this side, for this reason.
    Refused(String),
    /// By the master, once everything was sent.
    Closed,
}

impl Connection {
    pub fn new(id: ConnectionId, stream: Stream, address: SocketAddr) -> io::Result<Self> {
        net::keep_alive(&stream)?;
        Ok(Self {
            id,
            address: SocketAddr::new(address.ip().to_canonical(), address.port()),
            stream,
            outbox: Outbox::default(),
            is_open: Cell::new(true),
            dropped: Cell::new(None),
            wake: Notify::new(),
        })
    }

    /// Queues a message; `flush` sends it.
    pub fn push(&self, message: &MasterToPeer) -> io::Result<()> {
        self.outbox.push(message)
    }

    /// Sends what the socket takes now, so that a verdict waits for no other task.
    pub fn flush(&self) {
        self.outbox.flush(&self.stream);
    }

    /// Stops reading from the connection.
    pub fn mute(&self) {
        self.is_open.set(false);
    }

    pub fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Ends it once everything is sent.
    pub fn close(&self) {
        self.mute();
        self.outbox.close();
    }

    /// Ends it at once.
    pub fn drop_for(&self, reason: &'static str) {
        self.mute();
        self.dropped.set(Some(reason));
        self.wake.notify_one();
    }
}

/// Serves a connection until it ends.
pub(super) async fn run(server: Rc<Server>, connection: Rc<Connection>) {
    let end = tokio::select! {
        end = hear(&server, &connection) => end,
        written = connection.outbox.run(&connection.stream) => match written {
            Ok(()) => End::Closed,
            Err(error) => End::Peer(error),
        },
        () = connection.wake.notified() => {
            End::Refused(connection.dropped.get().unwrap_or_default().into())
        }
    };
    let is_closed = matches!(end, End::Closed);
    server.ended(&connection, end);
    if is_closed {
        // The other side may be gone or silent.
        let _ = timeout(LINGER, linger(&connection.stream)).await;
    }
}

/// Receives messages until the connection ends or breaks the protocol.
async fn hear(server: &Server, connection: &Connection) -> End {
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    let first = async {
        loop {
            match hear_some(server, connection, &mut deframer).await {
                Ok(0) => {}
                result => return result,
            }
        }
    };
    let heard = tokio::select! {
        // What has arrived counts, even if this process did not run until its time was over.
        biased;
        heard = first => heard,
        () = sleep(server.hello_timeout()) => {
            Err(End::Refused("it did not identify itself in time".into()))
        }
    };
    if let Err(end) = heard {
        return end;
    }
    loop {
        if let Err(end) = hear_some(server, connection, &mut deframer).await {
            return end;
        }
    }
}

/// Takes in what has arrived; how many messages that completed.
async fn hear_some(
    server: &Server,
    connection: &Connection,
    deframer: &mut Deframer,
) -> Result<usize, End> {
    connection.stream.readable().await.map_err(End::Peer)?;
    let read = server.with_read_buffer(|buffer| {
        let count = connection.stream.read(&mut [IoSliceMut::new(buffer)])?;
        deframer.push(&buffer[..count]);
        Ok(count)
    });
    match read {
        Ok(_) => {}
        Err(error) if is_pause(&error) => return Ok(0),
        Err(error) => return Err(End::Peer(error)),
    }
    let mut count = 0;
    let end = loop {
        match deframer.pop::<PeerToMaster>() {
            Ok(Some(message)) if connection.is_open() => {
                count += 1;
                server.take(connection, message);
            }
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(End::Refused(error.to_string())),
        }
    };
    server.settle();
    server.buffered(connection, deframer.buffered_bytes());
    // A socket with more to read does not make a task wait by itself: others come first.
    tokio::task::yield_now().await;
    end.map_or(Ok(count), Err)
}

/// Lets the other side read the last messages: closing a socket with unread input would reset the
/// connection and lose them.
async fn linger(stream: &Stream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let mut sink = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.read(&mut [IoSliceMut::new(&mut sink)]) {
            Ok(_) => {}
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// How long the other side may take to read the last messages.
const LINGER: Duration = Duration::from_secs(1);
