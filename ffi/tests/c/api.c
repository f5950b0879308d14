/* Every function of the header, in the order of the header, as it is meant. */
#include "websocket.h"

static void statuses(void) {
  CHECK(strcmp(pubsub_version(), PUBSUB_VERSION) == 0);
  CHECK(strcmp(pubsub_status_text(PUBSUB_OK), "ok") == 0);
  CHECK(strcmp(pubsub_last_error(), "") == 0);
}

static void options(void) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  char address[32];
  CHECK(options != NULL);
  OK(pubsub_options_set(options, "listen", "127.0.0.1:0,127.0.0.1:0"));
  OK(pubsub_options_add(options, "listen", "127.0.0.1:0"));
  OK(pubsub_options_set(options, "max_message", "128KiB"));
  OK(pubsub_options_set(options, "admin", "127.0.0.1:0"));
  CHECK(pubsub_options_set(options, "lisen", "x") == PUBSUB_EINVAL);
  CHECK(strstr(pubsub_last_error(), "`listen`") != NULL);
  CHECK(pubsub_options_set(options, "max-message", "much") == PUBSUB_EINVAL);
  CHECK(pubsub_options_add(options, "max-message", "1KiB") == PUBSUB_EINVAL);
  OK(pubsub_broker_start(options, &broker));
  OK(pubsub_options_free(options));
  OK(pubsub_broker_address(broker, "listen", 2, address, sizeof address));
  CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && strcmp(address, "127.0.0.1:0") != 0);
  OK(pubsub_broker_address(broker, "admin", 0, address, sizeof address));
  CHECK(pubsub_broker_address(broker, "listen", 3, address, sizeof address) == PUBSUB_ENOTFOUND);
  CHECK(pubsub_broker_address(broker, "listen", 0, address, 5) == PUBSUB_EINVAL);
  OK(pubsub_broker_stop(broker));
  CHECK(pubsub_broker_stop(broker) == PUBSUB_ESTOPPED);
  OK(pubsub_broker_free(broker));
}

static void topics(pubsub_broker *broker) {
  pubsub_link *here = open_link(broker, "here"), *there = open_link(broker, "there");
  uint64_t ticket = 0, second;
  pubsub_event event;
  OK(pubsub_subscribe(here, "news", 4, &ticket));
  CHECK(ticket != 0);
  settled(here, ticket);
  OK(pubsub_publish(there, "news.uk", 7, "\"hello\"", 7));
  event = await(here, PUBSUB_EV_MESSAGE);
  CHECK(IS(event, topic, "news.uk") && IS(event, context, "news") && IS(event, data, "\"hello\""));
  CHECK(event.kind == PUBSUB_JSON && event.filter == PUBSUB_DOTTED);
  OK(pubsub_publish_with(there, "news", 4, "\xff", 1, PUBSUB_BINARY, &ticket));
  settled(there, ticket);
  event = await(here, PUBSUB_EV_MESSAGE);
  CHECK(event.kind == PUBSUB_BINARY && event.data_size == 1);
  /* To itself only if it says so. */
  OK(pubsub_publish(here, "news", 4, "1", 1));
  OK(pubsub_publish_with(here, "news", 4, "2", 1, PUBSUB_ECHO, NULL));
  event = await(here, PUBSUB_EV_MESSAGE);
  CHECK(IS(event, data, "2"));
  /* Filters of other kinds, counted channels. */
  OK(pubsub_subscribe_with(here, PUBSUB_GLOB, "ch?t", 4, &ticket));
  settled(here, ticket);
  OK(pubsub_publish_with(there, "chat", 4, "x", 1, PUBSUB_CHANNEL | PUBSUB_TEXT, NULL));
  event = await(here, PUBSUB_EV_MESSAGE);
  CHECK(IS(event, context, "ch?t") && event.filter == PUBSUB_GLOB && event.kind == PUBSUB_TEXT);
  OK(pubsub_unsubscribe_with(here, PUBSUB_GLOB, "ch?t", 4, &ticket));
  settled(here, ticket);
  OK(pubsub_maybe_subscribe(here, "a b", 3, &ticket));
  OK(pubsub_maybe_subscribe(here, "a b", 3, &second));
  settled(here, ticket);
  settled(here, second);
  OK(pubsub_maybe_unsubscribe(here, "a b", 3, &ticket));
  settled(here, ticket);
  OK(pubsub_publish_with(there, "a b", 3, "y", 1, PUBSUB_CHANNEL, NULL));
  event = await(here, PUBSUB_EV_MESSAGE);
  CHECK(IS(event, topic, "a b") && event.filter == PUBSUB_EXACT);
  OK(pubsub_unsubscribe(here, "news", 4, &ticket));
  settled(here, ticket);
  OK(pubsub_link_free(here));
  OK(pubsub_link_close(there));
  event = await(there, PUBSUB_EV_CLOSED);
  CHECK(pubsub_link_drain(there, &event, 1) == -PUBSUB_ESTOPPED);
  CHECK(pubsub_link_wait(there, 0) == PUBSUB_ESTOPPED);
  CHECK(pubsub_publish(there, "news", 4, "1", 1) == PUBSUB_ESTOPPED);
  OK(pubsub_link_free(there));
}

