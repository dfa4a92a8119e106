//! A collective as its caller describes it: which one, on which buffers, and how.
//!
//! `memory` checks the buffers and derives what all members must agree on.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{Rank, Tag};
use crate::reduce::{Dtype, Element, ReduceOp};
use crate::wire::control::{Algorithm, Kind};

/// Which collective, with what it alone needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// Reduces equally long buffers of all members, as one transaction.
    AllReduce {
        /// How elements combine.
        reduce_op: ReduceOp,
    },
    /// Reduces buffers of equal shares and gives each member the share of its rank.
    ReduceScatter {
        /// How elements combine.
        reduce_op: ReduceOp,
        /// Members that the buffers are made for. If there are others by now, nothing is started.
        world_size: u32,
    },
    /// Collects every member's share in rank order.
    AllGather {
        /// Members that the buffers are made for. If there are others by now, nothing is started.
        world_size: u32,
    },
    /// Gives all members one member's buffer.
    Broadcast {
        /// Whose.
        root: Rank,
    },
    /// Blocks until all members have called it.
    Barrier,
}

/// How one call is to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stream of operations; those of one tag run one after the other, all members in the same
    /// order.
    pub tag: Tag,
    /// `Auto` lets the library choose, the same on all members.
    pub algorithm: Algorithm,
    /// When to cancel it for everybody. `None`: the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Most attempts with the survivors after a peer is lost, the first included; 0 and 1: no
    /// retry.
    pub attempts: u32,
    /// What the caller calls a collective that it makes of this one, such as `reduce to rank 2`:
    /// the same at all members, at most 128 bytes. Empty: nothing.
    pub caller: String,
}

/// One buffer of a [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct RawPart {
    /// What this peer contributes. May equal `receive`: in place.
    pub send: *const u8,
    /// Where the result goes.
    pub receive: *mut u8,
    /// Elements: of the whole buffer for all-reduce and broadcast, of one rank's share for
    /// all-gather and reduce-scatter.
    pub count: usize,
    /// Element type.
    pub dtype: Dtype,
}

/// A collective on raw memory, for [`crate::Communicator::raw_async`].
#[derive(Clone, Debug)]
pub struct Request {
    /// Which collective.
    pub collective: Collective,
    /// The buffers; one unless many, none for a barrier.
    pub parts: Vec<RawPart>,
    /// Tag, deadline, algorithm, retry.
    pub options: Options,
}

impl Collective {
    /// Its kind, without what it needs.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::AllReduce { .. } => Kind::AllReduce,
            Self::ReduceScatter { .. } => Kind::ReduceScatter,
            Self::AllGather { .. } => Kind::AllGather,
            Self::Broadcast { .. } => Kind::Broadcast,
            Self::Barrier => Kind::Barrier,
        }
    }

    /// Members that the buffers are made for, where lengths depend on it.
    pub(super) fn world_size(self) -> Option<u32> {
        match self {
            Self::ReduceScatter { world_size, .. } | Self::AllGather { world_size } => {
                Some(world_size)
            }
            Self::AllReduce { .. } | Self::Broadcast { .. } | Self::Barrier => None,
        }
    }

    /// Whether lengths or the root mean something else in a view of another size.
    pub(super) fn depends_on_ranks(self) -> bool {
        self.world_size().is_some() || matches!(self, Self::Broadcast { .. })
    }
}

impl RawPart {
    /// A buffer whose result replaces its input.
    pub fn in_place<T: Element>(buffer: &mut [T]) -> Self {
        let receive = buffer.as_mut_ptr().cast::<u8>();
        Self {
            send: receive.cast_const(),
            receive,
            count: buffer.len(),
            dtype: T::DTYPE,
        }
    }

    /// A buffer whose result goes to another of the same length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the lengths differ.
    pub fn out_of_place<T: Element>(send: &[T], receive: &mut [T]) -> Result<Self> {
        expect_length("receive", receive.len(), send.len())?;
        Ok(Self::of(send, receive, send.len()))
    }

    fn of<T: Element>(send: &[T], receive: &mut [T], count: usize) -> Self {
        Self {
            send: send.as_ptr().cast(),
            receive: receive.as_mut_ptr().cast(),
            count,
            dtype: T::DTYPE,
        }
    }
}

/// The requests of the typed faces, which share them: blocking, asynchronous, in a scope.
impl Request {
    fn new(collective: Collective, parts: Vec<RawPart>, options: &Options) -> Self {
        Self {
            collective,
            parts,
            options: options.clone(),
        }
    }

    pub(super) fn all_reduce(parts: Vec<RawPart>, reduce_op: ReduceOp, options: &Options) -> Self {
        Self::new(Collective::AllReduce { reduce_op }, parts, options)
    }

    /// An all-gather or a reduce-scatter: one of the buffers has a share for each member.
    pub(super) fn shares<T: Element>(
        collective: Collective,
        send: &[T],
        receive: &mut [T],
        options: &Options,
    ) -> Result<Self> {
        let world_size = collective.world_size().unwrap_or(1) as usize;
        let count = send.len().min(receive.len());
        if matches!(collective, Collective::AllGather { .. }) {
            expect_length("receive", receive.len(), send.len() * world_size)?;
        } else {
            expect_length("send", send.len(), receive.len() * world_size)?;
        }
        let parts = vec![RawPart::of(send, receive, count)];
        Ok(Self::new(collective, parts, options))
    }

    pub(super) fn broadcast<T: Element>(buffer: &mut [T], root: Rank, options: &Options) -> Self {
        let parts = vec![RawPart::in_place(buffer)];
        Self::new(Collective::Broadcast { root }, parts, options)
    }

    pub(super) fn barrier(options: &Options) -> Self {
        Self::new(Collective::Barrier, Vec::new(), options)
    }
}

fn expect_length(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} has {found} elements, {expected} are needed"
    )))
}
