//! Sockets that are this process's alone: how they are made.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::descriptors::{Own, Owner};

/// A connection.
pub type Socket = Own<TcpStream>;
/// A port that connections come in at.
pub type Port = Own<TcpListener>;

/// Connects to an address. Cancelling it closes the socket.
///
/// # Errors
/// The system's.
pub async fn connect(owner: &Arc<Owner>, address: SocketAddr) -> io::Result<Socket> {
    // Noted before it connects: a child that is forked meanwhile must not keep it either.
    let socket = Own::make(owner, || {
        let kind = Type::STREAM.nonblocking();
        socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
    })?;
    let socket = socket.try_map(|socket| match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    })?;
    socket.writable().await?;
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(socket),
    }
}

/// The system's words without its number.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let words = error.to_string();
    match words.find(" (os error ") {
        Some(end) => words[..end].to_owned(),
        None => words,
    }
}

/// The next connection to a port. Cancelling it loses none.
///
/// # Errors
/// The system's.
pub async fn accept(owner: &Arc<Owner>, port: &Port) -> io::Result<(Socket, SocketAddr)> {
    poll_fn(|context| {
        let mut remote = None;
        let accepted = Own::make(owner, || match port.poll_accept(context) {
            Poll::Ready(Ok((stream, address))) => {
                remote = Some(address);
                Ok(stream)
            }
            Poll::Ready(Err(error)) => Err(Poll::Ready(error)),
            Poll::Pending => Err(Poll::Pending),
        });
        match (accepted, remote) {
            (Ok(socket), Some(remote)) => Poll::Ready(Ok((socket, remote))),
            (Ok(_), None) => unreachable!("a connection comes with its address"),
            (Err(end), _) => end.map(Err),
        }
    })
    .await
}
