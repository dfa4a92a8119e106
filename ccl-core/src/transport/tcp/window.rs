//! The frames that a lane has sent and that are not yet acknowledged.
//!
//! Pure. Frames are numbered when they enter and keep their numbers: after a repair the same frames
//! are sent again under the same numbers, or as a skip if their operation is over.

use std::collections::VecDeque;

use super::{FrameHeader, Payload};
use crate::ids::OpName;

/// A frame in the window.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// To be sent, or sent and not acknowledged.
    Frame(FrameHeader, Payload),
    /// Its operation is over; only the number is left.
    Skip,
}

impl Entry {
    /// Bytes of memory that its payload holds.
    fn held_bytes(&self) -> usize {
        match self {
            Self::Frame(_, Payload::Small(bytes)) => bytes.len() + ENTRY_BYTES,
            Self::Frame(_, Payload::Lent(_)) | Self::Skip => 0,
        }
    }
}

/// Memory of an entry itself, rounded up, so that frames without payload are not free.
const ENTRY_BYTES: usize = 128;

/// The numbered frames of one lane, from the first that is not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Number of the first entry.
    base: u64,
    entries: VecDeque<Entry>,
    /// How many of the entries were sent over the present connection.
    sent: usize,
    /// One more than the highest number that was ever sent.
    ever_sent: u64,
    held_bytes: usize,
}

/// The other side named numbers that it cannot have seen, or has acknowledged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

impl Window {
    /// Adds a frame under the next number.
    pub(super) fn push(&mut self, entry: Entry) {
        self.held_bytes += entry.held_bytes();
        self.entries.push_back(entry);
    }

    /// The next frame to send over the present connection, which then counts as sent.
    pub(super) fn next(&mut self) -> Option<(u64, &Entry)> {
        let index = self.sent;
        let entry = self.entries.get(index)?;
        let number = self.base + index as u64;
        self.sent += 1;
        self.ever_sent = self.ever_sent.max(number + 1);
        debug_assert!(
            self.sent <= self.entries.len(),
            "only what is there is sent"
        );
        Some((number, entry))
    }

    /// Everything below `ack` has arrived. Returns how many frames left the window.
    pub(super) fn acknowledge(&mut self, ack: u64) -> Result<usize, OutOfStep> {
        let count = ack.checked_sub(self.base).ok_or(OutOfStep)?;
        if count > self.sent as u64 {
            return Err(OutOfStep);
        }
        let count = usize::try_from(count).map_err(|_| OutOfStep)?;
        self.drop_front(count);
        self.sent -= count;
        Ok(count)
    }

    /// A new connection begins: everything below `expected` has arrived, the rest is to be sent
    /// again.
    pub(super) fn resume(&mut self, expected: u64) -> Result<(), OutOfStep> {
        if expected > self.ever_sent {
            return Err(OutOfStep);
        }
        self.sent = self.entries.len();
        let result = self.acknowledge(expected);
        self.sent = 0;
        result.map(|_| ())
    }

    /// The frames of an operation that is over are not sent again, and hold no memory.
    pub(super) fn forget(&mut self, op: OpName) {
        for entry in &mut self.entries {
            if matches!(entry, Entry::Frame(header, _) if header.op == op) {
                self.held_bytes -= entry.held_bytes();
                *entry = Entry::Skip;
            }
        }
    }

    /// Frames sent and not acknowledged, or still to be sent.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything has been sent over the present connection.
    pub(super) fn is_all_sent(&self) -> bool {
        self.sent == self.entries.len()
    }

    /// Bytes of memory that the payloads hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn drop_front(&mut self, count: usize) {
        for entry in self.entries.drain(..count) {
            self.held_bytes -= entry.held_bytes();
        }
        self.base += count as u64;
        assert!(
            self.base <= self.ever_sent,
            "what has arrived was sent before"
        );
        debug_assert!(
            !self.entries.is_empty() || self.held_bytes == 0,
            "what came in with a frame leaves with it"
        );
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::Tag;
    use crate::transport::Frame;

    fn op(tag: u64) -> OpName {
        OpName {
            tag: Tag(tag),
            ..OpName::default()
        }
    }

    fn frame(tag: u64) -> Entry {
        let header = FrameHeader {
            op: op(tag),
            frame: Frame::Result { segment: 0, hop: 0 },
            payload_bytes: 3,
        };
        Entry::Frame(header, Payload::Small(Bytes::from_static(b"abc")))
    }

    fn window(tags: &[u64]) -> Window {
        let mut window = Window::default();
        tags.iter().for_each(|tag| window.push(frame(*tag)));
        window
    }

    /// Sends everything; a skip counts as 0.
    fn sent(window: &mut Window) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| {
            window.next().map(|(number, entry)| match entry {
                Entry::Frame(header, _) => (number, header.op.tag.0),
                Entry::Skip => (number, 0),
            })
        })
        .collect()
    }

    #[test]
    fn what_the_other_side_has_not_seen_is_sent_again_under_the_same_numbers() {
        let mut window = window(&[7, 8, 9]);
        assert_eq!(sent(&mut window), [(0, 7), (1, 8), (2, 9)]);
        window.resume(1).unwrap();
        assert_eq!(sent(&mut window), [(1, 8), (2, 9)]);
        window.push(frame(5));
        window.resume(1).unwrap();
        assert_eq!(sent(&mut window), [(1, 8), (2, 9), (3, 5)]);
        assert_eq!(window.acknowledge(4), Ok(3));
        assert_eq!((window.len(), window.held_bytes()), (0, 0));
    }

    #[test]
    fn forgotten_frames_keep_their_numbers_and_no_memory() {
        let mut window = window(&[7, 8, 7]);
        sent(&mut window);
        window.forget(op(7));
        assert_eq!(window.held_bytes(), 3 + ENTRY_BYTES);
        window.resume(0).unwrap();
        assert_eq!(sent(&mut window), [(0, 0), (1, 8), (2, 0)]);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut window = window(&[7, 8, 9]);
        window.next();
        window.next();
        assert_eq!(window.acknowledge(3), Err(OutOfStep), "not yet sent");
        assert_eq!(window.acknowledge(2), Ok(2));
        assert_eq!(window.acknowledge(1), Err(OutOfStep), "already gone");
        assert_eq!(window.resume(1), Err(OutOfStep), "already gone");
        assert_eq!(window.resume(3), Err(OutOfStep), "never sent");
        window.next();
        assert_eq!(window.resume(2), Ok(()));
        assert_eq!(window.acknowledge(3), Err(OutOfStep), "not over this one");
        assert_eq!(window.resume(3), Ok(()), "over the one before");
        assert_eq!(window.acknowledge(u64::MAX), Err(OutOfStep));
    }
}