static void requests(pubsub_broker *broker) {
  pubsub_link *calc = open_link(broker, "calc"), *user = open_link(broker, "user");
  uint64_t ticket;
  pubsub_event event;
  OK(pubsub_link_events(user, PUBSUB_EV_PEER_UP));
  OK(pubsub_handle(calc, "add", 3, &ticket));
  settled(calc, ticket);
  OK(pubsub_request(user, pubsub_to_service(), "add", 3, "[5,4]", 5, PUBSUB_JSON, 30000, &ticket));
  event = await(calc, PUBSUB_EV_REQUEST);
  CHECK(IS(event, event, "add") && IS(event, data, "[5,4]") && IS(event, name, "user"));
  CHECK(event.timeout_ms > 0 && event.timeout_ms <= 30000 && event.client.low != 0);
  OK(pubsub_reply(calc, event.request, "9", 1));
  CHECK(pubsub_reply(calc, event.request, "9", 1) == PUBSUB_ENOTFOUND);
  event = answer(user, ticket);
  CHECK(event.status == PUBSUB_OK && IS(event, data, "9") && event.kind == PUBSUB_JSON);
  OK(pubsub_request(user, pubsub_to_peer("calc"), "div", 3, "[1,0]", 5, 0, 0, &ticket));
  event = await(calc, PUBSUB_EV_REQUEST);
  OK(pubsub_reply_error(calc, event.request, "by_zero", "can't be done"));
  event = answer(user, ticket);
  CHECK(event.status == PUBSUB_EFAILED && IS(event, error, "by_zero") && IS(event, reason, "can't be done"));
  OK(pubsub_request(user, pubsub_to_master(), "add", 3, NULL, 0, PUBSUB_TEXT, 0, &ticket));
  event = await(calc, PUBSUB_EV_REQUEST);
  OK(pubsub_reply_with(calc, event.request, "x", 1, PUBSUB_TEXT));
  event = answer(user, ticket);
  CHECK(event.kind == PUBSUB_TEXT);
  OK(pubsub_request(user, pubsub_to_any_peer(), "add", 3, "1", 1, 0, 0, &ticket));
  event = answer(user, ticket);
  CHECK(event.status == PUBSUB_ENOTFOUND);
  OK(pubsub_emit(user, pubsub_to_peer("calc"), "hello", 5, "1", 1, PUBSUB_VOLATILE, NULL));
  event = await(calc, PUBSUB_EV_EVENT);
  CHECK(IS(event, event, "hello") && IS(event, name, "user"));
  OK(pubsub_emit_peers(user, PUBSUB_REGEX, "^ca", 3, "all", 3, "2", 1, 0, &ticket));
  settled(user, ticket);
  event = await(calc, PUBSUB_EV_EVENT);
  CHECK(IS(event, event, "all") && IS(event, data, "2"));
  OK(pubsub_emit_peers(user, PUBSUB_REGEX, "(", 1, "all", 3, "2", 1, 0, &ticket));
  event = answer(user, ticket);
  CHECK(event.status == PUBSUB_EINVAL);
  OK(pubsub_emit_peers(user, PUBSUB_NAME, "calc", 4, "one", 3, "3", 1, 0, NULL));
  OK(pubsub_emit_peers(user, PUBSUB_ALL, NULL, 0, "two", 3, "4", 1, 0, NULL));
  event = await(calc, PUBSUB_EV_EVENT);
  CHECK(IS(event, event, "one"));
  event = await(calc, PUBSUB_EV_EVENT);
  CHECK(IS(event, event, "two"));
  OK(pubsub_unhandle(calc, "add", 3, &ticket));
  settled(calc, ticket);
  OK(pubsub_request(user, pubsub_to_service(), "add", 3, "1", 1, 0, 0, &ticket));
  event = answer(user, ticket);
  CHECK(event.status == PUBSUB_ENOTFOUND && IS(event, error, "no_handler"));
  OK(pubsub_cut_peer(user, "calc", NULL));
  event = await(user, PUBSUB_EV_PEER_DOWN);
  CHECK(IS(event, name, "calc"));
  await(calc, PUBSUB_EV_CLOSED);
  OK(pubsub_admit_peer(user, "friend", &ticket));
  settled(user, ticket);
  OK(pubsub_reject_peer(user, "friend", &ticket));
  settled(user, ticket);
  OK(pubsub_link_free(calc));
  OK(pubsub_link_free(user));
}

