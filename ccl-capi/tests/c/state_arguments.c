/*
 * Every function of shared state with NULL, wrong numbers, wrong handles and in the wrong state;
 * and what one peer alone can see of it: entries, revisions, checkpoints, and ends of syncs.
 *
 * Each must return the code that the header promises, and write nothing. 1. Wrong handles and
 * entries. 2. Wrong options and places. 3. A sync in progress owns its state: everything else waits
 * for its end, and destroying it early ends it. 4. A checkpoint restores what was saved; a damaged
 * one is skipped for the one before it, or is an error.
 */
#include "pair.h"

#include <dirent.h>

#define COUNT 100000

static cclSharedState_t make_state(uint64_t revision, float *weights) {
    const uint64_t shape[] = {COUNT};
    cclSharedState_t state = NULL;
    OK(cclCreateSharedState(revision, &state));
    OK(cclAddEntry(state, "weights", weights, cclFloat32, shape, 1, 0));
    return state;
}

static cclSyncInfo_t empty_info(void) {
    cclSyncInfo_t info;
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    return info;
}

static cclSyncOptions_t sync_options(void) {
    cclSyncOptions_t options;
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    return options;
}

static uint64_t revision_of(cclSharedState_t state) {
    uint64_t revision = 0;
    OK(cclGetRevision(state, &revision));
    return revision;
}

/* All functions that take a state, with one that each refuses in the same way. */
static void expect_of_all(cclResult_t expected, cclCommunicator_t communicator,
                          cclSharedState_t state) {
    const uint64_t shape[] = {1};
    uint8_t root[CCL_ROOT_BYTES] = {7};
    uint64_t revision = 7;
    uint32_t number = 7;
    float memory = 0;
    cclOperation_t operation = NULL;
    EXPECT(expected, cclAddEntry(state, "more", &memory, cclFloat32, shape, 1, 0));
    EXPECT(expected, cclGetRevision(state, &revision));
    EXPECT(expected, cclSetRevision(state, 1));
    EXPECT(expected, cclIsUsable(state, &number));
    EXPECT(expected, cclGetRoot(state, root));
    EXPECT(expected, cclSaveSharedState(state, "/nowhere/at/all", NULL));
    EXPECT(expected, cclLoadSharedState(state, "/nowhere/at/all", NULL, &number));
    EXPECT(expected, cclSyncSharedState(communicator, state, NULL, NULL));
    EXPECT(expected, cclSyncSharedStateAsync(communicator, state, NULL, &operation));
    CHECK(revision == 7 && number == 7 && root[0] == 7 && operation == NULL);
}

static void wrong_handles(cclCommunicator_t communicator) {
    static float weights[COUNT];
    cclCommunicator_t unconnected = NULL;
    cclOperation_t operation = NULL, barrier = NULL;
    cclSharedState_t state = make_state(1, weights), destroyed = make_state(1, weights);
    cclSyncInfo_t info = empty_info();
    cclSyncRole_t role = 7;
    void *wrong[3];
    int index;
    OK(cclDestroySharedState(destroyed));
    wrong[0] = NULL;
    wrong[1] = destroyed;
    wrong[2] = communicator;
    for (index = 0; index < 3; index++) {
        expect_of_all(cclErrorInvalidHandle, communicator, (cclSharedState_t)wrong[index]);
        EXPECT(cclErrorInvalidHandle, cclDestroySharedState((cclSharedState_t)wrong[index]));
        EXPECT(cclErrorInvalidHandle, cclGetSyncInfo((cclOperation_t)wrong[index], &info));
        EXPECT(cclErrorInvalidHandle, cclGetSyncRole((cclOperation_t)wrong[index], &role));
    }
    EXPECT(cclErrorInvalidHandle, cclSyncSharedState(NULL, state, NULL, NULL));
    EXPECT(cclErrorInvalidHandle,
           cclSyncSharedStateAsync((cclCommunicator_t)(void *)state, state, NULL, &operation));
    OK(cclCreateCommunicator(NULL, &unconnected));
    EXPECT(cclErrorInvalidUsage, cclSyncSharedState(unconnected, state, NULL, NULL));
    EXPECT(cclErrorInvalidUsage, cclSyncSharedStateAsync(unconnected, state, NULL, &operation));
    OK(cclDestroyCommunicator(unconnected));
    OK(cclBarrierAsync(communicator, NULL, &barrier));
    EXPECT(cclErrorInvalidArgument, cclGetSyncInfo(barrier, &info));
    EXPECT(cclErrorInvalidArgument, cclGetSyncRole(barrier, &role));
    OK(cclDestroyOperation(barrier));
    CHECK(role == 7 && operation == NULL && revision_of(state) == 1);
    OK(cclDestroySharedState(state));
}

