/* Every handle and every argument as it must not be: an answer each time, and nothing else happens. */
#include "check.h"

#define NOT(call) CHECK((call) == PUBSUB_EINVAL)
#define NONE(call) CHECK((call) == -PUBSUB_EINVAL)

static void options_that_are_none(pubsub_options *options) {
  NOT(pubsub_options_set(options, "listen", "127.0.0.1:0"));
  NOT(pubsub_options_add(options, "listen", "127.0.0.1:0"));
  NOT(pubsub_options_free(options));
}

static void broker_that_is_none(pubsub_broker *broker) {
  char text[64] = "untouched";
  pubsub_link *link = (pubsub_link *)text;
  NOT(pubsub_broker_address(broker, "listen", 0, text, sizeof text));
  NOT(pubsub_broker_stop(broker));
  NOT(pubsub_broker_free(broker));
  NOT(pubsub_link_open(broker, "x", &link));
  CHECK(strcmp(text, "untouched") == 0 && link == (pubsub_link *)text);
}

static void link_that_is_none(pubsub_link *link) {
  pubsub_client client = {1, 1};
  pubsub_event event;
  pubsub_rooms to;
  uint64_t ticket = 77;
  memset(&to, 0, sizeof to);
  memset(&event, 0x55, sizeof event);
  NONE(pubsub_link_fd(link));
  NONE(pubsub_link_drain(link, &event, 1));
  NOT(pubsub_link_events(link, 0));
  NOT(pubsub_link_events_with(link, 0, &ticket));
  NOT(pubsub_link_adopt(link, 0, 0, NULL, 0));
  NOT(pubsub_link_wait(link, 0));
  NOT(pubsub_link_close(link));
  NOT(pubsub_publish(link, "a", 1, "1", 1));
  NOT(pubsub_publish_with(link, "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_subscribe(link, "a", 1, &ticket));
  NOT(pubsub_subscribe_with(link, PUBSUB_EXACT, "a", 1, &ticket));
  NOT(pubsub_unsubscribe(link, "a", 1, &ticket));
  NOT(pubsub_unsubscribe_with(link, PUBSUB_EXACT, "a", 1, &ticket));
  NOT(pubsub_maybe_subscribe(link, "a", 1, &ticket));
  NOT(pubsub_maybe_unsubscribe(link, "a", 1, &ticket));
  NOT(pubsub_emit(link, pubsub_to_service(), "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_request(link, pubsub_to_service(), "a", 1, "1", 1, 0, 0, &ticket));
  NOT(pubsub_reply(link, 1, "1", 1));
  NOT(pubsub_reply_with(link, 1, "1", 1, 0));
  NOT(pubsub_reply_error(link, 1, "code", "reason"));
  NOT(pubsub_handle(link, "a", 1, &ticket));
  NOT(pubsub_unhandle(link, "a", 1, &ticket));
  NOT(pubsub_admit(link, client, PUBSUB_OK, NULL));
  NOT(pubsub_admit_as(link, client, "alice"));
  NOT(pubsub_join(link, client, "r", 1, &ticket));
  NOT(pubsub_leave(link, client, "r", 1, &ticket));
  NOT(pubsub_disconnect(link, client, 4000, NULL, &ticket));
  NOT(pubsub_emit_room(link, "r", 1, "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_emit_rooms(link, &to, "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_emit_all(link, "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_emit_peers(link, PUBSUB_ALL, NULL, 0, "a", 1, "1", 1, 0, &ticket));
  NOT(pubsub_accept(link, "t", 1, NULL, &ticket));
  NOT(pubsub_reject(link, "t", 1, &ticket));
  NOT(pubsub_admit_peer(link, "p", &ticket));
  NOT(pubsub_reject_peer(link, "p", &ticket));
  NOT(pubsub_cut_peer(link, "p", &ticket));
  NOT(pubsub_link_free(link));
  CHECK(ticket == 77 && event.type == 0x55555555);
}

static void arguments(pubsub_broker *broker, pubsub_link *link) {
  static char large[2 * 1024 * 1024];
  pubsub_client client = {1, 1}, nobody = {0, 0}, parsed = {5, 5};
  pubsub_link *other = NULL;
  pubsub_event events[2];
  pubsub_rooms to;
  pubsub_to odd = pubsub_to_service();
  char text[64];
  uint64_t ticket = 77;
  pubsub_options *options = pubsub_options_new();

  NOT(pubsub_options_set(options, NULL, "x"));
  NOT(pubsub_options_set(options, "listen", NULL));
  NOT(pubsub_options_set(options, "", ""));
  NOT(pubsub_options_set(options, "listen", "\xff"));
  OK(pubsub_options_free(options));
  NOT(pubsub_broker_start(NULL, NULL));
  NOT(pubsub_broker_address(broker, "listen", 0, NULL, 64));
  NOT(pubsub_broker_address(broker, "listen", 0, text, 0));
  CHECK(pubsub_broker_address(broker, "no such", 0, text, sizeof text) == PUBSUB_ENOTFOUND);
  CHECK(pubsub_broker_address(broker, "listen", (size_t)-1, text, sizeof text) == PUBSUB_ENOTFOUND);
  NOT(pubsub_link_open(broker, NULL, &other));
  NOT(pubsub_link_open(broker, "", &other));
  NOT(pubsub_link_open(broker, "a\nb", &other));
  NOT(pubsub_link_open(broker, "x", NULL));
  NOT(pubsub_connect(NULL, "x", NULL, &other));
  NOT(pubsub_connect("nowhere", "x", NULL, &other));
  NOT(pubsub_connect("tcp://127.0.0.1:1", "x", NULL, NULL));
  CHECK(other == NULL);

  NONE(pubsub_link_drain(link, NULL, 1));
  NONE(pubsub_link_drain(link, events, 0));
  NONE(pubsub_link_drain(link, (pubsub_event *)((char *)events + 1), 1));
  NOT(pubsub_link_events(link, 0x80000000u));
  NOT(pubsub_link_adopt(link, 0, -1, NULL, 0));
  NOT(pubsub_link_adopt(link, 0, 2, NULL, 0));
  NOT(pubsub_link_adopt(link, 0, 12345, NULL, 0));
  NOT(pubsub_link_adopt(link, 70000, 0, NULL, 0));
  NOT(pubsub_publish(link, NULL, 1, "1", 1));
  NOT(pubsub_publish(link, "a", 1, NULL, 1));
  NOT(pubsub_publish(link, "a", (size_t)-1, "1", 1));
  NOT(pubsub_publish(link, "", 0, "1", 1));
  NOT(pubsub_publish(link, "a..b", 4, "1", 1));
  NOT(pubsub_publish(link, "a.*", 3, "1", 1));
  NOT(pubsub_publish(link, large, 300, "1", 1));
  NOT(pubsub_publish(link, "a", 1, large, sizeof large));
  NOT(pubsub_publish_with(link, "a", 1, "1", 1, PUBSUB_VOLATILE, NULL));
  NOT(pubsub_publish_with(link, "a", 1, "1", 1, 0x1000, NULL));
  NOT(pubsub_publish_with(link, "a", 1, "1", 1, 0, (uint64_t *)((char *)&ticket + 1)));
  NOT(pubsub_subscribe(link, "a..b", 4, NULL));
  NOT(pubsub_subscribe_with(link, 9, "a", 1, NULL));
  NOT(pubsub_maybe_subscribe(link, "a", 1, NULL));
  NOT(pubsub_emit(link, pubsub_to_peer(NULL), "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_emit(link, pubsub_to_client(nobody), "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_emit(link, pubsub_to_service(), "", 0, "1", 1, 0, NULL));
  NOT(pubsub_emit(link, pubsub_to_service(), large, 256, "1", 1, 0, NULL));
  odd.type = 99;
  NOT(pubsub_emit(link, odd, "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_request(link, pubsub_to_service(), "a", 1, "1", 1, 0, 0, NULL));
  CHECK(pubsub_reply(link, 12345, "1", 1) == PUBSUB_ENOTFOUND);
  CHECK(pubsub_reply_error(link, 0, "code", "reason") == PUBSUB_ENOTFOUND);
  NOT(pubsub_reply_error(link, 1, NULL, "reason"));
  NOT(pubsub_reply_error(link, 1, "code", NULL));
  NOT(pubsub_handle(link, NULL, 0, NULL));
  NOT(pubsub_admit(link, nobody, PUBSUB_OK, NULL));
  NOT(pubsub_admit_as(link, client, NULL));
  NOT(pubsub_join(link, nobody, "r", 1, NULL));
  NOT(pubsub_join(link, client, large, 1025, NULL));
  NOT(pubsub_disconnect(link, client, 1006, NULL, NULL));
  NOT(pubsub_disconnect(link, client, 70000 + 4000, NULL, NULL));
  NOT(pubsub_emit_rooms(link, NULL, "a", 1, "1", 1, 0, NULL));
  memset(&to, 0, sizeof to);
  to.room_count = 1;
  NOT(pubsub_emit_rooms(link, &to, "a", 1, "1", 1, 0, NULL));
  to.room_count = (size_t)-1 / 2;
  NOT(pubsub_emit_rooms(link, &to, "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_emit_peers(link, 9, "p", 1, "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_emit_peers(link, PUBSUB_NAME, NULL, 0, "a", 1, "1", 1, 0, NULL));
  NOT(pubsub_accept(link, "", 0, NULL, &ticket));
  NOT(pubsub_accept(link, "t", 1, NULL, NULL));
  NOT(pubsub_cut_peer(link, "", NULL));
  NOT(pubsub_client_text(nobody, text));
  NOT(pubsub_client_text(client, NULL));
  NOT(pubsub_client_parse(NULL, &parsed));
  NOT(pubsub_client_parse("short", &parsed));
  NOT(pubsub_client_parse("AAAAAAAAAAAAAAAAAAAA", NULL));
  CHECK(ticket == 77 && parsed.high == 5 && parsed.low == 5);
  CHECK(strlen(pubsub_status_text(-5)) > 0 && strlen(pubsub_status_text(5000)) > 0);
}

int main(void) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker = start();
  pubsub_link *link = open_link(broker, "link"), *freed = open_link(broker, "freed");
  pubsub_link *all[1024];
  char local[64] = "local";
  size_t count = 0, index;
  CHECK(options != NULL);

  arguments(broker, link);
  options_that_are_none(NULL);
  options_that_are_none((pubsub_options *)local);
  options_that_are_none((pubsub_options *)broker);
  options_that_are_none((pubsub_options *)(local + 1));
  broker_that_is_none(NULL);
  broker_that_is_none((pubsub_broker *)local);
  broker_that_is_none((pubsub_broker *)link);
  broker_that_is_none((pubsub_broker *)~(uintptr_t)0);
  link_that_is_none(NULL);
  link_that_is_none((pubsub_link *)local);
  link_that_is_none((pubsub_link *)broker);
  link_that_is_none((pubsub_link *)options);
  link_that_is_none((pubsub_link *)1);

  OK(pubsub_options_free(options));
  options_that_are_none(options);
  OK(pubsub_link_free(freed));
  link_that_is_none(freed);
  /* Its place is taken by others, and it is none all the same. */
  while (count < 1024 && (all[count] = NULL, 1)) {
    char name[32];
    pubsub_status status;
    snprintf(name, sizeof name, "n%u", (unsigned)count);
    status = pubsub_link_open(broker, name, &all[count]);
    if (status != PUBSUB_OK) {
      CHECK(status == PUBSUB_EFULL || status == PUBSUB_ESYSTEM);
      break;
    }
    CHECK(all[count] != freed);
    count++;
    if (count == 40) break;
  }
  CHECK(count == 40);
  link_that_is_none(freed);
  for (index = 0; index < count; index++) OK(pubsub_link_free(all[index]));

  /* A link outlives its broker, and says so. */
  OK(pubsub_broker_free(broker));
  broker_that_is_none(broker);
  await(link, PUBSUB_EV_STOPPED);
  CHECK(pubsub_publish(link, "a", 1, "1", 1) == PUBSUB_ESTOPPED);
  OK(pubsub_link_free(link));
  link_that_is_none(link);
  return 0;
}
