//! The incoming side of a lane: turns bytes into frames, straight into their destination memory.
//!
//! A bulk lane reads the rest of a payload, its trailer and the next header with one system call,
//! and checksums what each call brought while it is in the cache. The signal lane reads into a
//! small buffer, because most of its frames are smaller than that.

use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::lane::{Connection, Lane, LaneEnd};
use super::link::Link;
use super::patience::Patience;
use super::{FrameHeader, Placement};
use crate::buffer::Region;
use crate::limits::SIGNAL_PAYLOAD_BYTES_MAX;
use crate::net::{Stream, is_pause};
use crate::wire::data::{Content, DataFault, HEADER_BYTES, Header, PayloadCheck, TRAILER_BYTES};

/// A trailer and the header that follows it.
const TAIL_BYTES: usize = TRAILER_BYTES + HEADER_BYTES;
/// Length of the pieces in which discarded bytes are read.
const SINK_BYTES: usize = 32 << 10;
/// Read buffer of a signal lane: some hundred frames without payload.
const SIGNAL_BUFFER_BYTES: usize = 16 << 10;
/// Signal payload received before it is acknowledged; the sender keeps it until then.
const SIGNAL_ACK_INTERVAL_BYTES: usize = 256 << 10;

/// What both kinds of readers need.
struct Incoming<'a> {
    link: &'a Link,
    lane: &'a Lane,
    stream: &'a Stream,
    checksum: bool,
    last_ack: u64,
    /// None where data takes longer than a thread to wake up.
    patience: Option<Patience>,
}

impl<'a> Incoming<'a> {
    fn new(link: &'a Link, lane: &'a Lane, connection: &'a Connection) -> Self {
        Self {
            link,
            lane,
            stream: &connection.stream,
            checksum: connection.checksum,
            last_ack: 0,
            patience: connection.stream.is_on_this_host().then(Patience::default),
        }
    }

    /// Decodes a header and handles everything but what follows it.
    fn header(&mut self, bytes: &[u8; HEADER_BYTES]) -> Result<Following, LaneEnd> {
        let (header, crc) = Header::decode(bytes)?;
        if header.ack != self.last_ack {
            self.last_ack = header.ack;
            self.lane.handle_ack(header.ack)?;
        }
        if header.content.is_numbered() {
            self.lane.check_number(header.sequence)?;
        }
        match header.content {
            Content::Frame(frame) if !self.may_carry(&frame) => {
                Err(LaneEnd::Violation("a frame on the wrong kind of lane"))
            }
            Content::Frame(frame) => {
                let check = PayloadCheck::new(crc, self.checksum);
                Ok(Following::Frame(frame, check))
            }
            Content::Skip => {
                self.lane.advance();
                Ok(Following::Nothing)
            }
            Content::Ack | Content::Ping => Ok(Following::Nothing),
            Content::Padding(_) if self.lane.index == 0 => {
                Err(LaneEnd::Violation("padding on the signal lane"))
            }
            Content::Padding(bytes) => Ok(Following::Padding(bytes as usize)),
        }
    }

    /// Small segments may take the signal lane; signals never wait behind bulk.
    fn may_carry(&self, header: &FrameHeader) -> bool {
        match self.lane.index {
            0 => header.payload_bytes as usize <= SIGNAL_PAYLOAD_BYTES_MAX,
            _ => !header.frame.is_signal(),
        }
    }

    /// One read, counted; `None` if there was nothing to read.
    fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        match self.stream.read(buffers) {
            Ok(count) => {
                self.lane
                    .received_bytes
                    .fetch_add(count as u64, Ordering::Relaxed);
                Ok(Some(count))
            }
            Err(error) if is_pause(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn readable(&mut self) -> io::Result<()> {
        match &mut self.patience {
            Some(patience) => patience.readable(self.stream).await,
            None => self.stream.readable().await,
        }
    }
}

/// What comes after a header.
enum Following {
    /// The payload of a frame of the layer above, unless it is empty.
    Frame(FrameHeader, PayloadCheck),
    /// That many bytes that mean nothing.
    Padding(usize),
    /// The next header.
    Nothing,
}

/// Reads a bulk lane.
pub(super) struct BulkReader<'a> {
    incoming: Incoming<'a>,
    /// Bytes read behind a payload: its trailer, then part of the next header.
    tail: [u8; TAIL_BYTES],
    tail_filled: usize,
    /// Made when it is first needed.
    sink: Vec<u8>,
}

/// The progress of a payload.
struct Progress {
    payload_bytes: usize,
    filled: usize,
    check: PayloadCheck,
    /// Its destination; none if it is discarded.
    region: Option<Region>,
}

impl<'a> BulkReader<'a> {
    pub(super) fn new(link: &'a Link, lane: &'a Lane, connection: &'a Connection) -> Self {
        Self {
            incoming: Incoming::new(link, lane, connection),
            tail: [0; TAIL_BYTES],
            tail_filled: TRAILER_BYTES,
            sink: Vec::new(),
        }
    }

