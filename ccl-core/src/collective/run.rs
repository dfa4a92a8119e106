//! Carries out an exchange's work on an operation's memory.
//!
//! Every function enters the operation's gate for one segment at a time, does nothing if the memory
//! was taken back, and returns whether it did the work.

use bytes::{BufMut, Bytes, BytesMut};

use super::layout::Side;
use super::memory::Memory;
use super::step::{Body, Coding, CopyOwn, Operand, Reduction, Storage};
use crate::buffer::Inside;
use crate::limits;

/// Whether work was done, or the memory was taken back before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Done,
    TakenBack,
}

/// Adds up a segment into the result.
pub(super) fn reduce(memory: &Memory, reduction: &Reduction) -> Work {
    let Some(inside) = memory.enter() else {
        return Work::TakenBack;
    };
    match reduction.operands[..] {
        [Operand::Target, Operand::Own(_)] => add_to_target(memory, &inside, reduction),
        _ => add_operands(memory, &inside, reduction),
    }
    Work::Done
}

fn add_operands(memory: &Memory, inside: &Inside<'_>, reduction: &Reduction) {
    let mut inputs: [&[u8]; limits::WORLD_SIZE_MAX] = [&[]; limits::WORLD_SIZE_MAX];
    let count = reduction.operands.len();
    for (input, operand) in inputs.iter_mut().zip(&reduction.operands) {
        *input = look(memory, inside, operand);
    }
    let target = memory.write(inside, reduction.target);
    reduction.combine(memory.seed(), &inputs[..count], target);
}

fn look<'a>(memory: &'a Memory, inside: &'a Inside<'_>, operand: &'a Operand) -> &'a [u8] {
    match operand {
        Operand::Own(span) => memory.read(inside, Side::Input, *span),
        Operand::Slot { start, bytes } => memory.slot(inside, *start, *bytes),
        Operand::Eager(bytes) => bytes,
        Operand::Target => unreachable!("a partial sum is added to one own input"),
    }
}

/// The partial sum lies where the new one goes: it is copied aside, a piece of the first-level
/// cache at a time.
fn add_to_target(memory: &Memory, inside: &Inside<'_>, reduction: &Reduction) {
    let Some(&Operand::Own(span)) = reduction.operands.last() else {
        unreachable!("the caller looked");
    };
    let own = memory.read(inside, Side::Input, span);
    let target = memory.write(inside, reduction.target);
    let mut aside = [0; PIECE_BYTES];
    for (own, target) in own.chunks(PIECE_BYTES).zip(target.chunks_mut(PIECE_BYTES)) {
        let aside = &mut aside[..target.len()];
        aside.copy_from_slice(target);
        reduction.combine(memory.seed(), &[aside, own], target);
    }
}

/// Copies the bytes of a signal frame into the result.
pub(super) fn store(memory: &Memory, storage: &Storage) -> Work {
    let Some(inside) = memory.enter() else {
        return Work::TakenBack;
    };
    let mut rest = &storage.payload[..];
    for span in storage.body.spans() {
        let (bytes, after) = rest.split_at(span.bytes);
        memory.write(&inside, span).copy_from_slice(bytes);
        rest = after;
    }
    Work::Done
}

/// Puts the elements of a segment into their wire form.
pub(super) fn encode(memory: &Memory, coding: &Coding) -> Work {
    let Some(inside) = memory.enter() else {
        return Work::TakenBack;
    };
    let elements = memory.read(&inside, coding.side, coding.elements);
    let wire = memory.write_wire(&inside, coding.wire);
    coding.encode(memory.seed(), elements, wire);
    Work::Done
}

/// Puts the wire form of a segment into the result.
pub(super) fn decode(memory: &Memory, coding: &Coding) -> Work {
    let Some(inside) = memory.enter() else {
        return Work::TakenBack;
    };
    let wire = memory.read(&inside, Side::Wire, coding.wire);
    let elements = memory.write(&inside, coding.elements);
    coding.decode(wire, elements);
    Work::Done
}

/// Copies own input to the result.
pub(super) fn copy_own(memory: &Memory, copy: &CopyOwn) -> Work {
    let layout = &copy.body.layout;
    for segment in copy.body.segments.clone() {
        let Some(inside) = memory.enter() else {
            return Work::TakenBack;
        };
        let (from, to) = (
            layout.span(Side::Input, segment),
            layout.span(Side::Result, segment),
        );
        if !memory.is_aliased(to.part) {
            let bytes = memory.read(&inside, Side::Input, from);
            memory.write(&inside, to).copy_from_slice(bytes);
        }
    }
    Work::Done
}

/// The payload of a signal frame; `None` if the memory was taken back.
pub(super) fn gather(memory: Option<&Memory>, head: Bytes, body: Option<&Body>) -> Option<Bytes> {
    let Some(body) = body else {
        return Some(head);
    };
    let memory = memory?;
    let inside = memory.enter()?;
    let mut payload = BytesMut::with_capacity(head.len() + body.bytes());
    payload.put(head);
    for span in body.spans() {
        payload.put(memory.read(&inside, body.side, span));
    }
    Some(payload.freeze())
}

/// Partial sums are copied aside in pieces of this length: half of a small first-level cache.
const PIECE_BYTES: usize = 16 << 10;
