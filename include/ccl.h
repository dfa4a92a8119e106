/*
 * ccl: fault-tolerant collective communication for training over links that fail.
 *
 * Every function that returns cclResult_t returns cclSuccess or an error code; cclGetLastError has
 * the text. Results are written on success only. Any thread may call any function at any time,
 * unless the function says otherwise; a handle may be destroyed while other threads use it. No
 * function may be called from a signal handler. No call ends the process. After a fork, calls of
 * the child with its parent's handles return cclErrorForked. A call leaves `errno` unchanged;
 * pthread_cancel ends a thread after its call, not within it. A calling thread needs 128 KiB of
 * stack.
 *
 * Structs that begin with `struct_bytes` may grow: clear them, set it to their sizeof, then set what
 * you need. Times are in milliseconds, `_us` in microseconds; `count` is elements, `_bytes` is
 * bytes. Switches are 0 or 1.
 */

#ifndef CCL_H
#define CCL_H

/* Generated from ccl-capi/src by `make header`: do not edit. */

#include <stddef.h>
#include <stdint.h>

/*
 Major version of this header. Functions may differ between major versions.
 */
#define CCL_VERSION_MAJOR 0

/*
 Minor version of this header. Before 1.0 functions may differ between minor versions too.
 */
#define CCL_VERSION_MINOR 1

/*
 Patch version of this header.
 */
#define CCL_VERSION_PATCH 0

/*
 No timeout. Any time of more than a year counts as a year.
 */
#define CCL_FOREVER UINT64_MAX

/*
 Buffer size in bytes that fits every address with its zero byte.
 */
#define CCL_ADDRESS_BYTES_MAX 64

/*
 Length of a root in bytes.
 */
#define CCL_ROOT_BYTES 32

/*
 Most dimensions of an entry.
 */
#define CCL_DIMENSIONS_MAX 64

/*
 Buffer size in bytes that fits every name with its zero byte.
 */
#define CCL_NAME_BYTES_MAX 513

/*
 Opaque; see cclCommunicator_t.
 */
typedef struct cclCommunicator cclCommunicator;

/*
 Opaque; see cclMaster_t.
 */
typedef struct cclMaster cclMaster;

/*
 Opaque; see cclOperation_t.
 */
typedef struct cclOperation cclOperation;

/*
 Opaque; see cclSharedState_t.
 */
typedef struct cclSharedState cclSharedState;

/*
 How a call ended: `cclSuccess` or an error code. Numbers never change their meaning; later
 versions may add more.
 */
typedef uint32_t cclResult_t;

/*
 Why the members' shared states do not fit together.
 */
typedef uint32_t cclStateFault_t;

/*
 Details of a failure: peer, operation and view. Fields that do not apply are 0.
 */
typedef struct cclErrorInfo_t {
    /*
     Set it to `sizeof(cclErrorInfo_t)` before the call.
     */
    size_t struct_bytes;
    /*
     The result code.
     */
    cclResult_t result;
    /*
     Term of the survivors' view (cclErrorPeerLost), of the members' view (cclErrorSharedState),
     or of this peer's last view (cclErrorEvicted, cclErrorRevisionAhead).
     */
    uint32_t term;
    /*
     Epoch of that view.
     */
    uint32_t epoch;
    /*
     Current world size (cclErrorTooFewPeers, cclErrorWorldChanged).
     */
    uint32_t world_size;
    /*
     The peer that was lost (cclErrorPeerLost), that cancelled (cclErrorCancelled), or whose
     state does not fit (cclErrorSharedState; 0 if no single one), or this peer (cclErrorEvicted,
     cclErrorRevisionAhead).
     */
    uint64_t peer;
    /*
     Tag of the operation that was aborted (cclErrorPeerLost, cclErrorCancelled,
     cclErrorSharedState).
     */
    uint64_t tag;
    /*
     Number of that operation in its tag's sequence.
     */
    uint64_t number;
    /*
     The system's error number, as in errno.h (cclErrorSystem).
     */
    int32_t system_error;
    /*
     Why states do not fit together (cclErrorSharedState). Later versions may add more.
     */
    cclStateFault_t state_fault;
} cclErrorInfo_t;

/*
 Severity of a log line; each level includes those with smaller numbers.
 */
typedef uint32_t cclLogLevel_t;

/*
 Receives one log line: UTF-8 text without a line end, valid during the call only. Called from
 any thread, from several at once, and from within calls of the library. It must return quickly,
 must not unwind, and must not call the library: such a call returns cclErrorInvalidUsage.
 */
typedef void (*cclLogCallback_t)(cclLogLevel_t level, const char *message, void *user_data);

/*
 Type of the elements of a buffer.
 */
typedef uint32_t cclDataType_t;

/*
 Settings of a master. 0 and NULL are the default of every field: clear the struct, set
 `struct_bytes`, then what you want to change. Texts are copied. Timeouts are in milliseconds and
 are sent to each newcomer.
 */
typedef struct cclMasterConfig_t {
    /*
     `sizeof(cclMasterConfig_t)`.
     */
    size_t struct_bytes;
    /*
     `ip:port` to listen on; port 0 lets the system choose. NULL: `127.0.0.1:48148`.
     */
    const char *listen;
    /*
     Name of the run, at most 512 bytes. NULL: `default`.
     */
    const char *run;
    /*
     Path of the journal, the master's history on disk. NULL: none; a restarted master then needs
     a majority of each view.
     */
    const char *journal;
    /*
     1: views and decisions are sent to peers before they are on disk.
     */
    uint32_t is_fsync_off;
    /*
     1: found a run at once, without waiting for members of an earlier one.
     */
    uint32_t is_new_run;
    /*
     1: rebuild from the members that are back, even without a journal or a majority. You assert
     that no other members are still running.
     */
    uint32_t is_rebuild_forced;
    /*
     1: accept a journal without its marker, because it was moved. Risk: an older copy may
     contradict what members already know.
     */
    uint32_t is_journal_trusted;
    /*
     1: do not wait for members of an earlier run or view. You assert that none is alive. Risk:
     one that is goes on for a while beside its replacements.
     */
    uint32_t are_members_gone;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Interval between heartbeats, in both directions. 0: 250.
     */
    uint64_t heartbeat_interval_ms;
    /*
     Silence after which a peer, or the master, counts as dead; at least two heartbeats. 0: 5000.
     */
    uint64_t peer_timeout_ms;
    /*
     How long a member may take to restore a lost control connection, if no data connection
     ended. 0: 2000.
     */
    uint64_t reattach_grace_ms;
    /*
     How long reports of broken links are collected before a peer is blamed. 0: 500.
     */
    uint64_t blame_window_ms;
    /*
     How long the repair of a connection may take before the link counts as down. 0: 3000.
     */
    uint64_t link_timeout_ms;
    /*
     How long a restarted master waits for the members of its last view. 0: 5000.
     */
    uint64_t rebuild_window_ms;
    /*
     How long a peer keeps running without a master before its session ends. 0: 60000.
     */
    uint64_t detach_timeout_ms;
    /*
     How long a cancelled call waits for its verdict before it ends as unknown. 0: 10000.
     */
    uint64_t verdict_timeout_ms;
    /*
     How late a member may join an operation that the others have called; CCL_FOREVER: no limit.
     Keep it shorter than operation_timeout_ms, else calls time out first. 0: 5 minutes.
     */
    uint64_t post_timeout_ms;
    /*
     Time from one member to another and back, in microseconds. 0: guessed.
     */
    uint64_t link_round_trip_us;
    /*
     Bytes per second that a member sends, and receives. 0: guessed.
     */
    uint64_t link_bytes_per_second;
    /*
     Receive memory of each member for data that is sent with a call, before it is asked for, at
     most 64 MiB; less than 64 KiB turns it off. 0: 16 MiB.
     */
    uint64_t reserve_bytes;
} cclMasterConfig_t;

