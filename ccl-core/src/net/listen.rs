//! Listening ports.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::stream::Stream;
use crate::descriptors::{Own, Owner};

/// A port that is taken, and that no runtime serves yet.
#[derive(Debug)]
pub struct Bound {
    listener: Own<std::net::TcpListener>,
    owner: Arc<Owner>,
}

/// A port that connections come in at. Forked children do not keep it.
#[derive(Debug)]
pub struct Port {
    listener: Own<TcpListener>,
    owner: Arc<Owner>,
}

impl Bound {
    /// Opens a port: on every address of this host if none is given, or if the address is `[::]`,
    /// IPv6 and IPv4 alike. The owner gets its connections, too.
    ///
    /// # Errors
    /// The system's.
    pub fn open(owner: &Arc<Owner>, address: Option<SocketAddr>) -> io::Result<Self> {
        Ok(Self {
            listener: Own::make(owner, || listen(address))?,
            owner: Arc::clone(owner),
        })
    }

    /// The address, with the port that the system chose.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves it on the runtime of this thread.
    ///
    /// # Errors
    /// The system's.
    pub fn serve(self) -> io::Result<Port> {
        Ok(Port {
            listener: self.listener.try_map(TcpListener::from_std)?,
            owner: self.owner,
        })
    }
}

impl Port {
    /// The next connection, and where it comes from. Cancelling it loses none.
    ///
    /// # Errors
    /// The system's.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|context| {
            let mut remote = None;
            let accepted = Own::make(&self.owner, || match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, address))) => {
                    remote = Some(address);
                    Ok(stream)
                }
                Poll::Ready(Err(error)) => Err(Poll::Ready(error)),
                Poll::Pending => Err(Poll::Pending),
            });
            match (accepted, remote) {
                (Ok(socket), Some(remote)) => Poll::Ready(Ok((Stream::new(socket), remote))),
                (Ok(_), None) => unreachable!("a connection comes with its address"),
                (Err(end), _) => end.map(Err),
            }
        })
        .await
    }
}

fn listen(address: Option<SocketAddr>) -> io::Result<std::net::TcpListener> {
    match address {
        Some(address) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            let without_ipv6 = SocketAddr::from(([0_u8; 4], address.port()));
            listen_at(address).or_else(|error| match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => listen_at(without_ipv6),
                _ => Err(error),
            })
        }
        Some(address) => listen_at(address),
        None => listen_at(SocketAddr::from(([0_u16; 8], 0)))
            .or_else(|_no_ipv6| listen_at(SocketAddr::from(([0_u8; 4], 0)))),
    }
}

fn listen_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    // Whoever starts again takes its port back although connections of the old one linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connections that may wait to be accepted: all peers of a run come back at once after a restart.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn one_port_takes_ipv4_and_ipv6() {
        let listener = listen(None).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let listener = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let error = listen(Some(listener.local_addr().unwrap())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
