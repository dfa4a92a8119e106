//! A peer of a run: creating it, joining, leaving, and its attributes.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use ccl_core::lock::Mutex;
use ccl_core::wire::control::Member;
use ccl_core::{CommunicatorConfig, Connecting, Error};

use crate::call::call;
use crate::config::{cclCommunicatorConfig_t, communicator_config};
use crate::handles::{self, Kind};
use crate::memory::{self, Growing};
use crate::result::{Failure, Outcome, cclResult_t};

/// Opaque; see cclCommunicator_t.
pub struct cclCommunicator {
    _private: [u8; 0],
}

/// A peer of a run: one session. Any thread may use it. Destroy it with cclDestroyCommunicator.
pub type cclCommunicator_t = *mut cclCommunicator;

/// Attributes of a communicator, for cclGetAttribute.
pub type cclAttribute_t = u32;

/// Rank of this peer in the view of the newest result. Needs a connection.
pub const cclAttributeRank: cclAttribute_t = 0;
/// Members of that view. Needs a connection.
pub const cclAttributeWorldSize: cclAttribute_t = 1;
/// Id of this session, never reused in a run. Needs a connection.
pub const cclAttributePeer: cclAttribute_t = 2;
/// Term of the view of the newest result. Needs a connection.
pub const cclAttributeTerm: cclAttribute_t = 3;
/// Epoch of that view. Needs a connection.
pub const cclAttributeEpoch: cclAttribute_t = 4;
/// Newcomers that the next cclUpdateTopology may admit. Needs a connection.
pub const cclAttributePendingPeers: cclAttribute_t = 5;
/// Port at which other peers reach this one. Needs a connection.
pub const cclAttributeListenPort: cclAttribute_t = 6;
/// Peer group.
pub const cclAttributeGroup: cclAttribute_t = 7;
/// Data connections of each link that this peer dials; 0: depends on whether the other is on the
/// same host.
pub const cclAttributeLanes: cclAttribute_t = 8;
/// Smallest world size that operations run with.
pub const cclAttributeMinWorldSize: cclAttribute_t = 9;
/// Number of peers that the group's first view waits for.
pub const cclAttributeInitialWorldSize: cclAttribute_t = 10;
/// Members of all peer groups of the run together: cclAttributeWorldSize plus the members of the
/// other groups as last reported by the master, at most a heartbeat ago while it runs. For
/// information only. Needs a connection.
pub const cclAttributeGlobalWorldSize: cclAttribute_t = 11;
/// Number of peer groups that have members, including this peer's; the others as above. Needs a
/// connection.
pub const cclAttributeGroups: cclAttribute_t = 12;
/// Members of the largest peer group; other groups as above. Needs a connection.
pub const cclAttributeLargestGroup: cclAttribute_t = 13;

/// Counters of a communicator since it was connected.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclCounters_t {
    /// Set it to `sizeof(cclCounters_t)` before the call.
    pub struct_bytes: usize,
    /// Operations that committed.
    pub commits: u64,
    /// Operations that were aborted, each attempt counted.
    pub aborts: u64,
    /// Connections that broke and were repaired without an abort.
    pub repairs: u64,
    /// Bytes sent to other peers.
    pub sent_bytes: u64,
    /// Bytes received from other peers.
    pub received_bytes: u64,
    /// Data connections of the current link with the most; 0 if there is no other peer.
    pub lanes: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclCounters_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Creates a communicator, which is not connected yet. `config` may be NULL and is not kept. Does
/// not block.
///
/// Errors: cclErrorInvalidArgument names the field.
#[unsafe(export_name = "cclCreateCommunicator")]
pub unsafe extern "C" fn create_communicator(
    config: *const cclCommunicatorConfig_t,
    communicator: *mut cclCommunicator_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, config) = unsafe {
            (
                memory::out(communicator, "communicator")?,
                communicator_config(config)?,
            )
        };
        let state = Mutex::new(State::Created);
        place.set(handles::insert(Arc::new(Communicator { config, state })));
        Ok(())
    })
}

