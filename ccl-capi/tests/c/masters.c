/*
 * A master's life, and a peer's without one.
 *
 * 1. Two masters cannot have one port, nor one journal. 2. A master that is stopped and started
 *    again with its journal resumes the run: the peer keeps its id. 3. Threads that await a master
 *    learn of its end. 4. Peers that find no master, or one of another run, or too few peers,
 *    report which. 5. A newcomer that was stopped for so long that the master has forgotten it is
 *    admitted nevertheless once it continues.
 */
#include "check.h"

#include <pthread.h>
#include <time.h>

static cclMasterConfig_t master_config(const char *listen, const char *journal) {
    cclMasterConfig_t config;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = listen;
    config.run = "masters";
    config.journal = journal;
    config.heartbeat_interval_ms = 50;
    config.is_new_run = access(journal == NULL ? "" : journal, F_OK) != 0;
    return config;
}

static void *await_master(void *argument) {
    OK(cclAwaitMaster(*(cclMaster_t *)argument));
    return NULL;
}

/* Runs a master, and writes the address that it got. */
static cclMaster_t run_master(cclMasterConfig_t config, char address[CCL_ADDRESS_BYTES_MAX]) {
    cclMaster_t master = NULL;
    OK(cclCreateMaster(&config, &master));
    OK(cclRunMaster(master));
    OK(cclGetMasterAddress(master, address, CCL_ADDRESS_BYTES_MAX));
    return master;
}

static cclCommunicator_t create_peer(const char *address, const char *run, uint32_t world) {
    cclCommunicatorConfig_t config = peer_config(address, world);
    cclCommunicator_t communicator = NULL;
    config.run = run;
    config.connect_timeout_ms = 30000;
    if (world > 1) {
        config.connect_timeout_ms = 100;
    }
    OK(cclCreateCommunicator(&config, &communicator));
    return communicator;
}

static void peers_say_what_is_missing(const char *address) {
    cclCommunicator_t communicator = create_peer(address, "another", 1);
    EXPECT(cclErrorRefused, cclConnect(communicator));
    EXPECT(cclErrorRefused, cclConnect(communicator));
    CHECK(strstr(cclGetLastError(), "run") != NULL);
    OK(cclDestroyCommunicator(communicator));
    communicator = create_peer("127.0.0.1:9", "masters", 2);
    EXPECT(cclErrorMasterUnreachable, cclConnect(communicator));
    CHECK(strstr(cclGetLastError(), "127.0.0.1:9") != NULL);
    OK(cclDestroyCommunicator(communicator));
}

static void alone_is_not_admitted(const char *address) {
    cclCommunicatorConfig_t config = peer_config(address, 2);
    cclCommunicator_t communicator = NULL;
    config.run = "masters";
    config.group = UINT64_MAX - 7; /* all of its bits count */
    config.connect_timeout_ms = 300;
    OK(cclCreateCommunicator(&config, &communicator));
    CHECK(attribute(communicator, cclAttributeGroup) == UINT64_MAX - 7);
    EXPECT(cclErrorNotAdmitted, cclConnect(communicator));
    OK(cclDestroyCommunicator(communicator));
}

/* Numbers of other groups may be outdated, so this waits until they are right. */
static void await_attribute(cclCommunicator_t communicator, cclAttribute_t which, uint64_t value) {
    const struct timespec moment = {0, 1000000};
    while (attribute(communicator, which) != value) {
        nanosleep(&moment, NULL);
    }
}

static void groups_are_counted(const char *address, cclCommunicator_t alone) {
    cclCommunicatorConfig_t config = peer_config(address, 1);
    cclCommunicator_t other = NULL;
    uint64_t value;
    config.run = "masters";
    config.group = 8;
    OK(cclCreateCommunicator(&config, &other));
    EXPECT(cclErrorInvalidUsage, cclGetAttribute(other, cclAttributeGlobalWorldSize, &value));
    EXPECT(cclErrorInvalidUsage, cclGetAttribute(other, cclAttributeGroups, &value));
    EXPECT(cclErrorInvalidUsage, cclGetAttribute(other, cclAttributeLargestGroup, &value));
    OK(cclConnect(other));
    CHECK(attribute(other, cclAttributeGlobalWorldSize) == 2); /* known since it joined */
    await_attribute(alone, cclAttributeGlobalWorldSize, 2);
    CHECK(attribute(alone, cclAttributeGroups) == 2);
    CHECK(attribute(alone, cclAttributeLargestGroup) == 1);
    CHECK(attribute(alone, cclAttributeWorldSize) == 1);
    OK(cclDestroyCommunicator(other));
    await_attribute(alone, cclAttributeGroups, 1);
    CHECK(attribute(alone, cclAttributeGlobalWorldSize) == 1);
}

