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

static void everything_is_the_parents(inherited_t inherited) {
    cclCounters_t counters;
    cclProgress_t progress;
    uint64_t value = 0, peers[1];
    uint32_t number = 0, ranks[1];
    size_t count = 0;
    float data[2] = {1, 2};
    cclBuffer_t buffer;
    cclOperation_t operation = NULL;
    char address[CCL_ADDRESS_BYTES_MAX];
    const cclCommunicator_t c = inherited.communicator;
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    buffer.count = 2;
    buffer.dtype = cclFloat32;
#define FORKED(call) EXPECT(cclErrorForked, call)
    FORKED(cclGetAttribute(c, cclAttributeGroup, &value));
    FORKED(cclGetMembers(c, peers, 1, &count));
    FORKED(cclGetRingOrder(c, ranks, 1, &count));
    FORKED(cclGetListenAddress(c, address, sizeof address));
    FORKED(cclGetCounters(c, &counters));
    FORKED(cclUpdateTopology(c));
    FORKED(cclArePeersPending(c, &number));
    FORKED(cclAllReduce(c, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    FORKED(cclAllReduceAsync(c, data, data, 2, cclFloat32, cclSum, NULL, &operation));
    FORKED(cclAllReduceMany(c, &buffer, 1, cclSum, NULL, NULL));
    FORKED(cclBroadcast(c, data, 2, cclFloat32, 0, NULL, NULL));
    FORKED(cclBarrier(c, NULL, NULL));
    FORKED(cclConnect(c));
    FORKED(cclLeave(c));
    FORKED(cclDestroyCommunicator(c));
    FORKED(cclWait(inherited.operation, NULL));
    FORKED(cclWaitFor(inherited.operation, 1, NULL));
    FORKED(cclTest(inherited.operation, &number));
    FORKED(cclCancel(inherited.operation));
    FORKED(cclGetProgress(inherited.operation, &progress));
    FORKED(cclDestroyOperation(inherited.operation));
    FORKED(cclAddEntry(inherited.state, "more", data, cclFloat32, NULL, 0, 0));
    FORKED(cclGetRevision(inherited.state, &value));
    FORKED(cclSetRevision(inherited.state, 1));
    FORKED(cclIsUsable(inherited.state, &number));
    FORKED(cclSyncSharedState(c, inherited.state, NULL, NULL));
    FORKED(cclSyncSharedStateAsync(c, inherited.state, NULL, &operation));
    FORKED(cclSaveSharedState(inherited.state, "/nowhere/at/all", 0));
    FORKED(cclLoadSharedState(inherited.state, "/nowhere/at/all", &number));
    FORKED(cclDestroySharedState(inherited.state));
    FORKED(cclGetMasterAddress(inherited.master, address, sizeof address));
    FORKED(cclRunMaster(inherited.master));
    FORKED(cclInterruptMaster(inherited.master));
    FORKED(cclAwaitMaster(inherited.master));
    FORKED(cclDestroyMaster(inherited.master));
#undef FORKED
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
