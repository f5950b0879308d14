/* A host that does not drain costs only itself: topic messages are dropped and told, requests are answered by `busy` or
 * `timeout`, what comes and goes is kept, and another host's clients are served. */
#include "websocket.h"

int main(void) {
  static char large[60000];
  pubsub_broker *broker = start();
  pubsub_link *slow = open_link(broker, "slow"), *fast = open_link(broker, "fast");
  pubsub_event event;
  uint64_t ticket, dropped = 0, messages = 0;
  int index, connects = 0, disconnects = 0;
  memset(large, 'x', sizeof large);
  OK(pubsub_link_events(slow, PUBSUB_EV_CONNECT | PUBSUB_EV_DISCONNECT));
  OK(pubsub_subscribe(slow, "flood", 5, &ticket));
  settled(slow, ticket);
  OK(pubsub_handle(slow, "work", 4, &ticket));
  settled(slow, ticket);
  /* 1200 messages of 60 kB are more than all queues on the way hold together (32 MiB). */
  for (index = 0; index < 1200; index++) {
    pubsub_status status;
    while ((status = pubsub_publish_with(fast, "flood", 5, large, sizeof large, PUBSUB_TEXT, NULL)) == PUBSUB_EFULL)
      pubsub_link_wait(fast, 1);
    CHECK(status == PUBSUB_OK);
  }
  for (index = 0; index < 5; index++) {
    int client = websocket(broker, "/");
    say(client, "{\"type\":\"ping\"}");
    hears(client, "pong");
    close(client);
  }
  OK(pubsub_request(fast, pubsub_to_service(), "work", 4, "1", 1, 0, 100, &ticket));
  event = answer(fast, ticket);
  CHECK(event.status == PUBSUB_EBUSY || event.status == PUBSUB_ETIMEOUT);
  /* Awake again, it is told everything that had to be kept, and how much was not. */
  while (disconnects < 5) {
    event = next(slow);
    if (event.type == PUBSUB_EV_CONNECT) connects++;
    if (event.type == PUBSUB_EV_DISCONNECT) disconnects++;
    if (event.type == PUBSUB_EV_GAP) dropped += event.count;
    if (event.type == PUBSUB_EV_MESSAGE) messages++;
  }
  while (messages + dropped < 1200) {
    event = next(slow);
    if (event.type == PUBSUB_EV_GAP) dropped += event.count;
    if (event.type == PUBSUB_EV_MESSAGE) messages++;
  }
  CHECK(connects == 5 && dropped > 0 && messages > 0 && messages + dropped == 1200);
  OK(pubsub_link_free(slow));
  OK(pubsub_link_free(fast));
  OK(pubsub_broker_free(broker));
  return 0;
}
