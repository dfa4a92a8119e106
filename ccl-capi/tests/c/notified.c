/*
 * An event loop that is notified of the ends of operations, and never waits for one.
 *
 * 1. Operations of every kind write to a pipe when they have ended, once each, whether they end
 *    well or not. 2. One that has ended already notifies at once, on this thread. 3. A function
 *    that was replaced, removed, or whose handle was destroyed is not called any more; removing it
 *    waits until it has returned. 4. It cannot call the library.
 */
#include "pair.h"

#include <poll.h>

/* One operation, and where its end is reported. */
typedef struct watch_t {
    int ends[2];
    cclOperation_t operation;
    cclResult_t inside;
    pthread_t told_by;
} watch_t;

static void write_to_pipe(void *user_data) {
    watch_t *watch = (watch_t *)user_data;
    watch->told_by = pthread_self();
    watch->inside = cclCancel(watch->operation);
    CHECK(write(watch->ends[1], "e", 1) == 1);
}

static void never(void *user_data) {
    (void)user_data;
    CHECK(!"nobody wanted it any more");
}

static watch_t new_watch(void) {
    watch_t watch;
    memset(&watch, 0, sizeof watch);
    CHECK(pipe(watch.ends) == 0);
    return watch;
}

/* Whether an end is reported within `timeout_ms` milliseconds. */
static int is_told(const watch_t *watch, int timeout_ms) {
    struct pollfd event;
    char byte = 0;
    memset(&event, 0, sizeof event);
    event.fd = watch->ends[0];
    event.events = POLLIN;
    if (poll(&event, 1, timeout_ms) == 0) {
        return 0;
    }
    CHECK(read(watch->ends[0], &byte, 1) == 1 && byte == 'e');
    return 1;
}

static void end_watch(watch_t *watch) {
    OK(cclDestroyOperation(watch->operation));
    CHECK(!is_told(watch, 0));
    CHECK(close(watch->ends[0]) == 0 && close(watch->ends[1]) == 0);
}

static void expect_end(watch_t *watch, cclResult_t expected) {
    uint32_t is_finished = 0;
    CHECK(is_told(watch, -1));
    EXPECT(cclErrorInvalidUsage, watch->inside);
    OK(cclTest(watch->operation, &is_finished));
    CHECK(is_finished == 1);
    EXPECT(expected, cclWait(watch->operation, NULL));
    end_watch(watch);
}

static void collectives_tell(cclCommunicator_t pair[2]) {
    const cclOptions_t options[] = {options_of_tag(1), options_of_tag(2)};
    watch_t watches[2];
    float data[2] = {1, 2}, others[2] = {3, 4};
    int index;
    for (index = 0; index < 2; index++) {
        watches[index] = new_watch();
        OK(cclAllReduceAsync(pair[0], &data[index], &data[index], 1, cclFloat32, cclSum,
                             &options[index], &watches[index].operation));
        OK(cclSetEndCallback(watches[index].operation, never, NULL));
        OK(cclSetEndCallback(watches[index].operation, write_to_pipe, &watches[index]));
        CHECK(!is_told(&watches[index], 1));
    }
    OK(cclAllReduce(pair[1], &others[1], &others[1], 1, cclFloat32, cclSum, &options[1], NULL));
    CHECK(is_told(&watches[1], -1) && !is_told(&watches[0], 0) && data[1] == 6);
    CHECK(!pthread_equal(watches[1].told_by, pthread_self()));
    /* It has ended: reported at once, here, and once for each registration. */
    OK(cclSetEndCallback(watches[1].operation, write_to_pipe, &watches[1]));
    CHECK(is_told(&watches[1], 0) && pthread_equal(watches[1].told_by, pthread_self()));
    end_watch(&watches[1]);
    OK(cclCancel(watches[0].operation));
    expect_end(&watches[0], cclErrorCancelled);
    EXPECT(cclErrorCancelled,
           cclAllReduce(pair[1], others, others, 1, cclFloat32, cclSum, &options[0], NULL));
}

