//! Syncs, which make a shared state equal on all members, blocking and asynchronous.
//!
//! What a state is without a sync is in `shared_state`.

use std::sync::Arc;
use std::time::Duration;

use ccl_core::limits::STATE_ENTRIES_MAX;
use ccl_core::{Error, SyncInfo, SyncOptions, SyncStrategy};

use crate::call::call;
use crate::checkpoint::hash_threads;
use crate::communicator::{Communicator, cclCommunicator_t};
use crate::handles;
use crate::memory::{self, Growing, GrowingOut};
use crate::operation::{Operation, Work, cclOperation_t, insert};
use crate::result::{Outcome, cclResult_t};
use crate::shared_state::{CCL_ROOT_BYTES, SharedState, Syncing, cclSharedState_t};
use crate::types::{bounded, pick};

/// A member's role in the election of a sync. cclEnforcePopular may be mixed with cclReceiveOnly,
/// and cclSendOnly with cclReceiveOnly; at least one member must not be cclReceiveOnly.
pub type cclSyncStrategy_t = u32;

/// Its content takes part in the election, and is replaced if another wins.
pub const cclEnforcePopular: cclSyncStrategy_t = 0;
/// Its content must win.
pub const cclSendOnly: cclSyncStrategy_t = 1;
/// Its content does not count.
pub const cclReceiveOnly: cclSyncStrategy_t = 2;

/// What a peer does in a sync.
pub type cclSyncRole_t = u32;

/// No content is elected yet, or the sync has ended.
pub const cclRoleUnknown: cclSyncRole_t = 0;
/// Its content is being replaced: the memory must not be read or written.
pub const cclRoleReceiver: cclSyncRole_t = 1;
/// Its content is the elected one, and others may be reading it: the memory may be read, and must
/// not be written.
pub const cclRoleSource: cclSyncRole_t = 2;

/// Options of one sync. 0 and NULL are the default of every field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclSyncOptions_t {
    /// `sizeof(cclSyncOptions_t)`.
    pub struct_bytes: usize,
    /// Indices, in the order of cclAddEntry, of the entries that may have changed since this
    /// state's last sync: only these are hashed. A change to any other entry goes unnoticed until a
    /// sync without this hint. NULL: all.
    pub touched: *const usize,
    /// Number of `touched` entries; ignored if `touched` is NULL.
    pub touched_count: usize,
    /// After this time the sync is cancelled for all members, in milliseconds; 0: the
    /// communicator's `operation_timeout_ms`.
    pub deadline_ms: u64,
    /// This peer's role in the election.
    pub strategy: cclSyncStrategy_t,
    /// 1: a vote to go on from the best available content. It counts if no member has the content
    /// agreed on last or its successor, or if fewer members have those than are further ahead, as
    /// after the loss of the master's journal. All members must vote for it.
    pub is_restore: u32,
    /// Hashing threads. 0: one per core, at most 8.
    pub hash_threads: u32,
    /// 0.
    pub reserved: u32,
}

