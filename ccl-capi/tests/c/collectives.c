/*
 * All collectives among three processes.
 *
 * 1. All-reduce of every type with every operator, in place and not, small and large, checked
 *    element by element. 2. All-gather, reduce-scatter, broadcast, barrier and several buffers at
 *    once, blocking and started. 3. Operations that are cancelled, late, or called differently end
 *    alike everywhere, and leave the input as it was.
 */
#include "check.h"

#include <math.h>

#define WORLD 3

static const cclDataType_t types[] = {
    cclUint8, cclUint16, cclUint32, cclUint64,  cclInt8,     cclInt16,
    cclInt32, cclInt64,  cclFloat16, cclBfloat16, cclFloat32, cclFloat64,
};
static const size_t type_bytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};

/* Bits of a small whole number in a 16-bit float of `exponent_bits`. */
static uint16_t narrow(double value, int exponent_bits) {
    const int mantissa_bits = 15 - exponent_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = 0;
    double fraction;
    if (value == 0) {
        return 0;
    }
    fraction = frexp(value, &exponent);
    return (uint16_t)(((exponent - 1 + bias) << mantissa_bits) +
                      (int)((fraction * 2 - 1) * (1 << mantissa_bits)));
}

static void store(cclDataType_t type, void *buffer, size_t index, double value) {
    switch (type) {
    case cclUint8: ((uint8_t *)buffer)[index] = (uint8_t)value; break;
    case cclUint16: ((uint16_t *)buffer)[index] = (uint16_t)value; break;
    case cclUint32: ((uint32_t *)buffer)[index] = (uint32_t)value; break;
    case cclUint64: ((uint64_t *)buffer)[index] = (uint64_t)value; break;
    case cclInt8: ((int8_t *)buffer)[index] = (int8_t)value; break;
    case cclInt16: ((int16_t *)buffer)[index] = (int16_t)value; break;
    case cclInt32: ((int32_t *)buffer)[index] = (int32_t)value; break;
    case cclInt64: ((int64_t *)buffer)[index] = (int64_t)value; break;
    case cclFloat16: ((uint16_t *)buffer)[index] = narrow(value, 5); break;
    case cclBfloat16: ((uint16_t *)buffer)[index] = narrow(value, 8); break;
    case cclFloat32: ((float *)buffer)[index] = (float)value; break;
    default: ((double *)buffer)[index] = value; break;
    }
}

/* What a rank contributes: whole numbers whose sum is a multiple of the world size. */
static double input(uint64_t rank, size_t index) {
    return (double)(rank + 1 + index % 3);
}

static double expected(cclReduceOp_t op, size_t index) {
    const double first = input(0, index), second = input(1, index), third = input(2, index);
    switch (op) {
    case cclSum: return first + second + third;
    case cclAvg: return (first + second + third) / WORLD;
    case cclProd: return first * second * third;
    case cclMin: return first;
    default: return third;
    }
}

/* Whether a buffer holds `value`, byte by byte. */
static void check_buffer(cclDataType_t type, const void *buffer, size_t count,
                         double (*value)(uint64_t, size_t), uint64_t argument) {
    const size_t bytes = type_bytes[type];
    unsigned char one[8];
    size_t index;
    for (index = 0; index < count; index++) {
        store(type, one, 0, value(argument, index));
        CHECK(memcmp(one, (const unsigned char *)buffer + index * bytes, bytes) == 0);
    }
}

static double expected_of(uint64_t op, size_t index) {
    return expected((cclReduceOp_t)op, index);
}

static void fill(cclDataType_t type, void *buffer, size_t count, uint64_t rank) {
    size_t index;
    for (index = 0; index < count; index++) {
        store(type, buffer, index, input(rank, index));
    }
}

