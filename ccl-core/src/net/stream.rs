//! A TCP connection with non-blocking reads and writes.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::descriptors::Own;

/// A connection, which ends when it is dropped. Forked children do not keep it.
#[derive(Debug)]
pub struct Stream(Own<TcpStream>);

impl Stream {
    /// Takes a connection over.
    pub(super) fn new(stream: Own<TcpStream>) -> Self {
        Self(stream)
    }

    /// Reads what is there into the buffers, which are not empty.
    ///
    /// # Errors
    /// The system's; at the end of the stream `UnexpectedEof`. See [`is_pause`].
    pub fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut count = 0;
        let outcome = self.0.try_io(Interest::READABLE, || {
            count = (&*SockRef::from(&*self.0)).read_vectored(buffers)?;
            is_exhausted(count, wanted)
        });
        if count > 0 {
            return Ok(count);
        }
        outcome?;
        Err(ErrorKind::UnexpectedEof.into())
    }

    /// Writes what the system takes of the buffers, which are not empty.
    ///
    /// # Errors
    /// The system's. See [`is_pause`].
    pub fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut count = 0;
        let outcome = self.0.try_io(Interest::WRITABLE, || {
            // Without a signal, which would kill a process that does not ignore it.
            let socket = SockRef::from(&*self.0);
            count = socket.send_vectored_with_flags(buffers, libc::MSG_NOSIGNAL)?;
            is_exhausted(count, wanted)
        });
        if count > 0 {
            return Ok(count);
        }
        outcome?;
        Err(ErrorKind::WriteZero.into())
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    /// The runtime's, which is about to end.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Waits until the system may take something.
    ///
    /// # Errors
    /// The runtime's, which is about to end.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// The system's.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(&[IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_pause(&error) => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// The system's; at the end of the stream `UnexpectedEof`.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read(&mut [IoSliceMut::new(buffer)]) {
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if is_pause(&error) => self.readable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends one direction or both, for the other side to see.
    ///
    /// # Errors
    /// The system's: it has ended already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&*self.0).shutdown(how)
    }

    /// Whether both ends are on this host; false if that cannot be told.
    #[must_use]
    pub fn is_on_this_host(&self) -> bool {
        let ends = (self.0.local_addr(), self.0.peer_addr());
        matches!(ends, (Ok(local), Ok(remote)) if super::is_same_host(local, remote))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A short count means that the system has no more to give or to take just now: told as "would
/// block" from inside `try_io`, it clears the readiness that was seen before the call, and no newer
/// one.
fn is_exhausted(count: usize, wanted: usize) -> io::Result<()> {
    if count > 0 && count < wanted {
        return Err(ErrorKind::WouldBlock.into());
    }
    Ok(())
}

/// Whether the call is to be made again, once the connection is ready.
#[must_use]
pub fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
