/*
 * Shared by the test programs: checks that report where they failed, a master, peers, processes.
 *
 * A program without arguments is the test; it starts itself again, with a role, for each process
 * that it needs. Whatever hangs is ended by an alarm.
 */
#ifndef CHECK_H
#define CHECK_H

#include <ccl.h>

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Far longer than any of the programs takes, in seconds. */
#define PATIENCE 240

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #condition, \
                    cclGetLastError());                                                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define EXPECT(expected, call) check_result(__FILE__, __LINE__, #call, expected, call)
#define OK(call) EXPECT(cclSuccess, call)

static inline void check_result(const char *file, int line, const char *text, cclResult_t expected,
                                cclResult_t found) {
    if (expected == found) {
        return;
    }
    fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"; last error: %s\n", file, line, text,
            cclResultString(found), cclResultString(expected), cclGetLastError());
    exit(1);
}

/* Whether each instruction takes as long as fifty: `make valgrind`. */
static inline int is_slow(void) {
    return getenv("CCL_C_RUNNER") != NULL;
}

/* A master on loopback that founds a run at once; writes its address. */
static inline cclMaster_t start_master(char address[CCL_ADDRESS_BYTES_MAX]) {
    cclMasterConfig_t config;
    cclMaster_t master = NULL;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.listen = "127.0.0.1:0";
    config.is_new_run = 1;
    if (is_slow()) {
        config.peer_timeout_ms = 60000; /* a silent peer there only waits for its turn */
    }
    OK(cclCreateMaster(&config, &master));
    OK(cclRunMaster(master));
    OK(cclGetMasterAddress(master, address, CCL_ADDRESS_BYTES_MAX));
    return master;
}

/* A config for a peer of a run whose first view has `world` members. */
static inline cclCommunicatorConfig_t peer_config(const char *address, uint32_t world) {
    cclCommunicatorConfig_t config;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    config.master = address;
    config.initial_world_size = world;
    config.lanes = 2;
    return config;
}

static inline cclCommunicator_t connect_peer(const char *address, uint32_t world) {
    cclCommunicatorConfig_t config = peer_config(address, world);
    cclCommunicator_t communicator = NULL;
    OK(cclCreateCommunicator(&config, &communicator));
    OK(cclConnect(communicator));
    return communicator;
}

static inline cclOptions_t options_of_tag(uint64_t tag) {
    cclOptions_t options;
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    options.tag = tag;
    return options;
}

static inline uint64_t attribute(cclCommunicator_t communicator, cclAttribute_t which) {
    uint64_t value = 0;
    OK(cclGetAttribute(communicator, which, &value));
    return value;
}

/* A process of this program in some role, and the lines that it prints. */
typedef struct process_t {
    pid_t id;
    FILE *lines;
} process_t;

static inline process_t start_process(const char *program, const char *role, const char *address,
                                      const char *more) {
    int ends[2];
    process_t process;
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    process.id = fork();
    CHECK(process.id >= 0);
    if (process.id == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, role, address, more, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    process.lines = fdopen(ends[0], "r");
    CHECK(process.lines != NULL);
    return process;
}

/* Waits for a line that begins with `start`, and returns what follows. */
static inline const char *wait_for_line(process_t process, const char *start, char line[256]) {
    while (fgets(line, 256, process.lines) != NULL) {
        if (strncmp(line, start, strlen(start)) == 0) {
            return line + strlen(start);
        }
    }
    fprintf(stderr, "process %ld ended without a line \"%s\"\n", (long)process.id, start);
    exit(1);
}

static inline void say(const char *line) {
    puts(line);
    fflush(stdout);
}

static inline void expect_success(process_t process) {
    int status = 0;
    CHECK(waitpid(process.id, &status, 0) == process.id);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fclose(process.lines);
}

static inline void kill_process(process_t process) {
    int status = 0;
    CHECK(kill(process.id, SIGKILL) == 0);
    CHECK(waitpid(process.id, &status, 0) == process.id);
    CHECK(WIFSIGNALED(status));
    fclose(process.lines);
}

#endif
