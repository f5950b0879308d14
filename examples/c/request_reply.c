/* Two programs: one has the broker and asks, the other is a peer over a Unix socket and answers.
 *
 *   ./request_reply serve unix:/tmp/hub.sock &      the broker; asks whoever can add
 *   ./request_reply answer unix:/tmp/hub.sock       a peer; adds
 */
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
  fprintf(stderr, "request_reply: %s: %s\n", what, pubsub_last_error());
  exit(1);
}

static int serve(const char *peers) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  pubsub_link *link;
  uint64_t asked = 0;
  if (pubsub_options_set(options, "listen", "127.0.0.1:0") || pubsub_options_set(options, "peers", peers)) die("options");
  if (pubsub_broker_start(options, &broker)) die("broker");
  pubsub_options_free(options);
  if (pubsub_link_open(broker, "hub", &link) || pubsub_link_events(link, PUBSUB_EV_PEER_UP)) die("link");
  printf("waiting for peers\n");
  fflush(stdout);
  while (pubsub_link_wait(link, -1) == PUBSUB_OK) {
    pubsub_event event;
    if (pubsub_link_drain(link, &event, 1) != 1) continue;
    if (event.type == PUBSUB_EV_PEER_UP) {
      printf("%.*s is here\n", (int)event.name_size, event.name);
    } else if (event.type == PUBSUB_EV_DONE && event.ticket == asked && event.status == PUBSUB_OK) {
      printf("5 + 4 = %.*s\n", (int)event.data_size, event.data);
      break;
    } else if (event.type != PUBSUB_EV_DONE || event.status != PUBSUB_ENOTFOUND) {
      continue;
    }
    /* A peer has come; what it handles, it says next. Until then nobody is found. */
    if (pubsub_request(link, pubsub_to_any_peer(), "add", 3, "[5,4]", 5, PUBSUB_JSON, 5000, &asked)) die("request");
  }
  fflush(stdout);
  pubsub_link_free(link);
  pubsub_broker_stop(broker);
  pubsub_broker_free(broker);
  return 0;
}

static int answer(const char *url) {
  pubsub_link *link;
  if (pubsub_connect(url, "calc-1", NULL, &link)) die("connect");
  /* Said before it is connected: it waits, and is said again after each reconnect. */
  if (pubsub_handle(link, "add", 3, NULL)) die("handle");
  for (;;) {
    pubsub_event event;
    int count;
    pubsub_link_wait(link, -1);
    count = pubsub_link_drain(link, &event, 1);
    if (count < 0) break;
    if (count == 0) continue;
    if (event.type == PUBSUB_EV_REQUEST) {
      char data[64] = "";
      int a, b;
      if (event.data_size < sizeof data) memcpy(data, event.data, event.data_size);
      if (sscanf(data, "[%d,%d]", &a, &b) == 2) {
        int size = snprintf(data, sizeof data, "%d", a + b);
        pubsub_reply(link, event.request, data, (size_t)size);
      } else {
        pubsub_reply_error(link, event.request, "bad_numbers", "two numbers, please");
      }
    } else if (event.type == PUBSUB_EV_DOWN || event.type == PUBSUB_EV_CLOSED) {
      printf("the hub is gone: %.*s\n", (int)event.reason_size, event.reason);
      break;
    }
  }
  pubsub_link_free(link);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
  if (argc == 3 && strcmp(argv[1], "answer") == 0) return answer(argv[2]);
  fprintf(stderr, "usage: request_reply serve|answer unix:/PATH|HOST:PORT\n");
  return 2;
}
