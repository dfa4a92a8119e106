//! Connects to an address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::stream::Stream;
use crate::descriptors::{Own, Owner};

/// Connects to an address. Cancelling it closes the socket.
///
/// # Errors
/// The system's.
pub async fn connect(owner: &Arc<Owner>, address: SocketAddr) -> io::Result<Stream> {
    // Noted before it connects: a child that is forked meanwhile must not keep it either.
    let made = Own::make(owner, || {
        let kind = Type::STREAM.nonblocking();
        Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
    })?;
    let socket = made.try_map(|socket| match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    })?;
    socket.writable().await?;
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(Stream::new(socket)),
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
