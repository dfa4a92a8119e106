//! Settings of a communicator and a master, as C structs in which 0 is every field's default.

use std::ffi::c_char;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ccl_core::ids::UnitId;
use ccl_core::{CommunicatorConfig, Error, GroupId, MasterConfig, Paths, Roster, Timers, limits};

use crate::memory::{self, Growing};
use crate::result::Outcome;
use crate::types::{milliseconds, optional_milliseconds};

/// Settings of a peer. 0 and NULL are the default of every field: clear the struct, set
/// `struct_bytes`, then what you want to change. Texts are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclCommunicatorConfig_t {
    /// `sizeof(cclCommunicatorConfig_t)`.
    pub struct_bytes: usize,
    /// The master's `host:port`; a host name is resolved at each attempt. NULL: `127.0.0.1:48148`.
    pub master: *const c_char,
    /// Name of the run, at most 512 bytes; a master of another run refuses the peer. NULL:
    /// `default`.
    pub run: *const c_char,
    /// `ip:port` to listen on for other peers; port 0 lets the system choose. NULL: all addresses,
    /// with the port of `advertise`; only loopback if `master` is a loopback address or
    /// `localhost`.
    pub listen: *const c_char,
    /// `host:port` to advertise to other peers, for peers behind a port mapping; port 0 is the
    /// listening port. NULL: the address that the master sees, and those of this host.
    pub advertise: *const c_char,
    /// TCP congestion control of the lanes, such as `bbr`, or `keep` for the system's choice; if
    /// the system does not have it, it is ignored with a line in the log. NULL or `auto`: if
    /// permitted, `cubic`, and over long paths `bbr` where it helps, else the system's choice.
    pub congestion_control: *const c_char,
    /// Failure unit: peers that join, leave and fail together. Used only with `has_unit`.
    pub unit: u64,
    /// How long cclConnect may take, including the time without a master, in milliseconds. 0: 90 s.
    pub connect_timeout_ms: u64,
    /// Deadline of calls without one of their own, in milliseconds; CCL_FOREVER: none. 0: 10
    /// minutes.
    pub operation_timeout_ms: u64,
    /// Scratch memory for received contributions, in bytes, 16 MiB to 1 GiB. 0: 32 MiB.
    pub scratch_bytes: u64,
    /// Limit on the bytes per second that each lane sends. 0: as measured.
    pub pacing_bytes_per_second: u64,
    /// Limit on the shared-state bytes per second that this peer sends to others. 0: no limit.
    pub state_bytes_per_second: u64,
    /// Peer group: peers of one group reduce together.
    pub group: u64,
    /// 1: use `unit`. 0: this peer is a unit by itself.
    pub has_unit: u32,
    /// Data connections of each link that this peer dials, 1 to 32. 0: 1 to a peer on the same
    /// host, to any other 4 at first and then 2 to 16 as rate and round trip need.
    pub lanes: u32,
    /// Smallest world size that operations run with, 1 to 256. 0: 1.
    pub min_world_size: u32,
    /// Number of peers that the group's first view waits for, up to 256. 0: `min_world_size`.
    pub initial_world_size: u32,
    /// 1: data segments carry no CRC-32.
    pub is_checksum_off: u32,
    /// Threads that move bytes, 1 to 256. 0: half the cores, 1 to 4.
    pub io_threads: u32,
    /// Number of peers in the unit, over all groups, 1 to 1024. They are admitted together, to each
    /// group at the cclUpdateTopology of the same number. Peers with another `unit_size`, and
    /// surplus peers, are refused. Needs `has_unit`. 0: peers of the unit do not wait for each
    /// other.
    pub unit_size: u32,
    /// Name of this peer in errors, logs and events, at most 64 bytes. NULL: host name and process
    /// id.
    pub name: *const c_char,
    /// Names of the fixed members of the group in rank order, each unique, which all members give
    /// alike. The group is then closed: it forms once, with exactly these members in this order,
    /// and nobody joins it later; `group` must be an id that no group has had. Not with
    /// `unit_size`. NULL: the group is open.
    pub members: *const *const c_char,
    /// Number of `members`, 1 to 256; 0 if `members` is NULL.
    pub members_count: u32,
    /// This peer's index in `members`, which is its rank.
    pub rank: u32,
}

