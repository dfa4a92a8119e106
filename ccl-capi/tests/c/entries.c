/*
 * What a program can learn of a state that it did not create: its entries, and its files.
 *
 * 1. Entries are enumerated with name, type, shape and memory, as far as there is room. 2. A state
 *    that is marked as a mixture is not saved, and gets the other member's content. 3. The newest
 *    checkpoint has a path; an option sets how many are kept.
 */
#include "pair.h"

#include <dirent.h>

#define ROWS 3
#define COLUMNS 5

typedef struct model_t {
    float weights[ROWS * COLUMNS];
    int64_t step;
    uint8_t own[4];
    cclSharedState_t state;
} model_t;

static void fill(model_t *model, uint64_t revision, float value) {
    const uint64_t shape[] = {ROWS, COLUMNS}, own[] = {4}, nothing[] = {7, 0};
    size_t index;
    memset(model, 0, sizeof *model);
    for (index = 0; index < ROWS * COLUMNS; index++) {
        model->weights[index] = value + (float)index;
    }
    model->step = (int64_t)revision;
    OK(cclCreateSharedState(revision, &model->state));
    OK(cclAddEntry(model->state, "weights", model->weights, cclFloat32, shape, 2, 0));
    OK(cclAddEntry(model->state, "step", &model->step, cclInt64, NULL, 0, 0));
    OK(cclAddEntry(model->state, "own", model->own, cclUint8, own, 1, 1));
    OK(cclAddEntry(model->state, "nothing", NULL, cclFloat64, nothing, 2, 0));
}

static cclEntry_t empty_entry(void) {
    cclEntry_t entry;
    memset(&entry, 0, sizeof entry);
    entry.struct_bytes = sizeof entry;
    return entry;
}

/* Sums all bytes of a state, whose entries it asks for. */
static unsigned long sum_of_bytes(cclSharedState_t state) {
    unsigned long sum = 0;
    size_t count = 0, index;
    OK(cclGetEntryCount(state, &count));
    for (index = 0; index < count; index++) {
        cclEntry_t entry = empty_entry();
        size_t bytes = 0, at;
        OK(cclGetEntry(state, index, &entry));
        OK(cclGetDataTypeBytes(entry.dtype, &bytes));
        for (at = 0; at < entry.count * bytes; at++) {
            sum += ((const unsigned char *)entry.memory)[at];
        }
    }
    return sum;
}

static unsigned long sum_of(const void *memory, size_t bytes) {
    unsigned long sum = 0;
    size_t at;
    for (at = 0; at < bytes; at++) {
        sum += ((const unsigned char *)memory)[at];
    }
    return sum;
}

static void entries_are_told(model_t *model) {
    char name[CCL_NAME_BYTES_MAX];
    uint64_t shape[CCL_DIMENSIONS_MAX];
    cclEntry_t entry = empty_entry();
    size_t count = 0;
    OK(cclGetEntryCount(model->state, &count));
    CHECK(count == 4);
    entry.name = name;
    entry.name_capacity = sizeof name;
    entry.shape = shape;
    entry.shape_capacity = CCL_DIMENSIONS_MAX;
    OK(cclGetEntry(model->state, 0, &entry));
    CHECK(strcmp(name, "weights") == 0 && entry.name_bytes == sizeof "weights");
    CHECK(entry.dimensions_count == 2 && shape[0] == ROWS && shape[1] == COLUMNS);
    CHECK(entry.memory == model->weights && entry.count == ROWS * COLUMNS);
    CHECK(entry.dtype == cclFloat32 && entry.is_unequal == 0 && entry.name == name);
    OK(cclGetEntry(model->state, 1, &entry));
    CHECK(strcmp(name, "step") == 0 && entry.dimensions_count == 0 && entry.count == 1);
    CHECK(entry.memory == &model->step && entry.dtype == cclInt64);
    OK(cclGetEntry(model->state, 2, &entry));
    CHECK(strcmp(name, "own") == 0 && entry.is_unequal == 1 && shape[0] == 4);
    OK(cclGetEntry(model->state, 3, &entry));
    CHECK(entry.memory == NULL && entry.count == 0 && shape[0] == 7 && shape[1] == 0);
    CHECK(sum_of_bytes(model->state) == sum_of(model->weights, sizeof model->weights) +
                                            sum_of(&model->step, sizeof model->step) +
                                            sum_of(model->own, sizeof model->own));
}