static void wrong_entries(void) {
    const uint64_t shape[] = {2, 3}, vast[] = {UINT64_MAX, 2}, none[] = {5, 0};
    uint64_t extents[CCL_DIMENSIONS_MAX + 1] = {0};
    float memory[7] = {0};
    char name[600];
    cclSharedState_t state = NULL;
    void *const odd = (char *)memory + 2;
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    EXPECT(cclErrorInvalidArgument, cclCreateSharedState(0, NULL));
    EXPECT(cclErrorInvalidArgument, cclCreateSharedState(0, (cclSharedState_t *)(uintptr_t)3));
    OK(cclCreateSharedState(UINT64_MAX, &state));
    CHECK(revision_of(state) == UINT64_MAX);
#define WRONG(call) EXPECT(cclErrorInvalidArgument, call)
    WRONG(cclAddEntry(state, NULL, memory, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, "\xff", memory, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, name, memory, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", NULL, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", odd, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, 12, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, UINT32_MAX, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, NULL, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, (uint64_t *)(uintptr_t)4, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, vast, 1, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, vast, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, extents, CCL_DIMENSIONS_MAX + 1, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, extents, SIZE_MAX, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, shape, 2, 2));
    OK(cclAddEntry(state, "w", memory, cclFloat32, shape, 2, 0));
    WRONG(cclAddEntry(state, "w", memory, cclFloat32, shape, 2, 0));
    CHECK(strstr(cclGetLastError(), "\"w\"") != NULL);
    OK(cclAddEntry(state, "scalar", memory + 6, cclFloat32, NULL, 0, 0));
    OK(cclAddEntry(state, "nothing", NULL, cclFloat64, none, 2, 1));
    WRONG(cclGetRevision(state, NULL));
    WRONG(cclIsUsable(state, NULL));
    WRONG(cclGetRoot(state, NULL));
    OK(cclDestroySharedState(state));
}

