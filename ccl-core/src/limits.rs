//! Every limit of the library, with its unit and its reason.

use std::time::Duration;

/// Most members of one group. Direct algorithms keep a link to each; 256 links of 8 lanes stay
/// below the usual limit of 4,096 file descriptors.
pub const WORLD_SIZE_MAX: usize = 256;
/// Most peers that one master serves, over all groups, newcomers included.
pub const PEERS_MAX: usize = 1024;
/// Most tags that a group may use; idle ones are returned.
pub const TAGS_MAX: usize = 4096;
/// Number of tags at which a group makes a view change to return its idle tags. It is so far below
/// the maximum that neither the current message nor the posts that members make before the view
/// change can exceed it, however many operations they have open.
pub const TAGS_KEPT: usize = TAGS_MAX - 2 * OPEN_OPS_MAX;
/// Most operations a peer may have open at once, one per tag.
pub const OPEN_OPS_MAX: usize = 1024;
/// Most parts of one `all_reduce_many`.
pub const PARTS_MAX: usize = 65_536;
/// Most addresses a peer may announce.
pub const ADDRESSES_MAX: usize = 8;
/// Longest run name, reason or other text in a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest name of a peer, in bytes: a line of a log still shows a few.
pub const NAME_BYTES_MAX: usize = 64;
/// Most peers named in the text of a wait; the rest are counted.
pub const WAIT_NAMES_MAX: usize = 8;
/// Longest name with an address, in bytes.
pub const LABEL_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// Interval between two checks of what a group waits for. A wait that lasts from one to the next is
/// reported to the operator; making links normally takes less.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest name that a caller gives a call, such as `reduce to rank 2`, in bytes.
pub const CALLER_BYTES_MAX: usize = 128;
/// Longest control frame. An `Install` names 4,096 tags of some 100 bytes and 256 members of some
/// 400: half a mebibyte. An `Attach` names the tags, with abort reasons of half a mebibyte, and
/// carries records of as much and one more, of two.
pub const CONTROL_FRAME_BYTES_MAX: u32 = 4 << 20;
/// Control bytes queued to one connection before it counts as dead.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 8 << 20;
/// How long a connection may take to identify itself.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Unidentified connections a port keeps at once; the oldest gives way.
pub const UNIDENTIFIED_MAX: usize = 64;
/// Bytes of incomplete messages that a master's unidentified connections may hold together; the
/// oldest gives way. Room for one `Attach` of full length, and for shorter messages beside it.
pub const UNIDENTIFIED_BYTES_MAX: usize = 9 << 19;
/// Most groups of one master: as many as peers, if each were alone. Groups without members give
/// way.
pub const GROUPS_MAX: usize = PEERS_MAX;
/// Ids of ended closed groups that a master remembers, to refuse them; the oldest is forgotten
/// first.
pub const USED_GROUPS_MAX: usize = 65_536;
/// Ended sessions whose reason is remembered, to answer a late attach.
pub const ENDED_SESSIONS_MAX: usize = PEERS_MAX;
/// How many of these a journal keeps across a restart: more than leave a run at once, and few
/// enough to take little space beside the views.
pub const ENDED_SESSIONS_KEPT: usize = 256;
/// Addresses whose evictions for broken links are remembered.
pub const BACKOFFS_MAX: usize = PEERS_MAX;
/// How long a peer that rejoins after broken links waits the first time; doubled each time.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest such wait. A peer without faults for this long starts from the shortest again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Shortest time between two `Expect` to the same peers, so that many newcomers share a few
/// messages.
pub const EXPECT_INTERVAL: Duration = Duration::from_millis(10);
/// Peer ids that a master without a journal skips after the newest it knows, since later ones may
/// have been assigned.
pub const PEER_ID_GAP: u64 = 1_000_000;
/// Abort reasons remembered per tag, newest last (R2).
pub const ABORT_REASONS_MAX: usize = 16;
/// Bytes of abort reasons of all tags in one message: a quarter of a control frame. The oldest are
/// left out.
pub const ABORT_REASONS_BYTES_MAX: usize = 512 << 10;

/// Most streams of records of a group.
pub const STREAMS_MAX: usize = 32;
/// Longest entry of one member in a record, in bytes.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 4096;
/// Most entries of a record: of each member one for its step and one that was late.
pub const RECORD_ENTRIES_MAX: usize = 2 * WORLD_SIZE_MAX;
/// Most steps by which an entry may be late and still be in a record.
pub const RECORD_AGE_MAX: usize = 16;
/// Records by which a member may be behind in a stream; one that is further behind is evicted.
pub const RECORDS_BEHIND_MAX: u64 = 1024;
/// Most records of a stream in one message: those that some member is behind, and a few more that
/// are sealed before it is gone.
pub const RECORDS_KEPT_MAX: usize = 2 * RECORDS_BEHIND_MAX as usize;
/// Bytes of the records, of all streams of a group, that some member has not consumed; beyond that,
/// whoever is furthest behind is evicted. Members keep these records for a master that has lost
/// them, and report them in one message.
pub const RECORDS_BEHIND_BYTES_MAX: usize = 512 << 10;
/// Bytes of records of a stream that a master keeps for members that ask: those that some member is
/// behind, and the newest of those that are consumed.
pub const RECORD_LOG_BYTES_MAX: usize = 4 << 20;

