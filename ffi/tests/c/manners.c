/* What the library leaves alone: signal handlers, signals, SIGPIPE, standard output and error, the working directory. */
#include "websocket.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static pthread_t main_thread;
static volatile sig_atomic_t caught;

static void on_signal(int number) {
  (void)number;
  /* All threads of the library block it, so it comes to the host's. */
  if (pthread_equal(pthread_self(), main_thread)) caught++;
}

int main(void) {
  struct sigaction before[65], after;
  struct sigaction own;
  pubsub_broker *broker;
  pubsub_link *link;
  uint64_t ticket;
  int number, client;
  main_thread = pthread_self();
  memset(&own, 0, sizeof own);
  own.sa_handler = on_signal;
  CHECK(sigaction(SIGTERM, &own, NULL) == 0);
  for (number = 1; number < 65; number++) sigaction(number, NULL, &before[number]);
  broker = start_with("shards", "2");
  link = open_link(broker, "link");
  OK(pubsub_handle(link, "x", 1, &ticket));
  settled(link, ticket);
  for (number = 1; number < 65; number++) {
    if (sigaction(number, NULL, &after) != 0) continue;
    CHECK(before[number].sa_handler == after.sa_handler && before[number].sa_flags == after.sa_flags);
  }
  for (number = 0; number < 20; number++) {
    int expected = caught + 1;
    CHECK(kill(getpid(), SIGTERM) == 0);
    CHECK(caught == expected);
  }
  /* Connections that break under the broker raise nothing, though SIGPIPE would end this program. */
  for (number = 0; number < 5; number++) {
    client = websocket(broker, "/");
    say(client, "{\"type\":\"subscribe\",\"topic\":\"a\"}");
    hears(client, "ack");
    close(client);
    OK(pubsub_publish(link, "a", 1, "1", 1));
  }
  OK(pubsub_publish_with(link, "a", 1, "1", 1, 0, &ticket));
  settled(link, ticket);
  OK(pubsub_link_free(link));
  OK(pubsub_broker_free(broker));
  return 0;
}
