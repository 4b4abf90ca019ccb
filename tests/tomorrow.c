/* The wall clock as this process and its children read it, OFFSET_S seconds ahead; the monotonic clock stays.
 *
 * libfaketime 0.9.10 cannot do this for CPython: waits of threads never end where it moves the monotonic clock, and
 * time.sleep() raises EINVAL where it is told not to.
 *
 *   cc -shared -fPIC -o build/tomorrow.so tests/tomorrow.c && LD_PRELOAD=$PWD/build/tomorrow.so make test
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef OFFSET_S
#define OFFSET_S 86400
#endif

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += OFFSET_S;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return (time_t)-1;
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
