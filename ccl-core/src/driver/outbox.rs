//! The bounded send queue of a control connection. Frames are written at once if the socket takes
//! them.

use std::io::{Error, ErrorKind, IoSlice, Result};

use crate::lock::Mutex;
use tokio::sync::Notify;

use crate::limits::CONTROL_QUEUE_BYTES_MAX;
use crate::net::{Stream, is_pause};
use crate::wire::frame::{self, Message};

/// The sending half of one control connection, shared by all senders and one writer task.
///
/// `push` and `flush` never block: bytes that the socket does not take are left to the writer task.
/// So a verdict is sent the moment it is decided. `push` does not even wait for a system call in
/// another thread's `flush`, so it may be called under the machine's lock.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Lock order: this one before the queue.
    writing: Mutex<Writing>,
    wake: Notify,
}

/// Bytes that no thread has started to write.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// What `Writing` held when it was looked at last.
    taken_bytes: usize,
    closing: bool,
}

/// What is being written: taken off the queue whole.
#[derive(Debug, Default)]
struct Writing {
    bytes: Vec<u8>,
    sent: usize,
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
        if queue.bytes.len() + queue.taken_bytes > CONTROL_QUEUE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                "the other side does not read its messages",
            ));
        }
        Ok(())
    }

    /// Writes what the socket takes now; the writer task gets the rest. If another thread is
    /// already writing, it also writes what was pushed before this call.
    pub fn flush(&self, stream: &Stream) {
        loop {
            let Some(mut writing) = self.writing.try_lock() else {
                return;
            };
            let is_empty = self.write(&mut writing, stream);
            drop(writing);
            // An error here shows up again in the writer task or in the reader, which end the
            // connection.
            if !matches!(is_empty, Ok(true)) {
                return self.wake.notify_one();
            }
            if self.is_empty() {
                return;
            }
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
    pub async fn run(&self, stream: &Stream) -> Result<()> {
        loop {
            let is_written = self.write(&mut self.writing.lock(), stream)?;
            let (is_empty, is_closing) = {
                let queue = self.queue.lock();
                // Pushed while this task wrote: the thread that pushed left the write to this task.
                (queue.bytes.is_empty(), queue.closing)
            };
            match (is_written, is_empty, is_closing) {
                (true, true, true) => return Ok(()),
                (true, true, false) => self.wake.notified().await,
                (true, false, _) => {}
                (false, ..) => stream.writable().await?,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().bytes.is_empty()
    }

    /// Writes until nothing is left (true) or the socket is full (false).
    fn write(&self, writing: &mut Writing, stream: &Stream) -> Result<bool> {
        loop {
            if writing.sent == writing.bytes.len() && !self.refill(writing) {
                return Ok(true);
            }
            match stream.write(&[IoSlice::new(&writing.bytes[writing.sent..])]) {
                Ok(count) => {
                    writing.sent += count;
                    assert!(
                        writing.sent <= writing.bytes.len(),
                        "no more than was offered"
                    );
                }
                Err(error) if is_pause(&error) => {
                    self.queue.lock().taken_bytes = writing.bytes.len() - writing.sent;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is queued; whether there was something.
    fn refill(&self, writing: &mut Writing) -> bool {
        writing.bytes.clear();
        writing.sent = 0;
        // A burst (an `Install` of a large world) must not stay in memory for the whole run.
        if writing.bytes.capacity() > BUFFER_BYTES_KEPT {
            writing.bytes.shrink_to(0);
        }
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.bytes, &mut writing.bytes);
        assert!(queue.bytes.is_empty(), "all that was queued is taken");
        queue.taken_bytes = writing.bytes.len();
        !writing.bytes.is_empty()
    }
}

/// Longest buffer that is kept when it is empty: many times what a peer sends at once.
const BUFFER_BYTES_KEPT: usize = 64 << 10;
