//! Letting newcomers in.

use crate::call::call;
use crate::communicator::{Communicator, cclCommunicator_t};
use crate::handles;
use crate::memory;
use crate::operation::{Work, cclOperation_t, insert};
use crate::result::cclResult_t;

/// A safe point: admits the newcomers that are ready. All members must call it equally often.
/// Blocks until all have called it if a newcomer waits, otherwise for one round trip to the master;
/// at most `operation_timeout_ms`. A newcomer's first call is the one that the members make after
/// the safe point that admitted it.
///
/// Errors: cclErrorTimeout: the next call is the same safe point again; any fatal error
/// (cclResultIsFatal); cclErrorInvalidUsage if it is not connected, or if another thread is in this
/// call; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclUpdateTopology")]
pub unsafe extern "C" fn update_topology(communicator: cclCommunicator_t) -> cclResult_t {
    call(|| {
        let communicator = handles::get::<Communicator, _>(communicator)?.connected()?;
        communicator.update_topology()?;
        Ok(())
    })
}

/// Starts cclUpdateTopology and returns a handle: cclWait returns its result, and its outcome holds
/// the members of the view, without tag and number. cclCancel or cclDestroyOperation withdraws from
/// the safe point unless it has been released; the next call is then the same safe point again.
/// Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked. All others come from cclWait. For a withdrawn safe point
/// it returns cclErrorTimeout, while cclTest reports that it has ended.
#[unsafe(export_name = "cclUpdateTopologyAsync")]
pub unsafe extern "C" fn update_topology_async(
    communicator: cclCommunicator_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(operation, "operation") }?;
        let communicator = handles::get::<Communicator, _>(communicator)?.connected()?;
        let point = communicator.update_topology_async()?;
        place.set(insert(Work::Topology(point)));
        Ok(())
    })
}

/// Writes how many newcomers the next cclUpdateTopology may admit, as far as this peer knows; other
/// members may know of more or fewer. Does not block or communicate.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclArePeersPending")]
pub unsafe extern "C" fn are_peers_pending(
    communicator: cclCommunicator_t,
    pending: *mut u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(pending, "pending") }?;
        let communicator = handles::get::<Communicator, _>(communicator)?.connected()?;
        place.set(communicator.pending_peers());
        Ok(())
    })
}
