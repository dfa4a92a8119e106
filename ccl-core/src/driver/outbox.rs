//! What is still to be written to a control connection: bounded, and written at once where it can
//! be.

use std::io::{Error, ErrorKind, Result};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::limits::CONTROL_QUEUE_BYTES_MAX;
use crate::wire::frame::{self, Message};

/// The sending half of one control connection, shared by whoever sends and one writer task.
///
/// `push` and `flush` never block: bytes the socket does not take wait for the writer task, so that
/// a verdict leaves in the same moment in which it was decided.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    closing: bool,
}

impl Outbox {
    /// Appends a message as a frame.
    ///
    /// # Errors
    /// `OutOfMemory` if the other side has not read for so long that the queue is full,
    /// `InvalidData` if the message is beyond a limit: the connection counts as dead.
    pub fn push<M: Message>(&self, message: &M) -> Result<()> {
        let mut queue = self.queue.lock();
        frame::encode(message, &mut queue.bytes)
            .map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        if queue.bytes.len() - queue.sent > CONTROL_QUEUE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                "the other side does not read",
            ));
        }
        Ok(())
    }

    /// Writes what the socket takes now; the writer task gets the rest.
    pub fn flush(&self, stream: &TcpStream) {
        let mut queue = self.queue.lock();
        // An error here shows up again in the writer task or in the reader, which end the
        // connection.
        if !matches!(queue.write(stream), Ok(true)) {
            self.wake.notify_one();
        }
    }

    /// Ends the writer task once everything is written.
    pub fn close(&self) {
        self.queue.lock().closing = true;
        self.wake.notify_one();
    }

    /// The writer task: ends when the connection broke, or when all is written after `close`.
    ///
    /// # Errors
    /// The socket's.
    pub async fn run(&self, stream: &TcpStream) -> Result<()> {
        loop {
            let (is_empty, is_closing) = {
                let mut queue = self.queue.lock();
                (queue.write(stream)?, queue.closing)
            };
            match (is_empty, is_closing) {
                (true, true) => return Ok(()),
                (true, false) => self.wake.notified().await,
                (false, _) => stream.writable().await?,
            }
        }
    }
}

impl Queue {
    /// Writes until the queue is empty (true) or the socket is full (false).
    fn write(&mut self, stream: &TcpStream) -> Result<bool> {
        while self.sent < self.bytes.len() {
            match stream.try_write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // What was sent must not pile up before what a slow reader leaves waiting.
                    if self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        // A burst (an `Install` of a large world) must not stay in memory for the whole run.
        if self.bytes.capacity() > 64 << 10 {
            self.bytes.shrink_to(4 << 10);
        }
        Ok(true)
    }
}
