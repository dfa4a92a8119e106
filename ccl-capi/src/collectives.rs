//! The collectives, blocking and started.
//!
//! Every started operation has a blocking twin, which is the same followed by a wait.
#![allow(
    clippy::too_many_arguments,
    reason = "the arguments that C programmers know from other libraries, one by one"
)]

use std::ffi::c_void;

use ccl_core::limits::PARTS_MAX;
use ccl_core::{Collective, Communicator as Core, Dtype, Error, Rank, RawHandle, RawPart, Request};

use crate::call::call;
use crate::communicator::{Communicator, cclCommunicator_t};
use crate::handles;
use crate::memory;
use crate::operation::{cclOperation_t, give};
use crate::result::{Outcome, cclResult_t};
use crate::types::{
    OutcomeOut, cclDataType_t, cclOptions_t, cclOutcome_t, cclReduceOp_t, dtype, options, reduce_op,
};

/// One buffer of cclAllReduceMany.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclBuffer_t {
    /// `count` elements that this peer contributes. May equal `receive`: in place.
    pub send: *const c_void,
    /// Where the result goes, `count` elements.
    pub receive: *mut c_void,
    /// Elements.
    pub count: usize,
    /// Their type.
    pub dtype: cclDataType_t,
    /// 0.
    pub reserved: u32,
}

/// Reduces `count` elements of every member into `receive` on all of them. `send` may equal
/// `receive` (in place); otherwise they must not overlap. They need not be aligned; if `count` is 0
/// they may be NULL. All members pass the same count, type, operator and options. `options` and
/// `outcome` may be NULL.
///
/// After an error `send` is unchanged, also in place; the content of a separate `receive` is
/// undefined. Blocks until the operation has ended for all, at most its deadline and the master's
/// `verdict_timeout_ms`.
///
/// Errors: cclErrorPeerLost: call again. cclErrorTooFewPeers: admit more peers first.
/// cclErrorCancelled: a member cancelled it or made another call. cclErrorInvalidUsage if the tag
/// is busy or there is no connection. Any fatal error (cclResultIsFatal). cclErrorInvalidArgument,
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclAllReduce")]
pub unsafe extern "C" fn all_reduce(
    communicator: cclCommunicator_t,
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    dtype: cclDataType_t,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| all_reduced(op));
    // SAFETY: what the header asks for; the memory is the caller's until this returns.
    call(|| unsafe { plan.run(communicator, [part(send, receive, count, dtype)?], outcome) })
}

/// Starts cclAllReduce and returns a handle. The buffers must stay valid and must not be accessed
/// until it has ended; `options` is copied. Does not block.
///
/// Errors: cclErrorInvalidArgument, cclErrorInvalidUsage, cclErrorInvalidHandle, cclErrorForked;
/// all others come from cclWait.
#[unsafe(export_name = "cclAllReduceAsync")]
pub unsafe extern "C" fn all_reduce_async(
    communicator: cclCommunicator_t,
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    dtype: cclDataType_t,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| all_reduced(op));
    // SAFETY: what the header asks for; the memory is the library's until the operation has ended.
    call(|| unsafe {
        plan.give(
            communicator,
            [part(send, receive, count, dtype)?],
            operation,
        )
    })
}

/// Reduces `buffers_count` buffers of every member as one transaction: all are reduced over the
/// same contributors, or none is touched. At most 65,536 buffers; one that is written must not
/// overlap another. The array is read during the call only. Otherwise as cclAllReduce; with
/// `attempts` in the options it is retried with the survivors automatically.
///
/// Errors: as cclAllReduce.
#[unsafe(export_name = "cclAllReduceMany")]
pub unsafe extern "C" fn all_reduce_many(
    communicator: cclCommunicator_t,
    buffers: *const cclBuffer_t,
    buffers_count: usize,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| all_reduced(op));
    // SAFETY: what the header asks for; the memory is the caller's until this returns.
    call(|| unsafe { plan.run(communicator, parts(buffers, buffers_count)?, outcome) })
}

/// Starts cclAllReduceMany and returns a handle. The buffers must stay valid and must not be
/// accessed until it has ended; the array of them need not. Does not block.
///
/// Errors: as cclAllReduceAsync.
#[unsafe(export_name = "cclAllReduceManyAsync")]
pub unsafe extern "C" fn all_reduce_many_async(
    communicator: cclCommunicator_t,
    buffers: *const cclBuffer_t,
    buffers_count: usize,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| all_reduced(op));
    // SAFETY: what the header asks for; the memory is the library's until the operation has ended.
    call(|| unsafe { plan.give(communicator, parts(buffers, buffers_count)?, operation) })
}

