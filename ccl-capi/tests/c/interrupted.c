/*
 * Calls that wait, and another thread that ends them.
 *
 * 1. While the system looks a name up for cclConnect, or writes a journal for cclRunMaster, no
 *    other call on the handle waits for it; destroying it gives it up, and so does cclLeave. 2.
 *    Calls that block end when their communicator is destroyed: operations, safe points, syncs. 3.
 *    A wait ends when its operation's handle is destroyed, and a sync when its state is; the memory
 *    is the caller's then. 4. Threads that do everything at once with handles that others destroy
 *    get results, and nothing worse.
 */
#include "pair.h"

#include <netdb.h>

/* The blocked thread waits in the system until the other end is closed. */
static int held_up[2], go_on[2];
static pthread_t held;

/* Whether this is the thread to block; true once. */
static int hold_up(void) {
    char byte = 0;
    if (held_up[1] == 0 || !pthread_equal(pthread_self(), held)) {
        return 0;
    }
    CHECK(write(held_up[1], "h", 1) == 1);
    CHECK(read(go_on[0], &byte, 1) == 0);
    return 1;
}

/* Replaces the system's: a look-up takes as long as the test wants, and finds nothing. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    (void)node;
    (void)service;
    (void)hints;
    (void)result;
    (void)hold_up();
    return EAI_NONAME;
}

/* So do durable writes. */
int fsync(int file) {
    (void)file;
    (void)hold_up();
    return 0;
}

int fdatasync(int file) {
    return fsync(file);
}

static void begin_to_hold_up(void) {
    CHECK(pipe(held_up) == 0 && pipe(go_on) == 0);
}

static void await_held_up(void) {
    char byte = 0;
    CHECK(read(held_up[0], &byte, 1) == 1);
}

static void let_go(pthread_t thread) {
    CHECK(close(go_on[1]) == 0);
    join_thread(thread);
    close(go_on[0]);
    close(held_up[0]);
    close(held_up[1]);
    held_up[1] = 0;
}

typedef struct task_t {
    cclResult_t (*body)(struct task_t *task);
    cclCommunicator_t communicator;
    cclMaster_t master;
    cclSharedState_t state;
    cclOperation_t operation;
    cclResult_t result;
} task_t;

static void *do_task(void *argument) {
    task_t *task = (task_t *)argument;
    task->result = task->body(task);
    return NULL;
}

static cclResult_t connect_it(task_t *task) {
    held = pthread_self();
    return cclConnect(task->communicator);
}

static cclResult_t run_it(task_t *task) {
    held = pthread_self();
    return cclRunMaster(task->master);
}

static cclResult_t wait_for_it(task_t *task) {
    return cclWait(task->operation, NULL);
}

static cclResult_t sync_it(task_t *task) {
    return cclSyncSharedState(task->communicator, task->state, NULL, NULL);
}

static cclResult_t come_to_the_safe_point(task_t *task) {
    return cclUpdateTopology(task->communicator);
}

static cclResult_t come_to_the_barrier(task_t *task) {
    return cclBarrier(task->communicator, NULL, NULL);
}

/* `how` 0: by leaving; 1: by destroying. */
static void look_ups_hold_nobody_up(int how) {
    cclCommunicatorConfig_t config = peer_config("a-name.invalid:1", 1);
    uint64_t value = 0;
    pthread_t thread;
    task_t task;
    memset(&task, 0, sizeof task);
    begin_to_hold_up();
    task.body = connect_it;
    OK(cclCreateCommunicator(&config, &task.communicator));
    thread = start_thread(do_task, &task);
    await_held_up();
    OK(cclGetAttribute(task.communicator, cclAttributeGroup, &value));
    EXPECT(cclErrorInvalidUsage, cclGetAttribute(task.communicator, cclAttributeRank, &value));
    EXPECT(cclErrorInvalidUsage, cclConnect(task.communicator));
    if (how == 0) {
        OK(cclLeave(task.communicator));
    } else {
        OK(cclDestroyCommunicator(task.communicator));
    }
    let_go(thread);
    EXPECT(cclErrorEnded, task.result);
    if (how == 0) {
        OK(cclDestroyCommunicator(task.communicator));
    }
}

static void journals_hold_nobody_up(int is_destroyed) {
    char journal[] = "/tmp/ccl-interrupted-XXXXXX", address[CCL_ADDRESS_BYTES_MAX];
    char marker[64];
    const int file = mkstemp(journal);
    cclMasterConfig_t config;
    pthread_t thread;
    task_t task;
    CHECK(file >= 0 && close(file) == 0 && unlink(journal) == 0);
    memset(&task, 0, sizeof task);
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = "127.0.0.1:0";
    config.journal = journal;
    begin_to_hold_up();
    task.body = run_it;
    OK(cclCreateMaster(&config, &task.master));
    thread = start_thread(do_task, &task);
    await_held_up();
    EXPECT(cclErrorInvalidUsage, cclGetMasterAddress(task.master, address, sizeof address));
    EXPECT(cclErrorInvalidUsage, cclInterruptMaster(task.master));
    EXPECT(cclErrorInvalidUsage, cclAwaitMaster(task.master));
    EXPECT(cclErrorInvalidUsage, cclRunMaster(task.master));
    if (is_destroyed) {
        OK(cclDestroyMaster(task.master));
    }
    let_go(thread);
    if (is_destroyed) {
        EXPECT(cclErrorInvalidUsage, task.result);
    } else {
        OK(task.result);
        OK(cclGetMasterAddress(task.master, address, sizeof address));
        OK(cclDestroyMaster(task.master));
    }
    snprintf(marker, sizeof marker, "%s.marker", journal);
    CHECK(unlink(journal) == 0 && unlink(marker) == 0);
}

