/*
 * A process forks while it is a peer.
 *
 * 1. In the child everything that was the parent's is an error, at once, whatever the parent's
 *    threads were at. 2. What the child does, its end included, does the parent no harm. 3. The
 *    child may make a master, a communicator and an operation of its own.
 */
#include "check.h"

/* What the parent had when it forked. */
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
    FORKED(cclGetCounters(c, &counters));
    FORKED(cclUpdateTopology(c));
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
    FORKED(cclGetProgress(operation, &progress));
    FORKED(cclGetSyncInfo(operation, &info));
    FORKED(cclGetSyncRole(operation, &number));
    FORKED(cclDestroyOperation(operation));
}

static void state_is_the_parents(cclCommunicator_t c, cclSharedState_t state) {
    cclOperation_t operation = NULL;
    uint8_t root[CCL_ROOT_BYTES];
    uint64_t value = 0;
    uint32_t number = 0;
    float data = 0;
    FORKED(cclAddEntry(state, "more", &data, cclFloat32, NULL, 0, 0));
    FORKED(cclGetRevision(state, &value));
    FORKED(cclSetRevision(state, 1));
    FORKED(cclIsUsable(state, &number));
    FORKED(cclGetRoot(state, root));
    FORKED(cclSyncSharedState(c, state, NULL, NULL));
    FORKED(cclSyncSharedStateAsync(c, state, NULL, &operation));
    FORKED(cclSaveSharedState(state, "/nowhere/at/all", 0));
    FORKED(cclLoadSharedState(state, "/nowhere/at/all", &number));
    FORKED(cclDestroySharedState(state));
}

static void master_is_the_parents(cclMaster_t master) {
    char address[CCL_ADDRESS_BYTES_MAX];
    FORKED(cclGetMasterAddress(master, address, sizeof address));
    FORKED(cclRunMaster(master));
    FORKED(cclInterruptMaster(master));
    FORKED(cclAwaitMaster(master));
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

static void child(const char *program, inherited_t inherited) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master;
    cclCommunicator_t communicator;
    float data[2] = {1, 2};
    everything_is_the_parents(inherited);
    OK(cclInit());
    master = start_master(address);
    communicator = connect_peer(address, 1);
    everything_is_the_parents(inherited);
    OK(cclAllReduce(communicator, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    EXPECT(cclErrorInvalidHandle, cclDestroyOperation((cclOperation_t)(void *)communicator));
    OK(cclDestroyCommunicator(communicator));
    OK(cclDestroyMaster(master));
    /* As another program: what the parent's threads held is no leak of the child's. */
    execl(program, program, "done", (char *)NULL);
    _exit(127);
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
    CHECK(data[0] == 1 && data[1] == 2);
    OK(cclSyncSharedState(inherited.communicator, inherited.state, NULL, NULL));
    OK(cclDestroySharedState(inherited.state));
    OK(cclLeave(inherited.communicator));
    OK(cclDestroyCommunicator(inherited.communicator));
    OK(cclDestroyMaster(inherited.master));
    return 0;
}