static void clients(pubsub_broker *broker) {
  pubsub_link *host = open_link(broker, "host");
  pubsub_event event;
  pubsub_client one, two, again;
  pubsub_rooms to;
  pubsub_text room;
  char id[21];
  uint64_t ticket;
  int first, second;
  size_t index;
  OK(pubsub_link_events(host, PUBSUB_EV_CONNECT | PUBSUB_EV_EVENT | PUBSUB_EV_DISCONNECT | PUBSUB_EV_SUBSCRIBE |
                                  PUBSUB_EV_PUBLISH | PUBSUB_EV_OCCUPIED));
  /* What is said after this is said to somebody who is known. */
  OK(pubsub_handle(host, "ready", 5, &ticket));
  settled(host, ticket);
  first = websocket(broker, "/chat?room=1");
  event = await(host, PUBSUB_EV_CONNECT);
  one = event.client;
  CHECK(event.arrival != NULL && event.arrival->query.size == 6 && memcmp(event.arrival->query.bytes, "room=1", 6) == 0);
  CHECK(event.arrival->path.size == 5 && event.arrival->protocol.size == 6);
  CHECK(event.arrival->user.size == 0 && event.arrival->address.size > 10);
  for (index = 0; index < event.arrival->header_count; index++) {
    const pubsub_header *header = &event.arrival->headers[index];
    if (header->name.size == 6 && strncasecmp(header->name.bytes, "x-test", 6) == 0) break;
  }
  CHECK(index < event.arrival->header_count && event.arrival->headers[index].value.size == 3);
  OK(pubsub_client_text(one, id));
  CHECK(strlen(id) == 20);
  OK(pubsub_client_parse(id, &again));
  CHECK(memcmp(&one, &again, sizeof one) == 0);
  second = websocket(broker, "/");
  two = await(host, PUBSUB_EV_CONNECT).client;
  CHECK(memcmp(&one, &two, sizeof one) != 0);

  say(first, "{\"type\":\"event\",\"event\":\"hi\",\"data\":7}");
  event = await(host, PUBSUB_EV_EVENT);
  CHECK(IS(event, event, "hi") && IS(event, data, "7") && memcmp(&event.client, &one, sizeof one) == 0);
  say(first, "{\"type\":\"request\",\"event\":\"sum\",\"data\":[1,2],\"id\":1}");
  event = await(host, PUBSUB_EV_REQUEST);
  OK(pubsub_reply(host, event.request, "3", 1));
  hears(first, "\"data\":3");
  say(first, "{\"type\":\"subscribe\",\"topic\":\"a.b\"}");
  event = await(host, PUBSUB_EV_SUBSCRIBE);
  CHECK(IS(event, topic, "a.b"));
  hears(first, "\"ack\"");
  say(first, "{\"type\":\"publish\",\"topic\":\"c\",\"message\":5}");
  event = await(host, PUBSUB_EV_PUBLISH);
  CHECK(IS(event, topic, "c"));
  hears(first, "\"ack\"");

  /* Join, then emit: it is there. */
  OK(pubsub_join(host, one, "r", 1, NULL));
  OK(pubsub_emit_room(host, "r", 1, "news", 4, "\"x\"", 3, 0, NULL));
  hears(first, "\"news\"");
  OK(pubsub_join(host, two, "r", 1, &ticket));
  settled(host, ticket);
  memset(&to, 0, sizeof to);
  room.bytes = "r";
  room.size = 1;
  to.rooms = &room;
  to.room_count = 1;
  to.except = one;
  OK(pubsub_emit_rooms(host, &to, "others", 6, "1", 1, 0, NULL));
  hears(second, "\"others\"");
  to.except.high = to.except.low = 0;
  to.except_rooms = &room;
  to.except_room_count = 1;
  OK(pubsub_emit_rooms(host, &to, "nobody", 6, "1", 1, 0, NULL));
  OK(pubsub_leave(host, two, "r", 1, NULL));
  OK(pubsub_emit_room(host, "r", 1, "left", 4, "1", 1, 0, NULL));
  hears(first, "\"left\"");
  OK(pubsub_emit_all(host, "all", 3, "1", 1, 0, NULL));
  hears(first, "\"all\"");
  hears(second, "\"all\"");
  OK(pubsub_emit(host, pubsub_to_client(two), "you", 3, "1", 1, 0, NULL));
  hears(second, "\"you\"");
  OK(pubsub_request(host, pubsub_to_client(two), "ask", 3, "1", 1, 0, 0, &ticket));
  event.request = 0;
  {
    const char *text = hears(second, "\"request\"");
    char reply[128];
    const char *number = strstr(text, "\"id\":");
    CHECK(number != NULL);
    snprintf(reply, sizeof reply, "{\"type\":\"reply\",\"id\":%d,\"data\":\"bar\"}", atoi(number + 5));
    say(second, reply);
  }
  event = answer(host, ticket);
  CHECK(event.status == PUBSUB_OK && IS(event, data, "\"bar\""));
  OK(pubsub_disconnect(host, two, 4001, "enough", NULL));
  hears(second, "closed 4001");
  event = await(host, PUBSUB_EV_DISCONNECT);
  CHECK(event.code == 4001 && memcmp(&event.client, &two, sizeof two) == 0);
  OK(pubsub_disconnect(host, two, 4001, NULL, &ticket));
  event = answer(host, ticket);
  CHECK(event.status == PUBSUB_ENOTFOUND);
  close(first);
  event = await(host, PUBSUB_EV_DISCONNECT);
  CHECK(event.code == 1006);
  close(second);
  OK(pubsub_link_free(host));
}

