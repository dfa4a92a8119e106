/*
 * ccl: fault-tolerant collective communication for training over links that fail.
 *
 * Every function that returns cclResult_t returns cclSuccess or why not; cclGetLastError has the
 * words. Results are written on success only. Any thread may call anything at any time, unless the
 * function says otherwise; a handle may be destroyed while other threads use it. No function may be
 * called from a signal handler. Nothing here ends the process. After a fork the child's calls with
 * its parent's handles return cclErrorForked. A call leaves `errno` as it was; pthread_cancel ends a
 * thread after its call, not within. A thread that calls needs 128 KiB of stack.
 *
 * Structs that open with `struct_bytes` may grow: clear them, set it to their sizeof, then set what
 * you need. Times are in milliseconds, `_us` in microseconds; `count` is elements, `_bytes` is
 * bytes. Switches are 0 or 1.
 */

#ifndef CCL_H
#define CCL_H

/* Generated from ccl-capi/src by `make header`: do not edit. */

#include <stddef.h>
#include <stdint.h>

/*
 Major version of this header. Another one may mean other functions.
 */
#define CCL_VERSION_MAJOR 0

/*
 Minor version of this header. Before 1.0 another one may mean other functions too.
 */
#define CCL_VERSION_MINOR 1

/*
 Patch version of this header.
 */
#define CCL_VERSION_PATCH 0

/*
 A time in milliseconds that never comes. Any time of more than a year counts as a year.
 */
#define CCL_FOREVER UINT64_MAX

/*
 Bytes that every address fits in, its zero byte included.
 */
#define CCL_ADDRESS_BYTES_MAX 64

/*
 Bytes of a root.
 */
#define CCL_ROOT_BYTES 32

/*
 Most dimensions that an entry may have.
 */
#define CCL_DIMENSIONS_MAX 64

/*
 Bytes that every name of an entry fits in, its zero byte included.
 */
#define CCL_NAME_BYTES_MAX 513

/*
 What a cclCommunicator_t points to; never seen.
 */
typedef struct cclCommunicator cclCommunicator;

/*
 What a cclMaster_t points to; never seen.
 */
typedef struct cclMaster cclMaster;

/*
 What a cclOperation_t points to; never seen.
 */
typedef struct cclOperation cclOperation;

/*
 What a cclSharedState_t points to; never seen.
 */
typedef struct cclSharedState cclSharedState;

/*
 How a call ended: `cclSuccess`, or why not. Numbers never change their meaning; later versions
 may add more.
 */
typedef uint32_t cclResult_t;

/*
 Why the members' shared states do not fit together.
 */
typedef uint32_t cclStateFault_t;

/*
 Details of a failure: who, which operation, in which view. What does not apply is 0.
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
     Term of the view that the survivors are in (cclErrorPeerLost), that the members are in
     (cclErrorSharedState), or that this peer was in last (cclErrorEvicted,
     cclErrorRevisionAhead).
     */
    uint32_t term;
    /*
     Epoch of that view.
     */
    uint32_t epoch;
    /*
     Members at the moment (cclErrorTooFewPeers, cclErrorWorldChanged).
     */
    uint32_t world_size;
    /*
     Who was lost (cclErrorPeerLost), who cancelled (cclErrorCancelled), whose state is the odd
     one (cclErrorSharedState; 0 if none is), or this peer (cclErrorEvicted,
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
     The system's number of the error, as in errno.h (cclErrorSystem).
     */
    int32_t system_error;
    /*
     Why states do not fit together (cclErrorSharedState). Later versions may add more.
     */
    cclStateFault_t state_fault;
} cclErrorInfo_t;

/*
 How much a log line matters; each level includes those of smaller numbers.
 */
typedef uint32_t cclLogLevel_t;

/*
 Takes one log line: a UTF-8 text without a line end, valid during the call only. Called from any
 thread, from several at once, and from within the library's calls. It must return soon, must
 not unwind, and must not call the library: such a call returns cclErrorInvalidUsage.
 */
typedef void (*cclLogCallback_t)(cclLogLevel_t level, const char *message, void *user_data);

/*
 Type of the elements of a buffer.
 */
typedef uint32_t cclDataType_t;

