/*
 * Safe points that are started without waiting, and a master that is waited for with a limit.
 *
 * 1. A started safe point ends when all have called it, returns the members, and admits a newcomer.
 * 2. Waiting for a master has a limit, and 0 only asks. 3. A safe point that is open may be waited
 *    for with a limit, is withdrawn by cancelling it or destroying its handle, and ends with its
 *    communicator.
 */
#include "pair.h"

static void wrong_arguments(cclCommunicator_t communicator) {
    cclCommunicator_t unconnected = NULL;
    cclOperation_t operation = NULL;
    EXPECT(cclErrorInvalidArgument, cclUpdateTopologyAsync(communicator, NULL));
    EXPECT(cclErrorInvalidHandle, cclUpdateTopologyAsync(NULL, &operation));
    OK(cclCreateCommunicator(NULL, &unconnected));
    EXPECT(cclErrorInvalidUsage, cclUpdateTopologyAsync(unconnected, &operation));
    OK(cclDestroyCommunicator(unconnected));
    CHECK(operation == NULL);
}

/* The results of a successful safe point. */
static void expect_to_tell(cclCommunicator_t communicator, cclOperation_t point) {
    cclOutcome_t outcome;
    cclProgress_t progress;
    cclSyncInfo_t info;
    uint64_t contributors[3] = {0, 0, 0}, members[3] = {0, 0, 0};
    size_t count = 0;
    uint32_t is_finished = 7;
    memset(&outcome, 0, sizeof outcome);
    outcome.struct_bytes = sizeof outcome;
    outcome.contributors = contributors;
    outcome.contributors_capacity = 3;
    OK(cclWait(point, &outcome));
    OK(cclGetMembers(communicator, members, 3, &count));
    CHECK(outcome.contributors_count == count && outcome.world_size == count);
    CHECK(memcmp(contributors, members, sizeof members) == 0 && outcome.attempts == 1);
    CHECK(outcome.epoch == attribute(communicator, cclAttributeEpoch));
    CHECK(outcome.tag == 0 && outcome.number == 0);
    OK(cclWaitFor(point, 0, NULL));
    OK(cclTest(point, &is_finished));
    CHECK(is_finished == 1);
    OK(cclCancel(point)); /* too late */
    OK(cclWait(point, NULL));
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    OK(cclGetProgress(point, &progress));
    CHECK(progress.done_bytes == 0 && progress.total_bytes == 0);
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    EXPECT(cclErrorInvalidArgument, cclGetSyncInfo(point, &info));
    EXPECT(cclErrorInvalidArgument, cclGetSyncRole(point, &is_finished));
}

/* Both call safe points until a third is admitted. */
static void newcomer_is_admitted(const char *address, cclCommunicator_t pair[2]) {
    cclCommunicatorConfig_t config = peer_config(address, 1);
    cclCommunicator_t newcomer = NULL;
    cclCounters_t counters;
    pthread_t thread;
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    OK(cclCreateCommunicator(&config, &newcomer));
    thread = start_thread(connect_created, newcomer);
    while (attribute(pair[0], cclAttributeWorldSize) < 3) {
        cclOperation_t point = NULL;
        OK(cclUpdateTopologyAsync(pair[0], &point));
        OK(cclUpdateTopology(pair[1]));
        expect_to_tell(pair[0], point);
        OK(cclDestroyOperation(point));
    }
    join_thread(thread);
    OK(cclGetCounters(newcomer, &counters));
    CHECK(counters.lanes == 2 && counters.reserved == 0); /* as in peer_config */
    OK(cclDestroyCommunicator(newcomer));
}

static void *wait_for_end(void *operation) {
    EXPECT(cclErrorEnded, cclWait((cclOperation_t)operation, NULL));
    return NULL;
}

/* Without a master none is released: it stays open until it is withdrawn, or the session ends. */
static void open_points(cclCommunicator_t communicator) {
    cclOperation_t point = NULL, second = NULL;
    uint32_t is_finished = 7;
    pthread_t thread;
    OK(cclUpdateTopologyAsync(communicator, &point));
    OK(cclUpdateTopologyAsync(communicator, &second));
    EXPECT(cclErrorInvalidUsage, cclWait(second, NULL)); /* one at a time */
    EXPECT(cclErrorInvalidUsage, cclUpdateTopology(communicator));
    OK(cclDestroyOperation(second));
    EXPECT(cclErrorTimeout, cclWaitFor(point, 0, NULL));
    EXPECT(cclErrorTimeout, cclWaitFor(point, 5, NULL));
    OK(cclTest(point, &is_finished));
    CHECK(is_finished == 0);
    OK(cclCancel(point));
    EXPECT(cclErrorTimeout, cclWait(point, NULL));
    OK(cclTest(point, &is_finished));
    CHECK(is_finished == 1);
    OK(cclDestroyOperation(point));
    OK(cclUpdateTopologyAsync(communicator, &point));
    OK(cclDestroyOperation(point)); /* withdraws it, or the next one would not be open */
    OK(cclUpdateTopologyAsync(communicator, &point));
    EXPECT(cclErrorTimeout, cclWaitFor(point, 1, NULL));
    thread = start_thread(wait_for_end, point);
    OK(cclDestroyCommunicator(communicator));
    join_thread(thread);
    EXPECT(cclErrorEnded, cclWait(point, NULL));
    OK(cclDestroyOperation(point));
}

static void *await_for_ever(void *master) {
    OK(cclAwaitMasterFor((cclMaster_t)master, CCL_FOREVER));
    return NULL;
}

static void masters_are_awaited_with_a_limit(cclMaster_t master) {
    cclMaster_t idle = NULL;
    pthread_t thread;
    OK(cclCreateMaster(NULL, &idle));
    EXPECT(cclErrorInvalidUsage, cclAwaitMasterFor(idle, 0));
    OK(cclDestroyMaster(idle));
    EXPECT(cclErrorInvalidHandle, cclAwaitMasterFor(idle, 0));
    EXPECT(cclErrorTimeout, cclAwaitMasterFor(master, 0));
    EXPECT(cclErrorTimeout, cclAwaitMasterFor(master, 10));
    thread = start_thread(await_for_ever, master);
    OK(cclInterruptMaster(master));
    join_thread(thread);
    OK(cclAwaitMasterFor(master, 0));
    OK(cclAwaitMaster(master));
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclMaster_t master;
    alarm(PATIENCE);
    master = start_master(address);
    connect_pair(address, pair);
    wrong_arguments(pair[0]);
    newcomer_is_admitted(address, pair);
    masters_are_awaited_with_a_limit(master);
    OK(cclDestroyMaster(master));
    open_points(pair[0]);
    OK(cclDestroyCommunicator(pair[1]));
    return 0;
}
