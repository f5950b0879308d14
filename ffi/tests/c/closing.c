/* A host that closes its link, or disconnects its client, in the middle of a batch; and brokers that end before links. */
#include "websocket.h"

int main(void) {
  pubsub_broker *broker = start();
  pubsub_link *host = open_link(broker, "host"), *other = open_link(broker, "other");
  pubsub_event events[8];
  char before[32];
  uint64_t ticket;
  int client, count, index;
  OK(pubsub_link_events(host, PUBSUB_EV_CONNECT | PUBSUB_EV_EVENT | PUBSUB_EV_DISCONNECT));
  OK(pubsub_subscribe(host, "news", 4, &ticket));
  settled(host, ticket);
  client = websocket(broker, "/");
  await(host, PUBSUB_EV_CONNECT);
  for (index = 0; index < 8; index++) {
    char text[32];
    int size = snprintf(text, sizeof text, "\"number %d\"", index);
    OK(pubsub_publish_with(other, "news", 4, text, (size_t)size, 0, &ticket));
    settled(other, ticket);
  }
  for (count = 0; count < 8;) {
    OK(pubsub_link_wait(host, DEADLINE_MS));
    count = pubsub_link_drain(host, events, 8);
    CHECK(count >= 1);
    break;
  }
  /* What a batch points to stays when the link is closed, until the next drain or the free. */
  memcpy(before, events[0].data, events[0].data_size);
  OK(pubsub_link_close(host));
  CHECK(IS(events[0], data, "\"number 0\"") && memcmp(before, events[0].data, events[0].data_size) == 0);
  CHECK(pubsub_emit_all(host, "late", 4, "1", 1, 0, NULL) == PUBSUB_ESTOPPED);
  hears(client, "closed 1012");
  await(host, PUBSUB_EV_CLOSED);
  OK(pubsub_link_free(host));
  CHECK(pubsub_link_drain(host, events, 8) == -PUBSUB_EINVAL);
  close(client);

  /* A host that dies takes its clients with it: they are to come back. */
  host = open_link(broker, "host");
  OK(pubsub_link_events(host, PUBSUB_EV_CONNECT));
  OK(pubsub_handle(host, "ready", 5, &ticket));
  settled(host, ticket);
  client = websocket(broker, "/");
  await(host, PUBSUB_EV_CONNECT);
  OK(pubsub_link_free(host));
  hears(client, "closed 1012");
  close(client);

  /* Stopped in order, clients are told to go elsewhere, and links that there is nothing more. */
  client = websocket(broker, "/");
  OK(pubsub_broker_stop(broker));
  hears(client, "closed 1001");
  await(other, PUBSUB_EV_STOPPED);
  CHECK(pubsub_subscribe(other, "a", 1, NULL) == PUBSUB_ESTOPPED);
  CHECK(pubsub_link_open(broker, "late", &host) == PUBSUB_ESTOPPED);
  OK(pubsub_broker_free(broker));
  OK(pubsub_link_free(other));
  close(client);
  return 0;
}