/*
 What a master is told. 0 and NULL are the default of every field: clear the struct, set
 `struct_bytes`, then what is to be different. Texts are copied. Waiting times are in
 milliseconds, and told to each newcomer.
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
     File of the sealed history. NULL: none; a restarted master then needs a majority of each
     view.
     */
    const char *journal;
    /*
     1: views and decisions are told before they are on the disk.
     */
    uint32_t is_fsync_off;
    /*
     1: found a run at once, without waiting for members of an earlier one.
     */
    uint32_t is_new_run;
    /*
     1: rebuild from whoever is there, even without journal and majority: an operator's word that
     nobody else goes on.
     */
    uint32_t is_rebuild_forced;
    /*
     1: take a journal for the newest of its run although it has no marker beside it, because it
     was moved. Risk: an older copy may contradict what members were told.
     */
    uint32_t is_journal_trusted;
    /*
     1: wait for no member of an earlier run or view, for none is alive. Risk: one that is goes
     on for a while beside those that take its place.
     */
    uint32_t are_members_gone;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Between signs of life, both ways. 0: 250.
     */
    uint64_t heartbeat_interval_ms;
    /*
     Silence after which a peer, or the master, counts as dead; at least two heartbeats. 0: 5000.
     */
    uint64_t peer_timeout_ms;
    /*
     For a lost control connection to come back, if no data connection ended. 0: 2000.
     */
    uint64_t reattach_grace_ms;
    /*
     Reports of broken links are collected for so long, before somebody is blamed. 0: 500.
     */
    uint64_t blame_window_ms;
    /*
     Repair of a broken connection, before the link counts as down. 0: 3000.
     */
    uint64_t link_timeout_ms;
    /*
     A restarted master waits so long for the members of its last view. 0: 5000.
     */
    uint64_t rebuild_window_ms;
    /*
     A peer without a master goes on for so long, before its session ends. 0: 60000.
     */
    uint64_t detach_timeout_ms;
    /*
     A cancelled call waits so long for its verdict, before it ends as unknown. 0: 10000.
     */
    uint64_t verdict_timeout_ms;
    /*
     A member may come so long after the others to an operation; CCL_FOREVER: for ever. 0: 10
     minutes.
     */
    uint64_t post_timeout_ms;
} cclMasterConfig_t;

/*
 A master. Destroy it with cclDestroyMaster.
 */
typedef struct cclMaster *cclMaster_t;

/*
 What a peer is told. 0 and NULL are the default of every field: clear the struct, set
 `struct_bytes`, then what is to be different. Texts are copied.
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
     Name of the run, at most 512 bytes; a master of another run refuses. NULL: `default`.
     */
    const char *run;
    /*
     `ip:port` to listen on for other peers; port 0 lets the system choose. NULL: any address,
     and the port of `advertise`; only loopback if `master` is a loopback address or `localhost`.
     */
    const char *listen;
    /*
     `host:port` told to the others instead, for peers behind a port mapping; port 0 is the
     listening port. NULL: the address that the master sees, and those of this host.
     */
    const char *advertise;
    /*
     TCP congestion control of the lanes, such as `bbr`; one that the system does not have is
     passed over, with a line in the log. NULL: the system's choice.
     */
    const char *congestion_control;
    /*
     Failure unit: peers that live and die together. Counts only with `has_unit`.
     */
    uint64_t unit;
    /*
     How long cclConnect may take, the master's absence included, in milliseconds. 0: 90 s.
     */
    uint64_t connect_timeout_ms;
    /*
     Deadline of each call that names none, in milliseconds; CCL_FOREVER: none. 0: 10 minutes.
     */
    uint64_t operation_timeout_ms;
    /*
     Scratch memory for contributions on their way, in bytes, 16 MiB to 1 GiB. 0: 16
     MiB.
     */
    uint64_t scratch_bytes;
    /*
     Most bytes a second that each lane may send. 0: no limit.
     */
    uint64_t pacing_bytes_per_second;
    /*
     Most bytes a second that this peer gives to others that lack shared state. 0: no limit.
     */
    uint64_t state_bytes_per_second;
    /*
     Peer group: peers of one group reduce together.
     */
    uint32_t group;
    /*
     1: `unit` counts. 0: a unit of this peer alone.
     */
    uint32_t has_unit;
    /*
     Data connections of each link that this peer dials, 1 to 32. 0: 1 to a peer of the same
     host, 4 to any other.
     */
    uint32_t lanes;
    /*
     Fewest members with which operations run, 1 to 256. 0: 1.
     */
    uint32_t min_world_size;
    /*
     Peers that the group's first view waits for, up to 256. 0: `min_world_size`.
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
     How many peers the unit has, over all groups, 1 to 1024: they are admitted together, to each
     group at its cclUpdateTopology of the same number. All say the same, else they are refused,
     as are more peers than that. Needs `has_unit`. 0: none waits for another.
     */
    uint32_t unit_size;
    /*
     What this peer is called in errors, logs and events, at most 64 bytes. NULL: the host's name
     and the number of the process.
     */
    const char *name;
} cclCommunicatorConfig_t;

/*
 A peer of a run: one session. Any thread may use it. Destroy it with cclDestroyCommunicator.
 */
typedef struct cclCommunicator *cclCommunicator_t;

/*
 What can be asked of a communicator.
 */
typedef uint32_t cclAttribute_t;

/*
 What happened to a communicator since it was connected.
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
     Data connections of the widest link there is now; 0 without another peer.
     */
    uint32_t lanes;
    /*
     0.
     */
    uint32_t reserved;
} cclCounters_t;

/*
 An operation under way, or over. Any thread may use it. Destroy it with cclDestroyOperation. The
 memory of its buffers must stay, and be left alone, until it has ended.
 */
typedef struct cclOperation *cclOperation_t;

/*
 What is told of a success. Set `struct_bytes`, and `contributors` and its capacity if the
 contributors are wanted; the rest is written, on success only.
 */
typedef struct cclOutcome_t {
    /*
     `sizeof(cclOutcome_t)`.
     */
    size_t struct_bytes;
    /*
     Room for ids of peers, or NULL. As many are written as there is room for.
     */
    uint64_t *contributors;
    /*
     Ids that there is room for.
     */
    size_t contributors_capacity;
    /*
     Peers whose data is in the result, in rank order: how many.
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
     Term of the view this peer was in when it was told.
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
     Attempts it took.
     */
    uint32_t attempts;
} cclOutcome_t;