/* Too little room: extents are cut off, a name is not. */
static void rooms_are_respected(cclSharedState_t state) {
    char name[8] = "xxxxxxx";
    uint64_t shape[2] = {99, 99};
    cclEntry_t entry = empty_entry();
    size_t count = 7, bytes = 7;
    entry.shape = shape;
    entry.shape_capacity = 1;
    OK(cclGetEntry(state, 0, &entry));
    CHECK(shape[0] == ROWS && shape[1] == 99 && entry.dimensions_count == 2);
    CHECK(entry.name_bytes == 8);
    entry.name = name;
    entry.name_capacity = 7;
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 0, &entry));
    CHECK(name[0] == 'x');
    entry.name_capacity = 8;
    OK(cclGetEntry(state, 0, &entry));
    CHECK(strcmp(name, "weights") == 0);
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 4, &entry));
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, SIZE_MAX, &entry));
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 0, NULL));
    entry.name = NULL;
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 0, &entry));
    entry = empty_entry();
    entry.shape_capacity = 1;
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 0, &entry));
    entry.struct_bytes = 0;
    EXPECT(cclErrorInvalidArgument, cclGetEntry(state, 0, &entry));
    EXPECT(cclErrorInvalidArgument, cclGetEntryCount(state, NULL));
    EXPECT(cclErrorInvalidArgument, cclGetDataTypeBytes(12, &bytes));
    EXPECT(cclErrorInvalidArgument, cclGetDataTypeBytes(UINT32_MAX, &bytes));
    EXPECT(cclErrorInvalidArgument, cclGetDataTypeBytes(cclFloat32, NULL));
    CHECK(bytes == 7);
    OK(cclGetDataTypeBytes(cclBfloat16, &bytes));
    CHECK(bytes == 2);
    entry = empty_entry();
    EXPECT(cclErrorInvalidHandle, cclGetEntry(NULL, 0, &entry));
    EXPECT(cclErrorInvalidHandle, cclGetEntryCount(NULL, &count));
    EXPECT(cclErrorInvalidHandle, cclMarkMixed(NULL));
    EXPECT(cclErrorInvalidHandle, cclBeginAnew(NULL, 0));
    CHECK(count == 7);
}

static uint32_t is_usable(cclSharedState_t state) {
    uint32_t answer = 7;
    OK(cclIsUsable(state, &answer));
    return answer;
}

static void begins_anew(model_t *model) {
    uint64_t revision = 0;
    OK(cclMarkMixed(model->state));
    OK(cclBeginAnew(model->state, 9));
    OK(cclGetRevision(model->state, &revision));
    CHECK(is_usable(model->state) == 1 && revision == 9);
}

static void mixtures_receive(cclCommunicator_t pair[2], model_t *whole, model_t *mixed) {
    cclOperation_t sync = NULL;
    cclSyncInfo_t info;
    cclEntry_t entry = empty_entry();
    cclSyncRole_t role = 7;
    uint64_t number;
    size_t count = 0;
    OK(cclMarkMixed(mixed->state));
    CHECK(is_usable(mixed->state) == 0);
    EXPECT(cclErrorInvalidUsage, cclSaveSharedState(mixed->state, "/nowhere/at/all", NULL));
    OK(cclSyncSharedStateAsync(pair[1], mixed->state, NULL, &sync));
    EXPECT(cclErrorInvalidUsage, cclMarkMixed(mixed->state));
    EXPECT(cclErrorInvalidUsage, cclBeginAnew(mixed->state, 9));
    EXPECT(cclErrorInvalidUsage, cclGetEntryCount(mixed->state, &count));
    EXPECT(cclErrorInvalidUsage, cclGetEntry(mixed->state, 0, &entry));
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    OK(cclSyncSharedState(pair[0], whole->state, NULL, &info));
    CHECK(info.attempts == 1 && info.revision == 4);
    number = info.number;
    OK(cclWait(sync, NULL));
    OK(cclGetSyncRole(sync, &role));
    CHECK(role == cclRoleReceiver && is_usable(mixed->state) == 1 && mixed->step == 4);
    CHECK(memcmp(whole->weights, mixed->weights, sizeof whole->weights) == 0);
    OK(cclDestroyOperation(sync));
    OK(cclSyncSharedStateAsync(pair[1], mixed->state, NULL, &sync));
    OK(cclSyncSharedState(pair[0], whole->state, NULL, &info));
    CHECK(info.number == number + 1);
    OK(cclWait(sync, NULL));
    OK(cclDestroyOperation(sync));
}

/* States with different entries: both members learn the same one. */
static void the_odd_one_is_named(cclCommunicator_t pair[2], const model_t *model) {
    cclSharedState_t other = NULL;
    cclOperation_t sync = NULL;
    cclErrorInfo_t infos[2];
    float data = 1;
    int index;
    memset(infos, 0, sizeof infos);
    infos[0].struct_bytes = infos[1].struct_bytes = sizeof infos[0];
    OK(cclCreateSharedState(4, &other));
    OK(cclAddEntry(other, "other", &data, cclFloat32, NULL, 0, 0));
    OK(cclSyncSharedStateAsync(pair[0], model->state, NULL, &sync));
    EXPECT(cclErrorSharedState, cclSyncSharedState(pair[1], other, NULL, NULL));
    OK(cclGetLastErrorInfo(&infos[1]));
    EXPECT(cclErrorSharedState, cclWait(sync, NULL));
    OK(cclGetLastErrorInfo(&infos[0]));
    CHECK(infos[0].peer == attribute(pair[0], cclAttributePeer) ||
          infos[0].peer == attribute(pair[1], cclAttributePeer));
    for (index = 0; index < 2; index++) {
        CHECK(infos[index].result == cclErrorSharedState && infos[index].peer == infos[0].peer);
        CHECK(infos[index].number == infos[0].number && infos[index].tag == infos[0].tag);
        CHECK(infos[index].epoch == attribute(pair[index], cclAttributeEpoch));
    }
    OK(cclDestroyOperation(sync));
    OK(cclDestroySharedState(other));
}

