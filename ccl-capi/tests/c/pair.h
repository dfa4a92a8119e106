/*
 * Two peers of one process: connecting blocks until both are there, so each needs a thread.
 */
#ifndef PAIR_H
#define PAIR_H

#include "check.h"

#include <pthread.h>

static inline pthread_t start_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, argument) == 0);
    return thread;
}

static inline void join_thread(pthread_t thread) {
    CHECK(pthread_join(thread, NULL) == 0);
}

static inline void *connect_created(void *communicator) {
    OK(cclConnect((cclCommunicator_t)communicator));
    return NULL;
}

static inline void connect_pair(const char *address, cclCommunicator_t pair[2]) {
    const cclCommunicatorConfig_t config = peer_config(address, 2);
    pthread_t threads[2];
    int index;
    for (index = 0; index < 2; index++) {
        OK(cclCreateCommunicator(&config, &pair[index]));
        threads[index] = start_thread(connect_created, pair[index]);
    }
    for (index = 0; index < 2; index++) {
        join_thread(threads[index]);
    }
}

#endif