/*
 How far an operation is at this peer.
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
     Payload bytes that will have been sent and received at the end; 0 until it has begun.
     */
    uint64_t total_bytes;
} cclProgress_t;

/*
 Is told that an operation has ended, such as by a write to a pipe that the application waits at.
 It must return soon, must not unwind, and must not call the library: such a call returns
 cclErrorInvalidUsage.
 */
typedef void (*cclEndCallback_t)(void *user_data);

/*
 How elements combine, in rank order. Integers wrap.
 */
typedef uint32_t cclReduceOp_t;

/*
 How bytes move.
 */
typedef uint32_t cclAlgorithm_t;

/*
 How one call is made. 0 is the default of every field. All members must give the same
 `algorithm` and `attempts`.
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
     cclAlgorithmAuto or its like.
     */
    cclAlgorithm_t algorithm;
    /*
     Most attempts with the survivors after a peer is lost, the first included; 0 and 1: no
     retry.
     */
    uint32_t attempts;
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
 Named buffers that all members of a group are to hold with the same bits, and their revision:
 weights, optimizer state, the step. Any thread may use it; a call waits for another thread's
 call on the same state that hashes, saves or loads. Destroy it with cclDestroySharedState.
 */
typedef struct cclSharedState *cclSharedState_t;

/*
 One entry of a state. Set `struct_bytes`, and `name` and `shape` with their capacities if they
 are wanted; the rest is written, on success only.
 */
typedef struct cclEntry_t {
    /*
     `sizeof(cclEntry_t)`.
     */
    size_t struct_bytes;
    /*
     Room for its name with a zero byte at the end, or NULL; CCL_NAME_BYTES_MAX bytes are always
     enough.
     */
    char *name;
    /*
     Bytes that there is room for.
     */
    size_t name_capacity;
    /*
     Bytes that the name takes, its zero byte included.
     */
    size_t name_bytes;
    /*
     Room for its extents, or NULL; as many are written as there is room for.
     */
    uint64_t *shape;
    /*
     Extents that there is room for; CCL_DIMENSIONS_MAX are always enough.
     */
    size_t shape_capacity;
    /*
     How many extents it has.
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
     Checkpoints that stay after a save, the new one among them. 0: 2.
     */
    uint32_t keep_count;
    /*
     Threads that hash. 0: as many as there are cores, at most 8.
     */
    uint32_t hash_threads;
} cclCheckpointOptions_t;

/*
 The newest checkpoint of a directory. Set `struct_bytes`, and `path` and its capacity if the
 path is wanted; the rest is written, on success only.
 */
typedef struct cclCheckpoint_t {
    /*
     `sizeof(cclCheckpoint_t)`.
     */
    size_t struct_bytes;
    /*
     1: there is one. 0: there is none, and the rest is 0.
     */
    uint32_t is_there;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Room for the path of its file, with a zero byte at the end, or NULL.
     */
    char *path;
    /*
     Bytes that there is room for.
     */
    size_t path_capacity;
    /*
     Bytes that the path takes, its zero byte included; 0 if there is none.
     */
    size_t path_bytes;
    /*
     Its revision.
     */
    uint64_t revision;
    /*
     The digest over all its entries.
     */
    uint8_t root[CCL_ROOT_BYTES];
} cclCheckpoint_t;

/*
 Whether a member's content counts in a sync. cclEnforcePopular may be mixed with cclReceiveOnly,
 and cclSendOnly with cclReceiveOnly; somebody must give.
 */
typedef uint32_t cclSyncStrategy_t;

/*
 How a sync is made. 0 and NULL are the default of every field.
 */
typedef struct cclSyncOptions_t {
    /*
     `sizeof(cclSyncOptions_t)`.
     */
    size_t struct_bytes;
    /*
     Indices of the entries that may have changed since this state's last sync, in the order in
     which they were added: only these are hashed. A change elsewhere goes unseen until a sync
     without this hint. NULL: all.
     */
    const size_t *touched;
    /*
     How many they are; counts only with `touched`.
     */
    size_t touched_count;
    /*
     After this time the sync is cancelled for all members, in milliseconds; 0: the
     communicator's `operation_timeout_ms`.
     */
    uint64_t deadline_ms;
    /*
     cclEnforcePopular or its like.
     */
    cclSyncStrategy_t strategy;
    /*
     1: a vote for the best content there is, if nobody has the one that was agreed on last or
     what follows it, or fewer than are further ahead of it, as after a loss of the master's
     journal. Needs the votes of all members.
     */
    uint32_t is_restore;
    /*
     Threads that hash. 0: as many as there are cores, at most 8.
     */
    uint32_t hash_threads;
    /*
     0.
     */
    uint32_t reserved;
} cclSyncOptions_t;

/*
 Who gave how much to a sync.
 */
typedef struct cclSyncSource_t {
    /*
     Id of the peer.
     */
    uint64_t peer;
    /*
     Bytes of it that were used.
     */
    uint64_t bytes;
} cclSyncSource_t;

