/* A hundred times: load the library, run a broker with a link, unload it. Nothing is left, not even the library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      _Exit(1);                                                   \
    }                                                             \
  } while (0)

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  CHECK(found != NULL);
  return found;
}

/* A pointer to a function out of one to an object, which ISO C has no cast for. */
#define LOAD(name)                        \
  do {                                    \
    void *found = symbol(library, #name); \
    memcpy(&name##_, &found, sizeof found);  \
  } while (0)

static int is_mapped(void) {
  char line[512];
  int found = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL) found |= strstr(line, "libpubsub.so") != NULL;
  fclose(maps);
  return found;
}

static int threads(void) {
  char line[512];
  int count = 0;
  FILE *status = fopen("/proc/self/status", "r");
  CHECK(status != NULL);
  while (fgets(line, sizeof line, status) != NULL) sscanf(line, "Threads: %d", &count);
  fclose(status);
  return count;
}

int main(int count, char **arguments) {
  int cycles = count > 1 ? atoi(arguments[1]) : 100, cycle;
  for (cycle = 0; cycle < cycles; cycle++) {
    pubsub_options *(*pubsub_options_new_)(void);
    pubsub_status (*pubsub_options_set_)(pubsub_options *, const char *, const char *);
    pubsub_status (*pubsub_options_free_)(pubsub_options *);
    pubsub_status (*pubsub_broker_start_)(const pubsub_options *, pubsub_broker **);
    pubsub_status (*pubsub_broker_stop_)(pubsub_broker *);
    pubsub_status (*pubsub_broker_free_)(pubsub_broker *);
    pubsub_status (*pubsub_link_open_)(pubsub_broker *, const char *, pubsub_link **);
    pubsub_status (*pubsub_link_wait_)(pubsub_link *, int32_t);
    pubsub_status (*pubsub_link_events_)(pubsub_link *, uint32_t);
    int (*pubsub_link_drain_)(pubsub_link *, pubsub_event *, size_t);
    pubsub_status (*pubsub_link_free_)(pubsub_link *);
    pubsub_status (*pubsub_publish_with_)(pubsub_link *, const char *, size_t, const void *, size_t, uint32_t, uint64_t *);
    pubsub_status (*pubsub_subscribe_)(pubsub_link *, const char *, size_t, uint64_t *);
    pubsub_options *options;
    pubsub_broker *broker;
    pubsub_link *link;
    pubsub_event event;
    void *library = dlopen("libpubsub.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    LOAD(pubsub_options_new);
    LOAD(pubsub_options_set);
    LOAD(pubsub_options_free);
    LOAD(pubsub_broker_start);
    LOAD(pubsub_broker_stop);
    LOAD(pubsub_broker_free);
    LOAD(pubsub_link_open);
    LOAD(pubsub_link_wait);
    LOAD(pubsub_link_events);
    LOAD(pubsub_link_drain);
    LOAD(pubsub_link_free);
    LOAD(pubsub_publish_with);
    LOAD(pubsub_subscribe);
    memset(&event, 0, sizeof event);
    options = pubsub_options_new_();
    CHECK(pubsub_options_set_(options, "listen", "127.0.0.1:0") == PUBSUB_OK);
    CHECK(pubsub_options_set_(options, "admin", "127.0.0.1:0") == PUBSUB_OK);
    CHECK(pubsub_broker_start_(options, &broker) == PUBSUB_OK);
    CHECK(pubsub_options_free_(options) == PUBSUB_OK);
    CHECK(pubsub_link_open_(broker, "link", &link) == PUBSUB_OK);
    CHECK(pubsub_link_events_(link, PUBSUB_EV_CONNECT) == PUBSUB_OK);
    CHECK(pubsub_subscribe_(link, "a", 1, NULL) == PUBSUB_OK);
    CHECK(pubsub_publish_with_(link, "a", 1, "1", 1, PUBSUB_ECHO, NULL) == PUBSUB_OK);
    do {
      CHECK(pubsub_link_wait_(link, 60000) == PUBSUB_OK);
      CHECK(pubsub_link_drain_(link, &event, 1) >= 0);
    } while (event.type != PUBSUB_EV_MESSAGE);
    CHECK(is_mapped() && threads() > 1);
    /* In order, at once, and with the link first or last. */
    if (cycle % 2 == 0) CHECK(pubsub_link_free_(link) == PUBSUB_OK);
    if (cycle % 3 == 0) CHECK(pubsub_broker_stop_(broker) == PUBSUB_OK);
    CHECK(pubsub_broker_free_(broker) == PUBSUB_OK);
    if (cycle % 2 == 1) CHECK(pubsub_link_free_(link) == PUBSUB_OK);
    CHECK(dlclose(library) == 0);
    CHECK(threads() == 1);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what it has instrumented calls into */
    CHECK(!is_mapped());
#endif
  }
  return 0;
}
