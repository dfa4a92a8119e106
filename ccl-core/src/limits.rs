//! Every limit of the library, with its unit and its reason.

use std::time::Duration;

/// Most members of one group. Direct algorithms keep a link to each; 256 links of 8 lanes stay
/// below the usual limit of 4,096 file descriptors.
pub const WORLD_SIZE_MAX: usize = 256;
/// Most peers that one master serves, over all groups, newcomers included.
pub const PEERS_MAX: usize = 1024;
/// Most tags that a group may have in use; those at rest are given back.
pub const TAGS_MAX: usize = 4096;
/// Tags of a group from which on those at rest are given back at a view change, and one is made for
/// it: so many fewer than there may be that neither the message in hand nor what members go on to
/// post before they hear of the change comes to more, however many operations they have open.
pub const TAGS_KEPT: usize = TAGS_MAX - 2 * OPEN_OPS_MAX;
/// Most operations a peer may have open at once, one a tag.
pub const OPEN_OPS_MAX: usize = 1024;
/// Most parts of one `all_reduce_many`.
pub const PARTS_MAX: usize = 65_536;
/// Most addresses a peer may announce.
pub const ADDRESSES_MAX: usize = 8;
/// Longest run name, reason or other text in a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest name of a peer, in bytes: a line of a log still shows a few.
pub const NAME_BYTES_MAX: usize = 64;
/// Peers that are named of those that are waited for; the others are counted.
pub const WAIT_NAMES_MAX: usize = 8;
/// Longest name with an address, in bytes.
pub const LABEL_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// Between two looks at what a group waits for; the operator is told of what lasts from one to the
/// next: longer than links take.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of the name that a caller gives a call, such as `reduce to rank 2`.
pub const CALLER_BYTES_MAX: usize = 128;
/// Longest control frame. An `Install` names 4,096 tags of some 100 bytes and 256 members of some
/// 400: half a mebibyte; four times that.
pub const CONTROL_FRAME_BYTES_MAX: u32 = 2 << 20;
/// Control bytes queued to one connection before it counts as dead.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Longest an unidentified connection may take to say who it is.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Unidentified connections a port keeps at once; the oldest gives way.
pub const UNIDENTIFIED_MAX: usize = 64;
/// Bytes of unfinished messages that the unidentified connections of a master hold together; the
/// oldest gives way. An `Attach` may be as long as any frame, and others beside it shorter.
pub const UNIDENTIFIED_BYTES_MAX: usize = 5 << 19;
/// Most groups that one master knows; as many as peers, if each were alone. Those that nobody is in
/// any more give way.
pub const GROUPS_MAX: usize = PEERS_MAX;
/// Ended sessions whose reason is remembered, so that a late attach hears it.
pub const ENDED_SESSIONS_MAX: usize = PEERS_MAX;
/// Of these, how many a journal remembers over a restart: more than leave a run in one go, and few
/// enough to be nothing beside its views.
pub const ENDED_SESSIONS_KEPT: usize = 256;
/// Addresses whose evictions for broken links are remembered.
pub const BACKOFFS_MAX: usize = PEERS_MAX;
/// How long a peer that comes back after broken links waits the first time; doubled each time.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest such wait, and how long a good record clears the account.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Shortest time between two `Expect` to the same peers: a storm of newcomers is told of in a few.
pub const EXPECT_INTERVAL: Duration = Duration::from_millis(10);
/// Peer ids that a master without a journal leaves out after the newest it heard of, for sessions
/// that were given and never heard of again.
pub const PEER_ID_GAP: u64 = 1_000_000;
/// Abort reasons remembered a tag, newest last (R2).
pub const ABORT_REASONS_MAX: usize = 16;
/// Abort reasons of all tags in one message, in bytes: a quarter of a control frame. The oldest are
/// left out.
pub const ABORT_REASONS_BYTES_MAX: usize = 512 << 10;

/// Largest payload that goes eagerly, without a credit, in bytes of the whole operation.
pub const EAGER_BYTES_MAX: usize = 64 << 10;
/// Eager operations a sender may have unfinished at once; more fall back to rendezvous. A receiver
/// holds at most twice as many for each link: one decided and one open a tag.
pub const EAGER_OPS_MAX: usize = 8;
/// Largest segment of a chunk on the wire: an eighth of the second-level cache of a small server
/// core.
pub const SEGMENT_BYTES_MAX: usize = 256 << 10;
/// Smallest segment that a large world cuts down to.
pub const SEGMENT_BYTES_MIN: usize = 64 << 10;
/// Scratch memory of one communicator by default, in bytes.
pub const SCRATCH_BYTES_DEFAULT: usize = 16 << 20;
/// Most entries of a shared state.
pub const STATE_ENTRIES_MAX: usize = 100_000;
/// Most scratch memory of one communicator, in bytes: enough for the largest world with many
/// segments on their way, and little enough that the system hardly ever refuses it.
pub const SCRATCH_BYTES_MAX: usize = 1 << 30;
/// Most threads that move the bytes of one communicator: more than any machine's network needs.
pub const IO_THREADS_MAX: usize = 256;
/// Asks that one receiver may have open at a source of shared state.
pub const STATE_ASKS_MAX: usize = 1024;
/// Most data lanes of one link.
pub const LANES_MAX: u16 = 32;
/// Data lanes of one link by default.
pub const LANES_DEFAULT: u16 = 4;
/// Bulk lanes between peers of one host unless configured: memory is the bottleneck there, and
/// segments under way on more lanes only push each other out of the cache.
pub const LANES_SAME_HOST: u16 = 1;
/// Frames sent on a lane and not yet acknowledged; the sender waits beyond.
pub const UNACKED_FRAMES_MAX: usize = 1024;
/// Frames a receiver takes in before it acknowledges on its own.
pub const ACK_INTERVAL_FRAMES: u64 = 64;
/// Small frames (posts, credits, eager data) queued on a link before it counts as stuck.
pub const SIGNAL_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Payload of a small frame: an eager chunk and its fingerprint.
pub const SIGNAL_PAYLOAD_BYTES_MAX: usize = EAGER_BYTES_MAX + 4096;

/// Longest record of a master's journal, in bytes. A view with 4,096 tags, each with some abort
/// reasons, takes a few mebibytes.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 256 << 20;
/// Largest operation number, safe point or attach counter in a message: far beyond any run's life,
/// and counting up from it cannot overflow.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Largest term or epoch in a message; counting up from it cannot overflow.
pub const GENERATION_MAX: u32 = 1 << 31;
/// Most elements of one operation: their bytes, times a world, still fit 64 bits.
pub const COUNT_MAX: u64 = 1 << 48;
/// Longest waiting time that a master may set: a year stands for "for ever".
pub const TIMER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Port of a master unless told otherwise.
pub const MASTER_PORT_DEFAULT: u16 = 48_148;

const _: () = assert!(TAGS_KEPT > OPEN_OPS_MAX);
const _: () = assert!(CONTROL_FRAME_BYTES_MAX as usize <= UNIDENTIFIED_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
/// A whole segment, one contribution from each other member, always fits the scratch memory.
const _: () = assert!((WORLD_SIZE_MAX - 1) * SEGMENT_BYTES_MIN <= SCRATCH_BYTES_DEFAULT);
const _: () = assert!(EAGER_BYTES_MAX <= SEGMENT_BYTES_MAX);
