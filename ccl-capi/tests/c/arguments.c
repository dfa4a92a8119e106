/*
 * Every function with NULL, wrong numbers, wrong handles and in the wrong state.
 *
 * Each must return the code that the header promises, write nothing, and leave the library usable:
 * at the end a communicator that had all these calls still reduces.
 */
#include "check.h"

static void results_and_version(void) {
    cclErrorInfo_t info;
    uint32_t answer = 7;
    cclResult_t result;
    CHECK(strcmp(cclGetLastError(), "") == 0);
    memset(&info, 0xff, sizeof info);
    info.struct_bytes = sizeof info;
    OK(cclGetLastErrorInfo(&info));
    CHECK(info.result == cclSuccess && info.peer == 0 && info.struct_bytes == sizeof info);
    OK(cclInit());
    OK(cclInit());
    OK(cclGetVersion(&answer));
    CHECK(answer == CCL_VERSION_MAJOR * 10000 + CCL_VERSION_MINOR * 100 + CCL_VERSION_PATCH);
    EXPECT(cclErrorInvalidArgument, cclGetVersion(NULL));
    CHECK(strstr(cclGetLastError(), "version") != NULL);
    EXPECT(cclErrorInvalidArgument, cclGetVersion((uint32_t *)(uintptr_t)3));
    EXPECT(cclErrorInvalidArgument, cclGetLastErrorInfo(NULL));
    info.struct_bytes = 0;
    EXPECT(cclErrorInvalidArgument, cclGetLastErrorInfo(&info));
    for (result = cclSuccess; result <= cclErrorSharedState; result++) {
        CHECK(strcmp(cclResultString(result), cclResultString(UINT32_MAX)) != 0);
        EXPECT(cclErrorInvalidArgument, cclResultIsFatal(result, NULL));
        EXPECT(cclErrorInvalidArgument, cclResultIsRetryable(result, NULL));
    }
    OK(cclResultIsFatal(cclErrorEvicted, &answer));
    CHECK(answer == 1);
    OK(cclResultIsFatal(cclErrorPeerLost, &answer));
    CHECK(answer == 0);
    OK(cclResultIsRetryable(cclErrorPeerLost, &answer));
    CHECK(answer == 1);
    OK(cclResultIsRetryable(UINT32_MAX, &answer));
    CHECK(answer == 0);
}

static void take_line(cclLogLevel_t level, const char *message, void *user_data) {
    CHECK(level >= cclLogError && level <= cclLogTrace && message != NULL && user_data == NULL);
}

static void log_lines(void) {
    EXPECT(cclErrorInvalidArgument, cclSetLogCallback(take_line, NULL, 0));
    EXPECT(cclErrorInvalidArgument, cclSetLogCallback(take_line, NULL, 6));
    EXPECT(cclErrorInvalidArgument, cclSetLogCallback(NULL, NULL, UINT32_MAX));
    OK(cclSetLogCallback(take_line, NULL, cclLogTrace));
    OK(cclSetLogCallback(NULL, NULL, cclLogTrace));
    OK(cclSetLogCallback(take_line, NULL, cclLogTrace));
}

/* A config with one error is refused, and the error is named. */
static void refuse(cclCommunicatorConfig_t config, const char *word) {
    cclCommunicator_t communicator = NULL;
    EXPECT(cclErrorInvalidArgument, cclCreateCommunicator(&config, &communicator));
    CHECK(communicator == NULL && strstr(cclGetLastError(), word) != NULL);
}