/*
 A master. Destroy it with cclDestroyMaster.
 */
typedef struct cclMaster *cclMaster_t;

/*
 Settings of a peer. 0 and NULL are the default of every field: clear the struct, set
 `struct_bytes`, then what you want to change. Texts are copied.
 */
typedef struct cclCommunicatorConfig_t {
    /*
     `sizeof(cclCommunicatorConfig_t)`.
     */
    size_t struct_bytes;
    /*
     The master's `host:port`; a host name is resolved at each attempt. NULL: `127.0.0.1:48148`.
     */
    const char *master;
    /*
     Name of the run, at most 512 bytes; a master of another run refuses the peer. NULL:
     `default`.
     */
    const char *run;
    /*
     `ip:port` to listen on for other peers; port 0 lets the system choose. NULL: all addresses,
     with the port of `advertise`; only loopback if `master` is a loopback address or
     `localhost`.
     */
    const char *listen;
    /*
     `host:port` to advertise to other peers, for peers behind a port mapping; port 0 is the
     listening port. NULL: the address that the master sees, and those of this host.
     */
    const char *advertise;
    /*
     TCP congestion control of the lanes, such as `bbr`, or `keep` for the system's choice; if
     the system does not have it, it is ignored with a line in the log. NULL or `auto`: if
     permitted, `cubic`, and over long paths `bbr` where it helps, else the system's choice.
     */
    const char *congestion_control;
    /*
     Failure unit: peers that join, leave and fail together. Used only with `has_unit`.
     */
    uint64_t unit;
    /*
     How long cclConnect may take, including the time without a master, in milliseconds. 0: 90 s.
     */
    uint64_t connect_timeout_ms;
    /*
     Deadline of calls without one of their own, in milliseconds; CCL_FOREVER: none. 0: 10
     minutes.
     */
    uint64_t operation_timeout_ms;
    /*
     Scratch memory for received contributions, in bytes, 16 MiB to 1 GiB. 0: 32 MiB.
     */
    uint64_t scratch_bytes;
    /*
     Limit on the bytes per second that each lane sends. 0: as measured.
     */
    uint64_t pacing_bytes_per_second;
    /*
     Limit on the shared-state bytes per second that this peer sends to others. 0: no limit.
     */
    uint64_t state_bytes_per_second;
    /*
     Peer group: peers of one group reduce together.
     */
    uint64_t group;
    /*
     1: use `unit`. 0: this peer is a unit by itself.
     */
    uint32_t has_unit;
    /*
     Data connections of each link that this peer dials, 1 to 32. 0: 1 to a peer on the same
     host, to any other 4 at first and then 2 to 16 as rate and round trip need.
     */
    uint32_t lanes;
    /*
     Smallest world size that operations run with, 1 to 256. 0: 1.
     */
    uint32_t min_world_size;
    /*
     Number of peers that the group's first view waits for, up to 256. 0: `min_world_size`.
     */
    uint32_t initial_world_size;
    /*
     1: data segments carry no CRC-32.
     */
    uint32_t is_checksum_off;
    /*
     Threads that move bytes, 1 to 256. 0: half the cores, 1 to 4.
     */
    uint32_t io_threads;
    /*
     Number of peers in the unit, over all groups, 1 to 1024. They are admitted together, to each
     group at the cclUpdateTopology of the same number. Peers with another `unit_size`, and
     surplus peers, are refused. Needs `has_unit`. 0: peers of the unit do not wait for each
     other.
     */
    uint32_t unit_size;
    /*
     Name of this peer in errors, logs and events, at most 64 bytes. NULL: host name and process
     id.
     */
    const char *name;
    /*
     Names of the fixed members of the group in rank order, each unique, which all members give
     alike. The group is then closed: it forms once, with exactly these members in this order,
     and nobody joins it later; `group` must be an id that no group has had. Not with
     `unit_size`. NULL: the group is open.
     */
    const char *const *members;
    /*
     Number of `members`, 1 to 256; 0 if `members` is NULL.
     */
    uint32_t members_count;
    /*
     This peer's index in `members`, which is its rank.
     */
    uint32_t rank;
} cclCommunicatorConfig_t;

/*
 A peer of a run: one session. Any thread may use it. Destroy it with cclDestroyCommunicator.
 */
typedef struct cclCommunicator *cclCommunicator_t;

/*
 Attributes of a communicator, for cclGetAttribute.
 */
typedef uint32_t cclAttribute_t;

/*
 Counters of a communicator since it was connected.
 */
typedef struct cclCounters_t {
    /*
     Set it to `sizeof(cclCounters_t)` before the call.
     */
    size_t struct_bytes;
    /*
     Operations that committed.
     */
    uint64_t commits;
    /*
     Operations that were aborted, each attempt counted.
     */
    uint64_t aborts;
    /*
     Connections that broke and were repaired without an abort.
     */
    uint64_t repairs;
    /*
     Bytes sent to other peers.
     */
    uint64_t sent_bytes;
    /*
     Bytes received from other peers.
     */
    uint64_t received_bytes;
    /*
     Data connections of the current link with the most; 0 if there is no other peer.
     */
    uint32_t lanes;
    /*
     0.
     */
    uint32_t reserved;
} cclCounters_t;

/*
 An operation, in progress or ended. Any thread may use it. Destroy it with cclDestroyOperation.
 Its buffers must stay valid and must not be accessed until it has ended.
 */
typedef struct cclOperation *cclOperation_t;

/*
 The result of a successful operation. Set `struct_bytes`, and `contributors` and its capacity if
 you want the contributors, `weights` if you want theirs; the rest is written, on success only.
 */
typedef struct cclOutcome_t {
    /*
     `sizeof(cclOutcome_t)`.
     */
    size_t struct_bytes;
    /*
     Array for peer ids, or NULL. At most `contributors_capacity` are written.
     */
    uint64_t *contributors;
    /*
     Capacity of that array.
     */
    size_t contributors_capacity;
    /*
     Number of peers whose data is in the result.
     */
    size_t contributors_count;
    /*
     The operation's tag.
     */
    uint64_t tag;
    /*
     Its number in the tag's sequence.
     */
    uint64_t number;
    /*
     Term of the view this peer was in when it learned the outcome.
     */
    uint32_t term;
    /*
     Epoch of that view.
     */
    uint32_t epoch;
    /*
     Members of that view.
     */
    uint32_t world_size;
    /*
     Number of attempts.
     */
    uint32_t attempts;
    /*
     Array for the contributors' weights, or NULL. At most `contributors_capacity` are written: 1
     for each without weights.
     */
    uint32_t *weights;
} cclOutcome_t;