/* Reports by a pipe which of the events in its name a master has had. */
static void tell_event(cclLogLevel_t level, const char *message, void *user_data) {
    const int *pipe_ends = (const int *)user_data;
    CHECK(level > 0);
    if (strstr(message, "registered as a newcomer") != NULL) {
        CHECK(write(pipe_ends[1], "r", 1) == 1);
    }
    if (strstr(message, "ended: ") != NULL) {
        CHECK(write(pipe_ends[1], "e", 1) == 1);
    }
}

static void await_event(const int pipe_ends[2], char event) {
    char byte = 0;
    while (byte != event) {
        CHECK(read(pipe_ends[0], &byte, 1) == 1);
    }
}

static int be_one_of_two(const char *address) {
    cclCommunicator_t communicator = connect_peer(address, 2);
    OK(cclBarrier(communicator, NULL, NULL));
    OK(cclDestroyCommunicator(communicator));
    return 0;
}

static void a_stopped_newcomer_comes_in(const char *program) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclMasterConfig_t config = master_config("127.0.0.1:0", NULL);
    cclMaster_t master;
    process_t newcomer;
    int pipe_ends[2];
    CHECK(pipe(pipe_ends) == 0);
    config.run = NULL;
    config.peer_timeout_ms = is_slow() ? 10000 : 2000;
    /* The only peer that it could hear: until then the master believes itself cut off. */
    config.detach_timeout_ms = config.peer_timeout_ms * 2;
    OK(cclSetLogCallback(tell_event, pipe_ends, cclLogInfo));
    master = run_master(config, address);
    newcomer = start_process(program, "newcomer", address, NULL);
    await_event(pipe_ends, 'r');
    CHECK(kill(newcomer.id, SIGSTOP) == 0);
    await_event(pipe_ends, 'e');
    CHECK(kill(newcomer.id, SIGCONT) == 0);
    CHECK(be_one_of_two(address) == 0);
    expect_success(newcomer);
    OK(cclDestroyMaster(master));
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

int main(int argc, char **argv) {
    char journal[] = "/tmp/ccl-masters-XXXXXX", address[CCL_ADDRESS_BYTES_MAX];
    char again[CCL_ADDRESS_BYTES_MAX];
    cclMasterConfig_t config;
    cclMaster_t master, other = NULL;
    cclCommunicator_t communicator;
    pthread_t waiting;
    uint64_t peer, term;
    float data[2] = {1, 2};
    int file = mkstemp(journal);
    alarm(PATIENCE);
    CHECK(file >= 0 && close(file) == 0 && unlink(journal) == 0);
    if (argc > 2) {
        return be_one_of_two(argv[2]);
    }
    a_stopped_newcomer_comes_in(argv[0]);
    master = run_master(master_config("127.0.0.1:0", journal), address);
    config = master_config(address, NULL);
    OK(cclCreateMaster(&config, &other));
    EXPECT(cclErrorSystem, cclRunMaster(other));
    OK(cclDestroyMaster(other));
    config = master_config("127.0.0.1:0", journal);
    OK(cclCreateMaster(&config, &other));
    EXPECT(cclErrorInvalidArgument, cclRunMaster(other));
    CHECK(strstr(cclGetLastError(), "journal") != NULL ||
          strstr(cclGetLastError(), journal) != NULL);
    OK(cclDestroyMaster(other));

    communicator = create_peer(address, "masters", 1);
    OK(cclConnect(communicator));
    peer = attribute(communicator, cclAttributePeer);
    term = attribute(communicator, cclAttributeTerm);
    OK(cclAllReduce(communicator, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    peers_say_what_is_missing(address);
    alone_is_not_admitted(address);
    groups_are_counted(address, communicator);

    CHECK(pthread_create(&waiting, NULL, await_master, &master) == 0);
    OK(cclInterruptMaster(master));
    CHECK(pthread_join(waiting, NULL) == 0);
    OK(cclDestroyMaster(master));
    master = run_master(master_config(address, journal), again);
    CHECK(strcmp(address, again) == 0);
    OK(cclAllReduce(communicator, data, data, 2, cclFloat32, cclSum, NULL, NULL));
    CHECK(attribute(communicator, cclAttributePeer) == peer);
    CHECK(attribute(communicator, cclAttributeTerm) > term);
    CHECK(data[0] == 1 && data[1] == 2);
    OK(cclLeave(communicator));
    OK(cclDestroyCommunicator(communicator));
    OK(cclDestroyMaster(master));
    CHECK(unlink(journal) == 0);
    return 0;
}