static void tokens(pubsub_broker *broker) {
  pubsub_link *peer = open_link(broker, "tokens");
  char path[64];
  pubsub_event event;
  uint64_t ticket;
  int client;
  OK(pubsub_accept(peer, "user-01", 7, NULL, &ticket));
  event = answer(peer, ticket);
  CHECK(event.status == PUBSUB_OK && event.data_size == 40);
  snprintf(path, sizeof path, "/?id=%.*s", (int)event.data_size, event.data);
  client = websocket(broker, path);
  event = await(peer, PUBSUB_EV_TOKEN_UP);
  CHECK(IS(event, name, "user-01"));
  OK(pubsub_emit(peer, pubsub_to_token("user-01", 7), "foo", 3, "1", 1, 0, NULL));
  hears(client, "\"foo\"");
  OK(pubsub_reject(peer, "user-01", 7, NULL));
  hears(client, "termination");
  /* The connection goes when it goes; the order of the two is not promised. */
  {
    int rejected = 0, down = 0;
    while (!rejected || !down) {
      event = next(peer);
      rejected |= event.type == PUBSUB_EV_TOKEN_REJECTED;
      down |= event.type == PUBSUB_EV_TOKEN_DOWN;
    }
  }
  close(client);
  OK(pubsub_link_free(peer));
}

