/*
 * A loop that goes on when peers die and when peers join: the shape of a training program.
 *
 * Run `ccl master`, then as many of these as you like, and kill some. A step counts when all who
 * live have it; a peer that was lost comes back as a newcomer and takes the step from the others.
 */
#include <ccl.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARAMETERS 1000

/* What a process computes by itself; here it pulls every parameter towards 1. */
static void compute_gradients(const float *parameters, float *gradients) {
    for (int index = 0; index < PARAMETERS; index++) {
        gradients[index] = 1 - parameters[index];
    }
}

static int connect_anew(const char *master, cclCommunicator_t *communicator) {
    cclCommunicatorConfig_t config;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.master = master;
    if (cclCreateCommunicator(&config, communicator) == cclSuccess &&
        cclConnect(*communicator) == cclSuccess) {
        return 1;
    }
    fprintf(stderr, "%s\n", cclGetLastError());
    return 0;
}

/* The newest step and its parameters, from rank 0: the member that is there the longest. */
static cclResult_t take_state(cclCommunicator_t communicator, int64_t *step, float *parameters) {
    const cclResult_t result = cclBroadcast(communicator, step, 1, cclInt64, 0, NULL, NULL);
    if (result != cclSuccess) {
        return result;
    }
    return cclBroadcast(communicator, parameters, PARAMETERS, cclFloat32, 0, NULL, NULL);
}

/* One step of all members; the parameters change only if it succeeds. */
static cclResult_t train(cclCommunicator_t communicator, int64_t *step, float *parameters) {
    float gradients[PARAMETERS];
    cclResult_t result = take_state(communicator, step, parameters);
    if (result != cclSuccess) {
        return result;
    }
    compute_gradients(parameters, gradients);
    result = cclAllReduce(communicator, gradients, gradients, PARAMETERS, cclFloat32, cclAvg, NULL,
                          NULL);
    if (result == cclSuccess) {
        for (int index = 0; index < PARAMETERS; index++) {
            parameters[index] += 0.1F * gradients[index];
        }
        ++*step;
    }
    return result;
}

int main(int argc, char **argv) {
    cclCommunicator_t communicator = NULL;
    float parameters[PARAMETERS] = {0};
    int64_t step = 0, steps;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MASTER STEPS\n", argv[0]);
        return 2;
    }
    steps = strtoll(argv[2], NULL, 10);
    if (!connect_anew(argv[1], &communicator)) {
        return 1;
    }
    while (step < steps) {
        uint32_t is_retryable = 0;
        cclResult_t result = train(communicator, &step, parameters);
        if (result == cclSuccess) {
            uint64_t world = 0;
            (void)cclGetAttribute(communicator, cclAttributeWorldSize, &world);
            printf("step %" PRId64 " of %" PRIu64 " peers: %g\n", step, world, parameters[0]);
        } else {
            fprintf(stderr, "%s\n", cclGetLastError());
            (void)cclResultIsRetryable(result, &is_retryable);
        }
        if (result == cclSuccess || is_retryable) {
            result = cclUpdateTopology(communicator); /* newcomers enter here and nowhere else */
        }
        if (result != cclSuccess && !is_retryable) {
            (void)cclDestroyCommunicator(communicator);
            if (!connect_anew(argv[1], &communicator)) {
                return 1;
            }
        }
    }
    return cclDestroyCommunicator(communicator) != cclSuccess;
}