static void wrong_syncs(cclCommunicator_t communicator) {
    static float weights[COUNT];
    const uint64_t shape[] = {COUNT};
    const size_t touched[] = {0}, beyond[] = {1};
    cclSharedState_t state = make_state(4, weights);
    const cclSyncOptions_t good = sync_options();
    cclSyncOptions_t options;
    cclSyncInfo_t info = empty_info();
    cclOperation_t operation = NULL;
#define REFUSE(field, value)                                                                       \
    (options = good, options.field = value,                                                        \
     WRONG(cclSyncSharedState(communicator, state, &options, &info)),                              \
     WRONG(cclSyncSharedStateAsync(communicator, state, &options, &operation)))
    REFUSE(struct_bytes, 1);
    REFUSE(strategy, 3);
    REFUSE(strategy, UINT32_MAX);
    REFUSE(is_restore, 2);
    REFUSE(hash_threads, 257);
    REFUSE(reserved, 1);
#undef REFUSE
    options = good;
    options.touched = (const size_t *)(uintptr_t)4;
    options.touched_count = 1;
    WRONG(cclSyncSharedState(communicator, state, &options, &info));
    options.touched = touched;
    options.touched_count = (size_t)1 << 50;
    WRONG(cclSyncSharedState(communicator, state, &options, &info));
    WRONG(cclSyncSharedStateAsync(communicator, state, NULL, NULL));
    info.sources_capacity = 1;
    WRONG(cclSyncSharedState(communicator, state, NULL, &info));
    info = empty_info();
    info.members_capacity = 1;
    WRONG(cclSyncSharedState(communicator, state, NULL, &info));
    info.struct_bytes = 0;
    WRONG(cclSyncSharedState(communicator, state, NULL, &info));
    info = empty_info();
    options = good;
    options.strategy = cclReceiveOnly;
    EXPECT(cclErrorSharedState, cclSyncSharedState(communicator, state, &options, &info));
    CHECK(info.revision == 0 && revision_of(state) == 4);
    options.strategy = cclSendOnly;
    options.hash_threads = 1;
    options.deadline_ms = CCL_FOREVER;
    OK(cclSyncSharedState(communicator, state, &options, &info));
    CHECK(info.revision == 4 && info.members_count == 1 && info.sources_count == 0);
    options = good;
    options.touched = beyond;
    options.touched_count = 1;
    WRONG(cclSyncSharedState(communicator, state, &options, &info));
    /* Entries not named as touched are not hashed: the change goes unnoticed until it is named. */
    weights[5] = 9;
    OK(cclSetRevision(state, 5));
    options.touched_count = 0;
    OK(cclSyncSharedState(communicator, state, &options, NULL));
    OK(cclSetRevision(state, 6));
    options.touched = touched;
    options.touched_count = 1;
    OK(cclSyncSharedState(communicator, state, &options, &info));
    weights[6] = 9;
    /* Two entries share memory: found before anything moves. */
    OK(cclAddEntry(state, "again", weights, cclFloat32, shape, 1, 0));
    WRONG(cclSyncSharedState(communicator, state, NULL, NULL));
    CHECK(strstr(cclGetLastError(), "share memory") != NULL && revision_of(state) == 6);
    OK(cclDestroySharedState(state));
}

/* Two peers of one run, of which only one calls at first: its sync stays under way. The run's last
   sync was of revision 6. */
static void under_way(cclCommunicator_t one, cclCommunicator_t other) {
    static float weights[COUNT], others[COUNT];
    cclSharedState_t state = make_state(7, weights), theirs = make_state(7, others);
    cclOperation_t sync = NULL, second = NULL;
    cclSyncInfo_t info = empty_info();
    cclSyncRole_t role = 7;
    uint32_t is_finished = 7;
    OK(cclSyncSharedStateAsync(one, state, NULL, &sync));
    expect_of_all(cclErrorInvalidUsage, one, state);
    OK(cclTest(sync, &is_finished));
    OK(cclGetSyncRole(sync, &role));
    CHECK(is_finished == 0 && role == cclRoleUnknown);
    EXPECT(cclErrorTimeout, cclWaitFor(sync, 1, NULL));
    EXPECT(cclErrorTimeout, cclGetSyncInfo(sync, &info));
    WRONG(cclGetSyncInfo(sync, NULL));
    WRONG(cclGetSyncRole(sync, NULL));
    OK(cclSyncSharedState(other, theirs, NULL, NULL));
    OK(cclWait(sync, NULL));
    OK(cclGetSyncInfo(sync, &info));
    OK(cclGetSyncInfo(sync, &info));
    OK(cclGetSyncRole(sync, &role));
    CHECK(info.revision == 7 && info.members_count == 2 && role == cclRoleSource);
    OK(cclDestroyOperation(sync));
    /* The state is free once its sync has ended, whether or not a call waited. */
    OK(cclSyncSharedStateAsync(one, state, NULL, &sync));
    OK(cclSyncSharedState(other, theirs, NULL, NULL));
    for (is_finished = 0; is_finished == 0;) {
        OK(cclTest(sync, &is_finished));
    }
    CHECK(revision_of(state) == 7);
    OK(cclCancel(sync));
    OK(cclWait(sync, NULL));
    OK(cclDestroyOperation(sync));
    /* One is cancelled, one is destroyed, one loses its state: each ends, for both peers. */
    OK(cclSyncSharedStateAsync(one, state, NULL, &sync));
    OK(cclCancel(sync));
    EXPECT(cclErrorCancelled, cclWait(sync, NULL));
    EXPECT(cclErrorCancelled, cclGetSyncInfo(sync, &info));
    EXPECT(cclErrorCancelled, cclSyncSharedState(other, theirs, NULL, NULL));
    OK(cclSyncSharedStateAsync(one, state, NULL, &second));
    OK(cclDestroyOperation(second));
    EXPECT(cclErrorCancelled, cclSyncSharedState(other, theirs, NULL, NULL));
    OK(cclDestroyOperation(sync));
    CHECK(revision_of(state) == 7);
    OK(cclSyncSharedStateAsync(one, state, NULL, &sync));
    OK(cclDestroySharedState(state));
    memset(weights, 0xff, sizeof weights);
    EXPECT(cclErrorCancelled, cclWait(sync, NULL));
    OK(cclDestroyOperation(sync));
    EXPECT(cclErrorCancelled, cclSyncSharedState(other, theirs, NULL, NULL));
    OK(cclDestroySharedState(theirs));
}