static void all_reduce(cclCommunicator_t communicator, uint64_t rank, cclDataType_t type,
                       cclReduceOp_t op, size_t count, int in_place, cclAlgorithm_t algorithm) {
    cclOptions_t options = options_of_tag(1);
    cclOutcome_t outcome;
    uint64_t contributors[WORLD], members[WORLD];
    size_t members_count = 0;
    void *send = malloc(count * type_bytes[type] + 1);
    void *receive = in_place ? send : malloc(count * type_bytes[type] + 1);
    CHECK(send != NULL && receive != NULL);
    options.algorithm = algorithm;
    memset(&outcome, 0, sizeof outcome);
    outcome.struct_bytes = sizeof outcome;
    outcome.contributors = contributors;
    outcome.contributors_capacity = WORLD;
    fill(type, send, count, rank);
    OK(cclAllReduce(communicator, send, receive, count, type, op, &options, &outcome));
    check_buffer(type, receive, count, expected_of, op);
    if (!in_place) {
        check_buffer(type, send, count, input, rank);
        free(receive);
    }
    free(send);
    CHECK(outcome.contributors_count == WORLD && outcome.world_size == WORLD);
    CHECK(outcome.tag == 1 && outcome.attempts == 1);
    CHECK(outcome.epoch == attribute(communicator, cclAttributeEpoch));
    CHECK(outcome.term == attribute(communicator, cclAttributeTerm));
    OK(cclGetMembers(communicator, members, WORLD, &members_count));
    CHECK(members_count == WORLD && memcmp(members, contributors, sizeof members) == 0);
    CHECK(members[rank] == attribute(communicator, cclAttributePeer));
}

static void every_type_and_operator(cclCommunicator_t communicator, uint64_t rank) {
    size_t type;
    cclReduceOp_t op;
    for (type = 0; type < sizeof types / sizeof types[0]; type++) {
        for (op = cclSum; op <= cclMax; op++) {
            all_reduce(communicator, rank, types[type], op, 100 + op, op % 2 == 0,
                       cclAlgorithmAuto);
        }
    }
    /* More than one segment, on both paths, and the smallest ones. */
    all_reduce(communicator, rank, cclFloat32, cclSum, 100000, 1, cclAlgorithmDirect);
    all_reduce(communicator, rank, cclFloat32, cclSum, 100000, 0, cclAlgorithmDirect);
    all_reduce(communicator, rank, cclBfloat16, cclMax, 100000, 1, cclAlgorithmRing);
    all_reduce(communicator, rank, cclInt64, cclSum, 1, 0, cclAlgorithmAuto);
    all_reduce(communicator, rank, cclUint8, cclSum, 0, 0, cclAlgorithmAuto);
}

/* At odd addresses, on all paths, in place and not. */
/* Rank r gives r + 1 with weight r: every encoding keeps such numbers nearly. */
static void encoded_and_weighted(cclCommunicator_t communicator, uint64_t rank) {
    enum { COUNT = 1000 };
    float buffer[COUNT];
    uint64_t contributors[WORLD];
    uint32_t weights[WORLD];
    cclEncoding_t encoding;
    for (encoding = cclEncodingNone; encoding <= cclEncodingInt2; encoding++) {
        cclOptions_t options = options_of_tag(1);
        cclOutcome_t outcome;
        double expected = 0, sum = 0;
        size_t index;
        memset(&outcome, 0, sizeof outcome);
        outcome.struct_bytes = sizeof outcome;
        outcome.contributors = contributors;
        outcome.contributors_capacity = WORLD;
        outcome.weights = weights;
        options.encoding = encoding;
        options.is_weighted = 1;
        options.weight = (uint32_t)rank;
        for (index = 0; index < COUNT; index++) {
            buffer[index] = (float)(rank + 1);
        }
        OK(cclAllReduce(communicator, buffer, buffer, COUNT, cclFloat32, cclAvg, &options,
                        &outcome));
        CHECK(outcome.contributors_count == WORLD - 1);
        for (index = 1; index < WORLD; index++) {
            CHECK(weights[index - 1] == index);
            expected += (double)(index * (index + 1));
            sum += (double)index;
        }
        expected /= sum;
        for (index = 0; index < COUNT; index++) {
            CHECK(fabs(buffer[index] - expected) < 0.34 * expected);
        }
        options.is_weighted = 0;
        options.weight = 1;
        CHECK(cclAllReduce(communicator, buffer, buffer, COUNT, cclFloat32, cclAvg, &options,
                           NULL) == cclErrorInvalidArgument);
    }
}