static cclSharedState_t make_state(float *data) {
    cclSharedState_t state = NULL;
    OK(cclCreateSharedState(1, &state));
    OK(cclAddEntry(state, "data", data, cclFloat32, NULL, 0, 0));
    return state;
}

/* Waits until a sync of this state is under way in another thread. */
static void await_sync(cclSharedState_t state) {
    uint64_t revision = 0;
    while (cclGetRevision(state, &revision) == cclSuccess) {
        /* The thread has not begun. */
    }
}

static void states_and_operations_end_their_waits(cclCommunicator_t pair[2]) {
    const cclOptions_t options = options_of_tag(7);
    float data = 1;
    pthread_t thread;
    task_t task;
    memset(&task, 0, sizeof task);
    task.communicator = pair[0];
    task.state = make_state(&data);
    task.body = sync_it;
    thread = start_thread(do_task, &task);
    await_sync(task.state);
    OK(cclDestroySharedState(task.state));
    data = 2;
    join_thread(thread);
    EXPECT(cclErrorCancelled, task.result);
    task.body = wait_for_it;
    OK(cclAllReduceAsync(pair[0], &data, &data, 1, cclFloat32, cclSum, &options, &task.operation));
    thread = start_thread(do_task, &task);
    EXPECT(cclErrorTimeout, cclWaitFor(task.operation, 5, NULL));
    OK(cclDestroyOperation(task.operation));
    CHECK(data == 2);
    join_thread(thread);
    CHECK(task.result == cclErrorCancelled || task.result == cclErrorInvalidHandle);
}

/* All at once, on the first of the pair; the other calls none of it. */
static void destroying_ends_all_waits(cclCommunicator_t pair[2]) {
    static cclResult_t (*const bodies[])(task_t *) = {sync_it, come_to_the_barrier,
                                                     come_to_the_safe_point};
    enum { TASKS = sizeof bodies / sizeof bodies[0] };
    float data = 1;
    pthread_t threads[TASKS];
    task_t tasks[TASKS];
    cclSharedState_t state = make_state(&data);
    uint64_t revision = 0;
    int index;
    memset(tasks, 0, sizeof tasks);
    for (index = 0; index < TASKS; index++) {
        tasks[index].body = bodies[index];
        tasks[index].communicator = pair[0];
        tasks[index].state = state;
        threads[index] = start_thread(do_task, &tasks[index]);
    }
    await_sync(state);
    OK(cclDestroyCommunicator(pair[0]));
    for (index = 0; index < TASKS; index++) {
        const cclResult_t *result = &tasks[index].result;
        join_thread(threads[index]);
        /* It may have come too late, or the safe point was released before. */
        CHECK(*result == cclErrorEnded || *result == cclErrorCancelled ||
              (index > 0 && *result == cclErrorInvalidHandle) ||
              (index == 2 && *result == cclSuccess));
    }
    OK(cclGetRevision(state, &revision));
    CHECK(revision == 1 && data == 1);
    OK(cclDestroySharedState(state));
    OK(cclDestroyCommunicator(pair[1]));
}

enum { THREADS = 4, ROUNDS = 150, PLACES = 5 };

/* What all threads use and destroy; a handle may be gone whenever it is used. */
typedef struct shared_t {
    pthread_mutex_t lock;
    const char *address;
    cclCommunicator_t communicators[PLACES];
    cclOperation_t operations[PLACES];
    cclSharedState_t states[PLACES];
    uint32_t groups;
    uint32_t seeds;
} shared_t;

static shared_t shared;
static float memory[PLACES];

