/*
 * What a call does not change in its thread.
 *
 * 1. `errno` is as it was after every kind of call, failures included. 2. A thread that is
 *    cancelled by pthread_cancel in the middle of a call, or before it, ends after the call and not
 *    within. 3. Signals with handlers that interrupt system calls disturb no call. 4. A thread with
 *    a small stack may call. 5. Changes of `errno` by a callback are not visible either.
 */
#include "pair.h"

#include <errno.h>
#include <sys/stat.h>

/* A value that nothing sets. */
#define MARK 4242

#define LEAVES_ERRNO(expected, call)                                                               \
    do {                                                                                           \
        errno = MARK;                                                                              \
        EXPECT(expected, call);                                                                    \
        CHECK(errno == MARK);                                                                      \
    } while (0)

static char directory[] = "/tmp/ccl-callers-XXXXXX";
static char checkpoints[64], journal[64];

static void break_errno(cclLogLevel_t level, const char *message, void *user_data) {
    (void)level;
    (void)message;
    (void)user_data;
    errno = ENOTTY;
}

static void masters_leave_errno(const char *taken) {
    cclMasterConfig_t config;
    cclMaster_t master = NULL;
    cclErrorInfo_t info;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = taken;
    LEAVES_ERRNO(cclSuccess, cclCreateMaster(&config, &master));
    LEAVES_ERRNO(cclErrorSystem, cclRunMaster(master));
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    LEAVES_ERRNO(cclSuccess, cclGetLastErrorInfo(&info));
    CHECK(info.result == cclErrorSystem && info.system_error == EADDRINUSE);
    LEAVES_ERRNO(cclSuccess, cclDestroyMaster(master));
    LEAVES_ERRNO(cclErrorInvalidHandle, cclDestroyMaster(master));
}

static void peers_leave_errno(const char *address) {
    cclCommunicatorConfig_t config = peer_config(address, 1);
    cclCommunicator_t communicator = NULL;
    cclOperation_t operation = NULL;
    float data[2] = {1, 2};
    config.listen = "203.0.113.1:0"; /* for documentation: no machine has it */
    LEAVES_ERRNO(cclSuccess, cclCreateCommunicator(&config, &communicator));
    LEAVES_ERRNO(cclErrorSystem, cclConnect(communicator));
    LEAVES_ERRNO(cclSuccess, cclDestroyCommunicator(communicator));
    config.listen = NULL;
    OK(cclSetLogCallback(break_errno, NULL, cclLogTrace));
    LEAVES_ERRNO(cclSuccess, cclCreateCommunicator(&config, &communicator));
    LEAVES_ERRNO(cclSuccess, cclConnect(communicator));
    LEAVES_ERRNO(cclSuccess, cclAllReduceAsync(communicator, data, data, 2, cclFloat32, cclSum,
                                               NULL, &operation));
    LEAVES_ERRNO(cclSuccess, cclWait(operation, NULL));
    LEAVES_ERRNO(cclSuccess, cclDestroyOperation(operation));
    LEAVES_ERRNO(cclSuccess, cclUpdateTopology(communicator));
    LEAVES_ERRNO(cclSuccess, cclLeave(communicator));
    LEAVES_ERRNO(cclSuccess, cclDestroyCommunicator(communicator));
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
}

static void states_leave_errno(void) {
    cclSharedState_t state = NULL;
    uint32_t is_loaded = 7;
    float data = 1;
    OK(cclCreateSharedState(1, &state));
    OK(cclAddEntry(state, "data", &data, cclFloat32, NULL, 0, 0));
    LEAVES_ERRNO(cclErrorSystem, cclSaveSharedState(state, "/nowhere/at/all", NULL));
    LEAVES_ERRNO(cclSuccess, cclLoadSharedState(state, checkpoints, NULL, &is_loaded));
    CHECK(is_loaded == 0);
    LEAVES_ERRNO(cclSuccess, cclSaveSharedState(state, checkpoints, NULL));
    LEAVES_ERRNO(cclSuccess, cclLoadSharedState(state, checkpoints, NULL, &is_loaded));
    CHECK(is_loaded == 1);
    LEAVES_ERRNO(cclSuccess, cclDestroySharedState(state));
}

/* The work of a thread that is being cancelled. */
typedef struct task_t {
    void (*body)(struct task_t *task);
    const char *address;
    cclCommunicator_t communicator;
    cclOperation_t operation;
    volatile int is_done;
} task_t;

static void run_a_master(task_t *task) {
    cclMasterConfig_t config;
    cclMaster_t master = NULL;
    (void)task;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = "127.0.0.1:0";
    config.journal = journal;
    OK(cclCreateMaster(&config, &master));
    OK(cclRunMaster(master));
    OK(cclDestroyMaster(master));
}

static void save_a_state(task_t *task) {
    cclSharedState_t state = NULL;
    float data = 1;
    (void)task;
    OK(cclCreateSharedState(2, &state));
    OK(cclAddEntry(state, "data", &data, cclFloat32, NULL, 0, 0));
    OK(cclSaveSharedState(state, checkpoints, NULL));
    OK(cclDestroySharedState(state));
}

