//! Non-blocking reads and writes of several pieces at once, that tell the runtime when a socket is
//! drained or full without an extra system call.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there into the buffers, which are not empty. The end of the stream is an error.
pub(super) fn read_once(stream: &TcpStream, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut count = 0;
    let outcome = stream.try_io(Interest::READABLE, || {
        count = (&*SockRef::from(stream)).read_vectored(buffers)?;
        is_exhausted(count, wanted)
    });
    if count > 0 {
        return Ok(count);
    }
    outcome?;
    Err(ErrorKind::UnexpectedEof.into())
}

/// Writes what the socket takes of the buffers, which are not empty.
pub(super) fn write_once(stream: &TcpStream, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut count = 0;
    let outcome = stream.try_io(Interest::WRITABLE, || {
        // A broken connection is an error here, not a signal to a process that may not ignore it.
        count = SockRef::from(stream).send_vectored_with_flags(buffers, libc::MSG_NOSIGNAL)?;
        is_exhausted(count, wanted)
    });
    if count > 0 {
        return Ok(count);
    }
    outcome?;
    Err(ErrorKind::WriteZero.into())
}

/// A short count means that the socket has no more to give or to take just now: told as "would
/// block" from inside `try_io`, it clears the readiness that was seen before the call, and no newer
/// one.
fn is_exhausted(count: usize, wanted: usize) -> io::Result<()> {
    if count > 0 && count < wanted {
        return Err(ErrorKind::WouldBlock.into());
    }
    Ok(())
}

/// Writes all bytes.
pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_once(stream, &[IoSlice::new(bytes)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_pause(&error) => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the buffer.
pub(super) async fn read_exact(stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match read_once(stream, &mut [IoSliceMut::new(buffer)]) {
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if is_pause(&error) => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the call is to be made again, once the socket is ready.
pub(super) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
