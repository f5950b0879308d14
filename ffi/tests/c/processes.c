/* Two processes over a Unix socket: this one asks, the program started again with arguments answers. */
#include "check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int answering(const char *url) {
  pubsub_link *link;
  uint64_t ticket;
  OK(pubsub_connect(url, "calc-1", "a-secret", &link));
  OK(pubsub_handle(link, "add", 3, &ticket));
  for (;;) {
    pubsub_event event = next(link);
    if (event.type == PUBSUB_EV_REQUEST) {
      char data[64] = "";
      int a, b, size;
      CHECK(event.data_size < sizeof data);
      memcpy(data, event.data, event.data_size);
      if (sscanf(data, "[%d,%d]", &a, &b) == 2) {
        size = snprintf(data, sizeof data, "%d", a + b);
        OK(pubsub_reply(link, event.request, data, (size_t)size));
      } else {
        OK(pubsub_reply_error(link, event.request, "not_numbers", "two numbers, please"));
      }
    } else if (event.type == PUBSUB_EV_EVENT) {
      OK(pubsub_link_close(link));
    } else if (event.type == PUBSUB_EV_CLOSED) {
      OK(pubsub_link_free(link));
      return 0;
    }
  }
}

int main(int count, char **arguments) {
  char path[] = "/tmp/pubsub-test-XXXXXX", listener[64];
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  pubsub_link *link;
  pubsub_event event;
  uint64_t ticket;
  int index, status;
  pid_t child;
  if (count == 2) return answering(arguments[1]);

  CHECK(mkdtemp(path) != NULL);
  snprintf(listener, sizeof listener, "unix:%s/peers", path);
  OK(pubsub_options_set(options, "listen", "127.0.0.1:0"));
  OK(pubsub_options_set(options, "peers", listener));
  OK(pubsub_options_set(options, "peer-key", "a-secret"));
  OK(pubsub_broker_start(options, &broker));
  OK(pubsub_options_free(options));
  link = open_link(broker, "app");
  OK(pubsub_link_events(link, PUBSUB_EV_PEER_UP | PUBSUB_EV_PEER_DOWN));
  child = fork();
  if (child == 0) {
    execl(arguments[0], arguments[0], listener, (char *)NULL);
    _exit(127);
  }
  CHECK(child > 0);
  event = await(link, PUBSUB_EV_PEER_UP);
  CHECK(IS(event, name, "calc-1"));
  /* It is in; that it handles the event is another call of its own. */
  for (index = 0; index < 1000; index++) {
    OK(pubsub_request(link, pubsub_to_any_peer(), "add", 3, "[5,4]", 5, 0, 0, &ticket));
    event = answer(link, ticket);
    if (event.status != PUBSUB_ENOTFOUND) break;
  }
  CHECK(event.status == PUBSUB_OK && IS(event, data, "9"));
  OK(pubsub_request(link, pubsub_to_peer("calc-1"), "add", 3, "\"x\"", 3, 0, 0, &ticket));
  event = answer(link, ticket);
  CHECK(event.status == PUBSUB_EFAILED && IS(event, error, "not_numbers"));
  OK(pubsub_emit(link, pubsub_to_peer("calc-1"), "end", 3, NULL, 0, 0, NULL));
  await(link, PUBSUB_EV_PEER_DOWN);
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  OK(pubsub_link_free(link));
  OK(pubsub_broker_stop(broker));
  OK(pubsub_broker_free(broker));
  CHECK(rmdir(path) == 0);
  return 0;
}