static uint32_t next_random(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* Any result but a bug inside the library. */
static void expect_no_mistake(cclResult_t result) {
    CHECK(result != cclErrorInternal && result <= cclErrorSharedState);
}

static cclCommunicator_t create_and_connect(void) {
    cclCommunicatorConfig_t config = peer_config(shared.address, 1);
    cclCommunicator_t communicator = NULL;
    pthread_mutex_lock(&shared.lock);
    config.group = ++shared.groups; /* alone in it */
    pthread_mutex_unlock(&shared.lock);
    config.io_threads = 1;
    OK(cclCreateCommunicator(&config, &communicator));
    expect_no_mistake(cclConnect(communicator));
    return communicator;
}

static void exchange(void **place, void *fresh, void **before) {
    pthread_mutex_lock(&shared.lock);
    *before = *place;
    *place = fresh;
    pthread_mutex_unlock(&shared.lock);
}

static void do_one_thing(uint32_t *seed) {
    const uint32_t at = next_random(seed) % PLACES;
    void *before = NULL;
    cclCommunicator_t communicator;
    cclOperation_t operation = NULL;
    cclSharedState_t state;
    const cclOptions_t options = options_of_tag(next_random(seed) % 3);
    uint64_t value = 0;
    uint32_t number = 0;
    uint8_t root[CCL_ROOT_BYTES];
    pthread_mutex_lock(&shared.lock);
    communicator = shared.communicators[at];
    operation = shared.operations[at];
    state = shared.states[at];
    pthread_mutex_unlock(&shared.lock);
    switch (next_random(seed) % 16) {
    case 0:
        exchange((void **)&shared.communicators[at], create_and_connect(), &before);
        expect_no_mistake(cclDestroyCommunicator((cclCommunicator_t)before));
        break;
    case 1:
        expect_no_mistake(cclDestroyCommunicator(communicator));
        break;
    case 2:
        expect_no_mistake(cclLeave(communicator));
        break;
    case 3:
    case 4:
        operation = NULL;
        expect_no_mistake(cclAllReduceAsync(communicator, &memory[at], &memory[at], 1, cclFloat32,
                                            cclMax, &options, &operation));
        exchange((void **)&shared.operations[at], operation, &before);
        expect_no_mistake(cclDestroyOperation((cclOperation_t)before));
        break;
    case 5:
        expect_no_mistake(cclWait(operation, NULL));
        break;
    case 6:
        expect_no_mistake(cclCancel(operation));
        expect_no_mistake(cclTest(operation, &number));
        break;
    case 7:
        expect_no_mistake(cclDestroyOperation(operation));
        break;
    case 8:
        state = NULL;
        OK(cclCreateSharedState(1, &state));
        OK(cclAddEntry(state, "one", &memory[at], cclFloat32, NULL, 0, 0));
        exchange((void **)&shared.states[at], state, &before);
        expect_no_mistake(cclDestroySharedState((cclSharedState_t)before));
        break;
    case 9:
        expect_no_mistake(cclSyncSharedState(communicator, state, NULL, NULL));
        break;
    case 10:
        operation = NULL;
        expect_no_mistake(cclSyncSharedStateAsync(communicator, state, NULL, &operation));
        exchange((void **)&shared.operations[at], operation, &before);
        expect_no_mistake(cclDestroyOperation((cclOperation_t)before));
        break;
    case 11:
        expect_no_mistake(cclGetRoot(state, root));
        expect_no_mistake(cclSetRevision(state, 1));
        break;
    case 12:
        expect_no_mistake(cclUpdateTopology(communicator));
        break;
    case 13:
        operation = NULL;
        expect_no_mistake(cclUpdateTopologyAsync(communicator, &operation));
        exchange((void **)&shared.operations[at], operation, &before);
        expect_no_mistake(cclDestroyOperation((cclOperation_t)before));
        break;
    case 14:
        expect_no_mistake(cclDestroySharedState(state));
        break;
    default:
        expect_no_mistake(cclGetAttribute(communicator, next_random(seed) % 15, &value));
        expect_no_mistake(cclArePeersPending(communicator, &number));
        break;
    }
}

static void *do_anything(void *argument) {
    const int rounds = is_slow() ? ROUNDS / 10 : ROUNDS;
    uint32_t seed;
    int round;
    (void)argument;
    pthread_mutex_lock(&shared.lock);
    seed = ++shared.seeds;
    pthread_mutex_unlock(&shared.lock);
    for (round = 0; round < rounds; round++) {
        do_one_thing(&seed);
    }
    return NULL;
}

static void everything_at_once(const char *address) {
    pthread_t threads[THREADS];
    int index;
    CHECK(pthread_mutex_init(&shared.lock, NULL) == 0);
    shared.address = address;
    for (index = 0; index < THREADS; index++) {
        threads[index] = start_thread(do_anything, NULL);
    }
    for (index = 0; index < THREADS; index++) {
        join_thread(threads[index]);
    }
    for (index = 0; index < PLACES; index++) {
        expect_no_mistake(cclDestroyOperation(shared.operations[index]));
        expect_no_mistake(cclDestroySharedState(shared.states[index]));
        expect_no_mistake(cclDestroyCommunicator(shared.communicators[index]));
    }
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclMaster_t master;
    alarm(PATIENCE);
    look_ups_hold_nobody_up(0);
    look_ups_hold_nobody_up(1);
    journals_hold_nobody_up(0);
    journals_hold_nobody_up(1);
    master = start_master(address);
    connect_pair(address, pair);
    states_and_operations_end_their_waits(pair);
    destroying_ends_all_waits(pair);
    everything_at_once(address);
    OK(cclDestroyMaster(master));
    return 0;
}