static void misaligned(cclCommunicator_t communicator, uint64_t rank) {
    static const cclAlgorithm_t algorithms[] = {cclAlgorithmAuto, cclAlgorithmDirect,
                                                cclAlgorithmRing};
    static const size_t counts[] = {5, 70001};
    size_t round;
    for (round = 0; round < 6; round++) {
        const size_t count = counts[round % 2], offset = 1 + round % 3;
        const int is_wide = round % 2 == 0;
        const cclDataType_t type = is_wide ? cclFloat64 : cclBfloat16;
        cclOptions_t options = options_of_tag(4);
        char *aligned = (char *)malloc(count * 8), *odd = (char *)malloc(count * 8 + 8);
        char *other = (char *)malloc(count * 8 + 8);
        const size_t bytes = count * type_bytes[type];
        CHECK(aligned != NULL && odd != NULL && other != NULL);
        options.algorithm = algorithms[round / 2];
        fill(type, aligned, count, rank);
        memcpy(odd + offset, aligned, bytes);
        OK(cclAllReduce(communicator, odd + offset, other + offset, count, type, cclSum, &options,
                        NULL));
        OK(cclAllReduce(communicator, odd + offset, odd + offset, count, type, cclSum, &options,
                        NULL));
        memcpy(aligned, other + offset, bytes);
        check_buffer(type, aligned, count, expected_of, cclSum);
        memcpy(aligned, odd + offset, bytes);
        check_buffer(type, aligned, count, expected_of, cclSum);
        free(aligned);
        free(odd);
        free(other);
    }
}

static double gathered(uint64_t count, size_t index) {
    return input(index / count, index % count);
}

static double scattered(uint64_t rank, size_t index) {
    return expected(cclSum, rank * 7 + index);
}

static void other_collectives(cclCommunicator_t communicator, uint64_t rank) {
    const cclOptions_t options = options_of_tag(2);
    cclOperation_t operation = NULL;
    int32_t one[7], all[7 * WORLD];
    int round;
    for (round = 0; round < 2; round++) {
        fill(cclInt32, one, 7, rank);
        if (round == 0) {
            OK(cclAllGather(communicator, one, 7, all, 7 * WORLD, cclInt32, &options, NULL));
        } else {
            OK(cclAllGatherAsync(communicator, one, 7, all, 7 * WORLD, cclInt32, &options,
                                 &operation));
            OK(cclWait(operation, NULL));
            OK(cclDestroyOperation(operation));
        }
        check_buffer(cclInt32, all, 7 * WORLD, gathered, 7);
        fill(cclInt32, all, 7 * WORLD, rank);
        if (round == 0) {
            OK(cclReduceScatter(communicator, all, 7 * WORLD, one, 7, cclInt32, cclSum, &options,
                                NULL));
        } else {
            OK(cclReduceScatterAsync(communicator, all, 7 * WORLD, one, 7, cclInt32, cclSum,
                                     &options, &operation));
            OK(cclWait(operation, NULL));
            OK(cclDestroyOperation(operation));
        }
        check_buffer(cclInt32, one, 7, scattered, rank);
        fill(cclInt32, one, 7, rank);
        if (round == 0) {
            OK(cclBroadcast(communicator, one, 7, cclInt32, 2, &options, NULL));
        } else {
            OK(cclBroadcastAsync(communicator, one, 7, cclInt32, 2, &options, &operation));
            OK(cclWait(operation, NULL));
            OK(cclDestroyOperation(operation));
        }
        check_buffer(cclInt32, one, 7, input, 2);
        if (round == 0) {
            OK(cclBarrier(communicator, &options, NULL));
        } else {
            OK(cclBarrierAsync(communicator, &options, &operation));
            OK(cclWait(operation, NULL));
            OK(cclDestroyOperation(operation));
        }
    }
}

