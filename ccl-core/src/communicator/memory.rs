//! The caller's buffers during one call: checked once, lent again to each attempt.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::buffer::{Gate, Lent};
use crate::collective::Buffer;
use crate::communicator::request::{Collective, Options, RawPart, Request};
use crate::error::{Error, Result};
use crate::limits;
use crate::reduce::codec::{self, Input, NotFinite};
use crate::reduce::{BLOCK_ELEMENTS, Dtype, Encoding, ReduceOp, WEIGHT_MAX, wire_bytes};
use crate::wire::control::{Called, Elements, Fingerprint, Kind};

/// Elements of `send` and of `receive` per counted element, in a world of this size.
fn scale(collective: Collective, world_size: usize) -> (usize, usize) {
    match collective {
        Collective::AllReduce { .. } | Collective::Broadcast { .. } => (1, 1),
        Collective::AllGather { .. } => (1, world_size),
        Collective::ReduceScatter { .. } => (world_size, 1),
        Collective::Barrier => (0, 0),
    }
}

/// Checks the caller's name for the call.
///
/// # Errors
/// [`Error::InvalidArgument`]: the name is too long.
fn check_caller(caller: &str) -> Result<()> {
    let (found, most) = (caller.len(), limits::CALLER_BYTES_MAX);
    if found > most {
        return Err(Error::invalid(format!(
            "the caller's name for the call has {found} bytes; at most {most} are allowed"
        )));
    }
    Ok(())
}