/*
 Progress of an operation at this peer.
 */
typedef struct cclProgress_t {
    /*
     Set it to `sizeof(cclProgress_t)` before the call.
     */
    size_t struct_bytes;
    /*
     Payload bytes sent and received so far.
     */
    uint64_t done_bytes;
    /*
     Payload bytes sent and received at the end; 0 until the operation has begun.
     */
    uint64_t total_bytes;
} cclProgress_t;

/*
 Called when an operation has ended; it may, for example, write to a pipe that the application
 polls. It must return quickly, must not unwind, and must not call the library: such a call
 returns cclErrorInvalidUsage.
 */
typedef void (*cclEndCallback_t)(void *user_data);

/*
 How elements are combined, in rank order. Integers wrap.
 */
typedef uint32_t cclReduceOp_t;

/*
 The algorithm that moves the data.
 */
typedef uint32_t cclAlgorithm_t;

/*
 What contributions are rounded to, and how they travel: for cclSum and cclAvg of floating-point
 elements by all-reduce and reduce-scatter.
 */
typedef uint32_t cclEncoding_t;

/*
 Options of one call. 0 is the default of every field. All members must use the same `algorithm`,
 `attempts`, `encoding` and `is_weighted`.
 */
typedef struct cclOptions_t {
    /*
     `sizeof(cclOptions_t)`.
     */
    size_t struct_bytes;
    /*
     Stream of operations: those of one tag run one after the other, in the same order on all
     members; those of different tags run at once.
     */
    uint64_t tag;
    /*
     After this time the operation is cancelled for all members, in milliseconds; 0: the
     communicator's `operation_timeout_ms`.
     */
    uint64_t deadline_ms;
    /*
     A cclAlgorithm constant.
     */
    cclAlgorithm_t algorithm;
    /*
     Most attempts, including the first: after a peer is lost, the call is retried with the
     survivors. 0 and 1: no retry.
     */
    uint32_t attempts;
    /*
     A cclEncoding constant. NaN or an infinity in an input is then an error that names it,
     before anything is sent.
     */
    cclEncoding_t encoding;
    /*
     1: contributions have weights. The result is the sum of weight times contribution, of cclAvg
     divided by the sum of the weights.
     */
    uint32_t is_weighted;
    /*
     By how much this peer's contribution counts, if contributions have weights: at most
     16,777,216. 0: it contributes nothing, and sends no data. If all are 0, so is the result.
     */
    uint32_t weight;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Not 0: rounds to the encoding up or down at random, so that the mean error is 0, with random
     numbers from this seed; another one for each member and call. 0: to the nearer code.
     */
    uint64_t seed;
} cclOptions_t;

/*
 One buffer of cclAllReduceMany.
 */
typedef struct cclBuffer_t {
    /*
     `count` elements that this peer contributes. May equal `receive`: in place.
     */
    const void *send;
    /*
     Where the result goes, `count` elements.
     */
    void *receive;
    /*
     Elements.
     */
    size_t count;
    /*
     Their type.
     */
    cclDataType_t dtype;
    /*
     0.
     */
    uint32_t reserved;
} cclBuffer_t;

/*
 Named buffers that all members of a group hold with the same bits, and their revision: weights,
 optimizer state, the step. Any thread may use it; a call waits while another thread hashes,
 saves or loads the same state. Destroy it with cclDestroySharedState.
 */
typedef struct cclSharedState *cclSharedState_t;

/*
 One entry of a state. Set `struct_bytes`, and `name` and `shape` with their capacities if you
 want them; the rest is written, on success only.
 */
typedef struct cclEntry_t {
    /*
     `sizeof(cclEntry_t)`.
     */
    size_t struct_bytes;
    /*
     Buffer for its name with a zero byte at the end, or NULL; CCL_NAME_BYTES_MAX bytes are
     always enough.
     */
    char *name;
    /*
     Capacity of that buffer in bytes.
     */
    size_t name_capacity;
    /*
     Bytes of the name with its zero byte.
     */
    size_t name_bytes;
    /*
     Array for its extents, or NULL. At most `shape_capacity` are written.
     */
    uint64_t *shape;
    /*
     Capacity of that array; CCL_DIMENSIONS_MAX are always enough.
     */
    size_t shape_capacity;
    /*
     Number of extents.
     */
    size_t dimensions_count;
    /*
     Where its memory begins, as it was added.
     */
    void *memory;
    /*
     Elements: the product of the extents.
     */
    uint64_t count;
    /*
     Their type.
     */
    cclDataType_t dtype;
    /*
     1: its content may differ between members.
     */
    uint32_t is_unequal;
} cclEntry_t;

/*
 How checkpoints are saved and loaded. 0 is the default of every field.
 */
typedef struct cclCheckpointOptions_t {
    /*
     `sizeof(cclCheckpointOptions_t)`.
     */
    size_t struct_bytes;
    /*
     Checkpoints kept after a save, including the new one. 0: 2.
     */
    uint32_t keep_count;
    /*
     Hashing threads. 0: one per core, at most 8.
     */
    uint32_t hash_threads;
} cclCheckpointOptions_t;

/*
 The newest checkpoint of a directory. Set `struct_bytes`, and `path` and its capacity if you
 want the path; the other fields are written, on success only.
 */
typedef struct cclCheckpoint_t {
    /*
     `sizeof(cclCheckpoint_t)`.
     */
    size_t struct_bytes;
    /*
     1 if there is a checkpoint. 0 if there is none; the other fields are then 0.
     */
    uint32_t is_there;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Buffer for the path, which ends with a zero byte, or NULL.
     */
    char *path;
    /*
     Capacity of that buffer in bytes.
     */
    size_t path_capacity;
    /*
     Length of the path in bytes, zero byte included; 0 if there is no checkpoint.
     */
    size_t path_bytes;
    /*
     The checkpoint's revision.
     */
    uint64_t revision;
    /*
     The digest over all entries of the checkpoint.
     */
    uint8_t root[CCL_ROOT_BYTES];
} cclCheckpoint_t;

/*
 A member's role in the election of a sync. cclEnforcePopular may be mixed with cclReceiveOnly,
 and cclSendOnly with cclReceiveOnly; at least one member must not be cclReceiveOnly.
 */
typedef uint32_t cclSyncStrategy_t;

/*
 Options of one sync. 0 and NULL are the default of every field.
 */
typedef struct cclSyncOptions_t {
    /*
     `sizeof(cclSyncOptions_t)`.
     */
    size_t struct_bytes;
    /*
     Indices, in the order of cclAddEntry, of the entries that may have changed since this
     state's last sync: only these are hashed. A change to any other entry goes unnoticed until a
     sync without this hint. NULL: all.
     */
    const size_t *touched;
    /*
     Number of `touched` entries; ignored if `touched` is NULL.
     */
    size_t touched_count;
    /*
     After this time the sync is cancelled for all members, in milliseconds; 0: the
     communicator's `operation_timeout_ms`.
     */
    uint64_t deadline_ms;
    /*
     This peer's role in the election.
     */
    cclSyncStrategy_t strategy;
    /*
     1: a vote to go on from the best available content. It counts if no member has the content
     agreed on last or its successor, or if fewer members have those than are further ahead, as
     after the loss of the master's journal. All members must vote for it.
     */
    uint32_t is_restore;
    /*
     Hashing threads. 0: one per core, at most 8.
     */
    uint32_t hash_threads;
    /*
     0.
     */
    uint32_t reserved;
} cclSyncOptions_t;