static void communicator_configs(const char *address) {
    const cclCommunicatorConfig_t good = peer_config(address, 1);
    cclCommunicatorConfig_t config;
    const char *const names[2] = {"first", NULL};
    cclCommunicator_t communicator = NULL;
    char name[600];
    EXPECT(cclErrorInvalidArgument, cclCreateCommunicator(&good, NULL));
    OK(cclCreateCommunicator(NULL, &communicator));
    OK(cclDestroyCommunicator(communicator));
    communicator = NULL;
#define REFUSE(field, value, word) (config = good, config.field = value, refuse(config, word))
    REFUSE(struct_bytes, 0, "struct_bytes");
    REFUSE(struct_bytes, SIZE_MAX, "struct_bytes");
    REFUSE(master, "\xff\xfe", "master");
    REFUSE(master, "", "host:port");
    REFUSE(master, "127.0.0.1", "host:port");
    REFUSE(master, "127.0.0.1:99999", "host:port");
    REFUSE(run, "\xc3", "run");
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    REFUSE(run, name, "run");
    REFUSE(listen, "nowhere", "listen");
    REFUSE(lanes, 33, "lanes");
    REFUSE(lanes, UINT32_MAX, "lanes");
    REFUSE(min_world_size, 257, "min_world_size");
    REFUSE(initial_world_size, 257, "initial_world_size");
    config = good;
    config.min_world_size = 3;
    config.initial_world_size = 2;
    refuse(config, "initial_world_size");
    REFUSE(scratch_bytes, 1, "scratch_bytes");
    REFUSE(scratch_bytes, UINT64_MAX, "scratch_bytes");
    REFUSE(io_threads, UINT32_MAX, "io_threads");
    REFUSE(has_unit, 2, "has_unit");
    REFUSE(unit_size, 2, "unit_size");
    REFUSE(is_checksum_off, UINT32_MAX, "is_checksum_off");
    REFUSE(members_count, 1, "config->members");
    REFUSE(members, &names[0], "1 to 256 names");
    config = good;
    config.members = names;
    config.members_count = 2;
    refuse(config, "NULL");
    config.members_count = 257;
    refuse(config, "at most 256");
    config.members_count = 1;
    config.rank = 1;
    refuse(config, "below the number of members");
#undef REFUSE
    EXPECT(cclErrorInvalidArgument,
           cclCreateCommunicator((cclCommunicatorConfig_t *)(uintptr_t)4, &communicator));
    config = good;
    config.has_unit = 1;
    config.unit_size = 1025;
    refuse(config, "unit_size");
    config.unit_size = 1024;
    OK(cclCreateCommunicator(&config, &communicator));
    OK(cclDestroyCommunicator(communicator));
    config = good;
    config.advertise = "no address";
    OK(cclCreateCommunicator(&config, &communicator));
    EXPECT(cclErrorInvalidArgument, cclConnect(communicator));
    OK(cclDestroyCommunicator(communicator));
}

static void master_functions(void) {
    cclMasterConfig_t config;
    cclMaster_t master = NULL;
    char address[CCL_ADDRESS_BYTES_MAX], name[600];
    memset(&config, 0, sizeof config);
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.struct_bytes = sizeof config;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, NULL));
    config.listen = "127.0.0.1";
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.listen = "127.0.0.1:0";
    config.is_new_run = 2;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.is_new_run = 1;
    config.is_fsync_off = 7;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.is_fsync_off = 1;
    config.is_journal_trusted = 2;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.is_journal_trusted = 0;
    config.are_members_gone = 2;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.are_members_gone = 0;
    config.reserved = 1;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.reserved = 0;
    config.peer_timeout_ms = 10;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.peer_timeout_ms = CCL_FOREVER;
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    config.run = name;
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.run = "\xff";
    EXPECT(cclErrorInvalidArgument, cclCreateMaster(&config, &master));
    config.run = NULL;
    CHECK(master == NULL);
    OK(cclCreateMaster(&config, &master));
    EXPECT(cclErrorInvalidUsage, cclGetMasterAddress(master, address, sizeof address));
    EXPECT(cclErrorInvalidUsage, cclInterruptMaster(master));
    EXPECT(cclErrorInvalidUsage, cclAwaitMaster(master));
    OK(cclRunMaster(master));
    EXPECT(cclErrorInvalidUsage, cclRunMaster(master));
    EXPECT(cclErrorInvalidArgument, cclGetMasterAddress(master, NULL, sizeof address));
    memset(address, 'x', sizeof address);
    EXPECT(cclErrorInvalidArgument, cclGetMasterAddress(master, address, 9));
    CHECK(address[0] == 'x');
    OK(cclGetMasterAddress(master, address, sizeof address));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0);
    OK(cclInterruptMaster(master));
    OK(cclInterruptMaster(master));
    OK(cclAwaitMaster(master));
    OK(cclDestroyMaster(master));
    EXPECT(cclErrorInvalidHandle, cclDestroyMaster(master));
    EXPECT(cclErrorInvalidHandle, cclRunMaster(master));
    EXPECT(cclErrorInvalidHandle, cclGetMasterAddress(master, address, sizeof address));
    EXPECT(cclErrorInvalidHandle, cclInterruptMaster(master));
    EXPECT(cclErrorInvalidHandle, cclAwaitMaster(master));
    EXPECT(cclErrorInvalidHandle, cclDestroyMaster(NULL));
    OK(cclCreateMaster(NULL, &master));
    OK(cclDestroyMaster(master));
}