impl Default for cclCommunicatorConfig_t {
    fn default() -> Self {
        let none = std::ptr::null();
        Self {
            struct_bytes: 0,
            master: none,
            run: none,
            listen: none,
            advertise: none,
            congestion_control: none,
            unit: 0,
            connect_timeout_ms: 0,
            operation_timeout_ms: 0,
            scratch_bytes: 0,
            pacing_bytes_per_second: 0,
            state_bytes_per_second: 0,
            group: 0,
            has_unit: 0,
            lanes: 0,
            min_world_size: 0,
            initial_world_size: 0,
            is_checksum_off: 0,
            io_threads: 0,
            unit_size: 0,
            name: none,
            members: std::ptr::null(),
            members_count: 0,
            rank: 0,
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and pointers only.
unsafe impl Growing for cclCommunicatorConfig_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Settings of a master. 0 and NULL are the default of every field: clear the struct, set
/// `struct_bytes`, then what you want to change. Texts are copied. Timeouts are in milliseconds and
/// are sent to each newcomer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclMasterConfig_t {
    /// `sizeof(cclMasterConfig_t)`.
    pub struct_bytes: usize,
    /// `ip:port` to listen on; port 0 lets the system choose. NULL: `127.0.0.1:48148`.
    pub listen: *const c_char,
    /// Name of the run, at most 512 bytes. NULL: `default`.
    pub run: *const c_char,
    /// Path of the journal, the master's history on disk. NULL: none; a restarted master then needs
    /// a majority of each view.
    pub journal: *const c_char,
    /// 1: views and decisions are sent to peers before they are on disk.
    pub is_fsync_off: u32,
    /// 1: found a run at once, without waiting for members of an earlier one.
    pub is_new_run: u32,
    /// 1: rebuild from the members that are back, even without a journal or a majority. You assert
    /// that no other members are still running.
    pub is_rebuild_forced: u32,
    /// 1: accept a journal without its marker, because it was moved. Risk: an older copy may
    /// contradict what members already know.
    pub is_journal_trusted: u32,
    /// 1: do not wait for members of an earlier run or view. You assert that none is alive. Risk:
    /// one that is goes on for a while beside its replacements.
    pub are_members_gone: u32,
    /// 0.
    pub reserved: u32,
    /// Interval between heartbeats, in both directions. 0: 250.
    pub heartbeat_interval_ms: u64,
    /// Silence after which a peer, or the master, counts as dead; at least two heartbeats. 0: 5000.
    pub peer_timeout_ms: u64,
    /// How long a member may take to restore a lost control connection, if no data connection
    /// ended. 0: 2000.
    pub reattach_grace_ms: u64,
    /// How long reports of broken links are collected before a peer is blamed. 0: 500.
    pub blame_window_ms: u64,
    /// How long the repair of a connection may take before the link counts as down. 0: 3000.
    pub link_timeout_ms: u64,
    /// How long a restarted master waits for the members of its last view. 0: 5000.
    pub rebuild_window_ms: u64,
    /// How long a peer keeps running without a master before its session ends. 0: 60000.
    pub detach_timeout_ms: u64,
    /// How long a cancelled call waits for its verdict before it ends as unknown. 0: 10000.
    pub verdict_timeout_ms: u64,
    /// How late a member may join an operation that the others have called; CCL_FOREVER: no limit.
    /// Keep it shorter than operation_timeout_ms, else calls time out first. 0: 5 minutes.
    pub post_timeout_ms: u64,
    /// Time from one member to another and back, in microseconds. 0: guessed.
    pub link_round_trip_us: u64,
    /// Bytes per second that a member sends, and receives. 0: guessed.
    pub link_bytes_per_second: u64,
    /// Receive memory of each member for data that is sent with a call, before it is asked for, at
    /// most 64 MiB; less than 64 KiB turns it off. 0: 16 MiB.
    pub reserve_bytes: u64,
}

impl Default for cclMasterConfig_t {
    fn default() -> Self {
        let none = std::ptr::null();
        Self {
            struct_bytes: 0,
            listen: none,
            run: none,
            journal: none,
            is_fsync_off: 0,
            is_new_run: 0,
            is_rebuild_forced: 0,
            is_journal_trusted: 0,
            are_members_gone: 0,
            reserved: 0,
            heartbeat_interval_ms: 0,
            peer_timeout_ms: 0,
            reattach_grace_ms: 0,
            blame_window_ms: 0,
            link_timeout_ms: 0,
            rebuild_window_ms: 0,
            detach_timeout_ms: 0,
            verdict_timeout_ms: 0,
            post_timeout_ms: 0,
            link_round_trip_us: 0,
            link_bytes_per_second: 0,
            reserve_bytes: 0,
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and pointers only.
unsafe impl Growing for cclMasterConfig_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// The members that a closed group is to have.
///
/// # Safety
/// `members` are `members_count` texts.
unsafe fn roster(c: &cclCommunicatorConfig_t) -> Outcome<Option<Roster>> {
    if c.members.is_null() && c.members_count == 0 {
        return Ok(None);
    }
    let (count, name) = (c.members_count as usize, "config->members");
    // SAFETY: passed on from the caller.
    let pointers = unsafe { memory::list(c.members, count, limits::WORLD_SIZE_MAX, name) }?;
    let mut members = Vec::with_capacity(count);
    for pointer in pointers {
        // SAFETY: passed on from the caller.
        let member = unsafe { memory::text(pointer, name) }?;
        members.push(member.ok_or_else(|| Error::invalid("a name in config->members is NULL"))?);
    }
    let rank = c.rank;
    Ok(Some(Roster { members, rank }))
}

/// The core's form of a communicator's config.
///
/// # Safety
/// `pointer` is NULL or points to a config whose texts end with zero bytes.
pub(crate) unsafe fn communicator_config(
    pointer: *const cclCommunicatorConfig_t,
) -> Outcome<CommunicatorConfig> {
    // SAFETY: passed on from the caller.
    let c = unsafe { memory::growing(pointer, "config") }?;
    // SAFETY: passed on from the caller.
    let text = |text, name| unsafe { memory::text(text, name) };
    let default = CommunicatorConfig::default();
    let lanes = u16::try_from(c.lanes).map_err(|_| Error::invalid("lanes must be 1 to 32"))?;
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let config = CommunicatorConfig {
        master: text(c.master, "config->master")?.unwrap_or(default.master),
        run: text(c.run, "config->run")?.unwrap_or(default.run),
        name: text(c.name, "config->name")?,
        group: GroupId(c.group),
        unit: memory::switch(c.has_unit, "config->has_unit")?.then_some(UnitId(c.unit)),
        unit_size: (c.unit_size != 0).then_some(c.unit_size),
        // SAFETY: passed on from the caller.
        roster: unsafe { roster(&c) }?,
        listen: address(text(c.listen, "config->listen")?, "config->listen")?,
        advertise: text(c.advertise, "config->advertise")?,
        lanes: (lanes != 0).then_some(lanes),
        min_world_size: or(c.min_world_size, default.min_world_size),
        initial_world_size: (c.initial_world_size != 0).then_some(c.initial_world_size),
        connect_timeout: milliseconds(c.connect_timeout_ms, default.connect_timeout),
        operation_timeout: optional_milliseconds(c.operation_timeout_ms, default.operation_timeout),
        checksum: !memory::switch(c.is_checksum_off, "config->is_checksum_off")?,
        scratch_bytes: match c.scratch_bytes {
            0 => default.scratch_bytes,
            bytes => size(bytes, "config->scratch_bytes")?,
        },
        io_threads: match c.io_threads {
            0 => None,
            threads => Some(size(threads.into(), "config->io_threads")?),
        },
        congestion_control: text(c.congestion_control, "config->congestion_control")?,
        pacing_bytes_per_second: (c.pacing_bytes_per_second != 0)
            .then_some(c.pacing_bytes_per_second),
        state_bytes_per_second: (c.state_bytes_per_second != 0).then_some(c.state_bytes_per_second),
    };
    config.validate()?;
    Ok(config)
}

/// The core's form of a master's config.
///
/// # Safety
/// `pointer` is NULL or points to a config whose texts end with zero bytes.
pub(crate) unsafe fn master_config(pointer: *const cclMasterConfig_t) -> Outcome<MasterConfig> {
    // SAFETY: passed on from the caller.
    let c = unsafe { memory::growing(pointer, "config") }?;
    if c.reserved != 0 {
        return Err(Error::invalid("config->reserved must be 0").into());
    }
    // SAFETY: passed on from the caller.
    let text = |text, name| unsafe { memory::text(text, name) };
    let default = MasterConfig::default();
    let listen = address(text(c.listen, "config->listen")?, "config->listen")?;
    let config = MasterConfig {
        listen: listen.unwrap_or(default.listen),
        run: text(c.run, "config->run")?.unwrap_or(default.run),
        journal: text(c.journal, "config->journal")?.map(PathBuf::from),
        members_gone: memory::switch(c.are_members_gone, "config->are_members_gone")?,
        trust_journal: memory::switch(c.is_journal_trusted, "config->is_journal_trusted")?,
        fsync: !memory::switch(c.is_fsync_off, "config->is_fsync_off")?,
        new_run: memory::switch(c.is_new_run, "config->is_new_run")?,
        force_rebuild: memory::switch(c.is_rebuild_forced, "config->is_rebuild_forced")?,
        timers: timers(&c),
        paths: paths(&c),
    };
    config.validate()?;
    Ok(config)
}

fn paths(c: &cclMasterConfig_t) -> Paths {
    let default = Paths::default();
    let round_trip = Duration::from_micros(c.link_round_trip_us);
    Paths {
        round_trip: (c.link_round_trip_us != 0).then_some(round_trip),
        bytes_per_second: (c.link_bytes_per_second != 0).then_some(c.link_bytes_per_second),
        reserve_bytes: match c.reserve_bytes {
            0 => default.reserve_bytes,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        },
    }
}

fn timers(c: &cclMasterConfig_t) -> Timers {
    let default = Timers::default();
    Timers {
        heartbeat_interval: milliseconds(c.heartbeat_interval_ms, default.heartbeat_interval),
        peer_timeout: milliseconds(c.peer_timeout_ms, default.peer_timeout),
        reattach_grace: milliseconds(c.reattach_grace_ms, default.reattach_grace),
        blame_window: milliseconds(c.blame_window_ms, default.blame_window),
        link_timeout: milliseconds(c.link_timeout_ms, default.link_timeout),
        rebuild_window: milliseconds(c.rebuild_window_ms, default.rebuild_window),
        detach_timeout: milliseconds(c.detach_timeout_ms, default.detach_timeout),
        verdict_timeout: milliseconds(c.verdict_timeout_ms, default.verdict_timeout),
        post_timeout: optional_milliseconds(c.post_timeout_ms, default.post_timeout),
    }
}

fn address(text: Option<String>, name: &str) -> Outcome<Option<SocketAddr>> {
    let Some(text) = text else { return Ok(None) };
    let what = |_| Error::invalid(format!("{name} {text:?} is not an `ip:port`"));
    Ok(Some(text.parse().map_err(what)?))
}

fn size(number: u64, name: &str) -> Outcome<usize> {
    let what = |_| Error::invalid(format!("{name} is beyond the address space"));
    Ok(usize::try_from(number).map_err(what)?)
}
