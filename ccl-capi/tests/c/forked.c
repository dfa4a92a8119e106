/*
 * A process forks while it is a peer.
 *
 * 1. In the child every use of the parent's objects is an error, at once, whatever the parent's
 *    threads were doing. 2. Nothing in the child, its end included, harms the parent. 3. The child
 *    may make a master, a communicator and an operation of its own. 4. The child has the parent's
 *    log callback, and may change it, also if a thread of the parent was inside.
 */
#include "check.h"

/* The parent's objects when it forked. */
typedef struct inherited_t {
    cclMaster_t master;
    cclCommunicator_t communicator;
    cclOperation_t operation;
    cclSharedState_t state;
} inherited_t;

#define FORKED(call) EXPECT(cclErrorForked, call)

static void collectives_are_the_parents(cclCommunicator_t c) {
    cclOperation_t operation = NULL;
    float data[2] = {1, 2};
    float *const other = data + 1;
    cclBuffer_t buffer;
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    buffer.count = 2;
    buffer.dtype = cclFloat32;
    FORKED(cclAllReduce(c, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    FORKED(cclAllReduceAsync(c, data, data, 2, cclFloat32, cclSum, NULL, &operation));
    FORKED(cclAllReduceMany(c, &buffer, 1, cclSum, NULL, NULL));
    FORKED(cclAllReduceManyAsync(c, &buffer, 1, cclSum, NULL, &operation));
    FORKED(cclAllGather(c, data, 1, other, 1, cclFloat32, NULL, NULL));
    FORKED(cclAllGatherAsync(c, data, 1, other, 1, cclFloat32, NULL, &operation));
    FORKED(cclReduceScatter(c, data, 1, other, 1, cclFloat32, cclSum, NULL, NULL));
    FORKED(cclReduceScatterAsync(c, data, 1, other, 1, cclFloat32, cclSum, NULL, &operation));
    FORKED(cclBroadcast(c, data, 2, cclFloat32, 0, NULL, NULL));
    FORKED(cclBroadcastAsync(c, data, 2, cclFloat32, 0, NULL, &operation));
    FORKED(cclBarrier(c, NULL, NULL));
    FORKED(cclBarrierAsync(c, NULL, &operation));
    CHECK(operation == NULL && data[0] == 1 && data[1] == 2);
}

static void communicator_is_the_parents(cclCommunicator_t c) {
    cclCounters_t counters;
    cclOperation_t operation = NULL;
    uint64_t value = 0, peers[1];
    uint32_t number = 0, ranks[1];
    size_t count = 0;
    char address[CCL_ADDRESS_BYTES_MAX];
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    FORKED(cclGetAttribute(c, cclAttributeGroup, &value));
    FORKED(cclGetMembers(c, peers, 1, &count));
    FORKED(cclGetRingOrder(c, ranks, 1, &count));
    FORKED(cclGetListenAddress(c, address, sizeof address));
    FORKED(cclGetMemberName(c, 0, address, sizeof address));
    FORKED(cclGetMemberAddress(c, 0, address, sizeof address));
    FORKED(cclGetCounters(c, &counters));
    FORKED(cclUpdateTopology(c));
    FORKED(cclUpdateTopologyAsync(c, &operation));
    FORKED(cclArePeersPending(c, &number));
    FORKED(cclConnect(c));
    FORKED(cclLeave(c));
    FORKED(cclDestroyCommunicator(c));
}

static void operation_is_the_parents(cclOperation_t operation) {
    cclProgress_t progress;
    cclSyncInfo_t info;
    uint32_t number = 0;
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    FORKED(cclWait(operation, NULL));
    FORKED(cclWaitFor(operation, 1, NULL));
    FORKED(cclTest(operation, &number));
    FORKED(cclCancel(operation));
    FORKED(cclSetEndCallback(operation, NULL, NULL));
    FORKED(cclGetProgress(operation, &progress));
    FORKED(cclGetSyncInfo(operation, &info));
    FORKED(cclGetSyncRole(operation, &number));
    FORKED(cclDestroyOperation(operation));
}

static void state_is_the_parents(cclCommunicator_t c, cclSharedState_t state) {
    cclOperation_t operation = NULL;
    uint8_t root[CCL_ROOT_BYTES];
    cclEntry_t entry;
    uint64_t value = 0;
    uint32_t number = 0;
    size_t count = 0;
    float data = 0;
    memset(&entry, 0, sizeof entry);
    entry.struct_bytes = sizeof entry;
    FORKED(cclAddEntry(state, "more", &data, cclFloat32, NULL, 0, 0));
    FORKED(cclGetRevision(state, &value));
    FORKED(cclSetRevision(state, 1));
    FORKED(cclIsUsable(state, &number));
    FORKED(cclGetRoot(state, root));
    FORKED(cclMarkMixed(state));
    FORKED(cclBeginAnew(state, 1));
    FORKED(cclGetEntryCount(state, &count));
    FORKED(cclGetEntry(state, 0, &entry));
    FORKED(cclSyncSharedState(c, state, NULL, NULL));
    FORKED(cclSyncSharedStateAsync(c, state, NULL, &operation));
    FORKED(cclSaveSharedState(state, "/nowhere/at/all", NULL));
    FORKED(cclGetSkippedCount(state, &count));
    FORKED(cclLoadSharedState(state, "/nowhere/at/all", NULL, &number));
    FORKED(cclDestroySharedState(state));
}

static void master_is_the_parents(cclMaster_t master) {
    char address[CCL_ADDRESS_BYTES_MAX];
    FORKED(cclGetMasterAddress(master, address, sizeof address));
    FORKED(cclRunMaster(master));
    FORKED(cclInterruptMaster(master));
    FORKED(cclAwaitMaster(master));
    FORKED(cclAwaitMasterFor(master, 0));
    FORKED(cclDestroyMaster(master));
}

static void everything_is_the_parents(inherited_t inherited) {
    communicator_is_the_parents(inherited.communicator);
    collectives_are_the_parents(inherited.communicator);
    operation_is_the_parents(inherited.operation);
    state_is_the_parents(inherited.communicator, inherited.state);
    master_is_the_parents(inherited.master);
    CHECK(strstr(cclGetLastError(), "fork") != NULL);
}

static int lines_in_child = 0;

static void count_line(cclLogLevel_t level, const char *message, void *user_data) {
    CHECK(level > 0 && message != NULL && user_data == NULL);
    lines_in_child++;
}

static void child(const char *program, inherited_t inherited) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master;
    cclCommunicator_t communicator;
    float data[2] = {1, 2};
    everything_is_the_parents(inherited);
    OK(cclInit());
    OK(cclSetLogCallback(count_line, NULL, cclLogInfo));
    master = start_master(address);
    communicator = connect_peer(address, 1);
    everything_is_the_parents(inherited);
    OK(cclAllReduce(communicator, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    EXPECT(cclErrorInvalidHandle, cclDestroyOperation((cclOperation_t)(void *)communicator));
    OK(cclDestroyCommunicator(communicator));
    OK(cclDestroyMaster(master));
    CHECK(lines_in_child > 0);
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
    /* As another program: memory of the parent's threads is not a leak of the child. */
    execl(program, program, "done", (char *)NULL);
    _exit(127);
}

/* Pipes by which a callback reports that it has begun, and learns when to end. */
static int begun[2], go_on[2];

static void wait_in_callback(cclLogLevel_t level, const char *message, void *user_data) {
    char byte = 0;
    CHECK(level > 0 && message != NULL);
    if (getpid() != *(const pid_t *)user_data) {
        lines_in_child++;
        return;
    }
    CHECK(write(begun[1], "b", 1) == 1);
    CHECK(read(go_on[0], &byte, 1) == 0); /* until the other end is closed */
}

/* The child's log works although, in the parent, a callback has not returned. */
static void fork_while_a_callback_runs(const char *program, inherited_t inherited) {
    static pid_t parent;
    cclMaster_t master = NULL;
    char byte = 0, address[CCL_ADDRESS_BYTES_MAX];
    pid_t process;
    int status = 0;
    parent = getpid();
    CHECK(pipe(begun) == 0 && pipe(go_on) == 0);
    OK(cclSetLogCallback(wait_in_callback, &parent, cclLogInfo));
    master = start_master(address);
    CHECK(read(begun[0], &byte, 1) == 1);
    process = fork();
    CHECK(process >= 0);
    if (process == 0) {
        alarm(PATIENCE);
        OK(cclDestroyMaster(start_master(address))); /* lines go to the parent's callback */
        CHECK(lines_in_child > 0);
        child(program, inherited);
    }
    CHECK(waitpid(process, &status, 0) == process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(close(go_on[1]) == 0);
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
    OK(cclDestroyMaster(master));
}

int main(int argc, char **argv) {
    char address[CCL_ADDRESS_BYTES_MAX];
    inherited_t inherited;
    cclOptions_t options = options_of_tag(1);
    float data[2] = {1, 2};
    int status = 0, round;
    alarm(PATIENCE);
    if (argc > 1) {
        return 0;
    }
    inherited.master = start_master(address);
    inherited.communicator = connect_peer(address, 1);
    OK(cclCreateSharedState(1, &inherited.state));
    OK(cclAddEntry(inherited.state, "data", data, cclFloat32, NULL, 0, 1));
    for (round = 0; round < 5; round++) {
        pid_t process;
        OK(cclAllReduceAsync(inherited.communicator, data, data, 2, cclFloat32, cclSum, &options,
                             &inherited.operation));
        process = fork();
        CHECK(process >= 0);
        if (process == 0) {
            alarm(PATIENCE);
            child(argv[0], inherited);
        }
        OK(cclWait(inherited.operation, NULL));
        OK(cclBarrier(inherited.communicator, NULL, NULL));
        CHECK(waitpid(process, &status, 0) == process);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        OK(cclDestroyOperation(inherited.operation));
        OK(cclUpdateTopology(inherited.communicator));
    }
    fork_while_a_callback_runs(argv[0], inherited);
    CHECK(data[0] == 1 && data[1] == 2);
    OK(cclSyncSharedState(inherited.communicator, inherited.state, NULL, NULL));
    OK(cclDestroySharedState(inherited.state));
    OK(cclLeave(inherited.communicator));
    OK(cclDestroyCommunicator(inherited.communicator));
    OK(cclDestroyMaster(inherited.master));
    return 0;
}
