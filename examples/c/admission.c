/* Nobody comes in unasked: the application looks at the query, and asks each client that it lets in for its name.
 *
 *   ./admission [ADDRESS]              (127.0.0.1:8000)
 *
 *   new WebSocket('ws://localhost:8000/?ticket=blue')   comes in; any other ticket gets 401
 */
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
  fprintf(stderr, "admission: %s: %s\n", what, pubsub_last_error());
  exit(1);
}

int main(int argc, char **argv) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  pubsub_link *link;
  char address[128];
  uint64_t asked;
  if (pubsub_options_set(options, "listen", argc > 1 ? argv[1] : "127.0.0.1:8000")) die("listen");
  /* From the first moment, not only from the first link on. */
  if (pubsub_options_set(options, "admission", "host")) die("admission");
  if (pubsub_broker_start(options, &broker)) die("broker");
  pubsub_options_free(options);
  if (pubsub_link_open(broker, "door", &link)) die("link");
  if (pubsub_link_events(link, PUBSUB_EV_ADMIT | PUBSUB_EV_CONNECT)) die("events");
  if (pubsub_broker_address(broker, "listen", 0, address, sizeof address)) die("address");
  printf("admission on %s\n", address);
  fflush(stdout);
  while (pubsub_link_wait(link, -1) == PUBSUB_OK) {
    pubsub_event events[16];
    int count = pubsub_link_drain(link, events, 16);
    for (int i = 0; i < count; i++) {
      const pubsub_event *event = &events[i];
      const char ticket[] = "ticket=blue";
      switch (event->type) {
        case PUBSUB_EV_ADMIT:
          /* It may as well be answered later: the client waits, for 10 s at most. */
          if (event->arrival->query.size == strlen(ticket) &&
              memcmp(event->arrival->query.bytes, ticket, strlen(ticket)) == 0)
            pubsub_admit(link, event->client, PUBSUB_OK, NULL);
          else
            pubsub_admit(link, event->client, PUBSUB_ENOTALLOWED, "the ticket is not blue");
          break;
        case PUBSUB_EV_CONNECT:
          pubsub_request(link, pubsub_to_client(event->client), "name?", 5, "null", 4, PUBSUB_JSON, 5000, &asked);
          break;
        case PUBSUB_EV_DONE:
          if (event->status == PUBSUB_OK)
            printf("%.*s is here\n", (int)event->data_size, event->data);
          else
            printf("somebody does not say who it is: %.*s\n", (int)event->error_size, event->error);
          fflush(stdout);
          break;
      }
    }
  }
  pubsub_link_free(link);
  pubsub_broker_free(broker);
  return 0;
}