/*
 A peer that sent blocks in a sync.
 */
typedef struct cclSyncSource_t {
    /*
     Id of the peer.
     */
    uint64_t peer;
    /*
     Bytes from it that were used.
     */
    uint64_t bytes;
} cclSyncSource_t;

/*
 What a sync did at this peer. Set `struct_bytes`, and the arrays with their capacities if you
 want them: at most that many are written. The rest is written, on success only.
 */
typedef struct cclSyncInfo_t {
    /*
     `sizeof(cclSyncInfo_t)`.
     */
    size_t struct_bytes;
    /*
     Array for the peers that sent blocks to this one, or NULL.
     */
    struct cclSyncSource_t *sources;
    /*
     Capacity of that array.
     */
    size_t sources_capacity;
    /*
     Number of peers that sent blocks to this one.
     */
    size_t sources_count;
    /*
     Array for the ids of the members that took part, in rank order, or NULL.
     */
    uint64_t *members;
    /*
     Capacity of that array.
     */
    size_t members_capacity;
    /*
     Number of members that took part.
     */
    size_t members_count;
    /*
     The revision that all members have now.
     */
    uint64_t revision;
    /*
     The root digest over all entries, the same on all members.
     */
    uint8_t root[CCL_ROOT_BYTES];
    /*
     Bytes sent to other members.
     */
    uint64_t sent_bytes;
    /*
     Bytes received: differing blocks, and digests.
     */
    uint64_t received_bytes;
    /*
     Time from the call to its end, in microseconds.
     */
    uint64_t duration_us;
    /*
     How much of it was spent hashing this peer's state, in microseconds.
     */
    uint64_t hashing_us;
    /*
     Term of the view this peer was in when it learned the outcome.
     */
    uint32_t term;
    /*
     Epoch of that view.
     */
    uint32_t epoch;
    /*
     Members of that view.
     */
    uint32_t world_size;
    /*
     Number of attempts.
     */
    uint32_t attempts;
    /*
     The sync's number among those of the run.
     */
    uint64_t number;
} cclSyncInfo_t;

/*
 What a peer does in a sync.
 */
typedef uint32_t cclSyncRole_t;

/*
 The failure is not cclErrorSharedState.
 */
#define cclStateFaultNone 0

/*
 Members have different entries.
 */
#define cclStateFaultKeys 1

/*
 Members call with strategies that cannot be combined.
 */
#define cclStateFaultStrategies 2

/*
 The content of a member that calls with cclSendOnly was not elected.
 */
#define cclStateFaultSenderLost 3

/*
 Too many members are too far ahead of the run to evict them. Restart those with the run's own
 checkpoint, or call with `restore` on all members.
 */
#define cclStateFaultRevisionAhead 4

/*
 No member has the content sealed last, or one that follows it. Call with `restore` on all
 members.
 */
#define cclStateFaultRevisionLost 5

/*
 No member has a consistent content. Load a checkpoint, or fill the memory and call
 cclBeginAnew; then call with `restore` on all members.
 */
#define cclStateFaultNoSource 6

/*
 Success.
 */
#define cclSuccess 0

/*
 An argument is NULL but must not be, or is out of range. Nothing was started.
 */
#define cclErrorInvalidArgument 1

/*
 The call does not fit the state, such as a second operation on a busy tag. Nothing was started.
 */
#define cclErrorInvalidUsage 2

/*
 The handle is NULL, of another kind, or already destroyed.
 */
#define cclErrorInvalidHandle 3

/*
 The handle was created before a fork and is used in the child. Create another one there.
 */
#define cclErrorForked 4

/*
 The operating system refused something.
 */
#define cclErrorSystem 5

/*
 A bug in this library was caught. Please report it.
 */
#define cclErrorInternal 6

/*
 The timeout passed first; the operation goes on.
 */
#define cclErrorTimeout 7

/*
 No master could be reached within `connect_timeout_ms`.
 */
#define cclErrorMasterUnreachable 8

/*
 The master knows this peer, but the members did not admit it within `connect_timeout_ms`.
 */
#define cclErrorNotAdmitted 9

/*
 The master refused this peer. The session is over.
 */
#define cclErrorRefused 10

/*
 A member was lost during the operation, which was aborted for all. Call it again: it runs with
 the survivors.
 */
#define cclErrorPeerLost 11

/*
 A member cancelled the operation or had no memory for it, or its deadline passed, or the
 members' calls did not match. It was aborted for all.
 */
#define cclErrorCancelled 12

/*
 Fewer members than `min_world_size`. Call cclUpdateTopology until more peers join.
 */
#define cclErrorTooFewPeers 13

/*
 The world size changed, and the buffers are made for another one. Nothing was started. Read the
 world size and call again with buffers for it.
 */
#define cclErrorWorldChanged 14

/*
 The master evicted this peer, but not for cclErrorRevisionAhead. The session is over.
 */
#define cclErrorEvicted 15

/*
 Whether the operation succeeded cannot be known. The session is over.
 */
#define cclErrorUnknown 16

/*
 The session has ended already, or this peer left.
 */
#define cclErrorEnded 17

/*
 The members' shared states do not fit together: entries, strategies or revisions. No data was
 moved.
 */
#define cclErrorSharedState 18

/*
 The master evicted this peer because its shared state is more than one step ahead of the run: it
 comes from another run, or from a later point of this one. The session is over. A peer that
 rejoins with the same state is evicted again: start without it, or load the run's own
 checkpoint.
 */
#define cclErrorRevisionAhead 19

/*
 A permanent failure.
 */
#define cclLogError 1

/*
 Something an operator should know about.
 */
#define cclLogWarn 2

/*
 Changes of state: views, peers, repairs.
 */
#define cclLogInfo 3

/*
 Connections and their options.
 */
#define cclLogDebug 4

/*
 Everything.
 */
#define cclLogTrace 5

/*
 8-bit unsigned integer.
 */
#define cclUint8 0

/*
 16-bit unsigned integer.
 */
#define cclUint16 1

/*
 32-bit unsigned integer.
 */
#define cclUint32 2

/*
 64-bit unsigned integer.
 */
#define cclUint64 3

/*
 8-bit signed integer.
 */
#define cclInt8 4

/*
 16-bit signed integer.
 */
#define cclInt16 5

/*
 32-bit signed integer.
 */
#define cclInt32 6

/*
 64-bit signed integer.
 */
#define cclInt64 7

/*
 IEEE 754 binary16; added in binary32 and rounded once.
 */
#define cclFloat16 8

/*
 The upper half of a binary32; added in binary32 and rounded once.
 */
#define cclBfloat16 9

/*
 IEEE 754 binary32.
 */
#define cclFloat32 10