    /// Reads until the connection is over.
    pub(super) async fn run(mut self) -> LaneEnd {
        match self.read_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn read_frames(&mut self) -> Result<Infallible, LaneEnd> {
        loop {
            let header = self.read_header().await?;
            match self.incoming.header(&header)? {
                Following::Frame(frame, check) => self.read_frame(frame, check).await?,
                Following::Padding(bytes) => self.skip(bytes).await?,
                Following::Nothing => continue,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Completes the header in the tail's second part.
    async fn read_header(&mut self) -> Result<[u8; HEADER_BYTES], LaneEnd> {
        while self.tail_filled < TAIL_BYTES {
            let rest = &mut self.tail[self.tail_filled..];
            match self.incoming.read(&mut [IoSliceMut::new(rest)])? {
                Some(count) => self.tail_filled += count,
                None => self.incoming.readable().await?,
            }
        }
        self.tail_filled = TRAILER_BYTES;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.tail[TRAILER_BYTES..]);
        Ok(header)
    }

    async fn skip(&mut self, mut bytes: usize) -> io::Result<()> {
        self.sink.resize(SINK_BYTES, 0);
        while bytes > 0 {
            let rest = &mut self.sink[..bytes.min(SINK_BYTES)];
            match self.incoming.read(&mut [IoSliceMut::new(rest)])? {
                Some(count) => bytes -= count,
                None => self.incoming.readable().await?,
            }
        }
        Ok(())
    }

    async fn read_frame(&mut self, frame: FrameHeader, check: PayloadCheck) -> Result<(), LaneEnd> {
        let (link, lane) = (self.incoming.link, self.incoming.lane);
        let region = match link.handler.place(link.peer, &frame) {
            Placement::Memory(region) => Some(region),
            Placement::Discard => None,
            Placement::Refuse(reason) => return Err(LaneEnd::Violation(reason)),
        };
        let payload_bytes = frame.payload_bytes as usize;
        assert!(
            region
                .as_ref()
                .is_none_or(|region| region.bytes() == payload_bytes),
            "the handler places a frame into memory of its length"
        );
        let is_complete = if payload_bytes == 0 {
            region.is_some()
        } else {
            let mut progress = Progress {
                payload_bytes,
                filled: 0,
                check,
                region,
            };
            self.read_payload(&mut progress).await?;
            self.check_trailer(progress)?
        };
        lane.advance();
        if is_complete {
            link.handler.arrived(link.peer, &frame);
        }
        Ok(())
    }

    /// Reads until payload and trailer are complete; any further bytes belong to the next header.
    async fn read_payload(&mut self, progress: &mut Progress) -> Result<(), LaneEnd> {
        self.tail_filled = 0;
        while progress.filled < progress.payload_bytes || self.tail_filled < TRAILER_BYTES {
            if !self.read_some(progress)? {
                self.incoming.readable().await?;
            }
        }
        Ok(())
    }

    /// One read. False: there was nothing to read.
    fn read_some(&mut self, progress: &mut Progress) -> io::Result<bool> {
        let Self {
            incoming,
            tail,
            tail_filled,
            sink,
        } = self;
        let tail = &mut tail[*tail_filled..];
        let left = progress.payload_bytes - progress.filled;
        let outcome = if left == 0 {
            incoming.read(&mut [IoSliceMut::new(tail)])
        } else if let Some(region) = &progress.region {
            let check = &mut progress.check;
            let outcome = region.write(|memory| {
                let rest = &mut memory[progress.filled..];
                let outcome = incoming.read(&mut [IoSliceMut::new(rest), IoSliceMut::new(tail)]);
                if let Ok(Some(count)) = outcome {
                    check.update(&rest[..count.min(left)]);
                }
                outcome
            });
            let Some(outcome) = outcome else {
                progress.region = None;
                return Ok(true);
            };
            outcome
        } else {
            sink.resize(SINK_BYTES, 0);
            let rest = &mut sink[..left.min(SINK_BYTES)];
            // The tail may be read too only if the rest of the payload fits.
            let tail = if rest.len() == left { tail } else { &mut [] };
            incoming.read(&mut [IoSliceMut::new(rest), IoSliceMut::new(tail)])
        };
        let Some(count) = outcome? else {
            return Ok(false);
        };
        let of_payload = count.min(left);
        progress.filled += of_payload;
        *tail_filled += count - of_payload;
        Ok(true)
    }

    /// Whether the payload is complete and undamaged.
    fn check_trailer(&self, progress: Progress) -> Result<bool, DataFault> {
        let mut trailer = [0; TRAILER_BYTES];
        trailer.copy_from_slice(&self.tail[..TRAILER_BYTES]);
        if progress.region.is_some() {
            return progress.check.verify(&trailer);
        }
        PayloadCheck::verify_unread(&trailer)?;
        Ok(false)
    }
}

/// Reads the signal lane.
pub(super) struct SignalReader<'a> {
    incoming: Incoming<'a>,
    buffer: Box<[u8]>,
    /// Bytes of the buffer that were used.
    start: usize,
    /// Bytes of the buffer that were read.
    end: usize,
    payload_bytes_since_ack: usize,
}

impl<'a> SignalReader<'a> {
    pub(super) fn new(link: &'a Link, lane: &'a Lane, connection: &'a Connection) -> Self {
        Self {
            incoming: Incoming::new(link, lane, connection),
            buffer: vec![0; SIGNAL_BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            payload_bytes_since_ack: 0,
        }
    }

    /// Reads until the connection is over.
    pub(super) async fn run(mut self) -> LaneEnd {
        match self.read_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn read_frames(&mut self) -> Result<Infallible, LaneEnd> {
        loop {
            let header = self.read_header().await?;
            if let Following::Frame(frame, check) = self.incoming.header(&header)? {
                self.read_frame(&frame, check).await?;
            }
            // A flood of signals does not keep other tasks waiting.
            tokio::task::coop::consume_budget().await;
        }
    }

    async fn read_header(&mut self) -> Result<[u8; HEADER_BYTES], LaneEnd> {
        while self.end - self.start < HEADER_BYTES {
            // Less than a header is left of the bytes read before.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let rest = &mut self.buffer[self.end..];
            match self.incoming.read(&mut [IoSliceMut::new(rest)])? {
                Some(count) => self.end += count,
                None => self.incoming.readable().await?,
            }
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.buffer[self.start..self.start + HEADER_BYTES]);
        self.start += HEADER_BYTES;
        Ok(header)
    }

    async fn read_frame(
        &mut self,
        frame: &FrameHeader,
        mut check: PayloadCheck,
    ) -> Result<(), LaneEnd> {
        let payload_bytes = frame.payload_bytes as usize;
        let payload = if payload_bytes == 0 {
            Bytes::new()
        } else {
            let (payload, trailer) = self.read_payload(payload_bytes).await?;
            check.update(&payload);
            if !check.verify(&trailer)? {
                return Err(LaneEnd::Violation("a void frame on the signal lane"));
            }
            payload
        };
        let (link, lane) = (self.incoming.link, self.incoming.lane);
        lane.advance();
        self.payload_bytes_since_ack += payload_bytes;
        if self.payload_bytes_since_ack >= SIGNAL_ACK_INTERVAL_BYTES {
            self.payload_bytes_since_ack = 0;
            lane.demand_ack();
        }
        link.handler
            .signal(link.peer, frame, payload)
            .map_err(LaneEnd::Violation)
    }

    /// Reads a payload and its trailer, partly from the buffer, which then holds the bytes after
    /// them.
    async fn read_payload(
        &mut self,
        payload_bytes: usize,
    ) -> Result<(Bytes, [u8; TRAILER_BYTES]), LaneEnd> {
        let total = payload_bytes + TRAILER_BYTES;
        let mut bytes = BytesMut::zeroed(total);
        let mut filled = total.min(self.end - self.start);
        bytes[..filled].copy_from_slice(&self.buffer[self.start..self.start + filled]);
        self.start += filled;
        while filled < total {
            let rest = &mut bytes[filled..];
            let left = rest.len();
            let mut buffers = [IoSliceMut::new(rest), IoSliceMut::new(&mut self.buffer)];
            match self.incoming.read(&mut buffers)? {
                Some(count) => {
                    filled += count.min(left);
                    self.start = 0;
                    self.end = count.saturating_sub(left);
                }
                None => self.incoming.readable().await?,
            }
        }
        let mut trailer = [0; TRAILER_BYTES];
        trailer.copy_from_slice(&bytes[payload_bytes..]);
        bytes.truncate(payload_bytes);
        Ok((bytes.freeze(), trailer))
    }
}
