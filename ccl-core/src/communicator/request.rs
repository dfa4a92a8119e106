//! A collective as its caller describes it: which one, on which buffers, and how.
//!
//! `memory` checks the buffers and derives what all members must agree on.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{Rank, Tag};
use crate::reduce::{Dtype, Element, Encoding, ReduceOp};
use crate::wire::control::{Algorithm, Kind};

/// Which collective, with its own parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// Reduces buffers of the same length from every member, as one transaction.
    AllReduce {
        /// How elements combine.
        reduce_op: ReduceOp,
    },
    /// Reduces buffers of equal shares and gives each member the share of its rank.
    ReduceScatter {
        /// How elements combine.
        reduce_op: ReduceOp,
        /// World size that the buffers are made for. If it has changed, nothing is started.
        world_size: u32,
    },
    /// Collects every member's share in rank order.
    AllGather {
        /// World size that the buffers are made for. If it has changed, nothing is started.
        world_size: u32,
    },
    /// Sends one member's buffer to all members.
    Broadcast {
        /// Rank of the sender.
        root: Rank,
    },
    /// Blocks until all members have called it.
    Barrier,
}

/// How one call is to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stream of operations: those of one tag run one after the other, in the same order on all
    /// members.
    pub tag: Tag,
    /// `Auto` lets the library choose, the same on all members.
    pub algorithm: Algorithm,
    /// When to cancel it for all members. `None`: after the communicator's `operation_timeout`.
    pub deadline: Option<Duration>,
    /// Most attempts, including the first: after a peer is lost, the call is retried with the
    /// survivors. 0 and 1: no retry.
    pub attempts: u32,
    /// What contributions are rounded to, and how they travel: for `Sum` and `Avg` of
    /// floating-point numbers by all-reduce and reduce-scatter, which then never goes around the
    /// ring. The same on all members. NaN or an infinity in an input is an error that names it,
    /// before anything is sent.
    pub encoding: Option<Encoding>,
    /// Rounds to the encoding up or down at random, so that the mean error is 0, with random
    /// numbers from this seed: another one for each member and call. `None`: to the nearer code.
    pub seed: Option<u64>,
    /// By how much this peer's contribution counts: the result is Σwx, of `Avg` Σwx/Σw. At most
    /// 16,777,216; 0: it contributes nothing, and sends no data. With weights on one member they
    /// are needed on all. For the same calls as an encoding. If all weights are 0, so is the
    /// result.
    pub weight: Option<u32>,
    /// The caller's name for a collective built on this one, such as `reduce to rank 2`. The same
    /// on all members, at most 128 bytes; empty for none.
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
    /// The buffers: none for a barrier, any number for an all-reduce, else one.
    pub parts: Vec<RawPart>,
    /// Tag, deadline, algorithm, retry.
    pub options: Options,
}

impl Collective {
    /// Its kind, without parameters.
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

    /// How elements combine, where they do.
    pub(super) fn reduce_op(self) -> Option<ReduceOp> {
        match self {
            Self::AllReduce { reduce_op } | Self::ReduceScatter { reduce_op, .. } => {
                Some(reduce_op)
            }
            Self::AllGather { .. } | Self::Broadcast { .. } | Self::Barrier => None,
        }
    }

    /// The world size that the buffers are made for, if their lengths depend on it.
    pub(super) fn world_size(self) -> Option<u32> {
        match self {
            Self::ReduceScatter { world_size, .. } | Self::AllGather { world_size } => {
                Some(world_size)
            }
            Self::AllReduce { .. } | Self::Broadcast { .. } | Self::Barrier => None,
        }
    }

    /// Whether the lengths or the root depend on the world size.
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

/// The requests behind the typed methods: blocking, asynchronous and scoped.
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

    /// An all-gather or a reduce-scatter: one of its buffers has a share for each member.
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
        "{name} has {found} elements, but {expected} are needed"
    )))
}