/*
 IEEE 754 binary64.
 */
#define cclFloat64 11

/*
 The sum.
 */
#define cclSum 0

/*
 The sum divided by the number of contributors; of integers the exact sum, which never wraps,
 truncated toward zero.
 */
#define cclAvg 1

/*
 The product.
 */
#define cclProd 2

/*
 The smallest; NaN wins.
 */
#define cclMin 3

/*
 The largest; NaN wins.
 */
#define cclMax 4

/*
 The library's choice, the same on all members.
 */
#define cclAlgorithmAuto 0

/*
 Each chunk goes to its owner, who reduces it and sends the result to all.
 */
#define cclAlgorithmTwoShot 1

/*
 An older name of cclAlgorithmTwoShot.
 */
#define cclAlgorithmDirect 1

/*
 Chunks travel around the ring of the view.
 */
#define cclAlgorithmRing 2

/*
 Every member sends all it contributes to every other, and reduces everything itself.
 */
#define cclAlgorithmOneShot 3

/*
 As they are in memory.
 */
#define cclEncodingNone 0

/*
 f32, for f64 elements.
 */
#define cclEncodingFloat32 1

/*
 bfloat16: half the bytes of f32.
 */
#define cclEncodingBfloat16 2

/*
 IEEE 754 half precision, half the bytes of f32; what is too large becomes the largest number.
 */
#define cclEncodingFloat16 3

/*
 Integers of 8 bits with a scale for each 256 elements: 0.254 of the bytes of f32.
 */
#define cclEncodingInt8 4

/*
 Powers of two of 4 bits (E3M0) with a scale for each 256 elements: 0.126 of the bytes.
 */
#define cclEncodingE3m0 5

/*
 Integers of 4 bits with a scale for each 256 elements: 0.127 of the bytes.
 */
#define cclEncodingInt4 6

/*
 -1, 0 and 1 with a scale for each 256 elements: 0.064 of the bytes.
 */
#define cclEncodingInt2 7

/*
 Rank of this peer in the view of the newest result. Needs a connection.
 */
#define cclAttributeRank 0

/*
 Members of that view. Needs a connection.
 */
#define cclAttributeWorldSize 1

/*
 Id of this session, never reused in a run. Needs a connection.
 */
#define cclAttributePeer 2

/*
 Term of the view of the newest result. Needs a connection.
 */
#define cclAttributeTerm 3

/*
 Epoch of that view. Needs a connection.
 */
#define cclAttributeEpoch 4

/*
 Newcomers that the next cclUpdateTopology may admit. Needs a connection.
 */
#define cclAttributePendingPeers 5

/*
 Port at which other peers reach this one. Needs a connection.
 */
#define cclAttributeListenPort 6

/*
 Peer group.
 */
#define cclAttributeGroup 7

/*
 Data connections of each link that this peer dials; 0: depends on whether the other is on the
 same host.
 */
#define cclAttributeLanes 8

/*
 Smallest world size that operations run with.
 */
#define cclAttributeMinWorldSize 9

/*
 Number of peers that the group's first view waits for.
 */
#define cclAttributeInitialWorldSize 10

/*
 Members of all peer groups of the run together: cclAttributeWorldSize plus the members of the
 other groups as last reported by the master, at most a heartbeat ago while it runs. For
 information only. Needs a connection.
 */
#define cclAttributeGlobalWorldSize 11

/*
 Number of peer groups that have members, including this peer's; the others as above. Needs a
 connection.
 */
#define cclAttributeGroups 12

/*
 Members of the largest peer group; other groups as above. Needs a connection.
 */
#define cclAttributeLargestGroup 13

/*
 Its content takes part in the election, and is replaced if another wins.
 */
#define cclEnforcePopular 0

/*
 Its content must win.
 */
#define cclSendOnly 1

/*
 Its content does not count.
 */
#define cclReceiveOnly 2

/*
 No content is elected yet, or the sync has ended.
 */
#define cclRoleUnknown 0

/*
 Its content is being replaced: the memory must not be read or written.
 */
#define cclRoleReceiver 1

/*
 Its content is the elected one, and others may be reading it: the memory may be read, and must
 not be written.
 */
#define cclRoleSource 2

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Text of the last failure on this thread: what went wrong and what to do about it.

 Never NULL; empty if no call failed yet. The library owns the text; it is valid until the next
 failure on this thread or the thread's end. A success does not change it. Does not block; may be
 called from anywhere.
 */
const char *cclGetLastError(void);

/*
 Details of the last failure on this thread; all 0 if no call failed yet. Does not block. A
 failure of this call itself is not recorded.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetLastErrorInfo(struct cclErrorInfo_t *info);

/*
 A short name of a result code. Never NULL, even for an unknown code; do not free it. Does not
 block; may be called from anywhere.
 */
const char *cclResultString(cclResult_t result);

/*
 Whether the same call may succeed if it is made again in this session: writes 1 or 0. Does not
 block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclResultIsRetryable(cclResult_t result, uint32_t *is_retryable);

/*
 Whether a failure ended the session: writes 1 or 0. Then every further call on the communicator
 fails; destroy it, create another and connect again. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclResultIsFatal(cclResult_t result, uint32_t *is_fatal);

/*
 Initializes the library. Optional: the first call that needs it does it too. May be called any
 number of times, from any thread. Does not block.

 Errors: none, except cclErrorInvalidUsage within the log callback.
 */
cclResult_t cclInit(void);

/*
 Writes the version of the loaded library, as major × 10000 + minor × 100 + patch. Compare it
 with CCL_VERSION_MAJOR, CCL_VERSION_MINOR and CCL_VERSION_PATCH of the header. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetVersion(uint32_t *version);

/*
 Sends the library's log lines, for the whole process, to `callback`, up to `level`. Replaces an
 earlier callback; NULL turns the log off, which is the default. When this returns, no earlier
 callback is running. `user_data` is passed through; it stays the caller's.

 Blocks while an earlier callback runs.

 Errors: cclErrorInvalidArgument for an unknown level; cclErrorInvalidUsage if another part of
 the program already takes the log lines.
 */
cclResult_t cclSetLogCallback(cclLogCallback_t callback, void *user_data, cclLogLevel_t level);

/*
 Writes the bytes of one element of a type. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetDataTypeBytes(cclDataType_t dtype, size_t *bytes);

/*
 Creates a master, which does not run yet. `config` may be NULL and is not kept. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclCreateMaster(const struct cclMasterConfig_t *config, cclMaster_t *master);

/*
 Reads the journal, binds the port and serves from a thread of the library. Returns as soon as
 peers can connect; blocks only for the disk.

 Errors: cclErrorSystem if the port or the journal cannot be opened; cclErrorInvalidArgument for
 a journal of another run, damaged, or in use; cclErrorInvalidUsage if it ran before;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclRunMaster(cclMaster_t master);

/*
 Writes the `ip:port` that the master listens on, with a zero byte at the end;
 CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not block.

 Errors: cclErrorInvalidArgument if it does not fit; cclErrorInvalidUsage if the master does not
 run; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetMasterAddress(cclMaster_t master, char *address, size_t address_bytes);

/*
 Tells the master to stop serving; cclAwaitMaster returns once it has. Peers go on, and find a
 restarted master. Further calls do no harm. Does not block; may be called from any thread, but
 not from a signal handler.

 Errors: cclErrorInvalidUsage if the master does not run; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclInterruptMaster(cclMaster_t master);

/*
 Blocks until the master has ended: by cclInterruptMaster, by cclDestroyMaster, or by itself. Any
 number of threads may wait, also after the end.

 Errors: cclErrorSystem if the journal could not be written: the master stops, because it must
 not send what is not on disk. Restart it once the disk has space. cclErrorInvalidUsage if the
 master does not run; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclAwaitMaster(cclMaster_t master);

/*
 Blocks until the master has ended, at most `timeout_ms` milliseconds; 0 does not wait.

 Errors: cclErrorTimeout if it has not ended by then; else as cclAwaitMaster.
 */
