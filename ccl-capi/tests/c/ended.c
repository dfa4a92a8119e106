/*
 * What every function returns once the session is over, however it ended.
 *
 * 1. A session is ended: evicted, left, without a master for too long, its handle destroyed.
 * 2. Every function that needs the run is called twice, with buffers for the last world size.
 * 3. Each names how the session ended; attributes keep their last values.
 */
#include "pair.h"

enum { ATTRIBUTES = 14 };

/* A master that soon evicts members that do not call. */
static cclMaster_t impatient_master(char address[CCL_ADDRESS_BYTES_MAX]) {
    cclMasterConfig_t config;
    cclMaster_t master = NULL;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = "127.0.0.1:0";
    config.is_new_run = 1;
    config.post_timeout_ms = 100;
    config.detach_timeout_ms = 1000;
    if (is_slow()) {
        config.peer_timeout_ms = 60000;
    }
    OK(cclCreateMaster(&config, &master));
    OK(cclRunMaster(master));
    OK(cclGetMasterAddress(master, address, CCL_ADDRESS_BYTES_MAX));
    return master;
}

static void collectives_end_as(cclCommunicator_t c, cclResult_t end) {
    cclOperation_t operation = NULL;
    float data[2] = {1, 2}, all[4] = {0, 0, 0, 0};
    cclBuffer_t buffer;
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    buffer.count = 2;
    buffer.dtype = cclFloat32;
    EXPECT(end, cclAllReduce(c, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    EXPECT(end, cclAllReduceAsync(c, data, data, 2, cclFloat32, cclSum, NULL, &operation));
    EXPECT(end, cclAllReduceMany(c, &buffer, 1, cclSum, NULL, NULL));
    EXPECT(end, cclAllReduceManyAsync(c, &buffer, 1, cclSum, NULL, &operation));
    EXPECT(end, cclAllGather(c, data, 2, all, 4, cclFloat32, NULL, NULL));
    EXPECT(end, cclAllGatherAsync(c, data, 2, all, 4, cclFloat32, NULL, &operation));
    EXPECT(end, cclReduceScatter(c, all, 4, data, 2, cclFloat32, cclSum, NULL, NULL));
    EXPECT(end, cclReduceScatterAsync(c, all, 4, data, 2, cclFloat32, cclSum, NULL, &operation));
    EXPECT(end, cclBroadcast(c, data, 2, cclFloat32, 1, NULL, NULL));
    EXPECT(end, cclBroadcastAsync(c, data, 2, cclFloat32, 1, NULL, &operation));
    EXPECT(end, cclBarrier(c, NULL, NULL));
    EXPECT(end, cclBarrierAsync(c, NULL, &operation));
    CHECK(operation == NULL && data[0] == 1 && data[1] == 2);
}

static void other_calls_end_as(cclCommunicator_t c, cclResult_t end) {
    cclOperation_t operation = NULL;
    cclSharedState_t state = NULL;
    float weights[2] = {1, 2};
    const uint64_t shape[1] = {2};
    EXPECT(end, cclUpdateTopology(c));
    EXPECT(end, cclUpdateTopologyAsync(c, &operation));
    OK(cclCreateSharedState(0, &state));
    OK(cclAddEntry(state, "weights", weights, cclFloat32, shape, 1, 0));
    EXPECT(end, cclSyncSharedState(c, state, NULL, NULL));
    EXPECT(end, cclSyncSharedStateAsync(c, state, NULL, &operation));
    CHECK(operation == NULL);
    OK(cclDestroySharedState(state));
}

static void values(cclCommunicator_t c, uint64_t value[ATTRIBUTES]) {
    cclAttribute_t which;
    for (which = 0; which < ATTRIBUTES; which++) {
        value[which] = attribute(c, which);
    }
}

static void what_is_asked_stays(cclCommunicator_t c, const uint64_t before[ATTRIBUTES]) {
    cclCounters_t counters;
    uint64_t now[ATTRIBUTES], peers[2];
    uint32_t number = 0, ranks[2];
    size_t count = 0;
    char address[CCL_ADDRESS_BYTES_MAX];
    values(c, now);
    CHECK(memcmp(before, now, sizeof now) == 0);
    OK(cclGetMembers(c, peers, 2, &count));
    CHECK(count == 2);
    OK(cclGetRingOrder(c, ranks, 2, &count));
    CHECK(count == 2);
    OK(cclGetListenAddress(c, address, sizeof address));
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    OK(cclGetCounters(c, &counters));
    OK(cclArePeersPending(c, &number));
    EXPECT(cclErrorInvalidUsage, cclConnect(c));
}

/* Every call fails with this text. */
static void is_over(cclCommunicator_t c, const uint64_t before[ATTRIBUTES], cclResult_t end,
                    const char *words) {
    int round;
    for (round = 0; round < 2; round++) {
        collectives_end_as(c, end);
        CHECK(strstr(cclGetLastError(), words) != NULL);
        other_calls_end_as(c, end);
        CHECK(strstr(cclGetLastError(), words) != NULL);
        what_is_asked_stays(c, before);
    }
}

static void evicted(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master = impatient_master(address);
    cclCommunicator_t pair[2];
    uint64_t before[ATTRIBUTES];
    connect_pair(address, pair);
    values(pair[1], before);
    EXPECT(cclErrorPeerLost, cclBarrier(pair[0], NULL, NULL));
    EXPECT(cclErrorEvicted, cclUpdateTopology(pair[1]));
    is_over(pair[1], before, cclErrorEvicted, "evicted");
    EXPECT(cclErrorEvicted, cclLeave(pair[1]));
    OK(cclDestroyCommunicator(pair[1]));
    OK(cclDestroyCommunicator(pair[0]));
    OK(cclDestroyMaster(master));
}

static void left(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master = impatient_master(address);
    cclCommunicator_t pair[2];
    uint64_t before[ATTRIBUTES];
    connect_pair(address, pair);
    values(pair[1], before);
    OK(cclLeave(pair[1]));
    is_over(pair[1], before, cclErrorEnded, "it left");
    OK(cclLeave(pair[1]));
    OK(cclDestroyCommunicator(pair[1]));
    EXPECT(cclErrorInvalidHandle, cclBarrier(pair[1], NULL, NULL));
    OK(cclDestroyCommunicator(pair[0]));
    OK(cclDestroyMaster(master));
}

static void unknown(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master = impatient_master(address);
    cclCommunicator_t pair[2];
    uint64_t before[ATTRIBUTES];
    connect_pair(address, pair);
    values(pair[1], before);
    OK(cclDestroyMaster(master));
    EXPECT(cclErrorUnknown, cclBarrier(pair[1], NULL, NULL));
    is_over(pair[1], before, cclErrorEnded, "no master for longer than detach_timeout");
    EXPECT(cclErrorEnded, cclLeave(pair[1]));
    OK(cclDestroyCommunicator(pair[1]));
    OK(cclDestroyCommunicator(pair[0]));
}

int main(void) {
    alarm(PATIENCE);
    evicted();
    left();
    unknown();
    return 0;
}
