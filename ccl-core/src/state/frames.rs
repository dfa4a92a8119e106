//! The requests and answers of a sync as frames.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::digest::block_digest;
use super::fetch::Claim;
use super::holding::Holding;
use super::{Order, What};
use crate::buffer::Gate;
use crate::ids::{OpName, PeerId};
use crate::transport::{Frame, FrameHeader, Payload};
use crate::wire::state::Digest;

/// What a source sends: one block straight from the caller's memory, several copied together.
pub(super) fn payload(holding: &Holding, gate: &Arc<Gate>, order: &Order) -> Option<Payload> {
    if order.what == What::Digests {
        let digests = holding.encode_digests(order.first, order.count);
        return Some(Payload::Small(digests.into()));
    }
    if order.count == 1 {
        return Some(Payload::Lent(holding.offered_region(gate, order.first)));
    }
    let mut bytes = BytesMut::with_capacity(bytes_of(holding, order) as usize);
    for block in order.first..order.first + order.count {
        holding
            .offered_region(gate, block)
            .read(|block| bytes.put_slice(block))?;
    }
    Some(Payload::Small(bytes.freeze()))
}

pub(super) fn fits(holding: &Holding, order: &Order, wanted: &[Digest], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut blocks = (order.first..order.first + order.count).zip(wanted);
    blocks.all(|(block, digest)| {
        let (head, tail) = rest.split_at(holding.layout.block_bytes(block));
        rest = tail;
        block_digest(head) == *digest
    })
}

pub(super) fn bytes_of(holding: &Holding, order: &Order) -> u64 {
    let blocks = order.first..order.first.saturating_add(order.count);
    match order.what {
        What::Digests => u64::from(order.count) * 32,
        What::Blocks => blocks
            .map(|block| holding.layout.block_bytes(block) as u64)
            .sum(),
    }
}

pub(super) fn note_lie(order: &Order, claim: Claim) {
    if claim == Claim::Lie {
        tracing::warn!(
            peer = %order.peer,
            block = order.first,
            "the peer sent data that does not belong to the elected state, and is not asked again"
        );
    }
}

/// What a peer asks for.
pub(super) fn asked(from: PeerId, frame: Frame) -> Option<Order> {
    match frame {
        Frame::StateAsk { first, count } => Some(order(from, What::Blocks, first, count)),
        Frame::StateDigestAsk { first, count } => Some(order(from, What::Digests, first, count)),
        _ => None,
    }
}

/// What a peer gives.
pub(super) fn given(from: PeerId, frame: Frame) -> Option<Order> {
    match frame {
        Frame::StateBlocks { first, count } => Some(order(from, What::Blocks, first, count)),
        Frame::StateDigests { first, count } => Some(order(from, What::Digests, first, count)),
        _ => None,
    }
}

/// The header of a request.
pub(super) fn ask(op: OpName, order: &Order) -> FrameHeader {
    let Order { first, count, .. } = *order;
    let frame = match order.what {
        What::Blocks => Frame::StateAsk { first, count },
        What::Digests => Frame::StateDigestAsk { first, count },
    };
    FrameHeader {
        op,
        frame,
        payload_bytes: 0,
    }
}

/// The header of an answer.
pub(super) fn give(op: OpName, order: &Order, payload: &Payload) -> FrameHeader {
    let Order { first, count, .. } = *order;
    let frame = match order.what {
        What::Blocks => Frame::StateBlocks { first, count },
        What::Digests => Frame::StateDigests { first, count },
    };
    FrameHeader {
        op,
        frame,
        payload_bytes: u32::try_from(payload.bytes()).expect("a frame's worth"),
    }
}

fn order(peer: PeerId, what: What, first: u32, count: u32) -> Order {
    Order {
        peer,
        what,
        first,
        count,
    }
}