/// Joins the run: registers with the master, links with the members, and returns once admitted. The
/// master may start later than its peers. Blocks up to `connect_timeout_ms`, plus the time the
/// system takes to look up the host names in the config; cclLeave or cclDestroyCommunicator on
/// another thread ends it early. After a failure it may be called again.
///
/// Errors: cclErrorMasterUnreachable, cclErrorNotAdmitted, cclErrorRefused; cclErrorEnded if
/// another thread gave it up; cclErrorInvalidUsage if it was connected before; cclErrorSystem,
/// cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclConnect")]
pub unsafe extern "C" fn connect(communicator: cclCommunicator_t) -> cclResult_t {
    call(|| {
        let communicator = handles::get::<Communicator, _>(communicator)?;
        communicator.begin()?;
        let end = communicator.connect();
        communicator.finish(end)
    })
}

/// Leaves the run: cancels this peer's open calls, tells the master, and blocks until it answers,
/// at most the master's `verdict_timeout_ms`. Every later call that needs the run returns
/// cclErrorEnded; attributes and counters stay as they are. If another thread is in cclConnect,
/// this ends that call within a second.
///
/// Errors: cclErrorInvalidUsage if it is not connected; if the session had already ended, the error
/// that ended it; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclLeave")]
pub unsafe extern "C" fn leave(communicator: cclCommunicator_t) -> cclResult_t {
    call(|| {
        let communicator = handles::get::<Communicator, _>(communicator)?;
        let connecting = match &mut *communicator.state.lock() {
            State::Starting { is_given_up } => {
                *is_given_up = true;
                return Ok(());
            }
            State::Connecting(connecting) => Some(connecting.clone()),
            _ => None,
        };
        if let Some(connecting) = connecting {
            connecting.cancel();
            return Ok(());
        }
        Ok(communicator.connected()?.leave()?)
    })
}

/// Leaves the run, ends calls of other threads with cclErrorEnded, and destroys the handle. Blocks
/// at most a second, for the master's answer. All its operations have then ended, and their memory
/// is the caller's. Their handles stay valid until cclDestroyOperation.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclDestroyCommunicator")]
pub unsafe extern "C" fn destroy_communicator(communicator: cclCommunicator_t) -> cclResult_t {
    call(|| {
        let communicator = handles::remove::<Communicator, _>(communicator)?;
        let state = std::mem::replace(&mut *communicator.state.lock(), State::Destroyed);
        match state {
            State::Created | State::Starting { .. } | State::Destroyed => {}
            State::Connecting(connecting) => connecting.cancel(),
            State::Connected(connected) => connected.close(),
        }
        Ok(())
    })
}

/// Writes one attribute. Rank, world size, term and epoch change only when a call of this
/// communicator returns. Does not block.
///
/// Errors: cclErrorInvalidArgument for an unknown attribute; cclErrorInvalidUsage for one that
/// needs a connection before there is one; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetAttribute")]
pub unsafe extern "C" fn get_attribute(
    communicator: cclCommunicator_t,
    attribute: cclAttribute_t,
    value: *mut u64,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(value, "value") }?;
        let communicator = handles::get::<Communicator, _>(communicator)?;
        place.set(communicator.attribute(attribute)?);
        Ok(())
    })
}

/// Writes the ids of the members of the view of the newest result, in rank order: at most
/// `capacity` of them, and their number. `peers` may be NULL if `capacity` is 0. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetMembers")]
pub unsafe extern "C" fn get_members(
    communicator: cclCommunicator_t,
    peers: *mut u64,
    capacity: usize,
    count: *mut usize,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(count, "count") }?;
        let view = handles::get::<Communicator, _>(communicator)?
            .connected()?
            .view();
        let members: Vec<u64> = view.members.iter().map(|member| member.peer.0).collect();
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_list(peers, capacity, "peers", &members) }?;
        place.set(members.len());
        Ok(())
    })
}