static void admission(pubsub_broker *broker) {
  pubsub_link *host = open_link(broker, "admitter");
  pubsub_event event;
  int client;
  uint64_t ticket;
  /* With the answer every shard asks this host. */
  OK(pubsub_link_events_with(host, PUBSUB_EV_ADMIT | PUBSUB_EV_CONNECT, &ticket));
  settled(host, ticket);
  client = dial(broker);
  ask(client, "/");
  event = await(host, PUBSUB_EV_ADMIT);
  OK(pubsub_admit(host, event.client, PUBSUB_OK, NULL));
  CHECK(answered(client) == 101);
  close(client);
  client = dial(broker);
  ask(client, "/");
  event = await(host, PUBSUB_EV_ADMIT);
  OK(pubsub_admit(host, event.client, PUBSUB_ENOTALLOWED, "not you"));
  CHECK(answered(client) == 401);
  close(client);
  client = dial(broker);
  ask(client, "/");
  event = await(host, PUBSUB_EV_ADMIT);
  OK(pubsub_admit_as(host, event.client, "alice"));
  CHECK(answered(client) == 101);
  close(client);
  OK(pubsub_link_free(host));
}

static void log_lines(void) {
  pubsub_broker *broker;
  pubsub_link *link;
  pubsub_event event;
  uint64_t ticket;
  int client;
  /* Something to log: a bug that ends one connection, met with its frame; those before it are the calls of the link. */
  CHECK(setenv("PUBSUB_FAULT", "panic:frame:4", 1) == 0);
  broker = start();
  CHECK(unsetenv("PUBSUB_FAULT") == 0);
  link = open_link(broker, "log");
  OK(pubsub_link_events(link, PUBSUB_EV_LOG));
  OK(pubsub_handle(link, "ready", 5, &ticket));
  settled(link, ticket);
  client = websocket(broker, "/");
  say(client, "{\"type\":\"ping\"}");
  hears(client, "closed 1011");
  event = await(link, PUBSUB_EV_LOG);
  CHECK(event.code == 1 && event.data_size > 0);
  close(client);
  OK(pubsub_link_events(link, 0));
  OK(pubsub_broker_stop(broker));
  await(link, PUBSUB_EV_STOPPED);
  OK(pubsub_link_free(link));
  OK(pubsub_broker_free(broker));
}

int main(void) {
  pubsub_broker *broker;
  pubsub_link *link;
  statuses();
  options();
  broker = start();
  topics(broker);
  clients(broker);
  tokens(broker);
  requests(broker);
  OK(pubsub_broker_free(broker));
  broker = start();
  admission(broker);
  OK(pubsub_broker_free(broker));
  log_lines();
  CHECK(pubsub_connect("unix:/nowhere/at/all", "x", NULL, &link) == PUBSUB_OK);
  CHECK(pubsub_link_fd(link) >= 0);
  await(link, PUBSUB_EV_DOWN);
  OK(pubsub_link_free(link));
  return 0;
}
