/*
 * Many threads on one communicator, and what the library's own threads do not touch.
 *
 * 1. Threads reduce on tags of their own, ask for attributes and change the log callback, all at
 *    once, on two communicators of one process. 2. Calls that block are ended by destroying their
 *    communicator from another thread; a connect is given up the same way. 3. The callback cannot
 *    call the library back. 4. The library's threads take no signal. 5. Destroyed objects release
 *    their threads and files.
 */
#include "pair.h"

#include <dirent.h>

enum { PEERS = 2, TAGS = 4, ROUNDS = 25, COUNT = 3000 };

typedef struct task_t {
    cclCommunicator_t communicator;
    uint64_t tag;
    cclResult_t result;
} task_t;

static void *reduce_rounds(void *argument) {
    const task_t *task = (const task_t *)argument;
    const cclOptions_t options = options_of_tag(task->tag);
    int64_t *buffer = (int64_t *)malloc(COUNT * sizeof(int64_t));
    int round;
    size_t index;
    CHECK(buffer != NULL);
    for (round = 0; round < ROUNDS; round++) {
        for (index = 0; index < COUNT; index++) {
            buffer[index] = (int64_t)(index * task->tag) + round;
        }
        OK(cclAllReduce(task->communicator, buffer, buffer, COUNT, cclInt64, cclSum, &options,
                        NULL));
        for (index = 0; index < COUNT; index++) {
            CHECK(buffer[index] == PEERS * ((int64_t)(index * task->tag) + round));
        }
        CHECK(attribute(task->communicator, cclAttributeWorldSize) == PEERS);
    }
    free(buffer);
    return NULL;
}

/* Error texts belong to the thread whose call failed. */
static void *fail_rounds(void *argument) {
    const task_t *task = (const task_t *)argument;
    int round;
    for (round = 0; round < 200; round++) {
        uint64_t value = 0;
        char words[32];
        snprintf(words, sizeof words, "attribute %lu;", (unsigned long)(1000 + task->tag));
        EXPECT(cclErrorInvalidArgument,
               cclGetAttribute(task->communicator, (uint32_t)(1000 + task->tag), &value));
        CHECK(strstr(cclGetLastError(), words) != NULL);
    }
    return NULL;
}

static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long lines_count = 0;
static cclResult_t result_inside = cclSuccess;

static void count_line(cclLogLevel_t level, const char *message, void *user_data) {
    CHECK(level <= cclLogDebug && strlen(message) > 0 && user_data == &lines_count);
    pthread_mutex_lock(&lines_lock);
    lines_count++;
    result_inside = cclInit();
    pthread_mutex_unlock(&lines_lock);
}

static void *connect_task(void *argument) {
    task_t *task = (task_t *)argument;
    task->result = cclConnect(task->communicator);
    return NULL;
}

static void *barrier_task(void *argument) {
    task_t *task = (task_t *)argument;
    const cclOptions_t options = options_of_tag(task->tag);
    task->result = cclBarrier(task->communicator, &options, NULL);
    return NULL;
}

static void *wait_task(void *argument) {
    task_t *task = (task_t *)argument;
    task->result = cclWait((cclOperation_t)(void *)task->communicator, NULL);
    return NULL;
}

static void everybody_at_once(cclCommunicator_t communicators[PEERS]) {
    task_t tasks[PEERS * TAGS];
    pthread_t reducing[PEERS * TAGS], failing[PEERS * TAGS];
    int index, round;
    for (index = 0; index < PEERS * TAGS; index++) {
        tasks[index].communicator = communicators[index % PEERS];
        tasks[index].tag = (uint64_t)(index / PEERS) + 1;
        reducing[index] = start_thread(reduce_rounds, &tasks[index]);
        failing[index] = start_thread(fail_rounds, &tasks[index]);
    }
    for (round = 0; round < 50; round++) {
        OK(cclSetLogCallback(round % 2 == 0 ? NULL : count_line, &lines_count, cclLogDebug));
    }
    for (index = 0; index < PEERS * TAGS; index++) {
        join_thread(reducing[index]);
        join_thread(failing[index]);
    }
}

/* A connect without a master is given up, by leaving and by destroying. */
static void connects_are_given_up(void) {
    int round;
    for (round = 0; round < 2; round++) {
        /* A port that answers no one. */
        cclCommunicatorConfig_t config = peer_config("127.0.0.1:9", 1);
        task_t task;
        pthread_t thread;
        config.connect_timeout_ms = CCL_FOREVER;
        OK(cclCreateCommunicator(&config, &task.communicator));
        thread = start_thread(connect_task, &task);
        if (round == 0) {
            while (cclLeave(task.communicator) != cclSuccess) {
                /* The thread has not begun. */
            }
            join_thread(thread);
            EXPECT(cclErrorEnded, task.result);
            OK(cclDestroyCommunicator(task.communicator));
        } else {
            OK(cclDestroyCommunicator(task.communicator));
            join_thread(thread);
            CHECK(task.result == cclErrorEnded || task.result == cclErrorInvalidHandle);
        }
    }
}