/// Writes the name of the member at `rank` in the view of the newest result, with a zero byte at
/// the end; CCL_NAME_BYTES_MAX bytes are always enough. Does not block.
///
/// Errors: cclErrorInvalidArgument if there is no such rank, or the name does not fit;
/// cclErrorInvalidUsage if it is not connected; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetMemberName")]
pub unsafe extern "C" fn get_member_name(
    communicator: cclCommunicator_t,
    rank: u32,
    name: *mut c_char,
    name_bytes: usize,
) -> cclResult_t {
    call(|| {
        let member = member(communicator, rank)?;
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_text(name, name_bytes, "name", &member.name) }
    })
}

/// Writes the first `ip:port` at which others reach the member at `rank` in the view of the newest
/// result, with a zero byte at the end; CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not
/// block.
///
/// Errors: as cclGetMemberName.
#[unsafe(export_name = "cclGetMemberAddress")]
pub unsafe extern "C" fn get_member_address(
    communicator: cclCommunicator_t,
    rank: u32,
    address: *mut c_char,
    address_bytes: usize,
) -> cclResult_t {
    call(|| {
        let member = member(communicator, rank)?;
        let text = member
            .addresses
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_text(address, address_bytes, "address", &text) }
    })
}

fn member(communicator: cclCommunicator_t, rank: u32) -> Outcome<Member> {
    let view = handles::get::<Communicator, _>(communicator)?
        .connected()?
        .view();
    let member = view.members.get(rank as usize).cloned();
    let world_size = view.members.len();
    let none = || {
        Error::invalid(format!(
            "there is no rank {rank} among {world_size} members"
        ))
    };
    Ok(member.ok_or_else(none)?)
}

/// Writes the ring of the view of the newest result: ranks, each followed by its next; at most
/// `capacity` of them, and their number. `ranks` may be NULL if `capacity` is 0. Does not block.
///
/// Errors: as cclGetMembers.
#[unsafe(export_name = "cclGetRingOrder")]
pub unsafe extern "C" fn get_ring_order(
    communicator: cclCommunicator_t,
    ranks: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(count, "count") }?;
        let view = handles::get::<Communicator, _>(communicator)?
            .connected()?
            .view();
        let ring: Vec<u32> = view.ring_order.iter().map(|rank| rank.0).collect();
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_list(ranks, capacity, "ranks", &ring) }?;
        place.set(ring.len());
        Ok(())
    })
}

/// Writes the `ip:port` that this peer listens on for others, with a zero byte at the end;
/// CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not block.
///
/// Errors: cclErrorInvalidArgument if it does not fit; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetListenAddress")]
pub unsafe extern "C" fn get_listen_address(
    communicator: cclCommunicator_t,
    address: *mut c_char,
    address_bytes: usize,
) -> cclResult_t {
    call(|| {
        let communicator = handles::get::<Communicator, _>(communicator)?;
        let text = communicator.connected()?.listen_address().to_string();
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_text(address, address_bytes, "address", &text) }
    })
}

/// Writes the counters. Does not block.
///
/// Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetCounters")]
pub unsafe extern "C" fn get_counters(
    communicator: cclCommunicator_t,
    counters: *mut cclCounters_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::growing_out(counters, "counters") }?;
        let communicator = handles::get::<Communicator, _>(communicator)?;
        let counters = communicator.connected()?.counters();
        place.set(cclCounters_t {
            struct_bytes: 0,
            commits: counters.commits,
            aborts: counters.aborts,
            repairs: counters.repairs,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            lanes: counters.lanes.into(),
            reserved: 0,
        });
        Ok(())
    })
}

/// What a `cclCommunicator_t` stands for.
#[derive(Debug)]
pub(crate) struct Communicator {
    config: CommunicatorConfig,
    state: Mutex<State>,
}

