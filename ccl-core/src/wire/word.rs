//! What members tell each other, without the master (R9, R19).

use super::data::{Frame, FrameHeader};
use crate::ids::{OpName, OpNumber, Tag, Vid};

/// What a member tells others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It holds the whole result of an operation.
    Held(OpName),
    /// How far it is with the safe points.
    SafePoint(SafePointWord),
}

/// How far a member is with the safe points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafePointWord {
    /// Its view.
    pub vid: Vid,
    /// How many it has told the members of that view to be at or past.
    pub called: u64,
    /// How many are released to it.
    pub released: u64,
}

impl Word {
    /// The frame that carries it, without a payload.
    #[must_use]
    pub fn header(self) -> FrameHeader {
        let (op, frame) = match self {
            Self::Held(op) => (op, Frame::Held),
            Self::SafePoint(word) => {
                let op = OpName {
                    tag: Tag(0),
                    n: OpNumber(word.called),
                    birth: word.vid,
                };
                let frame = Frame::SafePoint {
                    released_low: word.released as u32,
                    released_high: (word.released >> 32) as u32,
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

    /// What a frame carries, if it is such a word.
    #[must_use]
    pub fn of(header: &FrameHeader) -> Option<Self> {
        match header.frame {
            Frame::Held => Some(Self::Held(header.op)),
            Frame::SafePoint {
                released_low,
                released_high,
            } => Some(Self::SafePoint(SafePointWord {
                vid: header.op.birth,
                called: header.op.n.0,
                released: u64::from(released_high) << 32 | u64::from(released_low),
            })),
            _ => None,
        }
    }
}