/* All functions that take a communicator, with one that each refuses in the same way. */
static void expect_of_all(cclResult_t expected, cclCommunicator_t communicator) {
    cclOperation_t operation = NULL;
    cclCounters_t counters;
    cclBuffer_t buffer;
    uint64_t value = 7, peers[1] = {7};
    uint32_t pending = 7, ranks[1] = {7};
    size_t count = 7;
    float data[4] = {0, 0, 0, 0};
    char address[CCL_ADDRESS_BYTES_MAX];
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    buffer.count = 4;
    buffer.dtype = cclFloat32;
    EXPECT(expected, cclGetAttribute(communicator, cclAttributeRank, &value));
    EXPECT(expected, cclGetMembers(communicator, peers, 1, &count));
    EXPECT(expected, cclGetRingOrder(communicator, ranks, 1, &count));
    EXPECT(expected, cclGetMemberName(communicator, 0, address, sizeof address));
    EXPECT(expected, cclGetMemberAddress(communicator, 0, address, sizeof address));
    EXPECT(expected, cclGetListenAddress(communicator, address, sizeof address));
    EXPECT(expected, cclGetCounters(communicator, &counters));
    EXPECT(expected, cclUpdateTopology(communicator));
    EXPECT(expected, cclArePeersPending(communicator, &pending));
    EXPECT(expected,
           cclAllReduce(communicator, data, data, 4, cclFloat32, cclSum, NULL, NULL));
    EXPECT(expected,
           cclAllReduceAsync(communicator, data, data, 4, cclFloat32, cclSum, NULL, &operation));
    EXPECT(expected, cclAllReduceMany(communicator, &buffer, 1, cclSum, NULL, NULL));
    EXPECT(expected, cclAllReduceManyAsync(communicator, &buffer, 1, cclSum, NULL, &operation));
    EXPECT(expected, cclAllGather(communicator, data, 1, data + 1, 1, cclFloat32, NULL, NULL));
    EXPECT(expected,
           cclAllGatherAsync(communicator, data, 1, data + 1, 1, cclFloat32, NULL, &operation));
    EXPECT(expected,
           cclReduceScatter(communicator, data, 1, data + 1, 1, cclFloat32, cclSum, NULL, NULL));
    EXPECT(expected, cclReduceScatterAsync(communicator, data, 1, data + 1, 1, cclFloat32, cclSum,
                                           NULL, &operation));
    EXPECT(expected, cclBroadcast(communicator, data, 4, cclFloat32, 0, NULL, NULL));
    EXPECT(expected, cclBroadcastAsync(communicator, data, 4, cclFloat32, 0, NULL, &operation));
    EXPECT(expected, cclBarrier(communicator, NULL, NULL));
    EXPECT(expected, cclBarrierAsync(communicator, NULL, &operation));
    EXPECT(expected, cclLeave(communicator));
    CHECK(value == 7 && peers[0] == 7 && ranks[0] == 7 && count == 7 && pending == 7);
    CHECK(operation == NULL);
}

