/* The cheapest HTTP/1.1 backend there can be: one thread, epoll, answers made beforehand.
 *
 * The request's path says which answer it gets: …1k, …100k, …1m, …c1k and …c100k (chunked), …events (ten chunks).
 * Bodies are read and forgotten. Usage: backend PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_LIMIT 65536

struct answer { const char *name; char *bytes; size_t size; };
struct connection {
    int fd, chunked, writing;
    long body;          /* bytes of the request's body still to come */
    size_t have, sent;  /* of `buffer`; of the answer */
    const struct answer *answer;
    char buffer[HEAD_LIMIT];
};

static struct answer answers[] = {{"m1k"}, {"m100k"}, {"m1m"}, {"c1k"}, {"c100k"}, {"events"}};
enum { KINDS = sizeof answers / sizeof *answers };
static char scrap[1 << 18];
static int poller;

static void make(struct answer *answer, size_t size, size_t chunk) {
    char *body = malloc(size), *out = malloc(size * 2 + 4096);
    memset(body, 'x', size);
    memcpy(body, "{\"a\":\"", 6);
    memcpy(body + size - 2, "\"}", 2);
    size_t n = sprintf(out, "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 03:00:00 GMT\r\nserver: uvicorn\r\n"
                            "content-type: application/json\r\nserver-timing: predict;dur=1.2\r\nx-chips-model: m@1\r\n");
    if (!chunk) {
        n += sprintf(out + n, "content-length: %zu\r\n\r\n", size);
        memcpy(out + n, body, size);
        n += size;
    } else {
        n += sprintf(out + n, "transfer-encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < size; at += chunk) {
            size_t part = size - at < chunk ? size - at : chunk;
            n += sprintf(out + n, "%zx\r\n", part);
            memcpy(out + n, body + at, part);
            n += part;
            memcpy(out + n, "\r\n", 2);
            n += 2;
        }
        n += sprintf(out + n, "0\r\n\r\n");
    }
    free(body);
    answer->bytes = out;
    answer->size = n;
}

static void watch(struct connection *c, int writing) {
    if (c->writing == writing) return;
    c->writing = writing;
    struct epoll_event event = {EPOLLIN | (writing ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static int flush(struct connection *c) { /* 1 all sent, 0 not yet, -1 broken */
    while (c->sent < c->answer->size) {
        ssize_t n = send(c->fd, c->answer->bytes + c->sent, c->answer->size - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) return -1;
            watch(c, 1);
            return 0;
        }
        c->sent += n;
    }
    watch(c, 0);
    return 1;
}

static void forget(struct connection *c, size_t n) {
    c->have -= n;
    memmove(c->buffer, c->buffer + n, c->have);
}

static int process(struct connection *c) { /* 0 fine, -1 broken */
    for (;;) {
        if (c->writing) return 0;
        if (c->chunked) {
            char *end = memmem(c->buffer, c->have, "0\r\n\r\n", 5);
            if (!end) {
                if (c->have > 8) forget(c, c->have - 8);
                return 0;
            }
            forget(c, end + 5 - c->buffer);
            c->chunked = 0;
        } else if (c->body) {
            size_t n = (size_t)c->body < c->have ? (size_t)c->body : c->have;
            forget(c, n);
            if (c->body -= n) return 0;
        } else {
            char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
            if (!end) return c->have == HEAD_LIMIT ? -1 : 0;
            char *line = memchr(c->buffer, '\r', c->have);
            c->answer = answers;
            for (int i = 0; i < KINDS; i++)
                if (memmem(c->buffer, line - c->buffer, answers[i].name, strlen(answers[i].name))) c->answer = answers + i;
            for (char *at = line; at < end; at = memchr(at + 1, '\r', end + 1 - at)) {
                if (!strncasecmp(at + 2, "content-length:", 15)) c->body = atol(at + 17);
                if (!strncasecmp(at + 2, "transfer-encoding:", 18)) c->chunked = 1;
            }
            forget(c, end + 4 - c->buffer);
            if (c->body || c->chunked) continue;
        }
        c->sent = 0;
        if (flush(c) < 0) return -1;
    }
}

static int readable(struct connection *c) { /* 0 fine, -1 over */
    for (;;) {
        ssize_t n;
        if (c->body > 0 && !c->have) { /* straight into nothing */
            n = recv(c->fd, scrap, (size_t)c->body < sizeof scrap ? (size_t)c->body : sizeof scrap, MSG_TRUNC);
            if (n > 0) {
                if (!(c->body -= n)) {
                    c->sent = 0;
                    if (flush(c) < 0) return -1;
                }
                continue;
            }
        } else {
            size_t room = HEAD_LIMIT - c->have;
            n = recv(c->fd, c->buffer + c->have, room, 0);
            if (n > 0) {
                c->have += n;
                if (process(c) < 0) return -1;
                if ((size_t)n < room && !c->body) return 0;
                continue;
            }
        }
        return n < 0 && errno == EAGAIN ? 0 : -1;
    }
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    make(answers, 1024, 0);
    make(answers + 1, 102400, 0);
    make(answers + 2, 1048576, 0);
    make(answers + 3, 1024, 512);
    make(answers + 4, 102400, 8192);
    make(answers + 5, 1000, 100);
    poller = epoll_create1(0);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 9000)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) {
        perror("backend");
        return 1;
    }
    struct epoll_event events[256] = {{EPOLLIN, {.ptr = NULL}}};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, events);
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    struct epoll_event event = {EPOLLIN, {.ptr = c}};
                    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            int over = 0;
            if (events[i].events & EPOLLOUT) over = flush(c) < 0 || process(c) < 0;
            if (!over && events[i].events & ~EPOLLOUT) over = readable(c) < 0;
            if (over) {
                close(c->fd);
                free(c);
            }
        }
    }
}