cclResult_t cclAwaitMasterFor(cclMaster_t master, uint64_t timeout_ms);

/*
 Stops the master, blocks until it has stopped, and destroys the handle. Peers go on.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyMaster(cclMaster_t master);

/*
 Creates a communicator, which is not connected yet. `config` may be NULL and is not kept. Does
 not block.

 Errors: cclErrorInvalidArgument names the field.
 */
cclResult_t cclCreateCommunicator(const struct cclCommunicatorConfig_t *config,
                                  cclCommunicator_t *communicator);

/*
 Joins the run: registers with the master, links with the members, and returns once admitted. The
 master may start later than its peers. Blocks up to `connect_timeout_ms`, plus the time the
 system takes to look up the host names in the config; cclLeave or cclDestroyCommunicator on
 another thread ends it early. After a failure it may be called again.

 Errors: cclErrorMasterUnreachable, cclErrorNotAdmitted, cclErrorRefused; cclErrorEnded if
 another thread gave it up; cclErrorInvalidUsage if it was connected before; cclErrorSystem,
 cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclConnect(cclCommunicator_t communicator);

/*
 Leaves the run: cancels this peer's open calls, tells the master, and blocks until it answers,
 at most the master's `verdict_timeout_ms`. Every later call that needs the run returns
 cclErrorEnded; attributes and counters stay as they are. If another thread is in cclConnect,
 this ends that call within a second.

 Errors: cclErrorInvalidUsage if it is not connected; if the session had already ended, the error
 that ended it; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclLeave(cclCommunicator_t communicator);

/*
 Leaves the run, ends calls of other threads with cclErrorEnded, and destroys the handle. Blocks
 at most a second, for the master's answer. All its operations have then ended, and their memory
 is the caller's. Their handles stay valid until cclDestroyOperation.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyCommunicator(cclCommunicator_t communicator);

/*
 Writes one attribute. Rank, world size, term and epoch change only when a call of this
 communicator returns. Does not block.

 Errors: cclErrorInvalidArgument for an unknown attribute; cclErrorInvalidUsage for one that
 needs a connection before there is one; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetAttribute(cclCommunicator_t communicator,
                            cclAttribute_t attribute,
                            uint64_t *value);

/*
 Writes the ids of the members of the view of the newest result, in rank order: at most
 `capacity` of them, and their number. `peers` may be NULL if `capacity` is 0. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetMembers(cclCommunicator_t communicator,
                          uint64_t *peers,
                          size_t capacity,
                          size_t *count);

/*
 Writes the name of the member at `rank` in the view of the newest result, with a zero byte at
 the end; CCL_NAME_BYTES_MAX bytes are always enough. Does not block.

 Errors: cclErrorInvalidArgument if there is no such rank, or the name does not fit;
 cclErrorInvalidUsage if it is not connected; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetMemberName(cclCommunicator_t communicator,
                             uint32_t rank,
                             char *name,
                             size_t name_bytes);

/*
 Writes the first `ip:port` at which others reach the member at `rank` in the view of the newest
 result, with a zero byte at the end; CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not
 block.

 Errors: as cclGetMemberName.
 */
cclResult_t cclGetMemberAddress(cclCommunicator_t communicator,
                                uint32_t rank,
                                char *address,
                                size_t address_bytes);

/*
 Writes the ring of the view of the newest result: ranks, each followed by its next; at most
 `capacity` of them, and their number. `ranks` may be NULL if `capacity` is 0. Does not block.

 Errors: as cclGetMembers.
 */
cclResult_t cclGetRingOrder(cclCommunicator_t communicator,
                            uint32_t *ranks,
                            size_t capacity,
                            size_t *count);

/*
 Writes the `ip:port` that this peer listens on for others, with a zero byte at the end;
 CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not block.

 Errors: cclErrorInvalidArgument if it does not fit; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetListenAddress(cclCommunicator_t communicator,
                                char *address,
                                size_t address_bytes);

/*
 Writes the counters. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetCounters(cclCommunicator_t communicator, struct cclCounters_t *counters);

/*
 A safe point: admits the newcomers that are ready. All members must call it equally often.
 Blocks until all have called it if a newcomer waits, otherwise for one round trip to the master;
 at most `operation_timeout_ms`. A newcomer's first call is the one that the members make after
 the safe point that admitted it.

 Errors: cclErrorTimeout: the next call is the same safe point again; any fatal error
 (cclResultIsFatal); cclErrorInvalidUsage if it is not connected, or if another thread is in this
 call; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclUpdateTopology(cclCommunicator_t communicator);

/*
 Starts cclUpdateTopology and returns a handle: cclWait returns its result, and its outcome holds
 the members of the view, without tag and number. cclCancel or cclDestroyOperation withdraws from
 the safe point unless it has been released; the next call is then the same safe point again.
 Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked. All others come from cclWait. For a withdrawn safe point
 it returns cclErrorTimeout, while cclTest reports that it has ended.
 */
cclResult_t cclUpdateTopologyAsync(cclCommunicator_t communicator, cclOperation_t *operation);

/*
 Writes how many newcomers the next cclUpdateTopology may admit, as far as this peer knows; other
 members may know of more or fewer. Does not block or communicate.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclArePeersPending(cclCommunicator_t communicator, uint32_t *pending);

/*
 Blocks until the operation has ended, and returns its result. Any thread may call it again and
 gets the same result. `outcome` may be NULL.

 Errors: as the blocking form of the call that started it; cclErrorInvalidHandle.
 */
cclResult_t cclWait(cclOperation_t operation, struct cclOutcome_t *outcome);

/*
 Blocks until the operation has ended, at most `timeout_ms` milliseconds. The operation goes on
 either way. `outcome` may be NULL.

 Errors: cclErrorTimeout if it has not ended by then; else as cclWait.
 */
cclResult_t cclWaitFor(cclOperation_t operation, uint64_t timeout_ms, struct cclOutcome_t *outcome);