impl Kind for Communicator {
    const NAME: &'static str = "communicator";
}

#[derive(Debug)]
enum State {
    Created,
    /// A thread is in cclConnect and looks names up.
    Starting {
        is_given_up: bool,
    },
    Connecting(Connecting),
    Connected(ccl_core::Communicator),
    Destroyed,
}

fn destroyed() -> Failure {
    Error::Ended("the communicator was destroyed".into()).into()
}

impl Communicator {
    /// The core's communicator, if it is connected.
    pub(crate) fn connected(&self) -> Outcome<ccl_core::Communicator> {
        match &*self.state.lock() {
            State::Connected(connected) => Ok(connected.clone()),
            State::Created | State::Starting { .. } | State::Connecting(_) => {
                Err(Error::usage("the communicator is not connected: call cclConnect").into())
            }
            State::Destroyed => Err(destroyed()),
        }
    }

    /// Marks it as connecting; fails if another thread has.
    fn begin(&self) -> Outcome<()> {
        let mut state = self.state.lock();
        match *state {
            State::Created => {
                *state = State::Starting { is_given_up: false };
                Ok(())
            }
            State::Starting { .. } | State::Connecting(_) | State::Connected(_) => {
                let what = "a communicator connects only once; create another";
                Err(Error::usage(what).into())
            }
            State::Destroyed => Err(destroyed()),
        }
    }

    /// Blocks until it is connected, or given up. The lock is not held while the system resolves
    /// names, which may take long.
    fn connect(&self) -> Outcome<ccl_core::Communicator> {
        let connecting = ccl_core::Communicator::connect_async(self.config.clone())?;
        {
            let mut state = self.state.lock();
            match *state {
                State::Starting { is_given_up: false } => {
                    *state = State::Connecting(connecting.clone());
                }
                State::Starting { is_given_up: true } => {
                    return Err(Error::Ended("cclLeave was called meanwhile".into()).into());
                }
                _ => return Err(destroyed()),
            }
        }
        loop {
            if let Some(connected) = connecting.wait_for(Duration::MAX)? {
                return Ok(connected);
            }
        }
    }

    /// Keeps what came of it; after a failure it may be connected again.
    fn finish(&self, end: Outcome<ccl_core::Communicator>) -> Outcome<()> {
        let mut state = self.state.lock();
        if matches!(*state, State::Destroyed) {
            return Err(destroyed());
        }
        match end {
            Ok(connected) => {
                *state = State::Connected(connected);
                Ok(())
            }
            Err(failure) => {
                *state = State::Created;
                Err(failure)
            }
        }
    }

    fn attribute(&self, attribute: cclAttribute_t) -> Outcome<u64> {
        let config = &self.config;
        Ok(match attribute {
            cclAttributeRank => self.connected()?.rank().0.into(),
            cclAttributeWorldSize => self.connected()?.world_size().into(),
            cclAttributePeer => self.connected()?.peer().0,
            cclAttributeTerm => self.connected()?.view().vid.term.0.into(),
            cclAttributeEpoch => self.connected()?.view().vid.epoch.0.into(),
            cclAttributePendingPeers => self.connected()?.pending_peers().into(),
            cclAttributeListenPort => self.connected()?.listen_address().port().into(),
            cclAttributeGroup => config.group.0,
            cclAttributeLanes => config.lanes.unwrap_or(0).into(),
            cclAttributeMinWorldSize => config.min_world_size.into(),
            cclAttributeInitialWorldSize => config.first_world_size().into(),
            cclAttributeGlobalWorldSize => self.connected()?.census().global_world_size.into(),
            cclAttributeGroups => self.connected()?.census().groups.into(),
            cclAttributeLargestGroup => self.connected()?.census().largest_group.into(),
            _ => {
                let what = format!("unknown attribute {attribute}; expected 0 to 13");
                return Err(Error::invalid(what).into());
            }
        })
    }
}