/*
 What a sync did at this peer. Set `struct_bytes`, and the lists with their capacities if they
 are wanted: as many are written as there is room for. The rest is written, on success only.
 */
typedef struct cclSyncInfo_t {
    /*
     `sizeof(cclSyncInfo_t)`.
     */
    size_t struct_bytes;
    /*
     Room for who gave what to this peer, or NULL.
     */
    struct cclSyncSource_t *sources;
    /*
     Sources that there is room for.
     */
    size_t sources_capacity;
    /*
     Peers that gave something to this one: how many.
     */
    size_t sources_count;
    /*
     Room for ids of the members that took part, in rank order, or NULL.
     */
    uint64_t *members;
    /*
     Ids that there is room for.
     */
    size_t members_capacity;
    /*
     Members that took part: how many.
     */
    size_t members_count;
    /*
     The revision that all members have now.
     */
    uint64_t revision;
    /*
     The digest over all entries, the same at all members.
     */
    uint8_t root[CCL_ROOT_BYTES];
    /*
     Bytes given to other members.
     */
    uint64_t sent_bytes;
    /*
     Bytes received: blocks that differed, and digests.
     */
    uint64_t received_bytes;
    /*
     Time from the call to its end, in microseconds.
     */
    uint64_t duration_us;
    /*
     How much of it went into hashing the own state, in microseconds.
     */
    uint64_t hashing_us;
    /*
     Term of the view this peer was in when it was told.
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
     Attempts it took.
     */
    uint32_t attempts;
    /*
     The sync's number among those of the run.
     */
    uint64_t number;
} cclSyncInfo_t;

/*
 What a member is to a sync.
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
 Members call with strategies that do not go together.
 */
#define cclStateFaultStrategies 2

/*
 A member calls with cclSendOnly, and its content is not the elected one.
 */
#define cclStateFaultSenderLost 3

/*
 Too many members are too far ahead of the run to evict them. All may call with `restore`.
 */
#define cclStateFaultRevisionAhead 4

/*
 Nobody has the content that was sealed last, or one that follows it. All may call with
 `restore`.
 */
#define cclStateFaultRevisionLost 5

/*
 Nobody has a whole content. Load a checkpoint or begin anew, and let all call with `restore`.
 */
#define cclStateFaultNoSource 6

/*
 It did what it says.
 */
#define cclSuccess 0

/*
 An argument is NULL that may not be, or out of range. Nothing was started.
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
 The handle was made before a fork and is used in the child. Make another there.
 */
#define cclErrorForked 4

/*
 The operating system refused something.
 */
#define cclErrorSystem 5

/*
 A mistake in this library, caught. Please report it.
 */
#define cclErrorInternal 6

/*
 The time given is over before the end came; what was waited for goes on.
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
 The master did not let this peer in. The session is over.
 */
#define cclErrorRefused 10

/*
 A member was lost during the operation, which was aborted for all. Call it again: it runs with
 the survivors.
 */
#define cclErrorPeerLost 11

/*
 Somebody cancelled the operation, or its deadline passed, or the members' calls did not match,
 or a member had no memory for it. It was aborted for all.
 */
#define cclErrorCancelled 12

/*
 Fewer members than `min_world_size`. Call cclUpdateTopology until somebody joins.
 */
#define cclErrorTooFewPeers 13

/*
 The members changed, and the buffers are made for another number of them. Nothing was started.
 Read the world size and call again with buffers for it.
 */
#define cclErrorWorldChanged 14

/*
 The master removed this peer, for another reason than cclErrorRevisionAhead. The session is
 over.
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
 The members' shared states do not fit together: entries, strategies or revisions. Nothing moved.
 */
#define cclErrorSharedState 18

/*
 The master removed this peer, because its shared state is further ahead than the run may go in
 one step: it comes from another run, or from a later point of this one. The session is over. Who
 comes back with the same state is evicted again: begin without it, or load the run's own
 checkpoint.
 */
#define cclErrorRevisionAhead 19

/*
 Something failed for good.
 */
#define cclLogError 1

/*
 Something that an operator should know of.
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
 Each chunk goes to its owner, who adds and sends the result to all.
 */
#define cclAlgorithmDirect 1

/*
 Chunks travel around the ring of the view.
 */
#define cclAlgorithmRing 2

/*
 Rank of this peer in the view of the newest result. Needs a connection.
 */
#define cclAttributeRank 0

/*
 Members of that view. Needs a connection.
 */
#define cclAttributeWorldSize 1

/*
 Id of this session, never given twice in a run. Needs a connection.
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
 Port that other peers reach this one at. Needs a connection.
 */
#define cclAttributeListenPort 6

/*
 Peer group.
 */
#define cclAttributeGroup 7

/*
 Data connections of each link that this peer dials; 0: chosen by where the other is.
 */
#define cclAttributeLanes 8

/*
 Fewest members with which operations run.
 */
#define cclAttributeMinWorldSize 9

/*
 Peers that the group's first view waits for.
 */
#define cclAttributeInitialWorldSize 10

/*
 Members of all peer groups of the run together: cclAttributeWorldSize and, for information, what
 the master told last of the other groups, at most a heartbeat ago while it lives. Needs a
 connection.
 */
