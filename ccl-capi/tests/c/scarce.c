/*
 * If the system has no memory, threads or files left, a call reports it, and the process goes on.
 *
 * 1. An operation that needs memory of its own for the result, when there is none, is cancelled for
 *    all members with their input intact; afterwards they work as before. 2. More elements than any
 *    memory has are refused. 3. A communicator that gets no threads, no scratch memory or no files
 *    is cclErrorSystem, and connects once there are some.
 *
 * Memory checkers use up the address space themselves, so nothing is tested under them.
 */
#include "pair.h"

#include <sys/resource.h>

#define LARGE ((size_t)256 << 20)
#define MIB ((rlim_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__)
#define IS_CHECKED 1
#else
#define IS_CHECKED is_slow()
#endif

/* Lets a resource grow by `more` from what is used now. Returns the limit before. */
static struct rlimit limit(int resource, rlim_t more) {
    struct rlimit before, now;
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    CHECK(getrlimit(resource, &before) == 0);
    now = before;
    now.rlim_cur = more;
    if (resource == RLIMIT_AS) {
        now.rlim_cur += (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
    }
    CHECK(setrlimit(resource, &now) == 0);
    return before;
}

static void restore(int resource, struct rlimit before) {
    CHECK(setrlimit(resource, &before) == 0);
}

/* In place, both in one process: neither gets memory for the result. */
static void no_memory_for_the_result(cclCommunicator_t pair[2]) {
    unsigned char *data[2];
    struct rlimit before;
    int index;
    for (index = 0; index < 2; index++) {
        data[index] = (unsigned char *)malloc(LARGE);
        CHECK(data[index] != NULL);
        memset(data[index], index + 1, LARGE);
    }
    before = limit(RLIMIT_AS, 100 * MIB);
    for (index = 0; index < 2; index++) {
        const cclOptions_t options = options_of_tag((uint64_t)index);
        cclOperation_t operation = NULL;
        cclResult_t result;
        OK(cclAllReduceAsync(pair[0], data[0], data[0], LARGE, cclUint8, cclSum, &options,
                             &operation));
        result = cclAllReduce(pair[1], data[1], data[1], LARGE, cclUint8, cclSum, &options, NULL);
        EXPECT(cclErrorCancelled, result);
        CHECK(strstr(cclGetLastError(), "memory") != NULL);
        EXPECT(cclErrorCancelled, cclWait(operation, NULL));
        OK(cclDestroyOperation(operation));
        CHECK(data[0][0] == 1 && data[0][LARGE - 1] == 1);
        CHECK(data[1][0] == 2 && data[1][LARGE - 1] == 2);
    }
    restore(RLIMIT_AS, before);
    for (index = 0; index < 2; index++) {
        cclOperation_t operation = NULL;
        OK(cclAllReduceAsync(pair[0], data[0], data[0], 1 << 20, cclUint8, cclSum, NULL,
                             &operation));
        OK(cclAllReduce(pair[1], data[1], data[1], 1 << 20, cclUint8, cclSum, NULL, NULL));
        OK(cclWait(operation, NULL));
        OK(cclDestroyOperation(operation));
    }
    CHECK(data[0][0] == 6 && data[1][(1 << 20) - 1] == 6);
    free(data[0]);
    free(data[1]);
}

static void more_than_there_is(cclCommunicator_t communicator) {
    const size_t counts[] = {((size_t)1 << 48) + 1, (size_t)1 << 50, SIZE_MAX / 2};
    uint8_t data[2] = {1, 2};
    cclBuffer_t buffer;
    size_t index;
    memset(&buffer, 0, sizeof buffer);
    buffer.send = buffer.receive = data;
    for (index = 0; index < sizeof counts / sizeof counts[0]; index++) {
        const size_t count = buffer.count = counts[index];
        EXPECT(cclErrorInvalidArgument, cclAllReduce(communicator, data, data, count, cclUint8,
                                                     cclSum, NULL, NULL));
        EXPECT(cclErrorInvalidArgument,
               cclAllReduceMany(communicator, &buffer, 1, cclSum, NULL, NULL));
        EXPECT(cclErrorInvalidArgument,
               cclBroadcast(communicator, data, count, cclUint8, 0, NULL, NULL));
    }
}

static void connect_without(const char *address, int resource, rlim_t more,
                            cclCommunicatorConfig_t config) {
    cclCommunicator_t communicator = NULL;
    struct rlimit before;
    float data = 3;
    config.master = address;
    OK(cclCreateCommunicator(&config, &communicator));
    before = limit(resource, more);
    EXPECT(cclErrorSystem, cclConnect(communicator));
    restore(resource, before);
    OK(cclConnect(communicator));
    OK(cclAllReduce(communicator, &data, &data, 1, cclFloat32, cclSum, NULL, NULL));
    OK(cclDestroyCommunicator(communicator));
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclCommunicatorConfig_t config;
    cclMaster_t master, other = NULL;
    cclMasterConfig_t master_config;
    struct rlimit before;
    alarm(PATIENCE);
    if (IS_CHECKED) {
        return 0;
    }
    master = start_master(address);
    connect_pair(address, pair);
    more_than_there_is(pair[0]);
    no_memory_for_the_result(pair);
    OK(cclDestroyCommunicator(pair[0]));
    OK(cclDestroyCommunicator(pair[1]));
    config = peer_config(address, 1);
    config.io_threads = 256;
    connect_without(address, RLIMIT_AS, 100 * MIB, config);
    config.io_threads = 1;
    connect_without(address, RLIMIT_NOFILE, 1, config);
    config.scratch_bytes = 1 << 30;
    connect_without(address, RLIMIT_AS, 500 * MIB, config);
    memset(&master_config, 0, sizeof master_config);
    master_config.struct_bytes = sizeof master_config;
    master_config.listen = "127.0.0.1:0";
    OK(cclCreateMaster(&master_config, &other));
    before = limit(RLIMIT_NOFILE, 1);
    EXPECT(cclErrorSystem, cclRunMaster(other));
    restore(RLIMIT_NOFILE, before);
    OK(cclRunMaster(other));
    OK(cclDestroyMaster(other));
    OK(cclDestroyMaster(master));
    return 0;
}
