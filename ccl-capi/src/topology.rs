//! Letting newcomers in.

use crate::call::call;
use crate::communicator::{Communicator, cclCommunicator_t};
use crate::handles;
use crate::memory;
use crate::operation::{Work, cclOperation_t, insert};
use crate::result::cclResult_t;

/// A safe point: admits the newcomers that are ready. All members must come to it, in the same
/// order among their safe points. Blocks until they have if a newcomer waits, otherwise for one
/// round trip to the master; at most `operation_timeout_ms`. A newcomer's first call is what
/// the members call after the safe point that admits it.
///
/// Errors: cclErrorTimeout: the safe point is not used up; the fatal ones (cclResultIsFatal);
/// cclErrorInvalidUsage if it is not connected, or if another thread is in this call;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclUpdateTopology")]
pub unsafe extern "C" fn update_topology(communicator: cclCommunicator_t) -> cclResult_t {
    call(|| {
        let communicator = handles::get::<Communicator, _>(communicator)?.connected()?;
        communicator.update_topology()?;
        Ok(())
    })
}

/// Starts cclUpdateTopology and gives a handle of it: cclWait says how it ended, and its outcome
/// has the members of the view, without tag and number. cclCancel, or cclDestroyOperation,
/// withdraws from the safe point, unless it is released meanwhile; the withdrawn one is not used
/// up. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked. All others come from cclWait, which returns
/// cclErrorTimeout of one that was withdrawn: cclTest says that it has ended.
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

/// Writes how many newcomers the next cclUpdateTopology may admit, as far as this peer has heard:
/// other members may have heard more, or less. Does not block and asks nobody.
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