/*
 Writes 1 if the operation has ended, successfully or not, else 0. cclWait then returns its
 result without blocking. Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclTest(cclOperation_t operation, uint32_t *is_finished);

/*
 Asks to abort the operation for all members, who then get cclErrorCancelled. It may still
 succeed; cclWait returns the result. Does not block.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclCancel(cclOperation_t operation);

/*
 Writes the operation's progress at this peer; after the end, its last progress. Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetProgress(cclOperation_t operation, struct cclProgress_t *progress);

/*
 Sets a function to be called once when the operation has ended: from a thread of the library, or
 from within this call if it has ended already. cclWait then does not block. Replaces an earlier
 function that was not called yet; NULL removes it. When this or cclDestroyOperation returns, no
 earlier one is running or will run. `user_data` is passed through; it stays the caller's. Blocks
 while an earlier one runs.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSetEndCallback(cclOperation_t operation, cclEndCallback_t callback, void *user_data);

/*
 Destroys the handle. Cancels an operation that has not ended, and blocks until it has, at most
 the master's `verdict_timeout_ms`; afterwards its memory is the caller's.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyOperation(cclOperation_t operation);

/*
 Reduces `count` elements of every member into `receive` on all of them. `send` may equal
 `receive` (in place); otherwise they must not overlap. They need not be aligned; if `count` is 0
 they may be NULL. All members pass the same count, type, operator and options. `options` and
 `outcome` may be NULL.

 After an error `send` is unchanged, also in place; the content of a separate `receive` is
 undefined. Blocks until the operation has ended for all, at most its deadline and the master's
 `verdict_timeout_ms`.

 Errors: cclErrorPeerLost: call again. cclErrorTooFewPeers: admit more peers first.
 cclErrorCancelled: a member cancelled it or made another call. cclErrorInvalidUsage if the tag
 is busy or there is no connection. Any fatal error (cclResultIsFatal). cclErrorInvalidArgument,
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclAllReduce(cclCommunicator_t communicator,
                         const void *send,
                         void *receive,
                         size_t count,
                         cclDataType_t dtype,
                         cclReduceOp_t op,
                         const struct cclOptions_t *options,
                         struct cclOutcome_t *outcome);

/*
 Starts cclAllReduce and returns a handle. The buffers must stay valid and must not be accessed
 until it has ended; `options` is copied. Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidUsage, cclErrorInvalidHandle, cclErrorForked;
 all others come from cclWait.
 */
cclResult_t cclAllReduceAsync(cclCommunicator_t communicator,
                              const void *send,
                              void *receive,
                              size_t count,
                              cclDataType_t dtype,
                              cclReduceOp_t op,
                              const struct cclOptions_t *options,
                              cclOperation_t *operation);

/*
 Reduces `buffers_count` buffers of every member as one transaction: all are reduced over the
 same contributors, or none is touched. At most 65,536 buffers; one that is written must not
 overlap another. The array is read during the call only. Otherwise as cclAllReduce; with
 `attempts` in the options it is retried with the survivors automatically.

 Errors: as cclAllReduce.
 */
cclResult_t cclAllReduceMany(cclCommunicator_t communicator,
                             const struct cclBuffer_t *buffers,
                             size_t buffers_count,
                             cclReduceOp_t op,
                             const struct cclOptions_t *options,
                             struct cclOutcome_t *outcome);

/*
 Starts cclAllReduceMany and returns a handle. The buffers must stay valid and must not be
 accessed until it has ended; the array of them need not. Does not block.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclAllReduceManyAsync(cclCommunicator_t communicator,
                                  const struct cclBuffer_t *buffers,
                                  size_t buffers_count,
                                  cclReduceOp_t op,
                                  const struct cclOptions_t *options,
                                  cclOperation_t *operation);

/*
 Collects `send_count` elements of every member, in rank order, into `receive`, which has room
 for `receive_count` elements: `send_count` times the world size. The buffers must not overlap.
 Otherwise as cclAllReduce.

 Errors: cclErrorWorldChanged if the buffers are made for another world size: read
 cclAttributeWorldSize and call again; else as cclAllReduce.
 */
cclResult_t cclAllGather(cclCommunicator_t communicator,
                         const void *send,
                         size_t send_count,
                         void *receive,
                         size_t receive_count,
                         cclDataType_t dtype,
                         const struct cclOptions_t *options,
                         struct cclOutcome_t *outcome);

/*
 Starts cclAllGather and returns a handle. Otherwise as cclAllReduceAsync.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclAllGatherAsync(cclCommunicator_t communicator,
                              const void *send,
                              size_t send_count,
                              void *receive,
                              size_t receive_count,
                              cclDataType_t dtype,
                              const struct cclOptions_t *options,
                              cclOperation_t *operation);

/*
 Reduces `send_count` elements of every member, which are `receive_count` times the world size,
 and gives each member the `receive_count` elements of its rank. The buffers must not overlap.
 Otherwise as cclAllReduce.

 Errors: as cclAllGather.
 */
cclResult_t cclReduceScatter(cclCommunicator_t communicator,
                             const void *send,
                             size_t send_count,
                             void *receive,
                             size_t receive_count,
                             cclDataType_t dtype,
                             cclReduceOp_t op,
                             const struct cclOptions_t *options,
                             struct cclOutcome_t *outcome);

/*
 Starts cclReduceScatter and returns a handle. Otherwise as cclAllReduceAsync.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclReduceScatterAsync(cclCommunicator_t communicator,
                                  const void *send,
                                  size_t send_count,
                                  void *receive,
                                  size_t receive_count,
                                  cclDataType_t dtype,
                                  cclReduceOp_t op,
                                  const struct cclOptions_t *options,
                                  cclOperation_t *operation);

/*
 Sends the `count` elements of `buffer` at rank `root` to all members. After an error the buffer
 is unchanged. Otherwise as cclAllReduce.

 Errors: cclErrorInvalidArgument if there is no such rank; cclErrorWorldChanged if the world size
 has changed; else as cclAllReduce.
 */
cclResult_t cclBroadcast(cclCommunicator_t communicator,
                         void *buffer,
                         size_t count,
                         cclDataType_t dtype,
                         uint32_t root,
                         const struct cclOptions_t *options,
                         struct cclOutcome_t *outcome);

/*
 Starts cclBroadcast and returns a handle. Otherwise as cclAllReduceAsync.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclBroadcastAsync(cclCommunicator_t communicator,
                              void *buffer,
                              size_t count,
                              cclDataType_t dtype,
                              uint32_t root,
                              const struct cclOptions_t *options,
                              cclOperation_t *operation);

/*
 Blocks until all members have called it. Otherwise as cclAllReduce.

 Errors: as cclAllReduce.
 */
cclResult_t cclBarrier(cclCommunicator_t communicator,
                       const struct cclOptions_t *options,
                       struct cclOutcome_t *outcome);

