//! The outgoing side of a bulk lane: whole segments, straight from lent memory.
//!
//! Memory is read inside its gate, for one checksum or one non-blocking system call at a time. If
//! the memory is taken back before the frame has begun, a skip takes the frame's number; if later,
//! the frame is filled up with zeros and marked void in its trailer.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;

use super::lane::{Connection, Lane, LaneEnd};
use super::link::Link;
use super::window::Entry;
use super::{FrameHeader, Payload};
use crate::net::{Stream, is_pause};
use crate::wire::data::{Content, HEADER_BYTES, Header, PayloadCheck, TRAILER_BYTES};

/// Padding, and what fills a frame whose memory was taken back.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Writes the frames of one lane over one connection.
pub(super) struct BulkWriter<'a> {
    link: &'a Link,
    lane: &'a Lane,
    stream: &'a Stream,
    checksum: bool,
}

impl Payload {
    /// Runs `f` on the bytes, unless they were taken back.
    fn read<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match self {
            Self::Small(bytes) => Some(f(bytes)),
            Self::Lent(region) => region.read(f),
        }
    }
}

impl<'a> BulkWriter<'a> {
    pub(super) fn new(link: &'a Link, lane: &'a Lane, connection: &'a Connection) -> Self {
        Self {
            link,
            lane,
            stream: &connection.stream,
            checksum: connection.checksum,
        }
    }

    /// Writes until the connection is over.
    pub(super) async fn run(self) -> LaneEnd {
        match self.write_frames().await {
            Ok(never) => match never {},
            Err(error) => LaneEnd::Closed(error),
        }
    }

    async fn write_frames(&self) -> io::Result<Infallible> {
        loop {
            if let Some((sequence, entry)) = self.lane.next_bulk(&self.link.queue) {
                match entry {
                    Entry::Frame(frame, payload) => {
                        self.write_frame(sequence, frame, &payload).await?
                    }
                    Entry::Skip => self.write_header(Content::Skip, sequence).await?,
                }
                // One frame per turn, so that all lanes share the frames of one call.
                tokio::task::yield_now().await;
            } else if self.lane.ack_due.swap(false, Ordering::Relaxed) {
                self.write_header(Content::Ack, 0).await?;
            } else if let Some(bytes) = self.lane.take_padding() {
                self.write_padding(bytes).await?;
            } else {
                self.idle().await;
            }
        }
    }

    /// Waits until there may be something to do.
    async fn idle(&self) {
        tokio::select! {
            () = self.lane.wake.notified() => {}
            () = self.link.bulk_ready.notified(), if self.lane.has_room() => {
                if !self.lane.has_room() {
                    // It became spare meanwhile: another lane is to take the frame.
                    self.link.bulk_ready.notify_one();
                }
            }
        }
    }

    async fn write_header(&self, content: Content, sequence: u64) -> io::Result<()> {
        let header = self.header(content, sequence);
        self.count(header.len());
        self.stream.write_all(&header).await
    }

    async fn write_padding(&self, bytes: u32) -> io::Result<()> {
        self.write_header(Content::Padding(bytes), 0).await?;
        self.count(bytes as usize);
        self.write_zeros(bytes as usize).await
    }

    async fn write_zeros(&self, mut bytes: usize) -> io::Result<()> {
        while bytes > 0 {
            let count = bytes.min(ZEROS.len());
            self.stream.write_all(&ZEROS[..count]).await?;
            bytes -= count;
        }
        Ok(())
    }

    fn header(&self, content: Content, sequence: u64) -> [u8; HEADER_BYTES] {
        Header {
            content,
            sequence,
            ack: self.lane.ack(),
        }
        .encode()
    }

    async fn write_frame(
        &self,
        sequence: u64,
        frame: FrameHeader,
        payload: &Payload,
    ) -> io::Result<()> {
        let header = self.header(Content::Frame(frame), sequence);
        if frame.payload_bytes == 0 {
            self.count(header.len());
            return self.stream.write_all(&header).await;
        }
        let mut check = PayloadCheck::after(&header, self.checksum);
        if self.checksum && payload.read(|bytes| check.update(bytes)).is_none() {
            return self.write_header(Content::Skip, sequence).await;
        }
        let trailer = check.valid();
        let payload_end = HEADER_BYTES + frame.payload_bytes as usize;
        let mut at = 0;
        while at < payload_end {
            let outcome = payload.read(|bytes| {
                let pieces = [header.as_slice(), bytes, trailer.as_slice()];
                write_from(self.stream, pieces, at)
            });
            match outcome {
                Some(Ok(count)) => {
                    at += count;
                    self.count(count);
                }
                Some(Err(error)) if is_pause(&error) => self.stream.writable().await?,
                Some(Err(error)) => return Err(error),
                None if at == 0 => return self.write_header(Content::Skip, sequence).await,
                None => return self.write_void(&header, payload_end, at).await,
            }
        }
        // The whole payload has left, so the frame is good even if its memory is taken back.
        self.stream.write_all(&trailer[at - payload_end..]).await
    }

    /// Completes a frame whose memory was taken back after `at` bytes, before the end of its
    /// payload.
    async fn write_void(
        &self,
        header: &[u8; HEADER_BYTES],
        payload_end: usize,
        at: usize,
    ) -> io::Result<()> {
        self.count(payload_end + TRAILER_BYTES - at);
        self.stream
            .write_all(&header[at.min(HEADER_BYTES)..])
            .await?;
        self.write_zeros(payload_end - at.max(HEADER_BYTES)).await?;
        let trailer = PayloadCheck::after(header, self.checksum).void();
        self.stream.write_all(&trailer).await
    }

    fn count(&self, bytes: usize) {
        self.lane
            .sent_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One write of three pieces, without the first `at` bytes.
fn write_from(stream: &Stream, pieces: [&[u8]; 3], at: usize) -> io::Result<usize> {
    let mut skip = at;
    let mut slices = pieces.map(|piece| {
        let left = &piece[skip.min(piece.len())..];
        skip -= piece.len() - left.len();
        IoSlice::new(left)
    });
    let mut slices = &mut slices[..];
    while slices.len() > 1 && slices[0].is_empty() {
        slices = &mut slices[1..];
    }
    stream.write(slices)
}
