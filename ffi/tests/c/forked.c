/* A child that was forked has the handles and no threads: every call says so, and the parent goes on. */
#include "websocket.h"

#include <sys/wait.h>

int main(void) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker = start();
  pubsub_link *link = open_link(broker, "link"), *made = NULL;
  pubsub_event event;
  uint64_t ticket;
  int status;
  pid_t child;
  OK(pubsub_subscribe(link, "a", 1, &ticket));
  settled(link, ticket);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    char text[64];
#define FORKED(call) if ((call) != PUBSUB_EFORK) _exit(__LINE__ % 250 + 1)
    FORKED(pubsub_options_set(options, "listen", "127.0.0.1:0"));
    FORKED(pubsub_options_free(options));
    FORKED(pubsub_broker_address(broker, NULL, 0, text, sizeof text));
    FORKED(pubsub_broker_start(NULL, &broker));
    FORKED(pubsub_link_open(broker, "child", &made));
    FORKED(pubsub_connect("tcp://127.0.0.1:1", "child", NULL, &made));
    FORKED(pubsub_publish(link, "a", 1, "1", 1));
    FORKED(pubsub_link_wait(link, -1));
    FORKED(-pubsub_link_drain(link, &event, 1));
    FORKED(-pubsub_link_fd(link));
    FORKED(pubsub_link_close(link));
    FORKED(pubsub_link_free(link));
    FORKED(pubsub_broker_stop(broker));
    FORKED(pubsub_broker_free(broker));
    if (pubsub_options_new() != NULL || made != NULL) _exit(251);
    if (strstr(pubsub_last_error(), "child") == NULL) _exit(252);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  /* Nothing of it was felt here. */
  OK(pubsub_publish_with(link, "a", 1, "1", 1, PUBSUB_ECHO, NULL));
  event = await(link, PUBSUB_EV_MESSAGE);
  CHECK(IS(event, data, "1"));
  close(websocket(broker, "/"));
  OK(pubsub_link_free(link));
  OK(pubsub_broker_stop(broker));
  OK(pubsub_broker_free(broker));
  OK(pubsub_options_free(options));
  return 0;
}