static void *wait_until_cancelled(void *sync) {
    EXPECT(cclErrorCancelled, cclWait((cclOperation_t)sync, NULL));
    return NULL;
}

/* While a thread waits for a sync, other calls on its state are refused at once, as ever, and none
   of them keeps a cancel from it. */
static void waited_for(cclCommunicator_t one, cclCommunicator_t other) {
    static float weights[COUNT], others[COUNT];
    cclSharedState_t state = make_state(7, weights), theirs = make_state(7, others);
    cclOperation_t sync = NULL;
    uint64_t revision = 0;
    pthread_t thread;
    int round;
    OK(cclSyncSharedStateAsync(one, state, NULL, &sync));
    thread = start_thread(wait_until_cancelled, sync);
    for (round = 0; round < 50; round++) {
        EXPECT(cclErrorInvalidUsage, cclGetRevision(state, &revision));
        EXPECT(cclErrorTimeout, cclWaitFor(sync, 1, NULL));
    }
    OK(cclCancel(sync));
    join_thread(thread);
    EXPECT(cclErrorCancelled, cclSyncSharedState(other, theirs, NULL, NULL));
    OK(cclDestroyOperation(sync));
    OK(cclDestroySharedState(state));
    OK(cclDestroySharedState(theirs));
}

/* Files in a directory that are named as checkpoints; each is cut to `bytes` if `bytes` > 0. */
static int checkpoints_in(const char *directory, long bytes) {
    DIR *list = opendir(directory);
    struct dirent *file;
    int count = 0;
    CHECK(list != NULL);
    while ((file = readdir(list)) != NULL) {
        char path[512];
        if (strncmp(file->d_name, "checkpoint-", 11) == 0) {
            snprintf(path, sizeof path, "%s/%.200s", directory, file->d_name);
            CHECK(bytes == 0 || truncate(path, bytes) == 0);
            count++;
        }
    }
    closedir(list);
    return count;
}

static void remove_directory(const char *directory) {
    DIR *list = opendir(directory);
    struct dirent *file;
    CHECK(list != NULL);
    while ((file = readdir(list)) != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%.200s", directory, file->d_name);
        if (strcmp(file->d_name, ".") != 0 && strcmp(file->d_name, "..") != 0) {
            CHECK(unlink(path) == 0);
        }
    }
    closedir(list);
    CHECK(rmdir(directory) == 0);
}