/* Removes the checkpoints in a directory and the directory; returns how many there were. */
static int remove_checkpoints(const char *directory) {
    DIR *list = opendir(directory);
    struct dirent *file;
    int count = 0;
    CHECK(list != NULL);
    while ((file = readdir(list)) != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%.200s", directory, file->d_name);
        count += strncmp(file->d_name, "checkpoint-", 11) == 0;
        if (strcmp(file->d_name, ".") != 0 && strcmp(file->d_name, "..") != 0) {
            CHECK(unlink(path) == 0);
        }
    }
    closedir(list);
    CHECK(rmdir(directory) == 0);
    return count;
}

static void checkpoints_tell_their_path(model_t *model) {
    char directory[] = "/tmp/ccl-entries-XXXXXX", path[256] = "x";
    cclCheckpointOptions_t options;
    cclCheckpoint_t newest;
    uint32_t is_loaded = 7;
    uint64_t revision;
    size_t skipped = 7;
    CHECK(mkdtemp(directory) != NULL);
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    options.keep_count = 3;
    options.hash_threads = 1;
    memset(&newest, 0, sizeof newest);
    newest.struct_bytes = sizeof newest;
    newest.path = path;
    newest.path_capacity = sizeof path;
    OK(cclGetNewestCheckpoint(directory, &newest));
    CHECK(newest.is_there == 0 && newest.path_bytes == 0 && strcmp(path, "x") == 0);
    for (revision = 11; revision < 16; revision++) {
        OK(cclSetRevision(model->state, revision));
        OK(cclSaveSharedState(model->state, directory, &options));
    }
    OK(cclGetNewestCheckpoint(directory, &newest));
    CHECK(newest.is_there == 1 && newest.revision == 15);
    CHECK(newest.path_bytes == strlen(path) + 1 && newest.path == path);
    CHECK(strncmp(path, directory, strlen(directory)) == 0 && access(path, R_OK) == 0);
    newest.path_capacity = newest.path_bytes - 1;
    EXPECT(cclErrorInvalidArgument, cclGetNewestCheckpoint(directory, &newest));
    newest.path = NULL;
    EXPECT(cclErrorInvalidArgument, cclGetNewestCheckpoint(directory, &newest));
    options.hash_threads = 257;
    EXPECT(cclErrorInvalidArgument, cclSaveSharedState(model->state, directory, &options));
    EXPECT(cclErrorInvalidArgument,
           cclLoadSharedState(model->state, directory, &options, &is_loaded));
    options.hash_threads = 2;
    options.struct_bytes = 1;
    EXPECT(cclErrorInvalidArgument, cclSaveSharedState(model->state, directory, &options));
    options.struct_bytes = sizeof options;
    CHECK(is_loaded == 7);
    OK(cclLoadSharedState(model->state, directory, &options, &is_loaded));
    OK(cclGetSkippedCount(model->state, &skipped));
    CHECK(is_loaded == 1 && skipped == 0);
    CHECK(truncate(path, 100) == 0);
    OK(cclLoadSharedState(model->state, directory, &options, &is_loaded));
    OK(cclGetSkippedCount(model->state, &skipped));
    OK(cclGetRevision(model->state, &revision));
    CHECK(skipped == 1 && revision == 14);
    EXPECT(cclErrorInvalidArgument, cclGetSkippedCount(model->state, NULL));
    EXPECT(cclErrorInvalidHandle, cclGetSkippedCount(NULL, &skipped));
    CHECK(remove_checkpoints(directory) == 3);
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t pair[2];
    cclMaster_t master;
    static model_t whole, mixed;
    int index;
    alarm(PATIENCE);
    master = start_master(address);
    connect_pair(address, pair);
    fill(&whole, 4, 1.0f);
    fill(&mixed, 9, 7.0f);
    entries_are_told(&whole);
    rooms_are_respected(whole.state);
    mixtures_receive(pair, &whole, &mixed);
    begins_anew(&mixed);
    the_odd_one_is_named(pair, &whole);
    checkpoints_tell_their_path(&mixed);
    OK(cclDestroySharedState(whole.state));
    OK(cclDestroySharedState(mixed.state));
    for (index = 0; index < 2; index++) {
        OK(cclDestroyCommunicator(pair[index]));
    }
    OK(cclDestroyMaster(master));
    return 0;
}
