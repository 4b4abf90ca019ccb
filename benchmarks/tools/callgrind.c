/* What benchmarks.count asks of callgrind from within: valgrind's client requests, which do nothing outside of it. */
#include <valgrind/callgrind.h>

void count_begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void count_end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
void count_toggle(void) { CALLGRIND_TOGGLE_COLLECT; }
