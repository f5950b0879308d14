/* An epoll loop, which is level-triggered, and a blocking one, which another thread ends. */
#include "check.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

static void epoll_loop(pubsub_broker *broker) {
  pubsub_link *here = open_link(broker, "epoll"), *there = open_link(broker, "there");
  struct epoll_event ready = {.events = EPOLLIN};
  int epoll = epoll_create1(EPOLL_CLOEXEC), seen = 0, index;
  pubsub_event event;
  uint64_t ticket;
  CHECK(epoll >= 0);
  OK(pubsub_subscribe(here, "news", 4, &ticket));
  settled(here, ticket);
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pubsub_link_fd(here), &ready) == 0);
  CHECK(pubsub_link_drain(here, &event, 1) == 0);
  CHECK(epoll_wait(epoll, &ready, 1, 0) == 0);
  for (index = 0; index < 100; index++) OK(pubsub_publish(there, "news", 4, "1", 1));
  OK(pubsub_publish_with(there, "news", 4, "2", 1, 0, &ticket));
  settled(there, ticket);
  /* Readable for as long as anything is left, with one event taken at a time. */
  while (seen < 101) {
    CHECK(epoll_wait(epoll, &ready, 1, DEADLINE_MS) == 1);
    seen += pubsub_link_drain(here, &event, 1);
  }
  CHECK(IS(event, data, "2"));
  CHECK(pubsub_link_drain(here, &event, 1) == 0);
  CHECK(epoll_wait(epoll, &ready, 1, 0) == 0);
  OK(pubsub_link_close(here));
  CHECK(epoll_wait(epoll, &ready, 1, DEADLINE_MS) == 1);
  await(here, PUBSUB_EV_CLOSED);
  /* After the last event it is quiet. */
  CHECK(pubsub_link_drain(here, &event, 1) == -PUBSUB_ESTOPPED);
  CHECK(epoll_wait(epoll, &ready, 1, 0) == 0);
  close(epoll);
  OK(pubsub_link_free(here));
  OK(pubsub_link_free(there));
}

static void *blocking(void *link) {
  pubsub_event events[8];
  int total = 0;
  for (;;) {
    pubsub_status status = pubsub_link_wait(link, -1);
    int count;
    if (status == PUBSUB_ESTOPPED || status == PUBSUB_EINVAL) break;
    CHECK(status == PUBSUB_OK);
    count = pubsub_link_drain(link, events, 8);
    if (count < 0) break;
    total += count;
  }
  CHECK(total > 0);
  return NULL;
}

static void blocking_loop(pubsub_broker *broker) {
  pubsub_link *here = open_link(broker, "blocking"), *there = open_link(broker, "other");
  pubsub_link *twin = NULL;
  pthread_t thread;
  uint64_t ticket;
  CHECK(pubsub_link_wait(here, 0) == PUBSUB_ETIMEOUT);
  CHECK(pubsub_link_wait(here, 20) == PUBSUB_ETIMEOUT);
  OK(pubsub_handle(here, "count", 5, &ticket));
  settled(here, ticket);
  CHECK(pthread_create(&thread, NULL, blocking, here) == 0);
  OK(pubsub_emit(there, pubsub_to_service(), "count", 5, "1", 1, 0, &ticket));
  settled(there, ticket);
  /* Its name is taken as long as it is alive. */
  CHECK(pubsub_link_open(broker, "blocking", &twin) == PUBSUB_EREFUSED);
  CHECK(strstr(pubsub_last_error(), "refused") != NULL && twin == NULL);
  /* Closed under it, it is told. */
  OK(pubsub_link_close(here));
  CHECK(pthread_join(thread, NULL) == 0);
  OK(pubsub_link_free(here));
  /* Freed under it, it comes back as well. */
  here = open_link(broker, "blocking");
  OK(pubsub_handle(here, "count", 5, NULL));
  CHECK(pthread_create(&thread, NULL, blocking, here) == 0);
  OK(pubsub_request(there, pubsub_to_peer("blocking"), "x", 1, "1", 1, 0, 100, &ticket));
  answer(there, ticket);
  OK(pubsub_link_free(here));
  CHECK(pthread_join(thread, NULL) == 0);
  OK(pubsub_link_free(there));
}

int main(void) {
  pubsub_broker *broker = start();
  epoll_loop(broker);
  blocking_loop(broker);
  OK(pubsub_broker_free(broker));
  return 0;
}