static void wrong_for_this_world(cclCommunicator_t communicator) {
    cclErrorInfo_t info;
    int32_t one[7], all[7 * (WORLD + 1)];
    memset(one, 0, sizeof one);
    memset(all, 0, sizeof all);
    memset(&info, 0, sizeof info);
    info.struct_bytes = sizeof info;
    EXPECT(cclErrorWorldChanged,
           cclAllGather(communicator, one, 7, all, 7 * (WORLD + 1), cclInt32, NULL, NULL));
    OK(cclGetLastErrorInfo(&info));
    CHECK(info.result == cclErrorWorldChanged && info.world_size == WORLD);
    EXPECT(cclErrorWorldChanged,
           cclReduceScatter(communicator, all, 7, one, 7, cclInt32, cclSum, NULL, NULL));
    EXPECT(cclErrorInvalidArgument,
           cclAllGather(communicator, one, 7, all, 7 * WORLD - 1, cclInt32, NULL, NULL));
    EXPECT(cclErrorInvalidArgument,
           cclReduceScatter(communicator, all, 7 * WORLD, one, 0, cclInt32, cclSum, NULL, NULL));
    EXPECT(cclErrorInvalidArgument,
           cclBroadcast(communicator, one, 7, cclInt32, WORLD, NULL, NULL));
}

static void many_buffers(cclCommunicator_t communicator, uint64_t rank) {
    cclOptions_t options = options_of_tag(3);
    cclOperation_t operation = NULL;
    float first[5], second[9];
    double third[3], result[3];
    cclBuffer_t buffers[3];
    int round;
    options.attempts = 2;
    for (round = 0; round < 2; round++) {
        memset(buffers, 0, sizeof buffers);
        buffers[0].send = buffers[0].receive = first;
        buffers[0].count = 5;
        buffers[0].dtype = cclFloat32;
        buffers[1].send = buffers[1].receive = second;
        buffers[1].count = 9;
        buffers[1].dtype = cclFloat32;
        buffers[2].send = third;
        buffers[2].receive = result;
        buffers[2].count = 3;
        buffers[2].dtype = cclFloat64;
        fill(cclFloat32, first, 5, rank);
        fill(cclFloat32, second, 9, rank);
        fill(cclFloat64, third, 3, rank);
        if (round == 0) {
            OK(cclAllReduceMany(communicator, buffers, 3, cclSum, &options, NULL));
        } else {
            OK(cclAllReduceManyAsync(communicator, buffers, 3, cclSum, &options, &operation));
            memset(buffers, 0xff, sizeof buffers);
            OK(cclWait(operation, NULL));
            OK(cclDestroyOperation(operation));
        }
        check_buffer(cclFloat32, first, 5, expected_of, cclSum);
        check_buffer(cclFloat32, second, 9, expected_of, cclSum);
        check_buffer(cclFloat64, third, 3, input, rank);
        check_buffer(cclFloat64, result, 3, expected_of, cclSum);
    }
}