/// Checks the parts of a request and lends their memory.
///
/// # Safety
/// As [`crate::Communicator::raw_async`].
///
/// # Errors
/// [`Error::InvalidArgument`] names what is wrong.
pub(crate) unsafe fn lend(request: &Request, world_size: usize) -> Result<Vec<Buffer>> {
    if request.parts.len() > limits::PARTS_MAX {
        return Err(Error::invalid(format!(
            "{} buffers in one call; at most {} are allowed",
            request.parts.len(),
            limits::PARTS_MAX
        )));
    }
    check_caller(&request.options.caller)?;
    check_mixture(request)?;
    let (send_scale, receive_scale) = scale(request.collective, world_size);
    let parts = request
        .parts
        .iter()
        .map(|part| {
            let send_bytes = bytes(part, send_scale)?;
            let receive_bytes = bytes(part, receive_scale)?;
            let is_null = |pointer: *const u8, bytes: usize| pointer.is_null() && bytes > 0;
            if is_null(part.send, send_bytes) || is_null(part.receive, receive_bytes) {
                return Err(Error::invalid("a buffer with elements has a null pointer"));
            }
            // SAFETY: the caller vouches for both ranges until the operation has ended; `send` is
            // only read (buffer.rs, `Lent`).
            let (send, receive) = unsafe {
                (
                    Lent::new(part.send.cast_mut(), send_bytes),
                    Lent::new(part.receive, receive_bytes),
                )
            };
            Ok(Buffer {
                send,
                receive,
                count: part.count,
                dtype: part.dtype,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    check_overlap(&parts)?;
    check_count(&request.parts)?;
    if request.options.encoding.is_some() && request.options.weight != Some(0) {
        check_finite(&parts)?;
    }
    Ok(parts)
}

/// Checks that the call can have an encoding and weights, if it is to have them.
fn check_mixture(request: &Request) -> Result<()> {
    let Options {
        encoding, weight, ..
    } = request.options;
    let what = match (encoding, weight) {
        (None, None) => return Ok(()),
        (None, Some(_)) => "weights",
        (_, _) => "an encoding",
    };
    let kind = request.collective.kind();
    if !matches!(kind, Kind::AllReduce | Kind::ReduceScatter) {
        return Err(Error::invalid(format!(
            "{} cannot have {what}; all_reduce and reduce_scatter can",
            kind.name()
        )));
    }
    let reduce_op = request.collective.reduce_op();
    if !matches!(reduce_op, Some(ReduceOp::Sum | ReduceOp::Avg)) {
        let name = reduce_op.map_or("", ReduceOp::name);
        return Err(Error::invalid(format!(
            "the operator {name} cannot have {what}; sum and avg can"
        )));
    }
    if let Some(part) = request.parts.iter().find(|part| part.dtype.is_integer()) {
        return Err(Error::invalid(format!(
            "{} elements cannot have {what}; f16, bf16, f32 and f64 can",
            part.dtype.name()
        )));
    }
    let is_longer = |dtype: Dtype| {
        wire_bytes(encoding, dtype, BLOCK_ELEMENTS) > wire_bytes(None, dtype, BLOCK_ELEMENTS)
    };
    if let Some(part) = request.parts.iter().find(|part| is_longer(part.dtype)) {
        return Err(Error::invalid(format!(
            "{} elements are shorter than {}; choose another encoding, or none",
            part.dtype.name(),
            encoding.map_or("", Encoding::name)
        )));
    }
    match weight {
        Some(weight) if weight > WEIGHT_MAX => Err(Error::invalid(format!(
            "weight {weight} is too large; at most {WEIGHT_MAX} is allowed"
        ))),
        _ => Ok(()),
    }
}

/// An encoding scales a block by its largest element: a NaN or an infinity would void the others.
fn check_finite(parts: &[Buffer]) -> Result<()> {
    for (index, part) in parts.iter().enumerate() {
        let gate = Gate::keeping(Vec::new());
        let region = part.send.open(&gate);
        let found = region.read(|bytes| codec::check_finite(&Input::of(part.dtype, bytes)));
        gate.close();
        if let Some(Err(NotFinite { index: element })) = found {
            return Err(Error::invalid(format!(
                "element {element} of buffer {index} is not finite; an encoded call needs finite \
                 numbers"
            )));
        }
    }
    Ok(())
}

/// Peers cannot agree on a longer name.
fn check_count(parts: &[RawPart]) -> Result<()> {
    let counts = parts.iter().map(|part| part.count as u64);
    let count = counts.fold(0_u64, u64::saturating_add);
    if count > limits::COUNT_MAX {
        let most = limits::COUNT_MAX;
        return Err(Error::invalid(format!(
            "{count} elements in one call; at most {most} are allowed"
        )));
    }
    Ok(())
}

fn bytes(part: &RawPart, scale: usize) -> Result<usize> {
    part.count
        .checked_mul(part.dtype.bytes())
        .and_then(|bytes| bytes.checked_mul(scale))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| Error::invalid("a buffer is longer than the address space"))
}

/// A result may overlap an input only if it is exactly in place: otherwise it would destroy the
/// input.
fn check_overlap(parts: &[Buffer]) -> Result<()> {
    let mut ranges = Vec::with_capacity(2 * parts.len());
    for (index, part) in parts.iter().enumerate() {
        let mut push = |addresses: Range<usize>, is_written| {
            if !addresses.is_empty() {
                ranges.push((addresses.start, addresses.end, is_written, index));
            }
        };
        push(part.receive.addresses(), true);
        if !part.send.is_same(&part.receive) {
            push(part.send.addresses(), false);
        }
    }
    ranges.sort_unstable();
    // How far what came before reaches, and which part that is: of all, and of what is written.
    let (mut any, mut written) = ((0, 0), (0, 0));
    for (start, end, is_written, index) in ranges {
        let (reach, other) = if is_written { any } else { written };
        if start < reach {
            return Err(overlap(other, index));
        }
        any = any.max((end, index));
        if is_written {
            written = written.max((end, index));
        }
    }
    Ok(())
}

fn overlap(one: usize, other: usize) -> Error {
    if one == other {
        return Error::invalid("send and receive buffers overlap without being the same");
    }
    let (first, second) = (one.min(other), one.max(other));
    Error::invalid(format!(
        "buffers {first} and {second} of the call overlap, and one of them is written"
    ))
}

/// What all members must agree on (R12).
pub(crate) fn fingerprint(request: &Request, min_world: u32) -> Fingerprint {
    let parts = request.parts.iter();
    let elements = Elements::of(parts.map(|part| (part.dtype, part.count as u64)));
    let called = match request.collective {
        Collective::AllReduce { reduce_op } => Called::AllReduce {
            reduce_op,
            elements,
        },
        Collective::ReduceScatter { reduce_op, .. } => Called::ReduceScatter {
            reduce_op,
            elements,
        },
        Collective::AllGather { .. } => Called::AllGather { elements },
        Collective::Broadcast { root } => Called::Broadcast { root, elements },
        Collective::Barrier => Called::Barrier,
    };
    let options = &request.options;
    Fingerprint {
        called,
        algorithm: options.algorithm,
        attempts: options.attempts.max(1),
        min_world,
        encoding: options.encoding,
        is_weighted: options.weight.is_some(),
        caller: options.caller.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::Dtype;

    /// Ranges `send` and `receive` of one memory, in bytes.
    fn check(parts: &[(Range<usize>, Range<usize>)]) -> Result<()> {
        let mut memory = [0_u8; 64];
        let pointer = memory.as_mut_ptr();
        // SAFETY: nothing touches the memory through these.
        let lent =
            |range: &Range<usize>| unsafe { Lent::new(pointer.add(range.start), range.len()) };
        let buffers: Vec<Buffer> = parts
            .iter()
            .map(|(send, receive)| Buffer {
                send: lent(send),
                receive: lent(receive),
                count: send.len(),
                dtype: Dtype::U8,
            })
            .collect();
        check_overlap(&buffers)
    }

    #[test]
    fn what_is_written_overlaps_nothing_of_any_buffer_of_the_call() {
        assert!(check(&[(0..8, 0..8), (8..16, 8..16), (16..16, 4..4)]).is_ok());
        assert!(check(&[(0..8, 8..16), (0..8, 16..24), (4..12, 40..48)]).is_err());
        assert!(
            check(&[(0..8, 16..24), (4..12, 24..32)]).is_ok(),
            "inputs may be shared"
        );
        for (parts, words) in [
            (vec![(0..8, 4..12)], "without being the same"),
            (vec![(0..8, 0..8), (0..8, 0..8)], "0 and 1"),
            (
                vec![(0..32, 0..32), (40..48, 40..48), (8..9, 50..51)],
                "0 and 2",
            ),
            (vec![(0..4, 32..36), (4..8, 0..4)], "0 and 1"),
        ] {
            let error = check(&parts).unwrap_err().to_string();
            assert!(error.contains(words), "{parts:?}: {error}");
        }
    }
}
