//! A peer's connection to the master: reads messages until it ends. `dial` makes the connection.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Weak};

use crate::descriptors::Owner;
use crate::driver::outbox::Outbox;
use crate::driver::peer::dial::{dial, no_master};
use crate::driver::peer::session::Session;
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::net::{self, Stream, is_pause, plain};
use crate::wire::control::{MasterToPeer, PeerToMaster};
use crate::wire::frame::Deframer;

/// The sending half, as the session keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
}

impl Control {
    /// Queues a message; `flush` sends it. Waits for no system call.
    ///
    /// # Errors
    /// The queue is full: the connection is to be broken off.
    pub(crate) fn push(&self, message: &PeerToMaster) -> io::Result<()> {
        self.outbox.push(message)
    }

    /// Ends the connection at once; its reader reports that.
    pub(crate) fn break_off(&self) {
        // An error means that it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&self) {
        self.outbox.flush(&self.stream);
    }

    /// Ends the connection once everything is sent.
    pub(crate) fn close(&self) {
        self.outbox.close();
    }
}

/// One connection from dialling to its end; `generation` tells it from its successors.
pub(crate) async fn run(
    session: Weak<Session>,
    sockets: Arc<Owner>,
    address: String,
    generation: u64,
) {
    let fault = match dial(&sockets, &address).await {
        Ok((stream, address)) => serve(&session, stream, address, generation).await.err(),
        Err(fault) => Some(fault),
    };
    if let Some(session) = session.upgrade() {
        session.control_ended(generation, fault);
    }
}

async fn serve(
    session: &Weak<Session>,
    stream: Stream,
    address: SocketAddr,
    generation: u64,
) -> Result<(), String> {
    net::keep_alive(&stream).map_err(|error| plain(&error))?;
    let control = Control {
        stream: Arc::new(stream),
        outbox: Arc::default(),
    };
    match session.upgrade() {
        Some(session) => session.control_began(generation, control.clone(), address),
        None => return Ok(()),
    }
    let mut reader = Reader::new(&control.stream);
    let end = tokio::select! {
        end = reader.run(session, generation) => end,
        end = control.outbox.run(&control.stream) => end,
    };
    end.map_err(|error| match reader.is_answered {
        true => format!("the connection to {address} ended: {}", plain(&error)),
        false => no_master(address, &reader.first, &error),
    })
}

/// The receiving half.
struct Reader<'a> {
    stream: &'a Stream,
    /// A message came, as masters send them.
    is_answered: bool,
    /// The first bytes, until then.
    first: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(stream: &'a Stream) -> Self {
        Self {
            stream,
            is_answered: false,
            first: Vec::new(),
        }
    }

    async fn run(&mut self, session: &Weak<Session>, generation: u64) -> io::Result<()> {
        let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
        let mut buffer = vec![0_u8; 16 << 10];
        loop {
            self.stream.readable().await?;
            let count = match self.stream.read(&mut [IoSliceMut::new(&mut buffer)]) {
                Ok(count) => count,
                Err(error) if is_pause(&error) => continue,
                Err(error) => return Err(error),
            };
            if !self.is_answered {
                let room = FIRST_BYTES_MAX.saturating_sub(self.first.len());
                self.first.extend_from_slice(&buffer[..count.min(room)]);
            }
            deframer.push(&buffer[..count]);
            let Some(session) = session.upgrade() else {
                return Ok(());
            };
            while let Some(message) = deframer.pop::<MasterToPeer>().map_err(io::Error::other)? {
                self.is_answered = true;
                session.control_said(generation, message);
            }
            session.drive();
        }
    }
}

/// Bytes of another service's greeting that are shown.
const FIRST_BYTES_MAX: usize = 60;