/// Collects `send_count` elements of every member, in rank order, into `receive`, which has room
/// for `receive_count` elements: `send_count` times the world size. The buffers must not overlap.
/// Otherwise as cclAllReduce.
///
/// Errors: cclErrorWorldChanged if the buffers are made for another world size: read
/// cclAttributeWorldSize and call again; else as cclAllReduce.
#[unsafe(export_name = "cclAllGather")]
pub unsafe extern "C" fn all_gather(
    communicator: cclCommunicator_t,
    send: *const c_void,
    send_count: usize,
    receive: *mut c_void,
    receive_count: usize,
    dtype: cclDataType_t,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |core| gathered(core, send_count, receive_count));
    // SAFETY: what the header asks for; the memory is the caller's until this returns.
    call(|| unsafe {
        plan.run(
            communicator,
            [part(send, receive, send_count, dtype)?],
            outcome,
        )
    })
}

/// Starts cclAllGather and returns a handle. Otherwise as cclAllReduceAsync.
///
/// Errors: as cclAllReduceAsync.
#[unsafe(export_name = "cclAllGatherAsync")]
pub unsafe extern "C" fn all_gather_async(
    communicator: cclCommunicator_t,
    send: *const c_void,
    send_count: usize,
    receive: *mut c_void,
    receive_count: usize,
    dtype: cclDataType_t,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |core| gathered(core, send_count, receive_count));
    // SAFETY: what the header asks for; the memory is the library's until the operation has ended.
    call(|| unsafe {
        plan.give(
            communicator,
            [part(send, receive, send_count, dtype)?],
            operation,
        )
    })
}

/// Reduces `send_count` elements of every member, which are `receive_count` times the world size,
/// and gives each member the `receive_count` elements of its rank. The buffers must not overlap.
/// Otherwise as cclAllReduce.
///
/// Errors: as cclAllGather.
#[unsafe(export_name = "cclReduceScatter")]
pub unsafe extern "C" fn reduce_scatter(
    communicator: cclCommunicator_t,
    send: *const c_void,
    send_count: usize,
    receive: *mut c_void,
    receive_count: usize,
    dtype: cclDataType_t,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |core| {
        scattered(core, op, receive_count, send_count)
    });
    // SAFETY: what the header asks for; the memory is the caller's until this returns.
    call(|| unsafe {
        plan.run(
            communicator,
            [part(send, receive, receive_count, dtype)?],
            outcome,
        )
    })
}

/// Starts cclReduceScatter and returns a handle. Otherwise as cclAllReduceAsync.
///
/// Errors: as cclAllReduceAsync.
#[unsafe(export_name = "cclReduceScatterAsync")]
pub unsafe extern "C" fn reduce_scatter_async(
    communicator: cclCommunicator_t,
    send: *const c_void,
    send_count: usize,
    receive: *mut c_void,
    receive_count: usize,
    dtype: cclDataType_t,
    op: cclReduceOp_t,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |core| {
        scattered(core, op, receive_count, send_count)
    });
    // SAFETY: what the header asks for; the memory is the library's until the operation has ended.
    call(|| unsafe {
        plan.give(
            communicator,
            [part(send, receive, receive_count, dtype)?],
            operation,
        )
    })
}

/// Sends the `count` elements of `buffer` at rank `root` to all members. After an error the buffer
/// is unchanged. Otherwise as cclAllReduce.
///
/// Errors: cclErrorInvalidArgument if there is no such rank; cclErrorWorldChanged if the world size
/// has changed; else as cclAllReduce.
#[unsafe(export_name = "cclBroadcast")]
pub unsafe extern "C" fn broadcast(
    communicator: cclCommunicator_t,
    buffer: *mut c_void,
    count: usize,
    dtype: cclDataType_t,
    root: u32,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| Ok(Collective::Broadcast { root: Rank(root) }));
    // SAFETY: what the header asks for; the memory is the caller's until this returns.
    call(|| unsafe { plan.run(communicator, [part(buffer, buffer, count, dtype)?], outcome) })
}

/// Starts cclBroadcast and returns a handle. Otherwise as cclAllReduceAsync.
///
/// Errors: as cclAllReduceAsync.
#[unsafe(export_name = "cclBroadcastAsync")]
pub unsafe extern "C" fn broadcast_async(
    communicator: cclCommunicator_t,
    buffer: *mut c_void,
    count: usize,
    dtype: cclDataType_t,
    root: u32,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| Ok(Collective::Broadcast { root: Rank(root) }));
    // SAFETY: what the header asks for; the memory is the library's until the operation has ended.
    call(|| unsafe {
        plan.give(
            communicator,
            [part(buffer, buffer, count, dtype)?],
            operation,
        )
    })
}

/// Blocks until all members have called it. Otherwise as cclAllReduce.
///
/// Errors: as cclAllReduce.
#[unsafe(export_name = "cclBarrier")]
pub unsafe extern "C" fn barrier(
    communicator: cclCommunicator_t,
    options: *const cclOptions_t,
    outcome: *mut cclOutcome_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| Ok(Collective::Barrier));
    // SAFETY: what the header asks for.
    call(|| unsafe { plan.run(communicator, [], outcome) })
}

