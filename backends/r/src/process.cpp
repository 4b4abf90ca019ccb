// Bytes between the server and its workers, and what httpuv's sockets lack.
#include <cerrno>
#include <cstdint>
#include <cstring>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "entries.h"

// A job's kind and body in one call, without a copy: 8 bytes each for their sizes, then both.
extern "C" SEXP chips_send(SEXP fd, SEXP kind, SEXP body) {
  SEXP text = STRING_ELT(kind, 0);
  uint64_t sizes[2] = {static_cast<uint64_t>(LENGTH(text)), static_cast<uint64_t>(Rf_xlength(body))};
  struct iovec parts[3] = {{sizes, sizeof sizes}, {const_cast<char *>(CHAR(text)), sizes[0]}, {RAW(body), sizes[1]}};
  int at = 0;
  while (at < 3) {
    const ssize_t written = writev(Rf_asInteger(fd), parts + at, 3 - at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) Rf_error("the worker takes no job: %s", std::strerror(errno));
    auto left = static_cast<size_t>(written);
    while (at < 3 && left >= parts[at].iov_len) left -= parts[at++].iov_len;
    if (at < 3) {
      parts[at].iov_base = static_cast<char *>(parts[at].iov_base) + left;
      parts[at].iov_len -= left;
    }
  }
  return R_NilValue;
}

static bool read_all(int fd, void *into, size_t size) {
  auto *at = static_cast<char *>(into);
  while (size > 0) {
    const ssize_t count = read(fd, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

// The next job, or NULL once the server has ended.
extern "C" SEXP chips_receive(SEXP fd) {
  const int from = Rf_asInteger(fd);
  uint64_t sizes[2];
  if (!read_all(from, sizes, sizeof sizes) || sizes[0] > 64) return R_NilValue;
  char kind[64];
  if (!read_all(from, kind, sizes[0])) return R_NilValue;
  const char *names[] = {"kind", "body", ""};
  SEXP job = PROTECT(Rf_mkNamed(VECSXP, names));
  SET_VECTOR_ELT(job, 0, Rf_ScalarString(Rf_mkCharLen(kind, static_cast<int>(sizes[0]))));
  SET_VECTOR_ELT(job, 1, Rf_allocVector(RAWSXP, static_cast<R_xlen_t>(sizes[1])));
  const bool whole = read_all(from, RAW(VECTOR_ELT(job, 1)), sizes[1]);
  UNPROTECT(1);
  return whole ? job : R_NilValue;
}

// Switch Nagle's algorithm off for all connections that this process will accept at `port`; whether there was a socket.
extern "C" SEXP chips_nodelay(SEXP port) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const int most = limit.rlim_cur > 65536 ? 65536 : static_cast<int>(limit.rlim_cur);
  bool found = false;
  for (int fd = 0; fd < most; ++fd) {
    int listens = 0, on = 1;
    socklen_t size = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens) continue;
    struct sockaddr_storage address;
    size = sizeof address;
    if (getsockname(fd, reinterpret_cast<struct sockaddr *>(&address), &size) != 0 || address.ss_family != AF_INET) continue;
    if (ntohs(reinterpret_cast<struct sockaddr_in *>(&address)->sin_port) != Rf_asInteger(port)) continue;
    found = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 || found;
  }
  return Rf_ScalarLogical(found);
}
