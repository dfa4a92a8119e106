//! The outgoing side of the signal lane: small frames, written at once by the thread that sends
//! them.
//!
//! All writing happens under the lock of [`Lane::out`], by the sender if the socket takes the
//! frame, otherwise by the lane's task. A frame in progress keeps its encoded header until its last
//! byte is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::lane::{Lane, LaneEnd, Outgoing, small};
use super::window::Entry;
use super::{FrameHeader, Payload};
use crate::limits::SIGNAL_QUEUE_BYTES_MAX;
use crate::net::{Stream, is_pause};
use crate::wire::data::{Content, HEADER_BYTES, Header, PayloadCheck, TRAILER_BYTES};

/// Frames written with one system call.
const BATCH_FRAMES_MAX: usize = 8;
/// System calls made in a row, which bounds the time that the lock is held.
const BATCHES_MAX: usize = 4;

/// The present connection of a signal lane and the frames that are partly written to it.
#[derive(Debug, Default)]
pub(super) struct SignalOut {
    stream: Option<Arc<Stream>>,
    checksum: bool,
    batch: VecDeque<Encoded>,
    /// Bytes of the first frame of the batch that have left.
    written: usize,
}

#[derive(Debug)]
struct Encoded {
    header: [u8; HEADER_BYTES],
    payload: Bytes,
    /// Empty without payload.
    trailer: [u8; TRAILER_BYTES],
}

impl Encoded {
    fn new(header: Header, payload: Bytes, checksum: bool) -> Self {
        let header = header.encode();
        let mut check = PayloadCheck::after(&header, checksum);
        check.update(&payload);
        Self {
            header,
            payload,
            trailer: check.valid(),
        }
    }

    fn trailer(&self) -> &[u8] {
        if self.payload.is_empty() {
            &[]
        } else {
            &self.trailer
        }
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len() + self.trailer().len()
    }
}

/// How far `pump` got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// Nothing is left to send, or there is no connection.
    Drained,
    /// There is more, and the socket may take it.
    Paused,
    /// The socket is full.
    Blocked,
}

/// The result for a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way, or will be once there is a connection.
    Kept,
    /// The other side does not read what is already queued.
    Overflow,
}

impl SignalOut {
    /// Begins with a new connection.
    pub(super) fn open(&mut self, stream: &Arc<Stream>, checksum: bool) {
        self.stream = Some(Arc::clone(stream));
        self.checksum = checksum;
    }
}

impl Lane {
    /// Sends a frame: from this thread if the socket takes it at once.
    pub(super) fn send_signal(&self, header: FrameHeader, payload: Bytes) -> Sent {
        let mut out = self.out.lock();
        if out.window.held_bytes() > SIGNAL_QUEUE_BYTES_MAX {
            out.take_missed_ack(self);
            if out.window.held_bytes() > SIGNAL_QUEUE_BYTES_MAX {
                return Sent::Overflow;
            }
        }
        out.window.push(small(header, payload));
        if !out.signal.batch.is_empty() {
            // The task waits for the socket, and takes this frame after the others.
            return Sent::Kept;
        }
        if out.pump(self).is_ok_and(|pumped| pumped == Pumped::Drained) {
            return Sent::Kept;
        }
        drop(out);
        self.wake.notify_one();
        Sent::Kept
    }
}

impl Outgoing {
    /// Writes as much as the socket takes.
    fn pump(&mut self, lane: &Lane) -> io::Result<Pumped> {
        let Some(stream) = self.signal.stream.clone() else {
            return Ok(Pumped::Drained);
        };
        for _ in 0..BATCHES_MAX {
            self.fill_batch(lane);
            if self.signal.batch.is_empty() {
                return Ok(Pumped::Drained);
            }
            match self.signal.write_batch(&stream) {
                Ok(count) => {
                    lane.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
                    self.signal.consume(count);
                }
                Err(error) if is_pause(&error) => return Ok(Pumped::Blocked),
                Err(error) => return Err(error),
            }
        }
        Ok(Pumped::Paused)
    }

    fn fill_batch(&mut self, lane: &Lane) {
        let signal = &mut self.signal;
        while signal.batch.len() < BATCH_FRAMES_MAX {
            let Some((sequence, entry)) = self.window.next() else {
                break;
            };
            let (content, payload) = match entry {
                Entry::Frame(frame, Payload::Small(bytes)) => {
                    (Content::Frame(*frame), bytes.clone())
                }
                Entry::Frame(_, Payload::Lent(_)) | Entry::Skip => (Content::Skip, Bytes::new()),
            };
            let header = Header {
                content,
                sequence,
                ack: lane.ack(),
            };
            signal
                .batch
                .push_back(Encoded::new(header, payload, signal.checksum));
        }
        let is_ping = lane.ping_due.swap(false, Ordering::Relaxed);
        let is_ack = lane.ack_due.swap(false, Ordering::Relaxed);
        if signal.batch.is_empty() && (is_ping || is_ack) {
            let header = Header {
                content: if is_ping { Content::Ping } else { Content::Ack },
                sequence: 0,
                ack: lane.ack(),
            };
            signal
                .batch
                .push_back(Encoded::new(header, Bytes::new(), false));
        }
    }
}

impl SignalOut {
    fn write_batch(&self, stream: &Stream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); BATCH_FRAMES_MAX * 3];
        let mut count = 0;
        let mut skip = self.written;
        for encoded in &self.batch {
            for piece in [&encoded.header[..], &encoded.payload, encoded.trailer()] {
                let left = &piece[skip.min(piece.len())..];
                skip -= piece.len() - left.len();
                if !left.is_empty() {
                    slices[count] = IoSlice::new(left);
                    count += 1;
                }
            }
        }
        stream.write(&slices[..count])
    }

    fn consume(&mut self, count: usize) {
        self.written += count;
        while let Some(first) = self.batch.front() {
            let bytes = first.bytes();
            if self.written < bytes {
                break;
            }
            self.written -= bytes;
            self.batch.pop_front();
        }
    }
}

/// Writes what senders could not, until the connection ends.
pub(super) async fn write(lane: &Lane, stream: &Stream) -> LaneEnd {
    loop {
        let pumped = lane.out.lock().pump(lane);
        let waited = match pumped {
            Ok(Pumped::Blocked) => stream.writable().await,
            Ok(Pumped::Paused) => {
                tokio::task::yield_now().await;
                Ok(())
            }
            Ok(Pumped::Drained) => {
                lane.wake.notified().await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = waited {
            return LaneEnd::Closed(error);
        }
    }
}
