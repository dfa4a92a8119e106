//! A peer's connection to the master: dials, reads messages, ends.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::driver::outbox::Outbox;
use crate::driver::peer::Session;
use crate::limits::{CONTROL_FRAME_BYTES_MAX, HELLO_TIMEOUT};
use crate::wire::control::{MasterToPeer, PeerToMaster};
use crate::wire::frame::Deframer;

/// The sending half, as the session keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    stream: Arc<TcpStream>,
    outbox: Arc<Outbox>,
}

impl Control {
    /// Queues a message; `flush` sends it. A full queue ends the connection.
    pub(crate) fn push(&self, message: &PeerToMaster) {
        if self.outbox.push(message).is_err() {
            let _ends_the_reader = SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Both);
        }
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
pub(crate) async fn run(session: Weak<Session>, address: String, generation: u64) {
    let end = match dial(&address).await {
        Ok(stream) => serve(&session, stream, generation).await,
        Err(error) => Err(error),
    };
    if let Some(session) = session.upgrade() {
        session.control_ended(generation, end.err());
    }
}

/// Resolves the name afresh and tries each address.
async fn dial(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        match tokio::time::timeout(HELLO_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn serve(session: &Weak<Session>, stream: TcpStream, generation: u64) -> io::Result<()> {
    let control = Control {
        stream: Arc::new(stream),
        outbox: Arc::default(),
    };
    match session.upgrade() {
        Some(session) => session.control_began(generation, control.clone()),
        None => return Ok(()),
    }
    tokio::select! {
        end = read(session, &control.stream, generation) => end,
        end = control.outbox.run(&control.stream) => end,
    }
}

async fn read(session: &Weak<Session>, stream: &TcpStream, generation: u64) -> io::Result<()> {
    let mut deframer = Deframer::new(CONTROL_FRAME_BYTES_MAX);
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        stream.readable().await?;
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        deframer.push(&buffer[..count]);
        let Some(session) = session.upgrade() else {
            return Ok(());
        };
        while let Some(message) = deframer.pop::<MasterToPeer>().map_err(io::Error::other)? {
            session.control_said(generation, message);
        }
        session.drive();
    }
}

/// Whether the master is on this host, by every address its name has.
pub(crate) fn is_loopback(address: &str) -> bool {
    use std::net::ToSocketAddrs;
    match address.to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
        }
        Err(_unresolved) => false,
    }
}
