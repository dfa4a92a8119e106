/*
 * Four processes, one of which is killed at work, and a newcomer.
 *
 * 1. Four peers reduce in a loop: one operation without retry, and several buffers with it. 2. When
 *    all have begun, one is killed with SIGKILL, wherever it is. 3. The survivors all get the same
 *    error, with their input intact, and go on as three; nothing with retry fails. 4. A newcomer is
 *    announced and admitted; when all know of the loss and are four again, all stop at the same
 *    step.
 *
 * The reduced data carries what members know: the largest phase that any of them is in. The
 * newcomer may replace the killed peer in one change of the view, so that there never are three:
 * what counts is which peers took part, not how many.
 */
#include "check.h"

#define WORLD 4
#define COUNT 20000

enum { PHASE_WHOLE, PHASE_LOST, PHASE_WHOLE_AGAIN };

typedef struct state_t {
    cclCommunicator_t communicator;
    uint32_t phase;
    /* The latest peer that took part in the first operation, and in the last one. */
    uint64_t first_newest;
    uint64_t newest;
    uint32_t losses;
    uint32_t pending;
} state_t;

static void expect_input(const float *buffer) {
    size_t index;
    for (index = 0; index < COUNT; index++) {
        CHECK(buffer[index] == (float)(3 + index % 11));
    }
}

/* One all-reduce without retry; returns the members it was reduced over. */
static uint32_t reduce_once(state_t *state, float *buffer) {
    size_t index;
    for (index = 0; index < COUNT; index++) {
        buffer[index] = (float)(3 + index % 11);
    }
    for (;;) {
        uint64_t peers[WORLD + 1];
        cclOutcome_t outcome;
        cclResult_t result;
        memset(&outcome, 0, sizeof outcome);
        outcome.struct_bytes = sizeof outcome;
        outcome.contributors = peers;
        outcome.contributors_capacity = WORLD + 1;
        result = cclAllReduce(state->communicator, buffer, buffer, COUNT, cclFloat32, cclSum, NULL,
                              &outcome);
        if (result == cclSuccess) {
            const float members = (float)outcome.contributors_count;
            CHECK(outcome.contributors_count <= WORLD);
            state->newest = 0;
            for (index = 0; index < outcome.contributors_count; index++) {
                if (peers[index] > state->newest) {
                    state->newest = peers[index];
                }
            }
            for (index = 0; index < COUNT; index++) {
                CHECK(buffer[index] == members * (float)(3 + index % 11));
            }
            return (uint32_t)outcome.contributors_count;
        }
        EXPECT(cclErrorPeerLost, result);
        CHECK(strstr(cclGetLastError(), "lost") != NULL);
        expect_input(buffer);
        state->losses++;
    }
}

/* Several buffers with retry: the largest phase of all, and whether any knows of a newcomer. */
static void share(state_t *state) {
    cclOptions_t options = options_of_tag(1);
    cclBuffer_t buffers[2];
    uint32_t phase = state->phase;
    uint32_t numbers[100];
    memset(numbers, 0, sizeof numbers);
    OK(cclArePeersPending(state->communicator, &numbers[0]));
    memset(buffers, 0, sizeof buffers);
    buffers[0].send = buffers[0].receive = &phase;
    buffers[0].count = 1;
    buffers[0].dtype = cclUint32;
    buffers[1].send = buffers[1].receive = numbers;
    buffers[1].count = 100;
    buffers[1].dtype = cclUint32;
    options.attempts = 5;
    OK(cclAllReduceMany(state->communicator, buffers, 2, cclMax, &options, NULL));
    state->phase = phase;
    state->pending = numbers[0];
}

static int run_peer(const char *address) {
    state_t state;
    float *buffer = (float *)malloc(COUNT * sizeof(float));
    uint64_t world;
    uint32_t has_reduced = 0, has_admitted = 0;
    char line[128];
    CHECK(buffer != NULL);
    memset(&state, 0, sizeof state);
    state.communicator = connect_peer(address, WORLD);
    while (state.phase != PHASE_WHOLE_AGAIN) {
        const uint32_t members = reduce_once(&state, buffer);
        if (has_reduced == 0) {
            state.first_newest = state.newest;
        }
        if (members == WORLD - 1 || state.newest > state.first_newest) {
            state.phase = PHASE_LOST;
        }
        share(&state);
        if (state.phase == PHASE_LOST && members == WORLD) {
            state.phase = PHASE_WHOLE_AGAIN;
        }
        if (has_reduced++ == 0) {
            say("reduced");
        }
        if (state.pending > 0 && state.phase != PHASE_WHOLE_AGAIN) {
            has_admitted = 1;
            OK(cclUpdateTopology(state.communicator));
        }
    }
    /* After the barrier others may have left. */
    world = attribute(state.communicator, cclAttributeWorldSize);
    OK(cclBarrier(state.communicator, NULL, NULL));
    snprintf(line, sizeof line, "done %lu %lu %lu", (unsigned long)world,
             (unsigned long)state.losses, (unsigned long)has_admitted);
    say(line);
    OK(cclDestroyCommunicator(state.communicator));
    free(buffer);
    return 0;
}

int main(int argc, char **argv) {
    char address[CCL_ADDRESS_BYTES_MAX], line[256];
    process_t peers[WORLD + 1];
    cclMaster_t master;
    unsigned long world = 0, losses = 0, admitted = 0, admitting = 0;
    int index;
    alarm(PATIENCE);
    if (argc > 2) {
        return run_peer(argv[2]);
    }
    master = start_master(address);
    for (index = 0; index < WORLD; index++) {
        peers[index] = start_process(argv[0], "peer", address, NULL);
    }
    for (index = 0; index < WORLD; index++) {
        wait_for_line(peers[index], "reduced", line);
    }
    kill_process(peers[0]);
    peers[WORLD] = start_process(argv[0], "peer", address, NULL);
    for (index = 1; index <= WORLD; index++) {
        const char *numbers = wait_for_line(peers[index], "done ", line);
        CHECK(sscanf(numbers, "%lu %lu %lu", &world, &losses, &admitted) == 3);
        CHECK(world == WORLD && losses <= 1);
        admitting += admitted;
        expect_success(peers[index]);
    }
    CHECK(admitting >= WORLD - 1);
    OK(cclDestroyMaster(master));
    return 0;
}