/* Several at once on different tags, and their progress. */
static void started_operations(cclCommunicator_t communicator, uint64_t rank) {
    enum { TAGS = 4, COUNT = 50000 };
    cclOperation_t operations[TAGS];
    cclProgress_t progress;
    float *buffers = (float *)malloc(TAGS * COUNT * sizeof(float));
    uint32_t is_finished = 2;
    uint64_t tag;
    CHECK(buffers != NULL);
    for (tag = 0; tag < TAGS; tag++) {
        const cclOptions_t options = options_of_tag(20 + tag);
        float *buffer = buffers + tag * COUNT;
        fill(cclFloat32, buffer, COUNT, rank);
        OK(cclAllReduceAsync(communicator, buffer, buffer, COUNT, cclFloat32, cclSum, &options,
                             &operations[tag]));
    }
    for (tag = 0; tag < TAGS; tag++) {
        cclOutcome_t outcome;
        memset(&outcome, 0, sizeof outcome);
        outcome.struct_bytes = sizeof outcome;
        OK(cclWaitFor(operations[tag], CCL_FOREVER, &outcome));
        CHECK(outcome.tag == 20 + tag && outcome.contributors_count == WORLD);
        OK(cclTest(operations[tag], &is_finished));
        CHECK(is_finished == 1);
        memset(&progress, 0, sizeof progress);
        progress.struct_bytes = sizeof progress;
        OK(cclGetProgress(operations[tag], &progress));
        CHECK(progress.done_bytes == progress.total_bytes);
        OK(cclWait(operations[tag], NULL));
        check_buffer(cclFloat32, buffers + tag * COUNT, COUNT, expected_of, cclSum);
        OK(cclDestroyOperation(operations[tag]));
    }
    free(buffers);
}

/* One member's end of an operation that the others have not called. */
static void end_alone(cclCommunicator_t communicator, float *buffer, cclOptions_t options) {
    cclOperation_t operation = NULL;
    uint32_t is_finished = 2;
    if (options.deadline_ms > 0) {
        EXPECT(cclErrorCancelled, cclAllReduce(communicator, buffer, buffer, 64, cclFloat32, cclSum,
                                               &options, NULL));
        return;
    }
    OK(cclAllReduceAsync(communicator, buffer, buffer, 64, cclFloat32, cclSum, &options,
                         &operation));
    EXPECT(cclErrorInvalidUsage, cclAllReduce(communicator, buffer, buffer, 64, cclFloat32, cclSum,
                                              &options, NULL));
    EXPECT(cclErrorTimeout, cclWaitFor(operation, 1, NULL));
    OK(cclTest(operation, &is_finished));
    CHECK(is_finished == 0);
    if (options.tag == 30) {
        OK(cclCancel(operation));
        EXPECT(cclErrorCancelled, cclWait(operation, NULL));
    }
    OK(cclDestroyOperation(operation));
}

/*
 * Rank 0 ends an operation that the others call later: by cancelling it, by destroying its handle,
 * by a deadline. The end is the same for all.
 */
static void ended_by_one(cclCommunicator_t communicator, uint64_t rank) {
    cclErrorInfo_t info;
    float buffer[64];
    uint64_t tag;
    for (tag = 30; tag < 33; tag++) {
        cclOptions_t options = options_of_tag(tag);
        fill(cclFloat32, buffer, 64, rank);
        if (rank == 0) {
            options.deadline_ms = tag == 32 ? 20 : 0;
            end_alone(communicator, buffer, options);
        }
        OK(cclBarrier(communicator, NULL, NULL));
        if (rank != 0) {
            EXPECT(cclErrorCancelled, cclAllReduce(communicator, buffer, buffer, 64, cclFloat32,
                                                   cclSum, &options, NULL));
            memset(&info, 0, sizeof info);
            info.struct_bytes = sizeof info;
            OK(cclGetLastErrorInfo(&info));
            CHECK(info.result == cclErrorCancelled && info.tag == tag);
        }
        check_buffer(cclFloat32, buffer, 64, input, rank);
    }
}

/* Errors of calls that do not match name the calls. */
static void called_differently(cclCommunicator_t communicator, uint64_t rank) {
    const cclOptions_t options = options_of_tag(40);
    float buffer[64];
    fill(cclFloat32, buffer, 64, rank);
    EXPECT(cclErrorCancelled,
           cclAllReduce(communicator, buffer, buffer, rank == 1 ? 63 : 64, cclFloat32, cclSum,
                        &options, NULL));
    CHECK(strstr(cclGetLastError(), "63") != NULL);
    check_buffer(cclFloat32, buffer, 64, input, rank);
    EXPECT(cclErrorInvalidArgument,
           cclAllReduce(communicator, buffer, buffer + 1, 60, cclFloat32, cclSum, NULL, NULL));
}