/// Largest payload that goes eagerly, without a credit, in bytes of the whole operation.
pub const EAGER_BYTES_MAX: usize = 64 << 10;
/// Unfinished eager operations per sender; further ones fall back to rendezvous. A receiver holds
/// at most twice as many per link: per tag, one decided and one open.
pub const EAGER_OPS_MAX: usize = 8;
/// Largest segment of a chunk on the wire: an eighth of the second-level cache of a small server
/// core.
pub const SEGMENT_BYTES_MAX: usize = 256 << 10;
/// Smallest segment that a large world cuts down to.
pub const SEGMENT_BYTES_MIN: usize = 64 << 10;
/// Least scratch memory of one communicator, in bytes. Operations are cut into segments for it.
pub const SCRATCH_BYTES_MIN: usize = 16 << 20;
/// Scratch memory by default, in bytes: what is under way at 1 Gbit/s over 100 ms, and as much
/// again while a lost segment holds the rest up. Only what is used takes memory.
pub const SCRATCH_BYTES_DEFAULT: usize = 32 << 20;
/// Receive memory of one member for data that is sent ahead of credits, in bytes, by default: a
/// mebibyte for each link of a world of 17.
pub const RESERVE_BYTES_DEFAULT: usize = 16 << 20;
/// Most of it that may be set: a round trip of 100 ms at 5 Gbit/s.
pub const RESERVE_BYTES_MAX: usize = 64 << 20;
/// Address space for it, used as data comes: twice as much as members are allowed to send, since
/// data of aborted operations may be here while that of the next ones comes.
pub const RESERVE_POOL_BYTES: usize = 2 * RESERVE_BYTES_MAX;
/// Most entries of a shared state.
pub const STATE_ENTRIES_MAX: usize = 100_000;
/// Most scratch memory of one communicator, in bytes: enough for the largest world with many
/// segments in flight, and little enough that the system hardly ever refuses it.
pub const SCRATCH_BYTES_MAX: usize = 1 << 30;
/// Most threads that move the bytes of one communicator: more than any machine's network needs.
pub const IO_THREADS_MAX: usize = 256;
/// Open requests per receiver at a source of shared state.
pub const STATE_ASKS_MAX: usize = 1024;
/// Most data lanes of one link.
pub const LANES_MAX: u16 = 32;
/// Data lanes of one link by default.
pub const LANES_DEFAULT: u16 = 4;
/// Most data lanes that a link uses by itself. More of them would only help against random losses,
/// which another congestion control ignores.
pub const LANES_AUTO_MAX: u16 = 16;
/// Bulk lanes between peers of one host by default. Memory is the bottleneck there; segments on
/// more lanes only evict each other from the cache.
pub const LANES_SAME_HOST: u16 = 1;
/// Most unacknowledged frames on a lane; beyond that the sender waits.
pub const UNACKED_FRAMES_MAX: usize = 1024;
/// Frames after which a receiver acknowledges without being asked.
pub const ACK_INTERVAL_FRAMES: u64 = 64;
/// Small frames (posts, credits, eager data) queued on a link before it counts as stuck.
pub const SIGNAL_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Payload of a small frame: an eager chunk and its fingerprint.
pub const SIGNAL_PAYLOAD_BYTES_MAX: usize = EAGER_BYTES_MAX + 4096;

/// Longest record of a master's journal, in bytes. A view with 4,096 tags, each with some abort
/// reasons, takes a few mebibytes.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 256 << 20;
/// Largest operation number, safe point or attach counter in a message. No run lives that long, and
/// counting up from it cannot overflow.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Largest term or epoch in a message; counting up from it cannot overflow.
pub const GENERATION_MAX: u32 = 1 << 31;
/// Most elements of one operation: their bytes times the world size still fit 64 bits.
pub const COUNT_MAX: u64 = 1 << 48;
/// Longest timeout that a master may set: a year stands for "forever".
pub const TIMER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Default port of a master.
pub const MASTER_PORT_DEFAULT: u16 = 48_148;

const _: () = assert!(TAGS_KEPT > OPEN_OPS_MAX);
const _: () = assert!(CONTROL_FRAME_BYTES_MAX as usize <= UNIDENTIFIED_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
/// A whole segment, one contribution from each other member, always fits the scratch memory.
const _: () = assert!((WORLD_SIZE_MAX - 1) * SEGMENT_BYTES_MIN <= SCRATCH_BYTES_MIN);
const _: () = assert!(EAGER_BYTES_MAX <= SEGMENT_BYTES_MAX);
/// The longest record, with the fields of its entries.
const RECORD_BYTES_MAX: usize = RECORD_ENTRIES_MAX * (RECORD_PAYLOAD_BYTES_MAX + 32) + 64;
const _: () = assert!(RECORDS_BEHIND_BYTES_MAX + RECORD_BYTES_MAX <= RECORD_LOG_BYTES_MAX);
const _: () = assert!(
    ABORT_REASONS_BYTES_MAX + RECORDS_BEHIND_BYTES_MAX + RECORD_BYTES_MAX + (512 << 10)
        <= CONTROL_FRAME_BYTES_MAX as usize
);
const _: () = assert!(STREAMS_MAX * RECORD_LOG_BYTES_MAX < JOURNAL_RECORD_BYTES_MAX);

/// Safe points that a master releases before members reach them: those of one round trip to it, for
/// steps down to 3 ms over 200 ms.
pub const SAFE_POINTS_AHEAD_MAX: usize = 64;

/// Unanswered heartbeats of a peer whose time of sending is kept. A master that is alive answers
/// them within a round trip, and one that is silent is given up after `peer_timeout`.
pub const PINGS_TIMED_MAX: usize = 256;