static void be_a_peer(task_t *task) {
    cclCommunicator_t communicator = connect_peer(task->address, 1);
    cclSharedState_t state = NULL;
    float data[2] = {1, 2};
    OK(cclAllReduce(communicator, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    OK(cclCreateSharedState(1, &state));
    OK(cclAddEntry(state, "data", data, cclFloat32, NULL, 0, 1));
    OK(cclSyncSharedState(communicator, state, NULL, NULL));
    OK(cclDestroySharedState(state));
    OK(cclUpdateTopology(communicator));
    OK(cclLeave(communicator));
    OK(cclDestroyCommunicator(communicator));
}

static void wait_for_the_barrier(task_t *task) {
    OK(cclWait(task->operation, NULL));
}

static void *do_task(void *argument) {
    task_t *task = (task_t *)argument;
    task->body(task);
    task->is_done = 1;
    return NULL;
}

/* Its cancellation is pending from the start: any call that lets it through ends the process. */
static void *do_task_cancelled(void *argument) {
    CHECK(pthread_cancel(pthread_self()) == 0);
    do_task(argument);
    pthread_testcancel();
    CHECK(!"a thread that was cancelled went on");
    return NULL;
}

static void join_cancelled(pthread_t thread, const task_t *task) {
    void *result = NULL;
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && task->is_done == 1);
}

static void *wait_and_be_cancelled(void *argument) {
    do_task(argument);
    for (;;) {
        pthread_testcancel();
    }
    return NULL;
}

static void threads_are_cancelled_between_calls(const char *address) {
    static void (*const bodies[])(task_t *) = {run_a_master, save_a_state, be_a_peer};
    size_t index;
    for (index = 0; index < sizeof bodies / sizeof bodies[0]; index++) {
        task_t task;
        memset(&task, 0, sizeof task);
        task.body = bodies[index];
        task.address = address;
        join_cancelled(start_thread(do_task_cancelled, &task), &task);
    }
}

static volatile sig_atomic_t signals_taken = 0;

static void take_signal(int number) {
    signals_taken += number != 0;
}

/* A thread waits in a call, takes signals and is cancelled; then the call has what it waits for. */
static void waits_are_left_alone(cclCommunicator_t pair[2]) {
    struct sigaction action;
    pthread_t thread;
    task_t task;
    int round;
    memset(&action, 0, sizeof action);
    action.sa_handler = take_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    memset(&task, 0, sizeof task);
    task.body = wait_for_the_barrier;
    OK(cclBarrierAsync(pair[0], NULL, &task.operation));
    thread = start_thread(wait_and_be_cancelled, &task);
    for (round = 0; round < 100; round++) {
        const int taken = signals_taken;
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        while (signals_taken == taken) {
            EXPECT(cclErrorTimeout, cclWaitFor(task.operation, 1, NULL));
        }
    }
    CHECK(task.is_done == 0 && pthread_cancel(thread) == 0);
    EXPECT(cclErrorTimeout, cclWaitFor(task.operation, 1, NULL));
    CHECK(task.is_done == 0);
    OK(cclBarrier(pair[1], NULL, NULL));
    join_cancelled(thread, &task);
    OK(cclDestroyOperation(task.operation));
}

/* As small as the header says. */
static void a_small_stack_is_enough(const char *address) {
    pthread_attr_t attributes;
    pthread_t thread;
    task_t task;
    memset(&task, 0, sizeof task);
    task.body = be_a_peer;
    task.address = address;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 128 << 10) == 0);
    CHECK(pthread_create(&thread, &attributes, do_task, &task) == 0);
    join_thread(thread);
    CHECK(task.is_done == 1 && pthread_attr_destroy(&attributes) == 0);
}

static void remove_files(void) {
    static const char *const names[] = {"checkpoint-00000000000000000001.safetensors",
                                        "checkpoint-00000000000000000002.safetensors",
                                        ".checkpoint-lock"};
    char path[160];
    size_t index;
    for (index = 0; index < sizeof names / sizeof names[0]; index++) {
        snprintf(path, sizeof path, "%s/%s", checkpoints, names[index]);
        CHECK(unlink(path) == 0);
    }
    snprintf(path, sizeof path, "%s.marker", journal);
    CHECK(rmdir(checkpoints) == 0 && unlink(journal) == 0 && unlink(path) == 0);
    CHECK(rmdir(directory) == 0);
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclMaster_t master;
    alarm(PATIENCE);
    CHECK(mkdtemp(directory) != NULL);
    snprintf(checkpoints, sizeof checkpoints, "%s/saved", directory);
    snprintf(journal, sizeof journal, "%s/journal", directory);
    master = start_master(address);
    masters_leave_errno(address);
    peers_leave_errno(address);
    states_leave_errno();
    threads_are_cancelled_between_calls(address);
    a_small_stack_is_enough(address);
    connect_pair(address, pair);
    waits_are_left_alone(pair);
    OK(cclDestroyCommunicator(pair[0]));
    OK(cclDestroyCommunicator(pair[1]));
    OK(cclDestroyMaster(master));
    remove_files();
    return 0;
}