/// Starts cclBarrier and returns a handle. Does not block.
///
/// Errors: as cclAllReduceAsync.
#[unsafe(export_name = "cclBarrierAsync")]
pub unsafe extern "C" fn barrier_async(
    communicator: cclCommunicator_t,
    options: *const cclOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    let plan = Plan::new(options, |_| Ok(Collective::Barrier));
    // SAFETY: what the header asks for.
    call(|| unsafe { plan.give(communicator, [], operation) })
}

/// A collective that is to be called, but for its buffers.
struct Plan<F> {
    /// Which one, as the communicator's world is.
    collective: F,
    options: *const cclOptions_t,
}

impl<F: FnOnce(&Core) -> Outcome<Collective>> Plan<F> {
    fn new(options: *const cclOptions_t, collective: F) -> Self {
        Self {
            collective,
            options,
        }
    }

    /// Runs it to its end.
    ///
    /// # Safety
    /// The pointers are what the header asks for; the buffers stay until this returns.
    unsafe fn run(
        self,
        communicator: cclCommunicator_t,
        parts: impl Into<Vec<RawPart>>,
        outcome: *mut cclOutcome_t,
    ) -> Outcome<()> {
        // SAFETY: passed on from the caller.
        let place = unsafe { OutcomeOut::new(outcome) }?;
        // SAFETY: passed on from the caller.
        let handle = unsafe { self.start(communicator, parts.into()) }?;
        place.set(&handle.wait()?)
    }

    /// Starts the operation and writes its handle.
    ///
    /// # Safety
    /// The pointers are what the header asks for; the buffers stay until the operation has ended.
    unsafe fn give(
        self,
        communicator: cclCommunicator_t,
        parts: impl Into<Vec<RawPart>>,
        operation: *mut cclOperation_t,
    ) -> Outcome<()> {
        // SAFETY: passed on from the caller.
        let place = unsafe { memory::out(operation, "operation") }?;
        // SAFETY: passed on from the caller.
        give(place, || unsafe { self.start(communicator, parts.into()) })
    }

    /// # Safety
    /// As for `run` and `give`, which call it.
    unsafe fn start(
        self,
        communicator: cclCommunicator_t,
        parts: Vec<RawPart>,
    ) -> Outcome<RawHandle> {
        let communicator = handles::get::<Communicator, _>(communicator)?.connected()?;
        let request = Request {
            collective: (self.collective)(&communicator)?,
            parts,
            // SAFETY: passed on from the caller.
            options: unsafe { options(self.options) }?,
        };
        // SAFETY: the caller vouches for the buffers, whose lengths are for this world size.
        Ok(unsafe { communicator.raw_async(request) }?)
    }
}

fn all_reduced(op: cclReduceOp_t) -> Outcome<Collective> {
    let reduce_op = reduce_op(op)?;
    Ok(Collective::AllReduce { reduce_op })
}

fn gathered(core: &Core, share: usize, all: usize) -> Outcome<Collective> {
    let world_size = world_of(core, share, all)?;
    Ok(Collective::AllGather { world_size })
}

fn scattered(core: &Core, op: cclReduceOp_t, share: usize, all: usize) -> Outcome<Collective> {
    Ok(Collective::ReduceScatter {
        reduce_op: reduce_op(op)?,
        world_size: world_of(core, share, all)?,
    })
}

/// How many members buffers of these lengths are made for.
fn world_of(core: &Core, share: usize, all: usize) -> Outcome<u32> {
    if (share, all) == (0, 0) {
        return Ok(core.world_size());
    }
    let world = all
        .checked_div(share)
        .filter(|world| world * share == all && *world > 0)
        .and_then(|world| u32::try_from(world).ok());
    world.ok_or_else(|| {
        let what =
            format!("{all} elements are not a multiple of {share}, the elements of one share");
        Error::invalid(what).into()
    })
}

fn part(
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    dtype: cclDataType_t,
) -> Outcome<RawPart> {
    let dtype: Dtype = self::dtype(dtype)?;
    Ok(RawPart {
        send: send.cast(),
        receive: receive.cast(),
        count,
        dtype,
    })
}

/// # Safety
/// `buffers` is NULL or points to `count` buffers.
unsafe fn parts(buffers: *const cclBuffer_t, count: usize) -> Outcome<Vec<RawPart>> {
    // SAFETY: passed on from the caller.
    let each = unsafe { memory::list(buffers, count, PARTS_MAX, "buffers") }?;
    each.into_iter()
        .map(|buffer| {
            if buffer.reserved != 0 {
                return Err(Error::invalid("reserved must be 0").into());
            }
            part(buffer.send, buffer.receive, buffer.count, buffer.dtype)
        })
        .collect()
}
