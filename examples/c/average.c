/* A peer that averages a buffer with the others. Run `ccl master`, then this as often as WORLD. */
#include <ccl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    cclCommunicatorConfig_t config;
    cclCommunicator_t communicator;
    float gradients[4] = {1, 2, 3, 4};
    if (argc != 3) {
        fprintf(stderr, "usage: %s MASTER WORLD\n", argv[0]);
        return 2;
    }
    memset(&config, 0, sizeof config); /* 0 is every field's default */
    config.struct_bytes = sizeof config;
    config.master = argv[1];
    config.initial_world_size = (uint32_t)atoi(argv[2]); /* wait until this many have joined */
    if (cclCreateCommunicator(&config, &communicator) != cclSuccess ||
        cclConnect(communicator) != cclSuccess ||
        cclAllReduce(communicator, gradients, gradients, 4, cclFloat32, cclAvg, NULL, NULL) !=
            cclSuccess) {
        fprintf(stderr, "%s\n", cclGetLastError());
        return 1;
    }
    printf("%g %g %g %g\n", gradients[0], gradients[1], gradients[2], gradients[3]);
    return cclDestroyCommunicator(communicator) != cclSuccess;
}
