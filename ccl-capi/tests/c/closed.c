/*
 * Closed groups: members have the ranks that they gave, and no one joins later.
 *
 * 1. Two peers connect with ranks 1 and 0 of one list, and have these ranks. 2. A third that gives
 *    the list, and one that gives none, are refused.
 */
#include "pair.h"

static const char *const NAMES[2] = {"zero", "one"};

static cclCommunicator_t create(const char *address, uint32_t count, uint32_t rank) {
    cclCommunicatorConfig_t config = peer_config(address, 0);
    cclCommunicator_t communicator = NULL;
    config.group = 5;
    config.members = count == 0 ? NULL : NAMES;
    config.members_count = count;
    config.rank = rank;
    OK(cclCreateCommunicator(&config, &communicator));
    return communicator;
}

static void expect_refused(cclCommunicator_t communicator) {
    EXPECT(cclErrorRefused, cclConnect(communicator));
    CHECK(strstr(cclGetLastError(), "id 5 is already used") != NULL);
    OK(cclDestroyCommunicator(communicator));
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t peers[2];
    pthread_t threads[2];
    cclMaster_t master;
    uint32_t i;
    alarm(PATIENCE);
    master = start_master(address);
    for (i = 0; i < 2; i++) {
        peers[i] = create(address, 2, 1 - i);
        threads[i] = start_thread(connect_created, peers[i]);
    }
    for (i = 0; i < 2; i++) {
        join_thread(threads[i]);
        CHECK(attribute(peers[i], cclAttributeRank) == 1 - i);
        CHECK(attribute(peers[i], cclAttributeInitialWorldSize) == 2);
    }
    expect_refused(create(address, 2, 0));
    expect_refused(create(address, 0, 0));
    for (i = 0; i < 2; i++) {
        OK(cclDestroyCommunicator(peers[i]));
    }
    OK(cclDestroyMaster(master));
    return 0;
}