/* Functions whose handle is missing. */
static void wrong_handles(cclCommunicator_t communicator, cclMaster_t master) {
    cclCommunicator_t destroyed = NULL;
    cclProgress_t progress;
    uint32_t is_finished = 7;
    void *wrong[4];
    int index;
    OK(cclCreateCommunicator(NULL, &destroyed));
    expect_of_all(cclErrorInvalidUsage, destroyed);
    OK(cclDestroyCommunicator(destroyed));
    wrong[0] = NULL;
    wrong[1] = destroyed;
    wrong[2] = master;
    wrong[3] = (void *)&progress;
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    for (index = 0; index < 4; index++) {
        expect_of_all(cclErrorInvalidHandle, (cclCommunicator_t)wrong[index]);
        EXPECT(cclErrorInvalidHandle, cclConnect((cclCommunicator_t)wrong[index]));
        EXPECT(cclErrorInvalidHandle, cclDestroyCommunicator((cclCommunicator_t)wrong[index]));
        EXPECT(cclErrorInvalidHandle, cclWait((cclOperation_t)wrong[index], NULL));
        EXPECT(cclErrorInvalidHandle, cclWaitFor((cclOperation_t)wrong[index], 1, NULL));
        EXPECT(cclErrorInvalidHandle, cclTest((cclOperation_t)wrong[index], &is_finished));
        EXPECT(cclErrorInvalidHandle, cclCancel((cclOperation_t)wrong[index]));
        EXPECT(cclErrorInvalidHandle, cclGetProgress((cclOperation_t)wrong[index], &progress));
        EXPECT(cclErrorInvalidHandle, cclDestroyOperation((cclOperation_t)wrong[index]));
    }
    EXPECT(cclErrorInvalidHandle, cclDestroyMaster((cclMaster_t)(void *)communicator));
    EXPECT(cclErrorInvalidHandle, cclDestroyOperation((cclOperation_t)(void *)communicator));
    CHECK(is_finished == 7);
}

static void wrong_questions(cclCommunicator_t communicator) {
    cclCounters_t counters;
    uint64_t value = 7, peers[1];
    uint32_t ranks[1];
    size_t count = 7;
    char address[CCL_ADDRESS_BYTES_MAX];
    EXPECT(cclErrorInvalidArgument, cclGetAttribute(communicator, cclAttributeRank, NULL));
    EXPECT(cclErrorInvalidArgument, cclGetAttribute(communicator, 14, &value));
    EXPECT(cclErrorInvalidArgument, cclGetAttribute(communicator, UINT32_MAX, &value));
    EXPECT(cclErrorInvalidArgument, cclGetMembers(communicator, NULL, 1, &count));
    EXPECT(cclErrorInvalidArgument, cclGetMembers(communicator, peers, 1, NULL));
    EXPECT(cclErrorInvalidArgument, cclGetRingOrder(communicator, NULL, 1, &count));
    EXPECT(cclErrorInvalidArgument, cclGetRingOrder(communicator, ranks, 1, NULL));
    EXPECT(cclErrorInvalidArgument, cclGetListenAddress(communicator, NULL, 64));
    EXPECT(cclErrorInvalidArgument, cclGetListenAddress(communicator, address, 1));
    EXPECT(cclErrorInvalidArgument, cclGetCounters(communicator, NULL));
    counters.struct_bytes = 3;
    EXPECT(cclErrorInvalidArgument, cclGetCounters(communicator, &counters));
    EXPECT(cclErrorInvalidArgument, cclArePeersPending(communicator, NULL));
    EXPECT(cclErrorInvalidUsage, cclConnect(communicator));
    CHECK(value == 7 && count == 7);
}