static void view_and_counters(cclCommunicator_t communicator, uint64_t rank) {
    cclCounters_t counters;
    uint32_t ring[WORLD], pending = 7;
    uint64_t peers[1];
    size_t count = 0;
    char address[CCL_ADDRESS_BYTES_MAX];
    memset(&counters, 0, sizeof counters);
    counters.struct_bytes = sizeof counters;
    OK(cclGetCounters(communicator, &counters));
    CHECK(counters.commits > 70 && counters.aborts >= 3);
    CHECK(counters.sent_bytes > 400000 && counters.received_bytes > 400000);
    OK(cclGetRingOrder(communicator, ring, WORLD, &count));
    CHECK(count == WORLD && ring[0] < WORLD && ring[1] < WORLD && ring[2] < WORLD);
    OK(cclGetMembers(communicator, peers, 1, &count));
    CHECK(count == WORLD);
    CHECK(rank != 0 || peers[0] == attribute(communicator, cclAttributePeer));
    OK(cclGetMembers(communicator, NULL, 0, &count));
    char name[CCL_NAME_BYTES_MAX], where[CCL_ADDRESS_BYTES_MAX];
    OK(cclGetMemberName(communicator, 0, name, sizeof name));
    OK(cclGetMemberAddress(communicator, 0, where, sizeof where));
    CHECK(strchr(name, ':') != NULL && strchr(where, ':') != NULL);
    EXPECT(cclErrorInvalidArgument, cclGetMemberName(communicator, 99, name, sizeof name));
    EXPECT(cclErrorInvalidArgument, cclGetMemberAddress(communicator, 0, where, 1));
    CHECK(attribute(communicator, cclAttributeWorldSize) == WORLD);
    CHECK(attribute(communicator, cclAttributeLanes) == 2);
    CHECK(attribute(communicator, cclAttributeInitialWorldSize) == WORLD);
    OK(cclGetListenAddress(communicator, address, sizeof address));
    CHECK(strtoul(strrchr(address, ':') + 1, NULL, 10) ==
          attribute(communicator, cclAttributeListenPort));
    OK(cclArePeersPending(communicator, &pending));
    CHECK(pending == 0 && attribute(communicator, cclAttributePendingPeers) == 0);
    OK(cclUpdateTopology(communicator));
}

static int run_peer(const char *address) {
    cclCommunicator_t communicator = connect_peer(address, WORLD);
    const uint64_t rank = attribute(communicator, cclAttributeRank);
    every_type_and_operator(communicator, rank);
    encoded_and_weighted(communicator, rank);
    misaligned(communicator, rank);
    other_collectives(communicator, rank);
    wrong_for_this_world(communicator);
    many_buffers(communicator, rank);
    started_operations(communicator, rank);
    ended_by_one(communicator, rank);
    called_differently(communicator, rank);
    view_and_counters(communicator, rank);
    OK(cclBarrier(communicator, NULL, NULL));
    OK(cclLeave(communicator));
    EXPECT(cclErrorEnded, cclBarrier(communicator, NULL, NULL));
    OK(cclDestroyCommunicator(communicator));
    return 0;
}

int main(int argc, char **argv) {
    char address[CCL_ADDRESS_BYTES_MAX];
    process_t peers[WORLD];
    cclMaster_t master;
    int index;
    alarm(PATIENCE);
    if (argc > 2) {
        return run_peer(argv[2]);
    }
    OK(cclInit());
    master = start_master(address);
    for (index = 0; index < WORLD; index++) {
        peers[index] = start_process(argv[0], "peer", address, NULL);
    }
    for (index = 0; index < WORLD; index++) {
        expect_success(peers[index]);
    }
    OK(cclDestroyMaster(master));
    return 0;
}