impl Default for cclSyncOptions_t {
    fn default() -> Self {
        Self {
            struct_bytes: 0,
            touched: std::ptr::null(),
            touched_count: 0,
            deadline_ms: 0,
            strategy: cclEnforcePopular,
            is_restore: 0,
            hash_threads: 0,
            reserved: 0,
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and a pointer only.
unsafe impl Growing for cclSyncOptions_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// A peer that sent blocks in a sync.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclSyncSource_t {
    /// Id of the peer.
    pub peer: u64,
    /// Bytes from it that were used.
    pub bytes: u64,
}

/// What a sync did at this peer. Set `struct_bytes`, and the arrays with their capacities if you
/// want them: at most that many are written. The rest is written, on success only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclSyncInfo_t {
    /// `sizeof(cclSyncInfo_t)`.
    pub struct_bytes: usize,
    /// Array for the peers that sent blocks to this one, or NULL.
    pub sources: *mut cclSyncSource_t,
    /// Capacity of that array.
    pub sources_capacity: usize,
    /// Number of peers that sent blocks to this one.
    pub sources_count: usize,
    /// Array for the ids of the members that took part, in rank order, or NULL.
    pub members: *mut u64,
    /// Capacity of that array.
    pub members_capacity: usize,
    /// Number of members that took part.
    pub members_count: usize,
    /// The revision that all members have now.
    pub revision: u64,
    /// The root digest over all entries, the same on all members.
    pub root: [u8; CCL_ROOT_BYTES],
    /// Bytes sent to other members.
    pub sent_bytes: u64,
    /// Bytes received: differing blocks, and digests.
    pub received_bytes: u64,
    /// Time from the call to its end, in microseconds.
    pub duration_us: u64,
    /// How much of it was spent hashing this peer's state, in microseconds.
    pub hashing_us: u64,
    /// Term of the view this peer was in when it learned the outcome.
    pub term: u32,
    /// Epoch of that view.
    pub epoch: u32,
    /// Members of that view.
    pub world_size: u32,
    /// Number of attempts.
    pub attempts: u32,
    /// The sync's number among those of the run.
    pub number: u64,
}

impl Default for cclSyncInfo_t {
    fn default() -> Self {
        Self {
            struct_bytes: 0,
            sources: std::ptr::null_mut(),
            sources_capacity: 0,
            sources_count: 0,
            members: std::ptr::null_mut(),
            members_capacity: 0,
            members_count: 0,
            revision: 0,
            root: [0; CCL_ROOT_BYTES],
            sent_bytes: 0,
            received_bytes: 0,
            duration_us: 0,
            hashing_us: 0,
            term: 0,
            epoch: 0,
            world_size: 0,
            attempts: 0,
            number: 0,
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and pointers only.
unsafe impl Growing for cclSyncInfo_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Makes a state equal on all members of the group. The master elects one content by revision and
/// popularity; members with another content fetch the differing blocks from those that have it, and
/// verify them. All members call it. On success the memory holds the elected content, and the state
/// has its revision. The memory must not be written meanwhile. `options` and `info` may be NULL.
///
/// Hashes the state on this thread, then blocks until all members have the content, at most its
/// deadline and the master's `verdict_timeout_ms`. Losing a member, even a source, does not disturb
/// the others.
///
/// Errors: cclErrorSharedState: the text names the peer whose entries, strategy or revision does
/// not fit; no data was moved. cclErrorCancelled, cclErrorTooFewPeers, any fatal error
/// (cclResultIsFatal). After any of them cclIsUsable says whether the content is still consistent.
/// cclErrorInvalidUsage while another sync of this state or communicator is in progress, or if
/// there is no connection. cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclSyncSharedState")]
pub unsafe extern "C" fn sync_shared_state(
    communicator: cclCommunicator_t,
    state: cclSharedState_t,
    options: *const cclSyncOptions_t,
    info: *mut cclSyncInfo_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { InfoOut::new(info) }?;
        // SAFETY: NULL, or what the header asks for; the memory stays the library's until the end.
        let sync = unsafe { start(communicator, state, options) }?;
        place.set(&sync.wait()?)
    })
}

/// Starts cclSyncSharedState and returns a handle, for cclWait and the other calls on operations,
/// cclGetSyncInfo and cclGetSyncRole. Until it has ended, all calls on the state except
/// cclDestroySharedState return cclErrorInvalidUsage, and the memory must not be accessed (for
/// exceptions see cclGetSyncRole). `options` is copied. Hashes the state on this thread; then does
/// not block.
///
/// Errors: cclErrorInvalidArgument, cclErrorInvalidUsage, cclErrorInvalidHandle, cclErrorForked;
/// all others come from cclWait.
#[unsafe(export_name = "cclSyncSharedStateAsync")]
pub unsafe extern "C" fn sync_shared_state_async(
    communicator: cclCommunicator_t,
    state: cclSharedState_t,
    options: *const cclSyncOptions_t,
    operation: *mut cclOperation_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(operation, "operation") }?;
        // SAFETY: NULL, or what the header asks for; the memory stays the library's until the end.
        let sync = unsafe { start(communicator, state, options) }?;
        place.set(insert(Work::Sync(sync)));
        Ok(())
    })
}

/// Writes what a sync did. It must have been started by cclSyncSharedStateAsync and have ended.
/// Does not block.
///
/// Errors: cclErrorTimeout if it has not ended; its own error if it failed; cclErrorInvalidArgument
/// if the operation is not a sync, or `info` is NULL; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetSyncInfo")]
pub unsafe extern "C" fn get_sync_info(
    operation: cclOperation_t,
    info: *mut cclSyncInfo_t,
) -> cclResult_t {
    call(|| {
        if info.is_null() {
            return Err(Error::invalid("info is NULL").into());
        }
        // SAFETY: what the header asks for.
        let place = unsafe { InfoOut::new(info) }?;
        let operation = handles::get::<Operation, _>(operation)?;
        place.set(&sync_of(&operation)?.wait_for(Duration::ZERO)?)
    })
}

/// Writes whether this peer is a source or a receiver in a sync started by cclSyncSharedStateAsync;
/// after its end, whether it was. Does not block.
///
/// Errors: cclErrorInvalidArgument, also if the operation is not a sync; cclErrorInvalidHandle,
/// cclErrorForked.
#[unsafe(export_name = "cclGetSyncRole")]
pub unsafe extern "C" fn get_sync_role(
    operation: cclOperation_t,
    role: *mut cclSyncRole_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(role, "role") }?;
        let operation = handles::get::<Operation, _>(operation)?;
        place.set(match sync_of(&operation)?.is_source() {
            None => cclRoleUnknown,
            Some(false) => cclRoleReceiver,
            Some(true) => cclRoleSource,
        });
        Ok(())
    })
}