static void checkpoints(void) {
    static float weights[COUNT];
    const uint64_t shape[] = {1};
    char parent[] = "/tmp/ccl-c-XXXXXX", directory[64];
    cclSharedState_t state = make_state(1, weights);
    uint8_t root[CCL_ROOT_BYTES];
    cclCheckpointOptions_t three;
    cclCheckpoint_t newest;
    uint32_t is_loaded = 7;
    uint64_t round;
    memset(&three, 0, sizeof three);
    three.struct_bytes = sizeof three;
    three.keep_count = 3;
    CHECK(mkdtemp(parent) != NULL);
    snprintf(directory, sizeof directory, "%s/saved", parent);
    memset(&newest, 0xff, sizeof newest);
    newest.path = NULL;
    newest.path_capacity = 0;
    newest.struct_bytes = sizeof newest;
    WRONG(cclSaveSharedState(state, NULL, NULL));
    WRONG(cclSaveSharedState(state, "", NULL));
    WRONG(cclSaveSharedState(state, "\xff", NULL));
    EXPECT(cclErrorSystem, cclSaveSharedState(state, "/nowhere/at/all", NULL));
    WRONG(cclLoadSharedState(state, NULL, NULL, &is_loaded));
    WRONG(cclLoadSharedState(state, directory, NULL, NULL));
    WRONG(cclGetNewestCheckpoint(NULL, &newest));
    WRONG(cclGetNewestCheckpoint(directory, NULL));
    OK(cclGetNewestCheckpoint(directory, &newest));
    CHECK(newest.is_there == 0 && newest.revision == 0);
    OK(cclLoadSharedState(state, directory, NULL, &is_loaded));
    CHECK(is_loaded == 0 && revision_of(state) == 1);
    for (round = 1; round <= 4; round++) {
        weights[7] = (float)round;
        OK(cclSetRevision(state, round));
        OK(cclSaveSharedState(state, directory, round < 3 ? NULL : &three));
    }
    CHECK(checkpoints_in(directory, 0) == 3);
    OK(cclGetRoot(state, root));
    weights[7] = 0;
    OK(cclSetRevision(state, 0));
    OK(cclGetNewestCheckpoint(directory, &newest));
    CHECK(newest.is_there == 1 && newest.revision == 4);
    CHECK(memcmp(newest.root, root, sizeof root) == 0);
    OK(cclLoadSharedState(state, directory, NULL, &is_loaded));
    CHECK(is_loaded == 1 && revision_of(state) == 4 && weights[7] == 4);
    OK(cclAddEntry(state, "more", &weights[0], cclFloat32, shape, 1, 0));
    WRONG(cclLoadSharedState(state, directory, NULL, &is_loaded));
    OK(cclDestroySharedState(state));
    state = make_state(9, weights);
    CHECK(checkpoints_in(directory, 100) == 3);
    WRONG(cclLoadSharedState(state, directory, NULL, &is_loaded));
    WRONG(cclGetNewestCheckpoint(directory, &newest));
    OK(cclIsUsable(state, &is_loaded));
    CHECK(is_loaded == 1 && revision_of(state) == 9);
    OK(cclDestroySharedState(state));
    remove_directory(directory);
    remove_directory(parent);
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMaster_t master = start_master(address);
    cclCommunicator_t alone = connect_peer(address, 1);
    cclCommunicator_t pair[2];
    cclOperation_t barrier = NULL;
    alarm(PATIENCE);
    wrong_handles(alone);
    wrong_entries();
    wrong_syncs(alone);
    checkpoints();
    OK(cclDestroyCommunicator(alone));
    connect_pair(address, pair);
    under_way(pair[0], pair[1]);
    waited_for(pair[0], pair[1]);
    OK(cclBarrierAsync(pair[0], NULL, &barrier));
    OK(cclBarrier(pair[1], NULL, NULL));
    OK(cclWait(barrier, NULL));
    OK(cclDestroyOperation(barrier));
    OK(cclDestroyCommunicator(pair[0]));
    OK(cclDestroyCommunicator(pair[1]));
    OK(cclDestroyMaster(master));
    return 0;
}