/*
 Starts cclBarrier and returns a handle. Does not block.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclBarrierAsync(cclCommunicator_t communicator,
                            const struct cclOptions_t *options,
                            cclOperation_t *operation);

/*
 Creates a state without entries. `revision` is how often it was advanced. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclCreateSharedState(uint64_t revision, cclSharedState_t *state);

/*
 Adds a buffer: `memory` holds as many elements of `dtype` as the product of the
 `dimensions_count` extents in `shape`; without dimensions it is one element. All members add the
 same names (at most 512 bytes, UTF-8), types and shapes in the same order. Entries must not
 overlap. `is_unequal` 1: the contents may differ between members, and are neither compared nor
 moved. At most 100,000 entries.

 `name` and `shape` are copied. The memory stays the caller's, and must stay valid until the
 state is destroyed. It may be read and written while no sync, save or load of this state is in
 progress. Does not block.

 Errors: cclErrorInvalidArgument for a duplicate name, memory that is NULL or not aligned, or a
 shape beyond the address space; cclErrorInvalidUsage while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclAddEntry(cclSharedState_t state,
                        const char *name,
                        void *memory,
                        cclDataType_t dtype,
                        const uint64_t *shape,
                        size_t dimensions_count,
                        uint32_t is_unequal);

/*
 Writes the revision: how often the state was advanced. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetRevision(cclSharedState_t state, uint64_t *revision);

/*
 Sets the revision: add one after each step. At each sync it may be at most one higher than at
 the last. Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclSetRevision(cclSharedState_t state, uint64_t revision);

/*
 Writes 1 if the content is consistent. 0 after a sync or load that failed half-way and left a
 mixture of two contents: the next sync only receives. 1 again after a successful sync or load,
 or cclBeginAnew. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclIsUsable(cclSharedState_t state, uint32_t *is_usable);

/*
 Marks the content as a mixture, for example because a sync of another state with the same memory
 failed half-way, or because the program has written only part of it. Until a sync or load
 succeeds, or cclBeginAnew, cclIsUsable is 0 and syncs only receive. Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclMarkMixed(cclSharedState_t state);

/*
 Declares that the program itself has filled the memory with a consistent content of this
 revision, or will have before the next use of the state. Use it to continue a run whose members
 have all lost their contents (cclStateFaultNoSource). Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclBeginAnew(cclSharedState_t state, uint64_t revision);

/*
 Writes the digest over all entries as they are now, CCL_ROOT_BYTES bytes: states with the same
 root have the same names, types, shapes and contents. Hashes everything, and blocks until then;
 uses up to 8 cores.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetRoot(cclSharedState_t state, uint8_t *root);

/*
 Destroys the handle. If a sync of this state is in progress, cancels it and blocks until it has
 ended, at most the master's `verdict_timeout_ms`; the sync's operation handle stays valid and
 has its result. Afterwards the library no longer uses the memory of the entries.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroySharedState(cclSharedState_t state);

/*
 Writes the number of entries of the state. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetEntryCount(cclSharedState_t state, size_t *count);

/*
 Writes an entry as it was added; `index` counts from 0 in that order. Does not block.

 Errors: cclErrorInvalidArgument if there is no such entry, or its name does not fit;
 cclErrorInvalidUsage while a sync of this state is in progress; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclGetEntry(cclSharedState_t state, size_t index, struct cclEntry_t *entry);

/*
 Saves the state with its revision to a directory, atomically even if the machine crashes. The
 directory is created if its parent exists. Each member saves to its own directory, or one member
 saves for all. `options` may be NULL. Blocks for two hashes and one write; the memory must not
 be written meanwhile. cclGetNewestCheckpoint returns the file's path.

 Errors: cclErrorSystem if the disk fails: earlier checkpoints are kept. cclErrorInvalidArgument
 if `directory` is NULL or not UTF-8, or an entry's name cannot be stored; cclErrorInvalidUsage
 if the content is a mixture, or while a sync of this state is in progress;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSaveSharedState(cclSharedState_t state,
                               const char *directory,
                               const struct cclCheckpointOptions_t *options);

/*
 Loads the newest intact checkpoint of a directory, with its revision. Writes 1 if there was one;
 0 if there is no checkpoint at all, and the state is unchanged. The loaded content is verified
 against its digest; a damaged file is skipped and the one before it loaded (cclGetSkippedCount).
 Every peer of a restarted run loads first and then syncs: the highest revision of any member
 wins. `options` may be NULL. Blocks for two reads; the memory must not be used meanwhile.

 Errors: cclErrorInvalidArgument if there are checkpoints but none is intact, or the newest has
 other entries; cclErrorSystem if the directory cannot be read. After an error cclIsUsable says
 whether the content is still consistent. cclErrorInvalidUsage while a sync of this state is in
 progress; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclLoadSharedState(cclSharedState_t state,
                               const char *directory,
                               const struct cclCheckpointOptions_t *options,
                               uint32_t *is_loaded);

/*
 Writes how many newer checkpoints the last successful load of this state skipped because they
 cannot be used, for example because they are damaged. The log says what is wrong with each
 (cclSetLogCallback). Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetSkippedCount(cclSharedState_t state, size_t *count);

/*
 Describes the newest checkpoint of a directory, without reading its content. Blocks only for the
 disk.

 Errors: cclErrorInvalidArgument, also if the path does not fit, or if there are checkpoints but
 none has its full length; cclErrorSystem if the directory cannot be read.
 */
cclResult_t cclGetNewestCheckpoint(const char *directory, struct cclCheckpoint_t *checkpoint);

/*
 Makes a state equal on all members of the group. The master elects one content by revision and
 popularity; members with another content fetch the differing blocks from those that have it, and
 verify them. All members call it. On success the memory holds the elected content, and the state
 has its revision. The memory must not be written meanwhile. `options` and `info` may be NULL.

 Hashes the state on this thread, then blocks until all members have the content, at most its
 deadline and the master's `verdict_timeout_ms`. Losing a member, even a source, does not disturb
 the others.

 Errors: cclErrorSharedState: the text names the peer whose entries, strategy or revision does
 not fit; no data was moved. cclErrorCancelled, cclErrorTooFewPeers, any fatal error
 (cclResultIsFatal). After any of them cclIsUsable says whether the content is still consistent.
 cclErrorInvalidUsage while another sync of this state or communicator is in progress, or if
 there is no connection. cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSyncSharedState(cclCommunicator_t communicator,
                               cclSharedState_t state,
                               const struct cclSyncOptions_t *options,
                               struct cclSyncInfo_t *info);

/*
 Starts cclSyncSharedState and returns a handle, for cclWait and the other calls on operations,
 cclGetSyncInfo and cclGetSyncRole. Until it has ended, all calls on the state except
 cclDestroySharedState return cclErrorInvalidUsage, and the memory must not be accessed (for
 exceptions see cclGetSyncRole). `options` is copied. Hashes the state on this thread; then does
 not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidUsage, cclErrorInvalidHandle, cclErrorForked;
 all others come from cclWait.
 */
cclResult_t cclSyncSharedStateAsync(cclCommunicator_t communicator,
                                    cclSharedState_t state,
                                    const struct cclSyncOptions_t *options,
                                    cclOperation_t *operation);

/*
 Writes what a sync did. It must have been started by cclSyncSharedStateAsync and have ended.
 Does not block.

 Errors: cclErrorTimeout if it has not ended; its own error if it failed; cclErrorInvalidArgument
 if the operation is not a sync, or `info` is NULL; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetSyncInfo(cclOperation_t operation, struct cclSyncInfo_t *info);

/*
 Writes whether this peer is a source or a receiver in a sync started by cclSyncSharedStateAsync;
 after its end, whether it was. Does not block.

 Errors: cclErrorInvalidArgument, also if the operation is not a sync; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclGetSyncRole(cclOperation_t operation, cclSyncRole_t *role);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CCL_H */