static void wrong_collectives(cclCommunicator_t communicator) {
    const cclCommunicator_t c = communicator;
    cclOptions_t options = options_of_tag(1);
    cclOutcome_t outcome;
    cclOperation_t operation = NULL;
    cclBuffer_t buffer, two[2];
    float data[4] = {1, 2, 3, 4};
    const uint32_t types[] = {12, UINT32_MAX};
    const uint32_t operators[] = {5, UINT32_MAX};
    int index;
    memset(&outcome, 0, sizeof outcome);
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    buffer.count = 4;
#define WRONG(call) EXPECT(cclErrorInvalidArgument, call)
    for (index = 0; index < 2; index++) {
        const uint32_t type = types[index], op = operators[index];
        WRONG(cclAllReduce(c, data, data, 4, type, cclSum, NULL, NULL));
        WRONG(cclAllReduce(c, data, data, 4, cclFloat32, op, NULL, NULL));
        WRONG(cclAllReduceAsync(c, data, data, 4, type, cclSum, NULL, &operation));
        WRONG(cclAllGather(c, data, 1, data + 1, 1, type, NULL, NULL));
        WRONG(cclAllGatherAsync(c, data, 1, data + 1, 1, type, NULL, &operation));
        WRONG(cclReduceScatter(c, data, 1, data + 1, 1, cclFloat32, op, NULL, NULL));
        WRONG(cclReduceScatterAsync(c, data, 1, data + 1, 1, type, cclSum, NULL, &operation));
        WRONG(cclBroadcast(c, data, 4, type, 0, NULL, NULL));
        WRONG(cclBroadcast(c, data, 4, cclFloat32, index == 0 ? 1 : UINT32_MAX, NULL, NULL));
        WRONG(cclBroadcastAsync(c, data, 4, type, 0, NULL, &operation));
        buffer.dtype = type;
        WRONG(cclAllReduceMany(c, &buffer, 1, cclSum, NULL, NULL));
        buffer.dtype = cclFloat32;
        WRONG(cclAllReduceMany(c, &buffer, 1, op, NULL, NULL));
    }
    WRONG(cclAllReduce(c, NULL, data, 4, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclAllReduce(c, data, NULL, 4, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclAllReduce(c, data, data, SIZE_MAX, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclAllReduce(c, data, data, SIZE_MAX / 8, cclFloat64, cclSum, NULL, NULL));
    WRONG(cclAllReduce(c, data, data + 1, 2, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclAllReduceAsync(c, data, data, 4, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclAllReduceMany(c, NULL, 1, cclSum, NULL, NULL));
    WRONG(cclAllReduceManyAsync(c, &buffer, 1, cclSum, NULL, NULL));
    buffer.reserved = 1;
    WRONG(cclAllReduceMany(c, &buffer, 1, cclSum, NULL, NULL));
    buffer.reserved = 0;
    WRONG(cclAllReduceMany(c, &buffer, (size_t)1 << 50, cclSum, NULL, NULL));
    WRONG(cclAllReduceMany(c, &buffer, SIZE_MAX, cclSum, NULL, NULL));
    two[0] = two[1] = buffer;
    WRONG(cclAllReduceMany(c, two, 2, cclSum, NULL, NULL));
    CHECK(strstr(cclGetLastError(), "0 and 1") != NULL);
    WRONG(cclAllGather(c, data, 2, data + 2, 3, cclFloat32, NULL, NULL));
    WRONG(cclAllGather(c, data, 0, data, 1, cclFloat32, NULL, NULL));
    WRONG(cclAllGather(c, NULL, 1, data, 1, cclFloat32, NULL, NULL));
    WRONG(cclReduceScatter(c, data, 3, data + 2, 2, cclFloat32, cclSum, NULL, NULL));
    WRONG(cclBroadcast(c, NULL, 4, cclFloat32, 0, NULL, NULL));
    WRONG(cclBarrierAsync(c, NULL, NULL));
    options.algorithm = 4;
    WRONG(cclBarrier(c, &options, NULL));
    options.algorithm = 0;
    options.struct_bytes = 1;
    WRONG(cclBarrier(c, &options, NULL));
    WRONG(cclBarrierAsync(c, &options, &operation));
    WRONG(cclBarrier(c, NULL, &outcome));
    outcome.struct_bytes = sizeof outcome;
    outcome.contributors_capacity = 1;
    WRONG(cclBarrier(c, NULL, &outcome));
#undef WRONG
    CHECK(operation == NULL && data[0] == 1 && data[3] == 4);
}

static void wrong_waits(cclCommunicator_t communicator) {
    cclOperation_t operation = NULL;
    cclOutcome_t outcome;
    cclProgress_t progress;
    memset(&outcome, 0, sizeof outcome);
    OK(cclBarrierAsync(communicator, NULL, &operation));
    EXPECT(cclErrorInvalidArgument, cclWait(operation, &outcome));
    EXPECT(cclErrorInvalidArgument, cclWaitFor(operation, 1, &outcome));
    EXPECT(cclErrorInvalidArgument, cclTest(operation, NULL));
    EXPECT(cclErrorInvalidArgument, cclGetProgress(operation, NULL));
    progress.struct_bytes = SIZE_MAX;
    EXPECT(cclErrorInvalidArgument, cclGetProgress(operation, &progress));
    OK(cclWait(operation, NULL));
    OK(cclCancel(operation));
    OK(cclDestroyOperation(operation));
    EXPECT(cclErrorInvalidHandle, cclWait(operation, NULL));
    EXPECT(cclErrorInvalidHandle, cclDestroyOperation(operation));
}

/* Structs of an older and of a newer program. */
static void other_versions(cclCommunicator_t communicator) {
    struct {
        cclOptions_t options;
        uint64_t later;
    } newer;
    struct {
        cclCounters_t counters;
        uint64_t later;
    } wider;
    newer.options = options_of_tag(5);
    newer.options.struct_bytes = sizeof newer;
    newer.later = 0;
    OK(cclBarrier(communicator, &newer.options, NULL));
    newer.later = 1;
    EXPECT(cclErrorInvalidArgument, cclBarrier(communicator, &newer.options, NULL));
    newer.options.algorithm = UINT32_MAX;
    newer.options.struct_bytes = offsetof(cclOptions_t, algorithm);
    OK(cclBarrier(communicator, &newer.options, NULL));
    memset(&wider, 0xff, sizeof wider);
    wider.counters.struct_bytes = sizeof wider;
    OK(cclGetCounters(communicator, &wider.counters));
    CHECK(wider.later == 0 && wider.counters.commits >= 2);
    memset(&wider, 0xff, sizeof wider);
    wider.counters.struct_bytes = offsetof(cclCounters_t, aborts);
    OK(cclGetCounters(communicator, &wider.counters));
    CHECK(wider.counters.commits >= 2 && wider.counters.aborts == UINT64_MAX);
}

static void still_works(cclCommunicator_t communicator) {
    float data[4] = {1, 2, 3, 4};
    cclOutcome_t outcome;
    memset(&outcome, 0, sizeof outcome);
    outcome.struct_bytes = sizeof outcome;
    OK(cclAllReduce(communicator, data, data, 4, cclFloat32, cclAvg, NULL, &outcome));
    CHECK(data[0] == 1 && data[3] == 4 && outcome.contributors_count == 1);
    OK(cclAllReduce(communicator, NULL, NULL, 0, cclFloat32, cclAvg, NULL, NULL));
    OK(cclAllReduceMany(communicator, NULL, 0, cclAvg, NULL, NULL));
    OK(cclAllGather(communicator, NULL, 0, NULL, 0, cclFloat64, NULL, NULL));
    OK(cclReduceScatter(communicator, NULL, 0, NULL, 0, cclInt8, cclMin, NULL, NULL));
    OK(cclBroadcast(communicator, NULL, 0, cclUint16, 0, NULL, NULL));
    OK(cclAllGather(communicator, data, 2, data + 2, 2, cclFloat32, NULL, NULL));
    CHECK(data[2] == 1 && data[3] == 2);
    data[0] = 7;
    OK(cclReduceScatter(communicator, data, 1, data + 3, 1, cclFloat32, cclProd, NULL, NULL));
    OK(cclBroadcast(communicator, data, 4, cclFloat32, 0, NULL, NULL));
    CHECK(data[0] == 7 && data[3] == 7);
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master;
    cclCommunicator_t communicator;
    alarm(PATIENCE);
    results_and_version();
    log_lines();
    master_functions();
    master = start_master(address);
    communicator_configs(address);
    communicator = connect_peer(address, 1);
    wrong_handles(communicator, master);
    wrong_questions(communicator);
    wrong_collectives(communicator);
    wrong_waits(communicator);
    other_versions(communicator);
    still_works(communicator);
    OK(cclLeave(communicator));
    OK(cclDestroyCommunicator(communicator));
    OK(cclDestroyMaster(master));
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
    return 0;
}