#define cclAttributeGlobalWorldSize 11

/*
 Peer groups that have members, the own one included; the others as above. Needs a connection.
 */
#define cclAttributeGroups 12

/*
 Members of the largest peer group; of the others as above. Needs a connection.
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
 Nothing is elected yet, or the sync has ended.
 */
#define cclRoleUnknown 0

/*
 Its content is being replaced: the memory may be neither read nor written.
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
 Words for the last failure of a call on this thread: what went wrong and what to do about it.

 Never NULL; empty if no call failed yet. The text is the library's, and valid until the next
 call that fails on this thread, or the thread's end. A success leaves it as it is. Does not
 block; may be called from anywhere.
 */
const char *cclGetLastError(void);

/*
 Details of the last failure of a call on this thread; all 0 if no call failed yet. Does not
 block. A failure of this call is not kept.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetLastErrorInfo(struct cclErrorInfo_t *info);

/*
 A short name of a result code. Never NULL, never freed; also for numbers that are no code. Does
 not block; may be called from anywhere.
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
 fails; destroy it, create another and connect anew. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclResultIsFatal(cclResult_t result, uint32_t *is_fatal);

/*
 Prepares the library. Optional: whatever needs preparing is prepared by the first call that
 needs it. May be called any number of times, from any thread. Does not block.

 Errors: none, but for cclErrorInvalidUsage within the log callback.
 */
cclResult_t cclInit(void);

/*
 Writes the version of the library that runs, as major × 10000 + minor × 100 + patch, to be
 compared with CCL_VERSION_MAJOR and its like of the header that the program was compiled with.
 Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetVersion(uint32_t *version);

/*
 Sends the library's log lines, for the whole process, to `callback`, up to `level`. Replaces an
 earlier callback; NULL switches the log off, which it is at the start. When this returns, no
 earlier callback runs any more. `user_data` is handed through; it stays the caller's.

 Blocks while an earlier callback runs.

 Errors: cclErrorInvalidArgument for a level that is none; cclErrorInvalidUsage if another part
 of the program has taken the log lines before.
 */
cclResult_t cclSetLogCallback(cclLogCallback_t callback, void *user_data, cclLogLevel_t level);

/*
 Writes how many bytes an element of a type has. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclGetDataTypeBytes(cclDataType_t dtype, size_t *bytes);

/*
 Makes a master, which does not run yet. `config` may be NULL and is not kept. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclCreateMaster(const struct cclMasterConfig_t *config, cclMaster_t *master);

/*
 Reads the journal, binds the port and serves from a thread of the library. Returns as soon as
 peers can connect; blocks for the disk only.

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
 master that is started again. Again and again does no harm. Does not block; may be called from
 any thread, but not from a signal handler.

 Errors: cclErrorInvalidUsage if the master does not run; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclInterruptMaster(cclMaster_t master);

/*
 Blocks until the master has ended: by cclInterruptMaster, by cclDestroyMaster, or by itself. Any
 number of threads may wait, also after the end.

 Errors: cclErrorSystem if the journal could not be written: the master stops rather than to
 promise what is not on the disk; start it again once there is room. cclErrorInvalidUsage if the
 master does not run; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclAwaitMaster(cclMaster_t master);

/*
 Blocks until the master has ended, at most `timeout_ms` milliseconds; 0 asks without waiting.

 Errors: cclErrorTimeout if it has not ended by then; else as cclAwaitMaster.
 */
cclResult_t cclAwaitMasterFor(cclMaster_t master, uint64_t timeout_ms);

/*
 Stops the master, blocks until it has, and takes the handle back. Peers go on.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyMaster(cclMaster_t master);

/*
 Makes a communicator, which is not connected yet. `config` may be NULL and is not kept. Does not
 block.

 Errors: cclErrorInvalidArgument names the field.
 */
cclResult_t cclCreateCommunicator(const struct cclCommunicatorConfig_t *config,
                                  cclCommunicator_t *communicator);

/*
 Joins the run: registers with the master, links with the members, and returns once admitted. The
 master may start later than its peers. Blocks up to `connect_timeout_ms`, and for as long as the
 system needs to look up the host names in the config; cclLeave or cclDestroyCommunicator on
 another thread ends it early. After a failure it may be called again.

 Errors: cclErrorMasterUnreachable, cclErrorNotAdmitted, cclErrorRefused; cclErrorEnded if it was
 given up; cclErrorInvalidUsage if it was connected before; cclErrorSystem,
 cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclConnect(cclCommunicator_t communicator);

/*
 Leaves the run: cancels what this peer has open, says farewell, and blocks until the answer, at
 most the master's `verdict_timeout_ms`. Every later call that needs the run returns
 cclErrorEnded; attributes and counters stay as they are. While another thread is in cclConnect,
 gives that up, at most a second later.

 Errors: cclErrorInvalidUsage if it is not connected; how the session ended, if it did before;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclLeave(cclCommunicator_t communicator);

/*
 Leaves the run if the master answers within a second, for which it blocks, ends every call
 under way on other threads with cclErrorEnded, and takes the handle back. Operations that were
 started are over then, and their memory is the caller's; their handles stay, and are destroyed
 by cclDestroyOperation.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyCommunicator(cclCommunicator_t communicator);

/*
 Writes one attribute. Rank, world size, term and epoch change only when a call of this
 communicator returns. Does not block.

 Errors: cclErrorInvalidArgument for an attribute that is none; cclErrorInvalidUsage for one that
 needs a connection before there is one; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetAttribute(cclCommunicator_t communicator,
                            cclAttribute_t attribute,
                            uint64_t *value);

/*
 Writes the ids of the members of the view of the newest result, in rank order: as many as there
 is room for, and their number. `peers` may be NULL if `capacity` is 0. Does not block.

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
 Writes the `ip:port` at which others reach the member at `rank` in the view of the newest
 result, the first of several, with a zero byte at the end; CCL_ADDRESS_BYTES_MAX bytes are
 always enough. Does not block.

 Errors: as cclGetMemberName.
 */
