/* The broker in a program that has an event loop of its own: one more descriptor to watch.
 *
 *   ./epoll [ADDRESS]                  (127.0.0.1:8000)
 *
 * It answers requests, passes on what is published under `news`, and ends when a line comes on standard input.
 */
#define _GNU_SOURCE
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "epoll: %s: %s\n", what, pubsub_last_error());
  exit(1);
}

static void handle(pubsub_link *link) {
  pubsub_event events[256];
  int count = pubsub_link_drain(link, events, 256);
  for (int i = 0; i < count; i++) {
    switch (events[i].type) {
      case PUBSUB_EV_MESSAGE:
        pubsub_publish(link, "archive", 7, events[i].data, events[i].data_size);
        break;
      case PUBSUB_EV_REQUEST:
        pubsub_reply(link, events[i].request, "9", 1);
        break;
      case PUBSUB_EV_GAP:
        printf("%llu messages were missed\n", (unsigned long long)events[i].count);
        break;
    }
  }
}

int main(int argc, char **argv) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  pubsub_link *link;
  char address[128];
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event of_link = {.events = EPOLLIN, .data = {.fd = 1}}, of_input = {.events = EPOLLIN, .data = {.fd = 0}};
  if (pubsub_options_set(options, "listen", argc > 1 ? argv[1] : "127.0.0.1:8000")) die("listen");
  if (pubsub_broker_start(options, &broker) || pubsub_link_open(broker, "app", &link)) die("start");
  pubsub_options_free(options);
  pubsub_link_events(link, PUBSUB_EV_EVENT);
  pubsub_subscribe(link, "news", 4, NULL);
  epoll_ctl(epoll, EPOLL_CTL_ADD, pubsub_link_fd(link), &of_link);
  epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &of_input);
  if (pubsub_broker_address(broker, "listen", 0, address, sizeof address)) die("address");
  printf("epoll on %s\n", address);
  fflush(stdout);
  for (;;) {
    struct epoll_event ready;
    /* Level-triggered: readable as long as an event is left, so nothing is lost by taking only some. */
    if (epoll_wait(epoll, &ready, 1, -1) != 1) continue;
    if (ready.data.fd == 0) break;
    handle(link);
  }
  /* In order: everybody is told to go elsewhere. */
  pubsub_broker_stop(broker);
  pubsub_link_free(link);
  pubsub_broker_free(broker);
  close(epoll);
  return 0;
}
