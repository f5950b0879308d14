/* A shard that fails (PUBSUB_FAULT=panic:shard:1) stops the broker: links are told, calls answer, the host lives. */
#include "websocket.h"

/* The last event of a link comes, and is the last. */
static void ends(pubsub_link *link) {
  pubsub_event event;
  for (;;) {
    int count = pubsub_link_drain(link, &event, 1);
    if (count == -PUBSUB_ESTOPPED) return;
    CHECK(count >= 0);
    if (count == 0) CHECK(pubsub_link_wait(link, DEADLINE_MS) != PUBSUB_ETIMEOUT);
    if (count == 1 && event.type == PUBSUB_EV_STOPPED) CHECK(pubsub_link_drain(link, &event, 1) == -PUBSUB_ESTOPPED);
  }
}

int main(void) {
  pubsub_broker *broker, *next_one;
  pubsub_link *one, *two, *late;
  pubsub_event event;
  char address[64];
  int client;
  memset(&event, 0, sizeof event);
  CHECK(setenv("PUBSUB_FAULT", "panic:shard:40", 1) == 0);
  broker = start_with("shards", "2");
  CHECK(unsetenv("PUBSUB_FAULT") == 0);
  one = open_link(broker, "one");
  two = open_link(broker, "two");
  OK(pubsub_link_events(one, PUBSUB_EV_LOG));
  OK(pubsub_subscribe(two, "a", 1, NULL));
  client = dial(broker);
  /* Work until the shard meets its fault. */
  for (;;) {
    pubsub_status status = pubsub_publish(one, "a", 1, "1", 1);
    if (status == PUBSUB_ESTOPPED) break;
    CHECK(status == PUBSUB_OK || status == PUBSUB_EFULL);
    pubsub_link_drain(two, &event, 1);
    if (event.type == PUBSUB_EV_STOPPED) break;
  }
  ends(one);
  ends(two);
  CHECK(pubsub_publish(two, "a", 1, "1", 1) == PUBSUB_ESTOPPED);
  CHECK(pubsub_subscribe(one, "b", 1, NULL) == PUBSUB_ESTOPPED);
  CHECK(pubsub_link_open(broker, "late", &late) == PUBSUB_ESTOPPED);
  OK(pubsub_broker_address(broker, NULL, 0, address, sizeof address));
  CHECK(pubsub_broker_stop(broker) == PUBSUB_ESTOPPED);
  CHECK(strstr(pubsub_last_error(), "has ended") != NULL);
  OK(pubsub_broker_free(broker));
  OK(pubsub_link_free(one));
  OK(pubsub_link_free(two));
  close(client);
  /* And may start another one. */
  next_one = start();
  one = open_link(next_one, "one");
  OK(pubsub_link_free(one));
  OK(pubsub_broker_free(next_one));
  return 0;
}
