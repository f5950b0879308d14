/* What the test programs share: checks that end the program, a broker and its links, events that are waited for. */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An event that is not there by then never comes. Long enough for valgrind. */
#define DEADLINE_MS 60000

#define CHECK(condition)                                                                          \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, pubsub_last_error());   \
      _Exit(1);                                                                                   \
    }                                                                                             \
  } while (0)

#define OK(call) CHECK((call) == PUBSUB_OK)

#define IS(event, field, text) \
  ((event).field##_size == strlen(text) && memcmp((event).field, text, strlen(text)) == 0)

/* A broker on a free port, with one more option if `name` is not NULL. */
static inline pubsub_broker *start_with(const char *name, const char *value) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker = NULL;
  CHECK(options != NULL);
  OK(pubsub_options_set(options, "listen", "127.0.0.1:0"));
  if (name != NULL) OK(pubsub_options_set(options, name, value));
  OK(pubsub_broker_start(options, &broker));
  OK(pubsub_options_free(options));
  return broker;
}

static inline pubsub_broker *start(void) { return start_with(NULL, NULL); }

static inline pubsub_link *open_link(pubsub_broker *broker, const char *name) {
  pubsub_link *link = NULL;
  OK(pubsub_link_open(broker, name, &link));
  CHECK(link != NULL);
  return link;
}

/* The next event, whatever it is; it holds until the next call. */
#define next(link) next_at(link, __LINE__)
/* The next event of this type; those before it are forgotten. */
#define await(link, type) await_at(link, type, __LINE__)
/* The answer to this call. */
#define answer(link, ticket) answer_at(link, ticket, __LINE__)
/* The call took effect. */
#define settled(link, ticket) settled_at(link, ticket, __LINE__)

static inline void give_up(const pubsub_event *event, const char *why, int line) {
  fprintf(stderr, "line %d: %s", line, why);
  if (event != NULL) {
    fprintf(stderr, " (type %#x, %.*s, %.*s)", (unsigned)event->type, (int)event->error_size,
            event->error_size == 0 ? "" : event->error, (int)event->reason_size,
            event->reason_size == 0 ? "" : event->reason);
  }
  fprintf(stderr, "\n");
  _Exit(1);
}

static inline pubsub_event next_at(pubsub_link *link, int line) {
  pubsub_event event;
  int count;
  while ((count = pubsub_link_drain(link, &event, 1)) == 0) {
    if (pubsub_link_wait(link, DEADLINE_MS) != PUBSUB_OK) give_up(NULL, pubsub_last_error(), line);
  }
  if (count != 1) give_up(NULL, pubsub_last_error(), line);
  return event;
}

static inline pubsub_event await_at(pubsub_link *link, uint32_t type, int line) {
  for (;;) {
    pubsub_event event = next_at(link, line);
    if (event.type == type) return event;
    if (event.type == PUBSUB_EV_STOPPED || event.type == PUBSUB_EV_CLOSED) give_up(&event, "the end came first", line);
  }
}

static inline pubsub_event answer_at(pubsub_link *link, uint64_t ticket, int line) {
  for (;;) {
    pubsub_event event = await_at(link, PUBSUB_EV_DONE, line);
    if (event.ticket == ticket) return event;
  }
}

static inline void settled_at(pubsub_link *link, uint64_t ticket, int line) {
  pubsub_event event = answer_at(link, ticket, line);
  if (event.status != PUBSUB_OK) give_up(&event, "refused", line);
}

#endif