cclResult_t cclGetMemberAddress(cclCommunicator_t communicator,
                                uint32_t rank,
                                char *address,
                                size_t address_bytes);

/*
 Writes the ring of the view of the newest result: ranks, each followed by its next; as many as
 there is room for, and their number. `ranks` may be NULL if `capacity` is 0. Does not block.

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
 A safe point: admits the newcomers that are ready. All members must come to it, in the same
 order among their safe points. Blocks until they have if a newcomer waits, otherwise for one
 round trip to the master; at most `operation_timeout_ms`. A newcomer's first call is what
 the members call after the safe point that admits it.

 Errors: cclErrorTimeout: the safe point is not used up; the fatal ones (cclResultIsFatal);
 cclErrorInvalidUsage if it is not connected, or if another thread is in this call;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclUpdateTopology(cclCommunicator_t communicator);

/*
 Starts cclUpdateTopology and gives a handle of it: cclWait says how it ended, and its outcome
 has the members of the view, without tag and number. cclCancel, or cclDestroyOperation,
 withdraws from the safe point, unless it is released meanwhile; the withdrawn one is not used
 up. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked. All others come from cclWait, which returns
 cclErrorTimeout of one that was withdrawn: cclTest says that it has ended.
 */
cclResult_t cclUpdateTopologyAsync(cclCommunicator_t communicator, cclOperation_t *operation);

/*
 Writes how many newcomers the next cclUpdateTopology may admit, as far as this peer has heard:
 other members may have heard more, or less. Does not block and asks nobody.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage if it is not connected;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclArePeersPending(cclCommunicator_t communicator, uint32_t *pending);

/*
 Blocks until the operation has ended, and says how. May be called again, by any thread, and says
 the same. `outcome` may be NULL.

 Errors: as the blocking form of the call that started it; cclErrorInvalidHandle.
 */
cclResult_t cclWait(cclOperation_t operation, struct cclOutcome_t *outcome);

/*
 Blocks until the operation has ended, at most `timeout_ms` milliseconds. The operation goes on
 whatever comes of it. `outcome` may be NULL.

 Errors: cclErrorTimeout if it has not ended by then; else as cclWait.
 */
cclResult_t cclWaitFor(cclOperation_t operation, uint64_t timeout_ms, struct cclOutcome_t *outcome);

/*
 Writes 1 if the operation has ended, one way or another, else 0; cclWait then says how, without
 blocking. Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclTest(cclOperation_t operation, uint32_t *is_finished);

/*
 Asks to abort the operation for all members, who then get cclErrorCancelled. The verdict may
 still be success: cclWait says. Does not block.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclCancel(cclOperation_t operation);

/*
 Writes how far the operation is at this peer, or was when it ended. Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetProgress(cclOperation_t operation, struct cclProgress_t *progress);

/*
 Has a function called once when the operation has ended: from a thread of the library, or from
 within this call if it has ended already. cclWait then does not block. Replaces an earlier
 function that was not called yet; NULL wants none. When this or cclDestroyOperation returns, no
 earlier one runs any more, nor will. `user_data` is handed through; it stays the caller's.
 Blocks while an earlier one runs.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSetEndCallback(cclOperation_t operation, cclEndCallback_t callback, void *user_data);

/*
 Takes the handle back. Cancels an operation that has not ended, and blocks until it has, at most
 the master's `verdict_timeout_ms`; afterwards its memory is the caller's.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroyOperation(cclOperation_t operation);

/*
 Reduces `count` elements of every member into `receive` on all of them. `send` may equal
 `receive`: in place; otherwise they may not overlap. They may lie at any address, aligned or
 not; without elements they may be NULL. All members give the same count, type, operator and
 options. `options` and `outcome` may be NULL.

 After an error `send` is as it was, in place too; a `receive` that is another is undefined.
 Blocks until the operation has ended for all, at most its deadline and the master's
 `verdict_timeout_ms`.

 Errors: cclErrorPeerLost: call again. cclErrorTooFewPeers: admit more first. cclErrorCancelled:
 somebody cancelled, or called something else. cclErrorInvalidUsage if the tag is busy or there
 is no connection. The fatal ones (cclResultIsFatal). cclErrorInvalidArgument,
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
 Starts cclAllReduce and gives a handle of it. The buffers must stay, and be left alone, until it
 has ended; `options` is copied. Does not block.

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
 same contributors, or none is touched. Up to 65,536 buffers, of which none that is written
 overlaps another. The list is read during the call only. Otherwise as cclAllReduce; with
 `attempts` in the options it is repeated with the survivors by itself.

 Errors: as cclAllReduce.
 */
