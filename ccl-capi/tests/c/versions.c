/*
 * Structs of an older and of a newer program: shorter and longer than the library's.
 *
 * Each struct lies at the end of memory, so that a byte read or written beyond the size in its
 * first field ends the program. 1. A shorter one counts as zero beyond its end, and what does not
 * fit is not written. 2. A longer one may hold only zeros beyond the library's end, and gets zeros
 * there.
 * 3. Invalid sizes and unaligned pointers are refused.
 */
#include "check.h"

#include <sys/mman.h>

/* The objects that the calls need. */
static cclCommunicator_t communicator;
static cclSharedState_t state;
static cclOperation_t barrier, sync_done;
/* Ends at memory that must not be accessed. */
static char *end;

typedef struct layout_t {
    const char *name;
    size_t bytes;
    cclResult_t (*call)(void *place);
    /* Whether the library reads it, and whether it writes it. */
    int is_read, is_written;
} layout_t;

static cclResult_t communicator_config(void *place) {
    cclCommunicator_t other = NULL;
    const cclResult_t result =
        cclCreateCommunicator((const cclCommunicatorConfig_t *)place, &other);
    return result == cclSuccess ? cclDestroyCommunicator(other) : result;
}

static cclResult_t master_config(void *place) {
    cclMaster_t master = NULL;
    const cclResult_t result = cclCreateMaster((const cclMasterConfig_t *)place, &master);
    return result == cclSuccess ? cclDestroyMaster(master) : result;
}

static cclResult_t options(void *place) {
    return cclBarrier(communicator, (const cclOptions_t *)place, NULL);
}

static cclResult_t sync_options(void *place) {
    return cclSyncSharedState(communicator, state, (const cclSyncOptions_t *)place, NULL);
}

static cclResult_t checkpoint_options(void *place) {
    uint32_t is_loaded = 0;
    return cclLoadSharedState(state, "/nowhere/at/all", (const cclCheckpointOptions_t *)place,
                              &is_loaded);
}

static cclResult_t error_info(void *place) {
    return cclGetLastErrorInfo((cclErrorInfo_t *)place);
}

static cclResult_t counters(void *place) {
    return cclGetCounters(communicator, (cclCounters_t *)place);
}

static cclResult_t progress(void *place) {
    return cclGetProgress(barrier, (cclProgress_t *)place);
}

static cclResult_t outcome(void *place) {
    return cclWait(barrier, (cclOutcome_t *)place);
}

static cclResult_t sync_info(void *place) {
    return cclGetSyncInfo(sync_done, (cclSyncInfo_t *)place);
}

static cclResult_t checkpoint(void *place) {
    return cclGetNewestCheckpoint("/nowhere/at/all", (cclCheckpoint_t *)place);
}

static cclResult_t entry(void *place) {
    return cclGetEntry(state, 0, (cclEntry_t *)place);
}

static const layout_t layouts[] = {
    {"cclCommunicatorConfig_t", sizeof(cclCommunicatorConfig_t), communicator_config, 1, 0},
    {"cclMasterConfig_t", sizeof(cclMasterConfig_t), master_config, 1, 0},
    {"cclOptions_t", sizeof(cclOptions_t), options, 1, 0},
    {"cclSyncOptions_t", sizeof(cclSyncOptions_t), sync_options, 1, 0},
    {"cclCheckpointOptions_t", sizeof(cclCheckpointOptions_t), checkpoint_options, 1, 0},
    {"cclErrorInfo_t", sizeof(cclErrorInfo_t), error_info, 0, 1},
    {"cclCounters_t", sizeof(cclCounters_t), counters, 0, 1},
    {"cclProgress_t", sizeof(cclProgress_t), progress, 0, 1},
    {"cclOutcome_t", sizeof(cclOutcome_t), outcome, 1, 1},
    {"cclSyncInfo_t", sizeof(cclSyncInfo_t), sync_info, 1, 1},
    {"cclCheckpoint_t", sizeof(cclCheckpoint_t), checkpoint, 1, 1},
    {"cclEntry_t", sizeof(cclEntry_t), entry, 1, 1},
};

