/* The program ends with a broker, links and connections that live, and with a thread that waits. */
#include "websocket.h"

#include <pthread.h>

static void *waiting(void *link) {
  pubsub_link_wait(link, -1);
  return NULL;
}

int main(void) {
  pubsub_broker *broker = start_with("shards", "2");
  pubsub_link *link = open_link(broker, "link"), *idle = open_link(broker, "idle");
  pthread_t thread;
  uint64_t ticket;
  OK(pubsub_link_events(link, PUBSUB_EV_CONNECT));
  OK(pubsub_subscribe(link, "a", 1, &ticket));
  settled(link, ticket);
  websocket(broker, "/");
  await(link, PUBSUB_EV_CONNECT);
  CHECK(pthread_create(&thread, NULL, waiting, idle) == 0);
  OK(pubsub_publish_with(link, "a", 1, "1", 1, PUBSUB_ECHO, NULL));
  return 0;
}
