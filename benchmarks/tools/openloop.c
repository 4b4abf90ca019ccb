/* An open-loop load generator: requests are due at a fixed rate, whatever the answers do.
 *
 * A latency counts from the moment the request was due, so that a slow answer is not hidden by the requests that it held
 * up (coordinated omission). Usage: openloop PORT CONNECTIONS RATE SECONDS < request
 * Prints one JSON object: counts, and latencies in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct connection {
    int fd, busy, good;
    long left; /* bytes of the answer still to come; -1: its head */
    size_t have;
    double due;
    char head[16384];
};

static char request[1 << 21];
static size_t request_size;
static double *waiting; /* a ring of due times that no connection was free for */
static size_t first, count, ring = 1 << 20;
static uint32_t *latencies;
static size_t done, bad, limit;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void send_request(struct connection *c, double due) {
    c->busy = 1;
    c->due = due;
    c->left = -1;
    c->have = 0;
    for (size_t sent = 0; sent < request_size;) {
        ssize_t n = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            perror("openloop: send");
            exit(1);
        }
        if (n > 0) sent += n;
    }
}

static void finish(struct connection *c) {
    double took = (now() - c->due) * 1e6;
    if (done < limit) latencies[done++] = took > 4e9 ? 4000000000u : (uint32_t)took;
    if (!c->good) bad++;
    c->busy = 0;
    if (count) {
        double due = waiting[first];
        first = (first + 1) % ring;
        count--;
        send_request(c, due);
    }
}

static void receive(struct connection *c) {
    static char scrap[1 << 18];
    for (;;) {
        int in_head = c->left < 0;
        ssize_t n = in_head ? recv(c->fd, c->head + c->have, sizeof c->head - 1 - c->have, 0) : recv(c->fd, scrap, sizeof scrap, 0);
        if (n <= 0) {
            if (n < 0 && errno == EAGAIN) return;
            fprintf(stderr, "openloop: the connection ended\n");
            exit(1);
        }
        if (in_head) {
            c->have += n;
            c->head[c->have] = 0;
            char *end = strstr(c->head, "\r\n\r\n"), *length = strcasestr(c->head, "\r\ncontent-length:");
            if (!end) continue;
            if (!length || length > end) {
                fprintf(stderr, "openloop: an answer without a length\n");
                exit(1);
            }
            c->good = !strncmp(c->head + 9, "200", 3);
            c->left = atol(length + 17) - (long)(c->have - (end + 4 - c->head));
        } else {
            c->left -= n;
        }
        if (c->left == 0) {
            finish(c);
            if (!c->busy) return;
        }
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: openloop PORT CONNECTIONS RATE SECONDS < request\n"), 64;
    int port = atoi(argv[1]), size = atoi(argv[2]);
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    request_size = fread(request, 1, sizeof request, stdin);
    limit = (size_t)(rate * seconds) + 1;
    latencies = malloc(limit * sizeof *latencies);
    waiting = malloc(ring * sizeof *waiting);
    struct connection *connections = calloc(size, sizeof *connections);
    int poller = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < size; i++) {
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (void *)&address, sizeof address)) return perror("openloop: connect"), 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        int flags = 1;
        if (ioctl(fd, FIONBIO, &flags)) return 1;
        connections[i].fd = fd;
        event.data.ptr = connections + i;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
    double start = now() + 0.01, end = start + seconds;
    size_t sent = 0, total = (size_t)(rate * seconds);
    int next = 0;
    struct epoll_event events[256];
    while (done < total && now() < end + 10) {
        double present = now(), due;
        while (sent < total && (due = start + sent / rate) <= present) {
            sent++;
            int tries = 0;
            while (tries < size && connections[next].busy) next = (next + 1) % size, tries++;
            if (tries < size) {
                send_request(connections + next, due);
                next = (next + 1) % size;
            } else if (count < ring) {
                waiting[(first + count++) % ring] = due;
            } else {
                return fprintf(stderr, "openloop: too many requests wait\n"), 1;
            }
        }
        if (sent < total) {
            double at = start + sent / rate;
            struct itimerspec when = {.it_value = {(time_t)at, (long)((at - (time_t)at) * 1e9) + 1}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        }
        int n = epoll_wait(poller, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (events[i].data.ptr) receive(events[i].data.ptr);
            else if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) return 1;
        }
    }
    qsort(latencies, done, sizeof *latencies, compare);
    if (!done) return fprintf(stderr, "openloop: no answer at all\n"), 1;
    printf("{\"sent\":%zu,\"answered\":%zu,\"bad\":%zu,\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u,\"p999_us\":%u,\"max_us\":%u}\n", sent, done,
           bad, latencies[done / 2], latencies[(size_t)(done * .9)], latencies[(size_t)(done * .99)], latencies[(size_t)(done * .999)], latencies[done - 1]);
    return done < total;
}