/// # Safety
/// `options` is NULL or points to options whose list is as long as it says. The state's memory
/// stays until the sync has ended.
unsafe fn start(
    communicator: cclCommunicator_t,
    state: cclSharedState_t,
    options: *const cclSyncOptions_t,
) -> Outcome<Arc<Syncing>> {
    // SAFETY: passed on from the caller.
    let options = unsafe { sync_options(options) }?;
    let communicator = handles::get::<Communicator, _>(communicator)?;
    let state = handles::get::<SharedState, _>(state)?;
    let communicator = communicator.connected()?;
    state.lend(|state| communicator.sync_shared_state_async(state, &options))
}

/// # Safety
/// `pointer` is NULL or points to options whose list is as long as it says.
unsafe fn sync_options(pointer: *const cclSyncOptions_t) -> Outcome<SyncOptions> {
    // SAFETY: passed on from the caller.
    let options = unsafe { memory::growing(pointer, "options") }?;
    if options.reserved != 0 {
        return Err(Error::invalid("options->reserved must be 0").into());
    }
    let touched = if options.touched.is_null() {
        None
    } else {
        let count = options.touched_count;
        // SAFETY: passed on from the caller.
        let list = unsafe {
            memory::list(
                options.touched,
                count,
                STATE_ENTRIES_MAX,
                "options->touched",
            )
        };
        Some(list?)
    };
    let strategies = [
        SyncStrategy::EnforcePopular,
        SyncStrategy::SendOnly,
        SyncStrategy::ReceiveOnly,
    ];
    Ok(SyncOptions {
        strategy: pick(&strategies, options.strategy, "sync strategy")?,
        restore: memory::switch(options.is_restore, "options->is_restore")?,
        touched,
        deadline: (options.deadline_ms != 0).then(|| bounded(options.deadline_ms)),
        hash_threads: hash_threads(options.hash_threads)?,
    })
}

fn sync_of(operation: &Operation) -> Outcome<&Syncing> {
    match &operation.work {
        Work::Sync(sync) => Ok(sync),
        Work::Collective(_) | Work::Topology(_) => {
            Err(Error::invalid("the operation is not a sync").into())
        }
    }
}

/// Where to write what a sync did, if anywhere.
#[derive(Debug)]
struct InfoOut(Option<(cclSyncInfo_t, GrowingOut<cclSyncInfo_t>)>);

impl InfoOut {
    /// # Safety
    /// `pointer` is NULL or points to an info whose lists have the lengths it states; no other
    /// thread uses it until the call returns.
    unsafe fn new(pointer: *mut cclSyncInfo_t) -> Outcome<Self> {
        if pointer.is_null() {
            return Ok(Self(None));
        }
        // SAFETY: passed on from the caller.
        let (asked, place) = unsafe {
            (
                memory::growing(pointer.cast_const(), "info")?,
                memory::growing_out(pointer, "info")?,
            )
        };
        memory::check_list(asked.sources, asked.sources_capacity, "info->sources")?;
        memory::check_list(asked.members, asked.members_capacity, "info->members")?;
        Ok(Self(Some((asked, place))))
    }

    fn set(self, info: &SyncInfo) -> Outcome<()> {
        let Some((asked, place)) = self.0 else {
            return Ok(());
        };
        let source = |(peer, bytes): &(ccl_core::PeerId, u64)| cclSyncSource_t {
            peer: peer.0,
            bytes: *bytes,
        };
        let sources: Vec<_> = info.sources.iter().map(source).collect();
        let members: Vec<u64> = info.members.iter().map(|peer| peer.0).collect();
        let (to_sources, to_members) = (asked.sources, asked.members);
        // SAFETY: the caller of `new` vouched for the lists.
        unsafe {
            memory::set_list(
                to_sources,
                asked.sources_capacity,
                "info->sources",
                &sources,
            )?;
            memory::set_list(
                to_members,
                asked.members_capacity,
                "info->members",
                &members,
            )?;
        }
        let world_size = info.view.members.len();
        place.set(cclSyncInfo_t {
            sources_count: sources.len(),
            members_count: members.len(),
            revision: info.revision,
            root: info.root.0,
            sent_bytes: info.sent_bytes,
            received_bytes: info.received_bytes,
            duration_us: microseconds(info.duration),
            hashing_us: microseconds(info.hashing),
            term: info.view.vid.term.0,
            epoch: info.view.vid.epoch.0,
            world_size: u32::try_from(world_size).expect("a view has at most WORLD_SIZE_MAX"),
            attempts: info.attempts,
            number: info.op.n.0,
            ..asked
        });
        Ok(())
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