/* Destroying a communicator ends what other threads do with it; then nothing is left of it. */
static void destroying_ends_calls(cclCommunicator_t communicators[PEERS]) {
    const cclOptions_t options = options_of_tag(102);
    cclOperation_t operation = NULL;
    cclCommunicator_t communicator = communicators[0];
    task_t blocked, waiting;
    pthread_t threads[2];
    double data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t is_finished = 0;
    blocked.communicator = communicator;
    blocked.tag = 101;
    OK(cclAllReduceAsync(communicator, data, data, 8, cclFloat64, cclSum, &options, &operation));
    waiting.communicator = (cclCommunicator_t)(void *)operation;
    threads[0] = start_thread(barrier_task, &blocked);
    threads[1] = start_thread(wait_task, &waiting);
    OK(cclDestroyCommunicator(communicator));
    join_thread(threads[0]);
    join_thread(threads[1]);
    CHECK(blocked.result == cclErrorEnded || blocked.result == cclErrorCancelled ||
          blocked.result == cclErrorInvalidHandle);
    CHECK(waiting.result == cclErrorEnded || waiting.result == cclErrorCancelled);
    CHECK(data[0] == 1 && data[7] == 8);
    OK(cclTest(operation, &is_finished));
    CHECK(is_finished == 1);
    OK(cclDestroyOperation(operation));
    EXPECT(cclErrorInvalidHandle, cclDestroyCommunicator(communicator));
    /* The other learns that it is alone. */
    while (attribute(communicators[1], cclAttributeWorldSize) == PEERS) {
        OK(cclUpdateTopology(communicators[1]));
    }
    OK(cclBarrier(communicators[1], NULL, NULL));
    OK(cclDestroyCommunicator(communicators[1]));
}

static volatile sig_atomic_t signals_taken = 0;

static void take_signal(int number) {
    signals_taken += number != 0;
}

/* The mask of blocked signals of one of this process's threads. */
static unsigned long long blocked_signals(const char *thread) {
    char path[300], line[256];
    unsigned long long mask = 0;
    FILE *status;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    status = fopen(path, "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (sscanf(line, "SigBlk: %llx", &mask) == 1) {
            break;
        }
    }
    if (status != NULL) {
        fclose(status);
    }
    return mask;
}

/*
 * Only this thread has SIGUSR1 open: where the system shows threads, all others of this process are
 * the library's and block it. Blocked here too, a signal stays pending.
 */
static void signals_are_left_alone(cclCommunicator_t communicator) {
    const unsigned long long bit = 1ULL << (SIGUSR1 - 1);
    struct sigaction action;
    sigset_t set, pending;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int others = 0, index;
    memset(&action, 0, sizeof action);
    action.sa_handler = take_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
        if (entry->d_name[0] != '.' && strtol(entry->d_name, NULL, 10) != (long)getpid()) {
            CHECK((blocked_signals(entry->d_name) & bit) != 0);
            others++;
        }
    }
    if (tasks != NULL) {
        closedir(tasks);
        CHECK(others >= 2);
    }
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    for (index = 0; index < 20; index++) {
        OK(cclBarrier(communicator, NULL, NULL));
    }
    CHECK(signals_taken == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    CHECK(signals_taken == 1);
}

/* The number of entries of a directory of the system. */
static int count_of(const char *path) {
    DIR *list = opendir(path);
    int count = 0;
    while (list != NULL && readdir(list) != NULL) {
        count++;
    }
    if (list != NULL) {
        closedir(list);
    }
    return count;
}

static void everything_is_given_back(const char *address) {
    const int threads = count_of("/proc/self/task"), files = count_of("/proc/self/fd");
    int round;
    for (round = 0; round < 10; round++) {
        char other[CCL_ADDRESS_BYTES_MAX];
        cclCommunicator_t pair[PEERS];
        cclOperation_t operation = NULL;
        float data[2] = {1, 2};
        connect_pair(address, pair);
        OK(cclAllReduceAsync(pair[0], data, data, 2, cclFloat32, cclSum, NULL, &operation));
        if (round % 2 == 0) {
            float others[2] = {3, 4};
            OK(cclAllReduce(pair[1], others, others, 2, cclFloat32, cclSum, NULL, NULL));
        }
        OK(cclDestroyOperation(operation));
        OK(cclDestroyCommunicator(pair[round % 2]));
        OK(cclDestroyCommunicator(pair[1 - round % 2]));
        OK(cclDestroyMaster(start_master(other)));
    }
    /* Threads that were told to end may not have ended yet. */
    while (count_of("/proc/self/task") > threads || count_of("/proc/self/fd") > files) {
        OK(cclInit());
    }
}

int main(void) {
    char address[CCL_ADDRESS_BYTES_MAX];
    cclCommunicator_t communicators[PEERS], alone;
    cclMaster_t master;
    alarm(PATIENCE);
    OK(cclSetLogCallback(count_line, &lines_count, cclLogDebug));
    master = start_master(address);
    connect_pair(address, communicators);
    everybody_at_once(communicators);
    connects_are_given_up();
    destroying_ends_calls(communicators);
    OK(cclSetLogCallback(NULL, NULL, cclLogError));
    CHECK(lines_count > 0 && result_inside == cclErrorInvalidUsage);
    everything_is_given_back(address);
    alone = connect_peer(address, 1);
    signals_are_left_alone(alone);
    OK(cclDestroyCommunicator(alone));
    OK(cclDestroyMaster(master));
    return 0;
}