cclResult_t cclAllReduceMany(cclCommunicator_t communicator,
                             const struct cclBuffer_t *buffers,
                             size_t buffers_count,
                             cclReduceOp_t op,
                             const struct cclOptions_t *options,
                             struct cclOutcome_t *outcome);

/*
 Starts cclAllReduceMany and gives a handle of it. The buffers must stay, and be left alone,
 until it has ended; the list of them need not. Does not block.

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
 for `receive_count` elements: `send_count` times the world size. The buffers may not overlap.
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
 Starts cclAllGather and gives a handle of it. Otherwise as cclAllReduceAsync.

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
 and gives each member the `receive_count` elements of its rank. The buffers may not overlap.
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
 Starts cclReduceScatter and gives a handle of it. Otherwise as cclAllReduceAsync.

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
 Gives all members the `count` elements of `buffer` at rank `root`. After an error the buffer is
 as it was. Otherwise as cclAllReduce.

 Errors: cclErrorInvalidArgument if there is no such rank; cclErrorWorldChanged if the members
 changed meanwhile; else as cclAllReduce.
 */
cclResult_t cclBroadcast(cclCommunicator_t communicator,
                         void *buffer,
                         size_t count,
                         cclDataType_t dtype,
                         uint32_t root,
                         const struct cclOptions_t *options,
                         struct cclOutcome_t *outcome);

/*
 Starts cclBroadcast and gives a handle of it. Otherwise as cclAllReduceAsync.

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
 Starts cclBarrier and gives a handle of it. Does not block.

 Errors: as cclAllReduceAsync.
 */
cclResult_t cclBarrierAsync(cclCommunicator_t communicator,
                            const struct cclOptions_t *options,
                            cclOperation_t *operation);

/*
 Makes a state without entries. `revision` is how often it was advanced. Does not block.

 Errors: cclErrorInvalidArgument.
 */
cclResult_t cclCreateSharedState(uint64_t revision, cclSharedState_t *state);

/*
 Adds a buffer: `memory` holds as many elements of `dtype` as the product of the
 `dimensions_count` extents in `shape`; no dimensions are one element. All members add the same
 names (at most 512 bytes, UTF-8), types and shapes in the same order. Entries may not overlap.
 `is_unequal` 1: the contents may differ, and are neither compared nor moved. Up to 100,000
 entries.

 `name` and `shape` are copied. The memory stays the caller's, and must stay where it is until
 the state is destroyed. It may be read and written whenever no sync, save or load of this state
 is under way. Does not block.

 Errors: cclErrorInvalidArgument for a name that is there already, memory that is NULL or not
 aligned, or a shape beyond the address space; cclErrorInvalidUsage while a sync of this state is
 under way; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclAddEntry(cclSharedState_t state,
                        const char *name,
                        void *memory,
                        cclDataType_t dtype,
                        const uint64_t *shape,
                        size_t dimensions_count,
                        uint32_t is_unequal);

/*
 Writes how often the state was advanced. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetRevision(cclSharedState_t state, uint64_t *revision);

/*
 Says how often the state was advanced: one more after each step. A sync may be one revision
 ahead of the one before. Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is under way; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclSetRevision(cclSharedState_t state, uint64_t revision);

/*
 Writes 1 if the content is whole. 0 after a sync or a load that failed half-way, until one
 succeeds, or until cclBeginAnew: what is there is a mixture of two contents, and the next sync
 only receives. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclIsUsable(cclSharedState_t state, uint32_t *is_usable);

/*
 Says that the content is a mixture, as of memory that another state's sync left half-way, or
 that the program itself has half written: cclIsUsable is 0, and the next sync only receives,
 until one sync or load succeeds. Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is under way; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclMarkMixed(cclSharedState_t state);

/*
 Says that the memory holds a whole content of this revision, whatever it was before, or will
 when it is used next: what the program has put there itself. So a run begins anew whose members
 have all lost theirs (cclStateFaultNoSource). Does not block.

 Errors: cclErrorInvalidUsage while a sync of this state is under way; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclBeginAnew(cclSharedState_t state, uint64_t revision);

/*
 Writes the digest over all entries as they are now, CCL_ROOT_BYTES bytes: states with the same
 root have the same names, types, shapes and contents. Blocks while it hashes everything, on
 up to 8 cores.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetRoot(cclSharedState_t state, uint8_t *root);

/*
 Takes the handle back. Cancels a sync of this state that has not ended, and blocks until it has,
 at most the master's `verdict_timeout_ms`; its operation's handle stays, and says how it ended.
 Afterwards the memory of all entries is the caller's.

 Errors: cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclDestroySharedState(cclSharedState_t state);

/*
 Writes how many entries the state has. Does not block.

 Errors: cclErrorInvalidArgument; cclErrorInvalidUsage while a sync of this state is under way;
 cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetEntryCount(cclSharedState_t state, size_t *count);

/*
 Writes what was said of an entry when it was added; `index` counts from 0 in that order. Does
 not block.

 Errors: cclErrorInvalidArgument if there is no such entry, or its name does not fit;
 cclErrorInvalidUsage while a sync of this state is under way; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclGetEntry(cclSharedState_t state, size_t index, struct cclEntry_t *entry);

/*
 Saves the state with its revision to a directory, which is made if its parent is there: whole or
 not at all, whatever dies meanwhile. Each member saves to a directory of its own, or one for all
 of them. `options` may be NULL. Blocks for two hashes and one write; nobody may write the memory
 meanwhile. cclGetNewestCheckpoint has the file's path.

 Errors: cclErrorSystem if the disk fails: the checkpoints that were there are still there.
 cclErrorInvalidArgument if `directory` is NULL or no UTF-8, or an entry's name is not fit for a
 file; cclErrorInvalidUsage if the content is a mixture, or while a sync of this state is under
 way; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSaveSharedState(cclSharedState_t state,
                               const char *directory,
                               const struct cclCheckpointOptions_t *options);

/*
 Loads the newest whole checkpoint of a directory into the entries, and its revision; writes 1
 if there was one, 0 if there is none at all, which leaves the state as it is. What is loaded
 hashes to the root that it was saved with; a damaged file is passed over for the one before it
 (cclGetSkippedCount).
 A run that starts anew begins so, and then syncs: the highest revision that anybody has wins.
 `options` may be NULL. Blocks for two reads; nobody may use the memory meanwhile.

 Errors: cclErrorInvalidArgument if there are checkpoints and none is whole, or the newest has
 other entries; cclErrorSystem if the directory cannot be read. After an error cclIsUsable says
 whether the content is still whole. cclErrorInvalidUsage while a sync of this state is under
 way; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclLoadSharedState(cclSharedState_t state,
                               const char *directory,
                               const struct cclCheckpointOptions_t *options,
                               uint32_t *is_loaded);

/*
 Writes how many newer checkpoints the last load of this state that succeeded passed over,
 because they cannot be used: damaged ones, say. The log says what is wrong with each
 (cclSetLogCallback). Does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetSkippedCount(cclSharedState_t state, size_t *count);

/*
 Writes what the newest checkpoint of a directory is, without reading its content. Blocks for the
 disk only.

 Errors: cclErrorInvalidArgument, also if the path does not fit, or if there are files and none
 is a checkpoint that is whole by its length; cclErrorSystem if the directory cannot be read.
 */
