/* Without an event loop: a program that waits for what comes, and does nothing else.
 *
 *   ./blocking URL TOPIC               prints what is published in a broker elsewhere
 *   ./blocking unix:/tmp/hub.sock news
 */
#include <pubsub.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  pubsub_link *link;
  pubsub_status status;
  uint64_t ticket;
  if (argc != 3) {
    fprintf(stderr, "usage: blocking unix:/PATH|tcp://HOST:PORT TOPIC\n");
    return 2;
  }
  if (pubsub_connect(argv[1], "printer", NULL, &link) || pubsub_subscribe(link, argv[2], strlen(argv[2]), &ticket)) {
    fprintf(stderr, "blocking: %s\n", pubsub_last_error());
    return 1;
  }
  while ((status = pubsub_link_wait(link, -1)) == PUBSUB_OK) {
    pubsub_event events[32];
    int count = pubsub_link_drain(link, events, 32);
    for (int i = 0; i < count; i++) {
      const pubsub_event *event = &events[i];
      if (event->type == PUBSUB_EV_DONE && event->ticket == ticket) fprintf(stderr, "subscribed\n");
      if (event->type == PUBSUB_EV_DOWN) fprintf(stderr, "no connection: %.*s\n", (int)event->reason_size, event->reason);
      if (event->type == PUBSUB_EV_CLOSED) fprintf(stderr, "closed: %.*s\n", (int)event->reason_size, event->reason);
      if (event->type == PUBSUB_EV_MESSAGE)
        printf("%.*s\t%.*s\n", (int)event->topic_size, event->topic, (int)event->data_size, event->data);
    }
    fflush(stdout);
  }
  fprintf(stderr, "blocking: %s\n", pubsub_status_text(status));
  pubsub_link_free(link);
  return 1;
}
