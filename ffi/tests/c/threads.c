/* Eight threads publish over one link while another one drains: all of it comes, each thread's in its order. */
#include "check.h"

#include <pthread.h>

#define THREADS 8
#define EACH 2000

static pubsub_link *from;

static void *publish(void *arg) {
  unsigned self = *(unsigned *)arg, index;
  for (index = 0; index < EACH; index++) {
    char text[32];
    int size = snprintf(text, sizeof text, "%u %u", self, index);
    pubsub_status status;
    /* The queue has an end; the broker takes from it meanwhile. */
    while ((status = pubsub_publish(from, "count", 5, text, (size_t)size)) == PUBSUB_EFULL) sched_yield();
    CHECK(status == PUBSUB_OK);
  }
  return NULL;
}

int main(void) {
  pubsub_broker *broker = start_with("shards", "2");
  pubsub_link *to = open_link(broker, "to");
  pthread_t threads[THREADS];
  unsigned selves[THREADS], seen[THREADS] = {0}, left = THREADS * EACH, index;
  pubsub_event events[64];
  uint64_t ticket;
  from = open_link(broker, "from");
  OK(pubsub_subscribe(to, "count", 5, &ticket));
  settled(to, ticket);
  for (index = 0; index < THREADS; index++) {
    selves[index] = index;
    CHECK(pthread_create(&threads[index], NULL, publish, &selves[index]) == 0);
  }
  while (left > 0) {
    int count = pubsub_link_drain(to, events, 64), at;
    CHECK(count >= 0);
    if (count == 0) OK(pubsub_link_wait(to, DEADLINE_MS));
    for (at = 0; at < count; at++) {
      unsigned self, number;
      char text[32] = "";
      if (events[at].type == PUBSUB_EV_GAP) {
        /* Whoever is behind is told so. The rest is in order all the same. */
        left -= (unsigned)events[at].count;
        continue;
      }
      CHECK(events[at].type == PUBSUB_EV_MESSAGE && events[at].data_size < sizeof text);
      memcpy(text, events[at].data, events[at].data_size);
      CHECK(sscanf(text, "%u %u", &self, &number) == 2 && self < THREADS);
      CHECK(number >= seen[self]);
      seen[self] = number + 1;
      left--;
    }
  }
  for (index = 0; index < THREADS; index++) CHECK(pthread_join(threads[index], NULL) == 0);
  /* Two threads do not drain at once. */
  OK(pubsub_link_free(to));
  OK(pubsub_link_free(from));
  OK(pubsub_broker_free(broker));
  return 0;
}