cclResult_t cclGetNewestCheckpoint(const char *directory, struct cclCheckpoint_t *checkpoint);

/*
 Makes a state equal at all members of the group: the master elects one content by revision and
 popularity, and whoever lacks it gets the blocks that differ from those that have it, verified.
 All members call it. On success the memory is the elected content, and the revision its own.
 Nobody may write the memory meanwhile. `options` and `info` may be NULL.

 Hashes the state on this thread, then blocks until all members have the content, at most its
 deadline and the master's `verdict_timeout_ms`. A member that is lost meanwhile, a source too,
 does not disturb the others.

 Errors: cclErrorSharedState names who called with other entries, strategies or revisions;
 nothing moved. cclErrorCancelled, cclErrorTooFewPeers, the fatal ones (cclResultIsFatal). After
 any of them cclIsUsable says whether the content is still whole. cclErrorInvalidUsage while
 another sync of this state or communicator is under way, or if there is no connection.
 cclErrorInvalidArgument, cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclSyncSharedState(cclCommunicator_t communicator,
                               cclSharedState_t state,
                               const struct cclSyncOptions_t *options,
                               struct cclSyncInfo_t *info);

/*
 Starts cclSyncSharedState and gives a handle of it, for cclWait and its like, cclGetSyncInfo and
 cclGetSyncRole. Until it has ended all calls on the state but cclDestroySharedState are
 cclErrorInvalidUsage, and the memory must be left alone (cclGetSyncRole says more). `options` is
 copied. Hashes the state on this thread; then does not block.

 Errors: cclErrorInvalidArgument, cclErrorInvalidUsage, cclErrorInvalidHandle, cclErrorForked;
 all others come from cclWait.
 */
cclResult_t cclSyncSharedStateAsync(cclCommunicator_t communicator,
                                    cclSharedState_t state,
                                    const struct cclSyncOptions_t *options,
                                    cclOperation_t *operation);

/*
 Writes what a sync did that was started by cclSyncSharedStateAsync and has ended. Does not
 block.

 Errors: cclErrorTimeout if it has not ended; how it ended, if it failed; cclErrorInvalidArgument
 if the operation is no sync, or `info` is NULL; cclErrorInvalidHandle, cclErrorForked.
 */
cclResult_t cclGetSyncInfo(cclOperation_t operation, struct cclSyncInfo_t *info);

/*
 Writes whether this peer gives or receives in a sync that was started by
 cclSyncSharedStateAsync; after its end, whether it did. Does not block.

 Errors: cclErrorInvalidArgument, also if the operation is no sync; cclErrorInvalidHandle,
 cclErrorForked.
 */
cclResult_t cclGetSyncRole(cclOperation_t operation, cclSyncRole_t *role);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CCL_H */
