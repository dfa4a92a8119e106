/*
 * Shared state among three processes: one is behind, then a source is killed.
 *
 * 1. Two peers hold revision 12, one holds zeros of revision 3: after a sync all three have the
 *    same bits, and report the same root; only the one that was behind received bytes, and knows
 *    from which peers. 2. In another run one peer is behind again, and the others send slowly. When
 *    bytes have arrived, one of the two sources is killed: the sync succeeds for the survivors,
 *    which hold the bits of the sources, after more than one attempt.
 */
#include "check.h"

#define WORLD 3
#define COUNT 1500000
#define REVISION 12
/* So slow that a transfer from two sources takes three seconds, in bytes. */
#define SLOW (1 << 20)

typedef struct peer_t {
    cclCommunicator_t communicator;
    cclSharedState_t state;
    float *weights;
    uint64_t step;
    /* May differ between members. */
    uint32_t own[4];
    int is_behind;
} peer_t;

static float weight(size_t index, int is_behind) {
    return is_behind ? 0.0f : (float)((index * 2654435761u) % 1000003u) / 7.0f;
}

static peer_t make_peer(const char *address, const char *which, uint64_t bytes_per_second) {
    const uint64_t shape[] = {3, COUNT / 3}, own_shape[] = {4};
    cclCommunicatorConfig_t config = peer_config(address, WORLD);
    peer_t peer;
    size_t index;
    memset(&peer, 0, sizeof peer);
    peer.is_behind = strcmp(which, "behind") == 0;
    peer.step = peer.is_behind ? 3 : REVISION;
    peer.weights = (float *)malloc(COUNT * sizeof(float));
    CHECK(peer.weights != NULL);
    for (index = 0; index < COUNT; index++) {
        peer.weights[index] = weight(index, peer.is_behind);
    }
    peer.own[0] = (uint32_t)getpid();
    config.state_bytes_per_second = bytes_per_second;
    OK(cclCreateCommunicator(&config, &peer.communicator));
    OK(cclConnect(peer.communicator));
    OK(cclCreateSharedState(peer.step, &peer.state));
    OK(cclAddEntry(peer.state, "weights", peer.weights, cclFloat32, shape, 2, 0));
    OK(cclAddEntry(peer.state, "own", peer.own, cclUint32, own_shape, 1, 1));
    return peer;
}

static void expect_the_elected(peer_t *peer, const cclSyncInfo_t *info) {
    uint8_t root[CCL_ROOT_BYTES];
    uint64_t revision = 0;
    uint32_t is_usable = 0;
    size_t index;
    OK(cclGetRevision(peer->state, &revision));
    OK(cclGetRoot(peer->state, root));
    OK(cclIsUsable(peer->state, &is_usable));
    CHECK(revision == REVISION && info->revision == REVISION && is_usable == 1);
    CHECK(memcmp(root, info->root, sizeof root) == 0);
    CHECK(peer->own[0] == (uint32_t)getpid());
    for (index = 0; index < COUNT; index++) {
        CHECK(peer->weights[index] == weight(index, 0));
    }
}

static void end_peer(peer_t *peer) {
    OK(cclBarrier(peer->communicator, NULL, NULL));
    OK(cclDestroySharedState(peer->state));
    OK(cclDestroyCommunicator(peer->communicator));
    free(peer->weights);
}

static int run_equal(const char *address, const char *which) {
    const uint64_t all_bytes = COUNT * sizeof(float);
    cclSyncSource_t sources[WORLD];
    uint64_t members[WORLD], used = 0;
    char line[2 * CCL_ROOT_BYTES + 6] = "root ";
    cclSyncInfo_t info;
    size_t index;
    peer_t peer = make_peer(address, which, 0);
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    info.sources = sources;
    info.sources_capacity = WORLD;
    info.members = members;
    info.members_capacity = WORLD;
    OK(cclSyncSharedState(peer.communicator, peer.state, NULL, &info));
    expect_the_elected(&peer, &info);
    CHECK(info.members_count == WORLD && info.world_size == WORLD && info.epoch > 0);
    CHECK(info.duration_us >= info.hashing_us && info.hashing_us > 0);
    for (index = 0; index < info.sources_count; index++) {
        CHECK(sources[index].peer == members[0] || sources[index].peer == members[1] ||
              sources[index].peer == members[2]);
        CHECK(sources[index].peer != attribute(peer.communicator, cclAttributePeer));
        used += sources[index].bytes;
    }
    if (peer.is_behind) {
        CHECK(info.sources_count == WORLD - 1 && info.sent_bytes == 0);
        CHECK(used >= all_bytes && info.received_bytes >= used);
    } else {
        CHECK(info.sources_count == 0 && info.received_bytes == 0 && info.sent_bytes > 0);
    }
    for (index = 0; index < CCL_ROOT_BYTES; index++) {
        snprintf(line + 5 + 2 * index, 3, "%02x", info.root[index]);
    }
    say(line);
    end_peer(&peer);
    return 0;
}

