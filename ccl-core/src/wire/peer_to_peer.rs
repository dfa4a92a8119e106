//! What members tell each other, without the master (R9, R19).

use super::data::{Frame, FrameHeader};
use crate::ids::{OpName, OpNumber, Tag, Vid};

/// A message of a member to other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerToPeer {
    /// It holds the whole result of an operation.
    Held(OpName),
    /// How far it is with the safe points.
    SafePoint(SafePointProgress),
}

/// How far a member is with the safe points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafePointProgress {
    /// Its view.
    pub vid: Vid,
    /// How many it has told the members of that view to be at or past.
    pub called: u64,
    /// How many are released to it.
    pub released: u64,
}

impl PeerToPeer {
    /// The frame that carries it, without a payload.
    #[must_use]
    pub fn header(self) -> FrameHeader {
        let (op, frame) = match self {
            Self::Held(op) => (op, Frame::Held),
            Self::SafePoint(progress) => {
                let op = OpName {
                    tag: Tag(0),
                    n: OpNumber(progress.called),
                    birth: progress.vid,
                };
                let frame = Frame::SafePoint {
                    released_low: progress.released as u32,
                    released_high: (progress.released >> 32) as u32,
                };
                (op, frame)
            }
        };
        FrameHeader {
            op,
            frame,
            payload_bytes: 0,
        }
    }

    /// What a frame carries, if it is such a message.
    #[must_use]
    pub fn of(header: &FrameHeader) -> Option<Self> {
        match header.frame {
            Frame::Held => Some(Self::Held(header.op)),
            Frame::SafePoint {
                released_low,
                released_high,
            } => Some(Self::SafePoint(SafePointProgress {
                vid: header.op.birth,
                called: header.op.n.0,
                released: u64::from(released_high) << 32 | u64::from(released_low),
            })),
            _ => None,
        }
    }
}
