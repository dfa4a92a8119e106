/* An all-reduce of MPI for `ccl bench compare`; the orders and answers are described in docs/performance.md.
 *
 * Rank 0 reads orders from standard input and answers for all ranks. The others sleep between orders: waiting
 * inside MPI would take processor time from whoever is measured. */
#define _GNU_SOURCE
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    long long count, in_place, warmup, iterations, check;
} Order;

typedef struct {
    long long cpu_ns, extra_rss_bytes, wrong;
} Spent;

/* Most timed calls of one order. */
#define ITERATIONS_MAX 1000
/* The time between two looks for an order. */
#define POLL_NS 10000000L

static int rank, world_size;
static long long idle_bytes;
static long long iteration_ns[ITERATIONS_MAX];

static long long now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* A line of /proc/self/status, in bytes. */
static long long status_bytes(const char *field) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long long kibibytes = 0;
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kibibytes = atoll(line + strlen(field));
    if (status != NULL)
        fclose(status);
    return kibibytes * 1024;
}

static void reset_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file != NULL) {
        fputs("5", file);
        fclose(file);
    }
}

/* What a rank contributes: sums of these are exact. */
static float input(long long index, int of) {
    return (float)(index % 251 + of);
}

static void fill(float *buffer, long long count) {
    for (long long index = 0; index < count; index++)
        buffer[index] = input(index, rank);
}

static long long count_wrong(const float *result, long long count) {
    long long wrong = 0;
    for (long long index = 0; index < count; index++) {
        float sum = 0;
        for (int of = 0; of < world_size; of++)
            sum += input(index, of);
        wrong += result[index] != sum;
    }
    return wrong;
}

static void call(float *send, float *receive, const Order *order) {
    const void *source = order->in_place ? MPI_IN_PLACE : send;
    float *target = order->in_place ? send : receive;
    MPI_Allreduce(source, target, (int)order->count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static Spent measure(const Order *order) {
    size_t bytes = (size_t)order->count * sizeof(float) + sizeof(float);
    float *send = malloc(bytes), *receive = order->in_place ? NULL : malloc(bytes);
    Spent spent = {0, 0, 0};
    if (send == NULL || (receive == NULL && !order->in_place))
        MPI_Abort(MPI_COMM_WORLD, 1);
    fill(send, order->count);
    if (receive != NULL)
        memset(receive, 0xff, bytes);
    reset_peak();
    for (long long turn = 0; turn < order->warmup; turn++) {
        call(send, receive, order);
        if (turn == 0 && order->check)
            spent.wrong = count_wrong(order->in_place ? send : receive, order->count);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    long long cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID), last = now_ns(CLOCK_MONOTONIC);
    for (long long turn = 0; turn < order->iterations; turn++) {
        call(send, receive, order);
        long long now = now_ns(CLOCK_MONOTONIC);
        iteration_ns[turn] = now - last;
        last = now;
    }
    spent.cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
    long long buffers = (long long)bytes * (order->in_place ? 1 : 2);
    long long extra = status_bytes("VmHWM:") - idle_bytes - buffers;
    spent.extra_rss_bytes = extra > 0 ? extra : 0;
    free(send);
    free(receive);
    return spent;
}

static void answer(const Order *order, const Spent *spent, const long long *times) {
    printf("{\"Ok\":[");
    for (int of = 0; of < world_size; of++) {
        printf("%s{\"iteration_ns\":[", of > 0 ? "," : "");
        for (long long turn = 0; turn < order->iterations; turn++)
            printf("%s%lld", turn > 0 ? "," : "", times[of * order->iterations + turn]);
        printf("],\"cpu_ns\":%lld,\"extra_rss_bytes\":%lld,\"wrong\":%lld}", spent[of].cpu_ns,
               spent[of].extra_rss_bytes, spent[of].wrong);
    }
    printf("]}\n");
    fflush(stdout);
}

static void obey(const Order *order) {
    Spent own = measure(order), *spent = NULL;
    long long *times = NULL;
    if (rank == 0) {
        spent = calloc((size_t)world_size, sizeof *spent);
        times = calloc((size_t)(world_size * order->iterations), sizeof *times);
        if (spent == NULL || times == NULL)
            MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Gather(&own, sizeof own, MPI_BYTE, spent, sizeof own, MPI_BYTE, 0, MPI_COMM_WORLD);
    MPI_Gather(iteration_ns, (int)order->iterations, MPI_LONG_LONG, times, (int)order->iterations,
               MPI_LONG_LONG, 0, MPI_COMM_WORLD);
    if (rank == 0)
        answer(order, spent, times);
    free(spent);
    free(times);
}

/* Rank 0 reads an order and passes it on. An order without calls is the end. */
static Order next_order(void) {
    Order order = {0, 0, 0, 0, 0};
    if (rank == 0) {
        char line[256];
        if (fgets(line, sizeof line, stdin) == NULL ||
            sscanf(line, "%lld %lld %lld %lld %lld", &order.count, &order.in_place, &order.warmup,
                   &order.iterations, &order.check) != 5 ||
            order.iterations > ITERATIONS_MAX || order.count > 1LL << 30)
            order.iterations = 0;
        for (int to = 1; to < world_size; to++)
            MPI_Send(&order, sizeof order, MPI_BYTE, to, 0, MPI_COMM_WORLD);
        return order;
    }
    int is_there = 0;
    while (MPI_Iprobe(0, 0, MPI_COMM_WORLD, &is_there, MPI_STATUS_IGNORE), !is_there) {
        struct timespec pause = {0, POLL_NS};
        nanosleep(&pause, NULL);
    }
    MPI_Recv(&order, sizeof order, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return order;
}

int main(int count, char **words) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    MPI_Barrier(MPI_COMM_WORLD);
    idle_bytes = status_bytes("VmRSS:");
    if (rank == 0) {
        printf("{\"Ok\":\"%s\"}\n", version);
        fflush(stdout);
    }
    for (Order order = next_order(); order.iterations > 0; order = next_order())
        obey(&order);
    MPI_Finalize();
    return 0;
}