/* Reports that bytes are under way as soon as some have arrived or were requested. */
static void wait_until_bytes_move(cclOperation_t sync, cclSyncRole_t expected) {
    cclProgress_t progress;
    cclSyncRole_t role = cclRoleUnknown;
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    while (progress.done_bytes == 0) {
        EXPECT(cclErrorTimeout, cclWaitFor(sync, 1, NULL));
        OK(cclGetProgress(sync, &progress));
    }
    OK(cclGetSyncRole(sync, &role));
    CHECK(role == expected);
    say("moving");
}

/* The last values stay. */
static void expect_to_know(cclOperation_t sync, cclSyncRole_t expected) {
    cclProgress_t progress;
    cclSyncRole_t role = cclRoleUnknown;
    memset(&progress, 0, sizeof progress);
    progress.struct_bytes = sizeof progress;
    OK(cclGetSyncRole(sync, &role));
    OK(cclGetProgress(sync, &progress));
    CHECK(role == expected && progress.done_bytes == progress.total_bytes);
    CHECK(role == cclRoleSource || progress.done_bytes > 0);
}

static int run_loss(const char *address, const char *which) {
    cclOperation_t sync = NULL;
    cclOutcome_t outcome;
    cclSyncInfo_t info;
    uint64_t revision = 7;
    peer_t peer = make_peer(address, which, SLOW);
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    memset(&outcome, 0, sizeof outcome);
    outcome.struct_bytes = sizeof outcome;
    OK(cclSyncSharedStateAsync(peer.communicator, peer.state, NULL, &sync));
    EXPECT(cclErrorInvalidUsage, cclGetRevision(peer.state, &revision));
    wait_until_bytes_move(sync, peer.is_behind ? cclRoleReceiver : cclRoleSource);
    EXPECT(cclErrorTimeout, cclGetSyncInfo(sync, &info));
    OK(cclWait(sync, &outcome));
    OK(cclGetSyncInfo(sync, &info));
    expect_to_know(sync, peer.is_behind ? cclRoleReceiver : cclRoleSource);
    CHECK(outcome.attempts > 1 && outcome.contributors_count == WORLD - 1);
    CHECK(info.members_count == WORLD - 1 && info.world_size == WORLD - 1);
    expect_the_elected(&peer, &info);
    OK(cclDestroyOperation(sync));
    end_peer(&peer);
    return 0;
}

static void one_is_behind(const char *program) {
    char address[CCL_ADDRESS_BYTES_MAX], line[256], first[256];
    process_t peers[WORLD];
    cclMaster_t master = start_master(address);
    int index;
    for (index = 0; index < WORLD; index++) {
        peers[index] = start_process(program, "equal", address, index == 1 ? "behind" : "current");
    }
    snprintf(first, sizeof first, "%s", wait_for_line(peers[0], "root ", line));
    CHECK(strlen(first) == 2 * CCL_ROOT_BYTES + 1);
    for (index = 1; index < WORLD; index++) {
        CHECK(strcmp(wait_for_line(peers[index], "root ", line), first) == 0);
    }
    for (index = 0; index < WORLD; index++) {
        expect_success(peers[index]);
    }
    OK(cclDestroyMaster(master));
}

static void a_source_is_killed(const char *program) {
    char address[CCL_ADDRESS_BYTES_MAX], line[256];
    process_t peers[WORLD];
    cclMaster_t master = start_master(address);
    int index;
    for (index = 0; index < WORLD; index++) {
        peers[index] = start_process(program, "loss", address, index == 1 ? "behind" : "current");
    }
    for (index = 0; index < WORLD; index++) {
        wait_for_line(peers[index], "moving", line);
    }
    kill_process(peers[0]);
    expect_success(peers[1]);
    expect_success(peers[2]);
    OK(cclDestroyMaster(master));
}

int main(int argc, char **argv) {
    alarm(PATIENCE);
    if (argc > 3) {
        const int is_equal = strcmp(argv[1], "equal") == 0;
        return is_equal ? run_equal(argv[2], argv[3]) : run_loss(argv[2], argv[3]);
    }
    one_is_behind(argv[0]);
    a_source_is_killed(argv[0]);
    return 0;
}
