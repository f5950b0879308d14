/* A client of the broker that speaks native JSON over WebSocket: enough of it for small texts on one machine. */
#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void write_all(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size > 0) {
    ssize_t written = send(fd, at, size, MSG_NOSIGNAL);
    CHECK(written > 0);
    at += written;
    size -= (size_t)written;
  }
}

/* Reads so many bytes; 0 if the other end has closed before. */
static inline int read_all(int fd, void *data, size_t size) {
  char *at = data;
  while (size > 0) {
    struct pollfd ready = {fd, POLLIN, 0};
    ssize_t got;
    CHECK(poll(&ready, 1, DEADLINE_MS) == 1);
    got = recv(fd, at, size, 0);
    if (got <= 0) return 0;
    at += got;
    size -= (size_t)got;
  }
  return 1;
}

/* A TCP connection to the broker's first listener. */
static inline int dial(pubsub_broker *broker) {
  char address[64];
  struct sockaddr_in to;
  char *colon;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  OK(pubsub_broker_address(broker, NULL, 0, address, sizeof address));
  colon = strrchr(address, ':');
  CHECK(colon != NULL);
  memset(&to, 0, sizeof to);
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons((unsigned short)atoi(colon + 1));
  CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
  return fd;
}

/* Asks for an upgrade of this path and query. */
static inline void ask(int fd, const char *path) {
  char request[512];
  int size = snprintf(request, sizeof request,
                      "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "X-Test: yes\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                      path);
  CHECK(size > 0 && (size_t)size < sizeof request);
  write_all(fd, request, (size_t)size);
}

/* The status of the answer, whose head is read; 0 if there was none. */
static inline int answered(int fd) {
  char head[4096];
  size_t size = 0;
  while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4) != 0) {
    CHECK(size < sizeof head - 1);
    if (!read_all(fd, head + size, 1)) return 0;
    size++;
  }
  head[size] = 0;
  return atoi(head + strlen("HTTP/1.1 "));
}

static inline int websocket(pubsub_broker *broker, const char *path) {
  int fd = dial(broker);
  ask(fd, path);
  CHECK(answered(fd) == 101);
  return fd;
}

/* Sends a text; the mask is zero, so that the bytes stay as they are. */
static inline void say(int fd, const char *text) {
  unsigned char frame[4096] = {0x81};
  size_t size = strlen(text), head = size < 126 ? 6 : 8;
  CHECK(head + size <= sizeof frame);
  frame[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
  if (size >= 126) {
    frame[2] = (unsigned char)(size >> 8);
    frame[3] = (unsigned char)size;
  }
  memcpy(frame + head, text, size);
  write_all(fd, frame, head + size);
}

/* The next text, or "closed CODE" for a close frame, or "gone" when there is none any more. It holds until the next call. */
static inline const char *hear(int fd) {
  static char text[65536];
  unsigned char head[4];
  size_t size;
  if (!read_all(fd, head, 2)) return "gone";
  size = head[1] & 0x7f;
  if (size == 126) {
    CHECK(read_all(fd, head + 2, 2));
    size = (size_t)head[2] << 8 | head[3];
  }
  CHECK(size < sizeof text);
  if (!read_all(fd, text, size)) return "gone";
  text[size] = 0;
  if (head[0] == 0x88) {
    unsigned code = size < 2 ? 1005 : (unsigned)(unsigned char)text[0] << 8 | (unsigned char)text[1];
    snprintf(text, sizeof text, "closed %u", code);
  }
  return text;
}

/* The next text has this in it. */
static inline const char *hears(int fd, const char *part) {
  const char *text = hear(fd);
  if (strstr(text, part) == NULL) {
    fprintf(stderr, "heard %s, expected %s\n", text, part);
    _Exit(1);
  }
  return text;
}

#endif