/* A struct of this many bytes, with `struct_bytes` in it, otherwise `filling`. */
static char *place_of(size_t bytes, size_t struct_bytes, int filling) {
    char *place = end - bytes;
    memset(place, filling, bytes);
    memcpy(place, &struct_bytes, sizeof struct_bytes);
    return place;
}

static void expect(const layout_t *layout, size_t bytes, cclResult_t expected, cclResult_t found) {
    if (expected != found) {
        fprintf(stderr, "%s of %lu bytes: ", layout->name, (unsigned long)bytes);
    }
    EXPECT(expected, found);
}

/* Writes stay within the struct, and leave its size as it was. */
static void expect_to_fit(const layout_t *layout, const char *place, size_t bytes) {
    size_t struct_bytes, at;
    memcpy(&struct_bytes, place, sizeof struct_bytes);
    CHECK(struct_bytes == bytes);
    for (at = layout->bytes; at < bytes; at++) {
        CHECK(place[at] == 0);
    }
}

static void shorter_and_longer(const layout_t *layout) {
    size_t bytes;
    for (bytes = sizeof(size_t); bytes <= layout->bytes + 64; bytes += sizeof(size_t)) {
        char *place = place_of(bytes, bytes, 0);
        expect(layout, bytes, cclSuccess, layout->call(place));
        expect_to_fit(layout, place, bytes);
    }
}

static void unknown_fields(const layout_t *layout) {
    const size_t bytes = layout->bytes + sizeof(size_t);
    char *place = place_of(bytes, bytes, 0);
    place[bytes - 1] = 1;
    if (layout->is_read) {
        expect(layout, bytes, cclErrorInvalidArgument, layout->call(place));
        CHECK(place[bytes - 1] == 1);
    } else {
        expect(layout, bytes, cclSuccess, layout->call(place));
        expect_to_fit(layout, place, bytes);
    }
}

/* A struct that is only written need not be cleared first. */
static void not_cleared(const layout_t *layout) {
    if (!layout->is_read) {
        char *place = place_of(layout->bytes, layout->bytes, 0xff);
        expect(layout, layout->bytes, cclSuccess, layout->call(place));
        CHECK(layout->is_written && (unsigned char)place[layout->bytes - 1] != 0xff);
    }
}

static void no_sizes(const layout_t *layout) {
    static const size_t wrong[] = {0, 1, 7, 65537, SIZE_MAX};
    size_t index;
    for (index = 0; index < sizeof wrong / sizeof wrong[0]; index++) {
        char *place = place_of(sizeof(size_t), wrong[index], 0);
        expect(layout, wrong[index], cclErrorInvalidArgument, layout->call(place));
    }
    expect(layout, 0, cclErrorInvalidArgument, layout->call(end - 64 + 4));
}

int main(void) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char address[CCL_ADDRESS_BYTES_MAX];
    char path[] = "/tmp/ccl-versions-XXXXXX";
    float data = 1;
    cclMaster_t master;
    size_t index;
    int file = mkstemp(path);
    void *pages;
    alarm(PATIENCE);
    CHECK(file >= 0 && unlink(path) == 0 && ftruncate(file, (off_t)(2 * page)) == 0);
    pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    CHECK(pages != MAP_FAILED);
    end = (char *)pages + page;
    CHECK(mprotect(end, page, PROT_NONE) == 0);
    master = start_master(address);
    communicator = connect_peer(address, 1);
    OK(cclCreateSharedState(1, &state));
    OK(cclAddEntry(state, "data", &data, cclFloat32, NULL, 0, 0));
    OK(cclBarrierAsync(communicator, NULL, &barrier));
    OK(cclWait(barrier, NULL));
    OK(cclSyncSharedStateAsync(communicator, state, NULL, &sync_done));
    OK(cclWait(sync_done, NULL));
    for (index = 0; index < sizeof layouts / sizeof layouts[0]; index++) {
        shorter_and_longer(&layouts[index]);
        unknown_fields(&layouts[index]);
        not_cleared(&layouts[index]);
        no_sizes(&layouts[index]);
    }
    OK(cclDestroyOperation(barrier));
    OK(cclDestroyOperation(sync_done));
    OK(cclDestroySharedState(state));
    OK(cclDestroyCommunicator(communicator));
    OK(cclDestroyMaster(master));
    CHECK(munmap(pages, 2 * page) == 0 && close(file) == 0);
    return 0;
}
