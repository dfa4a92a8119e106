/*
 * Names functions without calling them: what the recorder must not take for calls.
 *
 * In a comment: cclBarrier(communicator, NULL, NULL); what is called is cclInit and cclGetVersion.
 */
#include <ccl.h>

#include <stdio.h>

/* cclLeave(communicator); */
static const char text[] = "cclUpdateTopology(communicator)";
static cclResult_t (*volatile address)(cclCommunicator_t) = cclConnect;

static void never_called(cclCommunicator_t communicator) {
    (void)cclDestroyCommunicator(communicator);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 100) {
        never_called(NULL);
        (void)cclCancel(NULL);
    }
    return cclInit() != cclSuccess || cclGetVersion(NULL) != cclErrorInvalidArgument ||
           address == NULL || puts(text) < 0;
}