static void syncs_and_safe_points_tell(cclCommunicator_t pair[2]) {
    watch_t watch = new_watch();
    cclSharedState_t states[2];
    float data[2] = {1, 1};
    int index;
    for (index = 0; index < 2; index++) {
        OK(cclCreateSharedState(1, &states[index]));
        OK(cclAddEntry(states[index], "data", &data[index], cclFloat32, NULL, 0, 0));
    }
    OK(cclSyncSharedStateAsync(pair[0], states[0], NULL, &watch.operation));
    OK(cclSetEndCallback(watch.operation, write_to_pipe, &watch));
    CHECK(!is_told(&watch, 1));
    OK(cclSyncSharedState(pair[1], states[1], NULL, NULL));
    expect_end(&watch, cclSuccess);
    watch = new_watch();
    OK(cclUpdateTopologyAsync(pair[0], &watch.operation));
    OK(cclUpdateTopology(pair[1]));
    OK(cclSetEndCallback(watch.operation, write_to_pipe, &watch));
    expect_end(&watch, cclSuccess);
    for (index = 0; index < 2; index++) {
        OK(cclDestroySharedState(states[index]));
    }
}

static void nobody_is_told_who_took_it_back(cclCommunicator_t pair[2]) {
    cclOperation_t operation = NULL;
    OK(cclBarrierAsync(pair[0], NULL, &operation));
    OK(cclSetEndCallback(operation, never, NULL));
    OK(cclSetEndCallback(operation, NULL, NULL));
    OK(cclBarrier(pair[1], NULL, NULL));
    OK(cclWait(operation, NULL));
    OK(cclDestroyOperation(operation));
    EXPECT(cclErrorInvalidHandle, cclSetEndCallback(operation, never, NULL));
    EXPECT(cclErrorInvalidHandle, cclSetEndCallback(NULL, never, NULL));
}

/* A callback that has begun and waits, and a thread that removes it meanwhile. */
typedef struct slow_t {
    int begun[2], go_on[2];
    cclOperation_t operation;
    volatile int has_returned;
} slow_t;

static void wait_in_callback(void *user_data) {
    slow_t *slow = (slow_t *)user_data;
    char byte = 0;
    CHECK(write(slow->begun[1], "b", 1) == 1);
    CHECK(read(slow->go_on[0], &byte, 1) == 1);
    slow->has_returned = 1;
}

static void *take_back(void *argument) {
    slow_t *slow = (slow_t *)argument;
    OK(cclDestroyOperation(slow->operation));
    CHECK(slow->has_returned == 1);
    return NULL;
}

static void *finish_barrier(void *communicator) {
    OK(cclBarrier((cclCommunicator_t)communicator, NULL, NULL));
    return NULL;
}

static void taking_back_waits(cclCommunicator_t pair[2]) {
    slow_t slow;
    pthread_t threads[2];
    char byte = 0;
    memset(&slow, 0, sizeof slow);
    CHECK(pipe(slow.begun) == 0 && pipe(slow.go_on) == 0);
    OK(cclBarrierAsync(pair[0], NULL, &slow.operation));
    OK(cclSetEndCallback(slow.operation, wait_in_callback, &slow));
    threads[0] = start_thread(finish_barrier, pair[1]);
    CHECK(read(slow.begun[0], &byte, 1) == 1);
    threads[1] = start_thread(take_back, &slow);
    /* Only when its handle is gone is the other thread in the call. */
    while (cclWaitFor(slow.operation, 0, NULL) != cclErrorInvalidHandle) {
        CHECK(slow.has_returned == 0);
    }
    CHECK(write(slow.go_on[1], "g", 1) == 1);
    join_thread(threads[0]);
    join_thread(threads[1]);
    close(slow.begun[0]);
    close(slow.begun[1]);
    close(slow.go_on[0]);
    close(slow.go_on[1]);
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclMaster_t master;
    watch_t last = new_watch();
    alarm(PATIENCE);
    master = start_master(address);
    connect_pair(address, pair);
    collectives_tell(pair);
    syncs_and_safe_points_tell(pair);
    nobody_is_told_who_took_it_back(pair);
    taking_back_waits(pair);
    OK(cclBarrierAsync(pair[0], NULL, &last.operation));
    OK(cclSetEndCallback(last.operation, write_to_pipe, &last));
    OK(cclDestroyCommunicator(pair[0]));
    CHECK(is_told(&last, -1));
    end_watch(&last);
    OK(cclDestroyCommunicator(pair[1]));
    OK(cclDestroyMaster(master));
    return 0;
}
