/* A chat in one program: the broker, and the application that hosts its clients in rooms.
 *
 *   ./chat [ADDRESS]                   (127.0.0.1:8000)
 *
 * Speak to it from any page of this machine:
 *
 *   ws = new WebSocket('ws://localhost:8000/?room=tea')
 *   ws.onmessage = (e) => console.log(e.data)
 *   ws.send(JSON.stringify({ type: 'event', event: 'chat', data: 'hello' }))
 */
#include <pubsub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX 1024

/* Who is here, and in which room. */
static struct {
  pubsub_client client;
  char room[64];
} guests[CLIENTS_MAX];
static size_t guest_count;

static void die(const char *what) {
  fprintf(stderr, "chat: %s: %s\n", what, pubsub_last_error());
  exit(1);
}

static int same(pubsub_client a, pubsub_client b) { return a.high == b.high && a.low == b.low; }

static char *room_of(pubsub_client client) {
  for (size_t i = 0; i < guest_count; i++)
    if (same(guests[i].client, client)) return guests[i].room;
  return NULL;
}

static void comes(pubsub_link *link, const pubsub_event *event) {
  const pubsub_arrival *arrival = event->arrival;
  const char *room = "lobby";
  size_t size = strlen(room);
  if (arrival->query.size > 5 && memcmp(arrival->query.bytes, "room=", 5) == 0) {
    room = arrival->query.bytes + 5;
    size = arrival->query.size - 5;
  }
  if (guest_count == CLIENTS_MAX || size >= sizeof guests[0].room) {
    pubsub_disconnect(link, event->client, 4000, "no room for you", NULL);
    return;
  }
  guests[guest_count].client = event->client;
  memcpy(guests[guest_count].room, room, size);
  guests[guest_count].room[size] = 0;
  guest_count++;
  pubsub_join(link, event->client, room, size, NULL);
  /* A call takes effect after those before it: the new one hears this too. */
  pubsub_emit_room(link, room, size, "joined", 6, "\"somebody\"", 10, PUBSUB_JSON, NULL);
}

static void goes(pubsub_link *link, pubsub_client client) {
  for (size_t i = 0; i < guest_count; i++) {
    if (!same(guests[i].client, client)) continue;
    pubsub_emit_room(link, guests[i].room, strlen(guests[i].room), "left", 4, "\"somebody\"", 10, PUBSUB_JSON, NULL);
    guests[i] = guests[--guest_count];
    return;
  }
}

int main(int argc, char **argv) {
  pubsub_options *options = pubsub_options_new();
  pubsub_broker *broker;
  pubsub_link *link;
  char address[128];
  if (pubsub_options_set(options, "listen", argc > 1 ? argv[1] : "127.0.0.1:8000")) die("listen");
  if (pubsub_broker_start(options, &broker)) die("broker");
  pubsub_options_free(options);
  if (pubsub_link_open(broker, "chat", &link)) die("link");
  if (pubsub_link_events(link, PUBSUB_EV_CONNECT | PUBSUB_EV_EVENT | PUBSUB_EV_DISCONNECT)) die("events");
  if (pubsub_broker_address(broker, "listen", 0, address, sizeof address)) die("address");
  printf("chat on %s\n", address);
  fflush(stdout);
  while (pubsub_link_wait(link, -1) == PUBSUB_OK) {
    pubsub_event events[64];
    int count = pubsub_link_drain(link, events, 64);
    for (int i = 0; i < count; i++) {
      const pubsub_event *event = &events[i];
      char *room;
      switch (event->type) {
        case PUBSUB_EV_CONNECT: comes(link, event); break;
        case PUBSUB_EV_DISCONNECT: goes(link, event->client); break;
        case PUBSUB_EV_EVENT:
          room = room_of(event->client);
          if (room != NULL)
            pubsub_emit_room(link, room, strlen(room), event->event, event->event_size, event->data, event->data_size,
                             event->kind, NULL);
          break;
      }
    }
  }
  pubsub_link_free(link);
  pubsub_broker_free(broker);
  return 0;
}
